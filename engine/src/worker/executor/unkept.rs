//! Unkept: what happened, and cannot be kept. It is on the ledger, is said, and is taken back or left to a person.

use super::*;
use crate::activity::registry::Unkept;
use crate::activity::{Cause, Effect, Failure, Refusal, retry};
use crate::ids::StepKey;
use crate::journal::event::{Event, FoundKind};
use crate::journal::state::Phase;

impl Executor {
    /// An attempt did what it was to do, or a look found that it had, and what that is cannot be kept.
    ///
    /// What changes nothing outside is refused. What made something is taken away again, and refused then; this process
    /// still has what the undo needs. Of anything else nobody but a person can say what it came to.
    pub(super) fn not_kept(&mut self, step: StepKey, unkept: Unkept) {
        let Some(known) = self.state.step(&step) else { return };
        let effect = known.asked.as_ref().map(|asked| asked.effect);
        let (makes, attempt) = (known.resource.is_some(), known.attempts);
        let (cause, detail) = (Cause::Unstorable, unkept.problem.clone());
        let env = &self.shared.env;
        if effect == Some(Effect::Read) {
            return self.failed(step, Failure::refused(UNSTORABLE, detail), None);
        }
        // It does not say another thing soon.
        let look_at = env.now().plus(env.paced(retry::CAP));
        let fingerprint = String::new();
        if matches!(known.phase, Phase::Trying { .. }) {
            self.record(Event::AttemptLost {
                step: step.clone(),
                attempt,
                cause,
                detail,
                look_at,
                fingerprint,
            });
        } else {
            self.record(Event::AttemptDeferred {
                step: step.clone(),
                attempt: None,
                cause,
                detail,
                retry_at: look_at,
                gate: None,
                asked: None,
                fingerprint,
                bookmark: None,
            });
        }
        if makes {
            let external_id = unkept.external_id.clone();
            self.record(Event::StepFound {
                step: step.clone(),
                found: FoundKind::Unusable,
                output: None,
                external_id,
            });
            self.unkept.insert(step, unkept);
        }
    }

    /// What was made is taken away: what could not be kept would be made, and not kept, again.
    pub(super) fn compensated(&mut self, step: StepKey, by_hand: bool) {
        let known = self.state.step(&step);
        let was_unkept = known.is_some_and(|step| {
            matches!(step.phase, Phase::Removing { clearing: true, .. }) && step.output.is_none()
        });
        let detail = known.and_then(|step| step.unkept.clone());
        self.record(Event::StepCompensated { step: step.clone(), by_hand });
        self.unkept.remove(&step);
        if was_unkept {
            let message = detail.unwrap_or_else(|| "what it made could not be kept".to_owned());
            self.fail(step, Refusal { code: UNSTORABLE.to_owned(), message });
        }
    }
}

const UNSTORABLE: &str = "unstorable";
