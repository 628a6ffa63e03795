//! A provider of one's own: keys for a search service, minted, found and deleted over its HTTP-like interface.
//!
//! `cargo run -p amends-engine --example own_provider`
//!
//! The service shows a key's secret once, in the answer that makes it. Here that answer is lost, so the key that is
//! found is of no use: it is deleted, and another is minted under the next generation's name.

use std::error::Error;
use std::sync::Arc;

use amends_engine::activity::Cause;
use amends_engine::journal::{story, why};
use amends_engine::secret::{ExposeSecret, SecretString};
use amends_engine::store::memory::MemoryStore;
use amends_engine::{
    Activity, Call, Effect, Engine, Env, Failure, Found, Made, Registry, Resource, Saga, SecretRef, Workflow,
    saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// The service's own side: which keys there are, as (name, secret), and whether the next answer is lost.
#[derive(Default)]
struct Service {
    keys: Mutex<Vec<(String, String)>>,
    loses_next: Mutex<bool>,
}

impl Service {
    /// A status and a body; nothing when the line broke after sending.
    async fn request(&self, method: &str, path: &str, name: &str) -> Option<(u16, String)> {
        let mut keys = self.keys.lock().await;
        let place = keys.iter().position(|(known, _)| known == name);
        let answer = match (method, path, place) {
            ("POST", "/keys", Some(_)) => (409, "this name is taken".to_owned()),
            ("POST", "/keys", None) => {
                let secret = format!("sk-{}-{}", name.len(), keys.len());
                keys.push((name.to_owned(), secret.clone()));
                (201, secret)
            }
            ("GET", "/keys", Some(_)) => (200, name.to_owned()),
            ("DELETE", "/keys", Some(place)) => {
                keys.remove(place);
                (204, String::new())
            }
            ("GET", "/search", _) if keys.iter().any(|(_, secret)| secret == name) => (200, "42 hits".into()),
            ("GET", "/search", _) => (401, "no such key".to_owned()),
            _ => (404, "not found".to_owned()),
        };
        let is_lost = std::mem::take(&mut *self.loses_next.lock().await);
        (!is_lost).then_some(answer)
    }
}

// ---- The provider begins here: what anybody writes who brings one of their own. ----

/// The one place where an answer becomes a value or one of the three failures.
async fn ask(service: &Service, method: &str, path: &str, name: &str) -> Result<Option<String>, Failure> {
    let detail = format!("{method} {path}");
    match service.request(method, path, name).await {
        Some((200..=299, body)) => Ok(Some(body)),
        Some((404, _)) => Ok(None),
        Some((429, _)) => Err(Failure::Unavailable { cause: Cause::RateLimited, detail, retry_after: None }),
        Some((401 | 403, _)) => {
            Err(Failure::Unavailable { cause: Cause::Credential, detail, retry_after: None })
        }
        // A server's error says nothing about whether it happened.
        Some((500.., _)) => Err(Failure::NoAnswer { cause: Cause::ServerError, detail }),
        Some((status, body)) => Err(Failure::refused(format!("http_{status}"), body)),
        None => Err(Failure::NoAnswer { cause: Cause::Reset, detail }),
    }
}

/// Mints a key under a name of ours. What it yields names the secret, and does not hold it.
#[derive(Serialize, Deserialize)]
struct MintKey {
    name: String,
}

impl Activity for MintKey {
    const NAME: &'static str = "search.mint_key";
    const EFFECT: Effect = Effect::SearchableOnce { settle_after: secs(1) };
    // A lost call is waited out before what it made is removed: until its time limit, and `settle_after` behind that.
    const TIME_LIMIT: std::time::Duration = secs(2);
    type Client = Service;
    type Output = (String, Option<SecretRef>);

    /// The name is chosen before the call, and no generation bears another's.
    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("search", "key", call.name(&self.name)))
    }

    fn external_id((name, _): &Self::Output) -> Option<String> {
        Some(name.clone())
    }

    async fn execute(&self, service: &Service, call: &Call) -> Result<Self::Output, Failure> {
        let name = call.name(&self.name);
        let secret = ask(service, "POST", "/keys", &name).await?;
        let secret = secret.ok_or_else(|| Failure::refused("no_such_path", "POST /keys is not there"))?;
        // Written, sealed, in the transaction that records this step.
        let secret = call.seal("search.key", &SecretString::from(secret))?;
        Ok((name, Some(secret)))
    }

    async fn find(&self, service: &Service, call: &Call) -> Result<Found<Self::Output>, Failure> {
        let name = call.name(&self.name);
        // There, but its secret went with the lost answer.
        let found = ask(service, "GET", "/keys", &name).await?;
        Ok(found.map_or(Found::Nothing, |_| Found::Unusable((name, None))))
    }

    /// What is gone already is what we came for.
    async fn compensate(&self, service: &Service, (name, _): &Self::Output, _: &Call) -> Result<(), Failure> {
        ask(service, "DELETE", "/keys", name).await.map(drop)
    }
}

/// Searches with a key that another step minted, and so depends on that step.
#[derive(Serialize, Deserialize)]
struct Search {
    key: Made<(String, Option<SecretRef>)>,
}

impl Activity for Search {
    const NAME: &'static str = "search.search";
    const EFFECT: Effect = Effect::Read;
    type Client = Service;
    type Output = Option<String>;

    async fn execute(&self, service: &Service, call: &Call) -> Result<Option<String>, Failure> {
        let Some(reference) = &self.key.1 else {
            return Err(Failure::refused("no_secret", "a key without its secret is of no use"));
        };
        ask(service, "GET", "/search", call.open(reference).await?.expose_secret()).await
    }
}

// ---- And ends here. ----

struct LookUp;

impl Workflow for LookUp {
    const NAME: &'static str = "look-up";
    const VERSION: u32 = 1;
    type Input = String;
    type Output = Option<String>;

    async fn run(&self, saga: &Saga, name: String) -> saga::Result<Option<String>> {
        let key = saga.step("key", MintKey { name }).await?;
        Ok(saga.step("search", Search { key }).await?.take())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let env = Env::system();
    let (store, vault) = MemoryStore::new(&[], &env).await?;
    let service = Arc::new(Service { loses_next: Mutex::new(true), ..Service::default() });
    let registry = Registry::default()
        .activity::<MintKey>(service.clone())
        .activity::<Search>(service.clone())
        .workflow(LookUp);
    let engine = Engine::start(Arc::new(store), vault, registry, env, "example");

    let new = engine.new_saga::<LookUp>("look-up-1", &"example-key".into())?;
    let saga = engine.begin(new).await?.saga().clone();
    let row = engine.wait(&saga, secs(60), |_| false).await?.ok_or("the saga is gone")?;
    let view = engine.view(&saga).await?.ok_or("the saga is gone")?;
    print!("{}", story(&saga, &view.entries));
    println!("{}", why(&view.state, engine.env().now()));
    engine.stop().await;

    let keys = service.keys.lock().await.clone();
    let journal = serde_json::to_string(&view.entries)?;
    assert_eq!(row.state.to_string(), "completed");
    assert!(keys.iter().all(|(_, secret)| !journal.contains(secret)), "no secret is in the journal");
    let names: Vec<_> = keys.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["example-key-g2"]);
    println!(
        "Look at: the useless key was deleted, {} serves, and its secret is not in the journal.",
        names[0]
    );
    Ok(())
}
