//! The sweep: every saga of the product, crashed at each of its appends and with every call going wrong in every way.
//!
//! A world is one run of one saga from the start, on a fresh database and a fresh sandbox. Whatever happens to it,
//! it ends whole or leaves nothing, and what the sandbox holds is what the ledger says. `AMENDS_TEST_STRIDE=n` runs
//! every n-th world only; `AMENDS_TEST_NO_FAULTS=1` sets no fault, and then every world of a fault has to fail.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::time::Duration;

use amends_engine::SagaId;
use amends_engine::journal::state::SagaState;
use amends_engine::testing::crash::Crash;
use amends_sandbox::{Fault, Kind, Provider};
use amends_tests::shop::Shop;
use futures::StreamExt;

/// A saga, and whether it is made to fail on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Replenish,
    ReplenishUndone,
    Claim,
    ClaimUndone,
    Teardown,
}

const SUBJECTS: [Subject; 5] =
    [Subject::Replenish, Subject::ReplenishUndone, Subject::Claim, Subject::ClaimUndone, Subject::Teardown];

/// What goes wrong in one world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Crash(Crash),
    Call(Provider, &'static str, Kind),
}

/// How late a lost call may still act: before or after somebody has looked for what it left.
const LATE_SECONDS: f64 = 0.6;
const KINDS: [Kind; 4] = [Kind::Refuse, Kind::LoseAnswer, Kind::LoseRequest, Kind::CommitLate];

impl Subject {
    /// The calls of it that change something outside.
    fn mutations(self) -> &'static [(Provider, &'static str)] {
        match self {
            Self::Replenish => &[
                (Provider::Openrouter, "createKeys"),
                (Provider::Railway, "projectCreate"),
                (Provider::Railway, "serviceCreate"),
                (Provider::Railway, "volumeCreate"),
                (Provider::Railway, "serviceDomainCreate"),
                (Provider::Railway, "environmentPatchCommit"),
            ],
            Self::ReplenishUndone => {
                &[(Provider::Openrouter, "deleteKeys"), (Provider::Railway, "projectDelete")]
            }
            Self::Claim => &[
                (Provider::Agentmail, "createInbox"),
                (Provider::Telnyx, "createNumberOrder"),
                (Provider::Telnyx, "updatePhoneNumber"),
                (Provider::Telnyx, "createMessagingProfile"),
                (Provider::Telnyx, "updateMessagingSettings"),
                (Provider::Runtime, "provision"),
                (Provider::Runtime, "createConversation"),
            ],
            Self::ClaimUndone => &[
                (Provider::Agentmail, "deleteInbox"),
                (Provider::Runtime, "reset"),
                (Provider::Telnyx, "updateMessagingSettings"),
            ],
            Self::Teardown => &[
                (Provider::Openrouter, "deleteKeys"),
                (Provider::Railway, "projectDelete"),
                (Provider::Agentmail, "deleteInbox"),
                (Provider::Telnyx, "updateMessagingSettings"),
            ],
        }
    }

    /// Brings the world to where the saga can begin.
    async fn prepare(self, shop: &mut Shop) {
        if matches!(self, Self::Claim | Self::ClaimUndone | Self::Teardown) {
            let made = shop.replenish("default").await;
            assert_eq!(shop.ended(&made).await.0.state, SagaState::Completed);
        }
        if self == Self::Teardown {
            let claim = shop.claim("tp_demo", "before").await;
            assert_eq!(
                shop.ended(&claim).await.0.state,
                SagaState::Completed,
                "{}",
                shop.story(&claim).await
            );
        }
    }

    async fn begin(self, shop: &Shop) -> SagaId {
        match self {
            Self::Replenish => shop.replenish("default").await,
            Self::ReplenishUndone => {
                let crash = Fault::new(Provider::Railway, "environmentPatchCommit", Kind::DeployCrashes);
                shop.sandbox.set_fault(crash).unwrap();
                shop.replenish("default").await
            }
            Self::Claim => shop.claim("tp_demo", "k").await,
            Self::ClaimUndone => {
                let refuse = Fault::new(Provider::Runtime, "createConversation", Kind::Refuse);
                shop.sandbox.set_fault(refuse).unwrap();
                shop.claim("tp_demo", "k").await
            }
            Self::Teardown => {
                let instance = shop.instances().await.first().unwrap().id.clone();
                shop.teardown(&instance).await
            }
        }
    }

    /// How it ends, given what went wrong.
    fn wanted(self, trouble: Trouble) -> SagaState {
        let is_refused = matches!(trouble, Trouble::Call(_, _, Kind::Refuse));
        match self {
            Self::ReplenishUndone | Self::ClaimUndone => SagaState::Compensated,
            // Past its pivot a refusal is tried again.
            Self::Teardown => SagaState::Completed,
            _ if is_refused => SagaState::Compensated,
            _ => SagaState::Completed,
        }
    }

    fn instance_state(self, ended: SagaState) -> &'static str {
        match (self, ended) {
            (Self::Replenish | Self::ReplenishUndone, SagaState::Completed) => "idle",
            (Self::Replenish | Self::ReplenishUndone, _) => "failed",
            (Self::Claim | Self::ClaimUndone, SagaState::Completed) => "claimed",
            (Self::Claim | Self::ClaimUndone, _) => "idle",
            (Self::Teardown, _) => "gone",
        }
    }
}

fn no_faults() -> bool {
    std::env::var("AMENDS_TEST_NO_FAULTS").is_ok_and(|value| value == "1")
}

/// Lives through one world; answers how many appends the saga took.
async fn live(subject: Subject, trouble: Trouble) -> usize {
    let mut shop = Shop::open().await;
    subject.prepare(&mut shop).await;
    let crash = match trouble {
        Trouble::Crash(crash) if !no_faults() => Some(crash),
        _ => None,
    };
    shop.restart(crash).await;
    if let Trouble::Call(provider, operation, kind) = trouble
        && !no_faults()
    {
        let mut fault = Fault::new(provider, operation, kind).times(1).seconds(LATE_SECONDS);
        // The first one is the assignment; here it is about taking it back.
        fault.skip = u32::from(subject == Subject::ClaimUndone && operation == "updateMessagingSettings");
        shop.sandbox.set_fault(fault).unwrap();
    }
    let saga = subject.begin(&shop).await;
    let (row, mut crashed) = shop.ended(&saga).await;
    // What a claim gave back is rechecked by a saga of its own.
    crashed |= shop.quiet().await;
    let appends = shop.running().store.appends();
    let story = shop.story(&saga).await;
    let what = format!("{subject:?} {trouble:?}\n{story}");
    assert_eq!(row.state, subject.wanted(trouble), "{what}");
    match trouble {
        Trouble::None => {}
        // A run that polls once less has fewer appends, and then the last crashes have no place: nothing is before
        // an append that there is not, and after the last one there is nothing left to be interrupted.
        Trouble::Crash(crash) => {
            let had_its_place = match crash {
                Crash::Before(at) => appends >= at,
                Crash::Stall(_) => true,
                Crash::After(at) => appends > at,
            };
            assert!(crashed || !no_faults() && !had_its_place, "the crash did not happen: {what}");
        }
        Trouble::Call(provider, operation, kind) => {
            let fired = shop.sandbox.fired();
            assert_eq!(
                fired.get(&format!("{provider}.{operation}.{kind}")),
                Some(&1),
                "it did not happen: {what}"
            );
        }
    }
    if matches!(trouble, Trouble::Call(_, _, Kind::CommitLate)) {
        tokio::time::sleep(Duration::from_secs_f64(LATE_SECONDS + 0.1)).await;
        let first = shop.sweep(true).await;
        assert_eq!(first.removed, 0, "nothing is removed on first sight");
        let found = shop.sweep(true).await;
        assert!(found.unread.is_empty(), "{found:?} {what}");
    }
    shop.agree(&what).await;
    let again = shop.sweep(true).await;
    assert!(again.findings.is_empty() && again.unread.is_empty(), "{again:?} {what}");
    let instances = shop.instances().await;
    assert_eq!(instances.len(), 1, "{what}");
    assert_eq!(instances[0].state, subject.instance_state(row.state), "{what}");
    shop.instances_hold(&what).await;
    let made = shop.sandbox.made();
    assert!(made["numbers"] <= 1, "a number was bought twice: {what}");
    if !matches!(trouble, Trouble::Call(_, "projectCreate", Kind::CommitLate)) {
        assert!(made["projects"] <= 1, "a project was made twice: {what}");
    }
    if row.state == SagaState::Compensated && instances[0].state == "failed" {
        let (outside, _) = shop.columns().await;
        assert!(outside.is_empty(), "{outside:?} {what}");
    }
    shop.stop().await;
    appends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_a_saga_ends_whole_or_leaves_nothing() {
    let stride: usize =
        std::env::var("AMENDS_TEST_STRIDE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut worlds = Vec::new();
    for subject in SUBJECTS {
        let appends = live(subject, Trouble::None).await;
        for at in 1..=appends {
            worlds.push((subject, Trouble::Crash(Crash::Before(at))));
            // After its last append there is nothing left to be interrupted.
            if at < appends {
                worlds.push((subject, Trouble::Crash(Crash::After(at))));
            }
        }
        for (provider, operation) in subject.mutations() {
            worlds.extend(KINDS.map(|kind| (subject, Trouble::Call(*provider, operation, kind))));
        }
    }
    let worlds: Vec<_> = worlds.into_iter().step_by(stride).collect();
    let all = worlds.len();
    let ended = futures::stream::iter(worlds).map(|(subject, trouble)| async move {
        let world = tokio::spawn(live(subject, trouble));
        let limited = tokio::time::timeout(Duration::from_secs(120), world).await;
        (subject, trouble, matches!(limited, Ok(Ok(_))))
    });
    let ended: Vec<_> = ended.buffer_unordered(8).collect().await;
    for subject in SUBJECTS {
        let of_it = || ended.iter().filter(|(other, _, _)| *other == subject);
        let crashes = of_it().filter(|(_, trouble, _)| matches!(trouble, Trouble::Crash(_))).count();
        let red = of_it().filter(|(_, _, green)| !green).count();
        println!("{subject:?}: {} worlds, {crashes} of them crashes, {red} red", of_it().count());
    }
    let red: Vec<_> = ended.iter().filter(|(_, _, green)| !green).collect();
    println!("{all} worlds, {} red", red.len());
    if no_faults() {
        assert_eq!(
            red.len(),
            all,
            "without faults every world has to fail: it cannot show what did not happen"
        );
    } else {
        assert!(red.is_empty(), "{red:?}");
    }
}
