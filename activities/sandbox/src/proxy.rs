//! Proxy: what stands between a provider and its client, and spoils what the provider said.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;

use crate::clock::{Clock, after};
use crate::fault::{Spoiled, SpoiledBody};
use crate::request::Answer;

/// How much of a long body is sent at a time.
const CHUNK: usize = 64 * 1024;
/// A gateway's page.
pub(crate) const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Error</title></head><body><center><h1>Error</h1></center><hr><center>nginx</center></body></html>\n";

type Chunks = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// A spoiled answer that has a plain JSON body: as an answer that needs no proxy.
pub(crate) fn plain(spoiled: &Spoiled) -> Answer {
    let body = match &spoiled.body {
        Some(SpoiledBody::Json(body)) => Some(body.clone()),
        _ => None,
    };
    let headers = spoiled.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    Answer { status: spoiled.status.unwrap_or(200), headers, body }
}

/// What the client gets of this answer.
pub(crate) fn spoil(answer: Answer, spoiled: &Spoiled, clock: &Clock) -> Response<Body> {
    let said = answer.body.as_ref().map(Value::to_string).unwrap_or_default();
    let (chunks, kind) = match &spoiled.body {
        None => (whole(said), "application/json"),
        Some(SpoiledBody::Json(body)) => (whole(body.to_string()), "application/json"),
        Some(SpoiledBody::Merge(more)) => (whole(merged(answer.body.clone(), more)), "application/json"),
        Some(SpoiledBody::Text(text)) => (whole(text.clone()), "text/plain"),
        Some(SpoiledBody::Html) => (whole(PAGE.to_owned()), "text/html"),
        Some(SpoiledBody::Empty) => (whole(String::new()), "application/json"),
        Some(SpoiledBody::Half) => (whole(half(&said)), "application/json"),
        Some(SpoiledBody::Deep(depth)) => {
            let depth = usize::try_from(*depth).unwrap_or(usize::MAX);
            (whole("[".repeat(depth) + &"]".repeat(depth)), "application/json")
        }
        Some(SpoiledBody::Bytes(bytes)) => (long(*bytes), "application/json"),
        Some(SpoiledBody::Endless) => (endless(), "application/json"),
    };
    let chunks = match spoiled.cut_after {
        Some(bytes) => cut(chunks, bytes),
        None => chunks,
    };
    let chunks = match spoiled.drip_ms {
        Some(ms) => drip(chunks, Duration::from_millis(ms), clock.clone()),
        None => chunks,
    };
    let chunks = match spoiled.content_length {
        Some(_) => chunks.chain(stream::once(async { breathe().await.map(|()| Bytes::new()) })).boxed(),
        None => chunks,
    };
    let mut response = Response::new(Body::from_stream(chunks));
    let status = spoiled.status.unwrap_or(answer.status);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut put = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    };
    put(header::CONTENT_TYPE.as_str(), kind);
    for (name, value) in answer.headers.iter().map(|(name, value)| (name, value)).chain(&spoiled.headers) {
        put(name, value);
    }
    if let Some(length) = spoiled.content_length {
        put(header::CONTENT_LENGTH.as_str(), &length.to_string());
    }
    response
}

fn whole(text: String) -> Chunks {
    stream::once(async move { Ok(Bytes::from(text)) }).boxed()
}

/// The provider's object with these members added or replaced.
fn merged(said: Option<Value>, more: &Value) -> String {
    let mut merged = said.unwrap_or(Value::Null);
    match (&mut merged, more) {
        (Value::Object(all), Value::Object(more)) => {
            all.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        _ => merged = more.clone(),
    }
    merged.to_string()
}

fn half(said: &str) -> String {
    said.chars().take(said.chars().count() / 2).collect()
}

/// A string of JSON, so many bytes long with what is around it.
fn long(bytes: u64) -> Chunks {
    const START: &str = "{\"data\":\"";
    const END: &str = "\"}";
    let frame = u64::try_from(START.len() + END.len()).unwrap_or(u64::MAX);
    let filling = stream::unfold(bytes.saturating_sub(frame), |left| async move {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let sent = u64::try_from(now).unwrap_or(left);
        (now > 0).then(|| (Ok(Bytes::from(vec![b'a'; now])), left.saturating_sub(sent)))
    });
    whole(START.to_owned()).chain(filling).chain(whole(END.to_owned())).boxed()
}

/// A list that does not end.
fn endless() -> Chunks {
    let chunk = Bytes::from("{\"id\":\"endless\"},".repeat(CHUNK / 17));
    whole("{\"data\":[".to_owned()).chain(stream::repeat_with(move || Ok(chunk.clone()))).boxed()
}

/// So many bytes of it, and then the line drops.
fn cut(chunks: Chunks, bytes: usize) -> Chunks {
    let kept = chunks.scan(bytes, |left, chunk| {
        let kept = match chunk {
            _ if *left == 0 => None,
            Ok(chunk) => {
                let chunk = chunk.slice(..chunk.len().min(*left));
                *left -= chunk.len();
                Some(Ok(chunk))
            }
            Err(error) => Some(Err(error)),
        };
        std::future::ready(kept)
    });
    let drops = stream::once(async {
        breathe().await?;
        Err(std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the line was dropped, as asked for"))
    });
    kept.chain(drops).boxed()
}

/// What was sent before leaves first: the server writes it out when there is nothing to be read for a moment.
async fn breathe() -> std::io::Result<()> {
    tokio::task::yield_now().await;
    Ok(())
}

/// Byte by byte, with a wait before each.
fn drip(chunks: Chunks, wait: Duration, clock: Clock) -> Chunks {
    let bytes = chunks.flat_map(|chunk| match chunk {
        Ok(chunk) => stream::iter((0..chunk.len()).map(move |at| Ok(chunk.slice(at..at + 1)))).boxed(),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    let waited = bytes.then(move |byte| {
        let clock = clock.clone();
        async move {
            clock.sleep_until(after(clock.now(), wait)).await;
            byte
        }
    });
    waited.boxed()
}

/// Ends the connection without a word: the task that serves it unwinds, and its socket closes.
pub(crate) fn drop_line() -> ! {
    std::panic::resume_unwind(Box::new("the line was dropped, as asked for"))
}

/// Keeps the connection open and says nothing.
pub(crate) async fn hang() -> Infallible {
    std::future::pending().await
}
