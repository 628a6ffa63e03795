//! A booking desk with two apalis jobs and an undo, whose answers a test can order; shared by the tests.

#![allow(dead_code, reason = "each test file uses its own part")]

pub mod stay;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends_apalis::{Handler, JobActivity, NoUndo, Undoes};
use amends_engine::{Effect, Failure, Gate};
use apalis::prelude::{AbortError, Attempt, BoxDynError, Data, RetryAfterError, TaskId, task_fn};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tower::ServiceBuilder;

/// What a job answers to one call.
#[derive(Debug, Clone, Copy)]
pub enum Say {
    /// Does nothing, and says that it never will.
    Abort,
    /// Does nothing, and asks to be run later.
    RetryAfter,
    /// Does it, and answers with an error that says nothing.
    Lost,
    /// Does nothing, and answers with an error of the team's own.
    SoldOut,
    /// Does nothing, and panics.
    Panic,
    /// Does it after so many milliseconds.
    Slow(u64),
    /// Does it once as many as these have been under way at once.
    Meet(usize),
    /// Does it once the test lets go of it.
    Held,
}

/// An error of the team's own.
#[derive(Debug)]
pub struct SoldOut;

impl std::fmt::Display for SoldOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sold out")
    }
}

impl std::error::Error for SoldOut {}

/// One call that a handler saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub job: &'static str,
    pub id: String,
    pub attempt: usize,
}

#[derive(Default)]
pub struct Desk {
    pub seen: Mutex<Vec<Seen>>,
    pub booked: Mutex<Vec<String>>,
    says: Mutex<VecDeque<(&'static str, Say)>>,
    /// Slow calls under way, and the most there were.
    pub busy: Mutex<(usize, usize)>,
    /// Lets those go on that are held.
    pub go: Notify,
}

impl Desk {
    /// Orders the answers to the next calls of a job.
    pub fn says(&self, job: &'static str, says: &[Say]) {
        self.says.lock().unwrap().extend(says.iter().map(|say| (job, *say)));
    }

    pub fn calls(&self, job: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.job == job).cloned().collect()
    }

    fn next(&self, job: &'static str) -> Option<Say> {
        let mut says = self.says.lock().unwrap();
        let place = says.iter().position(|(of, _)| *of == job)?;
        says.remove(place).map(|(_, say)| say)
    }

    async fn call(
        &self,
        job: &'static str,
        id: TaskId,
        attempt: Attempt,
        act: impl FnOnce(&Self),
    ) -> Result<(), BoxDynError> {
        self.seen.lock().unwrap().push(Seen { job, id: id.to_string(), attempt: attempt.current() });
        match self.next(job) {
            None => act(self),
            Some(Say::Abort) => return Err(AbortError::new("not with us").into()),
            Some(Say::RetryAfter) => {
                return Err(RetryAfterError::new("at lunch", Duration::from_millis(20)).into());
            }
            Some(Say::Lost) => {
                act(self);
                return Err("the line dropped".into());
            }
            Some(Say::SoldOut) => return Err(SoldOut.into()),
            Some(Say::Panic) => panic!("a handler that panics"),
            Some(say @ (Say::Slow(_) | Say::Meet(_) | Say::Held)) => {
                {
                    let mut busy = self.busy.lock().unwrap();
                    busy.0 += 1;
                    busy.1 = busy.1.max(busy.0);
                }
                match say {
                    Say::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                    Say::Held => self.go.notified().await,
                    Say::Meet(count) => {
                        // Long enough for one more to come that should not; a slow machine only shows less.
                        tokio::time::sleep(Duration::from_millis(15)).await;
                        while self.busy.lock().unwrap().1 < count {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    _ => {}
                }
                self.busy.lock().unwrap().0 -= 1;
                act(self);
            }
        }
        Ok(())
    }
}

/// Books a room; says nothing of what a second booking would do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Book {
    pub room: String,
}

/// Gives a room back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Free {
    pub room: String,
}

/// Sends word; the desk knows a second one by its task id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tell {
    pub text: String,
}

type Answer<T> = Result<T, BoxDynError>;

pub async fn book(job: Book, id: TaskId, attempt: Attempt, desk: Data<Arc<Desk>>) -> Answer<String> {
    let room = job.room.clone();
    desk.call("book", id, attempt, |desk| desk.booked.lock().unwrap().push(room)).await?;
    Ok(format!("{} is yours", job.room))
}

pub async fn free(job: Free, id: TaskId, attempt: Attempt, desk: Data<Arc<Desk>>) -> Answer<bool> {
    desk.call("free", id, attempt, |desk| desk.booked.lock().unwrap().retain(|room| *room != job.room))
        .await?;
    Ok(true)
}

pub async fn tell(_: Tell, id: TaskId, attempt: Attempt, desk: Data<Arc<Desk>>) -> Answer<()> {
    desk.call("tell", id, attempt, |_| {}).await
}

impl JobActivity for Book {
    const NAME: &'static str = "desk.book_room";
    type Output = String;
    type Undo = Free;

    fn classify(error: &BoxDynError) -> Option<Failure> {
        error.is::<SoldOut>().then(|| Failure::refused("sold_out", "another hotel, then"))
    }
}

impl Undoes<Book> for Free {
    fn undoing(job: &Book, _: &String) -> Self {
        Self { room: job.room.clone() }
    }
}

impl JobActivity for Tell {
    const NAME: &'static str = "desk.send_word";
    const EFFECT: Effect = Effect::Repeatable;
    type Output = ();
    type Undo = NoUndo;

    fn gates(&self) -> Vec<Gate> {
        vec![Gate::credential("desk.word")]
    }
}

/// The booking job and its undo as the team has them: handlers and their data.
pub fn booking(desk: &Arc<Desk>) -> Handler<Book> {
    Handler::with_undo(
        ServiceBuilder::new().layer(Data::new(desk.clone())).service(task_fn(book)),
        ServiceBuilder::new().layer(Data::new(desk.clone())).service(task_fn(free)),
    )
}

/// The job that sends word.
pub fn telling(desk: &Arc<Desk>) -> Handler<Tell> {
    Handler::new(ServiceBuilder::new().layer(Data::new(desk.clone())).service(task_fn(tell)))
}
