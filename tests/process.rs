//! The real binary as a process: started, asked, and killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// Where cargo put the binary; built by the test command before the tests.
pub fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap();
    let binary = folder.join(format!("amends{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.exists(), "{} is not there: cargo build first", binary.display());
    binary
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(120)).build().unwrap()
}

/// A server that can be killed and started again on the same folder.
pub struct Server {
    pub folder: PathBuf,
    pub port: u16,
    pub settings: Vec<(&'static str, String)>,
    pub client: reqwest::Client,
    child: Option<Child>,
}

impl Server {
    pub fn new(folder: &Path, settings: Vec<(&'static str, String)>) -> Self {
        Self { folder: folder.to_owned(), port: free_port(), settings, client: client(), child: None }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.env("AMENDS_DATA_DIR", self.folder.join("data"));
        command.env("AMENDS_LISTEN", format!("127.0.0.1:{}", self.port));
        command.envs(self.settings.iter().map(|(name, value)| (*name, value.clone())));
        command
    }

    /// Starts it and waits until it answers; what it says goes to a file beside its data.
    pub async fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join("log")).unwrap();
        let child = self.command().stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null()).spawn();
        self.child = Some(child.unwrap());
        for _ in 0..4800 {
            if self
                .client
                .get(self.url("/healthz"))
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!(
            "it does not answer: {}",
            std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// As `kill` does; how it ended.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut child = self.child.take().unwrap();
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        child.wait().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub async fn get(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    /// A saga once it has ended.
    pub async fn ended(&self, saga: &str) -> Value {
        for _ in 0..3 {
            let saga = self.get(&format!("/v1/sagas/{saga}?wait=60s")).await;
            if !saga["ended_at"].is_null() {
                return saga;
            }
        }
        panic!("it has not ended: {}", self.get(&format!("/v1/sagas/{saga}")).await);
    }

    /// Every item of a list, through all pages.
    pub async fn all(&self, path: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=200{cursor}")).await;
            all.extend(page["items"].as_array().unwrap_or_else(|| panic!("{path}: {page}")).iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    /// Runs a command of the program's to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
