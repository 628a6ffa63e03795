//! `kill -9` of the real process, again and again, while claims and teardowns run and every fault of the sandbox
//! happens; the sandbox is a process of its own, so that calls in flight are not killed with it.
//!
//! `AMENDS_TEST_KILLS=n` says how often (40 unless said), `AMENDS_TEST_KILL_SECONDS=n` after how long no more,
//! `AMENDS_TEST_FAULTS=n` how many calls in a hundred each fault happens to (8 unless said; 0 for none).

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

/// What a claim under this key asks for. Each is somebody else's, so that no instance can be two people's unseen.
fn asked(key: &str) -> Value {
    let number: usize = key.rsplit('-').next().unwrap().parse().unwrap();
    let template = if number.is_multiple_of(3) { "tp_worker" } else { "tp_demo" };
    json!({"template_id": template, "owner_id": key, "name": format!("agent of {key}")})
}

/// Claims, and tears down what is claimed, as fast as the server lets it.
async fn customer(number: usize, base: String, stop: Arc<AtomicBool>, known: Arc<Mutex<Acknowledged>>) {
    let client = client();
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        let key = format!("c{number}-{count}");
        // The same key until it is acknowledged.
        while !stop.load(Ordering::SeqCst) {
            let request = client.post(format!("{base}/v1/claims?wait=2s")).header("idempotency-key", &key);
            let answer = request.json(&asked(&key)).send().await;
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

/// The sandbox as a process of its own.
struct Sandbox {
    child: std::process::Child,
    address: String,
    client: reqwest::Client,
}

impl Sandbox {
    async fn start() -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let child = std::process::Command::new(binary())
            .arg("sandbox")
            .env("AMENDS_SANDBOX_LISTEN", &address)
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let sandbox = Self { child, address, client: client() };
        for _ in 0..1200 {
            if sandbox.client.get(sandbox.url("/healthz")).send().await.is_ok() {
                return sandbox;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the sandbox does not answer");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn set(&self, faults: &[Value]) {
        for fault in faults {
            let answer = self.client.post(self.url("/v1/sandbox/faults")).json(fault).send().await.unwrap();
            assert!(answer.status().is_success(), "{fault}: {}", answer.text().await.unwrap());
        }
    }

    async fn clear(&self) {
        self.client.delete(self.url("/v1/sandbox/faults")).send().await.unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(self.url(path)).send().await.unwrap().json().await.unwrap()
    }

    /// Somebody does it in the provider's own pages.
    async fn delete_number(&self, id: &str) {
        let url = self.url(&format!("/telnyx/v2/phone_numbers/{id}"));
        let answer = self.client.delete(url).bearer_auth(amends_sandbox::CREDENTIALS.telnyx).send().await;
        assert!(answer.unwrap().status().is_success());
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not of this storm: what takes a thing away or changes it, where nobody here asked for that. A sweep shows both, and
/// what becomes of it is a person's to say; tests/vanished.rs is about them.
const BEHIND_OUR_BACK: [&str; 2] = ["vanish", "drift"];

/// How late a call lands, and how long a list lacks what was made, at most: as soon as the activities take for granted.
/// That ends two seconds behind the call's beginning, which no time limit is below.
const LATE: f64 = 1.4;
const LAG: f64 = 0.5;

/// A fault with whatever it needs, as it happens in this storm.
fn with_parameters(kind: &str, known: &Value, mut fault: Value) -> Value {
    match kind {
        "latency" => fault["ms"] = json!(400),
        "commit_late" => {
            fault["from_seconds"] = json!(0.1);
            fault["seconds"] = json!(LATE);
        }
        "rate_limited" => fault["retry_after"] = json!(1),
        "quota" => {
            fault["calls"] = json!(100);
            fault["seconds"] = json!(2);
        }
        "gone_text" => fault["text"] = json!("Problem processing request"),
        "list_lag" | "delete_lingers" => fault["seconds"] = json!(LAG),
        "deploy_takes" | "order_takes" => fault["seconds"] = json!(2),
        "container_restarts" | "join_pending" => fault["seconds"] = json!(1),
        _ => {}
    }
    // Whatever changes in a container changes before a call and not behind it: what is seen is what is there.
    if known["at_once"] == true {
        fault["acted"] = json!(false);
    }
    fault
}

/// Every fault that the sandbox knows, at every provider that it can happen to, in every call; each happens to so many
/// calls in a hundred. All presets together are one such fault.
fn faults(percent: u32, seed: u64) -> Vec<Value> {
    let catalogue = amends_sandbox::catalogue();
    let presets: Vec<&str> =
        catalogue["presets"].as_array().unwrap().iter().map(|one| one["preset"].as_str().unwrap()).collect();
    let chance = f64::from(percent) / 100.0;
    let mut all = Vec::new();
    for known in catalogue["kinds"].as_array().unwrap() {
        let kind = known["fault"].as_str().unwrap();
        if BEHIND_OUR_BACK.contains(&kind) || kind.starts_with("list_") && kind != "list_lag" {
            continue;
        }
        for provider in known["operations"].as_object().unwrap().keys() {
            let seed = seed.wrapping_mul(1000).wrapping_add(all.len() as u64);
            let plain = json!({"provider": provider, "operation": "*", "fault": kind, "probability": chance,
                "seed": seed});
            if kind == "spoil" {
                let share = chance / presets.len() as f64;
                for (place, preset) in presets.iter().enumerate() {
                    let mut fault = plain.clone();
                    fault["probability"] = json!(share);
                    fault["preset"] = json!(preset);
                    fault["seed"] = json!(seed.wrapping_add(7919 * place as u64));
                    // A proxy gives its answer instead of the provider's as often as behind it.
                    fault["acted"] = json!(place.is_multiple_of(2) == seed.is_multiple_of(2));
                    all.push(fault);
                }
            } else {
                all.push(with_parameters(kind, known, plain));
            }
        }
    }
    all
}

/// Lists that are wrong once: an absence is believed when it was seen twice, and a list that lies twice in a row is
/// believed. So each list lies at most once, and then not before the next time that this is set.
fn wrong_lists(percent: u32, seed: u64) -> Vec<Value> {
    let catalogue = amends_sandbox::catalogue();
    let kinds = ["list_empty", "list_partial", "list_repeats"];
    let kind = kinds[usize::try_from(seed % 3).unwrap()];
    let known = catalogue["kinds"].as_array().unwrap().iter().find(|known| known["fault"] == kind).unwrap();
    let mut all = Vec::new();
    for (provider, operations) in known["operations"].as_object().unwrap() {
        for operation in operations.as_array().unwrap() {
            let seed = seed.wrapping_mul(1000).wrapping_add(all.len() as u64);
            all.push(json!({"provider": provider, "operation": operation, "fault": kind, "times": 1,
                "probability": f64::from(percent) / 100.0, "seed": seed}));
        }
    }
    all
}

/// What only a person can do, done by one who looks first: opens a gate that a provider closed for an hour by mistake,
/// and says `retry` to what was put off by it; says `retry` where something was refused; takes an instance apart of which its recheck says that a person has to
/// decide; and gives back a number that nobody knows of.
struct Operator {
    client: reqwest::Client,
    base: String,
    /// Since when it has known of what.
    seen: BTreeMap<String, Instant>,
    acts: BTreeMap<String, usize>,
}

impl Operator {
    fn new(base: String) -> Self {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        Self { client, base, seen: BTreeMap::new(), acts: BTreeMap::new() }
    }

    /// What it says; nothing while the server is dead.
    async fn get(&self, path: &str) -> Option<Value> {
        self.client.get(format!("{}{path}", self.base)).send().await.ok()?.json().await.ok()
    }

    /// All of a list, as far as it comes.
    async fn items(&self, path: &str) -> Vec<Value> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        let begins = if path.contains('?') { '&' } else { '?' };
        loop {
            let Some(page) = self.get(&format!("{path}{begins}limit=200{cursor}")).await else { return all };
            all.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }

    async fn post(&mut self, what: &str, path: &str, body: Value) {
        let answer = self.client.post(format!("{}{path}", self.base)).json(&body).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            *self.acts.entry(what.to_owned()).or_default() += 1;
        }
    }

    /// Whether it has known of this for so long.
    fn for_long(&mut self, what: &str, time: Duration) -> bool {
        self.seen.entry(what.to_owned()).or_insert_with(Instant::now).elapsed() >= time
    }

    async fn round(&mut self, sandbox: &Sandbox) {
        let reason = "went and looked";
        let gates = self.get("/v1/gates").await.and_then(|list| list["items"].as_array().cloned());
        for gate in gates.unwrap_or_default() {
            // As long as that no provider closes one that means it.
            let closing = format!("{} {}", gate["key"], gate["closed_since"]);
            let closed = gate["state"] == "closed" && self.for_long(&closing, Duration::from_secs(5));
            if closed {
                let body = json!({"gate": gate["key"], "kind": "open", "reason": reason});
                self.post("gate opened", "/v1/gates/actions", body).await;
            }
        }
        for saga in self.items("/v1/sagas").await {
            let time = |name: &str| saga[name].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            // Refused, which only a person can change; or a provider asked for an hour, and did not mean it. Whatever
            // else is shown, or waits, goes on by itself, and has to: the engine's own waits are seconds.
            let is_refused = saga["attention"].as_array().unwrap().contains(&json!("needs_decision"));
            let waits =
                time("next_at").zip(time("updated_at")).map(|(next, since)| next.duration_since(since));
            let is_put_off = waits.is_some_and(|wait| wait > jiff::SignedDuration::from_mins(10));
            if saga["ended_at"].is_null() && (is_refused || is_put_off) {
                let what = if is_refused { "retry of what was refused" } else { "retry of what was put off" };
                let path = format!("/v1/sagas/{}/actions/retry", saga["id"].as_str().unwrap());
                self.post(what, &path, json!({"reason": reason})).await;
            }
        }
        for instance in self.items("/v1/instances?state=tainted").await {
            let id = instance["id"].as_str().unwrap().to_owned();
            let since = format!("{id} {}", instance["changed_at"]);
            if !self.for_long(&since, Duration::from_secs(20)) {
                continue;
            }
            let sagas = self.items(&format!("/v1/sagas?instance={id}")).await;
            // A recheck that is at it decides by itself.
            if !sagas.is_empty() && sagas.iter().all(|saga| !saga["ended_at"].is_null()) {
                self.post("teardown", &format!("/v1/instances/{id}/teardown"), json!({})).await;
            }
        }
        for finding in self.items("/v1/findings?class=orphan").await {
            let seen = finding["times_seen"].as_i64().unwrap_or_default();
            if finding["kind"] == "number" && seen >= 5 {
                sandbox.delete_number(finding["external_id"].as_str().unwrap()).await;
                let path = format!("/v1/findings/{}/actions/settle", finding["id"].as_str().unwrap());
                self.post("number given back", &path, json!({"how": "removed", "reason": reason})).await;
            }
        }
    }
}

fn names(holdings: &Value, provider: &str, kind: &str, field: &str) -> Vec<String> {
    let things = holdings[provider][kind].as_array().unwrap();
    things.iter().map(|thing| thing[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// The two columns, by the providers' own ids.
async fn columns(server: &Server, holdings: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut outside = BTreeSet::new();
    outside.extend(names(holdings, "railway", "projects", "id"));
    outside.extend(names(holdings, "openrouter", "keys", "hash"));
    outside.extend(names(holdings, "agentmail", "inboxes", "address"));
    outside.extend(names(holdings, "telnyx", "numbers", "phone_number"));
    outside.extend(names(holdings, "telnyx", "profiles", "id"));
    for number in holdings["telnyx"]["numbers"].as_array().unwrap() {
        if !number["messaging_profile_id"].is_null() {
            outside.insert(format!("assigned {}", number["id"].as_str().unwrap()));
        }
    }
    let mut ledger = BTreeSet::new();
    for row in server.all("/v1/resources").await {
        if row["state"] == "gone" {
            continue;
        }
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        match (text("provider").as_str(), text("kind").as_str()) {
            ("railway", "project")
            | ("openrouter", "key")
            | ("agentmail", "inbox")
            | ("telnyx", "messaging_profile") => {
                ledger.insert(text("external_id"));
            }
            ("telnyx", "number") => {
                ledger.insert(text("name"));
            }
            ("telnyx", "assignment") => {
                ledger.insert(format!("assigned {}", text("external_id")));
            }
            // Inside a project or a container.
            _ => {}
        }
    }
    (outside, ledger)
}

/// What is wrong with the instances, by what is on disk and in the containers: one that is idle is clean and pays with
/// its own key; one that is claimed is one claim's alone.
fn wrong_instances(instances: &[Value], rows: &[Value], holdings: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let agents = holdings["runtime"]["agents"].as_array().unwrap();
    let token = |agent: &Value| agent["variables"]["AMENDS_INSTANCE_TOKEN"].to_string();
    for instance in instances {
        let (id, state) = (instance["id"].as_str().unwrap(), instance["state"].as_str().unwrap());
        if state != "idle" && state != "claimed" {
            continue;
        }
        let mut complain = |what: &str, of: &Value| wrong.push(format!("{state} {id}: {what}: {of}"));
        let Some(agent) = agents.iter().find(|agent| agent["domain"] == instance["domain"]) else {
            complain("it has no container", instance);
            continue;
        };
        let is_own_key = rows.iter().any(|row| {
            row["provider"] == "openrouter" && row["holder"] == id && row["external_id"] == agent["key"]
        });
        if !is_own_key {
            complain("it does not pay with its own key", &agent["key"]);
        }
        if agents.iter().any(|other| other["domain"] != agent["domain"] && token(other) == token(agent)) {
            complain("another container takes its token", &agent["variables"]);
        }
        if state == "claimed" {
            if agent["epoch"] != instance["claim_epoch"] {
                complain("its container is under another epoch", &agent["epoch"]);
            }
            if agent["agent_name"] != instance["agent_name"]
                || agent["conversation"] != instance["conversation"]
            {
                complain("its container is something else", agent);
            }
            continue;
        }
        let files: Vec<_> = match std::fs::read_dir(agent["memory"].as_str().unwrap_or_default()) {
            Ok(files) => files.flatten().map(|file| file.file_name()).collect(),
            Err(_) => Vec::new(),
        };
        if !files.is_empty() {
            complain("its container remembers", &json!(format!("{files:?}")));
        }
        let nothing = ["conversation", "invitation", "agent_name", "instructions", "tools", "provisioned_by"];
        for field in nothing.into_iter().filter(|field| !agent[field].is_null()) {
            complain(&format!("its container has a {field}"), &agent[field]);
        }
        if agent["clean"] != true || agent["pending"] != false {
            complain("its container is not clean", agent);
        }
        if agent["epoch"].as_i64() > instance["claim_epoch"].as_i64() {
            complain("its container heard of a newer claim", &agent["epoch"]);
        }
        let mine: Vec<_> = rows.iter().filter(|row| row["holder"] == id && row["state"] != "gone").collect();
        for row in mine.iter().filter(|row| row["provider"] == "agentmail" || row["kind"] == "assignment") {
            complain("it holds what a former tenant had", row);
        }
    }
    wrong
}

/// Tenants and what is theirs: nobody has two instances, and nothing is in two containers.
fn doubled(instances: &[Value], rows: &[Value], holdings: &Value) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let claimed = instances.iter().filter(|instance| instance["state"] == "claimed");
    all.extend(claimed.map(|instance| format!("the tenant {}", instance["owner_id"])));
    for agent in holdings["runtime"]["agents"].as_array().unwrap() {
        if !agent["conversation"].is_null() {
            all.push(format!("the conversation {}", agent["conversation"]));
        }
        for tool in agent["tools"].as_array().into_iter().flatten() {
            all.push(format!("the tool {}", tool["handle"]));
        }
    }
    for (provider, kind, field) in [
        ("railway", "projects", "name"),
        ("openrouter", "keys", "name"),
        ("agentmail", "inboxes", "client_id"),
        ("telnyx", "profiles", "name"),
        // A number is bought under a reference of its own: two orders with one would be one that was sent twice.
        ("telnyx", "orders", "reference"),
    ] {
        all.extend(names(holdings, provider, kind, field).into_iter().map(|name| format!("{kind} {name}")));
    }
    // Each thing is one row's; only the profile is everybody's.
    for row in rows.iter().filter(|row| row["state"] == "live" && row["kind"] != "messaging_profile") {
        if let Some(id) = row["external_id"].as_str() {
            all.push(format!("on the ledger {} {} {id}", row["provider"], row["kind"]));
        }
    }
    let mut seen = BTreeSet::new();
    all.retain(|one| !seen.insert(one.clone()));
    all
}

fn wanted(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// How often lists may lie again, and after how many times that all faults are drawn anew.
const ROUND: Duration = Duration::from_secs(5);
const ANEW: u64 = 20;
/// What was begun has to end within so long of the last fault: the longest wait of the engine's at this pace is 6 s, a
/// sweep comes every 3 s and removes what it saw for 9 s, a container is emptied for 18 s, a claim waits for its
/// deadline.
const SETTLES: Duration = Duration::from_secs(300);

/// How many instances the pool of the sandbox keeps.
const MIN_IDLE: usize = 2;

/// How many providers are swept, and by how many censuses each is seen to agree.
const SWEPT: usize = 4;
const CENSUSES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_loses_doubles_and_leaks_nothing_and_what_is_idle_is_clean() {
    let (kills, percent) = (wanted("AMENDS_TEST_KILLS", 40), wanted("AMENDS_TEST_FAULTS", 8));
    let patience = Duration::from_secs(u64::from(wanted("AMENDS_TEST_KILL_SECONDS", u32::MAX)));
    let folder = tempfile::tempdir().unwrap();
    let sandbox = Sandbox::start().await;
    let settings = vec![
        ("AMENDS_SANDBOX_URL", format!("http://{}", sandbox.address)),
        ("AMENDS_SWEEP_DELETES", "true".to_owned()),
    ];
    let mut server = Server::new(folder.path(), settings);
    server.start().await;

    let stop = Arc::new(AtomicBool::new(false));
    let known = Arc::new(Mutex::new(Acknowledged::default()));
    let customers: Vec<_> = (0..3)
        .map(|number| tokio::spawn(customer(number, server.url(""), stop.clone(), known.clone())))
        .collect();
    let mut operator = Operator::new(server.url(""));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let (began, mut drawn, mut round) = (Instant::now(), None::<Instant>, 0_u64);
    let (mut killed, mut start) = (0, Duration::ZERO);
    let storm = async {
        while killed < kills && began.elapsed() < patience {
            // A xorshift is random enough for moments.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if drawn.is_none_or(|at| at.elapsed() >= ROUND) {
                (drawn, round) = (Some(Instant::now()), round + 1);
                if percent > 0 && round % ANEW == 1 {
                    sandbox.clear().await;
                    sandbox.set(&faults(percent, round)).await;
                }
                // Every other time, so that no list lies twice in a row.
                if percent > 0 && round.is_multiple_of(2) {
                    sandbox.set(&wrong_lists(percent, round / 2)).await;
                }
            }
            // On a machine that is busy, as long as a start takes there: otherwise nothing would be under way.
            let lives = Duration::from_millis(1000).max(start * 2).mul_f64((10 + state % 90) as f64 / 100.0);
            tokio::time::sleep(lives).await;
            server.kill();
            killed += 1;
            let starts = Instant::now();
            server.start().await;
            start = starts.elapsed();
        }
    };
    let duty = async {
        loop {
            operator.round(&sandbox).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! { () = storm => {}, () = duty => {} }
    sandbox.clear().await;
    stop.store(true, Ordering::SeqCst);
    for customer in customers {
        customer.await.unwrap();
    }
    let storm = began.elapsed();

    // Everything that was begun ends, the sweep takes what landed late, and then it differs in nothing any more.
    let deadline = Instant::now() + SETTLES;
    let mut swept: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while swept.len() < SWEPT || swept.values().any(|censuses| censuses.len() < CENSUSES) {
        operator.round(&sandbox).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let open = server.all("/v1/sagas").await;
        let open: Vec<_> = open.into_iter().filter(|saga| saga["ended_at"].is_null()).collect();
        let holdings = sandbox.get("/v1/sandbox/providers").await;
        let (outside, ledger) = columns(&server, &holdings).await;
        let differ: Vec<_> = outside.symmetric_difference(&ledger).collect();
        let findings = server.all("/v1/findings").await;
        let censuses = server.get("/v1/censuses").await["items"].as_array().cloned().unwrap();
        let idle = server.all("/v1/instances").await;
        let idle = idle.iter().filter(|instance| instance["state"] == "idle").count();
        // The pool fills again, as soon as its breaker lets it.
        if !open.is_empty() || !differ.is_empty() || !findings.is_empty() || idle < MIN_IDLE {
            swept.clear();
        } else {
            for census in censuses.iter().filter(|census| census["problem"].is_null()) {
                let provider = census["provider"].as_str().unwrap().to_owned();
                swept.entry(provider).or_default().insert(census["completed_at"].to_string());
            }
        }
        assert!(
            Instant::now() < deadline,
            "{idle} idle, stuck {open:#?}\neither outside or on the ledger {differ:#?}\n{findings:#?}\n{censuses:#?}"
        );
    }
    let settled = began.elapsed().saturating_sub(storm);

    let known = known.lock().await;
    let sagas = server.all("/v1/sagas").await;
    let ids: BTreeSet<&str> = sagas.iter().map(|saga| saga["id"].as_str().unwrap()).collect();
    for saga in known.claims.values().chain(&known.teardowns) {
        assert!(ids.contains(saga.as_str()), "the acknowledged saga {saga} is lost");
    }
    let attention: Vec<_> = sagas.iter().filter(|saga| saga["attention"] != json!([])).collect();
    assert!(attention.is_empty(), "ended, and somebody should look: {attention:#?}");
    let claims = sagas.iter().filter(|saga| saga["kind"] == "claim").count();
    for (key, saga) in &known.claims {
        let request = server.client.post(server.url("/v1/claims")).header("idempotency-key", key);
        let again: Value = request.json(&asked(key)).send().await.unwrap().json().await.unwrap();
        assert_eq!(again["id"], saga.as_str(), "key {key} is two sagas");
    }
    let after = server.all("/v1/sagas").await.iter().filter(|saga| saga["kind"] == "claim").count();
    assert_eq!(claims, after, "asking again started something");

    let instances = server.all("/v1/instances").await;
    let rows = server.all("/v1/resources").await;
    let holdings = sandbox.get("/v1/sandbox/providers").await;
    let doubled = doubled(&instances, &rows, &holdings);
    assert!(doubled.is_empty(), "doubled: {doubled:#?}");
    let wrong = wrong_instances(&instances, &rows, &holdings);
    assert!(wrong.is_empty(), "{wrong:#?}");
    let open = server.all("/v1/findings").await;
    assert!(open.is_empty(), "the sweep differs: {open:#?}");

    let findings = operator.items("/v1/findings?state=any").await.len();
    let mut ended: BTreeMap<String, usize> = BTreeMap::new();
    for saga in &sagas {
        *ended
            .entry(format!("{} {}", saga["kind"].as_str().unwrap(), saga["state"].as_str().unwrap()))
            .or_default() += 1;
    }
    let idle = instances.iter().filter(|instance| instance["state"] == "idle").count();
    let fired = sandbox.get("/v1/sandbox/calls").await;
    let count =
        |name: &str| -> u64 { fired[name].as_object().unwrap().values().filter_map(Value::as_u64).sum() };
    println!(
        "{killed} kills in {storm:.0?}, settled within {settled:.0?}: {} claims and {} teardowns acknowledged, {} sagas, \
         {} faults at {} calls, in {} ways; lost 0, doubled 0, leaked 0, stuck 0, {idle} idle instances, all clean; \
         {} instances in all; findings of the sweep {findings}; acts of the operator {:?}; {ended:?}",
        known.claims.len(),
        known.teardowns.len(),
        sagas.len(),
        count("fired"),
        count("calls"),
        fired["fired"].as_object().unwrap().len(),
        instances.len(),
        operator.acts,
    );
    // How much is begun between two kills is the machine's to say, and how much of it completes the faults'.
    assert!(!known.claims.is_empty(), "nothing was going on to be killed");
    let completed = |kind: &str| ended.get(&format!("{kind} completed")).copied().unwrap_or_default();
    assert!(
        killed < 200 || percent > 2 || completed("claim") > 0 && completed("teardown") > 0,
        "nothing came to its end: {ended:?}"
    );
    assert!(idle > 0, "nothing is idle, so nothing was seen to be clean");
}
