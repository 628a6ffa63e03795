//! Generate: any status, any body, any headers; often close to what a provider would answer.

use serde_json::{Value, json};

use super::contracts::Contracts;
use super::dice::Dice;
use crate::answer::Operation;

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

const STATUSES: &[u16] = &[
    200, 200, 200, 201, 202, 204, 206, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 404,
    404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 415, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431,
    444, 451, 460, 499, 500, 501, 502, 503, 504, 507, 508, 511, 520, 521, 522, 523, 524, 525, 526, 530, 598,
    599,
];
const PAGES: &[&str] = &[
    "",
    " ",
    "\n",
    "null",
    "true",
    "0",
    "[]",
    "{}",
    "\"\"",
    "nope",
    "{",
    "[[[",
    "\u{feff}{}",
    "<html><body><h1>502 Bad Gateway</h1></body></html>",
    "<!DOCTYPE html><title>404 Not Found</title>",
    "upstream connect error or disconnect/reset before headers",
    "{\"message\":\"Application not found\"}",
    "{\"status\":\"error\",\"code\":404,\"message\":\"Application not found\",\"request_id\":\"x\"}",
    "{\"error\":\"not_found\"}",
    "{\"error\":{\"code\":502}}",
    "{\"error\":{\"code\":404}}",
    "{\"error\":{\"code\":\"404\",\"message\":\"Resource not found\"}}",
    "{\"errors\":[]}",
    "{\"errors\":null}",
    "{\"errors\":{}}",
    "{\"errors\":[{}]}",
    "{\"errors\":[null]}",
    "{\"data\":null}",
    "{\"data\":[]}",
    "{\"data\":{}}",
    "{\"data\":[null]}",
    "{\"data\":[{}]}",
    "{\"inboxes\":null,\"count\":0}",
    "{\"deleted\":false}",
    "{\"deleted\":\"true\"}",
    "{\"code\":\"not_found\"}",
    "{\"name\":\"NotFound\",\"message\":\"x\"}",
    "{\"message\":\"Forbidden\"}",
    "1e400",
    "123456789012345678901234567890",
    "-0",
    "{\"a\":1}{\"b\":2}",
    "\u{0}",
    "{\"error\":\"\u{0}\"}",
];
const CONTENT_TYPES: &[&str] = &[
    "application/json",
    "application/json; charset=utf-8",
    "text/html",
    "text/plain",
    "application/problem+json",
    "",
];
const RETRY_AFTERS: &[&str] = &[
    "0",
    "1",
    "17",
    "1.5",
    "-5",
    "31536000",
    "99999999999999999999999",
    "NaN",
    "inf",
    "1e9",
    "soon",
    "",
    "Wed, 21 Oct 2026 07:28:00 GMT",
    "Wed, 21 Oct 2099 07:28:00 GMT",
    "Wed, 99 Oct 2026",
    ",",
    "1, 2",
];
pub(super) const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const DIGESTS: &[&str] = &[DIGEST, "", "sha256:", "sha256:abc", "md5:0123", "SHA256:0123456789ABCDEF"];

/// What answers to one operation are made of.
pub(super) struct Generator {
    provider: &'static str,
    /// One as it should be, with its status.
    sample: (u16, Value),
    /// Its provider's errors.
    errors: Vec<(u16, Value)>,
    /// Those of all others.
    foreign: Vec<(u16, Value)>,
}

impl Generator {
    pub(super) fn new(contracts: &Contracts, operation: &Operation) -> Self {
        let provider = operation.provider;
        let others = ["railway", "openrouter", "agentmail", "telnyx", "ghcr", "runtime"].into_iter();
        Self {
            provider,
            sample: contracts.sample(provider, operation.name).unwrap(),
            errors: contracts.errors(provider),
            foreign: others.flat_map(|other| contracts.errors(other)).collect(),
        }
    }

    /// One answer.
    pub(super) fn input(&self, dice: &mut Dice) -> Input {
        input(self, dice)
    }
}

fn input(of: &Generator, dice: &mut Dice) -> Input {
    let mut status =
        if dice.one_in(8) { 200 + u16::try_from(dice.below(400)).unwrap() } else { dice.pick(STATUSES) };
    let value = match dice.below(10) {
        0 | 1 => None,
        2..5 => {
            let (usual, sample) = of.sample.clone();
            if !dice.one_in(4) {
                status = usual;
            }
            Some(sample)
        }
        // Its own errors, under their own status or another.
        5..8 => {
            let (usual, error) = dice.pick(&of.errors);
            if !dice.one_in(3) {
                status = usual;
            }
            Some(error)
        }
        // Another provider's.
        8 => Some(dice.pick(&of.foreign).1),
        _ => Some(anything(dice, 0)),
    };
    let body = match value {
        None => dice.pick(PAGES).as_bytes().to_vec(),
        Some(Value::Null) => Vec::new(),
        Some(mut value) => {
            for _ in 0..dice.below(3) {
                spoil(dice, &mut value);
            }
            let mut bytes = value.to_string().into_bytes();
            if dice.one_in(12) {
                bytes.truncate(dice.below(bytes.len() + 1));
            }
            bytes
        }
    };
    let body = if dice.one_in(60) { deep(dice) } else { body };
    let mut headers = Vec::new();
    let mut header = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
    header("content-type", dice.pick(CONTENT_TYPES));
    if dice.one_in(3) {
        header("retry-after", dice.pick(RETRY_AFTERS));
    }
    if dice.one_in(4) {
        header("date", "Wed, 21 Oct 2026 07:27:00 GMT");
    }
    if dice.one_in(10) {
        header("location", "/elsewhere");
    }
    if of.provider == "ghcr" || dice.one_in(10) {
        header("docker-content-digest", dice.pick(DIGESTS));
    }
    if dice.one_in(40) {
        header("content-encoding", "gzip");
    }
    Input { status, headers, body }
}

fn deep(dice: &mut Dice) -> Vec<u8> {
    let depth = 100 + dice.below(100_000);
    let (open, close) =
        dice.pick(&[("[", "]"), ("{\"a\":", "}"), ("{\"data\":", "}"), ("{\"errors\":[", "]}")]);
    let mut text = open.repeat(depth);
    if dice.one_in(2) {
        text.push_str("null");
        text.push_str(&close.repeat(depth));
    }
    text.into_bytes()
}

fn anything(dice: &mut Dice, depth: usize) -> Value {
    const NAMES: &[&str] = &[
        "data", "errors", "error", "code", "message", "id", "name", "hash", "key", "deleted", "inboxes",
        "status",
    ];
    match dice.below(if depth > 3 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(dice.one_in(2)),
        2 => json!(dice.next()),
        3 => json!(-1.5e300),
        4 => json!(dice.pick(&[
            "",
            "a",
            "10005",
            "not_found",
            "Project not found",
            "\u{202e}",
            "\u{0}",
            "not a number"
        ])),
        5 => json!("x".repeat(dice.below(3000))),
        6 => (0..dice.below(4)).map(|_| anything(dice, depth + 1)).collect(),
        _ => (0..dice.below(5)).map(|_| (dice.pick(NAMES).to_owned(), anything(dice, depth + 1))).collect(),
    }
}

/// Changes one place: takes it away, makes it something else, puts it twice, or hangs an error beside it.
fn spoil(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !dice.one_in(5) => {
            let name = dice.pick(&fields.keys().cloned().collect::<Vec<_>>());
            match dice.below(6) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert(name, anything(dice, 3))),
                2 => {
                    drop(fields.insert(
                        "errors".to_owned(),
                        json!([{"message": "Project not found", "code": "10005"}]),
                    ))
                }
                3 => drop(
                    fields.insert("error".to_owned(), json!({"code": 404, "message": "Resource not found"})),
                ),
                _ => {
                    if let Some(inner) = fields.get_mut(&name) {
                        spoil(dice, inner);
                    }
                }
            }
        }
        Value::Array(all) if !all.is_empty() && !dice.one_in(5) => {
            let at = dice.below(all.len());
            match dice.below(5) {
                0 => drop(all.remove(at)),
                1 => all.push(anything(dice, 3)),
                2 => all.push(all[at].clone()),
                _ => spoil(dice, &mut all[at]),
            }
        }
        Value::String(text) if dice.one_in(2) => {
            text.push_str(dice.pick(&["x", " ", "\u{0}", "\n", "found"]))
        }
        other => *other = anything(dice, 3),
    }
}
