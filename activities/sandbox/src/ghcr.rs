//! GHCR: the digest that a tag stands for.

use serde_json::json;

use crate::fault::{Kind, Provider};
use crate::request::{Answer, Request};
use crate::world::World;

pub(crate) const OPERATIONS: &[&str] = &["getToken", "headManifest", "listTags"];

const TOKEN: &str = "ghcr-anonymous-pull";

pub(crate) fn operation(request: &Request) -> Option<&'static str> {
    match (request.method.as_str(), request.path.iter().map(String::as_str).collect::<Vec<_>>().as_slice()) {
        ("GET", ["token"]) => Some("getToken"),
        ("HEAD" | "GET", ["v2", .., "manifests", _]) => Some("headManifest"),
        ("GET", ["v2", .., "tags", "list"]) => Some("listTags"),
        _ => None,
    }
}

pub(crate) fn error(status: u16, code: &str) -> Answer {
    Answer::json(status, json!({"errors": [{"code": code, "message": code.to_lowercase()}]}))
}

/// The digest of an image in this sandbox: made of its name and tag, so that every process knows it.
pub fn digest(name: &str, tag: &str) -> String {
    // FNV-1a over four rounds: a stand-in for a hash of content that there is not.
    let round = |salt: u64| {
        let start = 0xcbf2_9ce4_8422_2325 ^ salt;
        format!("{name}:{tag}")
            .bytes()
            .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    format!("sha256:{:016x}{:016x}{:016x}{:016x}", round(1), round(2), round(3), round(4))
}

pub(crate) fn act(world: &mut World, operation: &'static str, request: &Request) -> Answer {
    if operation == "getToken" {
        if !request.query.contains_key("scope") {
            return error(401, "UNAUTHORIZED");
        }
        return Answer::json(200, json!({"token": TOKEN}));
    }
    if request.bearer() != Some(TOKEN) {
        return error(401, "UNAUTHORIZED").with(
            "www-authenticate",
            "Bearer realm=\"/ghcr/token\",service=\"ghcr.io\",scope=\"repository:image:pull\"",
        );
    }
    let end = request.path.len().saturating_sub(2);
    let name = request.path.get(1..end).unwrap_or_default().join("/");
    if operation == "listTags" {
        return Answer::json(200, json!({"name": name, "tags": ["production", "staging"]}));
    }
    let tag = request.path.last().cloned().unwrap_or_default();
    if world.faults.take(Provider::Ghcr, "headManifest", Kind::ImageAbsent).is_some() {
        return error(404, "MANIFEST_UNKNOWN");
    }
    // Any image is there, under the tags of environments and commits.
    if tag != "production"
        && tag != "staging"
        && tag != "latest"
        && !tag.starts_with("sha-")
        && !tag.starts_with("sha256:")
    {
        return error(404, "MANIFEST_UNKNOWN");
    }
    let digest = if tag.starts_with("sha256:") { tag } else { digest(&name, &tag) };
    let body =
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
    let answer = Answer::json(200, body).with("docker-content-digest", digest);
    if request.method == "HEAD" {
        return Answer { body: None, ..answer }
            .with("content-type", "application/vnd.oci.image.index.v1+json");
    }
    answer
}
