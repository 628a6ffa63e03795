//! Wire: the real clients over real HTTP, against a server that answers anything in any manner of delivery.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::Failure;
use serde_json::{Value, json};

use super::contracts::{Claim, Contracts};
use super::dice::Dice;
use super::generate::{Generator, Input};
use super::number;
use crate::agentmail::AgentMail;
use crate::answer::{Answered, Kind, Operation, operations};
use crate::ghcr::Ghcr;
use crate::http::{ANSWER_MAX, Http};
use crate::openrouter::OpenRouter;
use crate::railway::{self, Railway};
use crate::runtime::{self, Runtime};
use crate::telnyx::{self, Telnyx};

#[path = "../../tests/loopback/mod.rs"]
pub(super) mod loopback;
use loopback::{Asked, Delivery, Loopback};

/// What a call of a client came to.
#[derive(Debug)]
enum Came {
    /// What was asked for is there, or was done.
    Done,
    /// It is gone, or nothing is on the list.
    Absent,
    /// Something that its caller tells apart.
    Apart(Claim),
    Failed(Failure),
}

fn came<T>(result: Result<T, Failure>, absent: impl FnOnce(&T) -> bool) -> Came {
    match result {
        Ok(value) if absent(&value) => Came::Absent,
        Ok(_) => Came::Done,
        Err(failure) => Came::Failed(failure),
    }
}

fn answered(result: Result<Answered, Failure>) -> Came {
    match result {
        Ok(Answered::Done(_)) => Came::Done,
        Ok(Answered::Gone) => Came::Absent,
        Ok(Answered::Taken(_) | Answered::SaysNo(_)) => Came::Apart(Claim::Refused),
        Ok(Answered::Ambiguous) => Came::Apart(Claim::Ambiguous),
        Err(failure) => Came::Failed(failure),
    }
}

/// The clients, all at one server.
struct Clients {
    railway: Railway,
    openrouter: OpenRouter,
    agentmail: AgentMail,
    telnyx: Telnyx,
    ghcr: Ghcr,
    runtime: Runtime,
}

impl Clients {
    fn of(url: &str) -> Self {
        let mut http = Http::new();
        // A call that is never answered ends soon; that others do so too on a slow machine only makes them lost.
        (http.read_limit, http.write_limit) = (Duration::from_secs(5), Duration::from_secs(5));
        let tokens = vec![("ws".to_owned(), "one".into()), ("ws".to_owned(), "two".into())];
        let mut clients = Self {
            railway: Railway::new(format!("{url}/graphql/v2"), tokens),
            openrouter: OpenRouter::new(url, "key".into()),
            agentmail: AgentMail::new(format!("{url}/v0"), "key".into()),
            telnyx: Telnyx::new(url, "key".into()),
            ghcr: Ghcr::new(url, Some("token".into())),
            runtime: Runtime::new(url),
        };
        clients.railway.http = http.clone();
        clients.openrouter.http = http.clone();
        clients.agentmail.http = http.clone();
        clients.telnyx.http = http.clone();
        clients.ghcr.http = http.clone();
        clients.runtime.http = http;
        clients
    }
}

/// Every call of every client.
#[derive(Debug, Clone, Copy)]
enum Probe {
    RailwayField(&'static Operation),
    RailwayProjects,
    RailwayIsGone,
    RailwayDelete,
    OpenRouterCreate,
    OpenRouterIsThere,
    OpenRouterDelete,
    OpenRouterList,
    AgentMailCreate,
    AgentMailGet,
    AgentMailDelete,
    AgentMailList,
    TelnyxList(&'static Operation),
    TelnyxOrder,
    TelnyxMark,
    TelnyxUnassign,
    TelnyxProfile,
    TelnyxProfileCreate,
    TelnyxOrderGet,
    GhcrManifest,
    RuntimeHealth,
    RuntimeStatus,
    RuntimeTell(&'static Operation),
}

fn probes() -> Vec<Probe> {
    use Probe::*;
    let fields = railway::answers::OPERATIONS.iter().map(|operation| RailwayField(operation));
    let lists =
        [&telnyx::answers::ORDERS, &telnyx::answers::NUMBERS, &telnyx::answers::PROFILES].map(TelnyxList);
    let told = runtime::answers::OPERATIONS.iter().filter(|operation| operation.kind == Kind::Write);
    let rest = [
        RailwayProjects,
        RailwayIsGone,
        RailwayDelete,
        OpenRouterCreate,
        OpenRouterIsThere,
        OpenRouterDelete,
        OpenRouterList,
        AgentMailCreate,
        AgentMailGet,
        AgentMailDelete,
        AgentMailList,
        TelnyxOrder,
        TelnyxMark,
        TelnyxUnassign,
        TelnyxProfile,
        TelnyxProfileCreate,
        TelnyxOrderGet,
        GhcrManifest,
        RuntimeHealth,
        RuntimeStatus,
    ];
    fields.chain(lists).chain(rest).chain(told.map(|operation| RuntimeTell(operation))).collect()
}

impl Probe {
    async fn run(self, clients: &Clients) -> Came {
        let Clients { railway, openrouter, agentmail, telnyx, ghcr, runtime } = clients;
        let body = json!({});
        match self {
            Self::RailwayField(operation) => {
                let query = format!("query {{ {} }}", operation.name);
                answered(railway.call(operation, "ws", &query, json!({})).await)
            }
            Self::RailwayProjects => came(railway.projects("ws").await, Vec::is_empty),
            Self::RailwayIsGone => came(railway.is_gone("ws", "sample").await, |gone| *gone),
            Self::RailwayDelete => came(railway.delete("ws", "sample").await, |()| false),
            Self::OpenRouterCreate => came(openrouter.create(&body).await, |_| false),
            Self::OpenRouterIsThere => came(openrouter.is_there("sample").await, |there| !there),
            Self::OpenRouterDelete => came(openrouter.delete("sample").await, |()| false),
            Self::OpenRouterList => came(openrouter.list().await, Vec::is_empty),
            Self::AgentMailCreate => answered(agentmail.create(&body).await),
            Self::AgentMailGet => came(agentmail.get("sample").await, Option::is_none),
            Self::AgentMailDelete => came(agentmail.delete("sample").await, |()| false),
            Self::AgentMailList => came(agentmail.list().await, Vec::is_empty),
            Self::TelnyxList(operation) => {
                let path = operation.request.trim_start_matches("GET ");
                came(telnyx.list(operation, path, "").await, Vec::is_empty)
            }
            Self::TelnyxOrder => {
                answered(telnyx.post(&telnyx::answers::ORDER, "/number_orders", &body).await)
            }
            Self::TelnyxMark => {
                answered(telnyx.patch(&telnyx::answers::MARK, "/phone_numbers/sample", &body).await)
            }
            Self::TelnyxUnassign => came(telnyx.unassign("sample").await, |()| false),
            Self::TelnyxProfile => came(telnyx.profile_of("sample").await, Option::is_none),
            Self::TelnyxProfileCreate => {
                answered(telnyx.post(&telnyx::answers::PROFILE_CREATE, "/messaging_profiles", &body).await)
            }
            Self::TelnyxOrderGet => {
                answered(telnyx.get(&telnyx::answers::ORDER_GET, "/number_orders/sample").await)
            }
            Self::GhcrManifest => came(ghcr.manifest("o/i", "latest").await, |_| false),
            Self::RuntimeHealth => came(runtime.health("d").await, |_| false),
            Self::RuntimeStatus => came(runtime.status_by("d", "token").await, |_| false),
            Self::RuntimeTell(operation) => {
                answered(runtime.tell_by(operation, "d", "token", 1, "id", &body).await)
            }
        }
    }

    /// Whether it takes something away, for which gone is as good as done.
    fn removes(self) -> bool {
        matches!(
            self,
            Self::RailwayDelete | Self::OpenRouterDelete | Self::AgentMailDelete | Self::TelnyxUnassign
        )
    }

    fn provider(self) -> &'static str {
        match self {
            Self::RailwayField(_) | Self::RailwayProjects | Self::RailwayIsGone | Self::RailwayDelete => {
                "railway"
            }
            Self::OpenRouterCreate
            | Self::OpenRouterIsThere
            | Self::OpenRouterDelete
            | Self::OpenRouterList => "openrouter",
            Self::AgentMailCreate | Self::AgentMailGet | Self::AgentMailDelete | Self::AgentMailList => {
                "agentmail"
            }
            Self::GhcrManifest => "ghcr",
            Self::RuntimeHealth | Self::RuntimeStatus | Self::RuntimeTell(_) => "runtime",
            _ => "telnyx",
        }
    }
}

/// Which operation a request is.
fn operation_of(provider: &str, asked: &Asked) -> &'static Operation {
    let all = operations().into_iter().filter(|operation| operation.provider == provider);
    let is_it = |operation: &&'static Operation| {
        if provider == "railway" {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            let query = body["query"].as_str().unwrap();
            return query
                .split(['{', '(', ' '])
                .find(|word| crate::railway::answers::OPERATIONS.iter().any(|known| known.name == *word))
                == Some(operation.name);
        }
        let (method, path) = operation.request.split_once(' ').unwrap();
        let given = asked.path.split('?').next().unwrap();
        let is_manifest = path.contains("/manifests/") && given.contains("/manifests/");
        let (path, given): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), given.split('/').collect());
        let fits = path.len() == given.len()
            && path.iter().zip(&given).all(|(wanted, given)| wanted.starts_with('{') || wanted == given);
        method == asked.method && (fits || is_manifest)
    };
    all.into_iter().find(is_it).unwrap_or_else(|| panic!("{provider}: what is {asked:?}?"))
}

/// What was answered in one call of a client.
type Log = Arc<Mutex<Vec<(&'static Operation, Input, Delivery)>>>;

/// What is wrong with what a client made of these answers.
fn problem(
    probe: Probe,
    contracts: &Contracts,
    came: &Came,
    log: &[(&'static Operation, Input, Delivery)],
) -> Option<String> {
    let value = |input: &Input| serde_json::from_slice::<Value>(&input.body).ok();
    let allows = |claim: Claim, (operation, input, delivery): &(&'static Operation, Input, Delivery)| {
        // What has no body has no end that it could lack.
        let is_whole = matches!(delivery, Delivery::Whole | Delivery::Chunked) || input.status == 204;
        let body = value(input).filter(|_| input.status != 204);
        let digest = input.headers.iter().find(|(name, _)| name == "docker-content-digest");
        let digest = digest.map(|(_, value)| value.as_str());
        is_whole
            && contracts.allow(claim, operation.provider, operation.name, input.status, body.as_ref(), digest)
    };
    let any = |claim| log.iter().any(|one| allows(claim, one));
    let all_done = || log.iter().all(|one| allows(Claim::Done, one));
    // A project that is marked as deleted, and one that a good token may not see.
    let is_marked = || {
        log.iter().any(|one| {
            allows(Claim::Done, one)
                && value(&one.1).is_some_and(|body| {
                    body.pointer("/data/project/deletedAt").is_some_and(|at| !at.is_null())
                })
        })
    };
    let is_hidden = || {
        any(Claim::Ambiguous) && log.iter().any(|one| one.0.name == "apiToken" && allows(Claim::Done, one))
    };
    let fits = match came {
        // Of a list each page has to be what it claims; where several tokens or calls were tried, the last one.
        Came::Done => {
            let is_gone = || any(Claim::Gone) || is_marked() || is_hidden();
            log.last().is_some_and(|last| allows(Claim::Done, last)) || probe.removes() && is_gone()
        }
        Came::Absent => {
            let is_list = all_done() && !log.is_empty();
            is_list || any(Claim::Gone) || is_marked() || is_hidden()
        }
        Came::Apart(claim) => any(*claim),
        Came::Failed(Failure::Refused(_)) => any(Claim::Refused),
        Came::Failed(Failure::NoAnswer { .. }) => true,
        Came::Failed(Failure::Unavailable { retry_after, .. }) => {
            let is_bounded = retry_after.is_none_or(|wait| wait <= Duration::from_secs(3600));
            let wrote = log.last().is_some_and(|(operation, _, _)| operation.kind == Kind::Write);
            let is_slowed =
                log.iter().any(|(operation, input, _)| operation.kind != Kind::Write && input.status == 429);
            is_bounded && (!wrote || any(Claim::NotDone) || is_slowed)
        }
    };
    let texts = log.iter().map(|(operation, input, delivery)| {
        let body: String = String::from_utf8_lossy(&input.body).chars().take(400).collect();
        format!("{} {} {delivery:?} {body}", operation.name, input.status)
    });
    (!fits).then(|| format!("{came:?} from {:#?}", texts.collect::<Vec<_>>()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_concludes_nothing_from_what_it_cannot_know() {
    let contracts = Contracts::read();
    let each = (number("AMENDS_TEST_FUZZ", 1500) / 10).clamp(60, 100_000);
    let seed = number("AMENDS_TEST_SEED", 1) as u64;
    let (mut tried, mut answers, mut wrong) = (0, 0, Vec::new());
    for (at, probe) in probes().into_iter().enumerate() {
        let provider = probe.provider();
        let log = Log::default();
        let writes = log.clone();
        let mut dice = Dice::new(seed + 7919 * at as u64);
        // Here, and not in the server, where a contract that is missing would only drop the line.
        let of_provider = operations().into_iter().filter(|operation| operation.provider == provider);
        let generators: BTreeMap<&str, Generator> =
            of_provider.map(|operation| (operation.name, Generator::new(&contracts, operation))).collect();
        let server = Loopback::start(move |asked: &Asked| {
            let operation = operation_of(provider, asked);
            let input = generators[operation.name].input(&mut dice);
            let delivery = match dice.below(40) {
                0 => Delivery::Cut(dice.below(input.body.len() + 1)),
                1 if dice.one_in(3) => Delivery::Endless,
                2 => Delivery::Silent,
                3..10 => Delivery::Chunked,
                _ => Delivery::Whole,
            };
            // Cut behind its end it is whole.
            let delivery = match delivery {
                Delivery::Cut(at) if at >= input.body.len() => Delivery::Whole,
                delivery => delivery,
            };
            writes.lock().unwrap().push((operation, input.clone(), delivery));
            loopback::Answer { status: input.status, headers: input.headers, body: input.body, delivery }
        })
        .await;
        let clients = Clients::of(&server.url);
        let (mut of_it, mut answers_of_it) = (0, 0);
        for _ in 0..each {
            log.lock().unwrap().clear();
            let came = probe.run(&clients).await;
            let log = log.lock().unwrap();
            (answers_of_it, tried) = (answers_of_it + log.len(), tried + 1);
            let problem = problem(probe, &contracts, &came, &log);
            of_it += usize::from(problem.is_some());
            wrong.extend(problem);
        }
        answers += answers_of_it;
        // A server that fails answers nothing, and then nothing is shown.
        assert!(answers_of_it >= each, "{probe:?} was answered {answers_of_it} times in {each} calls");
        let name = match probe {
            Probe::RailwayField(operation) | Probe::TelnyxList(operation) | Probe::RuntimeTell(operation) => {
                operation.name
            }
            _ => "",
        };
        println!(
            "{provider} {} {name}: {each} calls, {of_it} violations",
            format!("{probe:?}").split('(').next().unwrap()
        );
        let most = ANSWER_MAX + (16 << 20);
        assert!(server.sent_most() < most, "{probe:?} read on: {} bytes went out", server.sent_most());
    }
    println!("{tried} calls over HTTP with {answers} answers, {} violations", wrong.len());
    assert!(wrong.is_empty(), "{:#?}", wrong.iter().take(10).collect::<Vec<_>>());
}
