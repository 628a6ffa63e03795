//! Tables: stable columns, no colour, nothing cut off; the same on a terminal and in a pipe.

use amends_engine::data::is_unseen;
use comfy_table::{Table, presets};

use crate::act::{self, AllowedAct};
use crate::bench::figures::Figure;
use crate::bench::{Measured, Report};
use crate::product::Instance;
use crate::view::{Gate, Page, Resource, Saga, SagaDetail, Step};

/// A page of sagas.
pub fn sagas(page: &Page<Saga>) -> String {
    let rows = page.items.iter().map(|saga| {
        let attention: Vec<String> = saga.attention.iter().map(ToString::to_string).collect();
        vec![
            saga.state.to_string(),
            attention.join(","),
            saga.id.clone(),
            saga.kind.clone(),
            saga.instance.clone().unwrap_or_default(),
            saga.step.clone().unwrap_or_default(),
            saga.age.clone(),
            saga.error.clone().unwrap_or_default(),
        ]
    });
    let head = ["STATE", "ATTENTION", "SAGA", "KIND", "INSTANCE", "WHERE", "AGE", "ERROR"];
    paged(table(&head, rows), page, "amends saga list")
}

/// A page of the ledger.
pub fn resources(page: &Page<Resource>) -> String {
    paged(resource_rows(&page.items), page, "amends resource list")
}

fn resource_rows(all: &[Resource]) -> String {
    let rows = all.iter().map(|row| {
        vec![
            row.state.to_string(),
            row.id.clone(),
            format!("{}.{}", row.provider, row.kind),
            row.name.clone(),
            row.external_id.clone().unwrap_or_else(|| "-".to_owned()),
            row.holder.clone(),
            row.step.clone(),
            row.changed_at.clone(),
        ]
    });
    table(&["STATE", "RESOURCE", "KIND", "NAME", "EXTERNAL ID", "HELD BY", "STEP", "SINCE"], rows)
}

/// A page of instances.
pub fn instances(page: &Page<Instance>) -> String {
    let rows = page.items.iter().map(|row| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        vec![
            row.id.clone(),
            row.state.clone(),
            row.pool.clone(),
            text(&row.template_id),
            text(&row.owner_id),
            text(&row.agent_name),
            text(&row.conversation),
            row.changed_at.clone(),
        ]
    });
    let head = ["INSTANCE", "STATE", "POOL", "TEMPLATE", "OWNER", "AGENT", "CONVERSATION", "SINCE"];
    paged(table(&head, rows), page, "amends instance list")
}

/// What a bench measured.
pub fn bench(report: &Report) -> String {
    let mut text = format!(
        "{} on {} cores, version {}, medians of {} (least to most)\n",
        report.store, report.cores, report.version, report.runs
    );
    for measured in &report.results {
        text.push('\n');
        text.push_str(&measured_table(measured));
    }
    if report.results.iter().any(|measured| measured.is_noisy) {
        text.push_str("\n~ others took more than a tenth of the machine: read these figures with doubt\n");
    }
    text
}

fn measured_table(measured: &Measured) -> String {
    let settings: Vec<String> =
        measured.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let noisy = if measured.is_noisy { " ~" } else { "" };
    let title = format!("{} {} ({}){noisy}\n", measured.workload, measured.name, settings.join(", "));
    let beside = &measured.beside;
    let rows = measured.ours.0.iter().map(|(name, ours)| {
        let mut row = vec![name.clone(), figure(ours)];
        for beside in beside {
            let ratio = beside.ratio.as_ref().filter(|_| beside.ratio_of == name);
            row.push(beside.figures.get(name).as_ref().map(figure).unwrap_or_default());
            row.push(ratio.map(figure).unwrap_or_default());
        }
        row
    });
    let heads: Vec<String> =
        beside.iter().flat_map(|beside| [beside.what.to_uppercase(), "RATIO".to_owned()]).collect();
    let mut head = vec!["FIGURE", "OURS"];
    head.extend(heads.iter().map(String::as_str));
    title + &table(&head, rows)
}

fn figure(figure: &Figure) -> String {
    let Figure { median, min, max } = *figure;
    if (max - min).abs() < f64::EPSILON {
        number(median)
    } else {
        format!("{} ({} to {})", number(median), number(min), number(max))
    }
}

/// Three significant digits, and whole numbers above a hundred.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A page of gates.
pub fn gate_page(page: &Page<Gate>) -> String {
    paged(gates(&page.items), page, "amends gate list")
}

/// Gates, one a line.
pub fn gates(gates: &[Gate]) -> String {
    if gates.is_empty() {
        return "None.\n".to_owned();
    }
    table(
        &["STATE", "GATE", "WAITING", "UNDO WAITING", "PERMITS", "REASON", "OPENS"],
        gates.iter().map(|gate| {
            let opens = match (&gate.closed_since, &gate.closed_until) {
                (None, _) => String::new(),
                (Some(_), Some(until)) => until.clone(),
                (Some(_), None) => "when a person opens it".to_owned(),
            };
            vec![
                gate.state.clone(),
                gate.key.clone(),
                gate.waiting.to_string(),
                gate.waiting_compensations.to_string(),
                gate.permits_held.to_string(),
                gate.closed_reason.clone().unwrap_or_default(),
                opens,
            ]
        }),
    )
}

const STEP_HEAD: [&str; 7] = ["STEP", "ACTIVITY", "STANDS", "TRIES", "UNDO TRIES", "LAST FAILURE", "NEXT"];

/// Everything about one saga.
pub fn saga(detail: &SagaDetail) -> String {
    let mut text = format!("{}\n", why(detail));
    text.push_str("\nSTEPS\n");
    text.push_str(&table(&STEP_HEAD, detail.steps.iter().map(step)));
    if let Some(next) = &detail.next_steps {
        let (shown, total) = (detail.steps.len(), detail.steps_total);
        let next = super::shell_word(&line(next));
        text.push_str(&format!(
            "{shown} of {total}. More: amends saga show {} --steps-after {next}\n",
            line(&detail.saga.id)
        ));
    }
    if !detail.steps_in_need.is_empty() {
        text.push_str("\nOTHER STEPS THAT NEED A LOOK\n");
        text.push_str(&table(&STEP_HEAD, detail.steps_in_need.iter().map(step)));
    }
    if !detail.resources.is_empty() {
        text.push_str("\nOUTSIDE\n");
        text.push_str(&resource_rows(&detail.resources));
    }
    text
}

fn step(step: &Step) -> Vec<String> {
    let forward = step.attempts.iter().filter(|attempt| attempt.lane == "forward").count();
    // Of one with very many attempts only the last are told.
    let more = if step.attempts_before > 0 { "+" } else { "" };
    let tries = |number: usize| format!("{number}{more}");
    let failure = step.attempts.iter().rev().find_map(|attempt| attempt.detail.clone());
    vec![
        step.key.clone(),
        step.activity.clone().unwrap_or_default(),
        step.phase.clone(),
        tries(forward),
        tries(step.attempts.len() - forward),
        failure.unwrap_or_default(),
        step.next_at.clone().unwrap_or_default(),
    ]
}

/// A saga in a few lines: what happened, what now, what is outside, what can be done.
pub fn why(detail: &SagaDetail) -> String {
    let saga = &detail.saga;
    let of = saga.instance.as_ref().map(|instance| format!(" of {instance}")).unwrap_or_default();
    let attention: Vec<String> = saga.attention.iter().map(ToString::to_string).collect();
    let attention = if attention.is_empty() { String::new() } else { format!(" ({})", attention.join(", ")) };
    let mut lines = vec![
        format!("{} is {}{attention}: {}{of}, {}", saga.id, saga.state, saga.kind, saga.age),
        format!("What happened   {}", detail.why.happened),
        format!("What it does    {}", detail.why.now),
        format!("Outside         {}", detail.why.outside),
        format!("You             {}", detail.why.you),
    ];
    for allowed in &detail.allowed_actions {
        lines.push(format!("                {}", command(&saga.id, allowed)));
    }
    lines.iter_mut().for_each(|text| *text = line(text));
    lines.join("\n")
}

/// The command that does an act; what is to be filled in is in capital letters.
fn command(saga: &str, allowed: &AllowedAct) -> String {
    let mut words = vec![format!("amends saga act {saga} {}", allowed.kind)];
    match allowed.steps.as_slice() {
        [] => {}
        [only] => words.push(format!("--step {}", super::shell_word(only))),
        _ => words.push("--step STEP".to_owned()),
    }
    let fields = act::fields(allowed.kind).iter().map(|field| {
        let said = format!("--{} {}", field.name.replace('_', "-"), field.name.to_uppercase());
        if field.required { said } else { format!("[{said}]") }
    });
    words.extend(fields);
    words.push("--reason WHY".to_owned());
    words.join(" ")
}

fn paged<T>(table: String, page: &Page<T>, command: &str) -> String {
    if page.items.is_empty() {
        return "None.\n".to_owned();
    }
    match &page.next_cursor {
        Some(cursor) => format!("{table}More: {command} --cursor {}\n", super::shell_word(&line(cursor))),
        None => table,
    }
}

fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(head.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Text from outside, without what would steer a terminal, or show its letters in another order than they have.
pub(super) fn plain(text: &str) -> String {
    let hides = |char: char| is_unseen(char) && !matches!(char, '\n' | '\u{2028}' | '\u{2029}');
    text.chars().map(|char| if hides(char) { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// JSON as it came, on a line of its own. What cannot be seen in a text of it is written as its number, which reads as the
/// same; outside of texts JSON has no such character but line breaks and tabs.
pub(super) fn json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 1);
    for char in text.chars() {
        match char {
            '\n' | '\t' => safe.push(char),
            '\r' => safe.push(' '),
            char if is_unseen(char) => {
                char.encode_utf16(&mut [0; 2])
                    .iter()
                    .for_each(|unit| safe.push_str(&format!("\\u{unit:04x}")));
            }
            char => safe.push(char),
        }
    }
    safe.push('\n');
    safe
}

/// The same on one line, so that no text can pass for a line of ours.
pub(super) fn line(text: &str) -> String {
    plain(text).replace(['\n', '\u{2028}', '\u{2029}'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn detail() -> SagaDetail {
        SagaDetail::of(&samples::stuck().view(), samples::at(300_100))
    }

    #[test]
    fn a_list_is_a_plain_table_that_says_how_to_go_on() {
        let next_cursor = Some(samples::saga().to_string());
        let page = Page { items: vec![detail().saga], next_cursor };
        insta::assert_snapshot!(sagas(&page));
        assert_eq!(sagas(&Page { items: Vec::new(), next_cursor: None }), "None.\n");
    }

    #[test]
    fn no_time_that_stands_for_never_is_told() {
        let told = saga(&SagaDetail::of(&samples::without_end().view(), samples::at(300_000)));
        assert!(!samples::says_never(&told), "{told}");
    }

    #[test]
    fn a_saga_is_told_with_its_steps_and_what_is_outside() {
        insta::assert_snapshot!(saga(&detail()));
    }

    #[test]
    fn the_ledger_is_a_table() {
        let items = detail().resources;
        insta::assert_snapshot!(resources(&Page { items, next_cursor: None }));
    }

    #[test]
    fn no_text_from_outside_passes_for_a_line_of_ours_or_turns_its_letters_round() {
        let mut detail = detail();
        let before = why(&detail).lines().count();
        detail.why.happened = "down\nYou             amends saga act x skip\u{2028}\u{1b}[1A\u{202e}x".into();
        let text = why(&detail);
        assert_eq!(text.lines().count(), before, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{2028}']), "{text:?}");
    }

    #[test]
    fn json_is_printed_with_what_cannot_be_seen_as_its_number_and_reads_as_the_same() {
        let value = serde_json::json!({
            "a\u{202e}b": "\u{1b}[2J\u{9b}2J\u{7f}", "c": ["\u{200b}\u{2066}x\u{2069}\u{feff}", "é ünï 😀\n\t"],
            "tag": "\u{e0041}", "e": "\\u202e \\", "line": "\u{2028}",
        });
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap().replace('\n', "\r\n")] {
            let printed = json(&text);
            assert!(!printed.chars().any(|char| is_unseen(char) && char != '\n'), "{printed:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
        }
        assert_eq!(json("{\"a\": \"\u{202e}é\"}"), "{\"a\": \"\\u202eé\"}\n");
    }

    #[test]
    fn no_cell_holds_a_mark_that_turns_text_round_or_has_no_width() {
        let mut saga = detail().saga;
        saga.error = Some("a\u{202e}b\u{200b}c\u{2066}d\u{feff}e\u{61c}f\u{9b}g\u{2060}h".into());
        let text = sagas(&Page { items: vec![saga], next_cursor: Some("a\u{202e}b; rm".into()) });
        assert!(!text.chars().any(|char| is_unseen(char) && char != '\n'), "{text:?}");
        assert!(text.contains("--cursor 'a\u{fffd}b; rm'"), "{text}");
    }

    #[test]
    fn what_would_steer_a_terminal_is_not_printed() {
        let mut saga = detail().saga;
        saga.error = Some("\u{1b}[2Jgone".into());
        let text = sagas(&Page { items: vec![saga], next_cursor: None });
        assert!(!text.contains('\u{1b}') && text.contains("[2Jgone"));
    }
}
