//! Acts as people give them: what each asks for, and the act that is made of the answers.
//!
//! The API's body, the page's form and the command line are all made from [`ActKind`] and [`fields`], so that an act
//! which the engine has is one that can be done from each of them.

use std::time::Duration;

use amends_engine::journal::State;
use amends_engine::journal::act::{Act, ActKind, PossibleAct, Verdict};
use amends_engine::{StepKey, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::IntoEnumIterator;

use crate::problem::Problem;

/// One thing that an act asks of its author, beside the step and the reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Its name in a body, a form and on the command line.
    pub name: &'static str,
    /// What to say there.
    pub hint: &'static str,
    /// How it is written.
    pub form: FieldForm,
    /// Whether the act cannot be done without it.
    pub required: bool,
}

/// How a field of an act is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldForm {
    /// A duration, as `30m`.
    Duration,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Words.
    Text,
    /// Any JSON value.
    Json,
}

/// What came of a lost call, as a person can say it.
const VERDICTS: &[&str] = &["absent", "adopt", "useless"];

/// What an act of this kind asks for.
pub fn fields(kind: ActKind) -> &'static [Field] {
    const OUTPUT: Field = Field {
        name: "output",
        hint: "what the step yields, as JSON",
        form: FieldForm::Json,
        required: false,
    };
    match kind {
        ActKind::Retry | ActKind::Resume | ActKind::Cancel | ActKind::FailAttempt | ActKind::Skip => &[],
        ActKind::Pause => &[Field {
            name: "wait",
            hint: "for how long, at most 24h",
            form: FieldForm::Duration,
            required: true,
        }],
        ActKind::Policy => &[Field {
            name: "max_wait",
            hint: "the longest wait between two tries",
            form: FieldForm::Duration,
            required: true,
        }],
        ActKind::Settle => &[
            Field {
                name: "verdict",
                hint: "what you saw at the provider",
                form: FieldForm::Choice(VERDICTS),
                required: true,
            },
            OUTPUT,
            Field {
                name: "external_id",
                hint: "the provider's id of it",
                form: FieldForm::Text,
                required: false,
            },
        ],
        ActKind::Done => &[OUTPUT],
        ActKind::Patch => &[
            Field {
                name: "input",
                hint: "the activity's input from the next try on, as JSON",
                form: FieldForm::Json,
                required: true,
            },
            Field {
                name: "references",
                hint: "where in it stands what other steps made: [{\"at\": \"/pointer\", \"step\": \"key\"}]",
                form: FieldForm::Json,
                required: false,
            },
        ],
        ActKind::Release => &[Field {
            name: "owner",
            hint: "who holds it from now on",
            form: FieldForm::Text,
            required: true,
        }],
    }
}

/// What the act does, for a form and for `--help`.
pub fn meaning(kind: ActKind) -> &'static str {
    match kind {
        ActKind::Retry => "Try now what waits to be tried again",
        ActKind::Pause => "Do nothing more for a while",
        ActKind::Resume => "Go on after a pause",
        ActKind::Cancel => "Stop going forward and undo what was done",
        ActKind::Policy => "Limit the wait between the tries of a step",
        ActKind::FailAttempt => "Stop waiting: the step counts as refused",
        ActKind::Settle => "Say what came of a call whose answer was lost",
        ActKind::Done => "Say that a step, or its undo, was done by hand",
        ActKind::Skip => "Leave what a step made where it is; nobody holds it then",
        ActKind::Patch => "Change what a step asks for",
        ActKind::Release => "Hand what a step made to another owner instead of undoing it",
    }
}

/// An act that can be done to a saga now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedAct {
    /// Which act.
    pub kind: ActKind,
    /// The steps it can be done to, those first of which a person should know; none for an act on the whole saga. Of
    /// more than 200 the others are left out, and it can be done to them all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Whether some are left out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_steps: bool,
    /// The fields it takes beside `step` and `reason`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// So many steps an act names.
const STEPS_MAX: usize = 200;

/// Every act that can be done to a saga in this state, in the order of [`ActKind`].
pub fn allowed(state: &State, now: Timestamp) -> Vec<AllowedAct> {
    let mut all = Vec::new();
    for kind in ActKind::iter() {
        let possible = kind.possible(state, now);
        if possible.is_empty() {
            continue;
        }
        let mut steps: Vec<StepKey> =
            possible.into_iter().filter_map(|PossibleAct { step, .. }| step).collect();
        steps.dedup();
        let more_steps = steps.len() > STEPS_MAX;
        if more_steps {
            let is_in_need =
                |key: &StepKey| state.step(key).is_some_and(|step| !step.attention(now).is_empty());
            steps.sort_by_cached_key(|key| !is_in_need(key));
            steps.truncate(STEPS_MAX);
        }
        let steps = steps.iter().map(ToString::to_string).collect();
        let fields = fields(kind).iter().map(|field| field.name.to_owned()).collect();
        all.push(AllowedAct { kind, steps, more_steps, fields });
    }
    all
}

/// What a person says of an act: its kind, its step and its fields, each as it was written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Words(Map<String, Value>);

impl Words {
    /// From a JSON body; a value that is not text stays as it is.
    pub fn of_body(body: Map<String, Value>) -> Self {
        Self(body)
    }

    /// From a form or a command line: every value is text, and an empty one was not given.
    pub fn of_text(words: impl IntoIterator<Item = (String, String)>) -> Self {
        let given = words.into_iter().filter(|(_, value)| !value.trim().is_empty());
        Self(given.map(|(name, value)| (name, Value::String(value))).collect())
    }

    /// Takes a text.
    pub fn text(&mut self, name: &str) -> Result<String, Problem> {
        match self.0.remove(name) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(Problem::invalid(format!("{name}: it has to be a text."))),
            None => Err(Problem::invalid(format!("{name}: it is missing."))),
        }
    }

    fn given(&mut self, name: &str) -> Result<Option<String>, Problem> {
        if self.0.contains_key(name) { self.text(name).map(Some) } else { Ok(None) }
    }

    fn duration(&mut self, name: &str) -> Result<Duration, Problem> {
        let text = self.text(name)?;
        humantime::parse_duration(text.trim())
            .map_err(|error| Problem::invalid(format!("{name}: {error}; write it as 30m or 2h.")))
    }

    /// Takes a JSON value; `is_text` says that it was written as text and has to be read first.
    fn json(&mut self, name: &str, is_text: bool) -> Result<Option<Value>, Problem> {
        match self.0.remove(name) {
            Some(Value::String(text)) if is_text => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| Problem::invalid(format!("{name}: it is not JSON ({error})."))),
            other => Ok(other),
        }
    }

    /// The act that they ask for. Words that the act does not take are refused, so that a misspelt one is not ignored.
    ///
    /// `is_text`: JSON values are written as text, as forms and command lines do.
    pub fn into_act(mut self, is_text: bool, now: Timestamp) -> Result<Act, Problem> {
        let kind = self.text("kind")?;
        let kind: ActKind = kind.parse().map_err(|_| {
            let kinds: Vec<String> = ActKind::iter().map(|kind| kind.to_string()).collect();
            Problem::invalid(format!("kind: {} is none of {}.", shown(&kind), kinds.join(", ")))
        })?;
        let step = if kind.is_about_step() {
            let text = self.text("step")?;
            StepKey::parse(&text).map_err(|error| Problem::invalid(format!("step: {error}.")))?
        } else {
            StepKey::root()
        };
        let step = || step.clone();
        let missing = |name: &str| Problem::invalid(format!("{name}: it is missing."));
        let act = match kind {
            ActKind::Retry => Act::Retry,
            ActKind::Resume => Act::Resume,
            ActKind::Cancel => Act::Cancel,
            ActKind::Pause => Act::Pause { until: now.plus(self.duration("wait")?) },
            ActKind::Policy => Act::Policy { step: step(), max_wait: self.duration("max_wait")? },
            ActKind::FailAttempt => Act::FailAttempt { step: step() },
            ActKind::Skip => Act::Skip { step: step() },
            ActKind::Release => Act::Release { step: step(), owner: owner(&self.text("owner")?)? },
            ActKind::Patch => {
                let input = self.json("input", is_text)?.ok_or_else(|| missing("input"))?;
                let references =
                    self.json("references", is_text)?.unwrap_or_else(|| Value::Array(Vec::new()));
                let references = serde_json::from_value(references).map_err(|error| {
                    Problem::invalid(format!("references: {}", crate::extract::plain(&error.to_string())))
                })?;
                Act::Patch { step: step(), input, references }
            }
            ActKind::Done => Act::Done { step: step(), output: self.json("output", is_text)? },
            ActKind::Settle => {
                let verdict = self.text("verdict")?;
                let (output, external_id) = (self.json("output", is_text)?, self.given("external_id")?);
                let verdict = match (verdict.as_str(), output) {
                    ("absent", None) => Verdict::Absent,
                    ("absent", Some(_)) => {
                        return Err(Problem::invalid("output: what is absent has none."));
                    }
                    ("adopt", Some(output)) => Verdict::Adopt { output, external_id },
                    ("useless", Some(output)) => Verdict::Useless { output, external_id },
                    ("adopt" | "useless", None) => return Err(missing("output")),
                    (other, _) => {
                        let words = VERDICTS.join(", ");
                        return Err(Problem::invalid(format!(
                            "verdict: {} is none of {words}.",
                            shown(other)
                        )));
                    }
                };
                Act::Settle { step: step(), verdict }
            }
        };
        if let Some(name) = self.0.keys().next() {
            return Err(Problem::invalid(format!("{}: {kind} does not take it.", shown(name))));
        }
        Ok(act)
    }
}

/// Reads who is to hold a thing.
fn owner(text: &str) -> Result<String, Problem> {
    crate::extract::name("owner", text.trim())
}

fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: Value) -> Result<Act, String> {
        let Value::Object(body) = body else { panic!("an object") };
        Words::of_body(body).into_act(false, Timestamp(0)).map_err(|problem| problem.detail)
    }

    #[test]
    fn every_act_can_be_written_with_the_fields_that_it_names() {
        for kind in ActKind::iter() {
            let mut body = Map::from_iter([("kind".to_owned(), json!(kind.to_string()))]);
            if kind.is_about_step() {
                body.insert("step".into(), json!("join"));
            }
            for field in fields(kind) {
                let value = match field.form {
                    FieldForm::Json if field.name == "references" => json!([{"at": "/a/0", "step": "first"}]),
                    FieldForm::Duration => json!("5m"),
                    FieldForm::Choice(_) => json!("adopt"),
                    FieldForm::Text => json!("in_1"),
                    FieldForm::Json => json!({"a": [1, null]}),
                };
                body.insert(field.name.into(), value);
            }
            let act = read(Value::Object(body.clone())).unwrap_or_else(|problem| panic!("{kind}: {problem}"));
            assert_eq!(act.kind(), kind);
            // As a form has it, where everything is text.
            let text = body.into_iter().map(|(name, value)| match value {
                Value::String(text) => (name, text),
                other => (name, other.to_string()),
            });
            let written = Words::of_text(text).into_act(true, Timestamp(0)).unwrap();
            assert_eq!(written, act);
        }
    }

    #[test]
    fn what_an_act_cannot_use_is_refused_by_name() {
        assert_eq!(read(json!({"kind": "retyr"})).unwrap_err().split(':').next(), Some("kind"));
        assert_eq!(read(json!({"kind": "skip"})).unwrap_err(), "step: it is missing.");
        assert_eq!(read(json!({"kind": "retry", "step": "a"})).unwrap_err(), "step: retry does not take it.");
        assert_eq!(
            read(json!({"kind": "settle", "step": "a", "verdict": "adopt"})).unwrap_err(),
            "output: it is missing."
        );
        assert!(read(json!({"kind": "pause", "wait": "soon"})).unwrap_err().starts_with("wait: "));
        assert!(read(json!({"kind": "pause", "wait": 3})).unwrap_err().starts_with("wait: "));
    }

    #[test]
    fn null_is_an_output_that_can_be_given() {
        let act = read(json!({"kind": "done", "step": "a", "output": null})).unwrap();
        assert_eq!(act, Act::Done { step: "a".into(), output: Some(Value::Null) });
    }
}
