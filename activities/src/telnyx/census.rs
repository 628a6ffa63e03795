//! What Telnyx holds that may be ours: numbers, by the reference under which they were ordered. It is on the number once
//! that was marked, and on its order from the beginning. None is ever removed from here: a number costs money to have
//! again, so a person decides.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::journal::step::Step;
use amends_engine::store::{ResourceFilter, ResourceRow, ResourceState};
use amends_engine::sweep::{
    Ask, FindingRow, Identity, Kind, ListPage, Names, Observed, Provider, async_trait,
};
use amends_engine::{Activity, Engine, Failure, Gate, Registry, secs, store};
use serde_json::Value;

use super::answers;
use super::client::{PAGE, is_held};
use super::{
    AssignNumber, AwaitNumber, EnsureMessagingProfile, LookUpMessagingProfile, LookUpOrder, MarkNumber,
    OrderNumber, SearchNumbers, Telnyx, UnassignNumber, VoidOrder,
};
use crate::census::{Declared, is_planned, rows, text, unreadable};
use crate::pool;

/// Telnyx, with the grammar of our references.
pub struct TelnyxCensus {
    telnyx: Arc<Telnyx>,
    names: Names,
    profiles: Declared,
}

/// What a number without a messaging profile is shown with.
const NO_PROFILE: &str = "none";

impl TelnyxCensus {
    /// Of this account. A number is ordered for one claim of an instance, so the references are numbered.
    pub fn new(telnyx: Arc<Telnyx>, names: Names) -> Arc<Self> {
        Arc::new(Self { telnyx, names: names.numbered(), profiles: Declared::default() })
    }
}

/// What a number bears by itself; nothing where it was not marked.
fn mark(number: &Value) -> Option<&str> {
    number.get("customer_reference").and_then(Value::as_str).filter(|mark| !mark.is_empty())
}

/// The ledger knows a number by its digits; Telnyx's id comes only once the order is filled. One that was not marked is
/// known by the reference of its order.
fn shown(number: &Value, ordered: Option<&str>) -> Result<Observed, Failure> {
    let digits = text(number, "phone_number")?;
    let reference = mark(number).or(ordered).unwrap_or_default();
    let mut seen =
        Observed { ledger_name: Some(digits.to_owned()), ..Observed::new("number", digits, reference) };
    // An answer that does not speak of the profile says nothing of it.
    if let Some(profile) = number.get("messaging_profile_id") {
        let profile = profile.as_str().filter(|profile| !profile.is_empty()).unwrap_or(NO_PROFILE);
        seen.attributes.insert("profile".to_owned(), profile.to_owned());
    }
    Ok(seen)
}

/// The profile that a number was assigned to.
fn profile(step: &Step) -> Option<String> {
    let asked = step.asked.as_ref().filter(|asked| asked.activity == AssignNumber::NAME)?;
    asked.input.get("profile")?.as_str().map(str::to_owned)
}

#[async_trait]
impl Provider for TelnyxCensus {
    fn name(&self) -> &'static str {
        "telnyx"
    }

    fn kinds(&self) -> Vec<Kind> {
        vec![Kind::kept("number")]
    }

    fn settle_after(&self) -> Duration {
        secs(60)
    }

    fn is_ours(&self, name: &str) -> bool {
        self.names.read(name).is_some()
    }

    fn resembles_ours(&self, name: &str) -> bool {
        self.names.begins(name)
    }

    fn register(self: Arc<Self>, registry: Registry) -> Registry {
        let telnyx = &self.telnyx;
        registry
            .activity::<EnsureMessagingProfile>(telnyx.clone())
            .activity::<LookUpMessagingProfile>(telnyx.clone())
            .activity::<SearchNumbers>(telnyx.clone())
            .activity::<OrderNumber>(telnyx.clone())
            .activity::<AwaitNumber>(telnyx.clone())
            .activity::<LookUpOrder>(telnyx.clone())
            .activity::<MarkNumber>(telnyx.clone())
            .activity::<AssignNumber>(telnyx.clone())
            .activity::<VoidOrder>(telnyx.clone())
            .removal::<UnassignNumber>(telnyx.clone())
            .local::<pool::RetireNumber>()
    }

    fn gates(&self, _: Ask<'_>) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    /// The cursor is the number of the page.
    async fn list(&self, cursor: Option<&str>) -> Result<ListPage, Failure> {
        let page: u64 =
            cursor.unwrap_or("1").parse().map_err(|_| unreadable("a cursor is no number".to_owned()))?;
        let path = format!("/phone_numbers?page%5Bnumber%5D={page}&page%5Bsize%5D={PAGE}");
        let mut reply = self.telnyx.get(&answers::NUMBERS, &path).await?.done()?;
        let count = |at: &str| reply.body.pointer(at).and_then(Value::as_u64);
        let pages = count("/meta/total_pages");
        let pages = pages.ok_or_else(|| unreadable("the answer does not say how many pages there are"))?;
        if count("/meta/page_number").is_some_and(|at| at != page) {
            return Err(unreadable("the list of numbers answered another page"));
        }
        let rows = reply.rows("/data");
        if rows.is_empty() && page < pages {
            return Err(unreadable("the list of numbers has a page with nothing on it"));
        }
        let held: Vec<&Value> = rows.iter().filter(|number| is_held(number)).collect();
        let are_marked = held.iter().all(|number| mark(number).is_some());
        let ordered = match are_marked {
            true => HashMap::new(),
            // An account may have had more orders than are read; what it has is compared all the same.
            false => match self.telnyx.references().await {
                Err(Failure::Unavailable { cause: Cause::Unreadable, .. }) => HashMap::new(),
                read => read?,
            },
        };
        let reference = |number: &Value| ordered.get(number["phone_number"].as_str()?).map(String::as_str);
        let things = held.iter().map(|number| shown(number, reference(number)));
        let things = things.collect::<Result<Vec<_>, _>>()?;
        Ok(ListPage { things, next: (page < pages).then(|| (page + 1).to_string()) })
    }

    async fn read(&self, thing: &Identity) -> Result<Option<Observed>, Failure> {
        // Of a row the name is the number, and the id that of its order; of what was listed it is the id.
        let is_number = |text: &&String| text.starts_with('+');
        let digits = thing.external_id.as_ref().filter(is_number).unwrap_or(&thing.name);
        let Some(number) = self.telnyx.numbered(digits).await? else { return Ok(None) };
        // What was listed under the reference of its order is looked for under that.
        let reference =
            Some(thing.name.as_str()).filter(|name| mark(&number).is_none() && self.is_ours(name));
        let ordered = match reference {
            Some(reference) => self.telnyx.ordered(reference, digits).await?.and(Some(reference)),
            None => None,
        };
        shown(&number, ordered).map(Some)
    }

    async fn remove(&self, _: &Identity) -> Result<(), Failure> {
        Err(Failure::refused("kept", "a number is released by a person"))
    }

    async fn knows(&self, engine: &Engine, name: &str) -> Result<bool, Failure> {
        is_planned(engine, self.names.read(name)).await
    }

    /// A number delivers to the profile that it is assigned to, and else to none. What is being changed is not compared.
    async fn desired(&self, engine: &Engine, row: &ResourceRow) -> Result<BTreeMap<String, String>, Failure> {
        let of_it = ResourceFilter {
            provider: Some("telnyx".to_owned()),
            name: Some(row.name.clone()),
            ..ResourceFilter::default()
        };
        let assigned = rows(engine, "assignment", of_it).await?;
        let profile = match assigned.as_slice() {
            [] => Some(NO_PROFILE.to_owned()),
            [only] if only.state == ResourceState::Live => self.profiles.of(engine, only, profile).await?,
            _ => None,
        };
        Ok(profile.map(|profile| ("profile".to_owned(), profile)).into_iter().collect())
    }

    async fn found(&self, engine: &Engine, finding: &FindingRow) -> Result<(), store::Error> {
        pool::retire(engine, finding).await?;
        pool::taint(engine, finding).await
    }
}
