//! The drawing: a timeline as SVG, which says in glyphs and hatches what it says in colour.

use amends_engine::Timestamp;
use amends_engine::journal::event::{FoundKind, SkipReason};
use amends_engine::store::{ResourceRow, ResourceState};
use maud::{Markup, html};

use super::scale::{FOLD, Scale};
use crate::timeline::{Lane, MarkKind, Outcome, Row, Span, Timeline, Wait, What};
use crate::words;

const WIDTH: f64 = 1080.0;
const LABELS: f64 = 330.0;
const RIGHT: f64 = 24.0;
const HEAD: f64 = 54.0;
const ROW: f64 = 44.0;
const FOOT: f64 = 10.0;
const BAR: f64 = 14.0;
/// The shortest bar that can still be seen and pointed at.
const BAR_MIN: f64 = 4.0;
/// Two glyphs closer than this are drawn as the later one.
const GLYPH: f64 = 11.0;
const NAME_MAX: usize = 44;

/// Draws a timeline as it is at `now`.
pub fn drawing(timeline: &Timeline, now: Timestamp) -> Markup {
    let scale = Scale::of(timeline, now, LABELS, WIDTH - LABELS - RIGHT);
    let height = timeline.rows.iter().fold(HEAD + FOOT, |height, _| height + ROW);
    let summary = summary(timeline);
    html! {
        svg.timeline viewBox={ "0 0 " (n(WIDTH)) " " (n(height)) } role="img" aria-label=(summary)
            xmlns="http://www.w3.org/2000/svg" {
            title { (summary) }
            (hatches())
            @for place in (1..timeline.rows.len()).step_by(2) {
                rect.stripe x="0" y=(n(top_of(place))) width=(n(WIDTH)) height=(n(ROW)) {}
            }
            (folds(&scale, height))
            @for (place, row) in timeline.rows.iter().enumerate() {
                (lane_of(row, place, &scale, now))
            }
            (axis(timeline, &scale, now, height))
        }
    }
}

fn summary(timeline: &Timeline) -> String {
    let tries: usize = timeline.rows.iter().map(|row| row.attempts().count()).sum();
    let turned = if timeline.turns.iter().any(|turn| turn.scope.is_none()) { ", turned round" } else { "" };
    format!("Timeline: {} steps, {tries} attempts{turned}", timeline.rows.len())
}

/// Patterns, so that a bar's meaning does not hang on its colour.
fn hatches() -> Markup {
    html! {
        defs {
            pattern id="hatch-undo" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)" {
                rect.hatch width="2.5" height="6" {}
            }
            pattern id="hatch-doubt" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)" {
                rect.hatch width="2" height="6" {}
            }
            pattern id="hatch-wait" width="4" height="4" patternUnits="userSpaceOnUse" {
                circle.dot cx="1" cy="1" r="0.8" {}
            }
        }
    }
}

fn top_of(place: usize) -> f64 {
    HEAD + ROW * f64::from(u32::try_from(place).unwrap_or(u32::MAX))
}

/// The idle times that are folded, under all that is drawn.
fn folds(scale: &Scale, height: f64) -> Markup {
    html! {
        g.axis {
            @for piece in scale.pieces.iter().filter(|piece| piece.folded) {
                g.fold {
                    rect x=(n(piece.left)) y=(n(HEAD - 6.0)) width=(n(piece.width)) height=(n(height - HEAD - FOOT + 6.0)) {}
                    text x=(n(piece.left + piece.width.min(FOLD * 4.0) / 2.0)) y="12" text-anchor="middle" {
                        "≈ " (words::span(piece.to.since(piece.from)).replace(' ', "\u{a0}"))
                    }
                }
            }
        }
    }
}

fn lane_of(row: &Row, place: usize, scale: &Scale, now: Timestamp) -> Markup {
    let top = top_of(place);
    let thing = row.things.last();
    html! {
        g.row {
            text.step x="8" y=(n(top + 18.0)) {
                (shortened(row.step.as_str()))
                @if let Some(activity) = &row.activity { title { (activity) } }
            }
            @match thing {
                Some(thing) => {
                    text class={ "thing " (thing.state) } x="8" y=(n(top + 34.0)) {
                        (glyph_of(thing.state)) " " (shortened(&named(thing)))
                        title { (words::thing(thing)) ": " (state_of(thing)) }
                    }
                }
                None => {
                    @if let Some(activity) = &row.activity {
                        text.thing x="8" y=(n(top + 34.0)) { (shortened(activity)) }
                    }
                }
            }
            @for span in &row.spans { (bar(span, top, scale, now)) }
            @for (x, glyph, class, title) in glyphs(row, scale) {
                text class={ "glyph " (class) } x=(n(x)) y=(n(top + 37.0)) text-anchor="middle" {
                    (glyph) title { (title) }
                }
            }
        }
    }
}

fn bar(span: &Span, top: f64, scale: &Scale, now: Timestamp) -> Markup {
    let left = scale.x(span.from);
    match &span.what {
        What::Attempt { lane, number, outcome, cause, detail } => {
            let right = scale.x(span.to.unwrap_or(now)).max(left + BAR_MIN);
            let (x, y, width) = (n(left), n(top + 8.0), n(right - left));
            let hatch = match (lane, outcome) {
                (_, Outcome::NoAnswer) => Some("url(#hatch-doubt)"),
                (Lane::Undo | Lane::Clearing, _) => Some("url(#hatch-undo)"),
                _ => None,
            };
            let what = match lane {
                Lane::Forward => "attempt",
                Lane::Undo => "undo, attempt",
                Lane::Clearing => "clearing away what was of no use, attempt",
            };
            let took = span.to.map_or_else(
                || format!("for {}", words::span(now.since(span.from))),
                |to| format!("took {}", words::span(to.since(span.from))),
            );
            html! {
                g class={ "attempt " (lane) " " (outcome) } {
                    rect.bar x=(x) y=(y) width=(width) height=(n(BAR)) rx="2" {}
                    @if let Some(hatch) = hatch {
                        rect x=(x) y=(y) width=(width) height=(n(BAR)) rx="2" fill=(hatch) {}
                    }
                    title {
                        (what) " " (number) ": " (outcome_in_words(*outcome)) ", " (took)
                        @if let Some(cause) = cause { ", " (cause.to_string().replace('_', " ")) }
                        @if let Some(detail) = detail { ". " (detail) }
                    }
                }
            }
        }
        What::Wait { why, until } => {
            let to = span.to.or(*until).unwrap_or(now).max(span.from);
            let right = scale.x(to);
            let open = span.to.is_none();
            html! {
                g class={ "wait " (wait_class(why)) @if open { " open" } } {
                    rect x=(n(left)) y=(n(top + 11.0)) width=(n((right - left).max(1.0))) height=(n(BAR - 6.0))
                        fill="url(#hatch-wait)" {}
                    @if open && until.is_some() {
                        path.planned d={ "M " (n(right)) " " (n(top + 9.0)) " l 7 6 l -7 6 z" } {}
                    }
                    title { (wait_in_words(why)) ", " (words::span(to.since(span.from))) }
                }
            }
        }
    }
}

/// The glyphs under a row, one for each place where there is room for one.
fn glyphs(row: &Row, scale: &Scale) -> Vec<(f64, &'static str, &'static str, String)> {
    let mut all: Vec<(Timestamp, &'static str, &'static str, String)> = Vec::new();
    for (span, what) in row.attempts() {
        let What::Attempt { outcome, detail, .. } = what else { continue };
        let Some(to) = span.to else { continue };
        let words = detail.clone().unwrap_or_else(|| outcome_in_words(*outcome).to_owned());
        match outcome {
            Outcome::Ok => all.push((to, "✓", "ok", words)),
            Outcome::Refused => all.push((to, "✗", "refused", words)),
            Outcome::Unavailable => all.push((to, "↻", "unavailable", words)),
            // Its mark says it.
            Outcome::NoAnswer | Outcome::UnderWay => {}
        }
    }
    for mark in &row.marks {
        let (glyph, class) = mark_glyph(&mark.what);
        all.push((mark.at, glyph, class, mark_in_words(&mark.what)));
    }
    all.sort_by_key(|(at, ..)| *at);
    let mut placed: Vec<(f64, &'static str, &'static str, String)> = Vec::new();
    for (at, glyph, class, words) in all {
        let x = scale.x(at);
        match placed.last_mut() {
            // What was made or removed at the end of an attempt stands beside its tick.
            Some(last) if x - last.0 < GLYPH && (last.1 == "✓" || last.1 == "?") && last.1 != glyph => {
                let x = last.0 + GLYPH;
                placed.push((x, glyph, class, words));
            }
            Some(last) if x - last.0 < GLYPH => {
                *last = (last.0, glyph, class, format!("{}; {words}", last.3));
            }
            _ => placed.push((x, glyph, class, words)),
        }
    }
    placed
}

fn axis(timeline: &Timeline, scale: &Scale, now: Timestamp, height: f64) -> Markup {
    let mut labels: Vec<(f64, String)> = Vec::new();
    for piece in scale.pieces.iter().filter(|piece| !piece.folded) {
        let elapsed = words::span(piece.from.since(timeline.began_at));
        let far = labels.last().is_none_or(|(x, _)| piece.left - x > 64.0);
        if far {
            labels.push((piece.left, format!("+{elapsed}")));
        }
    }
    let bottom = n(height - FOOT);
    let running = timeline.ended_at.is_none();
    html! {
        g.axis {
            line x1=(n(LABELS)) y1=(n(HEAD - 6.0)) x2=(n(WIDTH - RIGHT)) y2=(n(HEAD - 6.0)) {}
            @for (x, label) in labels {
                text x=(n(x)) y=(n(HEAD - 12.0)) { (label) }
            }
            @for turn in &timeline.turns {
                g.turn {
                    line x1=(n(scale.x(turn.at))) y1=(n(HEAD - 6.0)) x2=(n(scale.x(turn.at))) y2=(bottom) {}
                    text x=(n(scale.x(turn.at))) y="24" text-anchor="middle" { "↺ turned round" }
                    title {
                        @if let Some(scope) = &turn.scope { (scope) ": " }
                        (turn.why)
                    }
                }
            }
            @if let Some(at) = timeline.pivot_at {
                g.pivot {
                    line x1=(n(scale.x(at))) y1=(n(HEAD - 6.0)) x2=(n(scale.x(at))) y2=(bottom) {}
                    text x=(n(scale.x(at))) y="24" text-anchor="middle" { "⇥ pivot" }
                    title { "From here on, only forward." }
                }
            }
            @for flag in &timeline.flags {
                g.flag {
                    path d={ "M " (n(scale.x(flag.at))) " " (n(HEAD - 6.0)) " v -10 l 8 3 l -8 3" } {}
                    title { (flag.text) }
                }
            }
            @if running {
                g.now {
                    line x1=(n(scale.x(now))) y1=(n(HEAD - 6.0)) x2=(n(scale.x(now))) y2=(bottom) {}
                    title { "now" }
                }
            }
        }
    }
}

/// What the glyphs and hatches mean, in the order in which they are likely to be met.
pub fn legend() -> Markup {
    html! {
        p.legend {
            span.ok { "✓ worked" } " " span.unavailable { "↻ tried again" } " " span.refused { "✗ refused" } " "
            span.no_answer { "? nobody knows" } " " span { "⌕ asked for" } " " span { "◆ made outside" } " "
            span { "◇ gone outside" } " " span { "hatched: undo" } " " span { "dotted: waiting" } " "
            span { "≈ idle, folded" }
        }
    }
}

/// What an outcome is, in words.
pub fn outcome_in_words(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::UnderWay => "under way",
        Outcome::Ok => "worked",
        Outcome::Refused => "refused",
        Outcome::Unavailable => "did not happen, tried again",
        Outcome::NoAnswer => "no answer, nobody knows whether it happened",
    }
}

fn wait_class(why: &Wait) -> &'static str {
    match why {
        Wait::Doubt | Wait::Person | Wait::SecondLook | Wait::LostCall => "doubt",
        Wait::Retry | Wait::Gate => "retry",
        Wait::Timer | Wait::Signal(_) | Wait::Child | Wait::End => "timer",
    }
}

fn wait_in_words(why: &Wait) -> String {
    match why {
        Wait::Retry => "waits for the next attempt".to_owned(),
        Wait::Gate => "waits at a gate until it is let go".to_owned(),
        Wait::Doubt => "in doubt, waits until it can be asked for".to_owned(),
        Wait::SecondLook => "looked for and not seen, waits for the second look, which counts".to_owned(),
        Wait::LostCall => "waits until a lost call can no longer take effect".to_owned(),
        Wait::Person => "in doubt, waits for a person".to_owned(),
        Wait::Timer => "lets time pass".to_owned(),
        Wait::Signal(name) => format!("waits for {name}"),
        Wait::Child => "a saga of its own is at it".to_owned(),
        Wait::End => "put off to the end of the saga".to_owned(),
    }
}

fn mark_glyph(mark: &MarkKind) -> (&'static str, &'static str) {
    match mark {
        MarkKind::Made => ("◆", "made"),
        MarkKind::Removed => ("◇", "removed"),
        MarkKind::InDoubt => ("?", "no_answer"),
        MarkKind::Found(FoundKind::Unknowable) => ("?", "no_answer"),
        MarkKind::Found(_) => ("⌕", "found"),
        MarkKind::GaveUp => ("✗", "refused"),
        MarkKind::Undone => ("↺", "undone"),
        MarkKind::Skipped(_) => ("⊂", "undone"),
        MarkKind::Pivot => ("⇥", "pivot"),
        MarkKind::Settled => ("•", "settled"),
        MarkKind::Child(_) => ("↳", "child"),
    }
}

fn mark_in_words(mark: &MarkKind) -> String {
    match mark {
        MarkKind::Made => "made outside".into(),
        MarkKind::Removed => "gone outside".into(),
        MarkKind::InDoubt => "nobody knows whether it happened".into(),
        MarkKind::Found(FoundKind::Nothing) => "asked for: not there".into(),
        MarkKind::Found(FoundKind::Usable) => "asked for: there, adopted".into(),
        MarkKind::Found(FoundKind::Unusable) => "asked for: there, of no use".into(),
        MarkKind::Found(FoundKind::Unknowable) => "asked for: no way to tell".into(),
        MarkKind::GaveUp => "given up".into(),
        MarkKind::Undone => "taken back".into(),
        MarkKind::Skipped(SkipReason::Within) => "goes with what it lives in".into(),
        MarkKind::Skipped(SkipReason::Kept) => "handed to its keeper".into(),
        MarkKind::Skipped(SkipReason::Struck) => "struck from the undo plan".into(),
        MarkKind::Skipped(SkipReason::HandedOver) => "handed to another owner".into(),
        MarkKind::Skipped(SkipReason::Irrevocable) => "past its own pivot: it stays".into(),
        MarkKind::Skipped(SkipReason::Ended) => "nothing of it was left".into(),
        MarkKind::Pivot => "from here on, only forward".into(),
        MarkKind::Settled => "came".into(),
        MarkKind::Child(saga) => format!("started {saga}"),
    }
}

fn glyph_of(state: ResourceState) -> &'static str {
    match state {
        ResourceState::Intended => "◌",
        ResourceState::Live => "◆",
        ResourceState::InDoubt => "?",
        ResourceState::Removing => "◈",
        ResourceState::Gone => "◇",
    }
}

fn state_of(thing: &ResourceRow) -> String {
    thing.state.to_string().replace('_', " ")
}

fn named(thing: &ResourceRow) -> String {
    thing.external_id.clone().map_or_else(
        || format!("{} {} {}", thing.kind, thing.name, state_of(thing)),
        |id| format!("{} {} {id}", thing.kind, thing.name),
    )
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= NAME_MAX {
        return text.to_owned();
    }
    text.chars().take(NAME_MAX - 1).chain(std::iter::once('…')).collect()
}

/// A length on the paper, to a tenth.
fn n(length: f64) -> String {
    let text = format!("{length:.1}");
    text.strip_suffix(".0").map(ToOwned::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use crate::timeline::timeline;

    /// As a browser would show it, one element a line.
    fn drawn(journal: samples::Journal, now: Timestamp) -> String {
        drawing(&timeline(&journal.entries()), now).into_string().replace("><", ">\n<")
    }

    #[test]
    fn a_saga_stuck_on_its_way_back_shows_both_ways() {
        insta::assert_snapshot!(drawn(samples::stuck(), samples::at(320_000)));
    }

    #[test]
    fn a_saga_that_went_well_folds_the_time_in_which_it_waited_for_a_person() {
        insta::assert_snapshot!(drawn(samples::completed(), samples::at(2_000_000)));
    }

    #[test]
    fn doubt_that_no_one_can_settle_stays_open() {
        insta::assert_snapshot!(drawn(samples::in_doubt(), samples::at(60_000)));
    }

    #[test]
    fn a_saga_of_which_nothing_is_known_is_drawn_too() {
        let nothing = drawing(&timeline(&[]), samples::at(0)).into_string();
        assert!(nothing.contains("0 steps") && !nothing.contains("NaN"));
    }
}
