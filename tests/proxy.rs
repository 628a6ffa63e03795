//! The server behind a real nginx, configured as docs/behind-a-proxy.md says.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use amends_tests::process::{Server, client, free_port};

const PAGE: &str = include_str!("../docs/behind-a-proxy.md");

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts nginx with the page's server block, on this port and in front of that one.
fn nginx(folder: &Path, port: u16, server: u16) -> Nginx {
    let block = PAGE.split("```nginx").nth(1).unwrap().split("```").next().unwrap();
    let block = block
        .replace("127.0.0.1:8443", &format!("127.0.0.1:{port}"))
        .replace("127.0.0.1:7300", &format!("127.0.0.1:{server}"));
    std::fs::write(folder.join("passwords"), "ann:{PLAIN}let-me-in\n").unwrap();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {}/{name};", folder.display()))
        .join(" ");
    let config = format!(
        "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}} \
         http {{ access_log off; {temporary} {block} }}",
        folder.display()
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let child = Command::new("nginx")
        .env("PATH", path)
        .args(["-e", "stderr", "-p"])
        .arg(folder)
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .spawn();
    Nginx(child.expect("nginx is installed by .ci/test"))
}

#[tokio::test]
async fn the_proxy_of_the_docs_lets_in_who_has_the_password_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let settings = vec![("AMENDS_SANDBOX_LISTEN", format!("127.0.0.1:{}", free_port()))];
    let mut server = Server::new(folder.path(), settings);
    server.start().await;
    let port = free_port();
    let elsewhere = tempfile::tempdir().unwrap();
    let _nginx = nginx(elsewhere.path(), port, server.port);
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let client = client();
    let deadline = Instant::now() + Duration::from_secs(120);
    while client.get(url("/")).send().await.is_err() {
        assert!(Instant::now() < deadline, "nginx does not answer");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }

    // As a browser at https://ops.example does.
    let get = |path: &str| client.get(url(path)).header("host", "ops.example");
    assert_eq!(get("/").send().await.unwrap().status(), 401);
    assert_eq!(get("/").basic_auth("ann", Some("wrong")).send().await.unwrap().status(), 401);
    let page = get("/").basic_auth("ann", Some("let-me-in")).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.text().await.unwrap().contains("<h1>Sagas</h1>"));

    let act = |site: &str| {
        client
            .post(url("/v1/claims"))
            .basic_auth("ann", Some("let-me-in"))
            .header("host", "ops.example")
            .header("origin", "https://ops.example")
            .header("sec-fetch-site", site.to_owned())
            .json(&serde_json::json!({"template_id": "tp_demo"}))
    };
    let mine = act("same-origin").send().await.unwrap();
    assert!(mine.status().is_success(), "{}", mine.text().await.unwrap());
    let foreign = act("cross-site").send().await.unwrap();
    assert_eq!(foreign.status(), 403);
    // Without the proxy's Host the server refuses, as the page says.
    let direct = client.get(server.url("/")).header("host", "ops.example").send().await.unwrap();
    assert_eq!(direct.status(), 421);
}
