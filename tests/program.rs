//! The program from outside: bad input is refused clearly, and nothing is lost by it.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use amends_tests::process::{Server, client, free_port};
use serde_json::Value;

fn server(folder: &std::path::Path) -> Server {
    let settings = vec![("AMENDS_SANDBOX_LISTEN", format!("127.0.0.1:{}", free_port()))];
    Server::new(folder, settings)
}

/// Runs a server that should not start; what it says.
fn fails_to_start(server: &Server) -> String {
    let mut child =
        server.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it started: {:?}", child.wait_with_output().unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn bad_requests_get_a_problem_that_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let post = async |path: &str, key: Option<&str>, body: &str| -> (u16, Value) {
        let mut request = server.client.post(server.url(path)).header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.body(body.to_owned()).send().await.unwrap();
        let status = answer.status().as_u16();
        if status >= 400 {
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
        }
        (status, answer.json().await.unwrap())
    };
    for (body, status, hint) in [
        ("{", 400, "JSON"),
        ("{\"template_id\":\"tp_demo\",\"tempo\":1}", 422, "tempo"),
        ("{\"name\":\"x\"}", 422, "template_id"),
        ("{\"template_id\":\"tp_nobody\"}", 422, "tp_nobody"),
    ] {
        let (got, problem) = post("/v1/claims", None, body).await;
        assert_eq!(got, status, "{body}: {problem}");
        assert!(problem.to_string().contains(hint), "{body}: {problem}");
        assert!(problem["title"].is_string() && problem["status"] == got, "{problem}");
    }
    let (status, first) = post("/v1/claims", Some("k1"), "{\"template_id\":\"tp_demo\"}").await;
    assert!(status == 202 || status == 200);
    let (status, problem) = post("/v1/claims", Some("k1"), "{\"template_id\":\"tp_worker\"}").await;
    assert_eq!((status, problem["code"].as_str().unwrap()), (422, "idempotency_key_reused"), "{problem}");
    let (status, again) = post("/v1/claims", Some("k1"), "{\"template_id\":\"tp_demo\"}").await;
    assert!(status == 202 || status == 200);
    assert_eq!(again["id"], first["id"]);
    for path in
        ["/v1/sagas/sg_%07%00", "/v1/sagas/nothing", "/v1/sagas?state=dancing", "/v1/instances?limit=0"]
    {
        let answer = server.client.get(server.url(path)).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{path}: {}", answer.status());
        assert!(!answer.text().await.unwrap().contains('\u{7}'));
    }
    let (status, problem) = post("/v1/instances/in_nobody000000/teardown", None, "").await;
    assert_eq!(status, 404, "{problem}");
    let huge = format!("{{\"template_id\":\"{}\"}}", "x".repeat(3 << 20));
    // On a line of its own, which the server closes without reading all of it.
    let answer =
        client().post(server.url("/v1/claims")).header("content-type", "application/json").body(huge);
    assert!(answer.send().await.is_ok_and(|answer| answer.status() == 413), "too large");
    // Nothing was lost by any of it.
    let saga = first["id"].as_str().unwrap();
    let ended = server.ended(saga).await;
    assert_eq!(ended["state"], "completed", "{ended}");
}

#[tokio::test]
async fn what_people_will_read_is_limited_and_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let long = "x".repeat(900_000);
    for (field, value) in [
        ("name", long.as_str()),
        ("name", "a\u{0}b"),
        ("name", "a\u{202e}b"),
        ("owner_id", "two words"),
        ("template_id", "\u{200b}"),
        ("join_url", "javascript:alert(1)"),
        ("join_url", &format!("https://chat.example/{long}")),
    ] {
        let mut body = serde_json::json!({"template_id": "tp_demo"});
        body[field] = value.into();
        let answer = server.client.post(server.url("/v1/claims")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{field}");
        let problem: Value = answer.json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("{field}: ")) && detail.len() < 300, "{detail}");
    }
    for (path, status) in
        [("/v1/instances?state=bad", 422), ("/v1/sagas?state=bad", 422), ("/v1/resources?state=bad", 422)]
    {
        let answer = server.client.get(server.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.text().await.unwrap().contains("state: bad is none of "), "{path}");
    }
    let browser = |path: &str| server.client.get(server.url(path)).header("accept", "text/html,*/*;q=0.8");
    let page = browser("/no/such/page").send().await.unwrap();
    assert_eq!(page.status(), 404);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let problem = server.client.get(server.url("/no/such/page")).send().await.unwrap();
    assert_eq!(problem.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn a_setting_that_is_empty_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let at = format!("http://127.0.0.1:{}", server.port);
    let listed = server.command().env("AMENDS_LISTEN", "").args(["saga", "list", "--server", &at]).output();
    let listed = listed.unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = server.command().env("AMENDS_SERVER", &at).args(["instance", "list"]).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_whose_stderr_is_closed_drains_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(folder.path());
    let mut child = server
        .command()
        .env("AMENDS_LOG", "debug")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Nobody reads what it says: from here on writing there is an error.
    drop(child.stderr.take());
    let deadline = Instant::now() + Duration::from_secs(120);
    while server.client.get(server.url("/healthz")).send().await.is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        assert!(Instant::now() < deadline, "it does not answer");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let claim = serde_json::json!({"template_id": "tp_demo"});
    let claim = server.client.post(server.url("/v1/claims")).json(&claim).send().await.unwrap();
    assert!(claim.status().is_success());
    let killed = std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn what_is_asked_for_again_while_nothing_is_written_is_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let claim = async |key: &str| -> Value {
        let request = server.client.post(server.url("/v1/claims")).header("idempotency-key", key);
        let body = serde_json::json!({"template_id": "tp_demo"});
        request.json(&body).send().await.unwrap().json().await.unwrap()
    };
    let saga = claim("k1").await["id"].as_str().unwrap().to_owned();
    let get = async |path: &str, tag: Option<&str>| {
        let mut request = server.client.get(server.url(path));
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        request.send().await.unwrap()
    };
    let tag_of = |answer: &reqwest::Response| answer.headers()["etag"].to_str().unwrap().to_owned();
    for path in
        ["/", "/?attention=any", "/v1/sagas?state=completed", "/v1/resources", &format!("/sagas/{saga}")]
    {
        // Sagas go on meanwhile, and every ten seconds ages are new.
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let tag = tag_of(&get(path, None).await);
            let again = get(path, Some(&tag)).await;
            if again.status() == 304 {
                assert_eq!(tag_of(&again), tag);
                assert!(again.text().await.unwrap().is_empty());
                break;
            }
            assert_eq!(again.status(), 200, "{path}");
            assert!(Instant::now() < deadline, "{path} is never unchanged");
        }
    }
    let tag = tag_of(&get("/v1/sagas", None).await);
    let second = claim("k2").await;
    let changed = get("/v1/sagas", Some(&tag)).await;
    assert_eq!(changed.status(), 200, "something was written");
    assert!(changed.text().await.unwrap().contains(second["id"].as_str().unwrap()));
}

#[tokio::test]
async fn a_second_process_a_taken_port_and_a_newer_database_are_refused_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = server(folder.path());
    first.start().await;

    let second = server(folder.path());
    let said = fails_to_start(&second);
    assert!(said.contains("in use by another process"), "{said}");

    let elsewhere = tempfile::tempdir().unwrap();
    let mut taken = server(elsewhere.path());
    taken.port = first.port;
    let said = fails_to_start(&taken);
    assert!(said.contains("AMENDS_LISTEN") || said.contains(&first.port.to_string()), "{said}");

    let mut open = server(elsewhere.path());
    open.settings.push(("AMENDS_LISTEN", format!("0.0.0.0:{}", free_port())));
    let said = fails_to_start(&open);
    assert!(said.contains("loopback"), "{said}");

    // The first one has not noticed any of it.
    assert!(first.get("/v1/sagas").await["items"].is_array());
    first.kill();
    let file = folder.path().join("data").join("amends.db");
    let sql = "insert into engine_migration (version, description, success, checksum, execution_time)
               values (99, 'from the future', true, x'00', 0)";
    change(&file, sql).await;
    let before = std::fs::metadata(&file).unwrap().len();
    let said = fails_to_start(&first);
    assert!(said.contains("newer version"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), before);
    change(&file, "delete from engine_migration where version = 99").await;
    first.start().await;
    assert!(first.get("/v1/sagas").await["items"].is_array());
}

/// Writes into a database behind the program's back.
async fn change(file: &std::path::Path, sql: &'static str) {
    use sqlx::{Connection, Executor};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn the_command_line_claims_explains_and_tears_down_with_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let claim = server.run(&["claim", "tp_demo", "--name", "Eve", "--wait", "2m", "--json"]);
    assert_eq!(claim.status.code(), Some(0), "{claim:?}");
    let claim: Value = serde_json::from_slice(&claim.stdout).unwrap();
    assert_eq!(claim["state"], "completed");
    let saga = claim["id"].as_str().unwrap();
    let why = server.run(&["saga", "why", saga]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("claim"), "{why:?}");
    let instance = claim["instance"].as_str().unwrap();
    let teardown = server.run(&["teardown", instance, "--wait", "2m"]);
    assert_eq!(teardown.status.code(), Some(0), "{teardown:?}");
    let late = server.run(&["saga", "cancel", saga, "--reason", "too late"]);
    assert_ne!(late.status.code(), Some(0), "{late:?}");
    let none = server.run(&["saga", "show", "sg_00000000000000000000000000"]);
    assert_ne!(none.status.code(), Some(0));
    let list = server.run(&["resource", "list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert!(list["items"].as_array().unwrap().iter().any(|row| row["state"] == "gone"));
    let page =
        server.client.get(server.url(&format!("/sagas/{saga}"))).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("<svg") && page.contains("configure"), "the page has its timeline");
}

#[cfg(unix)]
#[tokio::test]
async fn asked_to_stop_it_records_what_is_under_way_and_goes_on_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let slow = r#"{"provider":"agentmail","operation":"createInbox","fault":"latency","ms":700,"times":1}"#;
    let faults =
        server.client.post(server.url("/v1/sandbox/faults")).header("content-type", "application/json");
    assert!(faults.body(slow).send().await.unwrap().status().is_success());
    let claim = server.client.post(server.url("/v1/claims")).header("content-type", "application/json");
    let claim: Value =
        claim.body("{\"template_id\":\"tp_demo\"}").send().await.unwrap().json().await.unwrap();
    let saga = claim["id"].as_str().unwrap().to_owned();
    // Until the slow call is under way.
    let deadline = Instant::now() + Duration::from_secs(120);
    while !server.get(&format!("/v1/sagas/{saga}")).await.to_string().contains("inbox") {
        assert!(Instant::now() < deadline, "it makes no inbox");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(server.terminate().success(), "it stops in order");
    server.start().await;
    let ended = server.ended(&saga).await;
    assert_eq!(ended["state"], "completed", "{ended}");
    let text = ended.to_string();
    assert!(!text.contains("worker_lost"), "the call was let to end, and was recorded: {text}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn of_a_database_that_was_put_back_nothing_is_given_away_or_removed_by_what_it_believes() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = format!("127.0.0.1:{}", free_port());
    let mut providers = std::process::Command::new(amends_tests::process::binary())
        .arg("sandbox")
        .env("AMENDS_SANDBOX_LISTEN", &sandbox)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut settings = vec![
        ("AMENDS_SANDBOX_URL", format!("http://{sandbox}")),
        ("AMENDS_SWEEP_DELETES", "true".to_owned()),
    ];
    let holdings = async || -> Value {
        client()
            .get(format!("http://{sandbox}/v1/sandbox/providers"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };
    let claim = async |server: &Server, key: &str| -> (u16, Value) {
        let request = server.client.post(server.url("/v1/claims")).header("idempotency-key", key);
        let answer = request.json(&serde_json::json!({"template_id": "tp_demo"})).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    };
    let idle = async |server: &Server| -> Vec<String> {
        let listed = server.get("/v1/instances?state=idle").await;
        let listed = listed["items"].as_array().unwrap();
        listed.iter().map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(300);

    // A backup with two idle instances and a claim that is under way.
    let mut server = Server::new(folder.path(), settings.clone());
    while std::net::TcpStream::connect(&sandbox).is_err() {
        assert!(Instant::now() < deadline, "the sandbox does not answer");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    server.start().await;
    while idle(&server).await.len() < 2 {
        assert!(Instant::now() < deadline, "the pool is not filled");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let slow = r#"{"provider":"agentmail","operation":"createInbox","fault":"hang"}"#;
    let faults = client().post(format!("http://{sandbox}/v1/sandbox/faults"));
    let faults = faults.header("content-type", "application/json").body(slow).send().await.unwrap();
    assert!(faults.status().is_success());
    let (status, answer) = claim(&server, "under-way").await;
    assert_eq!(status, 202, "{answer}");
    let under_way = answer["id"].as_str().unwrap().to_owned();
    while !server.get(&format!("/v1/sagas/{under_way}")).await.to_string().contains("inbox") {
        assert!(Instant::now() < deadline, "it makes no inbox");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while idle(&server).await.len() < 2 {
        assert!(Instant::now() < deadline, "the pool is not filled again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.kill();
    copy(&folder.path().join("data"), &folder.path().join("backup"));

    // Behind it that claim ends, another one gets an instance that is idle in it, and one such is torn down.
    let faults = client().delete(format!("http://{sandbox}/v1/sandbox/faults")).send().await.unwrap();
    assert!(faults.status().is_success());
    server.start().await;
    let was_idle = idle(&server).await;
    server.ended(&under_way).await;
    let since = claim(&server, "since").await.1["id"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&since).await["state"], "completed");
    let is_idle = idle(&server).await;
    let gone = was_idle.iter().find(|instance| is_idle.contains(instance)).unwrap().clone();
    let teardown = server.client.post(server.url(&format!("/v1/instances/{gone}/teardown")));
    let teardown: Value = teardown.send().await.unwrap().json().await.unwrap();
    assert_eq!(server.ended(teardown["id"].as_str().unwrap()).await["state"], "completed");
    server.terminate();
    let used = |holdings: &Value| -> (Vec<Value>, Vec<Value>) {
        let inboxes = holdings["agentmail"]["inboxes"].as_array().unwrap();
        let agents = holdings["runtime"]["agents"].as_array().unwrap().iter();
        let named = agents.filter(|agent| !agent["agent_name"].is_null());
        (
            inboxes.iter().map(|inbox| inbox["address"].clone()).collect(),
            named
                .map(|agent| serde_json::json!([agent["domain"], agent["agent_name"], agent["epoch"]]))
                .collect(),
        )
    };
    let before = used(&holdings().await);
    assert!(!before.0.is_empty() && !before.1.is_empty(), "{before:?}");

    std::fs::rename(folder.path().join("data"), folder.path().join("since")).unwrap();
    copy(&folder.path().join("backup"), &folder.path().join("data"));
    settings.push(("AMENDS_RESTORED", "true".to_owned()));
    let mut server = Server::new(folder.path(), settings);
    server.start().await;
    let paused = server.get(&format!("/v1/sagas/{under_way}")).await;
    assert!(matches!(paused["state"].as_str(), Some("paused" | "waiting" | "running")), "{paused}");
    loop {
        let (status, problem) = claim(&server, "behind").await;
        if status == 202 {
            break;
        }
        assert_eq!((status, problem["code"].as_str()), (503, Some("not_compared")), "{problem}");
        assert!(Instant::now() < deadline, "it was never compared: {problem}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!idle(&server).await.contains(&gone), "an instance that is not there is idle");
    // By so many censuses an orphan is removed where that is allowed.
    let mut censuses = std::collections::BTreeSet::new();
    while censuses.len() < 7 {
        assert!(Instant::now() < deadline, "it is not swept: {censuses:?}");
        let listed = server.get("/v1/censuses").await;
        let of = |census: &&Value| census["provider"] == "agentmail" && !census["completed_at"].is_null();
        censuses.extend(
            listed["items"]
                .as_array()
                .unwrap()
                .iter()
                .find(of)
                .map(|census| census["completed_at"].to_string()),
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = used(&holdings().await);
    assert!(
        before.0.iter().all(|inbox| after.0.contains(inbox)),
        "what is used was removed: {before:?} {after:?}"
    );
    assert!(
        before.1.iter().all(|agent| after.1.contains(agent)),
        "who is there was put out: {before:?} {after:?}"
    );
    assert_eq!(server.get(&format!("/v1/sagas/{under_way}")).await["state"], "paused");
    providers.kill().unwrap();
    providers.wait().unwrap();
}

#[tokio::test]
async fn the_commands_of_the_banner_run_as_they_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let program = server.command().get_program().to_string_lossy().into_owned();
    let commands: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once(":  ").map(|(_, command)| command.trim()))
        .filter(|command| command.contains(&program))
        .collect();
    assert_eq!(commands.len(), 4, "{log}");
    let mut saga = None;
    for command in commands {
        let command = command.split("   (").next().unwrap();
        let command = saga.iter().fold(command.to_owned(), |text, saga: &String| text.replace("SAGA", saga));
        let mut shell = std::process::Command::new("sh");
        let shell = shell.arg("-c").arg(&command).env_remove("AMENDS_SERVER").env_remove("AMENDS_LISTEN");
        let output = shell.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}: {said} {}", String::from_utf8_lossy(&output.stderr));
        let ids = said.split_whitespace().filter(|word| word.starts_with("sg_"));
        saga = saga.or_else(|| ids.map(str::to_owned).next());
    }
    assert!(saga.is_some(), "an id is in the list");
}

#[tokio::test]
async fn a_command_asks_its_server_itself_whatever_proxy_the_environment_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = server(folder.path());
    server.start().await;
    let mut command = server.command();
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        // Nobody listens there.
        command.env(name, "http://127.0.0.1:1");
    }
    let listed =
        command.env_remove("NO_PROXY").env_remove("no_proxy").args(["gate", "list"]).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
}

#[tokio::test]
async fn a_seed_that_is_too_large_is_refused_by_name_and_leaves_everything_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seed.json");
    let pool = |number: usize| {
        format!(
            r#"{{"id": "p{number}", "min_idle": 0, "max_total": 1, "workspace": "w", "image": "ghcr.io/o/i", "tag": "t"}}"#
        )
    };
    let many: Vec<String> = (0..1001).map(pool).collect();
    let many = format!(r#"{{"pools": [{}], "templates": []}}"#, many.join(","));
    let mut server = server(folder.path());
    server.settings.push(("AMENDS_SEED", file.display().to_string()));
    // Without an end, too large, cut off in a character, and with too many pools.
    let cut = format!("{}é", " ".repeat(4 << 20));
    for (seed, hint) in [
        (" ".repeat(5 << 20), "more than 4 MiB"),
        (cut, "more than 4 MiB"),
        (many, "1001 pools: at most 1000"),
    ] {
        std::fs::write(&file, &seed).unwrap();
        let said = fails_to_start(&server);
        assert!(said.contains(hint) && said.contains("AMENDS_SEED"), "{said}");
        assert!(!server.folder.join("data").exists(), "nothing was opened");
    }
    std::fs::write(&file, format!(r#"{{"pools": [{}], "templates": []}}"#, pool(1))).unwrap();
    server.start().await;
    assert_eq!(server.get("/v1/pools").await["items"][0]["id"], "p1");
}
