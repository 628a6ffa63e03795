//! Control: the sandbox's own API: set faults, see what the fakes hold and what was asked of them.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::{Shared, holdings};

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/v1/sandbox/faults", get(list).post(set).delete(clear))
        .route("/v1/sandbox/providers", get(providers))
        .route("/v1/sandbox/calls", get(calls))
        .route("/healthz", get(|| async { "ok" }))
}

async fn list(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({"items": shared.world().faults.all(), "next_cursor": null}))
}

async fn set(State(shared): State<Arc<Shared>>, body: Bytes) -> axum::response::Response {
    let asked = serde_json::from_slice::<Fault>(&body).map_err(|error| error.to_string());
    let asked = asked.and_then(|fault| fault.problem().map_or(Ok(fault), Err));
    match asked {
        Ok(fault) => {
            shared.world().faults.set(fault.clone());
            (StatusCode::CREATED, Json(json!(fault))).into_response()
        }
        Err(problem) => {
            let body = json!({"type": "about:blank", "title": "The fault is not one", "status": 400, "detail": problem});
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string())
                .into_response()
        }
    }
}

async fn clear(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.world().faults.clear();
    StatusCode::NO_CONTENT
}

async fn providers(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(holdings(&shared.world()))
}

async fn calls(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let world = shared.world();
    Json(json!({"calls": world.calls, "fired": world.faults.fired()}))
}
