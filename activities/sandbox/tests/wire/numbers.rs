//! Numbers: searched, ordered, pending, failed, taken by others.

use amends_sandbox::{Fault, Kind, Provider};
use reqwest::Method;
use serde_json::{Value, json};

use crate::bench::Bench;

const NUMBER: &str = "+13125550001";

async fn get(bench: &Bench, path: &str) -> Value {
    bench.telnyx(Method::GET, path, Value::Null).await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn a_number_is_sold_once_and_shows_later() {
    let bench = Bench::new().await;
    let ordered = bench.order(NUMBER, "sg_1").await;
    assert_eq!(ordered.status(), 200);
    let order = ordered.json::<Value>().await.unwrap()["data"].clone();
    assert_eq!((&order["status"], &order["customer_reference"]), (&json!("pending"), &json!("sg_1")));
    let again = bench.order(NUMBER, "sg_1").await;
    assert_eq!(again.status(), 409, "it is ours already");
    let list = || get(&bench, "/phone_numbers?filter%5Bphone_number%5D=13125550001");
    let orders = || get(&bench, "/number_orders?filter%5Bcustomer_reference%5D=sg_1");
    bench.pass(3.0);
    assert_eq!(orders().await["data"][0]["status"], "success");
    assert_eq!(list().await["data"].as_array().unwrap().len(), 0);
    bench.pass(3.0);
    assert_eq!(list().await["data"].as_array().unwrap().len(), 1);
    assert_eq!(bench.held("telnyx", "orders")[0]["reference"], "sg_1");
    assert_eq!(bench.held("telnyx", "numbers")[0]["order"], order["id"]);
}

#[tokio::test]
async fn an_order_fails_after_it_was_pending() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Telnyx, "createNumberOrder", Kind::OrderFails).times(1));
    bench.set(Fault::new(Provider::Telnyx, "createNumberOrder", Kind::OrderTakes).seconds(60.0).times(1));
    let order: Value = bench.order(NUMBER, "sg_1").await.json().await.unwrap();
    assert_eq!(order["data"]["status"], "pending");
    let path = format!("/number_orders/{}", order["data"]["id"].as_str().unwrap());
    bench.pass(59.0);
    assert_eq!(get(&bench, &path).await["data"]["status"], "pending");
    bench.pass(1.0);
    let ended = get(&bench, &path).await;
    assert_eq!(ended["data"]["status"], "failure");
    assert_eq!(ended["data"]["phone_numbers"][0]["status"], "failure");
    assert!(bench.held("telnyx", "numbers").is_empty());
    assert_eq!(bench.order(NUMBER, "sg_2").await.status(), 200, "nobody owns it");
}

#[tokio::test]
async fn a_number_is_taken_between_search_and_order() {
    let bench = Bench::new().await;
    for (at, status) in [409, 422].into_iter().enumerate() {
        let taken = Fault::new(Provider::Telnyx, "createNumberOrder", Kind::NumberTaken);
        bench.set(taken.status(status).times(1));
        let number = format!("+1312555000{at}");
        assert_eq!(bench.order(&number, "sg_1").await.status(), status);
        assert_eq!(bench.order(&number, "sg_1").await.status(), 422, "it stays somebody else's");
    }
    assert!(bench.held("telnyx", "orders").is_empty());
    let found = get(&bench, "/available_phone_numbers?filter%5Blimit%5D=100").await;
    let taken = bench.held("telnyx", "taken");
    assert_eq!(taken.len(), 2);
    let is_taken = |found: &Value| taken.contains(&found["phone_number"]);
    assert!(!found["data"].as_array().unwrap().iter().any(is_taken));
}

#[tokio::test]
async fn our_own_order_is_answered_as_owned_already() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Telnyx, "createNumberOrder", Kind::OrderOwned).times(1));
    assert_eq!(bench.order(NUMBER, "sg_1").await.status(), 409);
    assert_eq!(bench.held("telnyx", "orders")[0]["reference"], "sg_1");
    assert_eq!(bench.held("telnyx", "numbers")[0]["phone_number"], NUMBER);
}

#[tokio::test]
async fn a_search_finds_nothing() {
    let bench = Bench::new().await;
    bench.set(Fault::new(Provider::Telnyx, "listAvailablePhoneNumbers", Kind::ListEmpty).times(1));
    let search = || get(&bench, "/available_phone_numbers?filter%5Blimit%5D=5");
    assert_eq!(search().await["data"], json!([]));
    assert_eq!(search().await["data"].as_array().unwrap().len(), 5);
}
