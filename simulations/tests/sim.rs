//! The simulations as people start them: a process a run.

use std::path::Path;
use std::process::{Command, Output};

/// Fifty nodes for some seconds: where differences between two runs would show.
const FIFTY: &str = "
cluster:
  zones: [[2, 6], [6, 2]]
  nodes:
    - {control-plane: true, count: 3, zone: 0}
    - {count: 24, zone: 0}
    - {count: 23, zone: 1}
  stagger: 1s
steps:
  - at: 6s
    apiserver: {of: cp-1, mode: refusing}
lasts: 9s
";

fn simulations(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulations")).args(arguments).output().expect("it starts")
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn hash(plan: &Path, seed: &str) -> String {
    hash_in(&told(&simulations(&["run", "--cluster", plan.to_str().expect("a path"), "--seed", seed])))
}

fn hash_in(told: &str) -> String {
    let hash = told.split("hash ").nth(1).and_then(|rest| rest.split_whitespace().next());
    hash.unwrap_or_else(|| panic!("no hash in: {told}")).to_owned()
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = dir.path().join("fifty.yaml");
    std::fs::write(&plan, FIFTY).expect("written");
    let first = hash(&plan, "1");
    assert_eq!(first, hash(&plan, "1"), "a run is a function of its seed");
    assert_ne!(first, hash(&plan, "2"));
}

#[test]
fn every_quick_scenario_holds_in_its_smallest_cluster() {
    let output = simulations(&["sweep", "--seeds", "1", "--smallest", "--wall", "240"]);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn a_run_that_fails_prints_the_command_that_repeats_it() {
    let first = simulations(&["run", "calm", "--smallest", "--seed", "3", "--sabotage", "one-connection"]);
    let said = told(&first);
    assert_eq!(first.status.code(), Some(1), "{said}");
    assert!(said.contains("invariant 1, no needless error"), "{said}");
    let again = said.split("again:").nth(1).and_then(|rest| rest.split(" -- ").nth(1)).expect("a command");
    let words: Vec<&str> = again.split_whitespace().collect();
    let second = simulations(&words);
    assert_eq!((second.status.code(), hash_in(&told(&second))), (Some(1), hash_in(&said)));
}

#[test]
fn an_agent_that_never_rests_ends_the_run_with_a_complaint_and_not_never() {
    let output = simulations(&["sabotages", "--play", "--only", "never-rests"]);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn a_run_that_takes_too_long_on_the_wall_is_ended_and_has_failed() {
    let output = simulations(&["sweep", "--only", "calm", "--seeds", "1", "--wall", "0"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("it had not ended after 0 s"), "{}", told(&output));
}

#[test]
fn what_a_node_decided_can_be_written_down_and_decided_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let logs = dir.path().to_str().expect("a path");
    let output = simulations(&["run", "apiserver-crashes", "--smallest", "--record", logs]);
    assert!(output.status.success(), "{}", told(&output));
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).expect("there").map(|it| it.expect("an entry").path()).collect();
    files.sort();
    let file = files.first().expect("a log a node").to_str().expect("a path");
    let output = simulations(&["replay", file]);
    assert!(output.status.success(), "{}", told(&output));

    let text = std::fs::read_to_string(file).expect("text");
    std::fs::write(file, text.replace("\"verdict\":\"ready\"", "\"verdict\":\"draining\"")).expect("written");
    let output = simulations(&["replay", file]);
    assert!(!output.status.success(), "an effect was forged, and the engine decides otherwise: {}", told(&output));
}

#[test]
fn a_node_explains_itself_at_any_moment() {
    let output = simulations(&["explain", "calm", "--smallest", "--node", "worker-1", "--at", "20s"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(told(&output).contains("ready"), "{}", told(&output));
    let output = simulations(&["explain", "calm", "--smallest", "--node", "nobody", "--at", "20s"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
}

/// The only apiserver is gone for a while, which is why clients wait; two other faults have nothing to do with it.
const TOO_MUCH: &str = "
cluster:
  nodes:
    - {control-plane: true}
    - {count: 3}
  fresh-every: 1s
steps:
  - {at: 5s, lasts: 2s, latency: {of: worker-1, ms: 5}}
  - {at: 6s, lasts: 12s, apiserver: {of: cp-1, mode: refusing}}
  - {at: 7s, lasts: 2s, clock-jump: {of: worker-2, by: 5000}}
lasts: 20s
";

#[test]
fn a_story_that_fails_is_made_smaller_while_it_still_fails() {
    let dir = tempfile::tempdir().expect("a directory");
    let (plan, small) = (dir.path().join("plan.yaml"), dir.path().join("small.yaml"));
    std::fs::write(&plan, TOO_MUCH).expect("written");
    let (plan, small) = (plan.to_str().expect("a path"), small.to_str().expect("a path"));
    let output = simulations(&["shrink", "--cluster", plan, "--expect", "first_byte_slowest_ms<=3000", "--out", small]);
    assert!(output.status.success(), "{}", told(&output));
    let text = std::fs::read_to_string(small).expect("written");
    assert!(text.contains("refusing") && !text.contains("latency") && !text.contains("clock-jump"), "{text}");
}

#[test]
fn a_scenario_or_a_file_that_is_not_there_is_wrong_usage() {
    for arguments in [&["run", "no-such-story"][..], &["run", "--cluster", "/no/such/file.yaml"]] {
        let output = simulations(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    }
}
