//! Refusal: how each provider says no, too often, not you, and that it is broken.

use crate::fault::Provider;
use crate::request::Answer;
use crate::{agentmail, ghcr, openrouter, railway, runtime, telnyx};

pub(crate) fn refuse(provider: Provider, operation: &str) -> Answer {
    match provider {
        Provider::Railway => railway::refuse(operation),
        Provider::Openrouter => openrouter::error(400, "The sandbox was told to refuse this"),
        Provider::Agentmail => agentmail::error(403, "limit_exceeded", "The sandbox was told to refuse this"),
        Provider::Telnyx => telnyx::error(422, "10015", "The sandbox was told to refuse this"),
        Provider::Ghcr => ghcr::error(404, "MANIFEST_UNKNOWN"),
        Provider::Runtime => runtime::error(400, "the sandbox was told to refuse this"),
    }
}

pub(crate) fn unauthorized(provider: Provider) -> Answer {
    match provider {
        Provider::Railway => railway::unauthorized(),
        Provider::Openrouter => openrouter::error(401, "User not found."),
        Provider::Agentmail => agentmail::error(401, "unknown_api_key", "The API key is not known"),
        Provider::Telnyx => telnyx::error(401, "10009", "Authentication failed"),
        Provider::Ghcr => ghcr::error(401, "UNAUTHORIZED"),
        Provider::Runtime => runtime::error(401, "unauthorized"),
    }
}

pub(crate) fn too_many(provider: Provider) -> Answer {
    match provider {
        Provider::Railway => {
            Answer::json(429, serde_json::json!({"errors": [{"message": "Too many requests"}]}))
        }
        Provider::Openrouter => openrouter::error(429, "Rate limit exceeded"),
        Provider::Agentmail => agentmail::error(429, "rate_limit_exceeded", "Too many requests"),
        Provider::Telnyx => telnyx::error(429, "10011", "Too many requests"),
        Provider::Ghcr => ghcr::error(429, "TOOMANYREQUESTS"),
        Provider::Runtime => runtime::error(429, "too many requests"),
    }
}

pub(crate) fn broken(provider: Provider) -> Answer {
    match provider {
        Provider::Railway => {
            Answer::json(500, serde_json::json!({"errors": [{"message": "Internal server error"}]}))
        }
        Provider::Openrouter => openrouter::error(500, "Internal Server Error"),
        Provider::Agentmail => agentmail::error(500, "internal_error", "Internal server error"),
        Provider::Telnyx => telnyx::error(500, "10007", "Unexpected error"),
        Provider::Ghcr => ghcr::error(500, "UNKNOWN"),
        Provider::Runtime => runtime::error(500, "internal error"),
    }
}
