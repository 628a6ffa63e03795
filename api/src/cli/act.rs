//! Acts: what a person does to a saga or a gate, each with a reason that is kept.

use std::str::FromStr;

use amends_engine::Timestamp;
use amends_engine::journal::act::ActKind;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::list::saga_path;
use super::{Error, Exit, To, say, table};
use crate::act::{Field, FieldForm, Words, fields, meaning};
use crate::routes::gates::{GateAction, GateActionKind};
use crate::routes::sagas::Accepted;
use crate::view::Gate;

/// `amends saga act`
///
/// `amends saga why` prints the acts that can be done now, each as a whole command.
#[derive(Debug, clap::Args)]
#[command(after_help = kinds())]
pub struct Act {
    /// Which saga
    saga: String,
    /// Which act; one of those below
    #[arg(value_parser = ActKind::from_str)]
    kind: ActKind,
    /// The step it is about, if it is about one
    #[arg(long)]
    step: Option<String>,
    /// Why; kept with the saga
    #[arg(long)]
    reason: String,
    /// pause: for how long, as 30m
    #[arg(long)]
    wait: Option<String>,
    /// policy: the longest wait between two tries, as 5m
    #[arg(long)]
    max_wait: Option<String>,
    /// settle: what you saw at the provider: absent, adopt or useless
    #[arg(long)]
    verdict: Option<String>,
    /// settle, done: what the step yields, as JSON
    #[arg(long, value_name = "JSON")]
    output: Option<String>,
    /// settle: the provider's id of what is there
    #[arg(long, value_name = "ID")]
    external_id: Option<String>,
    /// patch: the activity's input from the next try on, as JSON
    #[arg(long, value_name = "JSON")]
    input: Option<String>,
    /// patch: where in the input stands what other steps made, as JSON
    #[arg(long, value_name = "JSON")]
    references: Option<String>,
    /// release: who holds it from now on
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    to: To,
}

/// Every act, what it does and what it needs.
fn kinds() -> String {
    let mut text = "Acts:\n".to_owned();
    for kind in ActKind::iter() {
        let name = kind.to_string();
        let mut needs: Vec<String> = kind.is_about_step().then(|| "--step".to_owned()).into_iter().collect();
        needs.extend(fields(kind).iter().map(|field| format!("--{}", field.name.replace('_', "-"))));
        let needs = if needs.is_empty() { String::new() } else { format!(" ({})", needs.join(" ")) };
        text.push_str(&format!("  {name:<13} {}{needs}\n", meaning(kind)));
    }
    text
}

impl Act {
    pub(super) async fn run(self) -> anyhow::Result<Exit> {
        let given = [
            ("step", self.step),
            ("wait", self.wait),
            ("max_wait", self.max_wait),
            ("verdict", self.verdict),
            ("output", self.output),
            ("external_id", self.external_id),
            ("input", self.input),
            ("references", self.references),
            ("owner", self.owner),
        ];
        let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let words: Vec<(String, String)> =
            std::iter::once(("kind".to_owned(), self.kind.to_string())).chain(given).collect();
        // Read here first, so that what cannot be right is said before anything is sent.
        Words::of_text(words.clone())
            .into_act(true, Timestamp(0))
            .map_err(|problem| Error::Usage(option(&problem.detail)))?;
        let mut body = Map::new();
        for (name, value) in words {
            let is_json = |field: &&Field| field.name == name && field.form == FieldForm::Json;
            let value = if fields(self.kind).iter().any(|field| is_json(&field)) {
                serde_json::from_str(&value).map_err(|error| Error::Usage(format!("--{name}: {error}")))?
            } else {
                Value::String(value)
            };
            body.insert(name, value);
        }
        let path = format!("{}/actions", saga_path(&self.saga)?);
        send(&self.to, &path, body, &self.reason, &self.kind.to_string()).await
    }
}

/// A field's name as the option that it is here.
fn option(detail: &str) -> String {
    match detail.split_once(':') {
        Some((name, rest)) if !name.contains(' ') => format!("--{}:{rest}", name.replace('_', "-")),
        _ => detail.to_owned(),
    }
}

/// `amends saga retry` and `amends saga cancel`
#[derive(Debug, clap::Args)]
pub struct WholeAct {
    /// Which saga
    saga: String,
    /// Why; kept with the saga
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    to: To,
}

impl WholeAct {
    pub(super) async fn run(self, kind: ActKind) -> anyhow::Result<Exit> {
        let body = Map::from_iter([("kind".to_owned(), json!(kind.to_string()))]);
        let path = format!("{}/actions", saga_path(&self.saga)?);
        send(&self.to, &path, body, &self.reason, &kind.to_string()).await
    }
}

async fn send(
    to: &To,
    path: &str,
    mut body: Map<String, Value>,
    reason: &str,
    act: &str,
) -> anyhow::Result<Exit> {
    body.insert("reason".to_owned(), json!(reason));
    // Under a key, so that a lost answer can be asked for again without acting twice.
    let key = amends_engine::Env::system().uuid().to_string();
    let answer = to.client()?.post_keyed::<Accepted>(path, Some(&Value::Object(body)), &key).await?;
    if to.json {
        say(&table::json(&answer.text))?;
    } else {
        let Accepted { operation, saga } = answer.body;
        let told = format!(
            "{operation} {act} of {} is accepted; what comes of it: amends saga why {}",
            saga.id, saga.id
        );
        say(&format!("{}\n", table::line(&told)))?;
    }
    Ok(Exit::Done)
}

/// `amends gate open` and `amends gate close`
#[derive(Debug, clap::Args)]
pub struct GateAct {
    /// Which gate, as `amends gate list` names it
    gate: String,
    /// Why; kept with the gate
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    to: To,
}

impl GateAct {
    pub(super) async fn run(self, kind: GateActionKind) -> anyhow::Result<Exit> {
        let action = GateAction { gate: self.gate, kind, reason: self.reason };
        let body = serde_json::to_value(action)?;
        let answer = self.to.client()?.post::<Gate>("/v1/gates/actions", &body).await?;
        let text = if self.to.json {
            table::json(&answer.text)
        } else {
            table::gates(std::slice::from_ref(&answer.body))
        };
        say(&text)?;
        Ok(Exit::Done)
    }
}
