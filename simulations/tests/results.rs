//! What is made of results, as people use it: a sweep, its report, a comparison, a baseline.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Two stories, one of which ends an apiserver.
const STORIES: [&str; 2] = ["calm", "apiserver-crashes"];

fn simulations(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulations")).args(arguments).output().expect("it starts")
}

#[track_caller]
fn ends(arguments: &[&str], code: i32) -> String {
    let output = simulations(arguments);
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    told
}

/// Plays both stories with two seeds in their smallest clusters, and whatever else a sweep is asked.
fn sweep(more: &[&str], code: i32) -> String {
    let mut arguments = vec!["sweep", "--seeds", "2", "--smallest", "--only"];
    arguments.extend(STORIES);
    arguments.extend(more);
    ends(&arguments, code)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("it is there")).expect("JSON")
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).expect("written");
}

#[test]
fn a_sweep_is_reported_compared_and_held_to_its_baseline() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let text = |name: &str| at(name).to_str().expect("a path").to_owned();
    sweep(&["--out", &text(""), "--write-baseline", &text("baseline.json")], 0);

    ends(&["report", &text("results.json"), "--out", &text("report.html")], 0);
    let page = std::fs::read_to_string(at("report.html")).expect("a page");
    the_page_tells(&page);

    ends(&["compare", &text("results.json"), &text("results.json")], 0);
    let mut worse = read(&at("results.json"));
    for outcome in worse["outcomes"].as_array_mut().expect("runs") {
        outcome["figures"]["first_byte_p50_ms"] = json!(4_000.0);
    }
    write(&at("worse.json"), &worse);
    let told = ends(&["compare", &text("results.json"), &text("worse.json")], 1);
    assert!(told.contains("first byte p50 (ms)") && told.contains("WORSE"), "{told}");
    ends(&["compare", &text("worse.json"), &text("results.json")], 0);
    ends(&["compare", &text("results.json"), &text("report.html")], 2);
    ends(&["report", &text("report.html")], 2);

    let told = sweep(&["--baseline", &text("baseline.json")], 0);
    assert!(told.contains("no worse than the baseline in 2 scenarios"), "{told}");
    let mut better = read(&at("baseline.json"));
    better["scenarios"]["calm"]["figures"]["engine_steps_per_s"] = json!({"p50": 1.0, "most": 1.0});
    better["scenarios"].as_object_mut().expect("scenarios").remove("apiserver-crashes");
    write(&at("better.json"), &better);
    let told = sweep(&["--baseline", &text("better.json")], 1);
    assert!(told.contains("calm: engine steps a second, p50"), "{told}");
    assert!(told.contains("apiserver-crashes is not in the baseline"), "{told}");
    write(&at("other.json"), &json!({"seeds": [7], "smallest": true, "scenarios": {}}));
    sweep(&["--baseline", &text("other.json")], 2);
}

/// An apiserver that fails in some way, in a cluster of one's own.
const MINE: &str = "
cluster:
  nodes:
    - {control-plane: true, count: 2}
    - {count: 2}
steps:
  - {at: 6s, lasts: 3s, apiserver: {of: cp-1, mode: hung}}
lasts: 12s
";

#[test]
fn a_cluster_of_ones_own_is_swept_with_its_bound_and_two_configurations_are_compared() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    std::fs::write(text("as-it-is.yaml"), MINE).expect("written");
    let crashes = MINE.replace("hung", "refusing");
    std::fs::write(text("as-it-could-be.yaml"), crashes).expect("written");
    for (name, out) in [("as-it-is.yaml", "a"), ("as-it-could-be.yaml", "b")] {
        let told = ends(&["sweep", "--cluster", &text(name), "--seeds", "2", "--out", &text(out)], 0);
        assert!(told.contains("2 runs") && told.contains("(3/n)"), "{told}");
    }
    let told = simulations(&["compare", &text("a/results.json"), &text("b/results.json")]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("2 runs on both sides"), "{told}");
    ends(&["report", &text("a/results.json"), &text("b/results.json"), "--out", &text("both.html")], 0);
    let page = std::fs::read_to_string(text("both.html")).expect("a page");
    assert!(page.contains("scenario-as-it-is") && page.contains("apiserver of cp-1 hangs"));

    let (one, other) = (text("one.json"), text("other.json"));
    ends(&["run", "--cluster", &text("as-it-is.yaml"), "--json", &one], 0);
    ends(&["run", "--cluster", &text("as-it-could-be.yaml"), "--json", &other], 0);
    let told = simulations(&["compare", &one, &other]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("1 run on both sides"));
    ends(&["compare", &one, &text("a/results.json")], 0);
    ends(&["sweep", "--cluster", &text("no-such.yaml")], 2);
}

#[test]
fn a_page_tells_how_a_run_that_failed_is_played_again_and_counts_baselines_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let (spoilt, page) = (text("spoilt.json"), text("page.html"));
    ends(&["run", "calm", "--smallest", "--seed", "3", "--sabotage", "one-connection", "--json", &spoilt], 1);
    ends(&["report", &spoilt, "--out", &page], 0);
    let told = std::fs::read_to_string(&page).expect("a page");
    assert!(told.contains("-- run calm --seed 3 --smallest --sabotage one-connection</pre>"));

    let others = text("others.json");
    ends(&["run", "calm", "--smallest", "--baselines", "--json", &others], 0);
    assert_eq!(read(Path::new(&others))["baselines"].as_array().map(Vec::len), Some(2));
    let balancer = text("balancer.json");
    ends(&["run", "calm", "--smallest", "--by", "balancer", "--json", &balancer], 0);
    ends(&["report", &balancer, "--out", &page], 0);
    let told = std::fs::read_to_string(&page).expect("a page");
    assert!(!told.contains("p class=\"verdict") && told.contains("the external balancer only"));
}

#[test]
fn what_cannot_be_played_or_set_against_a_baseline_is_refused_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let baseline = dir.path().join("baseline.json");
    write(&baseline, &json!({"seeds": [7], "smallest": false, "scenarios": {}}));
    let told = ends(&["sweep", "--baseline", baseline.to_str().expect("a path")], 2);
    assert!(told.contains("the baseline is of seeds"), "{told}");
    ends(&["reports", "--seeds", "0"], 2);
    let told = ends(&["run", "calm", "--smallest", "--wall", "0"], 1);
    assert!(told.contains("it had not ended after 0 s") && told.contains("again:"), "{told}");
}

/// Each scenario, what was not exercised, and data that can be read; and nothing is fetched from anywhere.
fn the_page_tells(page: &str) {
    for name in STORIES {
        assert!(page.contains(&format!("id=\"scenario-{name}\"")), "{name} is missing");
    }
    assert!(page.contains("not exercised") && page.contains("Not exercised by any of these runs"));
    assert!(page.contains("<svg") && page.contains("bandwidth"));
    for fetched in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(fetched), "the page has {fetched}");
    }
    let after = page.split_once("<script type=\"application/json\" id=\"results\">").expect("data").1;
    let data: Value = serde_json::from_str(after.split_once("</script>").expect("an end").0).expect("JSON");
    assert_eq!(data["runs"].as_array().map(Vec::len), Some(4));
    assert_eq!(data["scenarios"][0]["runs"], 2);
}
