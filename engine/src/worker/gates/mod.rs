//! Gates, as one worker knows them: what it has in hand, and what it knows of the rest.
//!
//! A call that needs nothing of a gate, or finds what it needs in hand, touches no database. What is not in hand, or not
//! known well enough, is asked for once, of the [`keeper`]; what is not to be had then is waited for at the gate,
//! durably. Nothing leaves without a [`Permit`].

mod keeper;
mod permit;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

pub(crate) use keeper::act;
pub(super) use keeper::{give_back_all, keep, look};
pub(crate) use permit::{Leave, Permit};
use permit::{Sent, Spent};

use crate::activity::Gate;
use crate::data::limits;
use crate::env::{Env, Timestamp};
use crate::gate::{Closed, GateState, Lane, Queue, Rule, Taken, Times, Why, hold};
use crate::store::Closing;

// How often something is looked at is the machine's own time, and is the same at every pace.

/// How long a gate counts as in use after a call, and idle permits are kept.
const IN_USE: Duration = Duration::from_secs(5);
/// How long what is known of a gate is good for: those in use are looked at more often.
const KNOWN: Duration = Duration::from_secs(2);
/// How long a call has to fetch what it asked for.
const FETCH: Duration = Duration::from_millis(100);
/// So much is kept of why a provider closed a gate, in bytes.
const REASON_KEPT: usize = 500;
/// How long whoever asks waits for the database to answer.
const ASK: Duration = Duration::from_secs(30);

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
    /// The gates whose move the store refuses each time, with its words.
    refused: Mutex<HashMap<String, String>>,
}

/// What this worker has in hand of one gate, and what it knows of it.
#[derive(Debug, Default)]
struct Hand {
    rule: Rule,
    /// As of when it is known, if it was looked at since this worker uses it.
    known_at: Option<Timestamp>,
    /// The `rev` of what is known.
    rev: i64,
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
}

/// A call that needs more of its gates than there is in hand.
#[derive(Debug)]
struct Asked {
    passing: Passing,
    reply: oneshot::Sender<Result<Permit, Barrier>>,
}

/// What a gate says to a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It may leave, with this in its hand.
    Pass(Permit),
    /// There is nothing in hand: the keeper is to be [asked](Gates::ask).
    Ask(Passing),
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
#[derive(Debug, Clone)]
pub(crate) struct Passing {
    /// Those that concern it.
    gates: Vec<Gate>,
    lane: Lane,
    /// The gate lets it go: it does not queue again.
    let_go: bool,
    /// The latest time at which its call is over.
    not_after: Timestamp,
}

impl Passing {
    /// A call in this lane past these gates, which is over at that time at the latest.
    pub(crate) fn new(gates: &[Gate], lane: Lane, let_go: bool, not_after: Timestamp) -> Self {
        let concerned = |gate: &&Gate| lane == Lane::Forward || !gate.rule.forward_only;
        Self { gates: gates.iter().filter(concerned).cloned().collect(), lane, let_go, not_after }
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
            refused: Mutex::default(),
        }
    }

    fn worker(&self) -> &str {
        self.worker.get_or_init(|| self.env.uuid().to_string())
    }

    fn hands(&self) -> MutexGuard<'_, HashMap<String, Hand>> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one call pass all its gates, or none of them, if what is known and in hand is enough to say.
    pub(crate) fn pass(self: &Arc<Self>, passing: Passing) -> Answer {
        // Who is let go was so by another's word, of which this worker may not have heard yet.
        if passing.let_go && !passing.gates.is_empty() {
            return Answer::Ask(passing);
        }
        match self.try_pass(&passing, false) {
            Tried::Pass(permit) => Answer::Pass(permit),
            Tried::Wait(barrier) => Answer::Wait(barrier),
            Tried::Short(_) => Answer::Ask(passing),
        }
    }

    /// The same for a call that the keeper has just looked for: what is not there now is waited for.
    fn pass_asked(self: &Arc<Self>, passing: &Passing) -> Result<Permit, Barrier> {
        match self.try_pass(passing, true) {
            Tried::Pass(permit) => Ok(permit),
            Tried::Wait(barrier) | Tried::Short(barrier) => Err(barrier),
        }
    }

    /// `is_fresh` says that the keeper has looked for this very call: what it took is good however long that needed.
    fn try_pass(self: &Arc<Self>, passing: &Passing, is_fresh: bool) -> Tried {
        let now = self.env.now();
        let mut hands = self.hands();
        let mut short = None;
        for gate in &passing.gates {
            let hand = hands.entry(gate.key.clone()).or_default();
            hand.used_at = now;
            if !gate.rule.is_plain() {
                hand.rule = gate.rule.clone().paced(|wait| self.env.paced(wait));
            }
            let barrier = |detail: String, until: Option<Timestamp>| {
                let (gate, detail) = (gate.key.clone(), format!("gate {} {detail}", gate.key));
                Barrier { gate, detail, until: until.unwrap_or(now) }
            };
            match hand.look(passing, now, is_fresh) {
                Look::Clear => {}
                Look::Short(detail) => short = short.or(Some(barrier(detail, None))),
                Look::Barred(detail, until) => return Tried::Wait(barrier(detail, until)),
            }
        }
        if let Some(barrier) = short {
            return Tried::Short(barrier);
        }
        let (mut spent, mut until) = (Vec::new(), None);
        for gate in &passing.gates {
            let Some(hand) = hands.get_mut(&gate.key) else { continue };
            if hand.rule.concurrency.is_some() {
                until = [until, Some(hand.permits_until)].into_iter().flatten().min();
            }
            spent.extend(hand.spend(passing, gate));
        }
        let keys = passing.gates.iter().map(|gate| gate.key.clone()).collect();
        Tried::Pass(Permit::new(self.clone(), keys, spent, passing.lane, until))
    }

    /// Asks the keeper for what a call needs that is not in hand. Where that cannot be had, or what holds at a gate
    /// cannot be known, it waits.
    pub(crate) async fn ask(&self, passing: Passing) -> Result<Permit, Barrier> {
        let (reply, answer) = oneshot::channel();
        let gate = passing.gates.first().map(|gate| gate.key.clone()).unwrap_or_default();
        let now = self.env.now();
        for gate in &passing.gates {
            self.hands().entry(gate.key.clone()).or_default().used_at = now;
        }
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { passing, reply });
        self.stir.notify_one();
        let unknown = || Barrier {
            detail: format!("gate {gate} {UNKNOWN}"),
            gate: gate.clone(),
            until: self.env.now(),
        };
        tokio::select! {
            biased;
            // A keeper that is gone, or could not look, has nothing to give.
            answer = answer => answer.unwrap_or_else(|_| Err(unknown())),
            () = self.env.sleep(ASK) => Err(unknown()),
        }
    }

    /// The way of a call that is no step of a saga (a dry run, a census) past its gates: the right to make it, which is
    /// [used up](Permit::call) by it, or why it is not made now. It holds no place in the queue: whoever waits durably
    /// goes first, and it is tried again later.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        gates: &[Gate],
        lane: Lane,
        limit: Duration,
    ) -> Result<Permit, Barrier> {
        let not_after = self.env.now().plus(limit);
        match self.pass(Passing::new(gates, lane, false, not_after)) {
            Answer::Pass(permit) => Ok(permit),
            Answer::Wait(barrier) => Err(barrier),
            Answer::Ask(passing) => self.ask(passing).await,
        }
    }

    fn give_back(&self, spent: &[Spent], lane: Lane, sent: Sent) {
        let mut hands = self.hands();
        let mut stirs = false;
        for Spent { key, has_place } in spent {
            let Some(hand) = hands.get_mut(key) else { continue };
            if hand.rule.concurrency.is_some() {
                hand.under_way = hand.under_way.saturating_sub(1);
                stirs |= !hand.queue.is_empty();
            }
            if *has_place && sent == Sent::No {
                hand.places = hand.places.saturating_add(1);
            }
            if hand.known.is_probed_by(lane) || lane == Lane::Forward && hand.rule.breaker.is_some() {
                match sent {
                    Sent::Told(true) => hand.through = hand.through.saturating_add(1),
                    Sent::Told(false) => hand.failed = hand.failed.saturating_add(1),
                    // Somebody else has to find out.
                    Sent::No | Sent::Untold => {}
                }
                stirs |= hand.has_news();
            }
        }
        drop(hands);
        if stirs {
            self.stir.notify_one();
        }
    }

    /// Closes a gate until then: for this worker at once, and for all as soon as the keeper has written it, or with the
    /// append of whoever says so.
    pub(crate) fn close(&self, key: &str, until: Timestamp, reason: &str) -> Closing {
        // It is read with the gate each second.
        let reason = &limits::kept(reason, REASON_KEPT);
        let mut hands = self.hands();
        let hand = hands.entry(key.to_owned()).or_default();
        if hand.closing.as_ref().is_none_or(|told| told.until < until) {
            hand.used_at = self.env.now();
            hand.closing = Some(Told { until, reason: reason.to_owned() });
            self.stir.notify_one();
        }
        Closing { key: key.to_owned(), until, reason: reason.to_owned() }
    }

    /// Why a gate cannot be moved, if the store refuses that.
    pub(crate) fn refused(&self, key: &str) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Takes note of what moving a gate came to.
    fn note_refused(&self, key: &str, refused: Option<String>) {
        let mut known = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some(error) if known.get(key) == Some(&error) => {}
            Some(error) => {
                tracing::error!(gate = key, error, "a gate cannot be moved, and lets nobody go");
                known.insert(key.to_owned(), error);
            }
            None => drop(known.remove(key)),
        }
    }

    /// Tells the keeper that somebody has begun to wait.
    pub(crate) fn stir(&self) {
        self.stir.notify_one();
    }
}

/// Why a gate is not passed whose state could not be looked at.
const UNKNOWN: &str = "is not known: its state could not be read";

/// What all gates of a call say.
enum Tried {
    Pass(Permit),
    /// Not enough is in hand, or known; and where it waits if there is no more to be had.
    Short(Barrier),
    Wait(Barrier),
}

/// What one gate says.
enum Look {
    Clear,
    Short(String),
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

    /// Whether what is known of it is good enough to pass by. What was never looked at, or not for a while, may have
    /// been closed by another.
    fn is_known(&self, now: Timestamp) -> bool {
        self.known_at.is_some_and(|at| now.since(at) < KNOWN)
    }

    fn look(&self, passing: &Passing, now: Timestamp, is_fresh: bool) -> Look {
        let (lane, let_go) = (passing.lane, passing.let_go);
        let is_known = self.is_known(now) || is_fresh && self.known_at.is_some();
        if !is_known {
            return Look::Short(UNKNOWN.to_owned());
        }
        let before = self.queue.waiting().saturating_add(self.queue.granted);
        if let Some((reason, until)) = self.closed(lane, now) {
            let until_text = until.map_or_else(|| "it is opened".to_owned(), |until| until.to_string());
            let detail = format!("is closed until {until_text}: {reason}; {before} wait before it");
            return Look::Barred(detail, until);
        }
        if !let_go && !self.queue.is_empty() {
            return Look::Barred(format!("lets others go first; {before} wait before it"), None);
        }
        let full = || Look::Short(format!("is full; {before} wait before it"));
        if self.is_probed(lane, now) && !let_go && self.places == 0 {
            return full();
        }
        let ends_early =
            if is_fresh { self.permits_until <= now } else { self.permits_until < passing.not_after };
        let no_permit = self.rule.concurrency.is_some() && (self.under_way >= self.permits || ends_early);
        let is_late = !is_fresh && self.tokens_until < now;
        let no_token = self.rule.bucket.is_some() && (self.tokens == 0 || is_late);
        if no_permit || no_token { full() } else { Look::Clear }
    }

    /// Takes what one call needs out of the hand; says what is to be given back.
    fn spend(&mut self, passing: &Passing, gate: &Gate) -> Option<Spent> {
        let is_probed = self.known.is_probed_by(passing.lane);
        let has_place = is_probed && !passing.let_go;
        if has_place {
            self.places = self.places.saturating_sub(1);
        }
        if self.rule.bucket.is_some() {
            self.tokens = self.tokens.saturating_sub(1);
        }
        if self.rule.concurrency.is_some() {
            self.under_way = self.under_way.saturating_add(1);
        }
        let is_told = is_probed || self.rule.concurrency.is_some() || self.rule.breaker.is_some();
        is_told.then(|| Spent { key: gate.key.clone(), has_place })
    }

    /// Whether the database should hear of what calls came to.
    fn has_news(&self) -> bool {
        let is_probed = self.known.probe.is_some();
        let tells_failure = self.failed > 0 && (is_probed || self.rule.breaker.is_some());
        let tells_success = self.through > 0 && (is_probed || self.known.failures > 0);
        tells_failure || tells_success
    }

    /// Takes tokens and places in hand; what permits it has is in the gate's own state.
    fn receive(&mut self, taken: Taken, now: Timestamp) {
        if taken.permits > 0 {
            self.received_at = now;
        }
        if self.tokens_until < now {
            self.tokens = 0;
        }
        if taken.tokens > 0 {
            // Those that may not be held are for whoever asked for them.
            let kept = self.rule.bucket.as_ref().map_or(Duration::ZERO, hold);
            self.tokens = self.tokens.saturating_add(taken.tokens);
            self.tokens_until = now.plus(kept);
        }
        self.places = self.places.saturating_add(taken.places);
    }
}

/// The gates of several calls, each key once.
fn keys(asked: &[Asked]) -> HashSet<String> {
    asked.iter().flat_map(|asked| asked.passing.gates.iter().map(|gate| gate.key.clone())).collect()
}
