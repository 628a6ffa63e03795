//! Answers that a proxy in front spoiled.

use std::time::Duration;

use amends_sandbox::fault::{Fault, Preset, Spoiled, SpoiledBody};
use amends_sandbox::{Kind, Provider};
use reqwest::Method;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use crate::bench::{Bench, PROJECTS, WORKSPACE};

/// Bodies that are not read to their end here.
const LONG: [Preset; 3] = [Preset::LargeBody, Preset::EndlessBody, Preset::SlowBody];

#[tokio::test]
async fn every_preset_is_sent_before_or_after_the_effect() {
    let mut bench = Bench::new().await;
    bench.http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut made = 0;
    for preset in Preset::iter() {
        for acted in [false, true] {
            let fault = Fault::preset(Provider::Openrouter, "createKeys", preset).times(1);
            bench.set(if acted { fault } else { fault.before() });
            let answer =
                bench.create_key("a").await.unwrap_or_else(|error| panic!("{preset} {acted}: {error:?}"));
            let otherwise = if acted { 201 } else { 200 };
            assert_eq!(answer.status().as_u16(), preset.answer().status.unwrap_or(otherwise), "{preset}");
            for (name, value) in preset.answer().headers {
                assert_eq!(answer.headers()[&name], value.as_str(), "{preset}");
            }
            if !LONG.contains(&preset) {
                let is_cut = answer.bytes().await.is_err();
                let wanted = matches!(preset, Preset::CutBody | Preset::ShorterThanSaid);
                assert_eq!(is_cut, wanted, "{preset} {acted}");
            }
            made += usize::from(acted);
            assert_eq!(bench.keys(), made, "{preset} {acted}");
        }
    }
}

#[tokio::test]
async fn railways_edge_says_404_without_a_word_of_the_object() {
    let bench = Bench::new().await;
    bench.set(Fault::preset(Provider::Agentmail, "*", Preset::ApplicationNotFound).times(1));
    let answer = bench.agentmail(Method::GET, "/inboxes", Value::Null).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["x-railway-fallback"].to_str().unwrap()),
        (404, "true")
    );
    assert_eq!(answer.json::<Value>().await.unwrap()["message"], "Application not found");
    bench.set(Fault::preset(Provider::Agentmail, "*", Preset::UpstreamConnectError).times(1));
    let answer = bench.agentmail(Method::GET, "/inboxes", Value::Null).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["content-type"].to_str().unwrap()),
        (502, "text/html")
    );
    assert!(answer.text().await.unwrap().contains("upstream connect error"));
}

#[tokio::test]
async fn data_stands_beside_errors() {
    let bench = Bench::new().await;
    bench.create_project("p").await;
    bench.set(Fault::preset(Provider::Railway, "projects", Preset::ErrorBesideData).times(1));
    let listed = bench.railway(PROJECTS, json!({"workspaceId": WORKSPACE})).await;
    assert_eq!(listed["data"]["projects"]["edges"][0]["node"]["name"], "p");
    assert_eq!(listed["errors"][0]["message"], "Problem processing request");
}

#[tokio::test]
async fn a_redirect_turns_a_post_into_a_page() {
    let bench = Bench::new().await;
    bench.set(Fault::preset(Provider::Openrouter, "createKeys", Preset::SeeOther).times(1));
    let answer = bench.create_key("a").await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().starts_with("<!DOCTYPE html>"));
    assert_eq!(bench.keys(), 1);
}

#[tokio::test]
async fn a_body_is_cut_halved_deep_long_or_without_end() {
    let bench = Bench::new().await;
    let spoil = |answer: Spoiled| bench.set(Fault::spoil(Provider::Openrouter, "list", answer).times(1));
    let list = || async { bench.openrouter(Method::GET, "/keys", Value::Null).await.unwrap() };
    bench.create_key("a").await.unwrap();
    let whole = list().await.text().await.unwrap();

    spoil(Spoiled { cut_after: Some(7), ..Spoiled::default() });
    let mut answer = list().await;
    assert_eq!(answer.status(), 200);
    let mut had = Vec::new();
    let error = loop {
        match answer.chunk().await {
            Ok(Some(bytes)) => had.extend(bytes),
            Ok(None) => panic!("it ended as if it were whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(had, &whole.as_bytes()[..7], "{error}");

    spoil(Spoiled::default().body(SpoiledBody::Half));
    assert_eq!(list().await.text().await.unwrap(), whole[..whole.len() / 2]);
    spoil(Spoiled::default().body(SpoiledBody::Deep(50_000)));
    assert_eq!(list().await.bytes().await.unwrap().len(), 100_000);
    spoil(Spoiled::default().body(SpoiledBody::Bytes(300_000)));
    let long = list().await.bytes().await.unwrap();
    assert_eq!(long.len(), 300_000);
    assert!(serde_json::from_slice::<Value>(&long).is_ok());
    spoil(Spoiled::status(200).body(SpoiledBody::Endless));
    let mut answer = list().await;
    let mut bytes = 0;
    while bytes < 8 << 20 {
        bytes += answer.chunk().await.unwrap().expect("it has no end").len();
    }
    spoil(Spoiled { content_length: Some(5), ..Spoiled::default() });
    assert_eq!(list().await.text().await.unwrap(), whole[..5]);
}

#[tokio::test]
async fn a_slow_body_comes_byte_by_byte_on_the_sandboxs_clock() {
    let bench = Bench::new().await;
    let slow = Spoiled { drip_ms: Some(1000), ..Spoiled::default() }.body(SpoiledBody::Text("ab".to_owned()));
    bench.set(Fault::spoil(Provider::Openrouter, "list", slow).times(1));
    let mut answer = bench.openrouter(Method::GET, "/keys", Value::Null).await.unwrap();
    assert_eq!(answer.status(), 200, "the head is not held back");
    let soon = tokio::time::timeout(Duration::from_millis(50), answer.chunk()).await;
    assert!(soon.is_err(), "a byte came though no time passed");
    // The wait for a byte begins when the server turns to it, which a test does not see: time passes until it came.
    let mut had = Vec::new();
    let ended = async {
        loop {
            match tokio::time::timeout(Duration::from_millis(10), answer.chunk()).await {
                Ok(chunk) => match chunk.unwrap() {
                    Some(bytes) => had.push(bytes),
                    None => break,
                },
                Err(_) => bench.pass(1.0),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the body ends");
    assert_eq!(had, ["a", "b"], "one by one");
}

#[tokio::test]
async fn an_answer_is_spoiled_part_by_part_over_the_control_port() {
    let bench = Bench::new().await;
    let fault = json!({"provider": "openrouter", "operation": "createKeys", "fault": "spoil", "times": 1,
        "answer": {"status": 418, "headers": {"x-by": "proxy"}, "body": {"json": [1]}}});
    let set = bench.http.post(bench.control("/faults")).json(&fault).send().await.unwrap();
    assert_eq!(set.status(), 201);
    let answer = bench.create_key("a").await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["x-by"].to_str().unwrap()), (418, "proxy"));
    assert_eq!(answer.json::<Value>().await.unwrap(), json!([1]));
    assert_eq!(bench.sandbox.fired()[&format!("openrouter.createKeys.{}", Kind::Spoil)], 1);
}
