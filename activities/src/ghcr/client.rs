//! GHCR's client: pull tokens and manifests.

use amends_engine::Failure;
use secrecy::{ExposeSecret, SecretString};

use crate::http::{self, Reply};

/// The registry; with a token for what is private.
pub struct Ghcr {
    url: String,
    token: Option<SecretString>,
    http: reqwest::Client,
}

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

impl Ghcr {
    /// The registry at this base URL.
    pub fn new(url: impl Into<String>, token: Option<SecretString>) -> Self {
        Self { url: url.into(), token, http: http::client() }
    }

    /// The headers of a manifest.
    pub(crate) async fn manifest(&self, name: &str, tag: &str) -> Result<Reply, Failure> {
        let url = format!("{}/token?service=ghcr.io&scope=repository:{name}:pull", self.url);
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.basic_auth("amends", Some(token.expose_secret()));
        }
        let pull = http::send(request, http::Call::Read).await?;
        let pull = pull.text("/token").ok_or_else(|| http::refused(pull.status, "ghcr", "no pull token"))?;
        let url = format!("{}/v2/{name}/manifests/{tag}", self.url);
        let request = self.http.head(url).bearer_auth(pull).header("accept", ACCEPT);
        let reply = http::send(request, http::Call::Read).await?;
        match reply.status {
            404 => Err(Failure::refused("no_such_image", format!("{name}:{tag} is not in the registry"))),
            _ if !reply.is_success() => Err(http::refused(reply.status, "ghcr", "the registry refused")),
            _ => Ok(reply),
        }
    }
}
