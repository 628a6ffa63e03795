//! Fresh: whether what a client has already is still what it would get.
//!
//! A page that is open asks again every two seconds. Its tag says how far the feed of all journals was when it was read,
//! so that a page of which nothing has changed costs one read of one number. What time alone changes (an age, a deadline
//! that passes) is new with the tag too, every ten seconds.

use amends_engine::Timestamp;
use amends_engine::store::SagaRow;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::server::App;

/// How long a page counts as unchanged by time alone.
const AGES_MICROS: i64 = 10_000_000;

/// What a page was read at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag(String);

impl Tag {
    /// Of a list: as far as the feed is. Taken before the list is read.
    pub async fn of_lists(app: &App) -> Result<Self, Problem> {
        let head = app.engine.store().feed_head().await?;
        Ok(Self::new(&format!("f{head}"), app.now()))
    }

    /// Of a saga: as its row says.
    pub fn of_saga(row: &SagaRow, now: Timestamp) -> Self {
        let attention: Vec<&str> = row.attention.iter().map(Into::into).collect();
        Self::new(&format!("s{}-{}-{}", row.seq, row.updated_at.0, attention.join(".")), now)
    }

    fn new(of: &str, now: Timestamp) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        // Weak: what is the same for a reader may differ in a byte.
        Self(format!("W/\"{of}-{}-{version}\"", now.0.div_euclid(AGES_MICROS)))
    }

    /// The answer to a client that has it already.
    pub fn unchanged(&self, asked: &HeaderMap) -> Option<Response> {
        let all = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let is_known = all.flat_map(|value| value.split(',')).any(|tag| tag.trim() == self.0);
        is_known.then(|| self.on(StatusCode::NOT_MODIFIED.into_response()))
    }

    /// An answer that bears it. It may be kept, and has to be asked for each time.
    pub fn on(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(&self.0) {
            headers.insert(header::ETAG, tag);
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_known_again_until_something_was_written_or_ten_seconds_have_passed() {
        let tag = |of: &str, seconds: i64| Tag::new(of, Timestamp(seconds * 1_000_000));
        let mut headers = HeaderMap::new();
        let first = tag("f7", 100);
        assert!(first.unchanged(&headers).is_none());
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&format!("\"x\", {}", first.0)).unwrap());
        assert_eq!(tag("f7", 109).unchanged(&headers).unwrap().status(), StatusCode::NOT_MODIFIED);
        assert!(tag("f8", 109).unchanged(&headers).is_none());
        assert!(tag("f7", 110).unchanged(&headers).is_none());
    }
}
