//! An apalis job as a step of a saga: the same handler, the same tower layers, and now journalled and taken back.
//!
//! A team that has [apalis] jobs keeps them as they are. What a worker runs, a
//! [`tower::Service`] of [`Task<Args>`](apalis::prelude::Task) or an `async fn` through apalis' own
//! [`task_fn`](apalis::prelude::task_fn), is bound to a [`Handler`], and the job's arguments are the request:
//! `saga.step("receipt", Job(email))`.
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use amends_apalis::{Handler, Job, JobActivity, NoUndo};
//! use amends_engine::{Engine, Env, Registry, Saga, Workflow, saga, secs, store::{Started, memory::MemoryStore}};
//! use apalis::prelude::{AbortError, Data, TaskId, task_fn};
//! use serde::{Deserialize, Serialize};
//! use tower::ServiceBuilder;
//!
//! // The job, as it was.
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Email { to: String }
//!
//! #[derive(Clone)]
//! struct Smtp;
//!
//! async fn send(email: Email, id: TaskId, _: Data<Smtp>) -> Result<String, AbortError> {
//!     if email.to.contains('@') { Ok(format!("<{id}@shop>")) } else { Err(AbortError::new("no such address")) }
//! }
//!
//! // What is new: what the saga has to know of it.
//! impl JobActivity for Email {
//!     const NAME: &'static str = "mail.send_email";
//!     type Output = String;
//!     type Undo = NoUndo;
//! }
//!
//! struct Greet;
//!
//! impl Workflow for Greet {
//!     const NAME: &'static str = "greet";
//!     const VERSION: u32 = 1;
//!     type Input = String;
//!     type Output = String;
//!
//!     async fn run(&self, saga: &Saga, to: String) -> saga::Result<String> {
//!         let message_id = saga.step("email", Job(Email { to })).await?;
//!         Ok(message_id.take())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = ServiceBuilder::new()
//!     .layer(Data::new(Smtp))
//!     .timeout(Duration::from_secs(20))
//!     .service(task_fn(send));
//! let registry = Registry::default()
//!     .activity::<Job<Email>>(Arc::new(Handler::new(service)))
//!     .workflow(Greet);
//! # let env = Env::system();
//! # let (store, vault) = MemoryStore::new(&[], &env).await?;
//! # let engine = Engine::start(Arc::new(store), vault, registry, env, "example");
//! # let Started::New(saga) = engine.begin(engine.new_saga::<Greet>("1", &"ada@shop".into())?).await? else { panic!() };
//! # let row = engine.wait(&saga, secs(10), |_| false).await?.unwrap();
//! # assert_eq!(row.state.to_string(), "completed");
//! # engine.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What happens when the answer is lost
//!
//! apalis runs a failed task again, and asks of handlers that they bear it. A saga asks first whether that is so:
//! [`JobActivity::EFFECT`]. Unless a job says [`Repeatable`](amends_engine::Effect::Repeatable), or
//! [`Read`](amends_engine::Effect::Read), it is [`NEVER_BLINDLY`] sent again: its doubt is settled by
//! [`Handler::with_find`], and where there is none the saga waits for a person (`needs_decision`).
//!
//! # What a job's error means
//!
//! | error | failure | because |
//! |---|---|---|
//! | what [`JobActivity::classify`] says | as it says | the author knows |
//! | [`AbortError`](apalis::prelude::AbortError) | refused `aborted` | apalis' word for "do not run this again" |
//! | [`RetryAfterError`](apalis::prelude::RetryAfterError), [`DeferredError`](apalis::prelude::DeferredError) | unavailable | apalis' words for "run this again, later" |
//! | [`MissingDataError`](apalis::prelude::MissingDataError) | unavailable | an argument was not there, so the handler did not begin |
//! | the service does not become ready | unavailable | nothing was sent |
//! | tower's [`Elapsed`](tower::timeout::error::Elapsed), a panic that was caught | no answer | it was cut off in the middle |
//! | any other | no answer | nothing says that it did not happen |
//!
//! A refusal and an unavailability say that *nothing happened*: a handler that has sent its mail and then finds
//! the archive closed must not answer with `RetryAfterError`, or the mail goes out twice. The text of an error is
//! journalled and shown, so it must not hold a secret.
//!
//! # What the handler is given
//!
//! | in the task | is |
//! |---|---|
//! | task id, idempotency key | the [key](amends_engine::Call::key) of the generation: the same at every attempt, also after a crash; an undo has its own, made from it |
//! | attempt | the engine's count, 1 for the first, as in a worker |
//! | `Data<Call>` | the [`Call`](amends_engine::Call): which saga, which step, and the way to secrets |
//!
//! # tower
//!
//! - The service is cloned for each call and the clone is waited for until it is ready, as tower has it. Clones
//!   share what their layers share, so that a concurrency limit counts all calls. A service that cannot be cloned
//!   (a rate limit) goes behind tower's `Buffer`.
//! - Waiting to be ready may take half of [`JobActivity::TIME_LIMIT`]; then the step is unavailable and waits
//!   without holding a call. A time-out of the service's own should be shorter than the other half.
//! - There is no worker. A handler that takes a `WorkerContext` finds none, unless the innermost layer, below any
//!   retry, is a `Data::new(WorkerContext::new("name"))`.
//! - apalis' retry policies ask the worker's context, and without one send nothing again. It is the engine that
//!   does, if it may, with a journal entry before each attempt. A retry policy that asks nobody sends again inside
//!   an attempt, unseen: take it out of the stack, or be `Repeatable`.

mod failure;
mod handler;
mod job;

pub use handler::Handler;
pub use job::{Job, JobActivity, NEVER_BLINDLY, NoUndo, Undoes};
