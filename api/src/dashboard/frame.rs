//! The frame: what stands on every page, and the words and glyphs that they share.

use amends_engine::journal::state::{Attention, SagaState};
use maud::{DOCTYPE, Markup, html};

use crate::server::App;
use crate::words;

/// A whole page. One that is `live` asks itself again.
pub fn frame(app: &App, title: &str, live: bool, body: &Markup) -> Markup {
    whole(&app.environment, app.engine.trouble().as_deref(), title, live, body)
}

fn whole(environment: &str, trouble: Option<&str>, title: &str, live: bool, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Amends" }
                link rel="stylesheet" href="/assets/style.css";
                @if live {
                    script src="/assets/live.js" defer {}
                    noscript { meta http-equiv="refresh" content="5"; }
                }
            }
            body data-environment=(environment) {
                a.skip href="#main" { "Skip to content" }
                header.band {
                    span.environment { (environment.to_uppercase()) }
                    nav aria-label="Pages" {
                        a href="/" { "Sagas" }
                        a href="/?attention=any" { "Needs attention" }
                        a href="/pools" { "Pools" }
                        a href="/findings" { "Findings" }
                        a href="/gates" { "Gates" }
                    }
                    @if live { span #news .news role="status" { "" } }
                }
                div #trouble data-live {
                    @if let Some(trouble) = trouble { p.lead.trouble role="alert" { "⚠ Sagas do not get on: " (trouble) "." } }
                }
                main #main { (body) }
                footer { "Amends " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

/// A state: its glyph, which repeats the word, and the word.
pub fn state(state: SagaState) -> Markup {
    html! {
        span class={ "state " (state) } { span aria-hidden="true" { (glyph(state)) } " " (state) }
    }
}

fn glyph(state: SagaState) -> &'static str {
    match state {
        SagaState::Queued => "○",
        SagaState::Running => "▶",
        SagaState::Waiting => "◷",
        SagaState::Paused => "‖",
        SagaState::Compensating => "↺",
        SagaState::Completed => "✓",
        SagaState::Compensated => "⟲",
        SagaState::Failed => "✗",
    }
}

/// What a person should know, each as a word that explains itself.
pub fn attention(all: &[Attention]) -> Markup {
    html! {
        @for one in all {
            span.attention title=(words::attention(*one)) { "⚠ " (one.to_string().replace('_', " ")) } " "
        }
    }
}

/// A value inside a query string.
pub fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b',' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_that_nothing_is_written() {
        let body = html! { p { "body" } };
        let well = whole("sandbox", None, "Sagas", true, &body).into_string();
        assert!(well.contains("<div id=\"trouble\" data-live></div>"), "{well}");
        let ill = whole("sandbox", Some("the disk is full"), "Sagas", true, &body).into_string();
        assert!(ill.contains("Sagas do not get on: the disk is full."), "{ill}");
    }
}
