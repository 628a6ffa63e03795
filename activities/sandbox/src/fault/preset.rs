//! Presets: answers that real gateways and providers were seen to give, by name.

use serde::{Deserialize, Serialize};
use serde_json::json;
use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

use super::answer::{Spoiled, SpoiledBody};

/// An answer by name, for [`Kind::Spoil`](crate::Kind::Spoil) and [`Kind::CommitLate`](crate::Kind::CommitLate).
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    Display,
    EnumIter,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[allow(missing_docs, reason = "`what` says what each is, for the program and for docs/sandbox.md alike")]
pub enum Preset {
    ApplicationNotFound,
    ApplicationFailed,
    UpstreamConnectError,
    GatewayNotFound,
    HtmlNotFound,
    GatewayForbidden,
    GatewayUnauthorized,
    NotAuthorizedText,
    RequestTimeout,
    ClientClosed,
    SeeOther,
    TemporaryRedirect,
    ServiceUnavailable,
    GatewayTimeout,
    ErrorInOk,
    ErrorBesideData,
    ErrorsWithoutData,
    HtmlInOk,
    EmptyOk,
    NullOk,
    ListOk,
    HalfBody,
    CutBody,
    DeepBody,
    LargeBody,
    EndlessBody,
    SlowBody,
    LongerThanSaid,
    ShorterThanSaid,
    SaidGzip,
    RetryAfterYear,
    RetryAfterDate,
    RetryAfterFraction,
    RetryAfterNegative,
    RegistryDenied,
    AddressTaken,
    DeletionLocked,
}

impl Preset {
    /// What it stands for, in a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::ApplicationNotFound => {
                "Railway's edge has no application under this domain: 404 with JSON that names neither the object nor the provider's code."
            }
            Self::ApplicationFailed => "Railway's edge got no answer from the application: 502 with JSON.",
            Self::UpstreamConnectError => {
                "A proxy reached no upstream: 502 and a page that begins \"upstream connect error\"."
            }
            Self::GatewayNotFound => {
                "An API gateway without a route: 404 with `{\"message\":\"Not Found\"}`."
            }
            Self::HtmlNotFound => "A web server's own 404, as a page.",
            Self::GatewayForbidden => "A gateway refuses the key: 403 with `{\"message\":\"Forbidden\"}`.",
            Self::GatewayUnauthorized => {
                "A gateway refuses the key: 401 with `{\"message\":\"Unauthorized\"}`."
            }
            Self::NotAuthorizedText => {
                "Railway's answer to a bad token, to what is another's and to what is gone: 200 and an error that says \"Not Authorized\"."
            }
            Self::RequestTimeout => "A gateway has waited too long: 408, empty.",
            Self::ClientClosed => "A gateway takes the client for gone: 499, empty.",
            Self::SeeOther => "A redirect that turns a POST into a GET: 303 to a page that says 200 in HTML.",
            Self::TemporaryRedirect => "A redirect that keeps the method: 307 to a path that answers 404.",
            Self::ServiceUnavailable => "503 as a page.",
            Self::GatewayTimeout => "504 as a page.",
            Self::ErrorInOk => "200 whose body is an error: `{\"error\":{\"code\":502,…}}`.",
            Self::ErrorBesideData => "The provider's answer with `errors` beside its data.",
            Self::ErrorsWithoutData => "200 with an error of no known text, and `data` null.",
            Self::HtmlInOk => "200 with a page, as of a login.",
            Self::EmptyOk => "200 with nothing in it.",
            Self::NullOk => "200 with `null`.",
            Self::ListOk => "200 with `[]`.",
            Self::HalfBody => "The first half of the body, sent as if it were whole.",
            Self::CutBody => "The line drops after ten bytes of the body.",
            Self::DeepBody => "200 with arrays nested 100,000 deep.",
            Self::LargeBody => "200 with a string of 256 MiB.",
            Self::EndlessBody => "200 with a list that does not end.",
            Self::SlowBody => "The body comes byte by byte, a second before each.",
            Self::LongerThanSaid => "`content-length` says less than the body has: the rest is not seen.",
            Self::ShorterThanSaid => "`content-length` says more than the body has: the line drops instead.",
            Self::SaidGzip => "The body as it is, and a header that says it is compressed.",
            Self::RetryAfterYear => "429 that asks to wait a year.",
            Self::RetryAfterDate => "429 whose Retry-After is a date.",
            Self::RetryAfterFraction => "429 whose Retry-After is a fraction of a second.",
            Self::RetryAfterNegative => "429 whose Retry-After is negative.",
            Self::RegistryDenied => {
                "GHCR denies an image: 403 DENIED, as for one that is private or is not there."
            }
            Self::AddressTaken => "AgentMail: somebody else has this address: 403 resource_taken.",
            Self::DeletionLocked => "Telnyx: the number is locked against deletion: 422.",
        }
    }

    /// The answer.
    pub fn answer(self) -> Spoiled {
        let json = |status, body| Spoiled::status(status).body(SpoiledBody::Json(body));
        let page = |status| Spoiled::status(status).body(SpoiledBody::Html);
        let limited = |after| json(429, json!({"message": "Too many requests"})).header("retry-after", after);
        let fine = |body| Spoiled::status(200).body(body);
        match self {
            Self::ApplicationNotFound => json(
                404,
                json!({"status": "error", "code": 404, "message": "Application not found", "request_id": "sandbox"}),
            )
            .header("x-railway-fallback", "true"),
            Self::ApplicationFailed => json(
                502,
                json!({"status": "error", "code": 502, "message": "Application failed to respond", "request_id": "sandbox"}),
            )
            .header("x-railway-fallback", "true"),
            Self::UpstreamConnectError => Spoiled::status(502)
                .body(SpoiledBody::Text(
                    "<html><body>upstream connect error or disconnect/reset before headers. reset reason: connection termination</body></html>".to_owned(),
                ))
                .header("content-type", "text/html"),
            Self::GatewayNotFound => json(404, json!({"message": "Not Found"})),
            Self::HtmlNotFound => page(404),
            Self::GatewayForbidden => json(403, json!({"message": "Forbidden"})),
            Self::GatewayUnauthorized => json(401, json!({"message": "Unauthorized"})),
            Self::NotAuthorizedText => json(
                200,
                json!({"errors": [{"message": "Not Authorized", "locations": [{"line": 1, "column": 1}],
                    "extensions": {"code": "INTERNAL_SERVER_ERROR"}, "traceId": "1234567890123456789"}], "data": null}),
            ),
            Self::RequestTimeout => Spoiled::status(408).body(SpoiledBody::Empty),
            Self::ClientClosed => Spoiled::status(499).body(SpoiledBody::Empty),
            Self::SeeOther => Spoiled::status(303).body(SpoiledBody::Empty).header("location", "/login"),
            Self::TemporaryRedirect => {
                Spoiled::status(307).body(SpoiledBody::Empty).header("location", "/moved")
            }
            Self::ServiceUnavailable => page(503),
            Self::GatewayTimeout => page(504),
            Self::ErrorInOk => json(200, json!({"error": {"code": 502, "message": "Provider returned error"}})),
            Self::ErrorBesideData => Spoiled::default().body(SpoiledBody::Merge(
                json!({"errors": [{"message": "Problem processing request", "traceId": "1234567890123456789"}]}),
            )),
            Self::ErrorsWithoutData => json(
                200,
                json!({"errors": [{"message": "Problem processing request", "traceId": "1234567890123456789"}], "data": null}),
            ),
            Self::HtmlInOk => page(200),
            Self::EmptyOk => fine(SpoiledBody::Empty),
            Self::NullOk => json(200, json!(null)),
            Self::ListOk => json(200, json!([])),
            Self::HalfBody => Spoiled::default().body(SpoiledBody::Half),
            Self::CutBody => Spoiled { cut_after: Some(10), ..Spoiled::default() },
            Self::DeepBody => fine(SpoiledBody::Deep(100_000)),
            Self::LargeBody => fine(SpoiledBody::Bytes(256 << 20)),
            Self::EndlessBody => fine(SpoiledBody::Endless),
            Self::SlowBody => Spoiled { drip_ms: Some(1000), ..Spoiled::default() },
            Self::LongerThanSaid => Spoiled { content_length: Some(10), ..Spoiled::default() },
            Self::ShorterThanSaid => Spoiled { content_length: Some(1 << 20), ..Spoiled::default() },
            Self::SaidGzip => Spoiled::default().header("content-encoding", "gzip"),
            Self::RetryAfterYear => limited("31536000"),
            Self::RetryAfterDate => limited("Fri, 31 Dec 2100 23:59:59 GMT"),
            Self::RetryAfterFraction => limited("0.5"),
            Self::RetryAfterNegative => limited("-5"),
            Self::RegistryDenied => json(
                403,
                json!({"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}),
            ),
            Self::AddressTaken => json(
                403,
                json!({"name": "IsTakenError", "code": "resource_taken", "message": "This address is taken"}),
            ),
            Self::DeletionLocked => json(
                422,
                json!({"errors": [{"code": "10015", "title": "Deletion lock is enabled", "detail": "Deletion lock is enabled"}]}),
            ),
        }
    }
}
