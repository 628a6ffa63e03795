//! The keeper: the one task of a worker that moves gates in the database, for all its calls at a time.
//!
//! It takes what calls ask for, tells what they came to, gives back what is idle, and lets go those who wait when
//! there is room. Every worker's keeper does that for every gate: whoever moves the row first has done it, the
//! others look again. What it lets go it tells by letters in the same transaction, so that a crash leaves either
//! somebody who waits or somebody who has a letter; and who had one and never came waits again after a while.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::{Asked, FETCH, Gates, Hand, IN_USE, Times, Why, keys};
use crate::env::Timestamp;
use crate::gate::{GateAct, GateState, GateWait, Lane, Queue, Taken};
use crate::store::{Error, GateMove, GateRow, Letter, Message};
use crate::worker::Shared;

/// How often gates that are in use are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// And those that are not, of which another worker may have left somebody waiting.
const LOOK_IDLE: Duration = Duration::from_secs(5);
/// What is said when gates cannot be looked at: nobody passes one of which nothing is known, or is let go.
const UNSEEN: &str = "the gates cannot be looked at";
/// How often a move is tried anew when others were faster.
const TRIES: usize = 8;

/// Keeps the gates until the worker ends.
pub(in crate::worker) async fn keep(shared: Arc<Shared>) {
    let mut wait = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            () = shared.gates.stir.notified() => {}
            () = shared.env.sleep(wait) => {}
        }
        wait = match look(&shared).await {
            Ok(wait) => {
                shared.trouble.went_well(UNSEEN);
                wait
            }
            Err(error) => {
                shared.trouble.failed(UNSEEN, error.to_string(), &shared.env);
                LOOK
            }
        };
    }
}

/// Gives back all that this worker has in hand.
pub(in crate::worker) async fn give_back_all(shared: &Shared) {
    shared.gates.hands().values_mut().for_each(|hand| {
        hand.under_way = 0;
        hand.used_at = Timestamp(0);
    });
    if let Err(error) = look(shared).await {
        tracing::debug!(%error, "permits were not given back, and end by themselves");
    }
}

/// A person opens or closes a gate.
pub(crate) async fn act(shared: &Shared, key: &str, act: GateAct) -> Result<(), Error> {
    for _ in 0..TRIES {
        let row = read(shared).await?.remove(key).unwrap_or_default();
        let mut state = row.settled(act.at, &shared.times());
        state.act(act.clone());
        let (let_go, letters) = (Vec::new(), Vec::new());
        let moved = GateMove {
            key: key.to_owned(),
            seen: row.rev,
            state: state.clone(),
            let_go,
            letters,
            at: act.at,
        };
        if shared.store.move_gate(moved).await? {
            // In this process it holds from here on; others know of it when they next look.
            shared.gates.acted(key, row.rev + 1, state);
            shared.gates.stir.notify_one();
            return Ok(());
        }
    }
    Err(Error::Unavailable(format!("gate {key} is moved by others all the time")))
}

async fn read(shared: &Shared) -> Result<HashMap<String, GateRow>, Error> {
    let granted_since = shared.granted_since();
    let rows = shared.store.gates(granted_since).await?;
    Ok(rows.into_iter().map(|row| (row.key.clone(), row)).collect())
}

/// Looks at every gate once; how long until the next time.
pub(in crate::worker) async fn look(shared: &Shared) -> Result<Duration, Error> {
    let gates = &shared.gates;
    let asked = std::mem::take(&mut *gates.asked.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let read_at = shared.env.now();
    let mut rows = read(shared).await?;
    let mut all: BTreeSet<String> = keys(&asked).into_iter().chain(rows.keys().cloned()).collect();
    all.extend(gates.hands().keys().cloned());
    let now = shared.env.now();
    let mut next: Option<Timestamp> = None;
    let mut is_in_use = false;
    for key in all {
        let row = rows.remove(&key).unwrap_or_else(|| GateRow { key: key.clone(), ..GateRow::default() });
        is_in_use |= !row.queue.is_empty() || gates.is_in_use(&key, now);
        let look = match move_one(shared, row, read_at, &asked).await {
            // It is this gate's trouble alone, and is said with it; who waits there goes on once it can be moved.
            Err(error) if error.is_permanent() => {
                gates.note_refused(&key, Some(error.to_string()));
                None
            }
            other => {
                let look = other?;
                gates.note_refused(&key, None);
                look
            }
        };
        // What is due already and was not enough is waited for together with something else.
        next = [next, look.filter(|at| *at > now)].into_iter().flatten().min();
    }
    // Those that were let go come first: what was taken for them was kept for them.
    let mut asked = asked;
    asked.sort_by_key(|asked| (!asked.passing.let_go, asked.passing.lane == Lane::Forward));
    for Asked { passing, reply } in asked {
        // Whoever has stopped waiting gives back what it does not need.
        let _ = reply.send(gates.pass_asked(&passing));
    }
    gates.forget_idle(now);
    let longest = if is_in_use { LOOK } else { LOOK_IDLE };
    let now = shared.env.now();
    Ok(next.map_or(longest, |next| next.since(now).clamp(Duration::from_millis(1), longest)))
}

/// Moves one gate as far as there is reason to; when it is next to be looked at.
async fn move_one(
    shared: &Shared,
    mut row: GateRow,
    mut read_at: Timestamp,
    asked: &[Asked],
) -> Result<Option<Timestamp>, Error> {
    for _ in 0..TRIES {
        let now = shared.env.now();
        let mut state = row.settled(now, &shared.times());
        let before = GateState { tokens: state.tokens, ..row.state.clone() };
        let news = shared.gates.prepare(&row, &mut state, now, &shared.times());
        let until = now.plus(shared.times().block);
        let taken = take(&mut state, shared.gates.worker(), &row, asked, until);
        let (forward, undo) = state.release(&row.queue);
        let lets_go = forward > 0 || undo > 0;
        let is_moved = lets_go || state != before || row.closing.is_some() || taken != Taken::default();
        if !is_moved {
            let seen = Read { rev: row.rev, at: read_at };
            shared.gates.learn(&row.key, seen, state.clone(), row.queue, taken, news);
            return Ok(shared.gates.next_look(&row.key, &state, &row.queue));
        }
        let let_go = next_in_line(shared, &row, forward, undo).await?;
        let letters = let_go.iter().map(|wait| letter(&row, wait, now)).collect();
        let sagas: Vec<_> = let_go.iter().map(|wait| wait.saga.clone()).collect();
        let queue = after(row.queue, &let_go);
        let moved =
            GateMove { key: row.key.clone(), seen: row.rev, state: state.clone(), let_go, letters, at: now };
        if shared.store.move_gate(moved).await? {
            sagas.iter().for_each(|saga| shared.poke(saga));
            let seen = Read { rev: row.rev + 1, at: now };
            shared.gates.learn(&row.key, seen, state.clone(), queue, taken, news);
            return Ok(shared.gates.next_look(&row.key, &state, &queue));
        }
        let key = row.key;
        read_at = shared.env.now();
        row = read(shared).await?.remove(&key).unwrap_or_else(|| GateRow { key, ..GateRow::default() });
    }
    // Others are at it; it is looked at again soon.
    shared.gates.stir();
    Ok(None)
}

fn take(state: &mut GateState, worker: &str, row: &GateRow, asked: &[Asked], until: Timestamp) -> Taken {
    let mut all = Taken::default();
    // Those that were let go come first: what they take was kept for them.
    for (lane, let_go) in
        [(Lane::Undo, true), (Lane::Forward, true), (Lane::Undo, false), (Lane::Forward, false)]
    {
        let concerns = |Asked { passing, .. }: &&Asked| {
            let asks = passing.gates.iter().any(|gate| gate.key == row.key);
            passing.lane == lane && passing.let_go == let_go && asks
        };
        let want = u32::try_from(asked.iter().filter(concerns).count()).unwrap_or(u32::MAX);
        let taken = state.take(worker, lane, want, let_go, &row.queue, until);
        all.permits = all.permits.saturating_add(taken.permits);
        all.tokens = all.tokens.saturating_add(taken.tokens);
        all.places = all.places.saturating_add(taken.places);
    }
    all
}

async fn next_in_line(
    shared: &Shared,
    row: &GateRow,
    forward: u32,
    undo: u32,
) -> Result<Vec<GateWait>, Error> {
    let mut all = Vec::new();
    for (lane, count) in [(Lane::Undo, undo), (Lane::Forward, forward)] {
        if count > 0 {
            let granted_since = shared.granted_since();
            all.extend(shared.store.gate_queue(&row.key, lane, granted_since, count).await?);
        }
    }
    Ok(all)
}

/// A letter of its own for each time a step is let go.
fn letter(row: &GateRow, wait: &GateWait, at: Timestamp) -> Letter {
    Letter {
        id: format!("gate:{}:{}:{}:{}", row.key, row.rev, wait.saga, wait.step),
        saga: wait.saga.clone(),
        message: Message::LetGo { gate: row.key.clone(), step: wait.step.clone() },
        at,
    }
}

fn after(queue: Queue, let_go: &[GateWait]) -> Queue {
    let of = |lane| u32::try_from(let_go.iter().filter(|wait| wait.lane == lane).count()).unwrap_or(u32::MAX);
    let (forward, undo) = (of(Lane::Forward), of(Lane::Undo));
    Queue {
        forward: queue.forward.saturating_sub(forward),
        undo: queue.undo.saturating_sub(undo),
        granted: queue.granted.saturating_add(forward).saturating_add(undo),
    }
}

/// Which state of a gate was read or written, and when.
#[derive(Debug, Clone, Copy)]
struct Read {
    rev: i64,
    at: Timestamp,
}

/// Outcomes that a move tells of.
#[derive(Debug, Clone, Copy, Default)]
struct News {
    through: u32,
    failed: u32,
}

impl Gates {
    /// Tells the gate what this worker knows: its rule, what calls came to, and what it keeps in hand.
    fn prepare(&self, row: &GateRow, state: &mut GateState, now: Timestamp, times: &Times) -> News {
        let mut hands = self.hands();
        let Some(hand) = hands.get_mut(&row.key) else {
            // What stands there in this worker's name is not known here.
            state.keep(self.worker(), 0, now);
            return News::default();
        };
        if !hand.rule.is_plain() && hand.is_in_use(now) {
            state.rule = hand.rule.clone();
            state.tick(&row.queue, now, times);
        }
        if hand.has_news() {
            state.report(hand.through, hand.failed, now, times);
        }
        // Who was told has no entry to write of it, or not yet.
        if let Some(told) = hand.closing.as_ref().filter(|told| told.until > now) {
            state.close(Why::Provider, Some(told.until), &told.reason, now);
        }
        let is_fetched = now.since(hand.received_at) >= FETCH;
        let is_idle = is_fetched && (!hand.is_in_use(now) || !row.queue.is_empty());
        let kept = if is_idle { hand.under_way } else { hand.permits };
        // What is given back is not used any more while that is written.
        hand.permits = hand.permits.min(kept);
        let block = times.block;
        let fresh = hand.permits_until.since(now) > block.saturating_mul(7) / 8;
        let until = if fresh { hand.permits_until } else { now.plus(block) };
        state.keep(self.worker(), kept, until);
        // What happened to be counted while there was nothing to tell is not told later.
        News { through: hand.through, failed: hand.failed }
    }

    /// Takes in what the gate is now.
    fn learn(&self, key: &str, seen: Read, state: GateState, queue: Queue, taken: Taken, news: News) {
        let now = self.env.now();
        let mut hands = self.hands();
        let is_of_interest = !queue.is_empty() || state.closed.is_some() || state.probe.is_some();
        if !is_of_interest && !hands.contains_key(key) {
            return;
        }
        let hand = hands.entry(key.to_owned()).or_default();
        // What was read before a person in this process acted on it is older than what is known.
        if seen.rev < hand.rev {
            return;
        }
        if hand.rule.is_plain() {
            hand.rule = state.rule.clone();
        }
        hand.through = hand.through.saturating_sub(news.through);
        hand.failed = hand.failed.saturating_sub(news.failed);
        hand.receive(taken, now);
        if state.probe != hand.known.probe && taken.places == 0 && state.probe.is_none() {
            hand.places = 0;
        }
        let share = state.shares.get(self.worker());
        hand.permits = share.map_or(0, |share| share.permits);
        hand.permits_until = share.map_or(Timestamp(0), |share| share.until);
        hand.queue = queue;
        let is_written = |until: Timestamp| {
            state.closed.as_ref().is_some_and(|closed| closed.until.is_none_or(|at| at >= until))
        };
        if hand.closing.as_ref().is_some_and(|told| is_written(told.until) || told.until <= now) {
            hand.closing = None;
        }
        (hand.known, hand.rev, hand.known_at) = (state, seen.rev, Some(seen.at));
    }

    /// When the gate changes by itself, or permits that nobody fetched are to be given to those who wait.
    fn next_look(&self, key: &str, state: &GateState, queue: &Queue) -> Option<Timestamp> {
        let hands = self.hands();
        let unfetched = hands.get(key).filter(|hand| !queue.is_empty() && hand.permits > hand.under_way);
        let fetched = unfetched.map(|hand| hand.received_at.plus(FETCH));
        [state.next_look(queue, &Times::of(&self.env)), fetched].into_iter().flatten().min()
    }

    fn is_in_use(&self, key: &str, now: Timestamp) -> bool {
        self.hands().get(key).is_some_and(|hand| hand.is_in_use(now))
    }

    /// What is not used, and holds nothing, is not kept in mind.
    fn forget_idle(&self, now: Timestamp) {
        self.hands().retain(|_, hand| hand.is_in_use(now) || hand.permits > 0 || !hand.queue.is_empty());
    }

    /// A person has closed or opened it, so that what a provider said before counts no more.
    fn acted(&self, key: &str, rev: i64, state: GateState) {
        let mut hands = self.hands();
        let hand = hands.entry(key.to_owned()).or_default();
        hand.closing = None;
        // Who waits before one that was opened is not known: it is looked at first.
        hand.known_at = state.closed.is_some().then(|| self.env.now());
        (hand.known, hand.rev) = (state, rev);
    }
}

impl Hand {
    fn is_in_use(&self, now: Timestamp) -> bool {
        self.under_way > 0 || self.closing.is_some() || now.since(self.used_at) < IN_USE
    }
}

impl Shared {
    fn times(&self) -> Times {
        Times::of(&self.env)
    }

    /// Who was let go before this and has not come waits again.
    pub(crate) fn granted_since(&self) -> Timestamp {
        let micros = i64::try_from(self.times().grant.as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.env.now().0.saturating_sub(micros))
    }
}
