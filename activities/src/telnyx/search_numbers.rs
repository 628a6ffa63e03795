//! Search numbers that can be bought: only what a search returned can be ordered.

use crate::http::escaped;
use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Telnyx, answers};

/// Asks for numbers of a country that can send messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchNumbers {
    /// Two letters, as `US`.
    pub country: String,
}

/// Numbers that were free when we asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// In E.164, as `+13125550100`.
    pub phone_numbers: Vec<String>,
}

impl Activity for SearchNumbers {
    const NAME: &'static str = "telnyx.search_numbers";
    const EFFECT: Effect = Effect::Read;
    type Client = Telnyx;
    type Output = Candidates;

    fn gates(&self, _: &Telnyx) -> Vec<Gate> {
        vec![Gate::credential("telnyx")]
    }

    async fn execute(&self, telnyx: &Telnyx, _: &Call) -> Result<Candidates, Failure> {
        let path = format!(
            "/available_phone_numbers?filter%5Bcountry_code%5D={}&filter%5Bfeatures%5D%5B%5D=sms&filter%5Blimit%5D=20",
            escaped(&self.country)
        );
        let mut reply = telnyx.get(&answers::SEARCH, &path).await?.done()?;
        let data: Vec<Value> = reply.rows("/data");
        let numbers = data.iter().filter_map(|number| number["phone_number"].as_str().map(str::to_owned));
        Ok(Candidates { phone_numbers: numbers.collect() })
    }
}
