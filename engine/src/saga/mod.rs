//! Sagas: what is written by those who use the engine.
//!
//! A [`Workflow`] is an ordinary `async fn` over a [`Saga`], whose steps are keyed. Its journal lets it
//! survive any crash: on the way back each step that is already recorded answers from the record.

mod context;
mod made;
mod step;

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use context::Saga;
pub use made::Made;
pub(crate) use step::{Ask, AskKind};
pub use step::{Progress, Step};

use crate::ids::StepKey;
use crate::journal::failure::Refusal;

/// The definition of a saga.
///
/// # Changing it
///
/// A saga that is under way runs the new function over its old journal. Steps are compared by their keys, whatever
/// their order: under the same key the activity and its input, as JSON, must be the same. So
///
/// | a change | is to a saga under way |
/// |---|---|
/// | a new step, before or behind what is recorded | safe: done when the function comes to it, unless it makes something and the pivot has passed |
/// | steps in another order | safe: what is recorded answers from the record |
/// | another wait or limit of a step that is recorded | safe, and without effect: the recorded one stands |
/// | a step less, or a key renamed | noticed before anything more is called: the saga is parked as [`Diverged`](crate::journal::state::Attention::Diverged), with the step that is not asked for any more |
/// | another activity or another input under a key | noticed: the saga is parked as [`Diverged`](crate::journal::state::Attention::Diverged), with both sides shown |
/// | an output, or an [`Input`](Self::Input), that no longer reads from what is recorded | the function halts there: noticed like a step less if more is recorded behind it, else a fault that turns the saga round before its pivot |
///
/// For a change that a saga under way does not bear, raise [`VERSION`](Self::VERSION) and offer both: each saga ends on
/// the version it began with, and new ones begin on the one they are started with. A start that is repeated under its
/// key stays the saga that is there, whichever version asks.
///
/// ```
/// # use amends_engine::{Registry, Saga, Workflow, saga};
/// /// As it was; it stays here while a saga of it has not ended.
/// struct OpenShopV1;
/// struct OpenShop;
///
/// impl Workflow for OpenShopV1 {
///     const NAME: &'static str = "open-shop";
///     const VERSION: u32 = 1;
/// #   type Input = u32;
/// #   type Output = ();
/// #   async fn run(&self, _: &Saga, _: u32) -> saga::Result<()> { Ok(()) }
///     // …
/// }
///
/// impl Workflow for OpenShop {
///     const NAME: &'static str = "open-shop";
///     const VERSION: u32 = 2;
/// #   type Input = String;
/// #   type Output = ();
/// #   async fn run(&self, _: &Saga, _: String) -> saga::Result<()> { Ok(()) }
///     // …
/// }
///
/// let registry = Registry::default().workflow(OpenShopV1).workflow(OpenShop);
/// ```
///
/// A saga whose version nobody offers waits for one ([`Registry`](crate::Registry)). It can be cancelled, since to undo
/// it its activities are enough.
pub trait Workflow: Send + Sync + 'static {
    /// Its name, for ever.
    const NAME: &'static str;
    /// Raised for a [change](Self#changing-it) that a saga under way does not bear; a saga ends on the version it began
    /// with.
    const VERSION: u32;
    /// What it is asked for. Fingerprinted, journalled, shown: no secrets.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// What it yields.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Who holds what it made, once it has completed; its own saga's rows otherwise stay with the saga.
    fn owner(_input: &Self::Input, _output: &Self::Output) -> Option<String> {
        None
    }

    /// Does it. May be run again from the start at any time, with recorded steps answering from the record.
    fn run(&self, saga: &Saga, input: Self::Input) -> impl Future<Output = Result<Self::Output>> + Send;
}

/// Why a saga's function stops before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A step did not happen and will not. Nothing else ever reaches `?` from a step.
    #[error("{step}: {refusal}")]
    Refused {
        /// Which.
        step: StepKey,
        /// Why.
        refusal: Refusal,
    },
    /// The function itself says that it cannot go on.
    #[error("{0}")]
    GaveUp(Refusal),
    /// The function uses its context wrongly (a key twice in its scope); said before anything is sent.
    #[error("{step}: {problem}")]
    Misuse {
        /// Where.
        step: StepKey,
        /// What is wrong.
        problem: String,
    },
}

impl Halt {
    /// Ends the saga by its own judgement, as `saga.step` would if it were refused.
    pub fn give_up(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::GaveUp(Refusal { code: code.into(), message: message.into() })
    }

    /// The refusal in it, as the journal records it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Refused { refusal, .. } | Self::GaveUp(refusal) => refusal.clone(),
            Self::Misuse { step, problem } => {
                Refusal { code: "misuse".into(), message: format!("{step}: {problem}") }
            }
        }
    }
}

/// What every verb of a saga answers.
pub type Result<T> = std::result::Result<T, Halt>;
