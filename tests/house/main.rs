//! The rules of the house, as tests: who imports whom, who may know what, and that the documents speak of what is there.
//!
//! They read the repository as text. That sees everything that is in it, on every platform and behind every `cfg`, and
//! needs no compiler's inner life; the price is a small reader of Rust in [`rust`] and one of Markdown in [`pages`].

mod pages;
mod rust;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use pages::Page;
use rust::Source;

/// Lines of a file before its tests, at most.
const LINES: usize = 500;

/// Who may import whom. The same table, for people, is in `docs/ARCHITECTURE.md`.
const MODULES: [(&str, &[&str]); 13] = [
    ("engine", &[]),
    ("service", &[]),
    ("log", &[]),
    ("supervise", &[]),
    ("world", &["engine"]),
    ("config", &["engine", "world"]),
    ("names", &["config", "world", "supervise"]),
    ("gossip", &["engine", "config", "world", "supervise"]),
    ("proxy", &["engine", "config", "world", "supervise"]),
    ("probe", &["engine", "config", "world"]),
    ("admin", &["engine", "config", "world", "supervise"]),
    ("agent", &["engine", "service", "log", "supervise", "world", "config", "names", "gossip", "proxy", "probe", "admin"]),
    ("cli", &["engine", "service", "log", "supervise", "world", "config", "names", "gossip", "proxy", "probe", "admin", "agent"]),
];

/// Where everything that is compiled stands, but for the fuzz targets' own crate below `tests`, which is there too.
const EVERYTHING: [&str; 3] = ["src", "simulations", "tests"];

/// The one file that is not safe: it replaces a C function, so that a simulation can be repeated.
const UNSAFE: [&str; 2] = ["src/world/real/tcp_info.rs", "simulations/src/sim/seed.rs"];

/// Words that only some places may use in the library, outside tests.
const RESERVED: [(&[&str], &[&str], &str); 5] = [
    (&["chitchat"], &["src/gossip/"], "chitchat is behind the door of src/gossip"),
    (&["bincode"], &["src/gossip/codec.rs"], "an unmaintained codec stays in one file, so that it can be replaced there"),
    (
        &["tokio::net", "TcpSocket", "TcpStream", "UdpSocket"],
        // `cli` asks a running agent; `service` and `agent` hand over sockets that were inherited.
        &["src/world/real/", "src/cli/", "src/service.rs", "src/agent/sockets.rs"],
        "sockets come through the seams of src/world.rs",
    ),
    (&["std::fs", "tokio::fs", "fs::File"], &["src/world/real/", "src/cli/"], "files come through the seams of src/world.rs"),
    (
        &["SystemTime::now", "std::time::Instant"],
        &["src/world/real/"],
        "timers are tokio's; the time of day comes through the WallClock",
    ),
];

/// What decides, which a simulation may only look on: who may name it below `simulations/src/sim` and `simulations/scenarios`.
const DECIDES: [(&[&str], &[&str], &str); 3] = [
    (
        &["Upstream", "impl Spoil"],
        &["simulations/src/sim/sabotage.rs", "simulations/src/sim/sabotage/resets.rs", "simulations/src/sim/sabotage/stale.rs"],
        "only a sabotage makes an upstream of its own, or stands between an agent and its engine",
    ),
    (
        // The word alone: whatever kinds of events there are and will be.
        &["Event", "Effect", "Engine::new"],
        &[
            "simulations/src/sim/sabotage.rs",
            "simulations/src/sim/sabotage/resets.rs",
            "simulations/src/sim/sabotage/stale.rs",
            "simulations/src/sim/sabotage/trusting.rs",
            "simulations/src/sim/sabotage/weak.rs",
            "simulations/src/sim/watched.rs",
            "simulations/src/sim/recorder.rs",
            "simulations/src/sim/trace.rs",
            "simulations/src/sim/cli/replay.rs",
            // Their events are others: what is logged, and what an apiserver's watches tell.
            "simulations/src/sim/complaints.rs",
            "simulations/src/sim/wire.rs",
            "simulations/src/sim/apiserver.rs",
        ],
        "what the engine is told and what it wants done is written down and replayed, never made up",
    ),
    (
        // An agent's prober and its kernel's time-outs are seams, and their models need what the real ones are made with: how
        // long a probe's connection is kept, when a second one is dialled, how long unacknowledged bytes are waited for.
        // These numbers act there only; no model passes a verdict by them, and no invariant reads one.
        &["policy"],
        &["simulations/src/sim/prober.rs", "simulations/src/sim/tcp.rs"],
        "verdicts, thresholds and intervals are the engine's; only the models of two seams read what the real ones read",
    ),
];

/// What would make the engine depend on more than the events it is told.
const IMPURE: &str = "tokio chitchat rand getrandom tracing hyper rustls Instant SystemTime HashMap HashSet RandomState thread \
    env fs TcpStream UdpSocket";

/// `--flags` of other programs than `prismesh run`, which the documents mention alone.
const OTHER_FLAGS: [&str; 14] = [
    "--test-threads",
    "--help",
    "--version",
    "--config",
    "--record",
    "--json",
    "--force",
    "--nodes",
    "--fast",
    "--kubernetes",
    "--release",
    "--for",
    "--trial",
    "--agent",
];

fn library() -> Vec<Source> {
    rust::sources("src")
}

/// Fails with all findings at once.
#[track_caller]
fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}

#[test]
fn every_module_has_its_place_in_the_house() {
    let there: BTreeSet<String> = library().iter().filter_map(|source| source.module().map(str::to_owned)).collect();
    let known: BTreeSet<String> = MODULES.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert_eq!(there, known, "left: the modules in src; right: those in the tables of tests/house and docs/ARCHITECTURE.md");
}

#[test]
fn modules_import_only_whom_they_may() {
    let names: BTreeSet<&str> = MODULES.iter().map(|(module, _)| *module).collect();
    let may: BTreeMap<&str, &[&str]> = MODULES.into_iter().collect();
    let mut findings = Vec::new();
    for source in library() {
        let Some(module) = source.module() else { continue };
        let allowed = may.get(module).copied().unwrap_or_default();
        for import in source.imports() {
            if names.contains(import.as_str()) && import != module && !allowed.contains(&import.as_str()) {
                findings.push(format!("{} imports {import}", source.path));
            }
        }
    }
    none("docs/ARCHITECTURE.md says who may import whom", &findings);
}

#[test]
fn the_root_of_the_library_only_declares_its_modules() {
    let roots = library().into_iter().filter(|source| source.path == "src/lib.rs");
    let findings: Vec<String> = roots.filter(|root| root.has("use")).map(|root| root.path).collect();
    none("re-exports at the root would hide who imports whom", &findings);
}

#[test]
fn the_architecture_page_tells_the_same_table() {
    let page = Page::read("docs/ARCHITECTURE.md");
    let mut findings = Vec::new();
    for (module, allowed) in MODULES {
        let row = page.text.lines().find(|line| {
            let first = line.split('|').nth(1).unwrap_or_default();
            first.contains(&format!("`src/{module}`")) || first.contains(&format!("`src/{module}.rs`"))
        });
        let Some(row) = row else {
            findings.push(format!("no row for src/{module}"));
            continue;
        };
        let said = row.split('|').nth(3).unwrap_or_default();
        let same = if said.trim() == "all of the above" {
            allowed.len() >= MODULES.len() - 2
        } else {
            let said: BTreeSet<&str> = pages::spans(said).into_iter().collect();
            said == allowed.iter().copied().collect()
        };
        if !same {
            findings.push(format!("src/{module} may import {allowed:?}, the page says:{said}"));
        }
    }
    none("the table in docs/ARCHITECTURE.md and the one in tests/house differ", &findings);
}

#[test]
fn the_engine_knows_nothing_but_what_it_is_told() {
    let mut findings = Vec::new();
    for source in library().into_iter().filter(|source| source.module() == Some("engine") && !source.is_test()) {
        let found = IMPURE.split_whitespace().filter(|word| source.has(word));
        findings.extend(found.map(|word| format!("{} uses {word}", source.path)));
    }
    none("no clock, randomness, sockets, tasks, logs or unordered maps in the engine", &findings);
}

#[test]
fn what_is_reserved_is_used_only_where_it_may() {
    for (words, places, rule) in RESERVED {
        let mut findings = Vec::new();
        for source in library().iter().filter(|source| !source.is_test()) {
            if !places.iter().any(|place| source.path.starts_with(place)) {
                let found = words.iter().filter(|word| source.has(word));
                findings.extend(found.map(|word| format!("{} uses {word}", source.path)));
            }
        }
        none(rule, &findings);
    }
}

#[test]
fn unsafe_code_stands_in_two_files_tests_included() {
    let sources = EVERYTHING.into_iter().flat_map(rust::sources);
    let found: Vec<String> = sources.filter(|source| source.has_anywhere("unsafe")).map(|source| source.path).collect();
    assert_eq!(found, UNSAFE, "left: the files with unsafe code; right: those that may have some");
}

#[test]
fn simulations_decide_nothing() {
    let mut findings = Vec::new();
    for source in rust::sources("simulations") {
        let path = source.path.as_str();
        let simulated = ["simulations/src/sim/", "simulations/scenarios/"].iter().any(|below| path.starts_with(below));
        if !simulated || source.is_test() || path.starts_with("simulations/src/sim/contract/") {
            continue;
        }
        for (words, _, rule) in DECIDES.iter().filter(|(_, places, _)| !places.contains(&path)) {
            let found = words.iter().filter(|word| source.has(word));
            findings.extend(found.map(|word| format!("{path} names {word}: {rule}")));
        }
    }
    none("a simulation sets no verdict, threshold, interval or ranking", &findings);
}

#[test]
fn the_compiler_refuses_unsafe_code_in_every_crate_of_the_workspace() {
    let root = tree::read("Cargo.toml");
    assert!(root.contains("unsafe_code = \"deny\""), "Cargo.toml denies unsafe code for the workspace");
    for manifest in ["Cargo.toml", "simulations/Cargo.toml"] {
        assert!(tree::read(manifest).contains("[lints]\nworkspace = true"), "{manifest} takes the workspace's lints");
    }
}

#[test]
fn a_file_holds_one_thing() {
    let sources = EVERYTHING.into_iter().flat_map(rust::sources);
    let long = sources.filter(|source| !source.is_test() && source.lines_before_tests() > LINES);
    let findings: Vec<String> =
        long.map(|source| format!("{}: {} lines before its tests", source.path, source.lines_before_tests())).collect();
    none("a file of more than 500 lines holds a second thing that wants a name", &findings);
}

#[test]
fn every_path_that_is_named_exists() {
    let mut findings = Vec::new();
    for page in pages::all() {
        for named in page.paths() {
            if !tree::exists(&named) {
                findings.push(format!("{} names {named}", page.path));
            }
        }
    }
    for source in ["src", "simulations"].into_iter().flat_map(rust::sources) {
        let missing = source.documents().into_iter().filter(|named| !tree::exists(named));
        findings.extend(missing.map(|named| format!("{} names {named}", source.path)));
    }
    none("documents name only what is there", &findings);
}

#[test]
fn every_link_within_the_repository_resolves() {
    let mut findings = Vec::new();
    for page in pages::all() {
        for link in page.links() {
            if let Err(reason) = page.follow(&link) {
                findings.push(format!("{} links to {link}: {reason}", page.path));
            }
        }
    }
    none("links within the repository resolve, headings included", &findings);
}

#[test]
fn every_page_can_be_reached_from_the_readme() {
    let mut reached = BTreeSet::new();
    let mut ahead = vec!["README.md".to_owned()];
    while let Some(path) = ahead.pop() {
        if reached.insert(path.clone()) {
            let page = Page::read(&path);
            let linked = page.links().into_iter().filter_map(|link| page.target(&link));
            ahead.extend(linked.filter(|target| target.ends_with(".md") && tree::exists(target)));
        }
    }
    let lost: Vec<String> = pages::all().into_iter().map(|page| page.path).filter(|path| !reached.contains(path)).collect();
    none("a page that nothing links to is read by nobody", &lost);
}

#[test]
fn every_setting_that_is_mentioned_is_in_the_configuration_page() {
    let configuration = tree::read("docs/CONFIGURATION.md");
    let testing = tree::read("docs/TESTING.md");
    let words = |text: &str| -> BTreeSet<String> { pages::words(text).map(str::to_owned).collect() };
    let (settings, switches) = (words(&configuration), words(&testing));
    let mut findings = Vec::new();
    // What lives in `simulations`, and the page about it, have flags of their own.
    let own = |page: &Page| page.path.starts_with("simulations/") || page.path == "docs/SIMULATIONS.md";
    for page in pages::all().into_iter().filter(|page| !own(page)) {
        for variable in page.words().into_iter().filter(|word| word.starts_with("PRISMESH_")) {
            if !settings.contains(&variable) && !switches.contains(&variable) {
                findings.push(format!("{} mentions {variable}", page.path));
            }
        }
        for flag in page.flags() {
            if !settings.contains(&flag) && !OTHER_FLAGS.contains(&flag.as_str()) {
                findings.push(format!("{} mentions {flag}", page.path));
            }
        }
    }
    none("docs/CONFIGURATION.md has every setting (docs/TESTING.md the switches of tests)", &findings);
}

#[test]
fn every_metric_that_is_mentioned_exists() {
    let exported = tree::read("src/admin/metrics.rs");
    let mut findings = Vec::new();
    for page in pages::all() {
        for metric in page.words().into_iter().filter(|word| word.starts_with("prismesh_")) {
            let name = metric.trim_start_matches("prismesh_");
            let bare = ["_total", "_seconds", "_bytes"].iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name);
            if ![name, bare].iter().any(|name| exported.contains(&format!("\"{name}\""))) {
                findings.push(format!("{} mentions {metric}", page.path));
            }
        }
    }
    none("src/admin/metrics.rs has every metric that documents mention", &findings);
}

#[test]
fn the_repository_knows_no_machine_but_the_readers() {
    // Put together here, so that this file does not find itself.
    let foreign = [["/wo", "rk/"], ["../sha", "red"], ["/ro", "ot/"], ["/ho", "me/"]].map(|halves| halves.concat());
    let mut findings = Vec::new();
    for (path, text) in tree::texts() {
        for (number, line) in text.lines().enumerate() {
            let found = foreign.iter().find(|part| line.contains(part.as_str()));
            findings.extend(found.map(|part| format!("{path}:{} has {part}", number + 1)));
        }
    }
    none("paths of somebody's own machine mean nothing to others", &findings);
}
