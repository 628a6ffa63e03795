//! Job: an apalis job's arguments as the request of a saga's step, and what the saga has to know of the job.

use std::time::Duration;

use amends_engine::{Activity, Call, Effect, Failure, Found, Gate, Resource, secs};
use apalis::prelude::BoxDynError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::handler::Handler;

/// The effect of a job that says nothing of itself: what a lost call did is looked for, half a minute after
/// it can last have acted, and asked of a person where nobody can look. It is not sent again on a guess.
pub const NEVER_BLINDLY: Effect = Effect::Searchable { settle_after: secs(30) };

/// A job as a saga's step: `saga.step("receipt", Job(email))`. In the journal it is its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Job<A>(pub A);

/// What a saga has to know of an apalis job, said of the job's arguments.
///
/// Arguments are journalled as they are, so a secret among them has to be a
/// [`SecretRef`](amends_engine::SecretRef), which the handler opens with its `Data<Call>`.
pub trait JobActivity: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its name in journals: `provider.verb_noun`, for ever.
    const NAME: &'static str;
    /// What sending it twice would do. Say [`Effect::Repeatable`] only of a job that does nothing the second time
    /// it is given the same task id.
    const EFFECT: Effect = NEVER_BLINDLY;
    /// The longest one attempt may take, waiting for the service included; at most 90 s.
    const TIME_LIMIT: Duration = secs(60);
    /// How long an unavailable job is tried before the saga's `?` sees it refused (before the pivot).
    const GIVE_UP_AFTER: Duration = secs(3600);
    /// What the service answers. Secrets in it are references.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The arguments of the job that takes it back, or [`NoUndo`].
    type Undo: Undoes<Self>;

    /// What the job makes, named before it runs. A job that has an undo makes something of the job's name and
    /// the task's id, unless this says better; one that has none makes nothing.
    fn resource(&self, call: &Call) -> Option<Resource> {
        Self::Undo::TAKES_BACK.then(|| Resource::new("apalis", Self::NAME, call.key().to_string()))
    }

    /// The gates that a run of the job passes, its undo too: the credential's first, then those of single operations.
    /// What says *slow down*, or that the credential is refused, closes the first for everybody who names it.
    ///
    /// ```
    /// # use amends_apalis::{JobActivity, NoUndo};
    /// # use amends_engine::{Gate, secs};
    /// # use serde::{Deserialize, Serialize};
    /// #[derive(Debug, Clone, Serialize, Deserialize)]
    /// struct Email {
    ///     account: String,
    /// }
    ///
    /// impl JobActivity for Email {
    ///     const NAME: &'static str = "post.send_email";
    ///     type Output = ();
    ///     type Undo = NoUndo;
    ///
    ///     fn gates(&self) -> Vec<Gate> {
    ///         vec![Gate::credential(format!("post:{}", self.account)).rate(10, secs(1))]
    ///     }
    /// }
    /// ```
    fn gates(&self) -> Vec<Gate> {
        Vec::new()
    }

    /// What an error of the job, or of its undo, says of whether it happened; `None` where the crate's own table
    /// is right. `Refused` and `Unavailable` promise that nothing happened.
    fn classify(_error: &BoxDynError) -> Option<Failure> {
        None
    }
}

/// The arguments of the job that takes another one back.
///
/// It is run until it succeeds, with the same task id each time: that there is nothing left to take back is
/// success.
pub trait Undoes<A: JobActivity>: Send + 'static {
    /// Whether there is anything to run; only [`NoUndo`] says no.
    const TAKES_BACK: bool = true;

    /// The arguments that take back what `job` made.
    fn undoing(job: &A, made: &A::Output) -> Self;
}

/// There is nothing to take back, or no way to: the saga unwinds past the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoUndo;

impl<A: JobActivity> Undoes<A> for NoUndo {
    const TAKES_BACK: bool = false;

    fn undoing(_: &A, _: &A::Output) -> Self {
        Self
    }
}

impl<A: JobActivity> Activity for Job<A> {
    const NAME: &'static str = A::NAME;
    const EFFECT: Effect = A::EFFECT;
    const TIME_LIMIT: Duration = A::TIME_LIMIT;
    const GIVE_UP_AFTER: Duration = A::GIVE_UP_AFTER;
    type Client = Handler<A>;
    type Output = A::Output;

    fn resource(&self, call: &Call) -> Option<Resource> {
        self.0.resource(call)
    }

    fn gates(&self, _: &Handler<A>) -> Vec<Gate> {
        self.0.gates()
    }

    async fn execute(&self, handler: &Handler<A>, call: &Call) -> Result<A::Output, Failure> {
        handler.run(self.0.clone(), call).await
    }

    async fn find(&self, handler: &Handler<A>, call: &Call) -> Result<Found<A::Output>, Failure> {
        handler.find(self.0.clone(), call).await
    }

    async fn compensate(&self, handler: &Handler<A>, made: &A::Output, call: &Call) -> Result<(), Failure> {
        handler.undo(A::Undo::undoing(&self.0, made), call).await
    }
}
