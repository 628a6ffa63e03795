//! Call: what an activity knows of the attempt it is part of, and its way to secrets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use serde_json::Value;
use uuid::Uuid;

use super::{Cause, Failure};
use crate::data::limits;
use crate::env::{Env, Timestamp};
use crate::ids::{InstallationId, SagaId, SecretRef, StepKey, base32};
use crate::secret::{Sealed, Vault};
use crate::store::Store;

/// The longest bookmark of a look, in bytes of JSON.
const BOOKMARK_MAX: usize = 4096;
/// The longest text that stands in a tag as it is.
const MARKED_MAX: usize = 64;

/// One attempt of a step, seen from inside the activity. In a unit test of an activity one is made by `testing::call`,
/// behind the feature `testing`.
#[derive(Clone)]
pub struct Call {
    pub(crate) installation: InstallationId,
    pub(crate) environment: String,
    pub(crate) saga: SagaId,
    pub(crate) step: StepKey,
    pub(crate) generation: u32,
    pub(crate) attempt: u32,
    /// Since when what this is about has been seen to be absent.
    pub(crate) absent_since: Option<crate::env::Timestamp>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) sealed: Arc<Mutex<Vec<Sealed>>>,
    /// The activity was asked what it makes and has no answer of its own.
    pub(crate) says_no_resource: Arc<AtomicBool>,
    /// When it is certainly cut off, if it has an intent.
    pub(crate) not_after: Option<Timestamp>,
    /// Where a look that was cut off goes on, and how far this one has read.
    pub(crate) bookmark: Arc<Mutex<Option<Value>>>,
}

/// What every call of one engine shares.
pub(crate) struct Outside {
    pub(crate) env: Env,
    pub(crate) vault: Vault,
    pub(crate) store: Arc<dyn Store>,
}

impl Call {
    /// The saga this is done for.
    pub fn saga(&self) -> &SagaId {
        &self.saga
    }

    /// The step this is done for.
    pub fn step(&self) -> &StepKey {
        &self.step
    }

    /// 1 for the first try of the step or of its compensation.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// 1, and one more each time it was proved that what the former generation made is gone.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The environment of the installation, as `production`.
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// The idempotency key: the same for every attempt of a generation (UUID v5).
    pub fn key(&self) -> Uuid {
        // Between texts of fixed shape stands the step's key, which is the text of one path only.
        let name = format!("{}/{}/{}/{}", self.installation, self.saga, self.step, self.generation);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
    }

    /// Our mark, for providers that keep a description: installation/environment/saga/step/generation.
    ///
    /// It is at most 200 bytes of ASCII letters, digits and `/._-~`. A step's key, or an environment, that is longer
    /// than 64 bytes or holds anything else stands there as `~` and a digest of it.
    pub fn tag(&self) -> String {
        let (environment, step) = (marked(&self.environment, ""), marked(self.step.as_str(), "/"));
        format!("{}/{environment}/{}/{step}/{}", self.installation, self.saga, self.generation)
    }

    /// `base`, and from the second generation on `base-g2`: a name that no earlier generation bore, and that no other
    /// base makes. A base that itself ends in `-g` and a number has its first generation's, `-g1`, too.
    pub fn name(&self, base: &str) -> String {
        if self.generation <= 1 && !ends_as_a_generation(base) {
            base.to_owned()
        } else {
            format!("{base}-g{}", self.generation)
        }
    }

    /// A duration as this engine waits it; a sandbox's pace makes it shorter.
    pub fn paced(&self, wait: std::time::Duration) -> std::time::Duration {
        self.outside.env.paced(wait)
    }

    /// For a [`find`](super::Activity::find) that reads page after page: everything up to this page, a cursor of the
    /// provider's, was read and is not it. A look that is cut off behind this is gone on with from there; from the page
    /// before, where this is nothing that a journal can keep, or longer than 4096 bytes as JSON.
    pub fn read_up_to(&self, page: impl Into<Value>) {
        let page = page.into();
        let is_short = || page.to_string().len() <= BOOKMARK_MAX;
        if crate::data::check("how far it has read", &page).is_ok() && is_short() {
            *self.bookmark.lock().unwrap_or_else(PoisonError::into_inner) = Some(page);
        }
    }

    /// The page at which an earlier look was cut off; nothing if this one begins at the first.
    pub fn resumes_at(&self) -> Option<Value> {
        self.bookmark.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The time now, for activities that compare ages.
    pub fn now(&self) -> crate::env::Timestamp {
        self.outside.env.now()
    }

    /// Says that what this attempt is about was looked for and is not there.
    ///
    /// An absence is believed at the second look, `settle_after` apart: the first one is a failure that is tried again
    /// then. To be used where being gone is success, in a compensation or a [`Removal`](crate::Removal).
    ///
    /// # Errors
    /// It was not absent at the attempt before, or not for so long.
    pub fn absent(&self, settle_after: std::time::Duration) -> Result<(), Failure> {
        let (now, settle_after) = (self.now(), self.paced(settle_after));
        let waited = self.absent_since.map_or(std::time::Duration::ZERO, |since| now.since(since));
        if self.absent_since.is_some() && waited >= settle_after {
            return Ok(());
        }
        Err(Failure::Unavailable {
            cause: Cause::AbsentOnce,
            detail: "it is not there; that is believed at the second look".to_owned(),
            retry_after: Some(settle_after.saturating_sub(waited)),
        })
    }

    /// Puts a secret away. It is written, sealed, with the record of this step; the reference is for the output.
    ///
    /// # Errors
    /// The kind is empty, longer than a [name](crate::data::NAME_MAX), or has a NUL: nothing is put away then. What the
    /// activity did before may be there, so that this is no refusal of the step but a doubt, and a person is told.
    pub fn seal(&self, kind: &str, value: &SecretString) -> Result<SecretRef, Failure> {
        limits::secret_kind(kind)
            .map_err(|error| Failure::NoAnswer { cause: Cause::Unstorable, detail: error.to_string() })?;
        let sealed = self.outside.vault.seal(kind, value, &self.outside.env).map_err(secret_failure)?;
        let id = sealed.id.clone();
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner).push(sealed);
        Ok(id)
    }

    /// What an activity answers that does not say what it makes.
    pub(super) fn no_resource(&self) -> Option<super::Resource> {
        self.says_no_resource.store(true, Ordering::Relaxed);
        None
    }

    /// Opens a secret that a step or a start recorded, or that this call has put away.
    pub async fn open(&self, reference: &SecretRef) -> Result<SecretString, Failure> {
        let own = self.sealed.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(|sealed| {
            (sealed.id == *reference).then(|| self.outside.vault.open(sealed).map_err(secret_failure))
        });
        if let Some(own) = own {
            return own;
        }
        let sealed = self.outside.store.secret(reference).await.map_err(|error| Failure::Unavailable {
            cause: Cause::Database,
            detail: error.to_string(),
            retry_after: None,
        })?;
        let sealed = sealed.ok_or_else(|| secret_failure(crate::secret::Error::Gone(reference.clone())))?;
        self.outside.vault.open(&sealed).map_err(secret_failure)
    }
}

/// A text as it stands in a tag: itself if it is short and of plain signs (or of these), a digest of it otherwise.
fn marked(text: &str, also: &str) -> String {
    let is_plain = |sign: char| sign.is_ascii_alphanumeric() || "._-".contains(sign) || also.contains(sign);
    if !text.is_empty() && text.len() <= MARKED_MAX && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut first = [0; 16];
    first.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    format!("~{}", base32(Uuid::from_bytes(first)))
}

/// Whether a name could be that of a generation of another.
fn ends_as_a_generation(base: &str) -> bool {
    base.rsplit_once("-g").is_some_and(|(_, number)| {
        number.parse::<u32>().is_ok_and(|parsed| parsed > 0 && parsed.to_string() == number)
    })
}

fn secret_failure(error: crate::secret::Error) -> Failure {
    Failure::refused("secret_unreadable", error.to_string())
}
