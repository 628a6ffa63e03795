//! A proxy in front of the sandbox that keeps every request with its answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, Uri};
use serde_json::Value;

/// A request and what it was answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub method: String,
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    /// Null when there was none.
    pub body: Value,
    /// None when the line broke.
    pub answer: Option<Answered>,
}

#[derive(Debug, Clone)]
pub struct Answered {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// A running recorder. Clones share it.
#[derive(Clone)]
pub struct Recorder {
    pub address: SocketAddr,
    kept: Arc<Mutex<Vec<Exchange>>>,
}

#[derive(Clone)]
struct Behind {
    base: String,
    http: reqwest::Client,
    kept: Arc<Mutex<Vec<Exchange>>>,
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &axum::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

impl Recorder {
    /// In front of what listens there.
    pub async fn start(behind: SocketAddr) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Arc::new(Mutex::new(Vec::new()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let behind = Behind { base: format!("http://{behind}"), http, kept: kept.clone() };
        let app = axum::Router::new().fallback(pass).with_state(behind);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, kept }
    }

    /// What came so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.kept.lock().unwrap().clone()
    }
}

async fn pass(
    State(behind): State<Behind>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let url = format!("{}{uri}", behind.base);
    let mut request = behind.http.request(method.clone(), &url).body(body.clone());
    for (name, value) in
        headers.iter().filter(|(name, _)| !["host", "content-length"].contains(&name.as_str()))
    {
        request = request.header(name, value);
    }
    let parsed = reqwest::Url::parse(&url).unwrap();
    let mut exchange = Exchange {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: parsed.query_pairs().into_owned().collect(),
        headers: texts(&headers),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        answer: None,
    };
    let answered = match request.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), answer.headers().clone());
            answer.bytes().await.ok().map(|body| (status, headers, body))
        }
        Err(_) => None,
    };
    exchange.answer = answered.as_ref().map(|(status, headers, body)| Answered {
        status: status.as_u16(),
        headers: texts(headers),
        body: String::from_utf8_lossy(body).into_owned(),
    });
    behind.kept.lock().unwrap().push(exchange);
    // A line that broke behind breaks in front.
    let Some((status, headers, body)) = answered else {
        std::panic::resume_unwind(Box::new("the line broke"))
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().extend(
        headers.into_iter().filter_map(|(name, value)| Some((name?, value))).filter(|(name, _)| {
            !["content-length", "transfer-encoding", "connection"].contains(&name.as_str())
        }),
    );
    response
}
