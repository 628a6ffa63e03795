//! Lists: by which index a page is read, and the statement for it; the same for both databases.
//!
//! A statement is made of arms, each of which reads one range of one index in the order in which the list is shown, and
//! no more of it than a page. Several states are several arms. What the arms come to is put in order by whoever reads
//! it, so that the database sorts nothing.

use strum::VariantNames;

use super::limits::LABEL_INDEXED_MAX;
use super::{ResourceFilter, ResourceState, SagaFilter};
use crate::journal::state::SagaState;

/// Which database a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    Postgres,
}

/// A statement with the text of `$1`, `$2`, ….
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<String>,
}

/// A range of so few rows is read whole rather than another one that may hold what is looked for far behind.
pub(super) const FEW: i64 = 1000;

/// The page sizes for which there are statements: one that is between is cut, so that few are prepared.
const SIZES: [u32; 4] = [1, 51, 201, 1000];

fn size(limit: u32) -> u32 {
    SIZES.into_iter().find(|size| *size >= limit).unwrap_or(1000)
}

/// What a list of sagas may be read by: the first part of an index, whose last column is the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SagaRange {
    Parent,
    Fingerprint,
    Label,
    /// With or without a workflow.
    Troubled,
    Workflow,
    State,
    All,
}

/// The columns that lists show: all but what a saga yielded.
const SAGA: &str =
    "s.id, s.workflow, s.workflow_version, s.state, s.attention, s.step, s.error, s.fingerprint, s.progress,
 s.parent, s.labels, s.deadline_at, s.due_at, s.created_at, s.updated_at, s.ended_at";

/// Collects values, and says under which name a statement has each.
#[derive(Default)]
struct Params(Vec<String>);

impl Params {
    fn add(&mut self, text: &str) -> String {
        let place = self.0.iter().position(|known| known == text).unwrap_or_else(|| {
            self.0.push(text.to_owned());
            self.0.len() - 1
        });
        format!("${}", place + 1)
    }

    fn one_of<'t>(&mut self, column: &str, words: impl Iterator<Item = &'t str>) -> String {
        let words: Vec<String> = words.map(|word| self.add(word)).collect();
        format!("{column} in ({})", words.join(", "))
    }
}

fn is_indexed((name, value): &(String, String)) -> bool {
    name.len().saturating_add(value.len()) <= LABEL_INDEXED_MAX
}

/// By what a list of sagas may be read: the narrowest is likely to be the first. One range at least.
pub(super) fn saga_ranges(filter: &SagaFilter) -> Vec<SagaRange> {
    let mut ranges = Vec::new();
    ranges.extend(filter.parent.as_ref().map(|_| SagaRange::Parent));
    ranges.extend(filter.fingerprint.as_ref().map(|_| SagaRange::Fingerprint));
    ranges.extend(filter.label.as_ref().filter(|label| is_indexed(label)).map(|_| SagaRange::Label));
    if filter.attention {
        ranges.push(SagaRange::Troubled);
    } else if filter.workflow.is_some() {
        ranges.push(SagaRange::Workflow);
    } else if !filter.states.is_empty() {
        ranges.push(SagaRange::State);
    } else if ranges.is_empty() {
        ranges.push(SagaRange::All);
    }
    ranges
}

fn states(filter: &SagaFilter, range: SagaRange) -> Vec<Option<&str>> {
    match range {
        SagaRange::Troubled | SagaRange::Workflow | SagaRange::State if filter.states.is_empty() => {
            SagaState::VARIANTS.iter().copied().map(Some).collect()
        }
        SagaRange::Troubled | SagaRange::Workflow | SagaRange::State => {
            let mut states: Vec<&str> = filter.states.iter().map(Into::into).collect();
            states.sort_unstable();
            states.dedup();
            states.into_iter().map(Some).collect()
        }
        SagaRange::Parent | SagaRange::Fingerprint | SagaRange::Label | SagaRange::All => vec![None],
    }
}

/// A range of an index: the columns before the id, each with its value, and what else the index says.
struct Range {
    index: &'static str,
    keys: Vec<(&'static str, String)>,
    id: &'static str,
    says: Option<&'static str>,
}

impl Range {
    /// What bounds it, from this id on if one is given, and the order in which it is read.
    ///
    /// SQLite is told by which index. Postgres cannot be, and it drops from an order what is equal to a value: then the
    /// index of all ids has the rows in that order as well, and is taken where many rows seem to be as they are asked
    /// for. Of what is one of an array it drops nothing, so that the first column is asked for like that: only an index
    /// that begins with it has the rows in order.
    fn bounds(&self, dialect: Dialect, before: Option<&str>, params: &mut Params) -> (Vec<String>, String) {
        let id = self.id;
        let mut all = Vec::new();
        let mut order = format!("{id} desc");
        for (place, (column, value)) in self.keys.iter().enumerate() {
            let value = params.add(value);
            if dialect == Dialect::Postgres && place == 0 {
                all.push(format!("{column} = any (array[{value}])"));
                order = format!("{column} desc, {order}");
            } else {
                all.push(format!("{column} = {value}"));
            }
        }
        all.extend(before.map(|before| format!("{id} < {}", params.add(before))));
        all.extend(self.says.map(str::to_owned));
        (all, order)
    }

    /// What SQLite is told; it knows of no statistics here.
    fn by(&self, dialect: Dialect) -> String {
        match dialect {
            Dialect::Sqlite if !self.index.is_empty() => format!(" indexed by {}", self.index),
            _ => String::new(),
        }
    }
}

fn where_all(all: &[String]) -> String {
    if all.is_empty() { "true".to_owned() } else { all.join(" and ") }
}

fn saga_range(filter: &SagaFilter, range: SagaRange, state: Option<&str>) -> Range {
    let mut keys = Vec::new();
    let mut is = |column: &'static str, value: Option<&str>| {
        keys.extend(value.map(|value| (column, value.to_owned())));
    };
    let workflow = filter.workflow.as_deref();
    let (mut id, mut says) = ("s.id", None);
    let index = match range {
        SagaRange::Parent => {
            is("s.parent", filter.parent.as_ref().map(crate::ids::SagaId::as_str));
            "saga_called"
        }
        SagaRange::Fingerprint => {
            is("s.fingerprint", filter.fingerprint.as_deref());
            "saga_by_fingerprint"
        }
        SagaRange::Label => {
            is("l.name", filter.label.as_ref().map(|(name, _)| name.as_str()));
            is("l.value", filter.label.as_ref().map(|(_, value)| value.as_str()));
            id = "l.saga";
            "saga_labelled"
        }
        SagaRange::Troubled => {
            is("s.workflow", workflow);
            is("s.state", state);
            says = Some("s.attention <> '[]'");
            if workflow.is_some() { "saga_troubled_by_workflow" } else { "saga_troubled" }
        }
        SagaRange::Workflow => {
            is("s.workflow", workflow);
            is("s.state", state);
            "saga_by_workflow"
        }
        SagaRange::State => {
            is("s.state", state);
            "saga_by_state"
        }
        SagaRange::All => "",
    };
    Range { index, keys, id, says }
}

/// Counts what is in a range, up to one more than [`FEW`].
pub(super) fn count_sagas(dialect: Dialect, filter: &SagaFilter, range: SagaRange) -> Statement {
    let mut params = Params::default();
    let arms: Vec<String> = states(filter, range)
        .into_iter()
        .map(|state| {
            let read = saga_range(filter, range, state);
            let (all, _) = read.bounds(dialect, None, &mut params);
            let (by, all) = (read.by(dialect), where_all(&all));
            let table = if range == SagaRange::Label { "saga_label l" } else { "saga s" };
            format!("select * from (select 1 as one from {table}{by} where {all} limit {}) arm", FEW + 1)
        })
        .collect();
    let sql = format!("select count(*) as count from ({}) arms", arms.join(" union all "));
    Statement { sql, params: params.0 }
}

/// A page of sagas, read by this range: at least the rows of the page, in no order.
pub(super) fn sagas(dialect: Dialect, filter: &SagaFilter, range: SagaRange, limit: u32) -> Statement {
    let mut params = Params::default();
    let mut arms = Vec::new();
    for state in states(filter, range) {
        let read = saga_range(filter, range, state);
        let before = filter.before.as_ref().map(crate::ids::SagaId::as_str);
        let (mut all, order) = read.bounds(dialect, before, &mut params);
        if state.is_none() && !filter.states.is_empty() {
            all.push(params.one_of("s.state", filter.states.iter().map(Into::into)));
        }
        if filter.attention && range != SagaRange::Troubled {
            all.push("s.attention <> '[]'".to_owned());
        }
        let is_by_workflow = matches!(range, SagaRange::Troubled | SagaRange::Workflow);
        if let Some(workflow) = filter.workflow.as_ref().filter(|_| !is_by_workflow) {
            all.push(format!("s.workflow = {}", params.add(workflow)));
        }
        if let Some(text) = filter.fingerprint.as_ref().filter(|_| range != SagaRange::Fingerprint) {
            all.push(format!("s.fingerprint = {}", params.add(text)));
        }
        if let Some(parent) = filter.parent.as_ref().filter(|_| range != SagaRange::Parent) {
            all.push(format!("s.parent = {}", params.add(parent.as_str())));
        }
        if let Some(label) = filter.label.as_ref().filter(|_| range != SagaRange::Label) {
            all.push(has_label(dialect, label, &mut params));
        }
        let by = read.by(dialect);
        let table = if range == SagaRange::Label {
            // In this order, whatever the database makes of it.
            let join = if dialect == Dialect::Sqlite { "cross join" } else { "join" };
            format!("saga_label l{by} {join} saga s on s.id = l.saga")
        } else {
            format!("saga s{by}")
        };
        let number = if dialect == Dialect::Sqlite { ", s.epoch, s.seq" } else { "" };
        let (all, size) = (where_all(&all), size(limit));
        arms.push(format!("select {SAGA}{number} from {table} where {all} order by {order} limit {size}"));
    }
    let arms = together(&arms);
    let sql = match dialect {
        Dialect::Sqlite => arms,
        // The lease of each row by itself: the rows are few, and the leases many.
        Dialect::Postgres => format!(
            "select s.*, l.epoch, l.seq from ({arms}) s
             join lateral (select epoch, seq from saga_lease where saga = s.id limit 1) l on true"
        ),
    };
    Statement { sql, params: params.0 }
}

fn together(arms: &[String]) -> String {
    let arms: Vec<String> = arms.iter().map(|arm| format!("select * from ({arm}) arm")).collect();
    arms.join(" union all ")
}

fn has_label(dialect: Dialect, label: &(String, String), params: &mut Params) -> String {
    let (name, value) = (params.add(&label.0), params.add(&label.1));
    if is_indexed(label) {
        // Asked of each row, and not made a join of: that would read every saga of the label.
        return format!(
            "(select x.value from saga_label x where x.saga = s.id and x.name = {name}) = {value}"
        );
    }
    match dialect {
        Dialect::Sqlite => {
            format!("exists (select 1 from json_each(s.labels) x where x.key = {name} and x.value = {value})")
        }
        Dialect::Postgres => format!("s.labels::jsonb @> jsonb_build_object({name}::text, {value}::text)"),
    }
}

/// A page of the ledger: at least its rows, in no order, and one that is both made and held by its saga twice.
pub(super) fn resources(dialect: Dialect, filter: &ResourceFilter, limit: u32) -> Statement {
    let mut params = Params::default();
    let mut given: Vec<&str> = filter.states.iter().map(Into::into).collect();
    given.sort_unstable();
    given.dedup();
    let states: Vec<&str> = if given.is_empty() { ResourceState::VARIANTS.to_vec() } else { given.clone() };
    let mut arms = Vec::new();
    let size = size(limit);
    let before = filter.before.as_ref().map(crate::ids::ResourceId::as_str);
    let mut arm =
        |index: &'static str, keys: &[(&'static str, &str)], left: Vec<String>, params: &mut Params| {
            let keys = keys.iter().map(|(column, value)| (*column, (*value).to_owned())).collect();
            let read = Range { index, keys, id: "id", says: None };
            let (mut all, order) = read.bounds(dialect, before, params);
            all.extend(left);
            if let Some(name) = filter.name.as_ref().filter(|_| index != "resource_named") {
                all.push(format!("name = {}", params.add(name)));
            }
            let (by, all) = (read.by(dialect), where_all(&all));
            arms.push(format!("select * from resource{by} where {all} order by {order} limit {size}"));
        };
    if let Some(holder) = &filter.holder {
        let provider = filter.provider.as_ref().map(|name| format!("provider = {}", params.add(name)));
        for state in &states {
            let left = provider.iter().cloned().collect();
            arm("resource_held", &[("holder", holder), ("state", state)], left, &mut params);
        }
        let mut left: Vec<String> = provider.into_iter().collect();
        if !given.is_empty() {
            left.push(params.one_of("state", given.iter().copied()));
        }
        arm("resource_made", &[("saga", holder)], left, &mut params);
    } else if let (Some(provider), Some(name)) = (&filter.provider, &filter.name) {
        let states = given.iter().copied();
        let left = if given.is_empty() { Vec::new() } else { vec![params.one_of("state", states)] };
        arm("resource_named", &[("provider", provider), ("name", name)], left, &mut params);
    } else if let Some(provider) = &filter.provider {
        for state in &states {
            arm("resource_by_provider", &[("provider", provider), ("state", state)], Vec::new(), &mut params);
        }
    } else if given.is_empty() {
        arm("", &[], Vec::new(), &mut params);
    } else {
        for state in &given {
            arm("resource_by_state", &[("state", state)], Vec::new(), &mut params);
        }
    }
    Statement { sql: together(&arms), params: params.0 }
}

/// The rows of a page as it is shown: by their ids, the last first, each once, and no more than asked for.
pub(super) fn in_order<T, K: Ord>(mut rows: Vec<T>, id: impl Fn(&T) -> K, limit: u32) -> Vec<T> {
    rows.sort_by_key(|row| std::cmp::Reverse(id(row)));
    rows.dedup_by(|one, other| id(one) == id(other));
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_filter_has_its_index_and_what_is_left_is_asked_of_the_rows() {
        let filter = SagaFilter {
            attention: true,
            workflow: Some("claim".into()),
            states: vec![SagaState::Failed],
            label: Some(("team".into(), "blue".into())),
            ..SagaFilter::default()
        };
        assert_eq!(saga_ranges(&filter), [SagaRange::Label, SagaRange::Troubled]);
        let by_label = sagas(Dialect::Sqlite, &filter, SagaRange::Label, 50);
        assert!(by_label.sql.contains("indexed by saga_labelled"), "{}", by_label.sql);
        assert_eq!(by_label.params, ["team", "blue", "failed", "claim"]);
        let troubled = sagas(Dialect::Sqlite, &filter, SagaRange::Troubled, 50);
        assert!(troubled.sql.contains("indexed by saga_troubled_by_workflow"), "{}", troubled.sql);
        assert_eq!(troubled.params, ["claim", "failed", "team", "blue"]);
        assert_eq!(saga_ranges(&SagaFilter::default()), [SagaRange::All]);
    }

    #[test]
    fn a_page_is_in_order_without_twins_and_no_longer_than_asked_for() {
        assert_eq!(in_order(vec![1, 3, 2, 3, 5], |row| *row, 3), [5, 3, 2]);
    }
}
