//! The server: what every request goes through, and where it listens.

use std::net::SocketAddr;
use std::sync::Arc;

use amends_engine::{Engine, Timestamp};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::csrf::{CsrfLayer, ProtectionError};
use tower_http::trace::TraceLayer;

use crate::connections::{self, BODY_MAX};
use crate::problem::{Code, Problem};
use crate::routes::sandbox::Control;
use crate::{dashboard, routes};

/// What every handler shares.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// The sandbox's switches, if there is a sandbox.
    pub sandbox: Option<Control>,
    /// Which environment this is, for the pages' top band.
    pub environment: Arc<str>,
    /// When the program was started on a database that was put back from a backup.
    pub restored_at: Option<Timestamp>,
}

impl App {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.engine.env().now()
    }
}

/// Every path, behind everything that guards it.
pub fn router(app: App) -> Router {
    Router::new()
        .merge(routes::api())
        .merge(dashboard::pages())
        .fallback(async |uri: Uri| Problem::not_found(format!("path {}", shown(uri.path()))))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let detail = format!("{} does not take {method}.", shown(uri.path()));
            Problem::new(Code::MethodNotAllowed, detail)
        })
        .layer(middleware::from_fn_with_state(app.clone(), dashboard::problems_for_browsers))
        .with_state(app)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(connections::whole_request))
        .layer(CsrfLayer::new().with_rejection_response(|error: ProtectionError| {
            tracing::warn!(%error, "a request from another site was refused");
            Problem::new(Code::CrossSite, "A page of another site sent this request.").into_response()
        }))
        .layer(middleware::from_fn(only_for_loopback_names))
        .layer(middleware::from_fn(careful_headers))
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(Code::Internal, "A handler panicked; the log has more.").into_response()
        }))
        .layer(TraceLayer::new_for_http())
}

fn shown(path: &str) -> String {
    path.chars().take(200).flat_map(char::escape_default).collect()
}

/// Refuses requests for another name. The server has no authentication, so that a page whose name was made
/// to point at this machine (DNS rebinding) must not be taken for the operator.
async fn only_for_loopback_names(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok().map(ToOwned::to_owned));
    match authority.or(host) {
        Some(name) if is_loopback_name(&name) => next.run(request).await,
        Some(name) => {
            let detail = format!("{} is not a loopback name.", shown(&name));
            Problem::new(Code::ForeignHost, detail).into_response()
        }
        None => Problem::new(Code::ForeignHost, "The request names no host.").into_response(),
    }
}

fn is_loopback_name(authority: &str) -> bool {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<std::net::IpAddr>() {
        return ip.is_loopback();
    }
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
}

/// Nothing is cached, framed, sniffed, or loaded from elsewhere.
async fn careful_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let all = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in all {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It would be open to everyone.
    #[error(
        "AMENDS_LISTEN={0} is not a loopback address, and there is no authentication yet: use 127.0.0.1 or [::1], and a tunnel or an authenticating proxy for the rest"
    )]
    NotLoopback(SocketAddr),
    /// Somebody else listens there.
    #[error("AMENDS_LISTEN={0} is taken by another program: stop it, or set AMENDS_LISTEN to another port")]
    Taken(SocketAddr),
    /// The system said no.
    #[error("AMENDS_LISTEN={0}: {1}")]
    Other(SocketAddr, std::io::Error),
}

/// Listens; only where nobody else can reach it.
pub async fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        return Err(ListenError::NotLoopback(address));
    }
    tokio::net::TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Other(address, error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered() {
        for name in ["127.0.0.1:7300", "localhost:7300", "LOCALHOST", "[::1]:7300", "[::1]", "127.0.0.9"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in ["ops.example", "10.0.0.1:7300", "localhost.evil.example:7300", "", "127.0.0.1.nip.io"] {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[tokio::test]
    async fn it_does_not_listen_where_others_can_reach_it_and_says_when_a_port_is_taken() {
        let open = listen("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(open.to_string().contains("not a loopback address"));
        let first = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = listen(first.local_addr().unwrap()).await.unwrap_err();
        assert!(matches!(taken, ListenError::Taken(_)));
    }
}
