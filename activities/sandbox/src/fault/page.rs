//! Page: the catalogue in Markdown, for docs/sandbox.md and the command line.

use std::fmt::Write;

use strum::IntoEnumIterator;

use super::catalogue::{COMMON, Parameter};
use super::{Kind, Preset, Provider};

/// The parts of docs/sandbox.md that follow from the catalogue, in Markdown.
pub fn page() -> String {
    let mut page = String::new();
    let mut line = |text: String| {
        // Writing to a string does not fail.
        let _ = writeln!(page, "{text}");
    };
    line("## What every fault takes\n".to_owned());
    line("| parameter | |\n|---|---|".to_owned());
    for parameter in COMMON {
        line(format!("| `{}`{} | {} |", parameter.name, needed(parameter), cell(parameter.what)));
    }
    line("\n## Faults\n".to_owned());
    line("| fault | what happens | where | takes |\n|---|---|---|---|".to_owned());
    for kind in Kind::iter() {
        let entry = kind.entry();
        let takes: Vec<String> = entry
            .parameters
            .iter()
            .map(|parameter| format!("`{}`{}: {}", parameter.name, needed(parameter), parameter.what))
            .collect();
        let (what, takes) = (cell(entry.what), cell(&takes.join("; ")));
        line(format!("| `{kind}` | {what} | {} | {takes} |", entry.applies.words()));
    }
    line("\n## Presets\n".to_owned());
    line("| preset | answer |\n|---|---|".to_owned());
    for preset in Preset::iter() {
        line(format!("| `{preset}` | {} |", cell(preset.what())));
    }
    line("\n## Operations\n".to_owned());
    line("| provider | operations |\n|---|---|".to_owned());
    for provider in Provider::iter() {
        let names: Vec<String> = provider.operations().iter().map(|name| format!("`{name}`")).collect();
        line(format!("| `{provider}` | {} |", names.join(", ")));
    }
    page
}

fn needed(parameter: &Parameter) -> &'static str {
    if parameter.is_needed { " (needed)" } else { "" }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
