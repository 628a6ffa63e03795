//! Compare: what a list and the ledger say of each other, as functions of what was read.
//!
//! The ledger is read before the list and again after it, since things are made and removed meanwhile: what either
//! reading explains is no orphan. A list that lacks a row is not believed for that: the row's thing is asked for
//! directly, and only two absences, some time apart, make the row a ghost. A thing that answers shows that the list
//! was wrong, and then nothing of it is believed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::Observed;
use crate::env::Timestamp;
use crate::ids::ResourceId;
use crate::store::{ResourceRow, ResourceState};

/// What a list and two readings of the ledger have in common, and what not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Listed, and on neither reading of the ledger.
    pub unexplained: Vec<Observed>,
    /// Live on both readings, for long enough to be listed, and not listed.
    pub missing: Vec<ResourceRow>,
    /// Live on the second reading, each with what is listed of it.
    pub matched: Vec<(ResourceRow, Observed)>,
    /// How many rows were to be listed.
    pub expected: usize,
    /// How many were live on the second reading, those included that need not be listed yet.
    pub live: usize,
}

/// The rows of one reading, by what they explain.
struct Explained<'r> {
    ids: HashSet<(&'r str, &'r str)>,
    /// Of rows that have no provider's id yet: whatever bears the name may be theirs.
    names: HashSet<(&'r str, &'r str)>,
    /// Of all rows, for things that the ledger knows by another name than they bear.
    ledger_names: HashSet<(&'r str, &'r str)>,
}

impl<'r> Explained<'r> {
    fn by(rows: &'r [ResourceRow]) -> Self {
        let mut all = Self { ids: HashSet::new(), names: HashSet::new(), ledger_names: HashSet::new() };
        for row in rows.iter().filter(|row| row.state != ResourceState::Gone) {
            let named = (row.kind.as_str(), row.name.as_str());
            all.ledger_names.insert(named);
            match &row.external_id {
                Some(id) => drop(all.ids.insert((row.kind.as_str(), id.as_str()))),
                None => drop(all.names.insert(named)),
            }
        }
        all
    }

    fn explains(&self, thing: &Observed) -> bool {
        let kind = thing.kind.as_str();
        self.ids.contains(&(kind, thing.external_id.as_str()))
            || match &thing.ledger_name {
                Some(name) => self.ledger_names.contains(&(kind, name.as_str())),
                None => self.names.contains(&(kind, thing.name.as_str())),
            }
    }
}

/// Whether one of these rows speaks of the thing: it has its id; or it has no id yet and has its name.
pub fn is_explained(thing: &Observed, rows: &[ResourceRow]) -> bool {
    Explained::by(rows).explains(thing)
}

/// Whether a row speaks of the thing that is listed.
fn is_of(row: &ResourceRow, thing: &Observed) -> bool {
    is_explained(thing, std::slice::from_ref(row))
}

/// Compares a list that was begun at `began` with the ledger as it was before and after.
pub fn compare(
    before: &[ResourceRow],
    after: &[ResourceRow],
    listed: &[Observed],
    began: Timestamp,
    settle_after: Duration,
) -> Comparison {
    let (at_first, at_last) = (Explained::by(before), Explained::by(after));
    let mut ids: BTreeMap<(&str, &str), &Observed> = BTreeMap::new();
    let mut names: BTreeMap<(&str, &str), Vec<&Observed>> = BTreeMap::new();
    for thing in listed {
        ids.insert((&thing.kind, &thing.external_id), thing);
        let name = thing.ledger_name.as_ref().unwrap_or(&thing.name);
        names.entry((&thing.kind, name)).or_default().push(thing);
    }
    let of_row = |row: &ResourceRow| {
        let by_id =
            row.external_id.as_ref().and_then(|id| ids.get(&(row.kind.as_str(), id.as_str())).copied());
        by_id.or_else(|| {
            let named = names.get(&(row.kind.as_str(), row.name.as_str())).into_iter().flatten();
            named.copied().find(|thing| is_of(row, thing))
        })
    };
    let known: BTreeMap<&ResourceId, &ResourceRow> = before.iter().map(|row| (&row.id, row)).collect();
    let mut comparison = Comparison::default();
    for row in after.iter().filter(|row| row.state == ResourceState::Live) {
        comparison.live += 1;
        let seen = of_row(row);
        // What changed a moment ago need not be listed yet, and what changed meanwhile was not the same when it was.
        let was = known.get(&row.id).is_some_and(|was| was.state == row.state && was.rev == row.rev);
        if was && row.changed_at.plus(settle_after) <= began {
            comparison.expected += 1;
            if seen.is_none() {
                comparison.missing.push(row.clone());
            }
        }
        if let Some(thing) = seen {
            comparison.matched.push((row.clone(), thing.clone()));
        }
    }
    let mut met = BTreeSet::new();
    for thing in listed {
        // A page that shifts while it is read shows one thing twice.
        let is_new = met.insert((&thing.kind, &thing.external_id));
        if is_new && !at_first.explains(thing) && !at_last.explains(thing) {
            comparison.unexplained.push(thing.clone());
        }
    }
    comparison
}

/// What a direct look at one thing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It is there.
    Alive,
    /// The provider says that there is none.
    Absent,
    /// It could not be told, and why.
    Unknown(String),
}

/// What is to be made of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is believed, and these rows are ghosts.
    Stands(Vec<ResourceId>),
    /// These have to be looked at again, when they were absent for long enough.
    LookAgain(Vec<ResourceId>),
    /// It was wrong about something: nothing of it is believed.
    ThrownAway(String),
    /// It counts as if it had not come.
    Unavailable(String),
}

/// What was looked at directly, and what is known of it from before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looks {
    /// First looks.
    pub first: BTreeMap<ResourceId, Look>,
    /// Second ones, `settle_after` later.
    pub second: BTreeMap<ResourceId, Look>,
    /// Rows that are known as ghosts.
    pub ghosts: BTreeSet<ResourceId>,
    /// A person said that all may well be absent.
    pub accepts_absence: bool,
    /// How many rows are looked at for one list, at most.
    pub most: usize,
}

/// Judges a list by the direct looks at the rows that it lacks.
pub fn judge(comparison: &Comparison, looks: &Looks) -> Verdict {
    let Looks { first, second, ghosts, accepts_absence, most } = looks;
    let missing = &comparison.missing;
    let new = missing.iter().filter(|row| !ghosts.contains(&row.id)).count();
    // Those that need not be listed yet count too: of another account's list all are missing, the young and the old.
    let known = missing.len() - new;
    let lacks_all =
        new > 0 && comparison.live - known > 1 && comparison.matched.is_empty() && !accepts_absence;
    if missing.len() > *most {
        let (lacks, expected) = (missing.len(), comparison.expected);
        return Verdict::Unavailable(format!(
            "the list lacks {lacks} of {expected} that the ledger has, more than the {most} that are looked at one \
             by one"
        ));
    }
    for looks in [first, second] {
        for row in missing {
            match looks.get(&row.id) {
                Some(Look::Alive) => {
                    let (kind, name) = (&row.kind, &row.name);
                    return Verdict::ThrownAway(format!("the list lacks the {kind} {name}, which is there"));
                }
                Some(Look::Unknown(why)) => {
                    let (kind, name) = (&row.kind, &row.name);
                    let detail =
                        format!("the list lacks the {kind} {name}, which could not be looked at: {why}");
                    return Verdict::Unavailable(detail);
                }
                Some(Look::Absent) | None => {}
            }
        }
    }
    let all = || missing.iter().map(|row| row.id.clone()).collect::<Vec<_>>();
    let absent = |looks: &BTreeMap<ResourceId, Look>| {
        missing.iter().all(|row| looks.get(&row.id) == Some(&Look::Absent))
    };
    // One that is alone may well have gone. That all have, says rather that somebody else's account is looked at.
    if lacks_all && absent(first) {
        let all = comparison.live;
        return Verdict::Unavailable(format!(
            "all {all} that the ledger has are absent: is this the account in which they were made?"
        ));
    }
    if absent(first) && absent(second) { Verdict::Stands(all()) } else { Verdict::LookAgain(all()) }
}

/// How a thing differs from what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// In what.
    pub attribute: String,
    /// What it should be.
    pub desired: String,
    /// What it is.
    pub actual: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { attribute, desired, actual } = self;
        write!(f, "{attribute} is {actual} and should be {desired}")
    }
}

/// In what a thing differs from what was declared of it. What a provider does not show says nothing.
pub fn differences(desired: &BTreeMap<String, String>, thing: &Observed) -> Vec<Difference> {
    let differs = |(attribute, desired): (&String, &String)| {
        let actual = thing.attributes.get(attribute).filter(|actual| *actual != desired)?;
        Some(Difference { attribute: attribute.clone(), desired: desired.clone(), actual: actual.clone() })
    };
    desired.iter().filter_map(differs).collect()
}
