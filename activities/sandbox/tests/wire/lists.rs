//! Lists that say less, or nothing, or the same again.

use amends_sandbox::{Fault, Kind, Preset, Provider};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::{Bench, PROJECTS, WORKSPACE};

/// A list: at whom, the operation, how many it has, whether it says that there is more, and its cursor.
struct Listed {
    items: usize,
    has_more: bool,
    cursor: Value,
}

const LISTS: [(Provider, &str); 4] = [
    (Provider::Railway, "projects"),
    (Provider::Openrouter, "list"),
    (Provider::Agentmail, "listInboxes"),
    (Provider::Telnyx, "listPhoneNumbers"),
];

async fn bench_with_four_of_each() -> Bench {
    let bench = Bench::new().await;
    for at in 0..4 {
        bench.create_project(&format!("p{at}")).await;
        bench.create_key(&format!("k{at}")).await.unwrap();
        bench.create_inbox(&format!("i{at}")).await;
        bench.number(&format!("+1312555000{at}"), &format!("sg_{at}")).await;
    }
    bench
}

async fn list(bench: &Bench, provider: Provider, cursor: &Value) -> Listed {
    let count = |value: &Value| value.as_array().unwrap().len();
    match provider {
        Provider::Railway => {
            let asked = json!({"workspaceId": WORKSPACE, "after": cursor});
            let listed = bench.railway(PROJECTS, asked).await["data"]["projects"].clone();
            Listed {
                items: count(&listed["edges"]),
                has_more: listed["pageInfo"]["hasNextPage"] == true,
                cursor: listed["pageInfo"]["endCursor"].clone(),
            }
        }
        Provider::Openrouter => {
            let path = format!("/keys?offset={}", cursor.as_u64().unwrap_or(0));
            let listed: Value =
                bench.openrouter(Method::GET, &path, Value::Null).await.unwrap().json().await.unwrap();
            let items = count(&listed["data"]);
            Listed { items, has_more: items == 100, cursor: json!(cursor.as_u64().unwrap_or(0) + 100) }
        }
        Provider::Agentmail => {
            let path = cursor
                .as_str()
                .map_or("/inboxes".to_owned(), |cursor| format!("/inboxes?page_token={cursor}"));
            let listed: Value = bench.agentmail(Method::GET, &path, Value::Null).await.json().await.unwrap();
            let cursor = listed["next_page_token"].clone();
            Listed { items: count(&listed["inboxes"]), has_more: !cursor.is_null(), cursor }
        }
        _ => {
            let page = cursor.as_u64().unwrap_or(1);
            let path = format!("/phone_numbers?page%5Bnumber%5D={page}");
            let listed: Value =
                bench.telnyx(Method::GET, &path, Value::Null).await.unwrap().json().await.unwrap();
            let has_more = listed["meta"]["total_pages"].as_u64().unwrap() > page;
            Listed { items: count(&listed["data"]), has_more, cursor: json!(page + 1) }
        }
    }
}

#[tokio::test]
async fn a_list_is_empty_or_ends_early_and_says_that_it_is_whole() {
    let bench = bench_with_four_of_each().await;
    for (provider, operation) in LISTS {
        for (fault, items) in [
            (None, 4),
            (Some(Fault::new(provider, operation, Kind::ListEmpty).times(1)), 0),
            (Some(Fault::new(provider, operation, Kind::ListPartial).times(1)), 2),
            (Some(Fault { keep: Some(3), ..Fault::new(provider, "*", Kind::ListPartial).times(1) }), 3),
        ] {
            fault.into_iter().for_each(|fault| bench.set(fault));
            let listed = list(&bench, provider, &Value::Null).await;
            assert_eq!((listed.items, listed.has_more), (items, false), "{provider}");
        }
        assert_eq!(list(&bench, provider, &Value::Null).await.items, 4, "{provider}: once is once");
    }
}

#[tokio::test]
async fn a_list_that_goes_round_in_circles_never_says_that_it_ends() {
    let bench = bench_with_four_of_each().await;
    for (provider, operation) in LISTS {
        bench.set(Fault::new(provider, operation, Kind::ListRepeats));
        let mut cursor = Value::Null;
        for page in 0..20 {
            let listed = list(&bench, provider, &cursor).await;
            assert!(listed.has_more, "{provider}: it ended after page {page}");
            cursor = listed.cursor;
        }
    }
}

#[tokio::test]
async fn what_was_made_is_not_listed_for_a_while_and_is_there_by_its_id() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Openrouter, "createKeys", Kind::ListLag).seconds(20.0).times(1));
    let made: Value = bench.create_key("a").await.unwrap().json().await.unwrap();
    let hash = made["data"]["hash"].as_str().unwrap();
    assert_eq!(list(&bench, Provider::Openrouter, &Value::Null).await.items, 0);
    let read = bench.openrouter(Method::GET, &format!("/keys/{hash}"), Value::Null).await.unwrap();
    assert_eq!(read.status(), 200);
    bench.pass(20.0);
    assert_eq!(list(&bench, Provider::Openrouter, &Value::Null).await.items, 1);
    // Orders too: their numbers show later than they would.
    bench.set(Fault::new(Provider::Telnyx, "createNumberOrder", Kind::ListLag).seconds(60.0).times(1));
    bench.number("+13125550009", "sg_9").await;
    assert_eq!(list(&bench, Provider::Telnyx, &Value::Null).await.items, 0);
    bench.pass(60.0);
    assert_eq!(list(&bench, Provider::Telnyx, &Value::Null).await.items, 1);
}

#[tokio::test]
async fn a_list_is_an_error_in_an_ok() {
    let bench = bench_with_four_of_each().await;
    bench.set(Fault::preset(Provider::Openrouter, "list", Preset::ErrorInOk).times(1));
    let answer = bench.openrouter(Method::GET, "/keys", Value::Null).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"]["code"], 502);
}
