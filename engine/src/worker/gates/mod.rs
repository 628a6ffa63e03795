//! Gates, as one worker knows them: what it has in hand, and what it knows of the rest.
//!
//! A call that needs nothing of a gate, or finds what it needs in hand, touches no database. What is not in hand is
//! asked for once, of the [`keeper`]; what is not to be had then is waited for at the gate, durably.

mod keeper;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

pub(crate) use keeper::act;
pub(super) use keeper::{give_back_all, keep, look};

use crate::activity::Gate;
use crate::env::{Env, Timestamp};
use crate::gate::{Closed, GateState, Lane, Queue, Rule, Taken, Why, hold};
use crate::journal::failure::{Cause, Failure};
use crate::store::Closing;

/// How long a gate counts as in use after a call, and idle permits are kept.
const IN_USE: Duration = Duration::from_secs(5);
/// How long a call has to fetch what it asked for.
const FETCH: Duration = Duration::from_millis(100);
/// How long tokens that may not be held are good for the call they were taken for.
const AT_ONCE: Duration = Duration::from_secs(1);

/// All gates that this worker has met.
#[derive(Debug)]
pub(crate) struct Gates {
    /// Its own name, under which its permits stand in the database; drawn when it is first needed.
    worker: OnceLock<String>,
    env: Env,
    hands: Mutex<HashMap<String, Hand>>,
    asked: Mutex<Vec<Asked>>,
    /// There is something for the keeper to do.
    stir: Notify,
}

/// What this worker has in hand of one gate, and what it knows of it.
#[derive(Debug, Default)]
struct Hand {
    rule: Rule,
    /// Whether it was looked at since this worker uses it.
    is_known: bool,
    known: GateState,
    queue: Queue,
    /// What a provider told this worker, until it is seen in the database.
    closing: Option<Told>,
    permits: u32,
    permits_until: Timestamp,
    /// When something was taken in hand last: the call that asked for it is on its way to it.
    received_at: Timestamp,
    tokens: u32,
    tokens_until: Timestamp,
    /// Places in a wave.
    places: u32,
    under_way: u32,
    /// Outcomes that the database does not know of yet.
    through: u32,
    failed: u32,
    used_at: Timestamp,
}

/// A closing that this worker heard of itself.
#[derive(Debug)]
struct Told {
    until: Timestamp,
    reason: String,
    at: Timestamp,
}

impl Told {
    /// By now it is in the database, unless it never will be.
    fn is_stale(&self, now: Timestamp) -> bool {
        self.until <= now || now.since(self.at) >= IN_USE
    }
}

/// A call that needs more of its gates than there is in hand.
#[derive(Debug)]
struct Asked {
    gates: Vec<String>,
    lane: Lane,
    let_go: bool,
    reply: oneshot::Sender<()>,
}

/// What a gate says to a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It may leave, with this in its hand.
    Pass(Permit),
    /// There is nothing in hand: the keeper is to be asked.
    Ask,
    /// It waits here.
    Wait(Barrier),
}

/// The gate at which a call waits, and why.
#[derive(Debug)]
pub(crate) struct Barrier {
    pub(crate) gate: String,
    pub(crate) detail: String,
    /// The earliest time at which it may be let go.
    pub(crate) until: Timestamp,
}

/// A call that is to pass its gates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing<'g> {
    pub(crate) gates: &'g [Gate],
    pub(crate) lane: Lane,
    /// The gate lets it go: it does not queue again.
    pub(crate) let_go: bool,
    /// The latest time at which its call is over.
    pub(crate) not_after: Timestamp,
    /// The keeper was asked already.
    pub(crate) has_asked: bool,
}

/// The right to one call. Dropped, it is given back, whatever became of the call.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    gates: Option<Arc<Gates>>,
    keys: Vec<String>,
    lane: Lane,
    verdict: Option<bool>,
}

impl Permit {
    /// Says what the call came to, for the breaker and for the waves.
    pub(crate) fn settle<T>(&mut self, outcome: &Result<T, Failure>) {
        self.verdict = match outcome {
            Ok(_) | Err(Failure::Refused(_)) => Some(true),
            Err(Failure::Unavailable { cause, .. } | Failure::NoAnswer { cause, .. }) => match cause {
                Cause::Connect | Cause::Timeout | Cause::Reset | Cause::ServerError | Cause::Unreadable => {
                    Some(false)
                }
                Cause::NotYet | Cause::Refused => Some(true),
                // These close the gate by themselves, or say nothing of the provider.
                Cause::RateLimited
                | Cause::Credential
                | Cause::Database
                | Cause::Panic
                | Cause::WorkerLost => None,
            },
        };
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gates) = &self.gates {
            gates.give_back(&self.keys, self.lane, self.verdict);
        }
    }
}

impl Gates {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            worker: OnceLock::new(),
            env: env.clone(),
            hands: Mutex::default(),
            asked: Mutex::default(),
            stir: Notify::new(),
        }
    }

    fn worker(&self) -> &str {
        self.worker.get_or_init(|| self.env.uuid().to_string())
    }

    fn hands(&self) -> MutexGuard<'_, HashMap<String, Hand>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one call pass all its gates, or none of them.
    pub(crate) fn pass(self: &Arc<Self>, passing: &Passing<'_>) -> Answer {
        let concerned = |gate: &&Gate| passing.lane == Lane::Forward || !gate.rule.forward_only;
        let gates = || passing.gates.iter().filter(concerned);
        let now = self.env.now();
        // Who is let go was so by another's word, of which this worker may not have heard yet.
        if passing.let_go && !passing.has_asked && gates().next().is_some() {
            return Answer::Ask;
        }
        let mut hands = self.hands();
        let mut must_ask = false;
        for gate in gates() {
            let hand = hands.entry(gate.key.clone()).or_default();
            // Another may have closed what this worker has not looked at for a while.
            must_ask |= !hand.is_known;
            hand.used_at = now;
            if !gate.rule.is_plain() {
                let rule = gate.rule.clone().paced(|wait| self.env.paced(wait));
                hand.rule = rule;
            }
            match hand.look(passing, now) {
                Look::Clear => {}
                Look::Short => must_ask = true,
                Look::Barred(detail, until) => {
                    let (gate, detail) = (gate.key.clone(), format!("gate {} {detail}", gate.key));
                    return Answer::Wait(Barrier { gate, detail, until: until.unwrap_or(now) });
                }
            }
        }
        if must_ask && !passing.has_asked {
            return Answer::Ask;
        }
        if must_ask {
            let short = |gate: &&Gate| {
                hands.get(&gate.key).is_none_or(|hand| matches!(hand.look(passing, now), Look::Short))
            };
            if let Some(gate) = gates().find(short) {
                let before = hands.get(&gate.key).map_or(0, |hand| hand.queue.waiting());
                let detail = format!("gate {} is full; {before} wait before it", gate.key);
                return Answer::Wait(Barrier { gate: gate.key.clone(), detail, until: now });
            }
        }
        let mut keys = Vec::new();
        for gate in gates() {
            if let Some(hand) = hands.get_mut(&gate.key)
                && hand.spend(passing)
            {
                keys.push(gate.key.clone());
            }
        }
        if keys.is_empty() {
            return Answer::Pass(Permit::default());
        }
        Answer::Pass(Permit { gates: Some(self.clone()), keys, lane: passing.lane, verdict: None })
    }

    /// Asks the keeper for what a call needs that is not in hand; returns when it has looked.
    pub(crate) async fn ask(&self, gates: &[Gate], lane: Lane, let_go: bool) {
        let (reply, answer) = oneshot::channel();
        let keys: Vec<String> = gates.iter().map(|gate| gate.key.clone()).collect();
        let now = self.env.now();
        for key in &keys {
            self.hands().entry(key.clone()).or_default().used_at = now;
        }
        let asked = Asked { gates: keys, lane, let_go, reply };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
        self.stir.notify_one();
        // A keeper that is gone has nothing to give.
        let _ = answer.await;
    }

    fn give_back(&self, keys: &[String], lane: Lane, verdict: Option<bool>) {
        let mut hands = self.hands();
        let mut stirs = false;
        for key in keys {
            let Some(hand) = hands.get_mut(key) else { continue };
            if hand.rule.concurrency.is_some() {
                hand.under_way = hand.under_way.saturating_sub(1);
                stirs |= !hand.queue.is_empty();
            }
            if hand.known.is_probed_by(lane) || lane == Lane::Forward && hand.rule.breaker.is_some() {
                match verdict {
                    Some(true) => hand.through = hand.through.saturating_add(1),
                    Some(false) => hand.failed = hand.failed.saturating_add(1),
                    // Somebody else has to find out.
                    None => {}
                }
                stirs |= hand.has_news();
            }
        }
        if stirs {
            self.stir.notify_one();
        }
    }

    /// Closes a gate until then, for this worker at once, and for all with the append that writes it.
    pub(crate) fn close(&self, key: &str, until: Timestamp, reason: &str) -> Closing {
        let mut hands = self.hands();
        let hand = hands.entry(key.to_owned()).or_default();
        let at = self.env.now();
        hand.used_at = at;
        if hand.closing.as_ref().is_none_or(|told| told.until < until) {
            hand.closing = Some(Told { until, reason: reason.to_owned(), at });
        }
        Closing { key: key.to_owned(), until, reason: reason.to_owned() }
    }

    /// Tells the keeper that somebody has begun to wait.
    pub(crate) fn stir(&self) {
        self.stir.notify_one();
    }
}

/// What one gate says.
enum Look {
    Clear,
    Short,
    Barred(String, Option<Timestamp>),
}

impl Hand {
    /// Whether it is closed to this lane: as the database has it, or as a provider has just said.
    fn closed(&self, lane: Lane, now: Timestamp) -> Option<(String, Option<Timestamp>)> {
        if let Some(told) = self.closing.as_ref().filter(|told| told.until > now) {
            return Some((told.reason.clone(), Some(told.until)));
        }
        let Closed { by, reason, until, .. } = self.known.closed.as_ref()?;
        let is_over = until.is_some_and(|until| until <= now);
        (!is_over && (*by != Why::Breaker || lane == Lane::Forward)).then(|| (reason.clone(), *until))
    }

    /// Whether it is tried with a few, or is to be once somebody looks.
    fn is_probed(&self, lane: Lane, now: Timestamp) -> bool {
        let is_over = |closed: &Closed| closed.until.is_some_and(|until| until <= now);
        let tried_next =
            self.known.closed.as_ref().is_some_and(|closed| {
                is_over(closed) && (closed.by != Why::Breaker || lane == Lane::Forward)
            });
        tried_next || self.closing.is_some() || self.known.is_probed_by(lane)
    }

    fn look(&self, passing: &Passing<'_>, now: Timestamp) -> Look {
        let (lane, let_go) = (passing.lane, passing.let_go);
        let before = self.queue.waiting();
        if let Some((reason, until)) = self.closed(lane, now) {
            let until_text = until.map_or_else(|| "it is opened".to_owned(), |until| until.to_string());
            let detail = format!("is closed until {until_text}: {reason}; {before} wait before it");
            return Look::Barred(detail, until);
        }
        if !let_go && !self.queue.is_empty() {
            return Look::Barred(format!("lets others go first; {before} wait before it"), None);
        }
        if self.is_probed(lane, now) && !let_go && self.places == 0 {
            return Look::Short;
        }
        let no_permit = self.rule.concurrency.is_some()
            && (self.under_way >= self.permits || self.permits_until < passing.not_after);
        let no_token = self.rule.bucket.is_some() && (self.tokens == 0 || self.tokens_until < now);
        if no_permit || no_token { Look::Short } else { Look::Clear }
    }

    /// Takes what one call needs out of the hand; says whether something is to be given back.
    fn spend(&mut self, passing: &Passing<'_>) -> bool {
        let is_probed = self.known.is_probed_by(passing.lane);
        if is_probed && !passing.let_go {
            self.places = self.places.saturating_sub(1);
        }
        if self.rule.bucket.is_some() {
            self.tokens = self.tokens.saturating_sub(1);
        }
        if self.rule.concurrency.is_some() {
            self.under_way = self.under_way.saturating_add(1);
        }
        is_probed || self.rule.concurrency.is_some() || self.rule.breaker.is_some()
    }

    /// Whether the database should hear of what calls came to.
    fn has_news(&self) -> bool {
        let is_probed = self.known.probe.is_some();
        let tells_failure = self.failed > 0 && (is_probed || self.rule.breaker.is_some());
        let tells_success = self.through > 0 && (is_probed || self.known.failures > 0);
        tells_failure || tells_success
    }

    /// Takes tokens and places in hand; what permits it has is in the gate's own state.
    fn receive(&mut self, taken: Taken, now: Timestamp, env: &Env) {
        if taken.permits > 0 {
            self.received_at = now;
        }
        if taken.tokens > 0 {
            let kept = self.rule.bucket.as_ref().map_or(Duration::ZERO, hold);
            let good = if kept.is_zero() { env.paced(AT_ONCE) } else { kept };
            self.tokens = if self.tokens_until < now { 0 } else { self.tokens };
            self.tokens = self.tokens.saturating_add(taken.tokens);
            self.tokens_until = now.plus(good);
        }
        self.places = self.places.saturating_add(taken.places);
    }
}

/// The gates of several calls, each key once.
fn keys(asked: &[Asked]) -> HashSet<String> {
    asked.iter().flat_map(|asked| asked.gates.iter().cloned()).collect()
}
