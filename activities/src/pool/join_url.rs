//! Join URL: an invitation in one spelling, so that two of one conversation are seen to be the same.

use amends_engine::Failure;
use url::Url;

/// The longest invitation that is taken, in bytes.
const LENGTH_MAX: usize = 2_000;

/// The invitation as it is kept, compared and sent: without space around it, scheme and host in lower case, without the
/// port that its scheme has anyway and without the host's last dot. Path, query and fragment stay as they are.
///
/// # Errors
/// It is no address of the web, or has a user or a password in it.
pub(super) fn normal(invitation: &str) -> Result<String, Failure> {
    let refused = |what: &str| Err(Failure::refused("malformed", format!("join_url {what}")));
    let invitation = invitation.trim();
    if invitation.len() > LENGTH_MAX {
        return refused("is longer than 2,000 bytes");
    }
    let Ok(mut url) = Url::parse(invitation) else { return refused("is not a URL") };
    if !matches!(url.scheme(), "http" | "https") {
        return refused("has to begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("has a user or a password in it");
    }
    let host = url.host_str().unwrap_or_default();
    if let Some(bare) = host.strip_suffix('.').map(str::to_owned)
        && (bare.is_empty() || url.set_host(Some(&bare)).is_err())
    {
        return refused("has no host");
    }
    Ok(url.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_invitation_has_one_spelling() {
        for spelling in [
            "https://talk.example/join/AbC?x=Y#Z",
            " https://talk.example/join/AbC?x=Y#Z\n",
            "HTTPS://Talk.EXAMPLE/join/AbC?x=Y#Z",
            "https://talk.example:443/join/AbC?x=Y#Z",
            "https://talk.example./join/AbC?x=Y#Z",
            "https://TALK.example.:443/join/AbC?x=Y#Z",
        ] {
            assert_eq!(normal(spelling).unwrap(), "https://talk.example/join/AbC?x=Y#Z", "{spelling:?}");
        }
        assert_ne!(normal("https://talk.example/a").unwrap(), normal("https://talk.example/A").unwrap());
        assert_ne!(normal("https://talk.example/a").unwrap(), normal("https://talk.example:8443/a").unwrap());
        assert_ne!(normal("https://talk.example/a").unwrap(), normal("http://talk.example/a").unwrap());
    }

    #[test]
    fn what_is_no_invitation_is_refused_by_name() {
        let long = format!("https://talk.example/{}", "x".repeat(LENGTH_MAX));
        for wrong in ["", "talk", "javascript:alert(1)", "https://u:p@talk.example/a", "https://./a", &long] {
            let Err(Failure::Refused(refusal)) = normal(wrong) else { panic!("{wrong:?} was taken") };
            assert!(refusal.message.starts_with("join_url "), "{refusal:?}");
        }
    }
}
