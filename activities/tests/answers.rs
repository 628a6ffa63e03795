//! What becomes of a saga when a provider, or whoever stands before it, answers what is no proof: through the real engine
//! and the real clients, against servers that answer it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

mod loopback;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_activities::agentmail::{AgentMail, CreateInbox};
use amends_activities::ghcr::{Ghcr, PinDigest};
use amends_activities::openrouter::{MintKey, OpenRouter, OpenRouterCensus, RemoveKey};
use amends_activities::railway::{self, CreateProject, Railway};
use amends_activities::runtime::{
    CheckHealth, CleanContainer, ConfigureAgent, ContainerSeen, HoldContainer, JoinConversation,
    ObserveConversation, Runtime, VerifyConfigured,
};
use amends_activities::telnyx::{AwaitNumber, EnsureMessagingProfile, NUMBER_TAKEN, OrderNumber, Telnyx};
use amends_engine::activity::Cause;
use amends_engine::journal::state::{Attention, SagaState};
use amends_engine::store::sqlite::SqliteStore;
use amends_engine::store::{SagaRow, Started};
use amends_engine::sweep::{Identity, Names, Provider as _};
use amends_engine::{
    Activity, Engine, Env, Failure, Halt, Local, Registry, Saga, SagaId, SecretRef, Tx, Workflow, saga, secs,
};
use loopback::{Answer, Asked, Loopback};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// No machine is so slow that it takes longer.
const PATIENCE: Duration = secs(300);

/// A saga of one step.
struct Once<A>(PhantomData<fn() -> A>);

impl<A: Activity + Clone> Workflow for Once<A>
where
    A::Output: Clone,
{
    const NAME: &'static str = A::NAME;
    const VERSION: u32 = 1;
    type Input = A;
    type Output = Value;

    async fn run(&self, saga: &Saga, activity: A) -> saga::Result<Value> {
        let made = saga.step("it", activity).await?.take();
        serde_json::to_value(made).map_err(|error| Halt::give_up("unreadable", error.to_string()))
    }
}

fn once<A>() -> Once<A> {
    Once(PhantomData)
}

struct World {
    engine: Engine,
    _folder: tempfile::TempDir,
}

impl World {
    async fn of(registry: Registry) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(5).with_pace(200);
        let (file, key) = (folder.path().join("amends.db"), folder.path().join("key"));
        let (store, vault) = SqliteStore::open(&file, &key, "test", &[], &env).await.unwrap();
        Self { engine: Engine::start(Arc::new(store), vault, registry, env, "test"), _folder: folder }
    }

    async fn begin<W: Workflow>(&self, key: &str, input: &W::Input) -> SagaId {
        let new = self.engine.new_saga::<W>(key, input).unwrap();
        match self.engine.begin(new).await.unwrap() {
            Started::New(id) | Started::Before(id) | Started::KeyReused(id) => id,
        }
    }

    async fn until(&self, saga: &SagaId, enough: impl Fn(&SagaRow) -> bool + Copy + Send + Sync) -> SagaRow {
        let row = self.engine.wait(saga, PATIENCE, enough).await.unwrap().unwrap();
        assert!(row.state.is_ended() || enough(&row), "{}\n{row:#?}", self.story(saga).await);
        row
    }

    async fn ended(&self, saga: &SagaId) -> SagaRow {
        self.until(saga, |_| false).await
    }

    async fn completes<W: Workflow>(&self, key: &str, input: &W::Input) -> Value {
        let saga = self.begin::<W>(key, input).await;
        let row = self.ended(&saga).await;
        assert_eq!(row.state, SagaState::Completed, "{}", self.story(&saga).await);
        serde_json::from_value(self.engine.store().output(&saga).await.unwrap().unwrap()).unwrap()
    }

    async fn story(&self, saga: &SagaId) -> String {
        let view = self.engine.view(saga).await.unwrap().unwrap();
        amends_engine::journal::story(saga, &view.entries)
    }
}

/// OpenRouter with a memory: its keys, by hash and name.
#[derive(Default)]
struct Keys {
    made: u32,
    all: Vec<(String, String)>,
}

impl Keys {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let key = |(hash, name): &(String, String)| json!({"hash": hash, "name": name, "created_at": "2026-01-01T00:00:00Z"});
        let hash = asked.path.strip_prefix("/keys/").unwrap_or_default().to_owned();
        let there = self.all.iter().position(|(known, _)| *known == hash);
        let absent = json!({"error": {"code": 404, "message": "Resource not found"}});
        match (asked.method.as_str(), there) {
            ("POST", _) => {
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                self.made += 1;
                let made = (format!("h{}", self.made), body["name"].as_str().unwrap().to_owned());
                let answer = json!({"data": key(&made), "key": format!("sk-{}", self.made)});
                self.all.push(made);
                Answer::json(201, &answer)
            }
            ("GET", _) if hash.is_empty() => {
                let offset = asked.path.split("offset=").nth(1).and_then(|rest| rest.split('&').next());
                let offset: usize = offset.unwrap().parse().unwrap();
                let page: Vec<Value> = self.all.iter().rev().skip(offset).map(key).collect();
                Answer::json(200, &json!({"data": page}))
            }
            ("GET", Some(at)) => Answer::json(200, &json!({"data": key(&self.all[at])})),
            ("DELETE", Some(at)) => {
                self.all.remove(at);
                Answer::json(200, &json!({"deleted": true}))
            }
            _ => Answer::json(404, &absent),
        }
    }
}

fn mint() -> MintKey {
    MintKey { name: "am-test-0123456789ab".to_owned(), limit_usd: 5, expires_after_secs: None }
}

/// What comes between OpenRouter and us.
enum Between {
    /// It does what it is asked, and this comes back instead of its answer.
    Behind(Answer),
    /// This comes back, and it never hears of the call.
    Before(Answer),
}

/// An OpenRouter with this between it and us, by how often such a call was made.
async fn openrouter(
    spoil: impl Fn(u32, &Asked) -> Option<Between> + Send + 'static,
) -> (World, Arc<Mutex<Keys>>, Loopback) {
    let keys = Arc::new(Mutex::new(Keys::default()));
    let (acts, mut calls) = (keys.clone(), std::collections::BTreeMap::<String, u32>::new());
    let server = Loopback::start(move |asked: &Asked| {
        let kind = format!("{} {}", asked.method, asked.path.starts_with("/keys/"));
        let number = calls.entry(kind).or_default();
        *number += 1;
        match spoil(*number, asked) {
            Some(Between::Before(answer)) => answer,
            Some(Between::Behind(answer)) => {
                acts.lock().unwrap().answer(asked);
                answer
            }
            None => acts.lock().unwrap().answer(asked),
        }
    })
    .await;
    let client = Arc::new(OpenRouter::new(&server.url, "key".into()));
    let registry = Registry::default()
        .activity::<MintKey>(client.clone())
        .removal::<RemoveKey>(client)
        .workflow(once::<MintKey>())
        .workflow(Remove);
    (World::of(registry).await, keys, server)
}

#[tokio::test]
async fn a_create_that_was_done_and_answered_by_a_status_of_no_table_is_found_again() {
    let answers = [
        Answer::text(408, ""),
        Answer::text(499, "<html>client closed request</html>"),
        Answer::text(303, "").with("location", "/elsewhere"),
        Answer::text(404, "<html>not found</html>"),
        Answer::json(400, &json!({"message": "no"})),
        Answer::json(401, &json!({"message": "no"})),
        Answer::json(403, &json!({"status": 403})),
        Answer::json(409, &json!({"error": {"code": 409, "message": "conflict"}})),
        Answer::json(422, &json!({"error": {"code": 422, "message": "no"}})),
        Answer::text(429, "<html>slow down</html>").with("retry-after", "1"),
        Answer::json(200, &json!({"error": {"code": 502}})),
        Answer::json(201, &json!({"data": {"hash": ""}, "key": "x"})),
        Answer::json(502, &json!({"error": {"code": 502, "message": "bad gateway"}})),
    ];
    for spoiled in answers {
        let what = format!("{} {}", spoiled.status, String::from_utf8_lossy(&spoiled.body));
        let spoil = move |number: u32, asked: &Asked| {
            (asked.method == "POST" && number == 1).then(|| Between::Behind(spoiled.clone()))
        };
        let (world, keys, server) = openrouter(spoil).await;
        let made = world.completes::<Once<MintKey>>("k", &mint()).await;
        let all = keys.lock().unwrap().all.clone();
        assert_eq!(all.len(), 1, "{what}: one key is alive: {all:?}");
        assert_eq!(made["hash"], all[0].0.as_str(), "{what}: the one that the saga has");
        assert!(made["secret"].is_string(), "{what}: and can be used: {made}");
        assert!(
            server.asked().iter().all(|asked| !asked.path.contains("elsewhere")),
            "no redirect is followed"
        );
        world.engine.stop().await;
    }
}

#[tokio::test]
async fn a_list_that_reports_an_error_is_not_an_empty_list() {
    let spoil = |number: u32, asked: &Asked| {
        let answer = match (asked.method.as_str(), number) {
            ("POST", 1) => Answer::text(504, ""),
            ("GET", 1) => Answer::json(200, &json!({"error": {"code": 502}})),
            ("GET", 2) => Answer::json(200, &json!({"data": [{"hash": "h1"}]})),
            ("GET", 3) => Answer::text(200, "<html>"),
            ("GET", 4) => Answer::json(200, &json!({"data": null})),
            _ => return None,
        };
        Some(Between::Behind(answer))
    };
    let (world, keys, _server) = openrouter(spoil).await;
    world.completes::<Once<MintKey>>("k", &mint()).await;
    let keys = keys.lock().unwrap();
    assert_eq!((keys.made, keys.all.len()), (2, 1), "the first was found and taken away: {:?}", keys.all);
}

/// Removes a key and sees that it is gone.
struct Remove;

impl Workflow for Remove {
    const NAME: &'static str = "remove";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, hash: String) -> saga::Result<()> {
        let remove = RemoveKey { hash: Some(hash), name: String::new(), resources: Vec::new() };
        saga.remove("key", remove).await.map(drop)
    }
}

#[tokio::test]
async fn a_gateways_404_is_nobodys_word_that_a_key_is_gone() {
    let gateway = [
        Answer::text(404, "<html>404 page not found</html>"),
        Answer::json(404, &json!({"status": "error", "code": 404, "message": "Application not found"})),
        Answer::json(404, &json!({"error": "not_found"})),
        Answer::json(404, &json!({})),
        Answer::text(404, ""),
    ];
    // It answers each request by itself, and the provider never sees it.
    let spoil = move |number: u32, _: &Asked| gateway.get(number as usize - 1).cloned().map(Between::Before);
    let (world, keys, _server) = openrouter(spoil).await;
    keys.lock().unwrap().all.push(("h9".to_owned(), "am-test-0123456789ab".to_owned()));
    let saga = world.begin::<Remove>("k", &"h9".to_owned()).await;
    assert_eq!(world.ended(&saga).await.state, SagaState::Completed, "{}", world.story(&saga).await);
    assert!(keys.lock().unwrap().all.is_empty(), "it completed, and the key is alive");
}

#[tokio::test]
async fn a_mutation_answered_with_data_and_errors_is_looked_for() {
    let made = Arc::new(Mutex::new(Vec::<Value>::new()));
    let acts = made.clone();
    let server = Loopback::start(move |asked: &Asked| {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        let mut made = acts.lock().unwrap();
        if body["query"].as_str().unwrap().contains("projectCreate") {
            let input = &body["variables"]["input"];
            let id = format!("p{}", made.len());
            made.push(json!({"id": id, "name": input["name"], "description": input["description"],
                "createdAt": "2026-01-01T00:00:00Z", "deletedAt": null}));
            let errors = json!([{"message": "Project not found"}]);
            return Answer::json(200, &json!({"data": {"projectCreate": made.last()}, "errors": errors}));
        }
        let mut edges: Vec<Value> = made.iter().map(|node| json!({"node": node})).collect();
        // Beside it one of our name that somebody else made, older than ours.
        edges
            .push(json!({"node": {"id": "foreign", "name": "am-test-0123456789ab", "description": "by hand",
            "createdAt": "2020-01-01T00:00:00Z", "deletedAt": null}}));
        let page = json!({"edges": edges, "pageInfo": {"hasNextPage": false, "endCursor": "x"}});
        Answer::json(200, &json!({"data": {"projects": page}}))
    })
    .await;
    let railway = Arc::new(Railway::new(&server.url, vec![("ws".to_owned(), "token".into())]));
    let registry = Registry::default().activity::<CreateProject>(railway).workflow(once::<CreateProject>());
    let world = World::of(registry).await;
    let input = CreateProject { workspace: "ws".to_owned(), name: "am-test-0123456789ab".to_owned() };
    let project = world.completes::<Once<CreateProject>>("k", &input).await;
    assert_eq!(project["id"], "p0");
    assert_eq!(made.lock().unwrap().len(), 1, "made once, and found by its mark");
}

#[tokio::test]
async fn of_two_projects_that_lost_calls_made_the_first_is_taken_and_the_other_goes() {
    let made = Arc::new(Mutex::new(Vec::<Value>::new()));
    let (acts, mut created) = (made.clone(), 0);
    let server = Loopback::start(move |asked: &Asked| {
        let body: Value = serde_json::from_str(&asked.body).unwrap();
        let query = body["query"].as_str().unwrap();
        let mut made = acts.lock().unwrap();
        if query.contains("projectCreate") {
            created += 1;
            let (input, day) = (&body["variables"]["input"], created);
            made.push(
                json!({"id": format!("p{day}"), "name": input["name"], "description": input["description"],
                "createdAt": format!("2026-01-0{day}T00:00:00Z"), "deletedAt": null}),
            );
            return Answer::text(504, "");
        }
        if query.contains("projectDelete") {
            made.retain(|project| project["id"] != body["variables"]["id"]);
            return Answer::json(200, &json!({"data": {"projectDelete": true}}));
        }
        if query.contains(" project(id") {
            let known = made.iter().find(|project| project["id"] == body["variables"]["id"]);
            let absent = json!({"errors": [{"message": "Project not found"}], "data": null});
            let there = known.map(|project| {
                let mut project = project.clone();
                project["primaryEnvironmentId"] = "e".into();
                project["services"] = json!({"edges": []});
                json!({"data": {"project": project}})
            });
            return Answer::json(200, &there.unwrap_or(absent));
        }
        // The list lags for longer than Railway says, so that a second one is made.
        let shown = if created < 2 { &[][..] } else { &made[..] };
        let edges: Vec<Value> = shown.iter().rev().map(|node| json!({"node": node})).collect();
        let page = json!({"edges": edges, "pageInfo": {"hasNextPage": false, "endCursor": "x"}});
        Answer::json(200, &json!({"data": {"projects": page}}))
    })
    .await;
    let railway = Arc::new(Railway::new(&server.url, vec![("ws".to_owned(), "token".into())]));
    let registry = Registry::default().activity::<CreateProject>(railway).workflow(once::<CreateProject>());
    let world = World::of(registry).await;
    let input = CreateProject { workspace: "ws".to_owned(), name: "am-test-0123456789ab".to_owned() };
    assert_eq!(world.completes::<Once<CreateProject>>("k", &input).await["id"], "p1");
    let creates = server.asked().iter().filter(|asked| asked.body.contains("projectCreate")).count();
    assert_eq!(creates, 2, "there were two");
    assert_eq!(made.lock().unwrap().len(), 1, "the second one has gone");
}

#[tokio::test]
async fn of_two_keys_that_lost_calls_made_none_is_left_beside_the_one_that_is_kept() {
    let posts = AtomicU32::new(0);
    let spoil = move |number: u32, asked: &Asked| match asked.method.as_str() {
        "POST" => {
            posts.store(number, Ordering::SeqCst);
            (number <= 2).then(|| Between::Behind(Answer::text(504, "")))
        }
        // The list lags for longer than it may, so that a second one of the same name is minted.
        "GET" if !asked.path.starts_with("/keys/") && posts.load(Ordering::SeqCst) < 2 => {
            Some(Between::Before(Answer::json(200, &json!({"data": []}))))
        }
        _ => None,
    };
    let (world, keys, server) = openrouter(spoil).await;
    let made = world.completes::<Once<MintKey>>("k", &mint()).await;
    let posted = server.asked().into_iter().filter(|asked| asked.method == "POST");
    let names: Vec<Value> =
        posted.map(|asked| serde_json::from_str::<Value>(&asked.body).unwrap()["name"].take()).collect();
    assert!(names[0] == names[1] && names[1] != names[2], "two of one name: {names:?}");
    let keys = keys.lock().unwrap();
    assert_eq!((keys.made, keys.all.len()), (3, 1), "{:?}", keys.all);
    assert_eq!(made["hash"], keys.all[0].0.as_str());
}

#[tokio::test]
async fn two_tokens_of_a_workspace_take_turns_and_one_that_is_refused_is_set_aside() {
    let refused = Arc::new(Mutex::new(None::<&'static str>));
    let bad = refused.clone();
    let server = Loopback::start(move |asked: &Asked| {
        let token = asked.header("authorization").unwrap().trim_start_matches("Bearer ").to_owned();
        if *bad.lock().unwrap() == Some(if token == "one" { "one" } else { "two" }) {
            // As for a revoked token: HTTP 200, for every question.
            return Answer::json(200, &json!({"errors": [{"message": "Not Authorized"}], "data": null}));
        }
        Answer::json(200, &json!({"data": {"projectCreate": {"id": token}}}))
    })
    .await;
    let tokens = vec![("ws".to_owned(), "one".into()), ("ws".to_owned(), "two".into())];
    let railway = Arc::new(Railway::new(&server.url, tokens));
    assert_eq!(railway.workspaces(), ["ws"]);
    let registry = Registry::default().activity::<CreateProject>(railway).workflow(once::<CreateProject>());
    let world = World::of(registry).await;
    let mut used = Vec::new();
    for number in 0..8 {
        if number == 4 {
            *refused.lock().unwrap() = Some("one");
        }
        let input = CreateProject { workspace: "ws".to_owned(), name: format!("am-test-{number}") };
        let project = world.completes::<Once<CreateProject>>(&format!("k{number}"), &input).await;
        used.push(project["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(used, ["one", "two", "one", "two", "two", "two", "two", "two"]);
    let by_one = |asked: &&Asked| asked.header("authorization") == Some("Bearer one");
    // Twice it worked; then it was refused, and so was the question whether it is good at all.
    assert_eq!(server.asked().iter().filter(by_one).count(), 4);
}

#[tokio::test]
async fn an_image_that_is_denied_holds_up_no_other_image() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let server = Loopback::start(move |asked: &Asked| {
        let denied =
            json!({"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]});
        match asked.path.as_str() {
            path if path.starts_with("/token") => Answer::json(200, &json!({"token": "pull"})),
            path if path.contains("/o/private/") => Answer::json(403, &denied),
            path if path.contains("/o/gateway/") => Answer::text(403, "<html>blocked</html>"),
            path if path.contains("/o/absent/") => Answer::json(
                404,
                &json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}),
            ),
            _ => Answer::json(200, &json!({"schemaVersion": 2})).with("docker-content-digest", &digest),
        }
    })
    .await;
    let ghcr = Arc::new(Ghcr::new(&server.url, Some("token".into())));
    let registry = Registry::default().activity::<PinDigest>(ghcr).workflow(once::<PinDigest>());
    let world = World::of(registry).await;
    let pin = |image: &str| PinDigest { image: format!("ghcr.io/o/{image}"), tag: "production".to_owned() };
    let denied = world.begin::<Once<PinDigest>>("private", &pin("private")).await;
    let row = world.until(&denied, |row| row.attention.contains(&Attention::NeedsDecision)).await;
    assert!(!row.state.is_ended(), "{}", world.story(&denied).await);
    let story = world.story(&denied).await;
    assert!(story.contains("denies it") && !story.contains("credential"), "{story}");
    let blocked = world.begin::<Once<PinDigest>>("gateway", &pin("gateway")).await;
    world.until(&blocked, |row| row.attention.contains(&Attention::Retrying)).await;
    let pinned = world.completes::<Once<PinDigest>>("public", &pin("public")).await;
    assert_eq!(pinned["digest"], format!("sha256:{}", "a".repeat(64)));
    for gate in world.engine.gates().await.unwrap() {
        assert!(gate.closed.is_none(), "{gate:?}");
    }
    let absent = world.begin::<Once<PinDigest>>("absent", &pin("absent")).await;
    let row = world.ended(&absent).await;
    assert!(row.error.unwrap_or_default().contains("no_such_image"));
}

/// Telnyx as an order meets it: what it says to the order, which orders it lists, and which numbers.
async fn telnyx(order: Answer, orders: Value, numbers: Value) -> (World, Loopback) {
    let mut looks = 0;
    let server = Loopback::start(move |asked: &Asked| {
        let list = |data: &Value| json!({"data": data, "meta": {"total_pages": 1, "page_number": 1}});
        match (asked.method.as_str(), asked.path.split('?').next().unwrap()) {
            ("POST", _) => order.clone(),
            // An order is listed a little later.
            (_, "/number_orders") => {
                looks += 1;
                let shown = if looks > 1 { orders.clone() } else { json!([]) };
                Answer::json(200, &list(&shown))
            }
            _ => Answer::json(200, &list(&numbers)),
        }
    })
    .await;
    let telnyx = Arc::new(Telnyx::new(&server.url, "key".into()));
    let registry = Registry::default().activity::<OrderNumber>(telnyx).workflow(once::<OrderNumber>());
    (World::of(registry).await, server)
}

const NUMBER: &str = "+13125550100";

fn order() -> OrderNumber {
    OrderNumber { phone_number: NUMBER.to_owned(), reference: "am-test-0123456789ab-1".to_owned() }
}

fn error(status: u16, code: &str) -> Answer {
    Answer::json(status, &json!({"errors": [{"code": code, "title": "The number is owned already"}]}))
}

#[tokio::test]
async fn an_order_of_ours_that_is_answered_already_owned_is_adopted_by_its_reference() {
    let of = |reference: &str, id: &str| json!({"id": id, "status": "success", "customer_reference": reference, "phone_numbers": [{"phone_number": NUMBER}]});
    let orders = json!([of("am-test-0123456789ab-10", "another's"), of("am-test-0123456789ab-1", "ours")]);
    for refused in [error(409, "10012"), error(422, "85001")] {
        let (world, _server) = telnyx(refused, orders.clone(), json!([])).await;
        assert_eq!(world.completes::<Once<OrderNumber>>("k", &order()).await["id"], "ours");
    }
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_and_that_failed_is_found_and_not_sent_again() {
    let failed = json!({"id": "failed", "status": "failure", "customer_reference": "am-test-0123456789ab-1", "phone_numbers": [{"phone_number": NUMBER}]});
    let orders = Arc::new(AtomicU32::new(0));
    let sent = orders.clone();
    let server = Loopback::start(move |asked: &Asked| {
        let list = |data: Value| json!({"data": data, "meta": {"total_pages": 1, "page_number": 1}});
        match (asked.method.as_str(), asked.path.split('?').next().unwrap()) {
            ("POST", _) => {
                sent.fetch_add(1, Ordering::SeqCst);
                Answer::json(504, &json!({}))
            }
            (_, "/number_orders") => Answer::json(200, &list(json!([failed]))),
            _ => Answer::json(200, &list(json!([]))),
        }
    })
    .await;
    let telnyx = Arc::new(Telnyx::new(&server.url, "key".into()));
    let world =
        World::of(Registry::default().activity::<OrderNumber>(telnyx).workflow(once::<OrderNumber>())).await;
    assert_eq!(world.completes::<Once<OrderNumber>>("k", &order()).await["id"], "failed");
    assert_eq!(orders.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_order_is_in_doubt_where_looking_for_it_is_refused() {
    let refused = error(409, "10012");
    let server = Loopback::start(move |asked: &Asked| match asked.method.as_str() {
        "POST" => refused.clone(),
        _ => error(400, "10015"),
    })
    .await;
    let telnyx = Arc::new(Telnyx::new(&server.url, "key".into()));
    let world =
        World::of(Registry::default().activity::<OrderNumber>(telnyx).workflow(once::<OrderNumber>())).await;
    let saga = world.begin::<Once<OrderNumber>>("k", &order()).await;
    let row = world.until(&saga, |row| !row.attention.is_empty()).await;
    assert!(!row.state.is_ended(), "a paid number may be outside: {}", world.story(&saga).await);
}

/// Orders a number and waits until it is ours.
struct Buys;

impl Workflow for Buys {
    const NAME: &'static str = "test.buys";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = String;

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<String> {
        let OrderNumber { phone_number, reference } = order();
        let ordered = saga.step("order", order()).await?;
        let wait = AwaitNumber { order: ordered.take(), phone_number, reference };
        Ok(saga.poll_until("await", wait, secs(3), secs(60)).await?.id.clone())
    }
}

#[tokio::test]
async fn a_number_is_ours_by_our_order_or_our_mark_and_not_by_its_digits() {
    let of = |status: &str, reference: Option<&str>| {
        let number =
            json!({"id": "n", "phone_number": NUMBER, "status": "active", "customer_reference": reference});
        let order = json!({"data": {"id": "o", "status": status}});
        (order, number)
    };
    // Another installation on the same account ordered it too, and was served.
    let cases = [
        (of("pending", None), false),
        (of("pending", Some("am-prod-0123456789ab-1")), false),
        (of("pending", Some("am-test-0123456789ab-1")), true),
        (of("success", None), true),
    ];
    for ((order, number), is_ours) in cases {
        let server = Loopback::start(move |asked: &Asked| {
            let is_list = asked.path.starts_with("/phone_numbers");
            let list = json!({"data": [number], "meta": {"total_pages": 1, "page_number": 1}});
            Answer::json(200, if is_list { &list } else { &order })
        })
        .await;
        let telnyx = Arc::new(Telnyx::new(&server.url, "key".into()));
        let registry =
            Registry::default().activity::<OrderNumber>(telnyx.clone()).activity::<AwaitNumber>(telnyx);
        let world = World::of(registry.workflow(Buys)).await;
        let saga = world.begin::<Buys>("k", &()).await;
        let row = world.ended(&saga).await;
        assert_eq!(row.state == SagaState::Completed, is_ours, "{}", world.story(&saga).await);
    }
}

#[tokio::test]
async fn a_messaging_profile_that_is_taken_and_not_listed_yet_is_found_a_little_later() {
    let mut looks = 0;
    let server = Loopback::start(move |asked: &Asked| {
        if asked.method == "POST" {
            return error(422, "10012");
        }
        looks += 1;
        let profile = json!([{"id": "p", "name": "am-test", "created_at": "2026-01-01T00:00:00Z"}]);
        let shown = if looks > 2 { profile } else { json!([]) };
        Answer::json(200, &json!({"data": shown, "meta": {"total_pages": 1, "page_number": 1}}))
    })
    .await;
    let telnyx = Arc::new(Telnyx::new(&server.url, "key".into()));
    let registry = Registry::default().activity::<EnsureMessagingProfile>(telnyx);
    let world = World::of(registry.workflow(once::<EnsureMessagingProfile>())).await;
    let ensure = EnsureMessagingProfile { name: "am-test".to_owned() };
    assert_eq!(world.completes::<Once<EnsureMessagingProfile>>("k", &ensure).await["id"], "p");
}

#[tokio::test]
async fn a_messaging_profile_that_one_list_lacks_is_not_made_again() {
    let mut looks = 0;
    let server = Loopback::start(move |asked: &Asked| {
        assert_eq!(asked.method, "GET", "it is there, and is made again");
        looks += 1;
        let profile = json!([{"id": "p", "name": "am-test", "created_at": "2026-01-01T00:00:00Z"}]);
        let shown = if looks > 1 { profile } else { json!([]) };
        Answer::json(200, &json!({"data": shown, "meta": {"total_pages": 1, "page_number": 1}}))
    })
    .await;
    let telnyx = Arc::new(Telnyx::new(&server.url, "key".into()));
    let registry = Registry::default().activity::<EnsureMessagingProfile>(telnyx);
    let world = World::of(registry.workflow(once::<EnsureMessagingProfile>())).await;
    let ensure = EnsureMessagingProfile { name: "am-test".to_owned() };
    assert_eq!(world.completes::<Once<EnsureMessagingProfile>>("k", &ensure).await["id"], "p");
}

#[tokio::test]
async fn a_token_of_another_workspace_is_no_proof_that_a_project_is_gone() {
    for (known, is_proof) in [("ws", true), ("another", false)] {
        let server = Loopback::start(move |asked: &Asked| {
            if asked.body.contains("apiToken") {
                let workspaces = json!([{"id": known, "name": known}]);
                return Answer::json(200, &json!({"data": {"apiToken": {"workspaces": workspaces}}}));
            }
            Answer::json(200, &json!({"errors": [{"message": "Not Authorized"}], "data": null}))
        })
        .await;
        let client = Arc::new(Railway::new(&server.url, vec![("ws".to_owned(), "token".into())]));
        let census = railway::RailwayCensus::new(client, Names::of("am", "test"));
        let thing = Identity {
            kind: "project".to_owned(),
            external_id: Some("p".to_owned()),
            name: "am-test-0123456789ab".to_owned(),
            account: Some("ws".to_owned()),
        };
        let read = census.read(&thing).await;
        let is_refused = matches!(read, Err(Failure::Unavailable { cause: Cause::Credential, .. }));
        assert!(if is_proof { read == Ok(None) } else { is_refused }, "{known}: {read:?}");
    }
}

#[tokio::test]
async fn a_number_that_somebody_else_has_is_refused_by_a_code_after_it_was_looked_for_again() {
    // It is in our account, and was not ordered by this saga: somebody bought it by hand, or another installation.
    let numbers =
        json!([{"id": "1", "phone_number": NUMBER, "status": "active", "customer_reference": null}]);
    let (world, server) = telnyx(error(422, "85001"), json!([]), numbers).await;
    let saga = world.begin::<Once<OrderNumber>>("k", &order()).await;
    let row = world.ended(&saga).await;
    assert!(row.error.clone().unwrap_or_default().contains(NUMBER_TAKEN), "{row:?}");
    let looked = server.asked().iter().filter(|asked| asked.path.starts_with("/number_orders?")).count();
    assert!(looked >= 3, "looked {looked} times");
    // What is no word of Telnyx's is in doubt.
    let (world, _server) = telnyx(Answer::text(422, "<html>"), json!([]), json!([])).await;
    let saga = world.begin::<Once<OrderNumber>>("k", &order()).await;
    let row = world.until(&saga, |row| row.attention.contains(&Attention::Retrying)).await;
    assert!(!row.state.is_ended(), "{}", world.story(&saga).await);
}

#[tokio::test]
async fn an_inbox_is_ours_by_its_client_id() {
    let server = Loopback::start(|asked: &Asked| {
        let inbox = |client: &str| json!({"inbox_id": "am-1@agentmail.to", "client_id": client});
        match (asked.method.as_str(), asked.path.contains("theirs")) {
            ("POST", _) if asked.body.contains("am-1") => Answer::json(
                403,
                &json!({"name": "IsTakenError", "code": "resource_taken", "message": "taken"}),
            ),
            ("POST", _) => Answer::json(
                403,
                &json!({"name": "IsTakenError", "code": "resource_taken", "message": "taken"}),
            ),
            // One of our user name that somebody else made.
            _ if asked.path.contains("am-2") => {
                Answer::json(200, &json!({"inbox_id": "am-2@agentmail.to", "client_id": "by-hand"}))
            }
            (_, false) => Answer::json(200, &inbox("am-1")),
            (_, true) => {
                Answer::json(404, &json!({"name": "NotFound", "code": "not_found", "message": "no"}))
            }
        }
    })
    .await;
    let agentmail = Arc::new(AgentMail::new(&server.url, "key".into()));
    let registry = Registry::default().activity::<CreateInbox>(agentmail).workflow(once::<CreateInbox>());
    let world = World::of(registry).await;
    let create = |name: &str| CreateInbox { name: name.to_owned(), display_name: "Ada".to_owned() };
    let ours = world.completes::<Once<CreateInbox>>("ours", &create("am-1")).await;
    assert_eq!(ours["address"], "am-1@agentmail.to");
    for name in ["theirs", "am-2"] {
        let saga = world.begin::<Once<CreateInbox>>(name, &create(name)).await;
        let row = world.ended(&saga).await;
        assert!(row.error.unwrap_or_default().contains("resource_taken"), "{name}");
    }
}

/// Seals the token of a container.
#[derive(Debug, Serialize, Deserialize)]
struct SealToken;

impl Local for SealToken {
    const NAME: &'static str = "test.seal_token";
    /// With the saga whose container it is.
    type Output = (SecretRef, SagaId);

    async fn apply(&self, tx: &mut Tx<'_>) -> Result<(SecretRef, SagaId), Failure> {
        Ok((tx.seal("instance.token", &"hush".to_owned().into())?, tx.saga().clone()))
    }
}

/// Configures a container and has it join; then empties it if it is told to. Yields the conversation, or what was seen.
struct Join;

impl Workflow for Join {
    const NAME: &'static str = "join";
    const VERSION: u32 = 1;
    type Input = (Option<String>, bool);
    type Output = String;

    async fn run(&self, saga: &Saga, (join_url, empties): (Option<String>, bool)) -> saga::Result<String> {
        let (token, claim) = saga.transact("token", SealToken).await?.take();
        let domain = "agent".to_owned();
        let hold = HoldContainer { instance: "in_a".to_owned(), domain: domain.clone() };
        let container = saga.step("container", hold).await?;
        let configure = ConfigureAgent {
            container: container.clone(),
            domain: domain.clone(),
            token: token.clone(),
            epoch: 3,
            agent_name: "Ada".to_owned(),
            instructions: "Help.".to_owned(),
            model: None,
            tools: Vec::new(),
        };
        saga.step("configure", configure).await?;
        let join =
            JoinConversation { container, domain: domain.clone(), token: token.clone(), epoch: 3, join_url };
        let joined = saga.step("join", join).await?.take();
        if !empties {
            return Ok(joined.conversation.unwrap_or_default());
        }
        let mut seen = ContainerSeen::Unreachable;
        for number in 1..=12 {
            let clean = CleanContainer {
                domain: domain.clone(),
                token: token.clone(),
                epoch: 4,
                claim: claim.clone(),
            };
            seen = match saga.step(&format!("try-{number}"), clean).await {
                Ok(tried) => tried.seen,
                Err(Halt::Refused { .. }) => ContainerSeen::Unreachable,
                Err(halt) => return Err(halt),
            };
            if seen == ContainerSeen::Clean {
                break;
            }
        }
        Ok(seen.to_string())
    }
}

/// A container with a memory.
#[derive(Default)]
struct Container {
    conversation: Option<String>,
    operation: Option<String>,
    epoch: i64,
    resets: Vec<String>,
    is_dirty: bool,
}

impl Container {
    fn answer(&mut self, asked: &Asked) -> Answer {
        let id = asked.header("x-amends-operation").map(str::to_owned);
        if let Some(epoch) = asked.header("x-amends-epoch") {
            self.epoch = self.epoch.max(epoch.parse().unwrap());
        }
        match asked.path.as_str() {
            "/pool/provision" => {
                self.is_dirty = true;
                Answer::json(200, &json!({"ok": true}))
            }
            "/convos/reset" => {
                self.resets.push(id.unwrap());
                (self.conversation, self.operation, self.is_dirty) = (None, None, false);
                Answer::json(200, &json!({"ok": true}))
            }
            "/convos/status" => Answer::json(
                200,
                &json!({"conversationId": self.conversation, "inboxId": null, "pending": false,
                    "clean": self.conversation.is_none() && !self.is_dirty,
                    "operationId": self.operation, "epoch": self.epoch}),
            ),
            _ if self.conversation.is_some() => {
                Answer::json(409, &json!({"error": "already bound", "code": "runtime_bound"}))
            }
            _ => {
                self.conversation = Some("c1".to_owned());
                self.operation = id;
                Answer::json(200, &json!({"conversationId": "c1", "status": "joined"}))
            }
        }
    }
}

async fn runtime(
    container: Container,
    spoil: impl Fn(u32, &Asked) -> Option<Answer> + Send + 'static,
    after: bool,
) -> (World, Arc<Mutex<Container>>, Loopback) {
    let container = Arc::new(Mutex::new(container));
    let (acts, mut calls) = (container.clone(), std::collections::BTreeMap::<String, u32>::new());
    let server = Loopback::start(move |asked: &Asked| {
        let number = calls.entry(asked.path.clone()).or_default();
        *number += 1;
        let spoiled = spoil(*number, asked);
        if let (Some(spoiled), false) = (&spoiled, after) {
            return spoiled.clone();
        }
        let answer = acts.lock().unwrap().answer(asked);
        spoiled.unwrap_or(answer)
    })
    .await;
    let client = Arc::new(Runtime::new(&server.url));
    let registry = Registry::default()
        .local::<SealToken>()
        .activity::<HoldContainer>(client.clone())
        .activity::<CleanContainer>(client.clone())
        .activity::<ConfigureAgent>(client.clone())
        .activity::<JoinConversation>(client)
        .workflow(Join);
    (World::of(registry).await, container, server)
}

#[tokio::test]
async fn a_conversation_is_ours_only_if_our_operation_made_it() {
    // The answer of our own join is lost: adopted.
    let lost = |number: u32, asked: &Asked| {
        (asked.path == "/convos/join" && number == 1).then(|| Answer::text(502, "<html>"))
    };
    let (world, _, server) = runtime(Container::default(), lost, true).await;
    let invitation = Some("https://talk.example/c1".to_owned());
    assert_eq!(world.completes::<Join>("k", &(invitation.clone(), false)).await, "c1");
    let joins: Vec<_> = server.asked().into_iter().filter(|asked| asked.path == "/convos/join").collect();
    assert_eq!(joins.len(), 1);
    let body: Value = serde_json::from_str(&joins[0].body).unwrap();
    assert_eq!(body["inviteUrl"], "https://talk.example/c1");

    // Somebody else's operation, in the conversation that the invitation names: not ours.
    for operation in [Some("another/join".to_owned()), None] {
        let bound = Container { conversation: Some("c1".to_owned()), operation, ..Container::default() };
        let (world, container, _server) = runtime(bound, |_, _| None, true).await;
        let saga = world.begin::<Join>("k", &(invitation.clone(), false)).await;
        let row = world.ended(&saga).await;
        assert!(row.error.clone().unwrap_or_default().contains("foreign_conversation"), "{row:?}");
        drop(container);
    }
}

#[tokio::test]
async fn an_edge_that_knows_no_such_application_does_not_make_a_container_clean() {
    // After the join nothing but the edge answers, for a while.
    let edge = |number: u32, asked: &Asked| {
        let is_after_join = matches!(asked.path.as_str(), "/convos/status" | "/convos/reset");
        (is_after_join && number <= 4)
            .then(|| Answer::json(404, &json!({"message": "Application not found"})))
    };
    let (world, container, server) = runtime(Container::default(), edge, false).await;
    let saga = world.begin::<Join>("k", &(None, true)).await;
    assert_eq!(world.ended(&saga).await.state, SagaState::Completed, "{}", world.story(&saga).await);
    assert_eq!(world.engine.store().output(&saga).await.unwrap(), Some(json!("clean")));
    let story = world.story(&saga).await;
    assert!(story.contains("(404) stands in no table"), "why nothing was seen is told: {story}");
    let container = container.lock().unwrap();
    assert!(container.conversation.is_none() && !container.is_dirty, "undone, and still in a conversation");
    let asked = server.asked();
    let statuses = asked.iter().filter(|asked| asked.path == "/convos/status").count();
    assert!(statuses > 4, "asked until it was seen: {statuses}");
    let resets: std::collections::BTreeSet<_> = asked
        .iter()
        .filter(|asked| asked.path == "/convos/reset")
        .map(|asked| asked.header("x-amends-operation").unwrap())
        .collect();
    let sent = asked.iter().filter(|asked| asked.path == "/convos/reset").count();
    assert_eq!(resets.len(), sent, "each reset is an operation of its own");
}

/// Words that Railway refuses bad input with, and that a failure behind the making may have too.
#[tokio::test]
async fn a_no_of_railways_in_open_words_is_looked_for_before_it_is_believed() {
    let create = CreateProject { workspace: "ws".to_owned(), name: "am-test-0123456789ab".to_owned() };
    for (words, is_made) in [("Invalid response from scheduler", true), ("\"x\" is not a valid name", false)]
    {
        let mut made = Vec::new();
        let server = Loopback::start(move |asked: &Asked| {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            if body["query"].as_str().unwrap().contains("projectCreate") {
                let input = &body["variables"]["input"];
                if is_made {
                    made.push(json!({"node": {"id": format!("p{}", made.len()), "name": input["name"],
                        "description": input["description"], "createdAt": "2026-01-01T00:00:00Z",
                        "deletedAt": null}}));
                }
                return Answer::json(200, &json!({"errors": [{"message": words}], "data": null}));
            }
            let info = json!({"hasNextPage": false, "endCursor": null});
            Answer::json(200, &json!({"data": {"projects": {"edges": made, "pageInfo": info}}}))
        })
        .await;
        let client = Arc::new(Railway::new(&server.url, vec![("ws".to_owned(), "token".into())]));
        let registry =
            Registry::default().activity::<CreateProject>(client).workflow(once::<CreateProject>());
        let world = World::of(registry).await;
        let saga = world.begin::<Once<CreateProject>>("k", &create).await;
        let row = world.ended(&saga).await;
        let asked = server.asked();
        let creates = asked.iter().filter(|asked| asked.body.contains("projectCreate")).count();
        let story = world.story(&saga).await;
        if is_made {
            assert_eq!((row.state, creates), (SagaState::Completed, 1), "{story}");
        } else {
            assert!(row.error.unwrap_or_default().contains("is not a valid name"), "{story}");
            assert!(creates > 1, "{story}");
            assert!(
                asked.len() - creates >= 2 * (creates - 1),
                "two looks behind each doubt at the least: {story}"
            );
        }
    }
}

/// Has a container join, and sees it in its conversation; or has it configured, and sees that.
struct Settles;

impl Workflow for Settles {
    const NAME: &'static str = "settles";
    const VERSION: u32 = 1;
    type Input = bool;
    type Output = String;

    async fn run(&self, saga: &Saga, joins: bool) -> saga::Result<String> {
        let (token, _) = saga.transact("token", SealToken).await?.take();
        let domain = "agent".to_owned();
        let hold = HoldContainer { instance: "in_a".to_owned(), domain: domain.clone() };
        let container = saga.step("container", hold).await?;
        if !joins {
            saga.step("configured", VerifyConfigured { domain, token, epoch: 3 }).await?;
            return Ok("configured".to_owned());
        }
        let (join_url, epoch) = (None, 3);
        let join =
            JoinConversation { container, domain: domain.clone(), token: token.clone(), epoch, join_url };
        let joined = saga.step("join", join).await?;
        let observe = ObserveConversation { domain, token, joined, conversation: "c1".to_owned() };
        Ok(saga.step("bound", observe).await?.take().conversation)
    }
}

#[tokio::test]
async fn a_runtime_that_does_not_say_whose_doing_it_is_is_not_believed_at_the_pivot() {
    let (ours, none) = (json!("ours"), Value::Null);
    let cases = [
        (true, Some(ours.clone()), Some(json!(3)), true),
        (true, Some(none.clone()), Some(json!(3)), false),
        (true, None, Some(json!(3)), false),
        (false, Some(ours.clone()), Some(json!(3)), true),
        (false, Some(ours.clone()), Some(json!(2)), false),
        (false, Some(ours.clone()), Some(none), false),
        (false, Some(ours), None, false),
    ];
    for (joins, operation, epoch, is_believed) in cases {
        let what = format!("{joins} {operation:?} {epoch:?}");
        let mut id = None;
        let server = Loopback::start(move |asked: &Asked| {
            if asked.method == "POST" {
                id = asked.header("x-amends-operation").map(str::to_owned);
                return Answer::json(200, &json!({"conversationId": "c1", "status": "created"}));
            }
            let mut status = json!({"conversationId": id.as_ref().map(|_| "c1"), "inboxId": null,
                "pending": false, "clean": false});
            if let Some(operation) = &operation {
                status["operationId"] = if operation.is_null() { Value::Null } else { json!(id) };
            }
            if let Some(epoch) = &epoch {
                status["epoch"] = epoch.clone();
            }
            Answer::json(200, &status)
        })
        .await;
        let client = Arc::new(Runtime::new(&server.url));
        let registry = Registry::default()
            .local::<SealToken>()
            .activity::<HoldContainer>(client.clone())
            .activity::<JoinConversation>(client.clone())
            .activity::<ObserveConversation>(client.clone())
            .activity::<VerifyConfigured>(client)
            .workflow(Settles);
        let world = World::of(registry).await;
        let saga = world.begin::<Settles>("k", &joins).await;
        let row = world.ended(&saga).await;
        assert_eq!(row.state == SagaState::Completed, is_believed, "{what}: {}", world.story(&saga).await);
    }
}

#[tokio::test]
async fn an_error_without_the_runtimes_own_code_is_no_word_of_the_containers() {
    for (code, is_word) in [(Some("runtime_refused"), true), (Some("bad_request"), false), (None, false)] {
        let spoil = move |_: u32, asked: &Asked| {
            let mut error = json!({"error": "bad request"});
            if let Some(code) = code {
                error["code"] = code.into();
            }
            (asked.path == "/pool/provision").then(|| Answer::json(400, &error))
        };
        let (world, _, _server) = runtime(Container::default(), spoil, false).await;
        let saga = world.begin::<Join>("k", &(None, false)).await;
        let row = world.until(&saga, |row| !row.attention.is_empty()).await;
        assert_eq!(row.state.is_ended(), is_word, "{code:?}: {}", world.story(&saga).await);
    }
}

#[tokio::test]
async fn a_container_that_asks_to_be_left_alone_is_left_alone_by_everybody_and_no_other_one_is() {
    let asked_at = Arc::new(Mutex::new(Vec::new()));
    let seen = asked_at.clone();
    let server = Loopback::start(move |asked: &Asked| {
        let domain = asked.path.split('/').nth(1).unwrap_or_default().to_owned();
        seen.lock().unwrap().push((domain.clone(), std::time::Instant::now()));
        if domain == "busy" && seen.lock().unwrap().iter().filter(|(known, _)| *known == "busy").count() == 1
        {
            let busy = json!({"error": "busy", "code": "runtime_busy"});
            return Answer::json(429, &busy).with("retry-after", "3");
        }
        Answer::json(200, &json!({"ok": true}))
    })
    .await;
    let client = Arc::new(Runtime::new(format!("{}/{{domain}}", server.url)));
    let registry = Registry::default()
        .local::<SealToken>()
        .activity::<HoldContainer>(client.clone())
        .activity::<ConfigureAgent>(client)
        .workflow(Configures);
    let world = World::of(registry).await;
    let first = world.begin::<Configures>("first", &"busy".to_owned()).await;
    let closed = || async {
        let gates = world.engine.gates().await.unwrap();
        gates.iter().any(|gate| gate.key == "runtime:busy" && gate.closed.is_some())
    };
    while !closed().await {
        let row = world.engine.row(&first).await.unwrap().unwrap();
        assert!(!row.state.is_ended(), "nothing was closed: {}", world.story(&first).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let second = world.begin::<Configures>("second", &"busy".to_owned()).await;
    world.completes::<Configures>("other", &"quiet".to_owned()).await;
    for saga in [&first, &second] {
        assert_eq!(world.ended(saga).await.state, SagaState::Completed, "{}", world.story(saga).await);
    }
    let asked: Vec<_> = asked_at.lock().unwrap().clone();
    let busy: Vec<_> = asked.iter().filter(|(domain, _)| domain == "busy").map(|(_, at)| *at).collect();
    assert_eq!(busy.len(), 3, "{asked:?}");
    assert!(busy[1] - busy[0] >= Duration::from_millis(2900), "{asked:?}");
    let quiet = asked.iter().find(|(domain, _)| domain == "quiet").unwrap().1;
    assert!(quiet < busy[1], "another container was asked meanwhile: {asked:?}");
}

/// Configures a container under this domain.
struct Configures;

impl Workflow for Configures {
    const NAME: &'static str = "configures";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = ();

    async fn run(&self, saga: &Saga, domain: String) -> saga::Result<()> {
        let (token, _) = saga.transact("token", SealToken).await?.take();
        let hold = HoldContainer { instance: "in_a".to_owned(), domain: domain.clone() };
        let container = saga.step("container", hold).await?;
        let configure = ConfigureAgent {
            container,
            domain,
            token,
            epoch: 3,
            agent_name: "Ada".to_owned(),
            instructions: "Help.".to_owned(),
            model: None,
            tools: Vec::new(),
        };
        saga.step("configure", configure).await.map(drop)
    }
}

#[tokio::test]
async fn a_container_that_is_not_ready_says_why() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let health = |ready: bool, digest: &str| {
        Answer::json(200, &json!({"ready": ready, "version": "1", "runtime": "r", "digest": digest}))
    };
    let mut answers = vec![
        health(true, &digest),
        health(true, "sha256:b"),
        health(false, &digest),
        Answer::text(502, "<html>"),
        Answer::json(404, &json!({"message": "Application not found"})),
    ];
    let server = Loopback::start(
        move |_: &Asked| {
            if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() }
        },
    )
    .await;
    let check = CheckHealth { domain: "agent".to_owned(), digest };
    let client = Arc::new(Runtime::new(&server.url));
    let registry = Registry::default().activity::<CheckHealth>(client).workflow(once::<CheckHealth>());
    let world = World::of(registry).await;
    let saga = world.begin::<Once<CheckHealth>>("k", &check).await;
    assert_eq!(world.ended(&saga).await.state, SagaState::Completed);
    let story = world.story(&saga).await;
    for why in ["(404) stands in no table", "server error (502)", "it is not ready", "of another image"] {
        assert!(story.contains(why), "{why}: {story}");
    }
}

/// A project, up to its deploy.
struct Deploys;

impl Workflow for Deploys {
    const NAME: &'static str = "deploys";
    const VERSION: u32 = 1;
    type Input = ();
    type Output = ();

    async fn run(&self, saga: &Saga, (): ()) -> saga::Result<()> {
        let name = "am-test-0123456789ab".to_owned();
        let llm_key = saga.step("llm-key", mint()).await?;
        let project = saga.step("project", CreateProject { workspace: "ws".to_owned(), name }).await?;
        let environment =
            saga.step("environment", railway::ReadEnvironment { project: project.clone() }).await?;
        let service = railway::CreateService {
            project: project.clone(),
            environment: environment.clone(),
            name: "agent".to_owned(),
        };
        let service = saga.step("service", service).await?;
        let volume = railway::AttachVolume {
            project: project.clone(),
            environment: environment.clone(),
            service: service.clone(),
            mount_path: "/data".to_owned(),
        };
        let volume = saga.step("volume", volume).await?;
        let domain = railway::CreateDomain {
            project: project.clone(),
            environment: environment.clone(),
            service: service.clone(),
        };
        let domain = saga.step("domain", domain).await?;
        let deploy = railway::DeployImage {
            project: project.clone(),
            environment: environment.clone(),
            service: service.clone(),
            volume,
            domain,
            llm_key,
            image: "ghcr.io/o/i@sha256:a".to_owned(),
            start_command: None,
            memory_mb: 512,
            cpu_millis: 500,
            variables: std::collections::BTreeMap::new(),
            secret_variables: std::collections::BTreeMap::new(),
        };
        let deployment = saga.step("deploy", deploy).await?;
        let boot = railway::ObserveDeploy { project, environment, service, deployment };
        saga.poll_until("boot", boot, secs(10), secs(900)).await.map(drop)
    }
}

/// What Railway answers to a field, where nothing goes wrong but the patch.
fn railway_field(query: &str, message: Option<&str>, error: &str) -> Value {
    let info = json!({"hasNextPage": false, "endCursor": null});
    let none = json!({"edges": [], "pageInfo": info});
    let all = [
        ("projectCreate", json!({"id": "p"})),
        ("projectDelete", json!(true)),
        ("serviceCreate", json!({"id": "s"})),
        ("volumeCreate", json!({"id": "v"})),
        ("serviceDomainCreate", json!({"id": "d", "domain": "a.example"})),
        ("environmentPatchCommit", json!("w")),
        ("workflowStatus", json!({"status": "Error", "error": error})),
        (
            "environmentPatches",
            json!({"edges": [{"node": {"id": "x", "status": "COMMITTED", "message": message,
            "lastAppliedError": error}}], "pageInfo": info}),
        ),
        ("deployments", none.clone()),
        ("domains", json!({"serviceDomains": []})),
        ("environment(", json!({"id": "e", "volumeInstances": none})),
        (
            "project(",
            json!({"id": "p", "name": "n", "deletedAt": null, "primaryEnvironmentId": "e",
            "services": {"edges": []}}),
        ),
    ];
    let (name, value) = all.into_iter().find(|(name, _)| query.contains(name)).unwrap();
    json!({"data": {name.trim_end_matches('('): value}})
}

#[tokio::test]
async fn a_patch_that_railway_could_not_apply_is_seen_at_once_with_what_it_says() {
    // Known by its workflow; and where the answer to the patch was lost, by its message.
    for is_lost in [false, true] {
        let deleted = Arc::new(Mutex::new(false));
        let gone = deleted.clone();
        let mut message = None::<String>;
        let server = Loopback::start(move |asked: &Asked| {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            let query = body["query"].as_str().unwrap().split_once('{').unwrap().1;
            if let Some(given) = body["variables"]["commitMessage"].as_str() {
                message = Some(given.to_owned());
                if is_lost {
                    return Answer::text(504, "");
                }
            }
            let mut gone = gone.lock().unwrap();
            if *gone {
                return Answer::json(
                    200,
                    &json!({"errors": [{"message": "Project not found"}], "data": null}),
                );
            }
            *gone = query.contains("projectDelete");
            Answer::json(200, &railway_field(query, message.as_deref(), "volume is too large"))
        })
        .await;
        let keys = Mutex::new(Keys::default());
        let openrouter = Loopback::start(move |asked: &Asked| keys.lock().unwrap().answer(asked)).await;
        let client = Arc::new(Railway::new(&server.url, vec![("ws".to_owned(), "token".into())]));
        let registry = Registry::default()
            .activity::<MintKey>(Arc::new(OpenRouter::new(&openrouter.url, "key".into())))
            .activity::<CreateProject>(client.clone())
            .activity::<railway::ReadEnvironment>(client.clone())
            .activity::<railway::CreateService>(client.clone())
            .activity::<railway::AttachVolume>(client.clone())
            .activity::<railway::CreateDomain>(client.clone())
            .activity::<railway::DeployImage>(client.clone())
            .activity::<railway::ObserveDeploy>(client)
            .workflow(Deploys);
        let world = World::of(registry).await;
        let saga = world.begin::<Deploys>("k", &()).await;
        let row = world.ended(&saga).await;
        let error = row.error.clone().unwrap_or_default();
        assert!(
            error.contains("patch_failed") && error.contains("volume is too large"),
            "{error}: {}",
            world.story(&saga).await
        );
        let polls = server.asked().iter().filter(|asked| asked.body.contains("deployments(")).count();
        assert_eq!(polls, 1, "at the first look");
        assert!(*deleted.lock().unwrap());
    }
}

/// Run by the test below, in a process of its own with a proxy in its environment.
#[tokio::test]
#[ignore = "is started by a_call_to_this_machine_does_not_go_through_a_proxy"]
async fn calls_this_machine() {
    let Ok(url) = std::env::var("AMENDS_TEST_URL") else { return };
    let names = Names::of("am", "test");
    let openrouter = OpenRouter::new(url, "hush-hush".into());
    let census = OpenRouterCensus::new(Arc::new(openrouter), names.clone());
    assert!(census.list(None).await.unwrap().things.is_empty());
    // And one that is not this machine does; that it is answered at all shows that the proxy is in use.
    let openrouter = OpenRouter::new("http://provider.invalid", "key".into());
    let census = OpenRouterCensus::new(Arc::new(openrouter), names);
    assert!(census.list(None).await.unwrap().things.is_empty());
}

#[tokio::test]
async fn a_call_to_this_machine_does_not_go_through_a_proxy() {
    let empty = |_: &Asked| Answer::json(200, &json!({"data": []}));
    let (provider, proxy) = (Loopback::start(empty).await, Loopback::start(empty).await);
    let (url, port) = (provider.url.clone(), proxy.url.clone());
    let localhost = url.replace("127.0.0.1", "localhost");
    for url in [url, localhost] {
        let status = tokio::task::spawn_blocking({
            let port = port.clone();
            move || {
                std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "calls_this_machine", "--ignored"])
                    .env("AMENDS_TEST_URL", url)
                    .env("HTTP_PROXY", &port)
                    .env("http_proxy", &port)
                    .env_remove("NO_PROXY")
                    .env_remove("no_proxy")
                    .output()
                    .unwrap()
            }
        })
        .await
        .unwrap();
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    }
    assert_eq!(provider.asked().len(), 2);
    let proxied = proxy.asked();
    assert!(
        !proxied.is_empty() && proxied.iter().all(|asked| asked.path.starts_with("http://provider.invalid/"))
    );
    assert!(proxied.iter().all(|asked| asked.header("authorization") != Some("Bearer hush-hush")));
}
