//! A market: one provider behind a socket that several processes buy from, and sagas that do.
//!
//! Its answers get lost, before or after it did what it was asked for. It does not mind two things of one name, so
//! that what was bought twice is seen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{
    Activity, Call, Effect, Failure, Found, Local, Registry, Resource, Saga, Tx, Workflow, params, saga, secs,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::yard::Note;

/// Of a thousand calls, so many lose their answer: half of them before they did anything.
const LOST: u64 = 40;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
enum Order {
    /// Makes a thing of this name; under a key that it knows, the same again.
    Make {
        name: String,
        key: Option<String>,
    },
    Find {
        name: String,
    },
    Remove {
        id: String,
    },
}

/// What is on the market, by id; and its name.
#[derive(Default)]
pub struct Market {
    things: Mutex<BTreeMap<String, String>>,
    keys: Mutex<BTreeMap<String, String>>,
    made: AtomicU64,
    calls: AtomicU64,
    lost: AtomicU64,
}

impl Market {
    /// Opens it on a free port.
    pub async fn open() -> (Arc<Self>, SocketAddr) {
        let market = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let serving = market.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let market = serving.clone();
                tokio::spawn(async move {
                    let _ = market.serve(stream).await;
                });
            }
        });
        (market, place)
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).await?;
        let Ok(order) = serde_json::from_str::<Order>(&line) else { return Ok(()) };
        // Spread evenly and the same way each time, whatever the order in which calls come.
        let dice = self.calls.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919) % 1000;
        if dice < LOST / 2 && !matches!(order, Order::Find { .. }) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let answer = self.done(order);
        tokio::time::sleep(Duration::from_millis(dice % 20)).await;
        if dice < LOST {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        write.write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes()).await
    }

    fn done(&self, order: Order) -> Option<String> {
        match order {
            Order::Make { name, key } => {
                let mut keys = self.keys.lock().unwrap();
                if let Some(id) = key.as_ref().and_then(|key| keys.get(key)) {
                    return Some(id.clone());
                }
                let id = format!("id-{}", self.made.fetch_add(1, Ordering::Relaxed) + 1);
                keys.extend(key.map(|key| (key, id.clone())));
                self.things.lock().unwrap().insert(id.clone(), name);
                Some(id)
            }
            Order::Find { name } => {
                let things = self.things.lock().unwrap();
                things.iter().find_map(|(id, known)| (*known == name).then(|| id.clone()))
            }
            Order::Remove { id } => self.things.lock().unwrap().remove(&id),
        }
    }

    /// What is there: ids by name, two under one name if it was bought twice.
    pub fn things(&self) -> BTreeMap<String, Vec<String>> {
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, name) in self.things.lock().unwrap().iter() {
            by_name.entry(name.clone()).or_default().push(id.clone());
        }
        by_name
    }

    /// How many calls there were, and how many answers were lost.
    pub fn calls(&self) -> (u64, u64) {
        (self.calls.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

/// The way to the market.
pub struct Stall(pub SocketAddr);

impl Stall {
    async fn ask(&self, order: Order) -> Result<Option<String>, Failure> {
        let mut stream = TcpStream::connect(self.0).await.map_err(|error| Failure::Unavailable {
            cause: Cause::Connect,
            detail: error.to_string(),
            retry_after: None,
        })?;
        let lost = |detail: String| Failure::NoAnswer { cause: Cause::Reset, detail };
        let line = format!("{}\n", serde_json::to_string(&order).unwrap());
        stream.write_all(line.as_bytes()).await.map_err(|error| lost(error.to_string()))?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.map_err(|error| lost(error.to_string()))?;
        serde_json::from_str(&answer).map_err(|error| lost(error.to_string()))
    }

    async fn made(&self, name: &str, key: Option<String>) -> Result<String, Failure> {
        let id = self.ask(Order::Make { name: name.to_owned(), key }).await?;
        id.ok_or_else(|| Failure::refused("malformed", "it has no id"))
    }
}

/// Bought by name, and found again by it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Buy {
    name: String,
}

impl Activity for Buy {
    const NAME: &'static str = "market.buy";
    const EFFECT: Effect = Effect::Searchable { settle_after: secs(1) };
    // A lost call is waited out until then.
    const TIME_LIMIT: Duration = secs(10);
    type Client = Stall;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("market", "thing", call.name(&self.name)))
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, stall: &Stall, call: &Call) -> Result<String, Failure> {
        stall.made(&call.name(&self.name), None).await
    }

    async fn find(&self, stall: &Stall, call: &Call) -> Result<Found<String>, Failure> {
        let id = stall.ask(Order::Find { name: call.name(&self.name) }).await?;
        Ok(id.map_or(Found::Nothing, Found::Usable))
    }

    async fn compensate(&self, stall: &Stall, made: &String, _: &Call) -> Result<(), Failure> {
        stall.ask(Order::Remove { id: made.clone() }).await.map(drop)
    }
}

/// The same key is the same thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reserve {
    name: String,
}

impl Activity for Reserve {
    const NAME: &'static str = "market.reserve";
    const EFFECT: Effect = Effect::Repeatable;
    const TIME_LIMIT: Duration = secs(10);
    type Client = Stall;
    type Output = String;

    fn resource(&self, call: &Call) -> Option<Resource> {
        Some(Resource::new("market", "thing", call.name(&self.name)))
    }

    fn external_id(made: &String) -> Option<String> {
        Some(made.clone())
    }

    async fn execute(&self, stall: &Stall, call: &Call) -> Result<String, Failure> {
        stall.made(&call.name(&self.name), Some(call.key().to_string())).await
    }

    async fn compensate(&self, stall: &Stall, made: &String, _: &Call) -> Result<(), Failure> {
        stall.ask(Order::Remove { id: made.clone() }).await.map(drop)
    }
}

/// What there is no money for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pay {
    enough: bool,
}

impl Local for Pay {
    const NAME: &'static str = "market.pay";
    type Output = ();

    async fn apply(&self, _: &mut Tx<'_>) -> Result<(), Failure> {
        if self.enough { Ok(()) } else { Err(Failure::refused("too_poor", "it costs more than there is")) }
    }
}

/// A basket of four things, of which all are paid for or none are bought.
pub struct Basket;

/// What is bought: how its things are called, and whether there is money for them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct List {
    pub name: String,
    pub enough: bool,
}

impl List {
    /// What is there, and written in our own table, once it is paid for.
    pub fn wanted(&self) -> [String; 3] {
        ["apple", "bread", "cheese"].map(|what| format!("{}-{what}", self.name))
    }
}

impl Workflow for Basket {
    const NAME: &'static str = "basket";
    const VERSION: u32 = 1;
    type Input = List;
    type Output = String;

    async fn run(&self, saga: &Saga, list: List) -> saga::Result<String> {
        let [apple, bread, cheese] = list.wanted();
        saga.step("apple", Buy { name: apple }).await?;
        saga.transact("note", Note { text: list.name.clone() }).await?;
        // Long enough for whoever is killed to hold some.
        saga.sleep("queue", secs(3)).await?;
        saga.step("bread", Reserve { name: bread }).await?;
        let cheese = saga.step("cheese", Buy { name: cheese }).await?;
        saga.transact("pay", Pay { enough: list.enough }).await?;
        Ok(cheese.take())
    }
}

/// A registry with all of it.
pub fn registry(market: SocketAddr) -> Registry {
    let stall = Arc::new(Stall(market));
    Registry::default()
        .activity::<Buy>(stall.clone())
        .activity::<Reserve>(stall)
        .local::<Note>()
        .local::<Pay>()
        .workflow(Basket)
}

/// Notes are as many as baskets that are paid for.
pub async fn notes(store: &dyn amends_engine::store::Store) -> Vec<String> {
    let rows = store.fetch("select text from note order by text".into(), params![]).await.unwrap();
    rows.iter().map(|row| row.text("text").unwrap()).collect()
}
