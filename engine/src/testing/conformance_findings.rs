//! What every store promises of censuses and findings, as cases beside those of [`conformance`](super::conformance).

#![allow(clippy::unwrap_used, reason = "a case fails by panicking")]

use std::time::Duration;

use futures::future::BoxFuture;

use super::conformance::Subject;
use crate::activity::secs;
use crate::env::Timestamp;
use crate::ids::{FindingId, SagaId};
use crate::sweep::{
    CensusClaim, CensusEnd, FindingClass, FindingFilter, FindingRow, Observed, Settled, Settlement, Sighting,
};

/// One promise, and the code that tries it.
pub type Case = (&'static str, for<'s> fn(&'s Subject) -> BoxFuture<'s, ()>);

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case, by the promise it is about.
        pub const CASES: &[Case] = &[$((stringify!($name), |subject| Box::pin($name(subject)))),*];
    };
}

cases! {
    a_census_is_one_workers_until_it_ends_or_its_time_is_up,
    a_census_that_is_not_believed_leaves_the_age_of_the_last_that_was,
    a_thing_that_is_seen_again_is_one_finding_with_its_first_sight,
    a_finding_that_is_settled_is_settled_once_and_comes_again_as_another,
    a_finding_that_is_ignored_stays_so_while_it_is_seen,
    findings_are_listed_by_what_they_are_newest_first,
    what_was_settled_long_ago_is_forgotten_and_what_is_ignored_is_not,
    what_a_provider_says_is_kept_whatever_it_is,
}

const LEASE: Duration = secs(15);

fn claim(holder: &str, at: Timestamp, now: bool) -> CensusClaim {
    CensusClaim { provider: "cloud".into(), holder: holder.into(), at, until: at.plus(LEASE), now }
}

fn end(holder: &str, at: Timestamp, outcome: Result<(usize, usize), String>) -> CensusEnd {
    CensusEnd { provider: "cloud".into(), holder: holder.into(), at, next_at: at.plus(secs(300)), outcome }
}

fn sighting(class: FindingClass, id: &str) -> Sighting {
    Sighting::unexplained(class, &Observed::new("machine", id, format!("name of {id}")))
}

fn by(how: Settlement, by: &str, at: Timestamp) -> Settled {
    Settled { how, at, by: by.into(), reason: Some("because".into()) }
}

impl Subject {
    async fn sees(&self, sightings: &[Sighting], at: Timestamp) {
        self.store.sighted(&self.env, "cloud", sightings, at).await.unwrap();
    }

    async fn found(&self, filter: FindingFilter) -> Vec<FindingRow> {
        self.store.findings(filter).await.unwrap()
    }

    async fn open(&self) -> Vec<FindingRow> {
        self.found(FindingFilter { open: Some(true), ..FindingFilter::default() }).await
    }
}

async fn a_census_is_one_workers_until_it_ends_or_its_time_is_up(subject: &Subject) {
    let (store, began) = (&subject.store, subject.env.now());
    let row = store.begin_census(claim("one", began, false)).await.unwrap().unwrap();
    assert_eq!(row.holder, Some(("one".into(), began.plus(LEASE))), "{}", subject.name);
    assert_eq!((row.started_at, row.completed_at), (Some(began), None));
    for now in [false, true] {
        assert_eq!(store.begin_census(claim("two", began, now)).await.unwrap(), None, "{}", subject.name);
    }
    // Whoever has it renews it; its beginning stays.
    let later = began.plus(secs(10));
    let row = store.begin_census(claim("one", later, false)).await.unwrap().unwrap();
    assert_eq!((row.holder.unwrap().1, row.started_at), (later.plus(LEASE), Some(began)), "{}", subject.name);
    assert_eq!(store.begin_census(claim("two", began.plus(LEASE), false)).await.unwrap(), None);
    // One that is gone loses it, and then writes nothing.
    let over = later.plus(LEASE);
    let row = store.begin_census(claim("two", over, false)).await.unwrap().unwrap();
    assert_eq!((row.holder.unwrap().0, row.started_at), ("two".into(), Some(over)), "{}", subject.name);
    assert!(!store.end_census(end("one", over, Ok((1, 1)))).await.unwrap(), "{}", subject.name);
    assert!(store.end_census(end("two", over, Ok((3, 7)))).await.unwrap(), "{}", subject.name);
    let row = store.censuses().await.unwrap().pop().unwrap();
    assert_eq!((row.holder, row.completed_at, row.pages, row.things), (None, Some(over), 3, 7));
    // It is not due again before its time, unless somebody asks for it now.
    let soon = over.plus(secs(299));
    assert_eq!(store.begin_census(claim("one", soon, false)).await.unwrap(), None, "{}", subject.name);
    assert!(store.begin_census(claim("one", soon, true)).await.unwrap().is_some(), "{}", subject.name);
}

async fn a_census_that_is_not_believed_leaves_the_age_of_the_last_that_was(subject: &Subject) {
    let (store, began) = (&subject.store, subject.env.now());
    assert!(!store.accept_absence("cloud", "ann: closed").await.unwrap(), "{}", subject.name);
    store.begin_census(claim("one", began, true)).await.unwrap().unwrap();
    store.end_census(end("one", began, Ok((1, 2)))).await.unwrap();
    assert!(store.accept_absence("cloud", "ann: closed").await.unwrap(), "{}", subject.name);
    for number in 1..=2 {
        let at = began.plus(secs(number));
        store.begin_census(claim("one", at, true)).await.unwrap().unwrap();
        store.end_census(end("one", at, Err(format!("503, {number}")))).await.unwrap();
    }
    let row = store.censuses().await.unwrap().pop().unwrap();
    assert_eq!(row.problem, Some(("503, 2".into(), began.plus(secs(2)))), "{}", subject.name);
    assert_eq!((row.failures, row.completed_at, row.things), (2, Some(began), 2), "{}", subject.name);
    assert_eq!(row.accepts_absence.as_deref(), Some("ann: closed"), "it was not used, {}", subject.name);
    let at = began.plus(secs(9));
    store.begin_census(claim("one", at, true)).await.unwrap().unwrap();
    store.end_census(end("one", at, Ok((1, 0)))).await.unwrap();
    let row = store.censuses().await.unwrap().pop().unwrap();
    assert_eq!((row.failures, row.problem, row.accepts_absence), (0, None, None), "{}", subject.name);
}

async fn a_thing_that_is_seen_again_is_one_finding_with_its_first_sight(subject: &Subject) {
    let began = subject.env.now();
    let orphan = sighting(FindingClass::Orphan, "m1");
    subject.sees(&[orphan.clone(), sighting(FindingClass::Foreign, "m1")], began).await;
    // The same census again, or one by mistake beside it, is no further sight.
    subject.sees(std::slice::from_ref(&orphan), began).await;
    subject.sees(std::slice::from_ref(&orphan), Timestamp(began.0 - 1)).await;
    let renamed = Sighting { name: "other".into(), detail: Some("why".into()), ..orphan };
    subject.sees(&[renamed], began.plus(secs(60))).await;
    let rows = subject.open().await;
    assert_eq!(rows.len(), 2, "{}", subject.name);
    let row = rows.iter().find(|row| row.class == FindingClass::Orphan).unwrap();
    assert_eq!((row.first_seen_at, row.last_seen_at), (began, began.plus(secs(60))), "{}", subject.name);
    assert_eq!((row.times_seen, row.name.as_str(), row.detail.as_deref()), (2, "other", Some("why")));
    assert!(row.is_certain(secs(60)) && !row.is_certain(secs(61)));
    let many: Vec<Sighting> = (0..120).map(|n| sighting(FindingClass::Ghost, &format!("g{n}"))).collect();
    subject.sees(&many, began).await;
    let all = FindingFilter { class: Some(FindingClass::Ghost), limit: 1000, ..FindingFilter::default() };
    assert_eq!(subject.found(all).await.len(), 120, "{}", subject.name);
}

async fn a_finding_that_is_settled_is_settled_once_and_comes_again_as_another(subject: &Subject) {
    let (store, began) = (&subject.store, subject.env.now());
    subject.sees(&[sighting(FindingClass::Orphan, "m1")], began).await;
    let first = subject.open().await.pop().unwrap();
    let saga = SagaId::from_uuid(subject.env.uuid());
    assert!(store.note_removal(&first.id, &saga).await.unwrap(), "{}", subject.name);
    let settled = by(Settlement::Removed, saga.as_str(), began);
    assert!(store.settle_finding(&first.id, settled.clone()).await.unwrap(), "{}", subject.name);
    let again = by(Settlement::Adopted, "ann", began);
    assert!(!store.settle_finding(&first.id, again).await.unwrap(), "twice, {}", subject.name);
    let nobody = FindingId::from_uuid(subject.env.uuid());
    assert!(!store.settle_finding(&nobody, settled.clone()).await.unwrap(), "{}", subject.name);
    assert!(!store.note_removal(&nobody, &saga).await.unwrap(), "{}", subject.name);
    assert!(subject.open().await.is_empty(), "{}", subject.name);
    subject.sees(&[sighting(FindingClass::Orphan, "m1")], began.plus(secs(60))).await;
    let second = subject.open().await.pop().unwrap();
    assert!(second.id != first.id && second.first_seen_at == began.plus(secs(60)), "{}", subject.name);
    let only = FindingFilter { id: Some(first.id.clone()), ..FindingFilter::default() };
    let known = subject.found(only).await.pop().unwrap();
    assert_eq!((known.removal, known.settled), (Some(saga), Some(settled)), "{}", subject.name);
}

async fn a_finding_that_is_ignored_stays_so_while_it_is_seen(subject: &Subject) {
    let (store, began) = (&subject.store, subject.env.now());
    subject.sees(&[sighting(FindingClass::Orphan, "m1")], began).await;
    let row = subject.open().await.pop().unwrap();
    assert!(store.settle_finding(&row.id, by(Settlement::Ignored, "ann", began)).await.unwrap());
    subject.sees(&[sighting(FindingClass::Orphan, "m1")], began.plus(secs(60))).await;
    assert!(subject.open().await.is_empty(), "{}", subject.name);
    let all = subject.found(FindingFilter::default()).await;
    assert_eq!((all.len(), all[0].times_seen), (1, 2), "{}", subject.name);
    // It can still come to another end.
    assert!(store.settle_finding(&row.id, by(Settlement::Removed, "ben", began)).await.unwrap());
    assert!(!store.settle_finding(&row.id, by(Settlement::Ignored, "ann", began)).await.unwrap());
}

async fn findings_are_listed_by_what_they_are_newest_first(subject: &Subject) {
    let began = subject.env.now();
    let classes = [FindingClass::Orphan, FindingClass::Ghost, FindingClass::Foreign, FindingClass::Drift];
    for (number, class) in classes.into_iter().enumerate() {
        let sighting = Sighting { holder: Some(format!("h{number}")), ..sighting(class, "m1") };
        subject.sees(&[sighting], began).await;
    }
    subject.store.sighted(&subject.env, "other", &[sighting(classes[0], "m1")], began).await.unwrap();
    let all = subject.found(FindingFilter::default()).await;
    assert_eq!(all.len(), 5, "{}", subject.name);
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id), "{}", subject.name);
    let page = FindingFilter { limit: 2, before: Some(all[1].id.clone()), ..FindingFilter::default() };
    assert_eq!(subject.found(page).await, all[2..4], "{}", subject.name);
    let of = |filter| async { subject.found(filter).await.len() };
    let default = FindingFilter::default;
    assert_eq!(of(FindingFilter { provider: Some("cloud".into()), ..default() }).await, 4);
    assert_eq!(of(FindingFilter { class: Some(FindingClass::Orphan), ..default() }).await, 2);
    assert_eq!(of(FindingFilter { holder: Some("h3".into()), ..default() }).await, 1);
    let settled = by(Settlement::Vanished, "sweep", began);
    assert!(subject.store.settle_finding(&all[0].id, settled).await.unwrap());
    assert_eq!(of(FindingFilter { open: Some(true), ..default() }).await, 4, "{}", subject.name);
    assert_eq!(of(FindingFilter { open: Some(false), ..default() }).await, 1, "{}", subject.name);
}

async fn what_was_settled_long_ago_is_forgotten_and_what_is_ignored_is_not(subject: &Subject) {
    let (store, began) = (&subject.store, subject.env.now());
    let some: Vec<Sighting> = ["m1", "m2", "m3"].map(|id| sighting(FindingClass::Orphan, id)).into();
    subject.sees(&some, began).await;
    let of = |rows: &[FindingRow], id: &str| {
        rows.iter().find(|row| row.external_id == id).map(|row| row.id.clone()).unwrap()
    };
    let rows = subject.open().await;
    store.settle_finding(&of(&rows, "m1"), by(Settlement::Ignored, "ann", began)).await.unwrap();
    store.settle_finding(&of(&rows, "m2"), by(Settlement::Removed, "sg", began)).await.unwrap();
    store.forget_findings(began).await.unwrap();
    assert_eq!(subject.found(FindingFilter::default()).await.len(), 3, "{}", subject.name);
    store.forget_findings(began.plus(secs(1))).await.unwrap();
    let left = subject.found(FindingFilter::default()).await;
    assert!(left.len() == 2 && left.iter().all(|row| row.external_id != "m2"), "{}", subject.name);
}

/// One text that a database does not take would keep every finding of its provider out, for ever.
async fn what_a_provider_says_is_kept_whatever_it_is(subject: &Subject) {
    let (store, at) = (&subject.store, subject.env.now());
    let odd = format!("a\0{}", "ö".repeat(10_000));
    store.begin_census(claim("one", at, true)).await.unwrap().unwrap();
    let mut seen = sighting(FindingClass::Drift, "odd");
    (seen.account, seen.detail) = (Some(odd.clone()), Some(odd.clone()));
    for at in [at, at.plus(secs(1))] {
        subject.sees(&[seen.clone(), sighting(FindingClass::Drift, "plain")], at).await;
    }
    let open = subject.open().await;
    let kept = open.iter().find(|row| row.external_id == "odd").unwrap();
    assert_eq!((open.len(), kept.times_seen), (2, 2), "{}: {open:?}", subject.name);
    for (text, most) in [(&kept.account, 1010), (&kept.detail, 4110)] {
        let text = text.as_ref().unwrap();
        assert!(text.starts_with("a\u{fffd}ö") && text.len() < most, "{}: {}", subject.name, text.len());
    }
    assert!(store.end_census(end("one", at, Err(odd))).await.unwrap(), "{}", subject.name);
    let census = store.censuses().await.unwrap().pop().unwrap();
    assert!(census.problem.unwrap().0.starts_with("a\u{fffd}ö"), "{}", subject.name);
}
