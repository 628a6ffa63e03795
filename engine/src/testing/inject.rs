//! Faults put between the engine and a saga's activities, so that fakes need not know of any.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use crate::activity::registry::{ActivityFacts, AnyActivity, AnyLocal, Passage, Taken, Yield};
use crate::activity::{Call, Cause, Effect, Failure, Found, Registry, secs};
use crate::data::Resolved;
use crate::env::{Env, Timestamp};
use crate::ids::{SagaId, StepKey};
use crate::journal::event::{LocalRule, closed_set};
use crate::store::tx::Tx;
use crate::worker::gates::Leave;

closed_set! {
    /// What is asked of an activity.
    Verb {
        /// Do it.
        Execute,
        /// Look whether it is there.
        Find,
        /// Take it back.
        Compensate,
        /// Do it in our own database.
        Apply,
        /// Take it back there.
        Revert,
    }
}

closed_set! {
    /// What goes wrong with one call.
    Fault {
        /// It did not happen and will not.
        Refused,
        /// It did not happen, but may later.
        Unavailable,
        /// It did not happen, and nobody knows.
        LostBefore,
        /// It happened, and nobody knows.
        LostAfter,
        /// It has not happened, nobody knows, and then it does.
        CommitsLate,
        /// As that, at the last moment at which it may.
        LandsLast,
        /// It arrives twice.
        Twice,
        /// It did not happen: there were too many, and the other side says when to come back.
        RateLimited,
        /// It happened, and whoever called it fell over.
        Panics,
        /// It happens long after everybody has given it up, and after it was looked for: only a sweep finds it.
        Straggles,
    }
}

/// One call: which verb, of which step, for the how-manyth time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    /// Which verb.
    pub verb: Verb,
    /// Of which step.
    pub step: StepKey,
    /// 1 for the first.
    pub nth: usize,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Which.
    pub point: Point,
    /// What sending it twice would do.
    pub effect: Effect,
    /// Whether it makes something outside.
    pub makes: bool,
}

/// How likely each call is to go wrong, in thousandths; for simulations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// It is refused.
    pub refused: u64,
    /// It is unavailable.
    pub unavailable: u64,
    /// Its answer is lost, before or after it happened, or it happens late.
    pub lost: u64,
    /// It arrives twice, where that is allowed.
    pub twice: u64,
    /// There are too many; so are the next calls then.
    pub limited: u64,
    /// It falls over behind its effect.
    pub panics: u64,
    /// It happens when nobody looks any more, where that leaves a thing behind.
    pub straggles: u64,
    /// The longest a call takes.
    pub latency: Duration,
}

#[derive(Default)]
struct Inner {
    planned: HashMap<Point, Fault>,
    rates: Rates,
    counts: HashMap<(Verb, StepKey, String), usize>,
    seen: Vec<Seen>,
    fired: Vec<(Point, Fault)>,
    /// What each step's generation made, as its provider would have answered.
    made: HashMap<(String, StepKey, u32), Value>,
    /// The steps of which a call may land when nobody looks for it any more.
    strays: HashSet<(String, StepKey)>,
    /// Until when everything is rate limited.
    limited_until: Option<Timestamp>,
}

/// What goes wrong in one world, and what was called there.
#[derive(Clone)]
pub struct Injector {
    env: Env,
    inner: Arc<Mutex<Inner>>,
}

impl Injector {
    /// Nothing goes wrong.
    pub fn new(env: Env) -> Self {
        Self { env, inner: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This goes wrong with this call.
    pub fn plan(&self, point: Point, fault: Fault) {
        self.inner().planned.insert(point, fault);
    }

    /// Calls go wrong this often from now on.
    pub fn set_rates(&self, rates: Rates) {
        self.inner().rates = rates;
    }

    /// The calls that were made, in order.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner().seen.clone()
    }

    /// What went wrong, in order.
    pub fn fired(&self) -> Vec<(Point, Fault)> {
        self.inner().fired.clone()
    }

    /// What a step did, whether or not anybody learnt of it.
    pub fn made(&self, saga: &SagaId, step: &StepKey, generation: u32) -> Option<Value> {
        self.inner().made.get(&(saga.to_string(), step.clone(), generation)).cloned()
    }

    /// Whether a call of this step lands, or landed, when nobody looks for it any more.
    pub fn strays(&self, saga: &str, step: &StepKey) -> bool {
        self.inner().strays.contains(&(saga.to_owned(), step.clone()))
    }

    /// Puts itself around every activity.
    pub fn around(&self, registry: Registry) -> Registry {
        registry.around(
            |inner| Arc::new(Around { inner, injector: self.clone() }),
            |inner| Arc::new(Around { inner, injector: self.clone() }),
        )
    }

    /// Notes a call, lets its latency pass, and says what goes wrong with it.
    async fn meet(
        &self,
        verb: Verb,
        step: &StepKey,
        saga: &str,
        effect: Effect,
        makes: bool,
    ) -> Option<Fault> {
        let (fault, latency) = {
            let mut inner = self.inner();
            let count = inner.counts.entry((verb, step.clone(), saga.to_owned())).or_default();
            *count += 1;
            let point = Point { verb, step: step.clone(), nth: *count };
            inner.seen.push(Seen { point: point.clone(), effect, makes });
            let planned = inner.planned.get(&point).copied();
            let may = |fault: &Fault| match fault {
                Fault::Straggles => may_straggle(verb, effect, makes),
                fault => fits(*fault, verb, effect),
            };
            let planned = planned.filter(may);
            let limited = inner.limited_until.is_some_and(|until| until > self.env.now());
            let burst = (limited && inner.rates.limited > 0).then_some(Fault::RateLimited);
            let fault = planned.or_else(|| burst.or_else(|| self.roll(&inner.rates, verb)).filter(may));
            if fault == Some(Fault::RateLimited) && !limited {
                inner.limited_until = Some(self.env.now().plus(BURST));
            }
            if fault == Some(Fault::Straggles) {
                inner.strays.insert((saga.to_owned(), step.clone()));
            }
            if let Some(fault) = fault {
                inner.fired.push((point, fault));
            }
            (fault, inner.rates.latency)
        };
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        // A transaction of our own is not a call over a line.
        if micros > 0 && !matches!(verb, Verb::Apply | Verb::Revert) {
            self.env.sleep(Duration::from_micros(self.env.below(micros))).await;
        }
        fault
    }

    fn roll(&self, rates: &Rates, verb: Verb) -> Option<Fault> {
        let dice = self.env.below(1000);
        let (refused, unavailable, lost) = (
            rates.refused,
            rates.refused + rates.unavailable,
            rates.refused + rates.unavailable + rates.lost,
        );
        if dice < refused {
            // What refuses to be taken back would do so for ever; that it does is tried by itself.
            matches!(verb, Verb::Execute | Verb::Apply).then_some(Fault::Refused)
        } else if dice < unavailable {
            Some(Fault::Unavailable)
        } else if dice < lost {
            Some(match self.env.below(4) {
                0 => Fault::LostBefore,
                1 => Fault::LostAfter,
                2 => Fault::LandsLast,
                _ => Fault::CommitsLate,
            })
        } else {
            let kinds = [
                (rates.twice, Fault::Twice),
                (rates.limited, Fault::RateLimited),
                (rates.panics, Fault::Panics),
                (rates.straggles, Fault::Straggles),
            ];
            let mut bound = lost;
            kinds.into_iter().find_map(|(rate, fault)| {
                bound += rate;
                (dice < bound).then_some(fault)
            })
        }
    }
}

/// Whether such a fault can happen to such a call at all.
pub(crate) fn fits(fault: Fault, verb: Verb, effect: Effect) -> bool {
    match (verb, fault) {
        (Verb::Apply | Verb::Revert, Fault::Refused | Fault::Unavailable) => true,
        (Verb::Apply | Verb::Revert, _) | (_, Fault::Straggles) => false,
        (Verb::Find, Fault::CommitsLate | Fault::LandsLast) => false,
        // Only what is declared repeatable is ever sent twice.
        (Verb::Execute, Fault::Twice) => effect.is_sent_again(),
        _ => true,
    }
}

/// Whether such a call can land when nobody looks for it any more, and leave a thing for the sweep.
///
/// What cannot be looked for is sent again on a person's word, who has seen nothing: a call that lands behind that is
/// a second one, and nothing in the engine could tell.
pub(crate) fn may_straggle(verb: Verb, effect: Effect, makes: bool) -> bool {
    verb == Verb::Execute && makes && !effect.is_sent_again() && effect != Effect::Blind
}

/// How much later than all that is waited for a call lands that nobody looks for any more, at most.
const STRAGGLES: Duration = secs(120);
/// How long a provider that is called too often wants to be left alone.
const BURST: Duration = secs(20);

fn lost(detail: &str) -> Failure {
    Failure::NoAnswer { cause: Cause::Reset, detail: detail.to_owned() }
}

fn early(fault: Option<Fault>) -> Result<(), Failure> {
    match fault {
        Some(Fault::Refused) => Err(Failure::refused("injected", "refused on purpose")),
        Some(Fault::Unavailable) => Err(Failure::Unavailable {
            cause: Cause::ServerError,
            detail: "unavailable on purpose".to_owned(),
            retry_after: None,
        }),
        Some(Fault::RateLimited) => Err(Failure::Unavailable {
            cause: Cause::RateLimited,
            detail: "too many calls on purpose".to_owned(),
            retry_after: Some(BURST),
        }),
        Some(Fault::LostBefore) => Err(lost("the line broke on purpose")),
        _ => Ok(()),
    }
}

struct Around<T> {
    inner: T,
    injector: Injector,
}

impl Around<Arc<dyn AnyActivity>> {
    async fn pass<T, F>(
        &self,
        verb: Verb,
        input: &Resolved,
        call: &Call,
        send: impl Fn() -> F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let facts = self.inner.facts(input, call)?;
        let makes = facts.resource.is_some();
        let fault = self.injector.meet(verb, call.step(), call.saga().as_str(), facts.effect, makes).await;
        early(fault)?;
        match fault {
            Some(Fault::LostAfter) => {
                send().await?;
                Err(lost("the answer was lost on purpose"))
            }
            Some(Fault::Panics) => {
                send().await?;
                // As a panic, without its noise.
                std::panic::resume_unwind(Box::new("on purpose"))
            }
            Some(fault @ (Fault::CommitsLate | Fault::LandsLast | Fault::Straggles)) => {
                let env = self.injector.env.clone();
                let settle_after = env.paced(facts.settle_after);
                let cut_off =
                    call.not_after.unwrap_or_else(|| env.now().plus(env.time_limit(facts.time_limit)));
                // Half of what the effect states is left for a list that does not show it at once.
                let lands_at = match fault {
                    Fault::CommitsLate => env.now().plus(settle_after / 2),
                    Fault::LandsLast => cut_off.plus(settle_after / 2),
                    _ => cut_off.plus(settle_after + secs(1 + env.below(STRAGGLES.as_secs()))),
                };
                let wait = lands_at.since(env.now());
                let sent = send();
                // Of nobody's any more: it lands even when the process that sent it is gone.
                tokio::spawn(async move {
                    env.sleep(wait).await;
                    let _ = sent.await;
                });
                Err(lost("the line broke on purpose, and the call goes on"))
            }
            Some(Fault::Twice) => {
                send().await?;
                send().await
            }
            _ => send().await,
        }
    }
}

#[async_trait]
impl AnyActivity for Around<Arc<dyn AnyActivity>> {
    fn facts(&self, input: &Resolved, call: &Call) -> Result<ActivityFacts, Failure> {
        self.inner.facts(input, call)
    }

    fn passage(&self, input: &Resolved) -> Result<Passage, Failure> {
        self.inner.passage(input)
    }

    fn external_id(&self, made: &Value) -> Result<Option<String>, Failure> {
        self.inner.external_id(made)
    }

    fn problem_of(&self, made: &Value) -> Option<String> {
        self.inner.problem_of(made)
    }

    async fn execute(&self, input: &Resolved, call: &Call, leave: Leave) -> Result<Yield, Failure> {
        let send = || {
            let (inner, input, call) = (self.inner.clone(), input.clone(), call.clone());
            let injector = self.injector.clone();
            async move {
                let done = inner.execute(&input, &call, leave).await;
                if let Ok(Yield::Kept { value: output, .. }) = &done {
                    let place = (call.saga().to_string(), call.step().clone(), call.generation());
                    injector.inner().made.insert(place, output.clone());
                }
                done
            }
        };
        self.pass(Verb::Execute, input, call, send).await
    }

    async fn find(&self, input: &Resolved, call: &Call, leave: Leave) -> Result<Found<Yield>, Failure> {
        let send = || {
            let (inner, input, call) = (self.inner.clone(), input.clone(), call.clone());
            async move { inner.find(&input, &call, leave).await }
        };
        self.pass(Verb::Find, input, call, send).await
    }

    async fn compensate(
        &self,
        input: &Resolved,
        made: &Taken,
        call: &Call,
        leave: Leave,
    ) -> Result<(), Failure> {
        let send = || {
            let (inner, input, made, call) = (self.inner.clone(), input.clone(), made.clone(), call.clone());
            async move { inner.compensate(&input, &made, &call, leave).await }
        };
        self.pass(Verb::Compensate, input, call, send).await
    }
}

#[async_trait]
impl AnyLocal for Around<Arc<dyn AnyLocal>> {
    fn rule(&self) -> LocalRule {
        self.inner.rule()
    }

    fn give_up_after(&self) -> Duration {
        self.inner.give_up_after()
    }

    fn attempts_max(&self) -> Option<u32> {
        self.inner.attempts_max()
    }

    async fn apply(&self, input: &Resolved, tx: &mut Tx<'_>) -> Result<Value, Failure> {
        let makes = self.rule() == LocalRule::Reverts;
        let fault =
            self.injector.meet(Verb::Apply, tx.step(), tx.saga().as_str(), Effect::Repeatable, makes).await;
        early(fault)?;
        self.inner.apply(input, tx).await
    }

    async fn revert(&self, input: &Resolved, made: &Value, tx: &mut Tx<'_>) -> Result<(), Failure> {
        let fault =
            self.injector.meet(Verb::Revert, tx.step(), tx.saga().as_str(), Effect::Repeatable, true).await;
        early(fault)?;
        self.inner.revert(input, made, tx).await
    }
}
