//! A secret that the sandbox handed out is in no file, log, answer or page, in no writing.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::path::Path;

use amends_sandbox::{CREDENTIALS, Config, Fault, Kind, Pace, Provider, Sandbox};
use amends_tests::process::Server;
use serde_json::{Value, json};

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks_exact(3) {
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for place in [18, 12, 6, 0] {
            text.push(char::from(LETTERS[(bits >> place & 63) as usize]));
        }
    }
    text
}

/// The ways in which a secret may be written.
fn writings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // In base64, wherever in its three positions it begins; the ends, which depend on what is beside it, are cut.
    let shifted = (0..3).map(|shift| {
        let text = base64(&secret.as_bytes()[(3 - shift) % 3..]);
        text.get(..text.len().min(24)).unwrap().to_owned()
    });
    [secret.to_owned(), hex.clone(), hex.to_uppercase(), percent.clone(), percent.to_lowercase()]
        .into_iter()
        .chain(shifted)
        .collect()
}

fn holds(bytes: &[u8], secrets: &[String]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    secrets.iter().flat_map(|secret| writings(secret)).find(|writing| text.contains(writing.as_str()))
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

#[test]
fn the_search_finds_what_it_searches_for() {
    let secret = "sk-or-v1-0123456789abcdef0123456789abcdef".to_owned();
    let padded = [b"x".as_slice(), secret.as_bytes()].concat();
    for text in [
        secret.clone(),
        format!("...{}...", base64(format!("{secret}  ").as_bytes())),
        base64(&[padded.as_slice(), b"  "].concat()),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
    ] {
        assert!(holds(text.as_bytes(), std::slice::from_ref(&secret)).is_some(), "{text}");
    }
    assert!(holds(b"nothing here", &[secret]).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_file_log_answer_or_page() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let kept = folder.path().join("sandbox.json");
    let config = Config { listen, pace: Pace::Quick, seed: 5, file: Some(kept) };
    let sandbox = Sandbox::start(config).await.unwrap();
    let settings = vec![
        ("AMENDS_SANDBOX_URL", format!("http://{}", sandbox.address())),
        ("AMENDS_LOG", "trace".to_owned()),
    ];
    // Everything that can be said about a secret is said: lost answers, errors, refusals, a crash.
    for (provider, operation, kind) in [
        (Provider::Openrouter, "createKeys", Kind::LoseAnswer),
        (Provider::Railway, "environmentPatchCommit", Kind::ErrorAfter),
        (Provider::Runtime, "provision", Kind::ErrorBefore),
        (Provider::Agentmail, "createInbox", Kind::RateLimited),
        (Provider::Openrouter, "list", Kind::ErrorBefore),
    ] {
        sandbox.set_fault(Fault::new(provider, operation, kind).times(1)).unwrap();
    }
    let mut server = Server::new(folder.path(), settings);
    server.start().await;
    let mut said: Vec<(String, Vec<u8>)> = Vec::new();
    let claim =
        server.client.post(server.url("/v1/claims?wait=60s")).json(&json!({"template_id": "tp_demo"}));
    let claim = claim.send().await.unwrap().bytes().await.unwrap();
    let saga: Value = serde_json::from_slice(&claim).unwrap();
    let saga = server.ended(saga["id"].as_str().unwrap()).await;
    assert_eq!(saga["state"], "completed", "{saga}");
    said.push(("claim".into(), claim.to_vec()));
    // Killed, so that the write-ahead log stays as it is; and once more, to be read.
    server.kill();
    let mut found = Vec::new();
    files(folder.path(), &mut found);
    assert!(found.iter().any(|path| path.to_string_lossy().ends_with("-wal")), "{found:?}");
    let read = |path: &Path| (path.display().to_string(), std::fs::read(path).unwrap());
    said.extend(found.iter().map(|path| read(path)));
    server.start().await;
    for saga in server.all("/v1/sagas").await {
        let id = saga["id"].as_str().unwrap();
        for path in [format!("/v1/sagas/{id}"), format!("/sagas/{id}")] {
            said.push((
                path.clone(),
                server.client.get(server.url(&path)).send().await.unwrap().bytes().await.unwrap().to_vec(),
            ));
        }
        said.push((format!("why {id}"), server.run(&["saga", "why", id]).stdout));
        said.push((format!("show {id}"), server.run(&["saga", "show", id, "--json"]).stdout));
    }
    for path in [
        "/",
        "/v1/sagas",
        "/v1/instances",
        "/v1/resources",
        "/v1/sandbox/providers",
        "/v1/sandbox/faults",
        "/healthz",
    ] {
        said.push((
            path.into(),
            server.client.get(server.url(path)).send().await.unwrap().bytes().await.unwrap().to_vec(),
        ));
    }
    let instance =
        server.get("/v1/instances?state=claimed").await["items"][0]["id"].as_str().unwrap().to_owned();
    let teardown = server.run(&["teardown", &instance, "--wait", "2m"]);
    assert_eq!(teardown.status.code(), Some(0), "{teardown:?}");
    said.push(("teardown".into(), [teardown.stdout, teardown.stderr].concat()));
    server.kill();
    let mut found = Vec::new();
    files(folder.path(), &mut found);
    said.extend(found.iter().map(|path| read(path)));

    let mut secrets = sandbox.secrets();
    assert!(secrets.len() >= 2, "keys were minted");
    secrets.extend([CREDENTIALS.openrouter, CREDENTIALS.agentmail, CREDENTIALS.telnyx].map(str::to_owned));
    secrets.extend(CREDENTIALS.railway.iter().map(|(_, token)| (*token).to_owned()));
    let mut bytes = 0;
    for (what, text) in &said {
        assert_eq!(holds(text, &secrets), None, "a secret is in {what}");
        bytes += text.len();
    }
    println!(
        "{} secrets are in none of {} files, answers and pages, {bytes} bytes",
        secrets.len(),
        said.len()
    );
    let holdings = sandbox.holdings().to_string();
    assert!(holdings.contains("hash") && holds(holdings.as_bytes(), &secrets).is_none());
}
