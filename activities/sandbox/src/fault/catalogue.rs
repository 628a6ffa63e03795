//! Catalogue: every fault with what it does, what it takes and where it applies. A fault is checked by it, and both
//! `GET /v1/sandbox/faults` and docs/sandbox.md are made of it.

use serde::Serialize;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use super::operation::{Class, class};
use super::{Kind, Preset, Provider};

/// A fault as the catalogue has it.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "each is what its name says")]
pub struct Entry {
    pub kind: Kind,
    pub what: &'static str,
    /// Beside those that every fault takes.
    pub parameters: Vec<Parameter>,
    /// To which calls it can happen.
    pub applies: Applies,
    /// Whether it can happen at once, without a call (`now`).
    pub at_once: bool,
}

/// What a fault takes.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs, reason = "each is what its name says")]
pub struct Parameter {
    pub name: &'static str,
    pub is_needed: bool,
    /// Its values, with their unit and what holds without it.
    pub what: &'static str,
}

/// The calls to which a fault can happen.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is what its name says")]
pub enum Applies {
    All,
    Writes,
    Deletes,
    Lists,
    /// All calls of one provider.
    At(Provider),
    /// All calls of these providers.
    AtSome(&'static [Provider]),
    Only(&'static [(Provider, &'static str)]),
}

impl Applies {
    fn holds(self, provider: Provider, operation: &str) -> bool {
        match self {
            Self::All => true,
            Self::Writes => class(provider, operation).is_write(),
            Self::Deletes => class(provider, operation) == Class::Delete,
            Self::Lists => class(provider, operation) == Class::List,
            Self::At(only) => only == provider,
            Self::AtSome(some) => some.contains(&provider),
            Self::Only(some) => some.contains(&(provider, operation)),
        }
    }

    pub(crate) fn of(self, provider: Provider) -> Vec<&'static str> {
        provider.operations().iter().copied().filter(|operation| self.holds(provider, operation)).collect()
    }

    pub(crate) fn words(self) -> String {
        let named = |(provider, operation): &(Provider, &str)| format!("`{provider}.{operation}`");
        match self {
            Self::All => "every call".to_owned(),
            Self::Writes => "every call that writes".to_owned(),
            Self::Deletes => "every call that deletes".to_owned(),
            Self::Lists => "every call that lists".to_owned(),
            Self::At(provider) => format!("every call of `{provider}`"),
            Self::AtSome(some) => {
                let names: Vec<String> = some.iter().map(|provider| format!("`{provider}`")).collect();
                format!("every call of {}", names.join(", "))
            }
            Self::Only(some) => some.iter().map(named).collect::<Vec<_>>().join(", "),
        }
    }
}

const fn may(name: &'static str, what: &'static str) -> Parameter {
    Parameter { name, is_needed: false, what }
}

const fn must(name: &'static str, what: &'static str) -> Parameter {
    Parameter { name, is_needed: true, what }
}

/// What every fault takes.
pub const COMMON: &[Parameter] = &[
    must("provider", "at whom"),
    must(
        "operation",
        "in which call, in the provider's own word; `*` is every call to which the fault can happen",
    ),
    must("fault", "what goes wrong"),
    may(
        "of",
        "only calls that name this: an id, a name, a domain, an image, or a credential by its name; without it, every call",
    ),
    may("times", "how often it happens; without it, until it is taken away"),
    may("skip", "how many calls pass before; 0 without it"),
    may("probability", "from 0 to 1, drawn for each call; 1 without it"),
    may("seed", "what the drawing begins with; 1 without it"),
];

const ACTED: Parameter = may("acted", "whether the call has done its work before; true without it");
const STATUS_OF_DELETE: Parameter = may(
    "status",
    "200 (the provider's own success) or 404 (the provider's own \"not found\"); 200 without it",
);
const NOW: Parameter = may("now", "true: at once, without a call; `of` then says to what");
const COMMIT: Applies = Applies::Only(&[(Provider::Railway, "environmentPatchCommit")]);
const ORDER: Applies = Applies::Only(&[(Provider::Telnyx, "createNumberOrder")]);

fn entry(kind: Kind, applies: Applies, parameters: &[Parameter], at_once: bool, what: &'static str) -> Entry {
    Entry { kind, what, parameters: parameters.to_vec(), applies, at_once }
}

impl Kind {
    /// What it does, what it takes, where it applies.
    pub fn entry(self) -> Entry {
        use Applies::{All, At, AtSome, Deletes, Lists, Only, Writes};
        let fault = |applies, parameters: &[Parameter], what| entry(self, applies, parameters, false, what);
        let event = |applies, parameters: &[Parameter], what| entry(self, applies, parameters, true, what);
        match self {
            Self::Latency => fault(
                All,
                &[must("ms", "milliseconds")],
                "The call takes longer. Nothing else is held up by it.",
            ),
            Self::LoseRequest => fault(All, &[], "The line drops before the call has done anything."),
            Self::LoseAnswer => {
                fault(All, &[], "The call does its work, and the line drops before the answer.")
            }
            Self::Hang => {
                fault(All, &[ACTED], "No answer comes, and the line stays open until the client ends it.")
            }
            Self::CommitLate => fault(
                Writes,
                &[
                    may("seconds", "at most so much later; 1 without it"),
                    may("from_seconds", "at least so much later; half of `seconds` without it"),
                    may("preset", "what is answered at once, by name; without it the line drops"),
                ],
                "The call is answered at once, or its line drops, and it does its work later: a create, an update, an assignment, a delete alike.",
            ),
            Self::Spoil => fault(
                All,
                &[
                    may("preset", "the answer, by name"),
                    may(
                        "answer",
                        "the answer, part by part: `status`, `headers`, `body`, `cut_after` (bytes), `drip_ms`, `content_length`",
                    ),
                    ACTED,
                ],
                "A proxy in front gives another answer. One of `preset` and `answer` is given.",
            ),
            Self::Refuse => fault(All, &[], "The provider says no, in its own way, and does nothing."),
            Self::Unauthorized => fault(
                All,
                &[],
                "The provider says that it does not know the credential: 401 in its own way. With `of`, one credential alone.",
            ),
            Self::RateLimited => fault(
                All,
                &[may("retry_after", "whole seconds, in the header; no header without it")],
                "429, and nothing is done.",
            ),
            Self::Quota => fault(
                All,
                &[must("calls", "how many calls pass"), must("seconds", "in so many seconds")],
                "The credential may make so many calls in so long; beyond that, 429 with the seconds that are left. Each credential counts for itself.",
            ),
            Self::ThrottleText => {
                fault(All, &[], "The provider's throttle: at Railway 200 with its text, elsewhere 429.")
            }
            Self::ErrorBefore => {
                fault(All, &[], "500 in the provider's own way, before the call has done anything.")
            }
            Self::ErrorAfter => {
                fault(All, &[], "500 in the provider's own way, after the call has done its work.")
            }
            Self::GoneText => fault(
                At(Provider::Railway),
                &[must("text", "the message, as \"Not Authorized\" or \"Problem processing request\"")],
                "What is not found is answered with another text.",
            ),
            Self::ListLag => fault(
                Only(&[
                    (Provider::Railway, "projectCreate"),
                    (Provider::Railway, "volumeCreate"),
                    (Provider::Openrouter, "createKeys"),
                    (Provider::Agentmail, "createInbox"),
                    (Provider::Telnyx, "createNumberOrder"),
                    (Provider::Telnyx, "createMessagingProfile"),
                ]),
                &[may("seconds", "how long; 5 without it")],
                "What this call makes is not on lists for a while. Asked for by its id, it is there; only a number is not.",
            ),
            Self::ListEmpty => fault(Lists, &[], "The list is empty, and says that it is whole."),
            Self::ListPartial => fault(
                Lists,
                &[may("keep", "how many are left on it; half of the page without it")],
                "The list ends early, and says that it is whole.",
            ),
            Self::ListRepeats => fault(
                Only(&[
                    (Provider::Railway, "projects"),
                    (Provider::Railway, "deployments"),
                    (Provider::Railway, "environmentPatches"),
                    (Provider::Openrouter, "list"),
                    (Provider::Agentmail, "listInboxes"),
                    (Provider::Telnyx, "listNumberOrders"),
                    (Provider::Telnyx, "listPhoneNumbers"),
                    (Provider::Telnyx, "listMessagingProfiles"),
                ]),
                &[],
                "Every page says that there is another, by a cursor that leads to the same page again.",
            ),
            Self::UpdateIgnored => fault(
                Only(&[
                    (Provider::Openrouter, "updateKeys"),
                    (Provider::Agentmail, "updateInbox"),
                    (Provider::Telnyx, "updatePhoneNumber"),
                    (Provider::Telnyx, "updateMessagingSettings"),
                ]),
                &[],
                "The update is answered as if it had been done, and does nothing: what was assigned stays so.",
            ),
            Self::DeleteIgnored => {
                fault(Deletes, &[STATUS_OF_DELETE], "The delete is answered and does nothing.")
            }
            Self::DeleteNotFound => fault(
                Deletes,
                &[],
                "The delete does its work and is answered with the provider's own \"not found\".",
            ),
            Self::DeleteLingers => fault(
                Deletes,
                &[may("seconds", "how long; 5 without it")],
                "The delete is accepted, and the thing is there for a while.",
            ),
            Self::Vanish => event(
                AtSome(&[
                    Provider::Railway,
                    Provider::Openrouter,
                    Provider::Agentmail,
                    Provider::Telnyx,
                    Provider::Runtime,
                ]),
                &[NOW, ACTED],
                "A thing is gone, and nobody here asked for it: a project, key, inbox, number, messaging profile or container. `of` names it by id or name; without it, the newest.",
            ),
            Self::Drift => event(
                AtSome(&[Provider::Railway, Provider::Openrouter, Provider::Agentmail, Provider::Telnyx]),
                &[
                    must(
                        "field",
                        "`image`, `name` or `description` (railway), `limit`, `name` or `disabled` (openrouter), `display_name` (agentmail), `messaging_profile_id` or `customer_reference` (telnyx)",
                    ),
                    must("value", "what it is from now on, as JSON"),
                    NOW,
                    ACTED,
                ],
                "A field of a thing changes, and nobody here asked for it. `of` names the thing; without it, the newest.",
            ),
            Self::DeployTakes => fault(
                COMMIT,
                &[must("seconds", "how long, whatever the pace")],
                "The container boots for so long.",
            ),
            Self::DeployHangs => fault(COMMIT, &[], "The deployment never ends."),
            Self::DeployCrashes => {
                fault(COMMIT, &[], "The container crashes as it boots: the deployment ends as CRASHED.")
            }
            Self::ImageAbsent => fault(
                Only(&[(Provider::Ghcr, "headManifest"), (Provider::Railway, "environmentPatchCommit")]),
                &[],
                "The image is not there: GHCR knows no manifest; Railway takes the patch, and the deployment ends as FAILED.",
            ),
            Self::PatchFails => fault(
                COMMIT,
                &[may("text", "the error's text; \"Failed to apply the patch\" without it")],
                "The patch is taken, and its workflow ends in Error: nothing is deployed.",
            ),
            Self::Redeploys => event(
                At(Provider::Railway),
                &[NOW, ACTED],
                "Railway deploys a service anew, by itself. `of` names the project; without it, the newest.",
            ),
            Self::OrderTakes => fault(
                ORDER,
                &[must("seconds", "how long, whatever the pace")],
                "The order is pending for so long.",
            ),
            Self::OrderFails => {
                fault(ORDER, &[], "The order is pending, and then it fails: the number is not ours.")
            }
            Self::OrderOwned => {
                fault(ORDER, &[], "The order does its work and is answered 409: the number is owned already.")
            }
            Self::NumberTaken => fault(
                ORDER,
                &[may("status", "409 or 422; 422 without it")],
                "Somebody else took the number since the search. It is on no search any more.",
            ),
            Self::ClientIdForgotten => fault(
                Only(&[(Provider::Agentmail, "createInbox")]),
                &[],
                "The client_id of an inbox that was deleted makes a new one. Without this fault it answers with the deleted one.",
            ),
            Self::ContainerDies => event(
                At(Provider::Runtime),
                &[
                    may(
                        "status",
                        "404 (Railway's edge knows no application) or 502 (no answer from it); 502 without it",
                    ),
                    NOW,
                    ACTED,
                ],
                "The container is dead: every path answers like this, until it restarts. `of` names its domain; without it, the one that is called, or the newest.",
            ),
            Self::ContainerRestarts => event(
                At(Provider::Runtime),
                &[may("seconds", "how long it boots; 0 without it"), NOW, ACTED],
                "The container restarts, with what it had on its volume. It answers 503 while it boots. One that was dead lives.",
            ),
            Self::ContainerBound => event(
                At(Provider::Runtime),
                &[may("text", "the conversation; one of its own without it"), NOW, ACTED],
                "The container is in a conversation that nobody here put it into.",
            ),
            Self::ContainerUsed => event(
                At(Provider::Runtime),
                &[may("text", "what is remembered"), NOW, ACTED],
                "The agent writes to its memory.",
            ),
            Self::StaysDirty => fault(
                Only(&[(Provider::Runtime, "reset")]),
                &[may("keep", "0: the conversation goes and the memory stays; without it everything stays")],
                "A reset says that it is done, and is not.",
            ),
            Self::JoinPending => fault(
                Only(&[(Provider::Runtime, "join")]),
                &[may("seconds", "when it is accepted; never without it")],
                "The join waits for a human: it is answered `pending_acceptance`.",
            ),
            Self::JoinAccepted => {
                event(At(Provider::Runtime), &[NOW, ACTED], "A join that waits is accepted.")
            }
        }
    }
}

/// Every fault, preset and operation, as JSON.
pub fn catalogue() -> Value {
    let parameter = |parameter: &Parameter| json!({"name": parameter.name, "needed": parameter.is_needed, "what": parameter.what});
    let kinds = Kind::iter().map(|kind| {
        let entry = kind.entry();
        let operations: serde_json::Map<String, Value> = Provider::iter()
            .map(|provider| (provider.to_string(), json!(entry.applies.of(provider))))
            .filter(|(_, operations)| operations != &json!([]))
            .collect();
        json!({"fault": kind, "what": entry.what, "operations": operations, "at_once": entry.at_once,
            "parameters": entry.parameters.iter().map(parameter).collect::<Vec<_>>()})
    });
    let presets = Preset::iter()
        .map(|preset| json!({"preset": preset, "what": preset.what(), "answer": preset.answer()}));
    json!({"kinds": kinds.collect::<Vec<_>>(), "presets": presets.collect::<Vec<_>>(),
        "parameters": COMMON.iter().map(parameter).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::super::Fault;
    use super::*;

    #[test]
    fn every_fault_can_happen_somewhere_and_every_preset_can_be_sent() {
        for kind in Kind::iter() {
            let places = Provider::iter().filter(|provider| !kind.entry().applies.of(*provider).is_empty());
            assert!(places.count() > 0, "{kind} can happen nowhere");
        }
        for preset in Preset::iter() {
            assert_eq!(preset.answer().problem(), None, "{preset}");
        }
    }

    #[test]
    fn every_parameter_is_a_field_of_a_fault() {
        for kind in Kind::iter() {
            for parameter in kind.entry().parameters.iter().chain(COMMON) {
                let text = format!("{{\"{}\": null}}", parameter.name);
                let error = serde_json::from_str::<Fault>(&text).unwrap_err().to_string();
                assert!(!error.contains("unknown field"), "{kind}: {error}");
            }
        }
    }
}
