//! The guard of the sandbox's port: who may listen, who is answered.
//!
//! The sandbox has no authentication, and its faults are set by a POST. So it is reached only from this machine, unless
//! the names by which others reach it are given; a page of another site can neither send it anything nor read from it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tower_http::csrf::{CsrfLayer, ProtectionError};

/// Puts the guard in front of these routes. `hosts` are names beside the loopback ones, without a port.
pub(crate) fn guarded(routes: Router, hosts: Arc<[String]>) -> Router {
    routes
        .layer(CsrfLayer::new().with_rejection_response(|error: ProtectionError| {
            tracing::warn!(%error, "the sandbox refused a request from another site");
            problem(StatusCode::FORBIDDEN, "A page of another site sent this request.")
        }))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            let hosts = hosts.clone();
            async move { only_for_known_names(&hosts, request, next).await }
        }))
}

/// Refuses requests for another name: a page whose name was made to point at this machine is not the operator.
async fn only_for_known_names(hosts: &[String], request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok().map(ToOwned::to_owned));
    match authority.or(host) {
        Some(name) if is_known_name(&name, hosts) => next.run(request).await,
        Some(name) => {
            let shown: String = name.chars().take(200).flat_map(char::escape_default).collect();
            problem(StatusCode::MISDIRECTED_REQUEST, &format!("{shown} is not a name of this sandbox."))
        }
        None => problem(StatusCode::MISDIRECTED_REQUEST, "The request names no host."),
    }
}

fn problem(status: StatusCode, detail: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

fn is_known_name(authority: &str, hosts: &[String]) -> bool {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return address.ip().is_loopback() || hosts.iter().any(|host| *host == address.ip().to_string());
    }
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return ip.is_loopback() || hosts.iter().any(|host| host == bare);
    }
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || hosts.iter().any(|host| name.eq_ignore_ascii_case(host))
}

/// Whether it may listen there.
///
/// # Errors
/// The address can be reached from other machines, and no name for them is given.
pub(crate) fn may_listen(address: SocketAddr, hosts: &[String]) -> std::io::Result<()> {
    if address.ip().is_loopback() || !hosts.is_empty() {
        return Ok(());
    }
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        format!(
            "{address} can be reached from other machines, and the sandbox has no authentication: listen on 127.0.0.1 or [::1], or give the names by which others may reach it (AMENDS_SANDBOX_HOSTS)"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_and_given_ones_are_answered() {
        let hosts = ["sandbox.internal".to_owned(), "10.0.0.7".to_owned()];
        for name in ["127.0.0.1:7301", "localhost:7301", "LOCALHOST", "[::1]:7301", "[::1]", "127.0.0.9"] {
            assert!(is_known_name(name, &[]), "{name}");
        }
        for name in ["ops.example", "10.0.0.7:7301", "localhost.evil.example:7301", "", "127.0.0.1.nip.io"] {
            assert!(!is_known_name(name, &[]), "{name}");
        }
        for name in ["sandbox.internal:7301", "Sandbox.Internal", "10.0.0.7:7301"] {
            assert!(is_known_name(name, &hosts), "{name}");
        }
        assert!(!is_known_name("evil.sandbox.internal", &hosts));
    }
}
