//! Connections: who is connected, how long each part of a request may take, and who has to go when there are too many.
//!
//! One request at a time goes over a connection, so that the bound on connections is one on requests too. Where all
//! places are taken, whoever has been idle for the longest time has to go; one whose request is being worked on never
//! has to. One counts as idle once its answer is there, even if it still reads it, and is then the last that has to go.
//! Of requests that only wait for a saga there are at most half as many as there are connections, so that the other
//! half is always soon to be had: a probe is answered however many are connected.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, Sleep};
use tower::ServiceExt;

use crate::problem::{Code, Problem};

/// The largest body that is read.
pub const BODY_MAX: usize = 1024 * 1024;

/// How many may be connected, and how long each part of a request may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time. Many systems let a program have 1,024 files, and the database and the providers need some.
    pub connections: u32,
    /// How long a client may take until the headers of its next request are there.
    pub headers: Duration,
    /// How long it may take to send the body behind them.
    pub body: Duration,
    /// How long it may read nothing of an answer.
    pub stalled: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        let part = Duration::from_secs(30);
        Self { connections: 512, headers: part, body: part, stalled: part }
    }
}

/// How soon it is looked again for somebody who is idle, while everybody else is worked for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Serves until `stop` comes; then what is under way is ended in order, and nobody else is let in.
pub async fn serve(
    mut listener: TcpListener,
    router: Router,
    bounds: Bounds,
    stop: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(usize_of(bounds.connections)));
    let waits = Arc::new(Semaphore::new(usize_of(bounds.connections / 2)));
    let everybody = Everybody::default();
    let (stopping, has_stopped) = watch::channel(false);
    let mut stop = pin!(stop);
    for number in 0_u64.. {
        let next = async {
            let (stream, _) = Listener::accept(&mut listener).await;
            (stream, place(&places, &everybody).await)
        };
        let (stream, place) = tokio::select! {
            () = &mut stop => break,
            next = next => next,
        };
        let Some(place) = place else { break };
        let connection = Connection(Arc::new(Inner {
            stands: Mutex::new(Stands::Idle(Instant::now())),
            leave: Notify::new(),
            body: bounds.body,
            waits: waits.clone(),
        }));
        everybody.enter(number, connection.clone());
        let (router, stopped, everybody) = (router.clone(), has_stopped.clone(), everybody.clone());
        tokio::spawn(async move {
            let _place = place;
            let _left = Left(everybody, number);
            converse(stream, router, bounds, connection, stopped).await;
        });
    }
    drop(listener);
    stopping.send_replace(true);
    // Each connection has one until it has ended.
    let _ended = places.acquire_many(bounds.connections).await;
}

fn usize_of(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A place for one more; whoever was idle for the longest time makes room. Nothing once the server has ended.
async fn place(places: &Arc<Semaphore>, everybody: &Everybody) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = places.clone().try_acquire_owned() {
        return Some(place);
    }
    loop {
        everybody.send_away_the_most_idle();
        if let Ok(place) = tokio::time::timeout(LOOK_AGAIN, places.clone().acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Answers one client until it or we have enough.
async fn converse(
    stream: TcpStream,
    router: Router,
    bounds: Bounds,
    connection: Connection,
    mut stopped: watch::Receiver<bool>,
) {
    let known = connection.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(known.clone());
        let router = router.clone();
        async move { router.oneshot(request).await }
    });
    let io = TokioIo::new(Read { stream, limit: bounds.stalled, stalled: None });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.headers);
    let mut conversation = pin!(http.serve_connection(io, service));
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = conversation.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                }
                return;
            }
            () = connection.0.leave.notified() => return,
            _ = stopped.wait_for(|stopped| *stopped), if !is_ending => {
                is_ending = true;
                conversation.as_mut().graceful_shutdown();
            }
        }
    }
}

/// All who are connected.
#[derive(Debug, Clone, Default)]
struct Everybody(Arc<Mutex<BTreeMap<u64, Connection>>>);

impl Everybody {
    fn enter(&self, number: u64, connection: Connection) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(number, connection);
    }

    fn send_away_the_most_idle(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = all.values().filter_map(|one| Some((one.idle_since()?, one)));
        if let Some((_, one)) = idle.min_by_key(|(since, _)| *since) {
            one.send_away();
        }
    }
}

/// Takes a connection off the list when it has ended, however that came.
struct Left(Everybody, u64);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// The connection by which a request came.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stands: Mutex<Stands>,
    leave: Notify,
    /// How long a body may take.
    body: Duration,
    /// Places of requests that wait for a saga.
    waits: Arc<Semaphore>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// No request of it is whole and unanswered, since then.
    Idle(Instant),
    /// One is being worked on.
    Working,
    /// It has to go.
    Leaving,
}

impl Connection {
    fn idle_since(&self) -> Option<Instant> {
        match *self.0.stands.lock().unwrap_or_else(PoisonError::into_inner) {
            Stands::Idle(since) => Some(since),
            Stands::Working | Stands::Leaving => None,
        }
    }

    fn send_away(&self) {
        let mut stands = self.0.stands.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*stands, Stands::Idle(_)) {
            *stands = Stands::Leaving;
            self.0.leave.notify_one();
        }
    }

    /// A request is whole and is worked on; nothing where the connection has to go, so that what nobody would hear of
    /// is not done.
    fn begin(&self) -> Option<Working> {
        let mut stands = self.0.stands.lock().unwrap_or_else(PoisonError::into_inner);
        if *stands == Stands::Leaving {
            return None;
        }
        *stands = Stands::Working;
        Some(Working(self.clone()))
    }
}

/// A request is being worked on.
struct Working(Connection);

impl Drop for Working {
    fn drop(&mut self) {
        *self.0.0.stands.lock().unwrap_or_else(PoisonError::into_inner) = Stands::Idle(Instant::now());
    }
}

/// Reads a request to its end before anything is done about it, within its bounds of size and time.
pub async fn whole_request(request: Request, next: Next) -> Response {
    let connection = request.extensions().get::<Connection>().cloned();
    let limit = connection.as_ref().map_or(Bounds::default().body, |connection| connection.0.body);
    let (parts, body) = request.into_parts();
    let body = match tokio::time::timeout(limit, whole(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(problem)) => return closing(problem),
        Err(_) => {
            let limit = humantime::format_duration(limit);
            return closing(Problem::new(Code::TooSlow, format!("The body was not there after {limit}.")));
        }
    };
    let _working = match connection.as_ref().map(Connection::begin) {
        Some(None) => {
            return closing(Problem::new(Code::Draining, "Too many are connected, and this one was idle."));
        }
        Some(Some(working)) => Some(working),
        None => None,
    };
    next.run(Request::from_parts(parts, Body::from(body))).await
}

/// What of the request was not read is not read any more.
fn closing(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn whole(body: Body) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::TooLarge, "The body has more than one megabyte.");
    if body.size_hint().lower() > u64::try_from(BODY_MAX).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let mut parts = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::new(Code::MalformedJson, "The body broke off."))?;
        if all.len() + part.len() > BODY_MAX {
            return Err(too_large());
        }
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

/// Places for requests that wait until a saga has got on.
#[derive(Debug)]
pub struct Waits(Option<Connection>);

impl Waits {
    /// So long the request may wait, and its place; nothing where so many wait already that it is answered at once.
    pub fn allow(&self, wait: Option<Duration>) -> Option<(Duration, WaitPlace)> {
        let wait = wait?;
        let Some(connection) = &self.0 else { return Some((wait, WaitPlace(None))) };
        let place = connection.0.waits.clone().try_acquire_owned().ok()?;
        Some((wait, WaitPlace(Some(place))))
    }
}

/// A place of a request that waits; free again when it is dropped.
#[derive(Debug)]
pub struct WaitPlace(#[expect(dead_code, reason = "it is kept")] Option<OwnedSemaphorePermit>);

impl<S: Send + Sync> FromRequestParts<S> for Waits {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<Connection>().cloned()))
    }
}

/// A stream whose other end has to read what is written to it.
struct Read {
    stream: TcpStream,
    limit: Duration,
    /// Ends when nothing was read for too long.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Read {
    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Read {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Read {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
