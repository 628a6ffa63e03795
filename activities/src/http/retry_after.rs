//! Retry-After: how long a provider asks us to wait, within reason.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// No provider is taken at its word for longer: what it says then is a mistake, or no longer true.
pub(crate) const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How long an answer asks us to wait; nothing when it does not say so, or says what cannot be read.
///
/// Seconds, whole or with a fraction, or a date. A date is compared with the answer's own `Date`, so that no two clocks
/// have to agree.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = seconds(text).or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?.trim()).ok()?;
        at.duration_since(now).ok()
    })?;
    (!wait.is_zero()).then(|| wait.min(RETRY_AFTER_MAX))
}

fn seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = text.parse().ok().filter(|_| is_number)?;
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        headers.insert(DATE, "Wed, 21 Oct 2026 07:28:00 GMT".parse().unwrap());
        retry_after(&headers)
    }

    #[test]
    fn a_provider_is_taken_at_its_word_within_reason() {
        let known = [
            ("17", Some(17_000)),
            (" 17 ", Some(17_000)),
            ("1.5", Some(1500)),
            ("0", None),
            ("-5", None),
            ("", None),
            ("soon", None),
            ("NaN", None),
            ("inf", None),
            ("1e9", None),
            ("1.2.3", None),
            ("31536000", Some(3_600_000)),
            ("99999999999999999999999999999999999999999999", Some(3_600_000)),
            ("Wed, 21 Oct 2026 07:28:37 GMT", Some(37_000)),
            ("Wednesday, 21-Oct-26 07:28:37 GMT", Some(37_000)),
            ("Wed, 21 Oct 2020 07:28:37 GMT", None),
            ("Wed, 21 Oct 2099 07:28:37 GMT", Some(3_600_000)),
            ("Wed, 99 Oct 2026 07:28:37 GMT", None),
        ];
        for (value, wanted) in known {
            assert_eq!(wait(value), wanted.map(Duration::from_millis), "{value:?}");
        }
    }

    #[test]
    fn a_date_without_a_date_to_compare_it_with_says_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "Wed, 21 Oct 2026 07:28:37 GMT".parse().unwrap());
        assert_eq!(retry_after(&headers), None);
    }
}
