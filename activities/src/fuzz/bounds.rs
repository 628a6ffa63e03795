//! Bounds: lists that do not end, that turn in a circle, or that lack what makes them a list.

use std::time::Duration;

use amends_engine::Failure;
use amends_engine::activity::Cause;
use serde_json::{Value, json};

use super::wire::loopback::{Answer, Asked, Delivery, Loopback};
use crate::agentmail::AgentMail;
use crate::http::walk::PAGES_MAX;
use crate::openrouter::OpenRouter;
use crate::railway::Railway;
use crate::telnyx::{Telnyx, answers};

fn why<T: std::fmt::Debug>(result: Result<T, Failure>) -> (Cause, String) {
    match result {
        Err(Failure::Unavailable { cause, detail, .. }) => (cause, detail),
        other => panic!("not unavailable: {other:?}"),
    }
}

/// Each of these pages is answered once, in turn; the last one for ever.
async fn pages(pages: Vec<Value>) -> Loopback {
    let mut at = 0;
    Loopback::start(move |_: &Asked| {
        let page = pages.get(at).or(pages.last()).cloned().unwrap_or_default();
        at += 1;
        Answer::json(200, &page)
    })
    .await
}

#[tokio::test]
async fn a_cursor_that_comes_twice_ends_the_walk_with_its_cause() {
    let inbox = json!({"inbox_id": "a@b", "client_id": "am-1"});
    let page = |next: &str| json!({"count": 1, "inboxes": [inbox], "next_page_token": next});
    let server = pages(vec![page("a"), page("b"), page("a")]).await;
    let (_, detail) = why(AgentMail::new(&server.url, "key".into()).list().await);
    assert!(detail.contains("turns in a circle"), "{detail}");
    assert_eq!(server.asked().len(), 3);

    let node = json!({"id": "p", "name": "am", "createdAt": "2026-01-01T00:00:00Z", "deletedAt": null});
    let page = json!({"data": {"projects": {"edges": [{"node": node}],
        "pageInfo": {"hasNextPage": true, "endCursor": "same"}}}});
    let server = pages(vec![page]).await;
    let railway = Railway::new(&server.url, vec![("ws".to_owned(), "token".into())]);
    let (_, detail) = why(railway.projects("ws").await);
    assert!(detail.contains("turns in a circle"), "{detail}");

    let key = json!({"hash": "h", "name": "am", "created_at": "2026-01-01T00:00:00Z"});
    let server = pages(vec![json!({"data": [key]})]).await;
    let (_, detail) = why(OpenRouter::new(&server.url, "key".into()).list().await);
    assert!(detail.contains("turns in a circle"), "{detail}");
}

/// What is on the second page is there, and what is beyond a page that names no next one was not read.
#[tokio::test]
async fn a_list_is_read_to_its_last_page_or_was_not_read() {
    let key = |hash: &str| json!({"hash": hash, "name": hash, "created_at": "2026-01-01T00:00:00Z"});
    let rest = json!({"data": [key("b"), key("b-g2"), key("bb"), key("B")]});
    let server = pages(vec![json!({"data": [key("a")]}), rest, json!({"data": []})]).await;
    let named = OpenRouter::new(&server.url, "key".into()).named("b").await.unwrap();
    assert_eq!(named.iter().map(|key| key.hash.as_str()).collect::<Vec<_>>(), ["b"], "exactly that name");

    let inbox = |id: &str| json!({"inbox_id": id, "client_id": id});
    let first = json!({"count": 2, "inboxes": [inbox("a")], "next_page_token": "n"});
    let server = pages(vec![first, json!({"count": 2, "inboxes": [inbox("b")]})]).await;
    assert_eq!(AgentMail::new(&server.url, "key".into()).list().await.unwrap().len(), 2);

    let number = |id: u64| json!({"id": id.to_string(), "phone_number": "+1", "status": "active"});
    let page = |at: u64| json!({"data": [number(at)], "meta": {"total_pages": 2, "page_number": at}});
    let server = pages(vec![page(1), page(2)]).await;
    let telnyx = Telnyx::new(&server.url, "key".into());
    assert_eq!(telnyx.list(&answers::NUMBERS, "/phone_numbers", "").await.unwrap().len(), 2);

    let node =
        |id: &str| json!({"id": id, "name": id, "createdAt": "2026-01-01T00:00:00Z", "deletedAt": null});
    let page = |id: &str, info: Value| json!({"data": {"projects": {"edges": [{"node": node(id)}], "pageInfo": info}}});
    let follows = json!({"hasNextPage": true, "endCursor": "n"});
    let ends = json!({"hasNextPage": false, "endCursor": "m"});
    let server = pages(vec![page("a", follows), page("b", ends)]).await;
    let railway = |url: &str| Railway::new(url, vec![("ws".to_owned(), "token".into())]);
    assert_eq!(railway(&server.url).projects("ws").await.unwrap().len(), 2);
    let server = pages(vec![page("a", json!({"hasNextPage": true, "endCursor": null}))]).await;
    let (_, detail) = why(railway(&server.url).projects("ws").await);
    assert!(detail.contains("that another follows, and not where"), "{detail}");
}

/// Whoever can answer for a provider could have its credential sent on to himself, or a list of his own believed.
#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let other = pages(vec![json!({"data": []})]).await;
        let url = other.url.clone();
        let server = Loopback::start(move |_: &Asked| Answer {
            headers: vec![("location".to_owned(), format!("{url}/keys"))],
            ..Answer::json(status, &json!({}))
        })
        .await;
        let openrouter = OpenRouter::new(&server.url, "key".into());
        assert!(matches!(openrouter.named("am").await, Err(Failure::Unavailable { .. })), "{status}");
        let created = openrouter.create(&json!({})).await;
        assert!(matches!(created, Err(Failure::NoAnswer { .. })), "{status}: {created:?}");
        assert!(other.asked().is_empty(), "{status}: it was sent on");
    }
}

#[tokio::test]
async fn a_list_without_end_is_left_after_so_many_pages() {
    let mut at = 0;
    let server = Loopback::start(move |_: &Asked| {
        at += 1;
        let number = json!({"id": at.to_string(), "phone_number": format!("+1{at}"), "status": "active"});
        Answer::json(200, &json!({"data": [number], "meta": {"total_pages": u64::MAX}}))
    })
    .await;
    let telnyx = Telnyx::new(&server.url, "key".into());
    let (_, detail) = why(telnyx.list(&answers::NUMBERS, "/phone_numbers", "").await);
    assert!(detail.contains("not read to its end"), "{detail}");
    assert_eq!(server.asked().len(), PAGES_MAX + 1);
}

#[tokio::test]
async fn a_list_is_empty_only_if_it_is_a_list() {
    let wrong = [
        json!({"error": {"code": 502}}),
        json!({"data": null}),
        json!({"data": {}}),
        json!({"data": [], "error": {"code": 502, "message": "upstream"}}),
        json!({"data": [{"hash": "h"}]}),
        json!({"data": [{"hash": "", "name": "n"}]}),
        json!({"data": [{"hash": 7, "name": "n"}]}),
        json!({"data": [{"hash": "h\u{0}", "name": "n"}]}),
        json!({"data": [null]}),
        json!([]),
        Value::Null,
    ];
    for body in wrong {
        let server = pages(vec![body.clone()]).await;
        let listed = OpenRouter::new(&server.url, "key".into()).named("am").await;
        assert!(matches!(listed, Err(Failure::Unavailable { .. })), "{body}: {listed:?}");
    }
    let server = pages(vec![json!({"data": []})]).await;
    assert!(OpenRouter::new(&server.url, "key".into()).named("am").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_page_of_another_number_or_without_its_count_was_not_read() {
    let number = json!({"id": "1", "phone_number": "+1", "status": "active"});
    for body in [
        json!({"data": [number]}),
        json!({"data": [number], "meta": {}}),
        json!({"data": [number], "meta": {"total_pages": "1"}}),
        json!({"data": [number], "meta": {"total_pages": 1, "page_number": 2}}),
        json!({"data": [], "meta": {"total_pages": 2, "page_number": 1}}),
    ] {
        let server = pages(vec![body.clone()]).await;
        let listed =
            Telnyx::new(&server.url, "key".into()).list(&answers::NUMBERS, "/phone_numbers", "").await;
        assert!(matches!(listed, Err(Failure::Unavailable { .. })), "{body}: {listed:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_to_an_end_is_cut_off_by_size_and_by_time() {
    let deliver = |delivery| {
        Loopback::start(move |_: &Asked| Answer { delivery, ..Answer::json(200, &json!({"data": []})) })
    };
    let server = deliver(Delivery::Endless).await;
    let (cause, detail) = why(OpenRouter::new(&server.url, "key".into()).list().await);
    assert_eq!(cause, Cause::Unreadable);
    assert!(detail.contains("larger than an answer may be"), "{detail}");

    // A body that is promised and never comes.
    let server = Loopback::start(|_: &Asked| Answer {
        delivery: Delivery::Stalled,
        ..Answer::json(200, &json!({"data": []}))
    })
    .await;
    let mut openrouter = OpenRouter::new(&server.url, "key".into());
    openrouter.http.read_limit = Duration::from_millis(300);
    openrouter.http.write_limit = Duration::from_millis(300);
    // Either is cut off long before this.
    let within = Duration::from_secs(60);
    let listed = tokio::time::timeout(within, openrouter.list()).await.expect("a read is cut off");
    assert_eq!(why(listed).0, Cause::Timeout);
    let body = json!({});
    let created = tokio::time::timeout(within, openrouter.create(&body)).await.expect("a write is cut off");
    assert!(matches!(created, Err(Failure::NoAnswer { cause: Cause::Timeout, .. })), "{created:?}");
}
