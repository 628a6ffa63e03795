//! The vendors' own clients, run against the sandbox for every call that we use.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use amends_sandbox::{CREDENTIALS, Config, Pace, Sandbox};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> String {
    let name: Vec<String> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let name = name.join(" ");
    let ended = command.output();
    let ended = ended.unwrap_or_else(|error| panic!("{name}: {error}; python3 with venv is needed"));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{name}\n{said}\n{wrong}");
    said
}

/// The interpreter of an environment in which the vendors' clients are, installed once for each list of them.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let list = here().join("sdk/requirements.txt");
        let wanted = std::fs::read_to_string(&list).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vendor_sdks");
        let (python, stamp) = (folder.join("bin/python"), folder.join("installed.txt"));
        if std::fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
            let _ = std::fs::remove_dir_all(&folder);
            run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
            let mut install = Command::new(&python);
            install.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--require-hashes",
            ]);
            run(install.arg("-r").arg(&list));
            std::fs::write(stamp, wanted).unwrap();
        }
        python
    })
}

/// Our client's documents, by the name of their operation.
fn documents() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for file in std::fs::read_dir(here().join("../activities/src/railway")).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for text in
            source.split('"').filter(|text| text.starts_with("query ") || text.starts_with("mutation "))
        {
            let name = text.split([' ', '(', '{']).nth(1).unwrap().to_owned();
            assert!(found.insert(name.clone(), text.to_owned()).is_none(), "{name} is twice");
        }
    }
    found
}

async fn all_hold(script: &str) {
    let listen = "127.0.0.1:0".parse().unwrap();
    let sandbox = Sandbox::start(Config { listen, pace: Pace::Quick, seed: 1, file: None }).await.unwrap();
    let documents = serde_json::to_string(&documents()).unwrap();
    let settings = [
        ("SANDBOX", format!("http://{}", sandbox.address())),
        ("OPENROUTER_KEY", CREDENTIALS.openrouter.to_owned()),
        ("AGENTMAIL_KEY", CREDENTIALS.agentmail.to_owned()),
        ("TELNYX_KEY", CREDENTIALS.telnyx.to_owned()),
        ("RAILWAY_WORKSPACE", CREDENTIALS.railway[0].0.to_owned()),
        ("RAILWAY_TOKEN", CREDENTIALS.railway[0].1.to_owned()),
        ("DOCUMENTS", documents),
        ("NO_PROXY", "127.0.0.1".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ];
    let file = here().join("sdk").join(script);
    let said = tokio::task::spawn_blocking(move || run(Command::new(python()).arg(file).envs(settings)))
        .await
        .unwrap();
    let last = said.lines().last().unwrap_or_default();
    let (holds, of) = last.split_once(" of ").unwrap_or_else(|| panic!("{said}"));
    println!("{script}: {last}");
    assert!(holds == of && of.parse::<u32>().unwrap() > 20, "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrouters_client_understands_every_answer() {
    all_hold("check_openrouter.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agentmails_client_understands_every_answer() {
    all_hold("check_agentmail.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telnyxs_client_understands_every_answer() {
    all_hold("check_telnyx.py").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graphql_client_understands_every_answer_of_railways() {
    all_hold("check_railway.py").await;
}
