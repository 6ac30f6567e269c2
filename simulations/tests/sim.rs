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
    let output = simulations(&["run", "--cluster", plan.to_str().expect("a path"), "--seed", seed]);
    let told = told(&output);
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
fn an_agent_that_never_cuts_is_found_out() {
    let output = simulations(&["sabotages", "--play", "--only", "never-cuts"]);
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn a_scenario_or_a_file_that_is_not_there_is_wrong_usage() {
    for arguments in [&["run", "no-such-story"][..], &["run", "--cluster", "/no/such/file.yaml"]] {
        let output = simulations(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    }
}
