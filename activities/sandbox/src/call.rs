//! Call: what a call lives through from its arrival to what its caller sees, and what goes wrong on the way.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fault::{Kind, Provider, Spoiled};
use crate::request::{Answer, Request};
use crate::server::act;
use crate::world::{LateCall, World};
use crate::{Shared, agentmail, clock, happening, lists, openrouter, railway, refusal, telnyx};

/// What the caller sees of a call.
pub(crate) enum Ending {
    Answer(Answer),
    Spoiled(Answer, Spoiled),
    Hang,
    Drop,
}

/// Lives through one call, with what goes wrong with it.
pub(crate) async fn answer(
    shared: Arc<Shared>,
    provider: Provider,
    operation: &'static str,
    request: Request,
) -> Ending {
    let latency = {
        let mut world = shared.world();
        *world.calls.entry(format!("{provider}.{operation}")).or_default() += 1;
        name(&mut world, provider, &request);
        let latency = world.faults.take(provider, operation, Kind::Latency);
        latency
            .and_then(|fault| fault.ms)
            .map(|ms| (world.clock.clone(), world.later(Duration::from_millis(ms))))
    };
    if let Some((clock, until)) = latency {
        clock.sleep_until(until).await;
    }
    let mut world = shared.world();
    name(&mut world, provider, &request);
    let was_late = world.late.len();
    let ending = live(&mut world, provider, operation, &request);
    if let Some(late) = world.late.get(was_late) {
        // It lands when somebody looks, and at its time if nobody does.
        let (clock, at, shared) = (world.clock.clone(), late.at, shared.clone());
        tokio::spawn(async move {
            clock.sleep_until(at).await;
            drop(shared.world());
        });
    }
    // A read changes nothing; what it would keep is kept already.
    if request.method != "GET" && request.method != "HEAD" {
        shared.keep(&world);
    }
    ending
}

/// Says which things this call is about, for the faults that are about one of them.
fn name(world: &mut World, provider: Provider, request: &Request) {
    if !world.faults.ask_for_names() {
        return;
    }
    let mut named = request.named();
    named.extend(credential(provider, request).map(str::to_owned));
    world.faults.begin(named);
}

/// What faults call the credential of a call.
fn credential(provider: Provider, request: &Request) -> Option<&'static str> {
    let shown = request.bearer();
    let is = |known: &str, name| (shown == Some(known)).then_some(name);
    match provider {
        Provider::Railway => {
            let index = railway::TOKENS.iter().position(|(_, token)| shown == Some(*token))?;
            railway::TOKEN_NAMES.get(index).copied()
        }
        Provider::Openrouter => is(openrouter::MANAGEMENT_KEY, "openrouter"),
        Provider::Agentmail => is(agentmail::KEY, "agentmail"),
        Provider::Telnyx => is(telnyx::KEY, "telnyx"),
        Provider::Ghcr | Provider::Runtime => None,
    }
}

/// One call, from its arrival to what its caller sees.
fn live(world: &mut World, provider: Provider, operation: &'static str, request: &Request) -> Ending {
    happen(world, provider, operation, request, false);
    if let Some(ending) = before(world, provider, operation, request) {
        return ending;
    }
    let first_page = lists::first_page(world, provider, operation, request);
    let mut answer = act(world, provider, operation, first_page.as_ref().unwrap_or(request));
    happen(world, provider, operation, request, true);
    lists::spoil(world, provider, operation, request, first_page.is_some(), &mut answer);
    after(world, provider, operation, answer)
}

/// What changes behind our back at this call.
fn happen(world: &mut World, provider: Provider, operation: &'static str, request: &Request, acted: bool) {
    for kind in happening::KINDS {
        let Some(fault) = world.faults.take_at(provider, operation, kind, acted) else { continue };
        let called = (provider == Provider::Runtime).then(|| request.path.first().cloned()).flatten();
        if let Err(problem) = happening::happen(world, &fault, called.as_deref()) {
            tracing::warn!(%kind, problem, "a fault had nothing to happen to");
        }
    }
}

/// How the call ends before it has done anything, if it does.
fn before(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
) -> Option<Ending> {
    if let Some(limited) = quota(world, provider, operation, request) {
        return Some(Ending::Answer(limited));
    }
    let mut take = |kind| world.faults.take(provider, operation, kind);
    if take(Kind::Unauthorized).is_some() {
        return Some(Ending::Answer(refusal::unauthorized(provider)));
    }
    if let Some(fault) = take(Kind::RateLimited) {
        let answer = refusal::too_many(provider);
        return Some(Ending::Answer(match fault.retry_after {
            Some(seconds) => answer.with("retry-after", seconds.to_string()),
            None => answer,
        }));
    }
    if take(Kind::ErrorBefore).is_some() {
        return Some(Ending::Answer(refusal::broken(provider)));
    }
    if take(Kind::ThrottleText).is_some() {
        return Some(Ending::Answer(match provider {
            Provider::Railway => railway::throttle(operation),
            _ => refusal::too_many(provider),
        }));
    }
    if take(Kind::Refuse).is_some() {
        return Some(Ending::Answer(refusal::refuse(provider, operation)));
    }
    if take(Kind::LoseRequest).is_some() {
        return Some(Ending::Drop);
    }
    if let Some(fault) = take(Kind::CommitLate) {
        let most = fault.seconds.unwrap_or(1.0);
        let least = fault.from_seconds.unwrap_or(most / 2.0);
        let wait = least + (most - least) * world.dice.unit();
        let at = world.in_seconds(wait);
        world.late.push(LateCall { at, provider, operation, request: request.clone() });
        return Some(match fault.preset {
            Some(preset) => Ending::Spoiled(nothing_done(), preset.answer()),
            None => Ending::Drop,
        });
    }
    if world.faults.take_at(provider, operation, Kind::Hang, false).is_some() {
        return Some(Ending::Hang);
    }
    let spoiled = world.faults.take_at(provider, operation, Kind::Spoil, false)?;
    Some(Ending::Spoiled(nothing_done(), spoiled.answered()))
}

/// What a proxy spoils when the provider has said nothing yet.
fn nothing_done() -> Answer {
    Answer::json(200, json!({"data": null, "message": "the call has done nothing"}))
}

/// What becomes of the answer.
fn after(world: &mut World, provider: Provider, operation: &'static str, mut answer: Answer) -> Ending {
    let not_found = answer.body.as_mut().and_then(|body| body.pointer_mut("/errors/0/message"));
    if let Some(message) =
        not_found.filter(|message| message.as_str().is_some_and(|text| text.ends_with(" not found")))
        && let Some(text) =
            world.faults.take(provider, operation, Kind::GoneText).and_then(|fault| fault.text)
    {
        *message = Value::String(text);
    }
    if world.faults.take(provider, operation, Kind::LoseAnswer).is_some() {
        return Ending::Drop;
    }
    if world.faults.take(provider, operation, Kind::ErrorAfter).is_some() {
        return Ending::Answer(refusal::broken(provider));
    }
    if world.faults.take_at(provider, operation, Kind::Hang, true).is_some() {
        return Ending::Hang;
    }
    match world.faults.take_at(provider, operation, Kind::Spoil, true) {
        Some(spoiled) => Ending::Spoiled(answer, spoiled.answered()),
        None => Ending::Answer(answer),
    }
}

/// Counts the call against the quotas of its credential; the answer, if one is used up.
fn quota(
    world: &mut World,
    provider: Provider,
    operation: &'static str,
    request: &Request,
) -> Option<Answer> {
    let now = world.now();
    for (index, fault) in world.faults.quotas(provider, operation) {
        let (calls, seconds) = (fault.calls.unwrap_or(0), fault.seconds.unwrap_or(1.0));
        let credential = credential(provider, request).unwrap_or("none").to_owned();
        let used = world.quotas.entry((index, credential)).or_insert((now, 0));
        let window = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        if now >= clock::after(used.0, window) {
            *used = (now, 0);
        }
        if used.1 >= calls {
            let left = clock::after(used.0, window).duration_since(now).as_secs_f64().ceil();
            world.faults.note(provider, operation, Kind::Quota);
            let answer = refusal::too_many(provider)
                .with("retry-after", format!("{left:.0}"))
                .with("x-ratelimit-limit", calls.to_string())
                .with("x-ratelimit-remaining", "0")
                .with("x-ratelimit-reset", format!("{left:.0}"));
            return Some(answer);
        }
        used.1 += 1;
    }
    None
}
