//! Telnyx's client: numbers, orders and messaging profiles.

use amends_engine::Failure;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::census::Seen;
use crate::http::{self, Reply, escaped};

/// Telnyx, by its account's key.
pub struct Telnyx {
    url: String,
    key: SecretString,
    http: reqwest::Client,
}

const PAGE: usize = 250;

impl Telnyx {
    /// Telnyx at this base URL.
    pub fn new(url: impl Into<String>, key: SecretString) -> Self {
        Self { url: url.into(), key, http: http::client() }
    }

    async fn send(&self, request: reqwest::RequestBuilder, call: http::Call) -> Result<Reply, Failure> {
        let reply = http::send(request.bearer_auth(self.key.expose_secret()), call).await?;
        if reply.is_success() || reply.status == 404 {
            return Ok(reply);
        }
        let code = reply.text("/errors/0/code").unwrap_or_default();
        let title = reply.text("/errors/0/title").unwrap_or_default();
        Err(http::refused(reply.status, &format!("telnyx_{code}"), &title))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Reply, Failure> {
        self.send(self.http.get(format!("{}{path}", self.url)), http::Call::Read).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Reply, Failure> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), http::Call::Write).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Result<Reply, Failure> {
        self.send(self.http.patch(format!("{}{path}", self.url)).json(body), http::Call::Write).await
    }

    /// Everything on a list, through all pages.
    pub(crate) async fn list(&self, path: &str, filter: &str) -> Result<Vec<Value>, Failure> {
        let mut all = Vec::new();
        for page in 1.. {
            let reply =
                self.get(&format!("{path}?{filter}&page%5Bnumber%5D={page}&page%5Bsize%5D={PAGE}")).await?;
            let data = reply.body.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
            let pages = reply.body.pointer("/meta/total_pages").and_then(Value::as_u64).unwrap_or(0);
            all.extend(data);
            if page >= pages {
                break;
            }
        }
        Ok(all)
    }

    /// Our number of these digits, once it shows. Telnyx finds digits only.
    pub(crate) async fn owned(&self, phone_number: &str) -> Result<Option<Value>, Failure> {
        let digits = phone_number.trim_start_matches('+');
        let found =
            self.list("/phone_numbers", &format!("filter%5Bphone_number%5D={}", escaped(digits))).await?;
        let is_it = |number: &Value| number["phone_number"] == phone_number && number["status"] != "deleted";
        Ok(found.into_iter().find(is_it))
    }

    /// The order that was placed for this number under this reference.
    pub(crate) async fn ordered(
        &self,
        reference: &str,
        phone_number: &str,
    ) -> Result<Option<Value>, Failure> {
        let filter = format!("filter%5Bcustomer_reference%5D={}", escaped(reference));
        let orders = self.list("/number_orders", &filter).await?;
        let is_it = |order: &Value| {
            order["status"] != "failure"
                && order["customer_reference"] == reference
                && order.pointer("/phone_numbers/0/phone_number").and_then(Value::as_str)
                    == Some(phone_number)
        };
        Ok(orders.into_iter().find(is_it))
    }

    /// Takes the messaging profile off a number; a number that is not there has none.
    pub(crate) async fn unassign(&self, number_id: &str) -> Result<(), Failure> {
        let body = serde_json::json!({"messaging_profile_id": ""});
        self.patch(&format!("/phone_numbers/{}/messaging", escaped(number_id)), &body).await.map(drop)
    }

    /// The messaging profile of a number, if it has one.
    pub(crate) async fn profile_of(&self, number_id: &str) -> Result<Option<String>, Failure> {
        let reply = self.get(&format!("/phone_numbers/{}/messaging", escaped(number_id))).await?;
        Ok(reply.text("/data/messaging_profile_id").filter(|profile| !profile.is_empty()))
    }

    /// Every number whose reference begins with our prefix.
    pub async fn census(&self, prefix: &str) -> Result<Vec<Seen>, Failure> {
        let numbers = self.list("/phone_numbers", "").await?;
        let seen = numbers.iter().map(|number| Seen {
            provider: "telnyx",
            kind: "number",
            // The ledger knows it by its number; Telnyx's id comes only once the order is filled.
            external_id: number["phone_number"].as_str().unwrap_or_default().to_owned(),
            name: number["customer_reference"].as_str().unwrap_or_default().to_owned(),
            created_at: None,
            workspace: None,
        });
        Ok(seen.filter(|seen| seen.name.starts_with(prefix)).collect())
    }
}
