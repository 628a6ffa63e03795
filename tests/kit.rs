//! Every verb of the model, tried by the kit in every way in which calls, processes and operators go wrong.

#![allow(missing_docs, reason = "tests")]

use std::sync::Arc;

use amends_engine::Workflow;
use amends_engine::testing::kit::{Kit, World};
use amends_tests::yard::{
    Choice, Drawing, Family, NOTES, Parallel, Racing, Rocket, Straight, Treasure, Waiting, Yard, registry,
};

fn kit<W: Workflow<Input = String>>() -> Kit<W> {
    Kit::new("x".to_owned(), || {
        let yard = Arc::new(Yard::default());
        let registry = registry(&yard);
        World::new(registry, move || yard.names()).tables(NOTES, "select text from note")
    })
}

fn tried<W: Workflow<Input = String>>(kit: Kit<W>) {
    let report = kit.run();
    eprintln!("{}: {report}", W::NAME);
    assert!(report.reached == report.points, "{report}");
    assert!(report.worlds.get("stray").is_some_and(|worlds| *worlds > 0), "nothing landed late: {report}");
}

#[test]
fn a_straight_saga_ends_whole_or_leaves_nothing() {
    // What is made anew after its only answer was lost has the next generation's name.
    let with_another_coin = ["x-coin-g2", "x-house", "x-house.room", "x-lamp", NOTE_BEGUN, NOTE_SIGNED];
    tried(kit::<Straight>().may_leave(&with_another_coin));
}

const NOTE_BEGUN: &str = r#"[("text", Text("x-begun"))]"#;
const NOTE_SIGNED: &str = r#"[("text", Text("x-signed"))]"#;

#[test]
fn branches_side_by_side_end_whole_or_leave_nothing() {
    tried(kit::<Parallel>());
}

#[test]
fn a_way_that_failed_is_taken_back_and_the_other_ends_whole_or_leaves_nothing() {
    tried(kit::<Choice>());
}

#[test]
fn a_race_leaves_what_its_winner_made_or_nothing() {
    let slow = ["x-flag-of-slow", "x-slow-camp-a", "x-slow-camp-b", "x-slow-rope"];
    tried(kit::<Racing>().may_leave(&slow));
}

#[test]
fn a_family_ends_whole_or_leaves_nothing() {
    // Nobody waits for the child that was only started.
    tried(kit::<Family>().may_leave(&["x-c-ball", "x-c-toy", "x-fence", "x-yard"]));
}

#[test]
fn drawn_values_and_times_survive_everything() {
    tried(kit::<Drawing>());
}

#[test]
fn a_saga_that_waits_for_words_ends_whole_or_leaves_nothing() {
    tried(kit::<Waiting>().signal("word", "yes"));
}

#[test]
fn what_is_blind_and_what_is_known_for_a_while_end_whole_or_leave_nothing() {
    let with_another_flag = ["x-boat", "x-chest", "x-flag-g2", "x-map"];
    tried(kit::<Treasure>().may_leave(&with_another_flag));
}

#[test]
fn what_cannot_be_taken_back_stays_whole() {
    tried(kit::<Rocket>());
}
