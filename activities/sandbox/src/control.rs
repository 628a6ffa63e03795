//! Control: the sandbox's own API: set faults, see which there are, what the fakes hold and what was asked of them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::Shared;
use crate::fault::Fault;
use crate::holdings::holdings;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/sandbox/faults", get(list).post(set).delete(clear))
        .route("/v1/sandbox/providers", get(providers))
        .route("/v1/sandbox/calls", get(calls))
        .route("/healthz", get(|| async { "ok" }))
}

async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let (set, catalogue) = (shared.world().faults.all(), crate::fault::catalogue());
    Json(json!({"items": set, "next_cursor": null, "known": catalogue}))
}

async fn set(State(shared): State<Arc<Shared>>, body: Bytes) -> axum::response::Response {
    let asked = serde_json::from_slice::<Fault>(&body).map_err(|error| error.to_string());
    match asked.and_then(|fault| shared.set_fault(&fault).map(|()| fault)) {
        Ok(fault) => (StatusCode::CREATED, Json(json!(fault))).into_response(),
        Err(problem) => {
            let body = json!({"type": "about:blank", "title": "The fault is not one", "status": 400, "detail": problem});
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string())
                .into_response()
        }
    }
}

async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.clear_faults();
    StatusCode::NO_CONTENT
}

async fn providers(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(holdings(&shared.world()))
}

async fn calls(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let world = shared.world();
    Json(json!({"calls": world.calls, "fired": world.faults.fired()}))
}
