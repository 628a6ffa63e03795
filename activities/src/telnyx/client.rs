//! Telnyx's client: numbers, orders and messaging profiles.

use std::collections::HashMap;

use amends_engine::Failure;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::answers;
use crate::answer::{Answered, Operation, unreadable};
use crate::http::walk::Walk;
use crate::http::{self, Http, escaped};

/// Telnyx, by its account's key.
pub struct Telnyx {
    url: String,
    key: SecretString,
    pub(crate) http: Http,
}

pub(crate) const PAGE: usize = 250;

/// The states of a number that is not this account's: it never became so, or is no more.
const NOT_HELD: &[&str] = &["deleted", "ported-out", "port-failed", "purchase-failed"];

/// Whether a number that Telnyx shows is this account's, in service or not; also in a state of no known name.
pub(crate) fn is_held(number: &Value) -> bool {
    number["status"].as_str().is_none_or(|status| !NOT_HELD.contains(&status))
}

impl Telnyx {
    /// Telnyx at this base URL.
    pub fn new(url: impl Into<String>, key: SecretString) -> Self {
        Self { url: url.into(), key, http: Http::new() }
    }

    async fn call(
        &self,
        operation: &'static Operation,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answered, Failure> {
        let request = self.http.request(operation, method, &format!("{}{path}", self.url))?;
        let request = request.bearer_auth(self.key.expose_secret());
        http::send(operation, body.into_iter().fold(request, |request, body| request.json(body))).await
    }

    pub(crate) async fn get(&self, operation: &'static Operation, path: &str) -> Result<Answered, Failure> {
        self.call(operation, Method::GET, path, None).await
    }

    pub(crate) async fn post(
        &self,
        operation: &'static Operation,
        path: &str,
        body: &Value,
    ) -> Result<Answered, Failure> {
        self.call(operation, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(
        &self,
        operation: &'static Operation,
        path: &str,
        body: &Value,
    ) -> Result<Answered, Failure> {
        self.call(operation, Method::PATCH, path, Some(body)).await
    }

    /// Everything on a list, through all pages.
    pub(crate) async fn list(
        &self,
        operation: &'static Operation,
        path: &str,
        filter: &str,
    ) -> Result<Vec<Value>, Failure> {
        let (mut all, mut walk) = (Vec::new(), Walk::new(operation.name));
        for page in 1_u64.. {
            let filter = if filter.is_empty() { String::new() } else { format!("{filter}&") };
            let path = format!("{path}?{filter}page%5Bnumber%5D={page}&page%5Bsize%5D={PAGE}");
            let mut reply = self.get(operation, &path).await?.done()?;
            let pages = reply.body.pointer("/meta/total_pages").and_then(Value::as_u64).unwrap_or(0);
            let at = reply.body.pointer("/meta/page_number").and_then(Value::as_u64);
            if at.is_some_and(|at| at != page) {
                return Err(unreadable(format!("the list {} answered another page", operation.name)));
            }
            let rows = reply.rows("/data");
            walk.read(rows.len())?;
            if rows.is_empty() && page < pages {
                return Err(unreadable(format!("the list {} has a page with nothing on it", operation.name)));
            }
            all.extend(rows);
            if page >= pages {
                break;
            }
        }
        Ok(all)
    }

    /// The number of ours, once it shows and is in service.
    pub(crate) async fn owned(&self, phone_number: &str) -> Result<Option<Value>, Failure> {
        Ok(self.numbered(phone_number).await?.filter(|number| number["status"] == "active"))
    }

    /// The number of ours, in service or not. Telnyx finds digits only.
    pub(crate) async fn numbered(&self, phone_number: &str) -> Result<Option<Value>, Failure> {
        let filter = format!("filter%5Bphone_number%5D={}", escaped(phone_number.trim_start_matches('+')));
        let found = self.list(&answers::NUMBERS, "/phone_numbers", &filter).await?;
        let mut is_it =
            found.into_iter().filter(|number| number["phone_number"] == phone_number && is_held(number));
        // One that was given up and bought again shows twice for a while.
        let first = is_it.next();
        Ok(is_it.find(|number| number["status"] == "active").or(first))
    }

    /// The messaging profiles of this name, the oldest first: of two that were made at once all take the same one.
    pub(crate) async fn profiles(&self, name: &str) -> Result<Vec<String>, Failure> {
        let filter = format!("filter%5Bname%5D%5Beq%5D={}", escaped(name));
        let mut found = self.list(&answers::PROFILES, "/messaging_profiles", &filter).await?;
        found.retain(|profile| profile["name"] == name);
        let text = |profile: &Value, field: &str| profile[field].as_str().unwrap_or_default().to_owned();
        found.sort_by_cached_key(|profile| (text(profile, "created_at"), text(profile, "id")));
        Ok(found.iter().map(|profile| text(profile, "id")).collect())
    }

    /// The order that was placed for this number under this reference. One that failed is an order too: passed over, it
    /// would be sent again.
    pub(crate) async fn ordered(
        &self,
        reference: &str,
        phone_number: &str,
    ) -> Result<Option<Value>, Failure> {
        let filter = format!("filter%5Bcustomer_reference%5D={}", escaped(reference));
        let orders = self.list(&answers::ORDERS, "/number_orders", &filter).await?;
        let is_it = |order: &Value| {
            order["customer_reference"] == reference
                && order.pointer("/phone_numbers/0/phone_number").and_then(Value::as_str)
                    == Some(phone_number)
        };
        let ours = orders.into_iter().filter(is_it);
        Ok(ours.min_by_key(|order| order["status"] == "failure"))
    }

    /// Under which reference each number was ordered last, of all that were ordered and not refused.
    pub(crate) async fn references(&self) -> Result<HashMap<String, String>, Failure> {
        let mut orders = self.list(&answers::ORDERS, "/number_orders", "").await?;
        orders.retain(|order| order["status"] != "failure");
        orders.sort_by_cached_key(|order| order["created_at"].as_str().unwrap_or_default().to_owned());
        let mut references = HashMap::new();
        for order in &orders {
            let reference = order["customer_reference"].as_str().unwrap_or_default();
            for number in order["phone_numbers"].as_array().into_iter().flatten() {
                let number = number["phone_number"].as_str().unwrap_or_default();
                references.insert(number.to_owned(), reference.to_owned());
            }
        }
        Ok(references)
    }

    /// Takes the messaging profile off a number; a number that is not there has none.
    pub(crate) async fn unassign(&self, number_id: &str) -> Result<(), Failure> {
        let body = serde_json::json!({"messaging_profile_id": ""});
        let path = format!("/phone_numbers/{}/messaging", escaped(number_id));
        self.patch(&answers::ASSIGN, &path, &body).await?.found().map(drop)
    }

    /// The messaging profile of a number, if it has one.
    pub(crate) async fn profile_of(&self, number_id: &str) -> Result<Option<String>, Failure> {
        let path = format!("/phone_numbers/{}/messaging", escaped(number_id));
        let Some(reply) = self.get(&answers::SETTINGS, &path).await?.found()? else { return Ok(None) };
        if reply.text("/data/id").as_deref() != Some(number_id) {
            return Err(unreadable("Telnyx answered another number than was asked for"));
        }
        Ok(reply.text("/data/messaging_profile_id").filter(|profile| !profile.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The rest of the states that Telnyx's specification has.
    const HELD: &[&str] = &[
        "active",
        "emergency-only",
        "port-pending",
        "port-out-pending",
        "provision-pending",
        "purchase-pending",
        "requirement-info-exception",
        "requirement-info-pending",
        "requirement-info-under-review",
    ];

    #[test]
    fn each_state_of_the_specification_says_whether_a_number_is_ours() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/contracts/telnyx.json");
        let contract: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let states = &contract["schemas"]["PhoneNumberDetailed"]["properties"]["status"]["enum"];
        let states = states.as_array().unwrap().iter().map(|state| state.as_str().unwrap());
        let known: BTreeSet<&str> = HELD.iter().chain(NOT_HELD).copied().collect();
        assert_eq!(states.collect::<BTreeSet<_>>(), known);
        let is_held = |state: &str| is_held(&serde_json::json!({"status": state}));
        assert!(HELD.iter().all(|state| is_held(state)) && !NOT_HELD.iter().any(|state| is_held(state)));
    }
}
