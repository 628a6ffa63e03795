//! Pin an image: from a tag, which moves, to a digest, which does not.
//!
//! Resolved once for a saga; every retry deploys the same bytes. When it cannot be resolved the step fails:
//! falling back to the tag would deploy something nobody chose.

use amends_engine::{Activity, Call, Effect, Failure, Gate};
use serde::{Deserialize, Serialize};

use super::Ghcr;
use crate::answer::unreadable;

/// Asks which digest a tag stands for now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PinDigest {
    /// `ghcr.io/owner/name`.
    pub image: String,
    /// As `production`.
    pub tag: String,
}

/// An image by its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// `ghcr.io/owner/name@sha256:..`
    pub reference: String,
    /// `sha256:..`
    pub digest: String,
}

impl Activity for PinDigest {
    const NAME: &'static str = "ghcr.pin_digest";
    const EFFECT: Effect = Effect::Read;
    type Client = Ghcr;
    type Output = Pinned;

    fn gates(&self, _: &Ghcr) -> Vec<Gate> {
        vec![Gate::credential("ghcr")]
    }

    async fn execute(&self, ghcr: &Ghcr, _: &Call) -> Result<Pinned, Failure> {
        let name = self.image.strip_prefix("ghcr.io/").unwrap_or(&self.image);
        let manifest = ghcr.manifest(name, &self.tag).await?;
        let digest = manifest.headers.get("docker-content-digest").and_then(|digest| digest.to_str().ok());
        let digest = digest.ok_or_else(|| unreadable("the registry answered no digest"))?;
        Ok(Pinned { reference: format!("{}@{digest}", self.image), digest: digest.to_owned() })
    }
}
