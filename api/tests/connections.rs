//! Connections over real sockets: what is slow is closed, what is idle makes room, and what is worked on is not cut off.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amends_api::connections::{self, Bounds};
use amends_api::server::{App, router};
use amends_engine::store::Started;
use amends_engine::store::memory::MemoryStore;
use amends_engine::{Engine, Env, Registry, Saga, Workflow, saga, secs};
use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

/// Sleeps longer than any test.
struct Sleeper;

impl Workflow for Sleeper {
    const NAME: &'static str = "test.sleeper";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        saga.sleep("long", secs(3600)).await
    }
}

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serves: JoinHandle<()>,
}

impl Server {
    async fn start(router: Router, bounds: Bounds) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        let serves = tokio::spawn(connections::serve(listener, router, bounds, stopped));
        Self { address, stop: Some(stop), serves }
    }

    async fn connect(&self) -> TcpStream {
        timeout(SOON, TcpStream::connect(self.address)).await.unwrap().unwrap()
    }

    /// A connection over which so much of a request was sent.
    async fn sent(&self, text: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// The answer to a whole request over a connection of its own.
    async fn asked(&self, path: &str) -> String {
        let mut stream = self.sent(&whole(path)).await;
        answer(&mut stream).await
    }
}

fn whole(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
}

/// All that comes until the other end closes.
async fn answer(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    timeout(SOON, stream.read_to_end(&mut all)).await.expect("it is not closed").ok();
    String::from_utf8_lossy(&all).into_owned()
}

async fn product() -> (Router, Engine) {
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await.unwrap();
    let engine = Engine::start(Arc::new(store), vault, Registry::default().workflow(Sleeper), env, "test");
    let app = App { engine: engine.clone(), sandbox: None, environment: "test".into(), restored_at: None };
    (router(app), engine)
}

fn quick() -> Bounds {
    let part = secs(2);
    Bounds { headers: part, body: part, stalled: part, ..Bounds::default() }
}

#[tokio::test]
async fn a_client_that_does_not_send_its_headers_or_nothing_at_all_is_closed() {
    let (router, _engine) = product().await;
    let server = Server::start(router, quick()).await;
    for part in ["", "GET /healthz HTTP/1.1\r\nhost: loc", "GET /healthz HTTP/1.1\r\nhost: localhost\r\n"] {
        let began = Instant::now();
        let mut slow = server.sent(part).await;
        assert!(!answer(&mut slow).await.contains("200 OK"), "{part:?}");
        assert!(began.elapsed() < SOON, "{part:?}: {:?}", began.elapsed());
    }
    // Neither is one whose first request was in time.
    let mut kept = server.sent("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer(&mut kept).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_told_so() {
    let (router, engine) = product().await;
    let server = Server::start(router, quick()).await;
    let head = "POST /v1/gates/actions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let half = format!("{head}content-length: 50\r\n\r\n{{\"gate\": \"a\", ");
    let chunk = format!("{head}transfer-encoding: chunked\r\n\r\n5\r\n{{\"gat");
    for part in [half, chunk] {
        let mut slow = server.sent(&part).await;
        let told = answer(&mut slow).await;
        assert!(told.starts_with("HTTP/1.1 408") && told.contains("\"code\":\"too_slow\""), "{told}");
    }
    let mut large = server.sent(&format!("{head}content-length: 1048577\r\n\r\n")).await;
    let told = answer(&mut large).await;
    assert!(told.starts_with("HTTP/1.1 413") && told.contains("\"code\":\"too_large\""), "{told}");
    assert!(engine.gates().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    const LENGTH: usize = 64 << 20;
    let large = Router::new().route("/", get(|| async { vec![b'x'; LENGTH] }));
    let server = Server::start(large, quick()).await;
    let mut slow = server.sent(&whole("/")).await;
    sleep(secs(6)).await;
    let mut all = Vec::new();
    let _ = timeout(SOON, slow.read_to_end(&mut all)).await.expect("it is not closed");
    assert!(all.len() < LENGTH, "it was kept for one who reads nothing: {}", all.len());
    // One who reads gets all of it.
    assert!(server.asked("/").await.len() > LENGTH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_while_two_thousand_are_connected_and_idle() {
    let (router, _engine) = product().await;
    let server = Server::start(router, Bounds::default()).await;
    let mut idle = Vec::new();
    for number in 0..2_000 {
        let part = match number % 4 {
            0 => "",
            1 => "GET /healthz HTTP/1.1\r\nhost: loc",
            2 => "POST /v1/claims HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n",
            _ => "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
        };
        idle.push(server.sent(part).await);
        if number % 200 == 199 {
            let began = Instant::now();
            let told = server.asked("/healthz").await;
            assert!(told.starts_with("HTTP/1.1 200"), "after {number}: {told}");
            assert!(began.elapsed() < secs(10), "after {number}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_answered_however_many_wait_for_a_saga() {
    let (router, engine) = product().await;
    let bounds = Bounds { connections: 16, ..Bounds::default() };
    let server = Server::start(router, bounds).await;
    let new = engine.new_saga::<Sleeper>("one", &()).unwrap();
    let Started::New(saga) = engine.begin(new).await.unwrap() else { panic!() };
    let path = format!("/v1/sagas/{saga}?wait=60s");
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(server.sent(&whole(&path)).await);
    }
    // Each of the eight has its place once the next one is answered at once.
    let mut cut = String::new();
    for _ in 0..100 {
        let mut one = server.sent(&whole(&path)).await;
        let mut all = Vec::new();
        if timeout(secs(2), one.read_to_end(&mut all)).await.is_ok() {
            cut = String::from_utf8(all).unwrap();
            break;
        }
        waiting.push(one);
    }
    assert!(cut.starts_with("HTTP/1.1 200") && cut.contains("retry-after: 2\r\n"), "{cut}");
    let asked = waiting.len();
    assert!(asked < 16, "{asked}");
    for _ in 0..40 {
        assert!(server.asked("/healthz").await.starts_with("HTTP/1.1 200"));
        waiting.push(server.connect().await);
    }
    // Those that had a place have it still, whichever came first.
    let mut silent = 0;
    for stream in &mut waiting[..asked] {
        silent += usize::from(timeout(Duration::from_millis(50), stream.read_u8()).await.is_err());
    }
    assert_eq!(silent, 8, "it was cut off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_worked_on_is_ended_whoever_comes_and_when_the_server_stops() {
    let begun = Arc::new(tokio::sync::Notify::new());
    let begins = begun.clone();
    let slow = async move || {
        begins.notify_one();
        sleep(secs(2)).await;
        "done"
    };
    let routes = Router::new().route("/", get(slow)).layer(from_fn(connections::whole_request));
    let mut server = Server::start(routes, Bounds { connections: 2, ..Bounds::default() }).await;
    let mut first = server.sent(&whole("/")).await;
    begun.notified().await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(server.connect().await);
    }
    assert!(answer(&mut first).await.ends_with("done"));
    let mut last = server.sent(&whole("/")).await;
    begun.notified().await;
    server.stop.take().unwrap().send(()).unwrap();
    assert!(answer(&mut last).await.ends_with("done"));
    timeout(SOON, server.serves).await.expect("it serves on").unwrap();
    for other in &mut others {
        answer(other).await;
    }
    assert!(TcpStream::connect(server.address).await.is_err(), "it listens on");
}
