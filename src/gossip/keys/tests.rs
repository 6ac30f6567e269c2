use ed25519_dalek::Signer as _;
use proptest::prelude::*;

use super::*;

const CLUSTER: &str = "prod";

/// A full key line whose secret is the bytes 0 to 31.
const FULL: &str = "prismesh-full-1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn keyring(text: &str) -> Keyring {
    Keyring::parse(text.as_bytes()).unwrap()
}

fn error(text: impl AsRef<[u8]>) -> KeyringError {
    Keyring::parse(text.as_ref()).unwrap_err()
}

fn at(line: usize, problem: Problem) -> KeyringError {
    KeyringError { line, problem }
}

/// A reader key line of this group secret and verifying key.
fn reader_line(group: [u8; 32], verifying: &[u8]) -> String {
    Kind::Reader.prefix().to_owned() + &STANDARD.encode([&group, verifying].concat())
}

/// A full keyring of three keys, and its reader keyring.
fn pair() -> (Keyring, Keyring) {
    let full = Keyring { keys: (0..3).map(|_| Key::random()).collect() };
    let reader = keyring(&full.reader_text());
    (full, reader)
}

#[test]
fn a_generated_file_is_a_full_keyring_with_one_new_key() {
    let made = keyring(&Keyring::generate());
    assert!(made.is_full());
    assert_eq!(made.keys().len(), 1);
    assert_ne!(made.key_ids(), keyring(&Keyring::generate()).key_ids());
}

#[test]
fn the_text_of_a_keyring_reads_back_as_the_same_keyring() {
    let (full, reader) = pair();
    assert_eq!(keyring(&full.to_text()), full);
    assert_eq!(keyring(&reader.to_text()), reader);
    assert_eq!(reader.reader_text(), full.reader_text());
    assert_eq!(reader.to_text(), full.reader_text());
}

#[test]
fn a_key_has_the_same_id_and_group_keys_in_both_files() {
    let (full, reader) = pair();
    assert_eq!(full.key_ids(), reader.key_ids());
    for (full, reader) in full.keys().iter().zip(reader.keys()) {
        assert_eq!(full.derive("cache", CLUSTER), reader.derive("cache", CLUSTER));
        assert_eq!(full.verifying(), reader.verifying());
    }
}

#[test]
fn a_reader_verifies_what_its_full_key_signed_and_nothing_else() {
    let (full, reader) = pair();
    for (index, key) in full.keys().iter().enumerate() {
        let signature = key.signing().unwrap().sign(b"record");
        assert!(key.verifying().verify_strict(b"record", &signature).is_ok());
        for (other, reader) in reader.keys().iter().enumerate() {
            assert_eq!(reader.verifying().verify_strict(b"record", &signature).is_ok(), other == index);
            assert!(reader.verifying().verify_strict(b"other", &signature).is_err());
        }
    }
}

#[test]
fn a_reader_key_neither_signs_nor_reads_core_traffic() {
    let (full, reader) = pair();
    assert!(!reader.is_full());
    for (full, reader) in full.keys().iter().zip(reader.keys()) {
        assert!(full.derive_core("chitchat", CLUSTER).is_some());
        assert!(reader.signing().is_none());
        assert!(reader.derive_core("chitchat", CLUSTER).is_none());
    }
}

#[test]
fn every_purpose_cluster_and_secret_has_a_key_of_its_own() {
    let (full, _) = pair();
    let key = full.primary();
    let mut derived = vec![*key.0.group, key.signing().unwrap().to_bytes()];
    for (purpose, cluster) in [("a", "b"), ("b", "a"), ("a", "a"), ("ab", ""), ("", "ab")] {
        derived.push(key.derive(purpose, cluster));
        derived.push(key.derive_core(purpose, cluster).unwrap());
    }
    let different: std::collections::BTreeSet<_> = derived.iter().collect();
    assert_eq!(different.len(), derived.len());
}

/// Nodes of different versions share keyring files, so these values must not change while the prefix says `1`. They were
/// computed by a second implementation, with Python's `hmac` and the curve's formulas.
#[test]
fn the_derivations_of_format_1_are_fixed() {
    let ring = keyring(FULL);
    let key = ring.primary();
    assert_eq!(key.line(), FULL);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let actual = [
        key.id().to_string(),
        hex(&key.0.group[..]),
        hex(key.verifying().as_bytes()),
        hex(&key.derive("gossip", CLUSTER)),
        hex(&key.derive_core("gossip", CLUSTER).unwrap()),
    ];
    let expected = [
        "c851a084",
        "e15c822b14a58ac630b6c675e43670b237965b200e70aac155797c4c2be688a6",
        "6d4a6cb69cec846ab38049386c9e7370d7e8a9582266caf22d4643f147319a59",
        "e88762a7377830ae2b19eafaacb6e9bfa3aaed5e6a7636cd35302c8fd203c8f4",
        "2759560ed2894eb6a2a8745fe9ef0368442b4787bb63fca968a4104872caea4c",
    ];
    assert_eq!(actual, expected);
}

#[test]
fn comments_blank_lines_and_surrounding_spaces_are_skipped() {
    let text = format!("# ours\r\n\r\n  {FULL}\t\r\n   # end");
    assert_eq!(keyring(&text), keyring(FULL));
}

#[test]
fn a_bad_file_names_its_line_and_problem() {
    assert_eq!(error(""), at(1, Problem::Empty));
    assert_eq!(error("# nothing\n"), at(1, Problem::Empty));
    assert_eq!(error("\nsecret!\n"), at(2, Problem::NotAKey));
    assert_eq!(error(b"# x\n\xff\xfe\n"), at(2, Problem::NotText));
    assert_eq!(error("prismesh-full-1:secret!"), at(1, Problem::NotAKey));
    assert_eq!(error("prismesh-full-2:AAAA"), at(1, Problem::NotAKey));
    assert_eq!(error("c2hvcnQ="), at(1, Problem::NotAKey));
    assert_eq!(error(format!("# x\n{}", STANDARD.encode([7; 32]))), at(2, Problem::FormerFormat));
    assert_eq!(error("prismesh-full-1:c2hvcnQ="), at(1, Problem::Length { kind: Kind::Full, bytes: 5 }));
    let many: String = (0..=MAX_KEYS).map(|_| Key::random().line() + "\n").collect();
    assert_eq!(error(many), at(MAX_KEYS + 1, Problem::TooMany));
    assert_eq!(error(format!("{FULL}\n#\n{FULL}\n")), at(3, Problem::Twice(1)));
}

#[test]
fn a_reader_key_of_any_other_length_is_refused() {
    let line = Key::random().reader_line();
    let bytes = STANDARD.decode(line.strip_prefix(Kind::Reader.prefix()).unwrap()).unwrap();
    for length in (0..130).filter(|length| *length != 64) {
        let encoded: Vec<u8> = bytes.iter().cycle().take(length).copied().collect();
        let problem = error(Kind::Reader.prefix().to_owned() + &STANDARD.encode(encoded)).problem;
        assert_eq!(problem, Problem::Length { kind: Kind::Reader, bytes: length });
    }
}

#[test]
fn full_and_reader_keys_in_one_file_are_refused() {
    let (full, reader) = pair();
    let (full_line, reader_line) = (full.keys()[0].line(), reader.keys()[1].line());
    let mixed = error(format!("#\n{full_line}\n{reader_line}\n"));
    assert_eq!(mixed, at(3, Problem::Mixed { found: Kind::Reader, first: 2 }));
    let mixed = error(format!("{reader_line}\n{full_line}\n"));
    assert_eq!(mixed, at(2, Problem::Mixed { found: Kind::Full, first: 1 }));
}

#[test]
fn a_secret_that_anyone_can_guess_is_refused() {
    let verifying = keyring(FULL).primary().verifying().to_bytes();
    for byte in [0, 7, 255] {
        let full = Kind::Full.prefix().to_owned() + &STANDARD.encode([byte; 32]);
        assert_eq!(error(full), at(1, Problem::Weak));
        assert_eq!(error(reader_line([byte; 32], &verifying)), at(1, Problem::Weak));
    }
}

#[test]
fn a_weak_or_malformed_verifying_key_is_refused() {
    let group = *keyring(FULL).primary().0.group;
    // Points of small order: the identity, and y = 0. No point of the curve has y = 2.
    let small = |y: u8| {
        let mut bytes = [0; 32];
        bytes[0] = y;
        bytes
    };
    for y in [1, 0, 2] {
        assert_eq!(error(reader_line(group, &small(y))), at(1, Problem::VerifyingKey), "y = {y}");
    }
}

#[test]
fn every_error_says_what_would_be_right() {
    let problems = [
        (Problem::NotText, "prismesh keygen"),
        (Problem::NotAKey, "expected `prismesh-full-1:` or `prismesh-reader-1:`"),
        (Problem::FormerFormat, "former format; make a new keyring with `prismesh keygen`"),
        (
            Problem::Length { kind: Kind::Full, bytes: 5 },
            "full key of 5 bytes; expected 32 bytes in base64, as `prismesh keygen`",
        ),
        (Problem::Length { kind: Kind::Reader, bytes: 5 }, "expected 64 bytes in base64, as `prismesh key public`"),
        (Problem::Weak, "prismesh keygen"),
        (Problem::VerifyingKey, "prismesh key public"),
        (Problem::Mixed { found: Kind::Reader, first: 2 }, "a reader key, but line 2"),
        (Problem::Twice(1), "line 1; remove one"),
        (Problem::TooMany, "more than 8 keys; remove old ones"),
        (Problem::Empty, "prismesh keygen"),
    ];
    for (problem, part) in problems {
        let text = at(4, problem).to_string();
        assert!(text.starts_with("line 4: ") && text.contains(part), "{text}");
    }
}

#[test]
fn neither_debug_nor_an_error_shows_a_secret() {
    let (full, reader) = pair();
    let ids: Vec<String> = full.key_ids().iter().map(|id| format!("Key({id})")).collect();
    let shown = format!("Keyring {{ keys: [{}] }}", ids.join(", "));
    assert_eq!(format!("{full:?}"), shown);
    assert_eq!(format!("{reader:?}"), shown);
    assert!(!error(format!("x{FULL}")).to_string().contains(&FULL[20..30]));
}

#[test]
fn a_key_id_is_read_as_it_is_written() {
    let id = KeyId([0x0a, 0xbc, 0, 0xff]);
    assert_eq!(id.to_string(), "0abc00ff");
    assert_eq!("0abc00ff".parse(), Ok(id));
    assert_eq!("0ABC00FF".parse(), Ok(id));
    for wrong in ["", "0abc00f", "0abc00ff0", "0abc00fg", "+abc00ff", "0x0abc00", "éabc00f"] {
        assert_eq!(wrong.parse::<KeyId>(), Err(KeyIdError), "{wrong}");
    }
}

#[test]
fn a_clone_of_a_keyring_shares_its_secrets() {
    let ring = Keyring::random();
    assert!(Arc::ptr_eq(&ring.primary().0, &ring.clone().primary().0));
}

/// Lines that come near to being keys, as well as arbitrary text.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..70);
    let prefix = proptest::sample::select(vec!["prismesh-full-1:", "prismesh-reader-1:", "prismesh-reader-1: ", "#", ""]);
    prop_oneof![
        bytes.clone(),
        (prefix.clone(), bytes.clone()).prop_map(|(prefix, bytes)| [prefix.as_bytes(), &bytes].concat()),
        (prefix.clone(), bytes).prop_map(|(prefix, bytes)| (prefix.to_owned() + &STANDARD.encode(bytes)).into_bytes()),
        (prefix, any::<[u8; 32]>(), any::<[u8; 32]>())
            .prop_map(|(prefix, one, two)| (prefix.to_owned() + &STANDARD.encode([one, two].concat())).into_bytes()),
        any::<[u8; 32]>().prop_map(|secret| (Kind::Full.prefix().to_owned() + &STANDARD.encode(secret)).into_bytes()),
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_parsing_or_editing_panic(lines in proptest::collection::vec(line(), 0..12), id in any::<[u8; 4]>()) {
        let file = lines.join(&b'\n');
        let parsed = Keyring::parse(&file);
        if let Ok(parsed) = &parsed {
            prop_assert_eq!(&keyring(&parsed.to_text()), parsed);
            prop_assert_eq!(keyring(&parsed.reader_text()).key_ids(), parsed.key_ids());
        }
        let promoted = [Keyring::promote(&file, None), Keyring::promote(&file, Some(KeyId(id)))];
        for edited in promoted.into_iter().chain([Keyring::append(&file), Keyring::remove(&file, KeyId(id))]).flatten() {
            prop_assert!(parsed.is_ok());
            prop_assert_eq!(keyring(&edited.text).key_ids(), edited.left);
        }
    }
}
