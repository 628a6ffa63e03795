//! Every example runs, as a process of its own, and ends with the line that says what it has shown.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo put the examples; built with the tests unless only some of them were asked for.
fn folder() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("examples")
}

/// Each example, and how its last line ends.
const EXAMPLES: &[(&str, &str)] = &[
    ("hello_saga", "it yielded \"Good morning, Ann! Good morning, world!\"."),
    ("unwinding", "undone were cat-sitter, hotel, flight; the hotel at the third try, the flight only then."),
    ("in_doubt", "1 call, no answer, and 1 machine; it was found by its name and adopted."),
    ("parallel", "two copies stay where two are enough, and none where all were asked for."),
    ("another_way", "reserved are dear/bicycle and dear/saddle."),
    (
        "human_approval",
        "one order was approved and is completed, the other was forgotten and is compensated.",
    ),
    ("child_sagas", "there are red-shed, red-kitchen."),
    ("crash_and_go_on", "there are house, roof."),
    ("own_provider", "example-key-g2 serves, and its secret is not in the journal."),
    ("sweep", "an orphan, removed by a saga, and 1 machine left, which is a colleague's."),
    ("transactional_start", "two orders were sent; 1 row and 1 saga are there."),
];

#[test]
fn every_example_runs_and_shows_what_it_says() {
    for (name, ends) in EXAMPLES {
        let path = folder().join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
        assert!(path.exists(), "{} is not there: cargo build --workspace --examples first", path.display());
        let ran = Command::new(path).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{name}: {}\n{out}\n{err}", ran.status);
        let last = out.lines().last().unwrap_or_default();
        assert!(last.starts_with("Look at: ") && last.ends_with(ends), "{name} ends with: {last}");
    }
}

/// Each begins with one sentence that says what it shows, and none is forgotten here.
#[test]
fn every_example_says_what_it_shows_and_is_run_here() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    for folder in ["engine/examples", "api/examples"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let first = text.lines().next().unwrap();
            assert!(first.starts_with("//! ") && first.ends_with('.'), "{}: {first}", path.display());
            found.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(found, EXAMPLES.iter().map(|(name, _)| (*name).to_owned()).collect());
}
