//! GHCR's client: pull tokens and manifests.

use amends_engine::Failure;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};

use super::answers;
use crate::answer::Reply;
use crate::http::{self, Http};

/// The registry; with a token for what is private.
pub struct Ghcr {
    url: String,
    token: Option<SecretString>,
    pub(crate) http: Http,
}

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

impl Ghcr {
    /// The registry at this base URL.
    pub fn new(url: impl Into<String>, token: Option<SecretString>) -> Self {
        Self { url: url.into(), token, http: Http::new() }
    }

    /// A manifest, whose headers name its digest.
    pub(crate) async fn manifest(&self, name: &str, tag: &str) -> Result<Reply, Failure> {
        let url = format!("{}/token?service=ghcr.io&scope=repository:{name}:pull", self.url);
        let mut request = self.http.request(&answers::TOKEN, Method::GET, &url)?;
        if let Some(token) = &self.token {
            request = request.basic_auth("amends", Some(token.expose_secret()));
        }
        let pull = http::send(&answers::TOKEN, request).await?.done()?.needed("/token")?;
        let url = format!("{}/v2/{name}/manifests/{tag}", self.url);
        let request = self.http.request(&answers::MANIFEST, Method::GET, &url)?;
        let request = request.bearer_auth(pull).header("accept", ACCEPT);
        http::send(&answers::MANIFEST, request).await?.done()
    }
}
