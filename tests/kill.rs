//! `kill -9` of the real process, again and again, while claims and teardowns run; the sandbox is a process of its
//! own, so that calls in flight are not killed with it. `AMENDS_TEST_KILLS=n` says how often.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amends_tests::process::{Server, binary, client, free_port};
use serde_json::{Value, json};
use tokio::sync::Mutex;

/// What was acknowledged: the key of each claim with its saga, and the saga of each teardown.
#[derive(Default)]
struct Acknowledged {
    claims: BTreeMap<String, String>,
    teardowns: BTreeSet<String>,
}

/// Claims, and tears down what is claimed, as fast as the server lets it.
async fn customer(number: usize, base: String, stop: Arc<AtomicBool>, known: Arc<Mutex<Acknowledged>>) {
    let client = client();
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        let key = format!("c{number}-{count}");
        let template = if count % 3 == 0 { "tp_worker" } else { "tp_demo" };
        // The same key until it is acknowledged.
        while !stop.load(Ordering::SeqCst) {
            let request = client.post(format!("{base}/v1/claims?wait=2s")).header("idempotency-key", &key);
            let answer = request.json(&json!({"template_id": template})).send().await;
            if let Ok(answer) = answer
                && answer.status().is_success()
                && let Ok(saga) = answer.json::<Value>().await
            {
                known.lock().await.claims.insert(key.clone(), saga["id"].as_str().unwrap().to_owned());
                break;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let listed = client.get(format!("{base}/v1/instances?state=claimed")).send().await;
        let Ok(listed) = listed else { continue };
        let Ok(listed) = listed.json::<Value>().await else { continue };
        for instance in listed["items"].as_array().cloned().unwrap_or_default().iter().take(2) {
            let id = instance["id"].as_str().unwrap();
            let answer = client.post(format!("{base}/v1/instances/{id}/teardown")).send().await;
            if let Ok(answer) = answer
                && answer.status().is_success()
                && let Ok(saga) = answer.json::<Value>().await
            {
                known.lock().await.teardowns.insert(saga["id"].as_str().unwrap().to_owned());
            }
        }
    }
}

fn names(holdings: &Value, provider: &str, kind: &str, field: &str) -> Vec<String> {
    let things = holdings[provider][kind].as_array().unwrap();
    things.iter().map(|thing| thing[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// The two columns, by the providers' own ids.
async fn columns(server: &Server) -> (BTreeSet<String>, BTreeSet<String>) {
    let holdings = server.get("/v1/sandbox/providers").await;
    let mut outside = BTreeSet::new();
    outside.extend(names(&holdings, "railway", "projects", "id"));
    outside.extend(names(&holdings, "openrouter", "keys", "hash"));
    outside.extend(names(&holdings, "agentmail", "inboxes", "address"));
    outside.extend(names(&holdings, "telnyx", "numbers", "phone_number"));
    let mut ledger = BTreeSet::new();
    for row in server.all("/v1/resources").await {
        if row["state"] == "gone" {
            continue;
        }
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        match (text("provider").as_str(), text("kind").as_str()) {
            ("railway", "project") | ("openrouter", "key") | ("agentmail", "inbox") => {
                ledger.insert(text("external_id"));
            }
            ("telnyx", "number") => {
                ledger.insert(text("name"));
            }
            _ => {}
        }
    }
    (outside, ledger)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_nothing_and_leaks_nothing() {
    let kills: usize =
        std::env::var("AMENDS_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let folder = tempfile::tempdir().unwrap();
    let sandbox_port = free_port();
    let mut sandbox = std::process::Command::new(binary())
        .arg("sandbox")
        .env("AMENDS_SANDBOX_LISTEN", format!("127.0.0.1:{sandbox_port}"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let settings = vec![
        ("AMENDS_SANDBOX_URL", format!("http://127.0.0.1:{sandbox_port}")),
        ("AMENDS_SWEEP_DELETES", "true".to_owned()),
    ];
    let mut server = Server::new(folder.path(), settings);
    server.start().await;

    let stop = Arc::new(AtomicBool::new(false));
    let known = Arc::new(Mutex::new(Acknowledged::default()));
    let customers: Vec<_> = (0..3)
        .map(|number| tokio::spawn(customer(number, server.url(""), stop.clone(), known.clone())))
        .collect();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let began = Instant::now();
    for _ in 0..kills {
        // A xorshift is random enough for moments.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        tokio::time::sleep(Duration::from_millis(100 + state % 900)).await;
        server.kill();
        server.start().await;
    }
    stop.store(true, Ordering::SeqCst);
    for customer in customers {
        customer.await.unwrap();
    }
    let storm = began.elapsed();

    // Everything that was begun ends, and the sweep takes what landed late.
    let deadline = Instant::now() + Duration::from_secs(180);
    let (mut outside, mut ledger);
    loop {
        let open = server.all("/v1/sagas").await;
        let open: Vec<_> = open.into_iter().filter(|saga| saga["ended_at"].is_null()).collect();
        (outside, ledger) = columns(&server).await;
        if open.is_empty() && outside == ledger {
            break;
        }
        assert!(Instant::now() < deadline, "{open:#?}\noutside {outside:#?}\nledger {ledger:#?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let known = known.lock().await;
    let sagas = server.all("/v1/sagas").await;
    let ids: BTreeSet<&str> = sagas.iter().map(|saga| saga["id"].as_str().unwrap()).collect();
    for saga in known.claims.values().chain(&known.teardowns) {
        assert!(ids.contains(saga.as_str()), "the acknowledged saga {saga} is lost");
    }
    let claims = sagas.iter().filter(|saga| saga["kind"] == "claim").count();
    for (key, saga) in &known.claims {
        let template = if key.rsplit('-').next().unwrap().parse::<usize>().unwrap() % 3 == 0 {
            "tp_worker"
        } else {
            "tp_demo"
        };
        let request = server.client.post(server.url("/v1/claims")).header("idempotency-key", key);
        let again: Value =
            request.json(&json!({"template_id": template})).send().await.unwrap().json().await.unwrap();
        assert_eq!(again["id"], saga.as_str(), "key {key} is two sagas");
    }
    let after = server.all("/v1/sagas").await.iter().filter(|saga| saga["kind"] == "claim").count();
    assert_eq!(claims, after, "asking again started something");
    let holdings = server.get("/v1/sandbox/providers").await;
    for (provider, kind, field) in [
        ("railway", "projects", "name"),
        ("openrouter", "keys", "name"),
        ("agentmail", "inboxes", "client_id"),
    ] {
        let all = names(&holdings, provider, kind, field);
        let unique: BTreeSet<&String> = all.iter().collect();
        assert_eq!(unique.len(), all.len(), "{provider} {kind} doubled: {all:?}");
    }
    // A number is bought under a reference of its own: two with one reference would be one bought twice.
    let orders = names(&holdings, "telnyx", "orders", "reference");
    let references: BTreeSet<&String> = orders.iter().collect();
    assert_eq!(references.len(), orders.len(), "a number was bought twice: {orders:?}");
    println!(
        "{kills} kills in {storm:.0?}, {} claims and {} teardowns acknowledged, {} sagas, {} things outside, all of them on the ledger",
        known.claims.len(),
        known.teardowns.len(),
        sagas.len(),
        outside.len()
    );
    assert!(known.claims.len() > kills / 10, "too little was going on to be killed");
    sandbox.kill().unwrap();
    sandbox.wait().unwrap();
}
