//! The bench from outside: every workload in small, its counts, and what it refuses.

#![allow(clippy::unwrap_used, missing_docs, clippy::disallowed_methods, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use amends_tests::postgres::Server;
use amends_tests::process::binary;
use serde_json::Value;

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(["bench", "--folder"]).arg(folder).args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

fn measured(folder: &Path, store: &str, arguments: &[&str]) -> Vec<Value> {
    let output = bench(folder, &[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 0, "what it made is removed");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["store"], report["runs"].as_u64()), (&store.into(), Some(1)), "{report}");
    report["results"].as_array().unwrap().clone()
}

fn median(figures: &Value, name: &str) -> f64 {
    figures[name]["median"].as_f64().unwrap_or_else(|| panic!("no {name} in {figures}"))
}

/// The ratios are there, and are those of the figures they say.
fn assert_compared(result: &Value) {
    let all = result["beside"].as_array().unwrap();
    assert!(!all.is_empty(), "{result}");
    for beside in all {
        let of = beside["ratio_of"].as_str().unwrap();
        let ratio = median(&result["ours"], of) / median(&beside["figures"], of);
        assert!((median(beside, "ratio") - ratio).abs() < 1e-9, "{result}");
        assert!(ratio > 0.0, "{result}");
    }
}

fn is_compared(result: &Value) -> bool {
    !result["beside"].as_array().unwrap().is_empty()
}

/// What ran is what was asked for, and all of it is recorded.
fn assert_adds_up(result: &Value) {
    let (ours, settings) = (&result["ours"], &result["settings"]);
    let count = |name: &str| settings[name].as_f64().unwrap();
    match result["workload"].as_str().unwrap() {
        "W1" | "W2" | "W6" | "W8" => {
            assert!((median(ours, "sagas_completed") - count("sagas")).abs() < 0.5, "{result}");
            let steps = count("sagas") * count("steps");
            assert!((median(ours, "steps_recorded") - steps).abs() < 0.5, "{result}");
            assert!(median(ours, "kept_bytes_each") > 60.0, "{result}");
            assert!(median(ours, "saga_p50_ms") <= median(ours, "saga_p99_ms"), "{result}");
            assert_compared(result);
        }
        "W10" => {
            assert!((median(ours, "sagas_completed") - count("sagas")).abs() < 0.5, "{result}");
            assert!(
                (median(ours, "steps_recorded") - count("sagas") * count("steps")).abs() < 0.5,
                "{result}"
            );
            assert_eq!(is_compared(result), count("processes") > 1.5, "{result}");
            if is_compared(result) {
                assert_compared(result);
            }
        }
        "W3" => {
            assert!((median(ours, "sagas_started") - count("starts")).abs() < 0.5, "{result}");
            assert_compared(result);
        }
        "W4" => {
            assert!((median(ours, "woken") - 10.0).abs() < 0.5, "{result}");
            if is_compared(result) {
                assert!(median(ours, "ready_s") <= median(ours, "all_done_s"), "{result}");
                assert_compared(result);
            } else {
                assert!(median(ours, "late_p50_ms") <= median(ours, "late_p99_ms"), "{result}");
            }
        }
        "W5" => {
            assert!((count("sleepers") - 100.0).abs() < 0.5, "{result}");
            if is_compared(result) {
                assert_compared(result);
            }
        }
        _ => {
            assert!((median(ours, "sagas_compensated") - count("sagas")).abs() < 0.5, "{result}");
            let undone = count("sagas") * count("steps");
            assert!((median(ours, "compensations_recorded") - undone).abs() < 0.5, "{result}");
            assert_compared(result);
        }
    }
}

#[test]
fn every_workload_of_one_process_is_measured_and_its_counts_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let size = ["--sagas", "20", "--steps", "3", "--in-flight", "5", "--runs", "1", "--sleepers", "10"];
    let all = measured(folder.path(), "sqlite", &[&size[..], &["--payload", "60,1000"]].concat());
    let names: Vec<&str> = all.iter().map(|result| result["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["W1", "W1", "W2", "W3", "W3", "W4", "W4", "W5", "W5", "W6", "W7", "W8"]);
    all.iter().for_each(assert_adds_up);
    let payload = |result: &Value| median(&result["ours"], "kept_bytes_each");
    assert!(payload(&all[1]) > payload(&all[0]) + 900.0, "a larger payload is kept: {:?}", &all[..2]);
}

#[test]
fn postgres_is_measured_too_and_shared_by_processes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::shared();
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", server.port());
    let before = server.psql("postgres", "select count(*) from pg_database");
    let size = ["--sagas", "20", "--steps", "3", "--in-flight", "5", "--runs", "1", "--sleepers", "10"];
    let which = ["W1", "W2", "W3", "W5", "W6", "W7", "W8", "W10", "--database-url", &url];
    let all = measured(folder.path(), "postgres", &[&size[..], &which].concat());
    assert_eq!(all.len(), 12, "{all:?}");
    all.iter().for_each(assert_adds_up);
    let processes = all.iter().filter(|result| result["workload"] == "W10");
    let counts: Vec<u64> =
        processes.map(|result| result["settings"]["processes"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 2, 4]);
    assert_eq!(
        server.psql("postgres", "select count(*) from pg_database"),
        before,
        "its databases are removed"
    );
}

#[test]
fn one_at_a_time_is_a_commit_for_each_turn_with_and_without_an_engine() {
    let folder = tempfile::tempdir().unwrap();
    let all = measured(
        folder.path(),
        "sqlite",
        &["W2", "--sagas", "50", "--steps", "4", "--in-flight", "5", "--runs", "1"],
    );
    let [result] = all.as_slice() else { panic!("{all:?}") };
    // A start, four intents with what came before, and the end: six commits for four steps.
    assert!((median(&result["ours"], "commits") - 5.0 * 6.0).abs() < 0.5, "{result}");
    assert!((median(&result["beside"][0]["figures"], "writes_per_commit") - 1.0).abs() < 1e-9, "{result}");
}

#[test]
fn sagas_that_are_asked_for_over_http_are_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["W1", "--over-http", "--sagas", "20", "--steps", "3", "--in-flight", "5", "--runs", "1"];
    let all = measured(folder.path(), "sqlite", &arguments);
    let [result] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(result["settings"]["over_http"], 1, "{result}");
    assert_adds_up(result);
}

#[test]
fn a_table_for_people_says_what_is_compared() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &["w3", "--sagas", "5", "--in-flight", "5", "--runs", "1"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    for part in ["sqlite on", "W3 durable starts, 64 at a time", "BARE LOOP", "RATIO", "starts_per_second"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(progress.contains("run 1 of 1"), "{progress}");
}

#[test]
fn what_cannot_be_measured_is_refused_clearly() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, hint) in [
        (&["W9"][..], "W9"),
        (&["--runs", "0"], "--runs"),
        (&["--steps", "0"], "--steps"),
        (&["--sagas", "5", "--in-flight", "9"], "--sagas"),
        (&["--payload", "9999999"], "--payload"),
        (&["--payload", "much"], "--payload"),
        (&["W10"], "--database-url"),
        (&["W1", "W3", "--over-http"], "W3 asks for no sagas"),
        (&["--database-url", "mysql://x"], "postgres://"),
        (&["W3", "--database-url", "postgres://127.0.0.1:1/nowhere"], "--database-url"),
    ] {
        let output = bench(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(hint), "{arguments:?}: {said}");
    }
    let missing = folder.path().join("nowhere");
    let output = bench(&missing, &["W3"]);
    assert!(!output.status.success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
