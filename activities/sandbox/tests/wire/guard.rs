//! The guard of the sandbox's port.

use amends_sandbox::{Config, Options, Pace, Sandbox};
use serde_json::json;

use crate::bench::Bench;

#[tokio::test]
async fn a_page_of_another_site_sets_no_fault_and_a_foreign_name_is_not_answered() {
    let bench = Bench::new().await;
    let fault = json!({"provider": "agentmail", "operation": "*", "fault": "refuse"});
    let post = || bench.http.post(bench.control("/faults")).json(&fault);
    for (name, value) in [
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let answer = post().header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
        let cleared = bench.http.delete(bench.control("/faults")).header(name, value).send().await.unwrap();
        assert_eq!(cleared.status(), 403, "{name}: {value}");
    }
    for host in ["evil.example", "127.0.0.1.nip.io:7301", "10.0.0.1:7301"] {
        for request in [post(), bench.http.get(bench.control("/providers"))] {
            let answer = request.header("host", host).send().await.unwrap();
            assert_eq!(answer.status(), 421, "{host}");
        }
    }
    assert_eq!(bench.sandbox.set_fault(serde_json::from_value(fault.clone()).unwrap()), Ok(()));
    bench.sandbox.clear_faults();
    let origin = format!("http://{}", bench.sandbox.address());
    assert_eq!(post().header("origin", origin).send().await.unwrap().status(), 201, "its own page may");
    assert_eq!(post().send().await.unwrap().status(), 201, "and a program");
}

#[tokio::test]
async fn it_listens_only_on_loopback_unless_names_for_others_are_given() {
    let config = Config { listen: "0.0.0.0:0".parse().unwrap(), pace: Pace::Quick, seed: 1, file: None };
    let error = Sandbox::start(config.clone()).await.err().unwrap();
    assert!(error.to_string().contains("other machines"), "{error}");
    let options = Options { hosts: vec!["sandbox.internal".to_owned()], ..Options::default() };
    let sandbox = Sandbox::start_with(config, options).await.unwrap();
    let url = format!("http://127.0.0.1:{}/v1/sandbox/calls", sandbox.address().port());
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    for (host, status) in [("sandbox.internal:7301", 200), ("127.0.0.1", 200), ("evil.example", 421)] {
        let answer = http.get(&url).header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), status, "{host}");
    }
    sandbox.stop();
}
