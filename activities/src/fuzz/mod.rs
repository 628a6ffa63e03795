//! Fuzz: whatever a provider, or whoever stands before it, answers, nothing definite is concluded unless the provider's
//! contract says so.
//!
//! The oracle is the contracts, not our tables. `AMENDS_TEST_FUZZ=n` makes n inputs for each operation, and a tenth as
//! many over HTTP for each call of a client; `AMENDS_TEST_SEED` begins elsewhere.

#![allow(clippy::disallowed_methods, reason = "tests fail by panicking")]

mod bounds;
mod contracts;
mod dice;
mod generate;
mod wire;

use serde_json::Value;

use crate::answer::judge::{Verdict, judge};
use crate::answer::{
    Answer, Body, Content, Field, Is, Kind, Means, Operation, Row, Shape, Source, operations,
};
use contracts::{Claim, Contracts};
use dice::Dice;
use generate::{Generator, Input};

fn number(name: &str, without: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(without)
}

fn content(body: &[u8]) -> (Content, Option<Value>) {
    let content = Content::read(body);
    let value = match &content {
        Content::Json(value) => Some(value.clone()),
        _ => None,
    };
    (content, value)
}

/// The claim that a verdict makes; none where nothing is known.
fn claim(operation: &Operation, status: u16, verdict: &Verdict) -> Option<Claim> {
    match verdict {
        Verdict::Done => Some(Claim::Done),
        Verdict::Known(means, _) => match means {
            Means::Refused(_) | Means::SaysNo(_) | Means::Taken => Some(Claim::Refused),
            Means::Gone => Some(Claim::Gone),
            Means::Ambiguous => Some(Claim::Ambiguous),
            // Who asks to slow down need not be the provider where nothing can have been done.
            Means::Throttled if status == 429 && operation.kind != Kind::Write => None,
            Means::NotYet | Means::Slot | Means::Throttled | Means::Credential | Means::Denied => {
                Some(Claim::NotDone)
            }
        },
        Verdict::Unknown(..) => None,
    }
}

/// What the tables conclude from an input against the contract; and what they concluded at all.
fn check(contracts: &Contracts, operation: &Operation, input: &Input) -> (Option<Claim>, Option<String>) {
    let (content, value) = content(&input.body);
    let mut headers = reqwest::header::HeaderMap::new();
    for (name, value) in &input.headers {
        if let Ok(value) = value.parse() {
            headers.insert(reqwest::header::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
    }
    let is_empty = content == Content::Empty;
    let answer = Answer { status: input.status, headers, content };
    let verdict = judge(operation, &answer);
    let Some(claim) = claim(operation, input.status, &verdict) else { return (None, None) };
    let digest = input.headers.iter().find(|(name, _)| name == "docker-content-digest");
    let digest = digest.map(|(_, value)| value.as_str());
    let body = value.as_ref().filter(|_| !is_empty);
    if contracts.allow(claim, operation.provider, operation.name, input.status, body, digest) {
        return (Some(claim), None);
    }
    let text: String = String::from_utf8_lossy(&input.body).chars().take(600).collect();
    let what = format!("{} {} {}: {verdict:?} from {text}", operation.provider, operation.name, input.status);
    (Some(claim), Some(what))
}

fn search(
    contracts: &Contracts,
    operation: &Operation,
    inputs: usize,
    seed: u64,
) -> (Vec<usize>, Vec<String>) {
    let (mut dice, generator) = (Dice::new(seed), Generator::new(contracts, operation));
    let (mut claims, mut wrong) = (vec![0; 5], Vec::new());
    for _ in 0..inputs {
        let input = generator.input(&mut dice);
        let (claim, violation) = check(contracts, operation, &input);
        if let Some(claim) = claim {
            claims[claim as usize] += 1;
        }
        wrong.extend(violation);
    }
    (claims, wrong)
}

#[test]
fn nothing_definite_is_concluded_unless_the_contract_says_so() {
    let (contracts, inputs) = (Contracts::read(), number("AMENDS_TEST_FUZZ", 1500));
    let seed = number("AMENDS_TEST_SEED", 1) as u64;
    let (mut tried, mut all, mut wrong) = (0, 0, Vec::new());
    for (at, operation) in operations().into_iter().enumerate() {
        assert!(contracts.has(operation.provider, operation.name), "{operation:?} has no contract");
        let (claims, violations) = search(&contracts, operation, inputs, seed + 1000 * at as u64);
        println!(
            "{} {}: {inputs} inputs, concluded: {} done, {} refused, {} gone, {} ambiguous, {} not done; {} violations",
            operation.provider,
            operation.name,
            claims[0],
            claims[1],
            claims[2],
            claims[3],
            claims[4],
            violations.len()
        );
        // What never concludes anything would pass as well.
        assert!(claims[0] > 0, "{} is never done", operation.name);
        tried += inputs;
        all += violations.len();
        // A few of each are enough to see what is wrong.
        wrong.extend(violations.into_iter().take(3));
    }
    println!("{tried} inputs tried, {all} violations");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const NOWHERE: Source = Source::Inferred("https://example.com");

/// Lines that are wrong, each for a reason of its own.
fn planted() -> Vec<(&'static str, Operation)> {
    use crate::{agentmail, openrouter, railway, runtime, telnyx};
    const ANY: &[Field] = &[];
    const fn any(status: u16, means: Means) -> Row {
        Row { status, shape: Shape::Fields(ANY), means, source: NOWHERE }
    }
    const LOST: &[&[Row]] = &[&[any(408, Means::Refused("timeout"))]];
    const GATEWAY: &[&[Row]] = &[&[any(404, Means::Gone)]];
    const REDIRECT: &[&[Row]] = &[&[any(303, Means::Refused("redirect"))]];
    const BROKEN: &[&[Row]] = &[&[any(502, Means::NotYet)]];
    const SLOWER: &[&[Row]] = &[&[any(429, Means::Throttled)]];
    const INTERNAL: &[&[Row]] = &[&[Row {
        status: 200,
        shape: Shape::Errors { at: "/message", like: "Problem processing request" },
        means: Means::Refused("problem"),
        source: NOWHERE,
    }]];
    const EDGE: &[&[Row]] = &[&[any(404, Means::Gone)]];
    let rows = |operation: Operation, rows| Operation { rows, ..operation };
    let body = |operation: Operation, body| {
        let done = crate::answer::Done { body, ..operation.done };
        Operation { done, ..operation }
    };
    let loose = Body::List { at: "/data", row: &[], page: &[] };
    let accepted = crate::answer::Done { status: 202, ..telnyx::answers::ORDER.done };
    vec![
        ("a time-out is a refusal", rows(openrouter::answers::CREATE, LOST)),
        ("any 404 is gone", rows(openrouter::answers::DELETE, GATEWAY)),
        ("any 404 is gone, of a read", rows(agentmail::answers::GET, GATEWAY)),
        ("a redirect is a refusal", rows(telnyx::answers::ORDER, REDIRECT)),
        ("a gateway's failure did nothing", rows(railway::answers::PROJECT_CREATE, BROKEN)),
        ("anybody's 429 did nothing", rows(agentmail::answers::CREATE, SLOWER)),
        ("an internal error is a refusal", rows(railway::answers::VOLUME_CREATE, INTERNAL)),
        ("the edge's 404 is the container's", rows(runtime::answers::RESET, EDGE)),
        ("an entry needs no id", body(openrouter::answers::LIST, loose)),
        ("a created key needs no id", body(openrouter::answers::CREATE, Body::Fields(&[]))),
        ("a delete is done whatever it says", body(openrouter::answers::DELETE, Body::Fields(&[]))),
        ("a project is made without an answer", body(railway::answers::PROJECT_CREATE, Body::Fields(&[]))),
        (
            "false is done",
            body(railway::answers::PROJECT_DELETE, Body::Fields(&[Field { at: "", is: Is::Flag }])),
        ),
        ("what was accepted is done", Operation { done: accepted, ..telnyx::answers::ORDER }),
    ]
}

#[test]
fn a_wrong_line_in_a_table_is_found() {
    let (contracts, inputs) = (Contracts::read(), number("AMENDS_TEST_FUZZ", 1500).max(3000));
    let (mut found, all) = (0, planted());
    for (what, operation) in &all {
        let (_, violations) = search(&contracts, operation, inputs, 1);
        println!("{what}: {} of {inputs} inputs show it", violations.len());
        found += usize::from(!violations.is_empty());
    }
    println!("{found} of {} planted lines found", all.len());
    assert_eq!(found, all.len());
}
