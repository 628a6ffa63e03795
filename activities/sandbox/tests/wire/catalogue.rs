//! The catalogue of faults: what is refused, what it says of itself, and that its page is in step.

use std::path::Path;

use amends_sandbox::{Fault, Kind, Preset, Provider};
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use crate::bench::Bench;

#[tokio::test]
async fn a_fault_that_is_none_is_refused_with_what_would_be_one() {
    let bench = Bench::new().await;
    let url = bench.control("/faults");
    for (body, hint) in [
        (json!({"provider": "agentmail", "operation": "createInbux", "fault": "refuse"}), "createInbox"),
        (json!({"provider": "postmark", "operation": "*", "fault": "refuse"}), "agentmail"),
        (json!({"provider": "agentmail", "operation": "*", "fault": "explode"}), "commit_late"),
        (json!({"provider": "agentmail", "operation": "*", "fault": "latency"}), "ms"),
        (json!({"provider": "agentmail", "operation": "*", "fault": "refuse", "tims": 1}), "times"),
        (
            json!({"provider": "agentmail", "operation": "*", "fault": "refuse", "ms": 1}),
            "refuse takes no ms",
        ),
        (json!({"provider": "agentmail", "operation": "listInboxes", "fault": "commit_late"}), "createInbox"),
        (
            json!({"provider": "agentmail", "operation": "*", "fault": "order_fails"}),
            "telnyx: createNumberOrder",
        ),
        (json!({"provider": "runtime", "operation": "*", "fault": "container_dies", "status": 500}), "502"),
        (json!({"provider": "runtime", "operation": "*", "fault": "spoil"}), "one of preset and answer"),
        (json!({"provider": "runtime", "operation": "*", "fault": "spoil", "preset": "gone"}), "cut_body"),
        (
            json!({"provider": "runtime", "operation": "*", "fault": "spoil", "answer": {"status": 99}}),
            "200 to 599",
        ),
        (
            json!({"provider": "runtime", "operation": "*", "fault": "spoil", "answer": {"headers": {"a b": "c"}}}),
            "a b",
        ),
        (json!({"provider": "runtime", "operation": "*", "fault": "refuse", "probability": 2}), "0 to 1"),
        (
            json!({"provider": "openrouter", "operation": "*", "fault": "drift", "field": "hash", "value": 1}),
            "limit",
        ),
        (
            json!({"provider": "openrouter", "operation": "*", "fault": "refuse", "now": true}),
            "refuse takes no now",
        ),
        (json!({"provider": "openrouter", "operation": "*", "fault": "vanish", "now": true}), "nothing"),
        (
            json!({"provider": "railway", "operation": "*", "fault": "quota", "calls": 1, "seconds": 0}),
            "more than 0",
        ),
        (
            json!({"provider": "railway", "operation": "*", "fault": "commit_late", "seconds": 1, "from_seconds": 2}),
            "from_seconds",
        ),
    ] {
        let answer = bench.http.post(&url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 400, "{body}");
        let problem = answer.text().await.unwrap();
        assert!(problem.contains(hint), "{body}: {problem}");
    }
    let good = json!({"provider": "agentmail", "operation": "*", "fault": "latency", "ms": 3});
    let set = bench.http.post(&url).json(&good).send().await.unwrap();
    assert_eq!((set.status().as_u16(), set.json::<Value>().await.unwrap()), (201, good.clone()));
    let listed: Value = bench.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["items"], json!([good]));
    assert_eq!(bench.http.delete(&url).send().await.unwrap().status(), 204);
    let listed: Value = bench.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["items"], json!([]));
}

#[tokio::test]
async fn the_faults_say_what_they_are() {
    let bench = Bench::new().await;
    let listed: Value = bench.http.get(bench.control("/faults")).send().await.unwrap().json().await.unwrap();
    let known = &listed["known"];
    let names = |list: &str, name: &str| -> Vec<String> {
        let all = known[list].as_array().unwrap().iter();
        all.map(|one| one[name].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("kinds", "fault"), Kind::iter().map(|kind| kind.to_string()).collect::<Vec<_>>());
    assert_eq!(
        names("presets", "preset"),
        Preset::iter().map(|preset| preset.to_string()).collect::<Vec<_>>()
    );
    for kind in known["kinds"].as_array().unwrap() {
        assert!(kind["what"].as_str().unwrap().ends_with('.'), "{kind}");
        // What it says of itself is what is taken.
        for (provider, operations) in kind["operations"].as_object().unwrap() {
            for operation in operations.as_array().unwrap() {
                let mut fault = json!({"provider": provider, "operation": operation, "fault": kind["fault"]});
                for parameter in kind["parameters"].as_array().unwrap() {
                    if parameter["needed"] == true {
                        let name = parameter["name"].as_str().unwrap();
                        fault[name] = match name {
                            "ms" | "calls" | "seconds" => json!(1),
                            "field" if provider == "agentmail" => json!("display_name"),
                            "field" if provider == "telnyx" => json!("customer_reference"),
                            "field" => json!("name"),
                            _ => json!("x"),
                        };
                    }
                }
                if kind["fault"] == "spoil" {
                    fault["preset"] = json!("empty_ok");
                }
                let read: Fault = serde_json::from_value(fault.clone()).unwrap();
                assert_eq!(read.problem(), None, "{fault}");
            }
        }
    }
}

#[test]
fn the_page_of_faults_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sandbox.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mark = "<!-- From here on this page is made from the catalogue: AMENDS_WRITE_DOCS=1 cargo test --workspace --test wire -->\n";
    let (head, tail) = page.split_once(mark).expect("the page has its mark");
    let made = format!("\n{}", amends_sandbox::fault::page());
    if std::env::var("AMENDS_WRITE_DOCS").is_ok_and(|value| value == "1") {
        std::fs::write(&path, format!("{head}{mark}{made}")).unwrap();
    } else {
        assert!(
            tail == made,
            "docs/sandbox.md is not what the catalogue says: AMENDS_WRITE_DOCS=1 makes it anew"
        );
    }
}

#[test]
fn a_null_that_a_field_drifts_to_is_a_value() {
    let read: Fault =
        serde_json::from_value(json!({"provider": "openrouter", "operation": "*", "fault": "drift",
        "field": "limit", "value": null}))
        .unwrap();
    assert_eq!(read.value, Some(Value::Null));
    assert_eq!(read.problem(), None);
    assert_eq!(read.provider, Provider::Openrouter);
}
