//! What the command line promises: exit codes, one line for what is wrong, and that everything is written down.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use prismesh::config::Setting;
use prismesh::gossip::keys::{KeyId, Keyring};
use tempfile::TempDir;

/// A directory with a full keyring `k`, its reader keyring `r`, a CA `ca.pem` and a client certificate, in which commands run.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        let made = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
        place.write("ca.pem", &made.cert.pem());
        place.write("key.pem", &made.signing_key.serialize_pem());
        assert!(place.run("keygen k").status.success());
        place.write("r", &out(&place.run("key public k")));
        fs::set_permissions(place.path("r"), fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prismesh"));
        command.args(line.split_whitespace()).env_clear().current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs what must be refused as wrong usage or configuration, and returns its one line.
    fn refused(&self, line: &str) -> String {
        complaint(&self.run(line), 2)
    }
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.strip_prefix("prismesh: ").expect("the program's name first").trim_end().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_wrong_configuration_exits_2_with_one_line_and_leaves_nothing_behind() {
    let place = Place::new();
    place.write("unknown.yaml", "cluster: a\nkeyring: r\nseeds: [a:1]\n");
    place.write("type.yaml", "cluster: a\nkeyring: r\nlisten: 127.0.0.1:7445\n");
    place.write("port.yaml", "cluster: a\nkeyring: r\nlisten:\n  - 127.0.0.1:70000\n");
    place.write("syntax.yaml", "cluster: a\nnode: \"b\n");
    place.write("open", &fs::read_to_string(place.path("k")).unwrap());
    place.write("junk", "junk");
    fs::set_permissions(place.path("open"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(place.path("junk"), fs::Permissions::from_mode(0o600)).unwrap();
    symlink("open", place.path("link")).unwrap();
    let before = fs::read_dir(place.0.path()).unwrap().count();
    for (line, start) in [
        ("--config unknown.yaml", "unknown.yaml:3: unknown setting \"seeds\"; did you mean seed?"),
        ("--config type.yaml", "type.yaml:3: listen is a list of texts; "),
        ("--config port.yaml", "port.yaml:4: listen: \"70000\" is not a port, which is 0 to 65535; "),
        ("--config syntax.yaml", "syntax.yaml:"),
        ("--config .", ".: the configuration file (--config, PRISMESH_CONFIG) "),
        ("", "cluster: not set, and it is required; "),
        ("--cluster a", "keyring: not set, and gossip needs its keys; "),
        ("--cluster a --keyring open", "flag --keyring: open is open to others (mode 0644); chmod 600 open"),
        ("--cluster a --keyring link", "flag --keyring: link is open to others (mode 0644); chmod 600 link"),
        ("--cluster a --keyring junk", "flag --keyring: junk is not a keyring that this node can use: "),
        ("--cluster a --keyring r --external lb:0", "flag --external: port 0 cannot be dialled; "),
        ("--cluster a --keyring r --endpoint 127.0.0.1:7445", "flag --endpoint: 127.0.0.1:7445 is our own proxy listener; "),
        ("--cluster a --keyring r --allow 10.0.0.0/99", "flag --allow: \"10.0.0.0/99\" is not a network; "),
        ("--cluster a --keyring r --ca k", "flag --ca: k holds no certificate in PEM; "),
        ("--cluster a --keyring r --log prismesh=loud", "flag --log: \"prismesh=loud\" is not a log filter; "),
    ] {
        for subcommand in ["run --state-dir state", "config check --state-dir state"] {
            let complaint = place.refused(&format!("{subcommand} {line}"));
            assert!(complaint.starts_with(start), "{line}\n{complaint}");
            assert!(complaint.contains("; "), "says what would be right: {complaint}");
        }
    }
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), before);
}

#[test]
fn a_check_refuses_what_is_missing_for_which_a_run_would_wait() {
    let place = Place::new();
    for (line, start) in [
        ("--config none.yaml", "none.yaml: the configuration file (--config, PRISMESH_CONFIG) does not exist; "),
        ("--cluster a --keyring none", "flag --keyring: none does not exist; "),
        ("--cluster a --keyring r --ca ca.pem --probe-token-file none", "flag --probe-token-file: none does not exist; "),
    ] {
        let complaint = place.refused(&format!("config check --state-dir state {line}"));
        assert!(complaint.starts_with(start), "{line}\n{complaint}");
    }
}

#[test]
fn a_check_looks_at_the_ca_and_the_probe_key_as_a_run_does() {
    let place = Place::new();
    place.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let check = "config check --state-dir state --cluster a --keyring r --ca";
    let run = "run --state-dir state --cluster a --keyring r --ca";
    for subcommand in [check, run] {
        assert!(place.refused(&format!("{subcommand} garbage.pem")).contains("the CA file garbage.pem: "), "{subcommand}");
    }
    let another = rcgen::generate_simple_self_signed(["another".to_owned()]).unwrap();
    place.write("another.pem", &another.signing_key.serialize_pem());
    for subcommand in [check, run] {
        let complaint = place.refused(&format!("{subcommand} ca.pem --probe-cert ca.pem --probe-key another.pem"));
        assert!(complaint.contains("the probe certificate ca.pem: "), "{subcommand}: {complaint}");
    }
    let missing = place.run(&format!("{check} none.pem"));
    assert!(missing.status.success(), "it may come later");
    let text = String::from_utf8(missing.stderr).unwrap();
    assert!(text.contains("warning: the CA file none.pem cannot be read: "), "{text}");
}

#[test]
fn a_name_that_every_machine_has_is_refused_as_a_nodes_name() {
    let place = Place::new();
    for name in ["localhost", "LocalHost.localdomain", "localhost6"] {
        let complaint = place.refused(&format!("config check --cluster a --keyring r --node {name}"));
        assert!(complaint.starts_with(&format!("flag --node: {name} is the name of every machine; ")), "{complaint}");
    }
}

#[test]
fn a_record_that_cannot_be_written_exits_2_and_a_wrong_configuration_leaves_an_old_one_alone() {
    let place = Place::new();
    let run = "run --cluster a --keyring r --ca ca.pem --state-dir state --record";
    assert!(place.refused(&format!("{run} none/events")).starts_with("flag --record: cannot write none/events: "));
    place.write("events", "of yesterday");
    place.refused(&format!("{run} events --max-connections none"));
    assert_eq!(fs::read_to_string(place.path("events")).unwrap(), "of yesterday");
}

#[test]
fn an_unknown_flag_or_command_exits_2() {
    let place = Place::new();
    for line in ["run --bogus", "bogus", "", "run --cluster a --cluster b", "completions tcsh", "key add"] {
        assert_eq!(place.run(line).status.code(), Some(2), "{line}");
    }
}

#[test]
fn config_check_shows_each_value_with_its_origin_and_is_a_file_that_says_the_same() {
    let place = Place::new();
    place.write("c.yaml", "cluster: prod\nkeyring: r\nca: ca.pem\nlog: warn\nexternal: [\"lb:6443,server-name=api\"]\n");
    let check = |file: &str| {
        let mut command = place.command("config check --node me");
        command
            .env("PRISMESH_CONFIG", file)
            .env("PRISMESH_LOG", "debug")
            .env("PRISMESH_SEED", "cp1:7447  cp2:7447")
            .output()
            .unwrap()
    };
    let first = check("c.yaml");
    assert!(first.status.success() && first.stderr.is_empty(), "{first:?}");
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = out(&first).lines().map(words).collect();
    for line in [
        "cluster: prod # c.yaml:1",
        "node: me # flag --node",
        "- 127.0.0.1:7445 # default",
        "- cp1:7447 # environment PRISMESH_SEED",
        "- \"lb:6443,server-name=api\" # c.yaml:5",
        "log: debug # environment PRISMESH_LOG",
        "# max-connections: # not set",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line} is missing in\n{}", lines.join("\n"));
    }
    place.write("again.yaml", &out(&first));
    let values = |output: &Output| out(output).lines().map(|line| words(line.split(" # ").next().unwrap())).collect::<Vec<_>>();
    assert_eq!(values(&check("again.yaml")), values(&first));
}

#[test]
fn a_full_keyring_on_a_worker_is_a_warning_and_on_a_control_plane_none() {
    let place = Place::new();
    for (line, warned) in [("--keyring k", true), ("--keyring r", false), ("--keyring k --apiserver 10.0.0.1:6443", false)] {
        let output = place.run(&format!("config check --cluster a --ca ca.pem --state-dir state {line}"));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && text.contains("warning: k is a full keyring, and this node is a worker") == warned,
            "{text}"
        );
    }
}

#[test]
fn what_is_odd_but_no_error_is_a_warning() {
    let place = Place::new();
    let output = place.command("config check --cluster a --keyring r").env("PRISMESH_CLUSTRE", "b").output().unwrap();
    assert!(output.status.success());
    let warnings = String::from_utf8(output.stderr).unwrap();
    assert!(warnings.contains("warning: environment PRISMESH_CLUSTRE: no setting of this name"), "{warnings}");
    if !Path::new("/etc/kubernetes/pki/ca.crt").exists() {
        assert!(warnings.contains("warning: no CA"), "{warnings}");
    }
}

#[test]
fn a_keyring_is_made_for_its_owner_only_and_never_overwritten() {
    let place = Place::new();
    assert_eq!(mode(&place.path("k")), 0o600);
    let before = fs::read(place.path("k")).unwrap();
    assert!(complaint(&place.run("keygen k"), 1).contains("is there already"));
    assert_eq!(fs::read(place.path("k")).unwrap(), before);
    let printed = Keyring::parse(&place.run("keygen").stdout).unwrap();
    assert!(printed.is_full());
    assert_ne!(printed.key_ids(), Keyring::parse(&before).unwrap().key_ids());
}

#[test]
fn the_reader_keyring_is_printed_from_the_full_one() {
    let place = Place::new();
    let full = Keyring::parse(&fs::read(place.path("k")).unwrap()).unwrap();
    let printed = out(&place.run("key public k"));
    let reader = Keyring::parse(printed.as_bytes()).unwrap();
    assert!(full.is_full() && !reader.is_full());
    assert_eq!(reader.key_ids(), full.key_ids());
    place.write("reader", &printed);
    assert_eq!(out(&place.run("key public reader")), printed);
    let ids = out(&place.run("key list k"));
    assert!(ids.len() == "01234567 full\n".len() && ids.ends_with(" full\n"), "{ids}");
    assert_eq!(out(&place.run("key list reader")), ids.replace("full", "reader"));
    assert!(complaint(&place.run("key public none"), 1).contains("cannot read none"));
    assert!(complaint(&place.run("key public ca.pem"), 1).contains("ca.pem is not a keyring: line 1: "));
    assert!(complaint(&place.run("key add reader"), 1).contains("`prismesh key add`, and replace this file"));
    assert!(complaint(&place.run("key promote reader --force"), 1).contains("the only key"));
}

#[test]
fn keys_are_rotated_in_three_steps_each_naming_the_next() {
    let place = Place::new();
    symlink("k", place.path("link")).unwrap();
    let keys = || Keyring::parse(&fs::read(place.path("k")).unwrap()).unwrap().key_ids();
    let step = |line: &str| {
        let told = place.run(line);
        assert!(told.status.success(), "{line}: {told:?}");
        assert_eq!(mode(&place.path("k")), 0o600);
        let ids: Vec<String> = keys().iter().map(KeyId::to_string).collect();
        let told = out(&told);
        assert!(told.contains(&format!("the one in use first: {}\n", ids.join(", "))), "{told}");
        told
    };
    let old = keys()[0];
    let told = step("key add link");
    let new = keys()[1];
    let next = format!("key promote {new} link");
    assert!(told.contains(&next), "{told}");
    let told = step(&format!("{next} --force"));
    assert_eq!(keys(), [new, old]);
    let next = format!("key remove {old} link");
    assert!(told.contains(&next), "{told}");
    assert!(step(&format!("{next} --force")).contains("the rotation is complete"));
    assert_eq!(keys(), [new]);
    assert!(fs::symlink_metadata(place.path("link")).unwrap().is_symlink(), "the link's target was changed, not the link");
}

#[test]
fn a_key_that_cannot_be_changed_leaves_the_keyring_as_it_was() {
    let place = Place::new();
    let before = fs::read_to_string(place.path("k")).unwrap();
    let only = Keyring::parse(before.as_bytes()).unwrap().key_ids()[0];
    let unknown = KeyId(only.0.map(|byte| !byte));
    for line in ["key promote k --force".to_owned(), format!("key remove {only} k --force")] {
        assert!(complaint(&place.run(&line), 1).contains("k was not changed: the only key in this file"), "{line}");
    }
    let refused = complaint(&place.run(&format!("key remove {unknown} k --force")), 1);
    assert!(refused.ends_with(&format!("no key {unknown} in this file; it has {only}")), "{refused}");
    assert!(complaint(&place.run("key add none"), 1).contains("none"));
    assert!(complaint(&place.run("key add ca.pem"), 1).contains("ca.pem was not changed"));
    let wrong = place.run("key remove first k");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("not a key id; expected 8 hexadecimal digits"));
    assert_eq!(fs::read_to_string(place.path("k")).unwrap(), before);
}

#[test]
fn without_an_id_the_last_key_is_promoted() {
    let place = Place::new();
    let keys = || Keyring::parse(&fs::read(place.path("k")).unwrap()).unwrap().key_ids();
    for _ in 0..2 {
        assert!(place.run("key add k").status.success());
    }
    let before = keys();
    assert!(place.run("key promote k --force").status.success());
    assert_eq!(keys(), [before[2], before[0], before[1]]);
}

#[test]
fn a_key_that_a_live_node_lacks_is_promoted_by_force_alone() {
    let place = Place::new();
    assert!(place.run("key add k").status.success());
    let before = fs::read(place.path("k")).unwrap();
    let body = r#"{"role":"control-plane","gossip":"10.0.0.1:7447","peers":[{"name":"w-1","alive":true,"keys":["00000000"]}]}"#;
    let line = |more: &str| format!("key promote k --admin {} {more}", admin("200 OK", body));
    let refused = complaint(&place.run(&line("")), 1);
    assert!(refused.contains("1 of 1 nodes do not have the key") && refused.contains(": w-1;"), "{refused}");
    assert_eq!(fs::read(place.path("k")).unwrap(), before);
    assert!(place.run(&line("--force")).status.success());
    assert_ne!(fs::read(place.path("k")).unwrap(), before);
}

/// Answers one request with this body, in the background, as an agent's admin port would.
fn admin(status: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        let read = stream.read(&mut request).unwrap();
        assert!(request[..read].starts_with(b"GET /status HTTP/1.1\r\n"));
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).unwrap();
    });
    addr
}

const STATUS: &str = r#"{"node":"w1","role":"worker","cluster":"prod","cluster_size":5,"version":"0.1.0","listen":["127.0.0.1:7445"],
"admin":"127.0.0.1:7446","gossip":"[::]:7447","started_s_ago":3.5,"notes":["no CA"],"upstreams":[
{"endpoint":"10.0.0.11:6443","verdict":"ready","sources":["member","external"],"rtt_ms":0.4123,"load":12,"connections":3,"best":true,"carries":true,"reasons":["near: 0.4 ms"]},
{"endpoint":"10.0.0.12:6443","verdict":"down","sources":["cached"],"rtt_ms":null,"load":null,"connections":0,"best":false,"reasons":["two probes \u001b[2Jfailed","refused"]}],
"peers":[{"node":"abcdefgh","name":"cp1","role":"control-plane","agent":"running","apiserver":"ready","address":"10.0.0.11:7447","alive":true,"rtt_ms":0.31,"last_heard_s":0.2,"new":1},
{"node":"zzzzzzzz","name":"w2","role":"worker","agent":"leaving","apiserver":null,"address":"10.0.0.21:7447","alive":false,"rtt_ms":null,"last_heard_s":null}]}"#;

#[test]
fn status_shows_the_upstreams_in_rank_order_with_columns_aligned() {
    let shown = out(&Place::new().run(&format!("status --admin {}", admin("200 OK", STATUS))));
    let expected = "\
node     w1 (worker), prismesh 0.1.0
cluster  prod, 5 nodes
listen   127.0.0.1:7445
admin    127.0.0.1:7446
gossip   [::]:7447
note     no CA

   ENDPOINT        VERDICT  SOURCE           ROUND TRIP  LOAD  CONNECTIONS
*  10.0.0.11:6443  ready    member,external  0.41 ms     12    3
   10.0.0.12:6443  down     cached           -           -     0
";
    assert_eq!(shown, expected);
}

#[test]
fn peers_shows_the_mesh() {
    let shown = out(&Place::new().run(&format!("peers --admin {}", admin("200 OK", STATUS))));
    let expected = "\
NAME  KIND           ADDRESS         STATE  VERSION  KEYS  ROUND TRIP  HEARD      CONNECTIONS
cp1   control plane  10.0.0.11:7447  ready  -        -     0.31 ms     0.2 s ago  -
w2    worker         10.0.0.21:7447  left   -        -     -           -          -
";
    assert_eq!(shown, expected);
}

#[test]
fn explain_gives_each_endpoint_its_reasons_and_lets_nothing_at_the_terminal() {
    let shown = out(&Place::new().run(&format!("explain --admin {}", admin("200 OK", STATUS))));
    let expected = "\
1. 10.0.0.11:6443  ready, best
     known from member, external, round trip 0.41 ms
   - near: 0.4 ms
2. 10.0.0.12:6443  down
     known from cached, round trip -
   - two probes \u{fffd}[2Jfailed
   - refused
Note: no CA
";
    assert_eq!(shown, expected);
}

#[test]
fn json_is_passed_on_with_the_fields_that_we_do_not_know() {
    let place = Place::new();
    let json = |command: &str| -> serde_json::Value {
        let output = place.run(&format!("{command} --json --admin {}", admin("200 OK", STATUS)));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let whole: serde_json::Value = serde_json::from_str(STATUS).unwrap();
    assert_eq!(json("status"), whole);
    assert_eq!(json("peers"), whole["peers"]);
    assert_eq!(json("explain"), whole["upstreams"]);
}

#[test]
fn the_admin_port_is_found_in_the_agents_own_configuration() {
    let place = Place::new();
    place.write("c.yaml", &format!("admin: {}\n", admin("200 OK", STATUS)));
    assert!(place.command("status").env("PRISMESH_CONFIG", "c.yaml").output().unwrap().status.success());
    let addr = admin("200 OK", STATUS).to_string();
    assert!(place.command("peers").env("PRISMESH_ADMIN", addr).output().unwrap().status.success());
    let wildcard = format!("0.0.0.0:{}", admin("200 OK", STATUS).port());
    assert!(place.run(&format!("peers --admin {wildcard}")).status.success());
    assert!(place.refused("status --admin nowhere").starts_with("flag --admin: \"nowhere\" has no port; "));
}

#[test]
fn an_agent_that_does_not_answer_as_one_exits_1() {
    let place = Place::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(complaint(&place.run(&format!("status --admin {nobody}")), 1).contains("is it running"));
    for (status, body) in [("200 OK", "hello"), ("200 OK", "[1]"), ("200 OK", "{\"upstreams\":7}"), ("500 Oops", "{}")] {
        complaint(&place.run(&format!("status --admin {}", admin(status, body))), 1);
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let place = Place::new();
    for line in ["completions bash", "--help", "run --help", "--version", "config check --cluster a --keyring r --ca ca.pem"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = place.command(line).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn completions_know_the_commands_and_the_settings() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = out(&place.run(&format!("completions {shell}")));
        assert!(script.contains("gossip-advertise") && script.contains("promote"), "{shell}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(out(&Place::new().run("--version")), format!("prismesh {}\n", env!("CARGO_PKG_VERSION")));
}

const PAGE: &str = include_str!("../docs/CONFIGURATION.md");

#[test]
fn every_setting_is_in_the_configuration_page_with_flag_variable_default_and_reload() {
    for setting in Setting::ALL {
        let about = setting.about();
        let section = PAGE.split("\n### ").find(|section| section.starts_with(&format!("{setting}\n")));
        let section = section.unwrap_or_else(|| panic!("no section on {setting}")).replace('`', "");
        let default = if about.default.is_empty() { "none" } else { about.default };
        let reload = if about.reload { "A change is taken up by a reload." } else { "A change needs a restart." };
        for part in
            [format!("--{setting} {}", about.value), setting.variable(), format!("- Default: {default}"), reload.to_owned()]
        {
            assert!(section.contains(&part), "{setting}: {part:?} is missing in the page");
        }
        assert_eq!(section.contains("(repeatable; a list)"), about.many, "{setting}");
    }
}

#[test]
fn the_configuration_pages_examples_are_configurations() {
    let place = Place::new();
    let examples: Vec<&str> = PAGE.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    for example in &examples {
        let core = example.lines().any(|line| line.starts_with("apiserver:"));
        let keyring = if core { "k" } else { "r" };
        let here = example.replace("/etc/prismesh/keyring", keyring).replace("/etc/kubernetes/pki/ca.crt", "ca.pem");
        place.write("c.yaml", &here.replace("/etc/prismesh/probe.crt", "ca.pem").replace("/etc/prismesh/probe.key", "key.pem"));
        let output = place.run("config check --config c.yaml");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{example}");
    }
    let everything = examples.iter().find(|example| example.starts_with("# everything")).expect("the example with everything");
    for setting in Setting::ALL {
        let there = everything.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{setting}:")));
        assert!(there, "{setting} is missing in the example with everything");
    }
}
