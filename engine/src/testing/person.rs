//! A person: looks at what the engine cannot decide, and says what really came of it.

use std::time::Duration;

use super::inject::Injector;
use crate::env::Env;
use crate::ids::OperationId;
use crate::journal::act::{Act, Verdict};
use crate::journal::state::{Attention, Phase, Step};
use crate::journal::{Entry, State};
use crate::store::{Error, Letter, Message, SagaFilter, Store};

/// Whatever was sent has landed, or never will, after this.
const LANDED: Duration = Duration::from_secs(120);

/// Settles every lost call that only a person can settle, by what the injector saw of it. Says how many there were.
///
/// # Errors
/// The store cannot be read or written.
pub async fn settle_all(store: &dyn Store, injector: &Injector, env: &Env) -> Result<usize, Error> {
    let open = store
        .sagas(SagaFilter { attention: true, limit: u32::MAX, ..SagaFilter::default() })
        .await?
        .into_iter()
        .filter(|row| row.attention.contains(&Attention::NeedsDecision));
    let mut settled = 0;
    for row in open {
        let entries: Vec<Entry> = store.journal(&row.id).await?;
        let Ok(state) = State::fold(row.id.clone(), &entries) else { continue };
        // A call that may still be under way is not looked for: nobody could tell.
        let is_over = |step: &&Step| {
            env.now().since(step.since) >= LANDED
                && step.unsettled_until().is_none_or(|until| until <= env.now())
        };
        let undecidable = state.steps().iter().filter(|step| step.phase == Phase::Undecidable);
        for step in undecidable.filter(is_over) {
            let verdict = match injector.made(&row.id, &step.key, step.generation) {
                Some(output) => Verdict::Adopt { output, external_id: None },
                None => Verdict::Absent,
            };
            let operation = OperationId::from_uuid(env.uuid());
            let act = Act::Settle { step: step.key.clone(), verdict };
            let (actor, reason) = ("the one on duty".to_owned(), "went and looked".to_owned());
            let id = format!("settle {operation}");
            let message = Message::Act { operation, act, actor, reason };
            store.post(Letter { id, saga: row.id.clone(), message, at: env.now() }).await?;
            settled += 1;
        }
    }
    Ok(settled)
}
