//! Run: one sweep of one provider, from the right to make it to what is written of it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::calls::{CALL, Calls};
use super::remove::objection;
use super::{
    Ask, Bounds, CensusClaim, CensusEnd, CensusRow, Comparison, FindingClass, FindingFilter, FindingRow,
    Identity, Listed, Look, Looks, Observed, OrphanRemoval, Provider, RemoveOrphan, Settled, Settlement,
    Sighting, Sweep, Verdict, compare, differences, ended, judge, read_list, to_remove,
};
use crate::activity::Failure;
use crate::activity::attempt::panicked;
use crate::engine::Engine;
use crate::env::Timestamp;
use crate::ids::{FindingId, ResourceId};
use crate::store::lease::{LEASE, RENEW};
use crate::store::{Error, NewSaga, ResourceFilter, ResourceRow, ResourceState, Started, Store};
use crate::worker::{self, Shared};

/// So many foreign things are shown at most.
const FOREIGN_MAX: usize = 1000;
/// How long it takes until a sweep that another is making is asked for again.
const ELSEWHERE: Duration = Duration::from_secs(5);

/// What one sweep of one provider came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// At which provider.
    pub provider: String,
    /// Why its list is not believed; nothing if it is.
    pub problem: Option<String>,
    /// What is open there afterwards.
    pub findings: Vec<FindingRow>,
    /// How many removals were begun.
    pub removals: usize,
}

/// What a believed census came to.
struct Census {
    listed: Listed,
    sightings: Vec<Sighting>,
    ended: Vec<(FindingId, Settlement)>,
}

/// Sweeps one provider for as long as the engine runs.
pub(crate) async fn keep(shared: Arc<Shared>, provider: Arc<dyn Provider>, sweep: Sweep) {
    let unswept = format!("the sweep of {} cannot be written or read", provider.name());
    loop {
        let run = Run { shared: &shared, provider: &provider, sweep: &sweep };
        let wait = match run.once(false).await {
            Ok(_) => {
                shared.trouble.went_well(&unswept);
                run.wait().await
            }
            Err(error) => {
                shared.trouble.failed(&unswept, error.to_string(), &shared.env);
                ELSEWHERE
            }
        };
        shared.env.sleep(wait).await;
    }
}

/// One provider, and how it is swept.
pub(crate) struct Run<'r> {
    pub(crate) shared: &'r Arc<Shared>,
    pub(crate) provider: &'r Arc<dyn Provider>,
    pub(crate) sweep: &'r Sweep,
}

impl Run<'_> {
    fn store(&self) -> &dyn Store {
        self.shared.store.as_ref()
    }

    fn name(&self) -> String {
        self.provider.name().to_owned()
    }

    fn settle_after(&self) -> Duration {
        self.shared.env.paced(self.provider.settle_after())
    }

    fn grace(&self) -> Duration {
        self.shared.env.paced(self.sweep.grace).max(self.settle_after())
    }

    /// How long until the next one is due, or whoever makes one now may have died.
    async fn wait(&self) -> Duration {
        let now = self.shared.env.now();
        let every = self.shared.env.paced(self.sweep.every);
        let all = self.store().censuses().await.unwrap_or_default();
        let row = all.into_iter().find(|row| row.provider == self.provider.name());
        let next = row.map_or(every, |row| match row.holder {
            Some((_, until)) => until.max(row.next_at).since(now).min(every),
            None => row.next_at.since(now).min(every),
        });
        next.max(Duration::from_millis(1))
    }

    /// Makes a census if it is due (or `now`) and nobody else does, and writes what it came to.
    pub(crate) async fn once(&self, now: bool) -> Result<Option<Swept>, Error> {
        let env = &self.shared.env;
        let holder = env.uuid().to_string();
        let claim = |now: bool| {
            let at = env.now();
            CensusClaim { provider: self.name(), holder: holder.clone(), at, until: at.plus(LEASE), now }
        };
        let Some(row) = self.store().begin_census(claim(now)).await? else { return Ok(None) };
        let began = env.now();
        let deadline = began.plus(self.sweep.time_limit);
        let held = async {
            loop {
                env.sleep(RENEW).await;
                // One that is lost is noticed when its end is written.
                let _ = self.store().begin_census(claim(false)).await;
            }
        };
        let census = self.census(began, deadline, &row.accepts_absence);
        let made = tokio::select! {
            biased;
            made = tokio::time::timeout(self.sweep.time_limit, unpanicked(census)) => made,
            () = held => Ok(Some(Err(Error::Closed))),
        };
        let census = match made {
            Ok(Some(Ok(census))) => census,
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) => Err(panicked(&format!("the provider {}", self.provider.name()))),
            Err(_) => {
                let limit = humantime::format_duration(self.sweep.time_limit);
                Err(format!("the census was not over within {limit}"))
            }
        };
        let outcome = match &census {
            Ok(census) => Ok((census.listed.pages, census.listed.things.len())),
            Err(problem) => Err(problem.clone()),
        };
        if let Ok(census) = &census {
            self.write(census, began).await?;
        }
        let at = env.now();
        let next_at = began.plus(env.paced(self.sweep.every)).max(at);
        let end = CensusEnd { provider: self.name(), holder, at, next_at, outcome };
        self.store().end_census(end).await?;
        self.log(&row, census.as_ref().err());
        let mut swept = Swept { provider: self.name(), problem: census.err(), ..Swept::default() };
        let open = self.open().await?;
        // A list that was not believed says nothing of what there is, also not that it is still there.
        if swept.problem.is_none() {
            for FindingRow { class, kind, name, holder, .. } in
                open.iter().filter(|row| row.first_seen_at == began)
            {
                let provider = self.provider.name();
                tracing::warn!(provider, %class, kind, name, ?holder, "the provider and the ledger differ");
            }
            swept.removals = self.remove(&open).await?;
            self.tell(&open).await;
            let before = Timestamp(
                at.0.saturating_sub(i64::try_from(self.sweep.kept.as_micros()).unwrap_or(i64::MAX)),
            );
            self.store().forget_findings(before).await?;
        }
        swept.findings = open;
        Ok(Some(swept))
    }

    /// Says when something changes: that a provider begins to fail, and that it is believed again.
    fn log(&self, before: &CensusRow, problem: Option<&String>) {
        let provider = self.provider.name();
        match (&before.problem, problem) {
            (None, Some(problem)) => tracing::warn!(provider, problem, "a census is not believed"),
            (Some(_), None) => {
                tracing::info!(provider, failures = before.failures, "a census is believed again");
            }
            _ => {}
        }
    }

    /// Reads ledger, list and ledger, and compares them; or why that says nothing.
    async fn census(
        &self,
        began: Timestamp,
        deadline: Timestamp,
        accepts_absence: &Option<String>,
    ) -> Result<Result<Census, String>, Error> {
        let calls = Calls { shared: self.shared, deadline };
        let kinds: Vec<&str> = self.provider.kinds().iter().map(|kind| kind.name).collect();
        let of_kind = |mut rows: Vec<ResourceRow>| {
            rows.retain(|row| kinds.contains(&row.kind.as_str()));
            rows
        };
        let before = of_kind(read_ledger(self.store(), self.provider.name()).await?);
        let bounds = Bounds { pages: self.sweep.pages_max, things: self.sweep.things_max };
        let read = read_list(bounds, |cursor| {
            let calls = &calls;
            async move {
                let gates = self.provider.gates(Ask::List(cursor.as_deref()));
                calls
                    .call(
                        &format!("list of {}", self.provider.name()),
                        gates,
                        self.provider.list(cursor.as_deref()),
                    )
                    .await
            }
        });
        let listed = match read.await {
            Ok(listed) => listed,
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        let after = of_kind(read_ledger(self.store(), self.provider.name()).await?);
        let comparison = compare(&before, &after, &listed.things, began, self.settle_after());
        let open = self.open().await?;
        let ghosts = match self.ghosts(&calls, &comparison, &open, accepts_absence.is_some()).await? {
            Ok(ghosts) => ghosts,
            Err(problem) => return Ok(Err(problem)),
        };
        let mut sightings = match self.unexplained(&comparison).await? {
            Ok(sightings) => sightings,
            Err(problem) => return Ok(Err(problem)),
        };
        let is_missing = "the ledger has it as live, and it is not there";
        sightings.extend(
            ghosts.iter().map(|row| Sighting::of_row(FindingClass::Ghost, row, is_missing.to_owned())),
        );
        sightings.extend(self.drifts(&comparison).await);
        let is_listed = |row: &FindingRow| {
            listed.things.iter().any(|thing| thing.kind == row.kind && thing.external_id == row.external_id)
        };
        let is_live =
            |id: &ResourceId| after.iter().any(|row| row.id == *id && row.state == ResourceState::Live);
        // What is being removed is on the ledger for that; its saga settles it.
        let mut settleable = Vec::new();
        for row in open {
            if !is_under_removal(self.store(), &row).await? {
                settleable.push(row);
            }
        }
        let ended = ended(&settleable, &sightings, is_listed, is_live, began, self.settle_after());
        let ended = self.looked_for(&calls, &settleable, ended).await;
        Ok(Ok(Census { listed, sightings, ended }))
    }

    /// Leaves open what has vanished by the list alone: that of an orphan or something foreign is believed only with a
    /// direct look, since a list that lacks it now and then would begin its grace anew each time.
    async fn looked_for(
        &self,
        calls: &Calls<'_>,
        open: &[FindingRow],
        ended: Vec<(FindingId, Settlement)>,
    ) -> Vec<(FindingId, Settlement)> {
        let what = format!("read of {}", self.provider.name());
        let (mut all, mut looks) = (Vec::new(), 0);
        for (id, how) in ended {
            let is_it = |row: &&FindingRow| {
                row.id == id && matches!(row.class, FindingClass::Orphan | FindingClass::Foreign)
            };
            if how == Settlement::Vanished
                && let Some(row) = open.iter().find(is_it)
            {
                // What is not looked at now is with the next census.
                looks += 1;
                if looks > self.sweep.looks_max {
                    continue;
                }
                let thing = row.identity();
                let gates = self.provider.gates(Ask::Read(&thing));
                if !matches!(calls.call(&what, gates, self.provider.read(&thing)).await, Ok(None)) {
                    continue;
                }
            }
            all.push((id, how));
        }
        all
    }

    /// The rows that were absent twice; or why the list is not believed.
    async fn ghosts(
        &self,
        calls: &Calls<'_>,
        comparison: &Comparison,
        open: &[FindingRow],
        accepts_absence: bool,
    ) -> Result<Result<Vec<ResourceRow>, String>, Error> {
        let known = open.iter().filter(|row| row.class == FindingClass::Ghost);
        let ghosts: BTreeSet<ResourceId> = known.filter_map(|row| row.resource.clone()).collect();
        let mut looks = Looks { ghosts, accepts_absence, most: self.sweep.looks_max, ..Looks::default() };
        loop {
            let again = match judge(comparison, &looks) {
                Verdict::Stands(ghosts) if ghosts.is_empty() => return Ok(Ok(Vec::new())),
                Verdict::Stands(ghosts) => {
                    // What was changed while it was looked for is somebody's who knows.
                    let now = read_ledger(self.store(), self.provider.name()).await?;
                    let is_same =
                        |row: &&ResourceRow| now.iter().any(|now| now.id == row.id && now.rev == row.rev);
                    let gone =
                        comparison.missing.iter().filter(|row| ghosts.contains(&row.id)).filter(is_same);
                    return Ok(Ok(gone.cloned().collect()));
                }
                Verdict::ThrownAway(problem) | Verdict::Unavailable(problem) => return Ok(Err(problem)),
                Verdict::LookAgain(again) => again,
            };
            let is_second = !looks.first.is_empty();
            if is_second {
                self.shared.env.sleep(self.settle_after()).await;
            }
            let seen = self.look(calls, comparison, &again).await;
            if is_second { looks.second = seen } else { looks.first = seen }
        }
    }

    /// Looks at these one by one, and no further than to the first that shows that the list was wrong.
    async fn look(
        &self,
        calls: &Calls<'_>,
        comparison: &Comparison,
        which: &[ResourceId],
    ) -> BTreeMap<ResourceId, Look> {
        let engine = Engine::within(self.shared);
        let mut seen = BTreeMap::new();
        let what = format!("read of {}", self.provider.name());
        for row in comparison.missing.iter().filter(|row| which.contains(&row.id)) {
            let look = match self.provider.account(&engine, row).await {
                Ok(account) => {
                    let thing = Identity { account, ..Identity::of(row) };
                    let gates = self.provider.gates(Ask::Read(&thing));
                    calls.call(&what, gates, self.provider.read(&thing)).await
                }
                Err(failure) => Err(failure),
            };
            let look = match look {
                Ok(Some(_)) => Look::Alive,
                Ok(None) => Look::Absent,
                Err(failure) => Look::Unknown(failure.to_string()),
            };
            let is_telling = look != Look::Absent;
            seen.insert(row.id.clone(), look);
            if is_telling {
                break;
            }
        }
        seen
    }

    /// What is listed and on no reading: ours, or only like ours.
    async fn unexplained(&self, comparison: &Comparison) -> Result<Result<Vec<Sighting>, String>, Error> {
        let engine = Engine::within(self.shared);
        let mut all = Vec::new();
        let mut foreign = 0_usize;
        for thing in &comparison.unexplained {
            let is_named = self.provider.is_ours(&thing.name);
            if !is_named && !self.provider.resembles_ours(&thing.name) {
                continue;
            }
            let is_ours = is_named
                && (self.was_on_the_ledger(thing).await?
                    || match self.provider.knows(&engine, &thing.name).await {
                        Ok(knows) => knows,
                        Err(failure) => return Ok(Err(failure.to_string())),
                    });
            if is_ours {
                all.push(Sighting::unexplained(FindingClass::Orphan, thing));
            } else if foreign < FOREIGN_MAX {
                foreign += 1;
                all.push(Sighting::unexplained(FindingClass::Foreign, thing));
            }
        }
        Ok(Ok(all))
    }

    /// Whether this ledger ever had a row of its name: what bears a name that we never chose is another's.
    async fn was_on_the_ledger(&self, thing: &Observed) -> Result<bool, Error> {
        let filter = ResourceFilter {
            provider: Some(self.name()),
            name: Some(thing.name.clone()),
            limit: 1000,
            ..ResourceFilter::default()
        };
        Ok(self.store().resources(filter).await?.iter().any(|row| row.kind == thing.kind))
    }

    async fn drifts(&self, comparison: &Comparison) -> Vec<Sighting> {
        let engine = Engine::within(self.shared);
        let mut all = Vec::new();
        for (row, thing) in &comparison.matched {
            let desired = match self.provider.desired(&engine, row).await {
                Ok(desired) => desired,
                Err(failure) => {
                    tracing::debug!(provider = self.provider.name(), name = row.name, %failure, "not compared");
                    continue;
                }
            };
            let differences: Vec<String> =
                differences(&desired, thing).iter().map(ToString::to_string).collect();
            if !differences.is_empty() {
                all.push(Sighting::of_row(FindingClass::Drift, row, differences.join("; ")));
            }
        }
        all
    }

    async fn write(&self, census: &Census, began: Timestamp) -> Result<(), Error> {
        self.store().sighted(&self.shared.env, self.provider.name(), &census.sightings, began).await?;
        for (finding, how) in &census.ended {
            let at = self.shared.env.now();
            let settled = Settled { how: *how, at, by: "sweep".to_owned(), reason: None };
            self.store().settle_finding(finding, settled).await?;
        }
        Ok(())
    }

    /// Every finding here that is open.
    async fn open(&self) -> Result<Vec<FindingRow>, Error> {
        let mut all = Vec::new();
        let mut before = None;
        loop {
            let filter = FindingFilter {
                provider: Some(self.name()),
                open: Some(true),
                before: before.take(),
                limit: 1000,
                ..FindingFilter::default()
            };
            let page = self.store().findings(filter).await?;
            before = page.last().map(|row| row.id.clone());
            let is_last = page.len() < 1000;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Begins the removal of what may be removed; how many were begun.
    async fn remove(&self, open: &[FindingRow]) -> Result<usize, Error> {
        if !self.sweep.removes {
            return Ok(0);
        }
        let mut under_removal = BTreeSet::new();
        for row in open.iter().filter(|row| row.removal.is_some()) {
            if is_under_removal(self.store(), row).await? {
                under_removal.insert(row.id.clone());
            }
        }
        let is_kept = |row: &FindingRow| {
            !self.provider.kinds().iter().any(|kind| kind.name == row.kind && kind.is_removable)
        };
        let may_go = |row: &FindingRow| !is_kept(row) && !under_removal.contains(&row.id);
        let mut begun = 0;
        for row in to_remove(open, may_go, under_removal.len(), self.grace(), self.sweep.budget) {
            begun += usize::from(begin_removal(self.shared, self.provider, row).await?.is_ok());
        }
        Ok(begun)
    }

    /// Tells the provider's own part of what is certain.
    async fn tell(&self, open: &[FindingRow]) {
        let engine = Engine::within(self.shared);
        // A ghost was absent twice before it became one.
        let is_certain = |row: &&FindingRow| row.class == FindingClass::Ghost || row.is_certain(self.grace());
        for row in open.iter().filter(is_certain) {
            let limit = self.shared.env.time_limit(CALL);
            let told = tokio::time::timeout(limit, unpanicked(self.provider.found(&engine, row))).await;
            let problem = match told {
                Ok(Some(Ok(()))) => continue,
                Ok(Some(Err(error))) => error.to_string(),
                Ok(None) => panicked("found"),
                Err(_) => format!("found was not over within {}", humantime::format_duration(limit)),
            };
            tracing::warn!(provider = self.provider.name(), finding = %row.id, problem, "it is told again");
        }
    }
}

/// Nothing where the provider's own code panics.
async fn unpanicked<T>(does: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(does).catch_unwind().await.ok()
}

/// Whether a saga is at it.
async fn is_under_removal(store: &dyn Store, row: &FindingRow) -> Result<bool, Error> {
    let Some(saga) = &row.removal else { return Ok(false) };
    Ok(store.saga(saga).await?.is_some_and(|saga| !saga.state.is_ended()))
}

/// Begins the removal of an orphan, or says what stands against it.
pub(crate) async fn begin_removal(
    shared: &Arc<Shared>,
    provider: &Arc<dyn Provider>,
    row: &FindingRow,
) -> Result<Result<crate::ids::SagaId, String>, Error> {
    let store = shared.store.as_ref();
    let thing =
        Observed { account: row.account.clone(), ..Observed::new(&row.kind, &row.external_id, &row.name) };
    match objection(store, provider.name(), &thing, None).await {
        Ok(None) => {}
        Ok(Some(objection)) => return Ok(Err(objection)),
        Err(Failure::Unavailable { detail, .. }) => return Err(Error::Unavailable(detail)),
        Err(failure) => return Ok(Err(failure.to_string())),
    }
    // Begun twice it is one saga; what one that ended did not remove is another's.
    let key = match &row.removal {
        Some(earlier) => format!("amends.remove_orphan:{}:{earlier}", row.id),
        None => format!("amends.remove_orphan:{}", row.id),
    };
    let removal = OrphanRemoval::of(row, provider.settle_after());
    let new = NewSaga::of::<RemoveOrphan>(&shared.env, key, &removal)
        .map_err(|error| Error::Unreadable(error.to_string()))?
        .labelled("finding", row.id.as_str())
        .labelled("provider", provider.name());
    let saga = match worker::start(shared, new).await? {
        Started::New(saga) | Started::Before(saga) => saga,
        Started::KeyReused(saga) => return Ok(Err(format!("its key was used for saga {saga}"))),
    };
    store.note_removal(&row.id, &saga).await?;
    Ok(Ok(saga))
}

/// What the ledger has at a provider, and is not gone.
pub(crate) async fn read_ledger(store: &dyn Store, provider: &str) -> Result<Vec<ResourceRow>, Error> {
    let mut all = Vec::new();
    let mut before = None;
    loop {
        let filter = ResourceFilter {
            states: vec![
                ResourceState::Intended,
                ResourceState::Live,
                ResourceState::InDoubt,
                ResourceState::Removing,
            ],
            provider: Some(provider.to_owned()),
            before: before.take(),
            limit: 1000,
            ..ResourceFilter::default()
        };
        let page = store.resources(filter).await?;
        before = page.last().map(|row| row.id.clone());
        let is_last = page.len() < 1000;
        all.extend(page);
        if is_last {
            return Ok(all);
        }
    }
}
