//! Handler: the services of a job, bound so that a saga's step can call them.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use amends_engine::activity::Cause;
use amends_engine::{Call, Failure, Found};
use apalis::prelude::{BoxDynError, Status, Task, TaskBuilder, TaskId};
use tower::util::BoxCloneService;
use tower::{Service, ServiceExt};
use uuid::Uuid;

use crate::failure::{Trouble, failure_of};
use crate::job::{JobActivity, NoUndo};

/// The services that do a job, take it back and look for it: the client of [`Job<A>`](crate::Job).
pub struct Handler<A: JobActivity> {
    job: Bound<A, A::Output>,
    undo: Option<Bound<A::Undo, ()>>,
    find: Option<Look<A>>,
}

type Finding<A> =
    Pin<Box<dyn Future<Output = Result<Found<<A as JobActivity>::Output>, BoxDynError>> + Send>>;
type Look<A> = Box<dyn Fn(A, TaskId) -> Finding<A> + Send + Sync>;

impl<A: JobActivity<Undo = NoUndo>> Handler<A> {
    /// Binds the service of a job that has no undo.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Task<A>, Response = A::Output> + Clone + Send + 'static,
        S::Error: Into<BoxDynError> + 'static,
        S::Future: Send + 'static,
    {
        Self { job: Bound::new(service), undo: None, find: None }
    }
}

impl<A: JobActivity> Handler<A> {
    /// Binds the service of a job, and the service of the job that takes it back. What the latter answers is not
    /// looked at.
    pub fn with_undo<S, U>(service: S, undo: U) -> Self
    where
        S: Service<Task<A>, Response = A::Output> + Clone + Send + 'static,
        S::Error: Into<BoxDynError> + 'static,
        S::Future: Send + 'static,
        U: Service<Task<A::Undo>> + Clone + Send + 'static,
        U::Response: 'static,
        U::Error: Into<BoxDynError> + 'static,
        U::Future: Send + 'static,
    {
        Self { job: Bound::new(service), undo: Some(Bound::new(undo.map_response(drop))), find: None }
    }

    /// Settles doubt: `find` is told the arguments and the task id of a call whose answer was lost, and says
    /// whether it happened. Without one it is a person who is asked; a job that may be sent again is sent, and
    /// nobody asked. It must change nothing, so whatever its error it is asked again.
    #[must_use]
    pub fn with_find<F, Fut>(mut self, find: F) -> Self
    where
        F: Fn(A, TaskId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Found<A::Output>, BoxDynError>> + Send + 'static,
    {
        self.find = Some(Box::new(move |job, id| Box::pin(find(job, id))));
        self
    }

    pub(crate) async fn run(&self, job: A, call: &Call) -> Result<A::Output, Failure> {
        let task = task(job, call.key(), call);
        self.job.call(task, patience::<A>(call)).await.map_err(told::<A>)
    }

    pub(crate) async fn find(&self, job: A, call: &Call) -> Result<Found<A::Output>, Failure> {
        let Some(find) = &self.find else { return Ok(Found::Unknowable) };
        find(job, task_id(call.key())).await.map_err(|error| Failure::Unavailable {
            cause: Cause::ServerError,
            detail: error.to_string(),
            retry_after: None,
        })
    }

    pub(crate) async fn undo(&self, undo: A::Undo, call: &Call) -> Result<(), Failure> {
        let Some(service) = &self.undo else { return Ok(()) };
        // Another task than the job, so another id; also the same at every attempt.
        let id = Uuid::new_v5(&call.key(), b"undo");
        service.call(task(undo, id, call), patience::<A>(call)).await.map_err(told::<A>)
    }
}

/// What a worker would have handed over.
fn task<Args>(args: Args, id: Uuid, call: &Call) -> Task<Args> {
    TaskBuilder::new(args)
        .task_id(task_id(id))
        .idempotency_key(id.to_string())
        .attempt(usize::try_from(call.attempt()).unwrap_or(usize::MAX))
        .status(Status::Running)
        .data(call.clone())
        .build()
}

/// A UUID where the program has apalis know them, text where not; it reads the same.
fn task_id(id: Uuid) -> TaskId {
    let text = id.to_string();
    TaskId::from_str(&text).unwrap_or_else(|_| TaskId::from_string(text))
}

/// How long a call waits for its service: what is left of the time limit is for the call itself.
fn patience<A: JobActivity>(call: &Call) -> Duration {
    call.paced(A::TIME_LIMIT / 2)
}

fn told<A: JobActivity>(trouble: Trouble) -> Failure {
    let said = if let Trouble::Answer(error) = &trouble { A::classify(error) } else { None };
    said.unwrap_or_else(|| failure_of(&trouble))
}

/// A service of any kind. Each call has a clone to itself: a clone that is dropped while it waits gives up its
/// place in every queue, which a shared one would keep.
struct Bound<Args, Out> {
    service: Mutex<BoxCloneService<Task<Args>, Out, BoxDynError>>,
}

impl<Args: 'static, Out: 'static> Bound<Args, Out> {
    fn new<S>(service: S) -> Self
    where
        S: Service<Task<Args>, Response = Out> + Clone + Send + 'static,
        S::Error: Into<BoxDynError> + 'static,
        S::Future: Send + 'static,
    {
        Self { service: Mutex::new(BoxCloneService::new(service.map_err(Into::into))) }
    }

    async fn call(&self, task: Task<Args>, patience: Duration) -> Result<Out, Trouble> {
        let mut service = self.service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(patience, service.ready()).await {
            Err(_) => Err(Trouble::Busy(patience)),
            Ok(Err(error)) => Err(Trouble::NotReady(error)),
            Ok(Ok(ready)) => ready.call(task).await.map_err(Trouble::Answer),
        }
    }
}
