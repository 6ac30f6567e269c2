//! Names, files and the time of day.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use prismesh::world::{Family, Lookup, ResolveError};
use tokio::time::sleep;

use super::ground::{Ground, KNOWN_NAME};

super::holds_everywhere! {
    a_known_name_has_its_addresses_however_it_is_written
    an_unknown_name_is_an_error_that_says_which
    what_was_written_is_read_and_only_by_its_owner
    a_second_write_replaces_the_whole_file
    a_file_may_be_as_long_as_one_reads_and_no_longer
    a_missing_file_is_not_found
    a_directory_is_no_file
    the_time_of_day_goes_on_as_the_clock_does
}

async fn a_known_name_has_its_addresses_however_it_is_written(ground: Ground) {
    for name in [KNOWN_NAME, "API.Cluster.Example", "api.cluster.example."] {
        let told = Mutex::new(Vec::new());
        let found = |family, answer: Result<Lookup, ResolveError>| {
            let answer = answer.expect("both families are known");
            assert!(answer.ttl > Duration::ZERO);
            told.lock().expect("no panic").push((family, answer.addrs));
        };
        ground.here.resolver.lookup(name, &found).await.expect("known");
        let mut told = told.into_inner().expect("no panic");
        told.sort();
        assert_eq!(told, [(Family::V4, vec![[10, 0, 0, 77].into()]), (Family::V6, vec![])]);
    }
}

async fn an_unknown_name_is_an_error_that_says_which(ground: Ground) {
    let error = ground.here.resolver.lookup("nobody.example", &|_, _| panic!("nothing is known")).await.expect_err("unknown");
    assert_eq!(error.name, "nobody.example");
    assert!(!error.reason.is_empty());
}

async fn what_was_written_is_read_and_only_by_its_owner(ground: Ground) {
    let path = ground.here.directory.join("some/where/file");
    ground.here.store.write(&path, b"text").await.expect("written, its directories made");
    assert_eq!(ground.here.store.read(&path, 100).await.expect("read"), b"text");
    assert_eq!(ground.here.store.mode(&path).await.expect("there"), 0o600);
}

async fn a_second_write_replaces_the_whole_file(ground: Ground) {
    let path = ground.here.directory.join("file");
    for text in ["a long first text", "short", ""] {
        ground.here.store.write(&path, text.as_bytes()).await.expect("written");
        assert_eq!(ground.here.store.read(&path, 100).await.expect("read"), text.as_bytes());
    }
}

async fn a_file_may_be_as_long_as_one_reads_and_no_longer(ground: Ground) {
    let path = ground.here.directory.join("file");
    ground.here.store.write(&path, b"12345").await.expect("written");
    assert_eq!(ground.here.store.read(&path, 5).await.expect("read"), b"12345");
    let error = ground.here.store.read(&path, 4).await.expect_err("too long");
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
}

async fn a_missing_file_is_not_found(ground: Ground) {
    let path = ground.here.directory.join("nothing");
    assert_eq!(ground.here.store.read(&path, 5).await.expect_err("missing").kind(), io::ErrorKind::NotFound);
    assert_eq!(ground.here.store.mode(&path).await.expect_err("missing").kind(), io::ErrorKind::NotFound);
}

async fn a_directory_is_no_file(ground: Ground) {
    let store = &ground.here.store;
    let path = ground.here.directory.join("directory/file");
    store.write(&path, b"kept").await.expect("written");
    let directory = path.parent().map(Path::to_owned).expect("a parent");
    store.read(&directory, 100).await.expect_err("a directory");
    store.write(&directory, b"new").await.expect_err("a directory");
    store.write(&path.join("below"), b"new").await.expect_err("a file is no directory");
    assert_eq!(store.read(&path, 100).await.expect("read"), b"kept");
}

async fn the_time_of_day_goes_on_as_the_clock_does(ground: Ground) {
    let before = ground.here.wall.now();
    let after = Duration::from_millis(40);
    sleep(after).await;
    let passed = ground.here.wall.now().duration_since(before).expect("it goes on");
    assert!((after..after + Duration::from_secs(5)).contains(&passed), "{passed:?}");
}
