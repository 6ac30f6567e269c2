use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::time::{advance, sleep};

use super::*;
use crate::world::{BoxFuture, Found};

/// Answers as scripted, then fails; counts the questions.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Instant>>,
}

enum Answer {
    /// These addresses in each family; none means that the name has none in it.
    Is(&'static [&'static str], u64),
    /// The same, and nothing else is true.
    File(&'static [&'static str]),
    /// These at once; the other family fails so much later.
    Half(&'static [&'static str], u64, u64),
    Fails,
    Hangs,
    Panics,
}

impl Script {
    fn of(answers: impl Into<VecDeque<Answer>>) -> Arc<Script> {
        Arc::new(Script { answers: Mutex::new(answers.into()), asked: Mutex::default() })
    }

    fn asked_after(&self) -> Vec<u64> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|at| (*at - asked[0]).as_secs()).collect()
    }
}

fn tell(found: Found<'_>, addrs: &[&str], ttl: u64, complete: bool, families: &[Family]) {
    let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().unwrap()).collect();
    for family in families {
        let addrs = addrs.iter().copied().filter(|addr| Family::of(*addr) == *family).collect();
        found(*family, Ok(Lookup { addrs, ttl: Duration::from_secs(ttl), complete }));
    }
}

impl Resolver for Script {
    fn lookup<'a>(&'a self, name: &'a str, found: Found<'a>) -> BoxFuture<'a, Result<(), ResolveError>> {
        self.asked.lock().unwrap().push(Instant::now());
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Answer::Fails);
        let failed = || Err(ResolveError { name: name.to_owned(), reason: "scripted".to_owned() });
        Box::pin(async move {
            match answer {
                Answer::Is(addrs, ttl) => tell(found, addrs, ttl, false, &Family::ALL),
                Answer::File(addrs) => tell(found, addrs, 10, true, &Family::ALL),
                Answer::Half(addrs, ttl, late) => {
                    tell(found, addrs, ttl, false, &[Family::of(addrs[0].parse().unwrap())]);
                    sleep(Duration::from_secs(late)).await;
                    return failed();
                }
                Answer::Fails => return failed(),
                Answer::Hangs => std::future::pending().await,
                Answer::Panics => panic!("scripted"),
            }
            Ok(())
        })
    }
}

fn named(name: &str) -> HostPort {
    HostPort { host: Host::Name(name.to_owned()), port: 6443 }
}

fn literal(ip: &str) -> HostPort {
    HostPort { host: Host::Ip(ip.parse().unwrap()), port: 6443 }
}

fn addresses(names: &Names, target: &HostPort) -> Option<Vec<String>> {
    Some(names.resolved().borrow().get(target)?.iter().map(ToString::to_string).collect())
}

#[tokio::test(start_paused = true)]
async fn a_written_address_is_there_at_once_and_a_name_once_it_is_known() {
    let script = Script::of([Answer::Is(&["10.0.0.2", "10.0.0.1", "fd00::1"], 60)]);
    let (_targets, watched) = watch::channel(vec![literal("10.1.1.1"), named("api")]);
    let names = Names::start(script, watched);
    assert_eq!(addresses(&names, &literal("10.1.1.1")).unwrap(), ["10.1.1.1:6443"]);
    assert_eq!(addresses(&names, &named("api")), None);
    names.resolved().changed().await.unwrap();
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443", "10.0.0.2:6443", "[fd00::1]:6443"]);
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_at_its_ttl() {
    let script = Script::of([Answer::Is(&["10.0.0.1"], 60), Answer::Is(&["10.0.0.2"], 600)]);
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(script.clone(), watched);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443", "10.0.0.2:6443"]);
    assert_eq!(script.asked_after(), [0, 60]);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_answer_is_kept_while_dns_fails_and_the_retries_back_off() {
    let script = Script::of([Answer::Is(&["10.0.0.1"], 10)]);
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(script.clone(), watched);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443"]);
    assert_eq!(script.asked_after()[..9], [0, 10, 11, 13, 17, 25, 41, 71, 101]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_has_no_address_yet_is_asked_for_each_2_s() {
    let script = Script::of([]);
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let _names = Names::start(script.clone(), watched);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(script.asked_after()[..6], [0, 1, 3, 5, 7, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_hangs_holds_up_neither_the_start_nor_the_other_names() {
    let script = Script::of([Answer::Hangs, Answer::Is(&["10.0.0.2"], 600), Answer::Is(&["10.0.0.1"], 600)]);
    let (_targets, watched) = watch::channel(vec![named("a"), named("b")]);
    let names = Names::start(script, watched);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(addresses(&names, &named("a")), None);
    assert_eq!(addresses(&names, &named("b")).unwrap(), ["10.0.0.2:6443"]);
    sleep(LOOKUP + Duration::from_millis(1001)).await;
    assert_eq!(addresses(&names, &named("a")).unwrap(), ["10.0.0.1:6443"]);
}

#[tokio::test(start_paused = true)]
async fn targets_come_and_go_and_what_stays_is_not_asked_for_again() {
    let script = Script::of([Answer::Is(&["10.0.0.1"], 600), Answer::Is(&["10.0.0.2"], 600)]);
    let (targets, watched) = watch::channel(vec![named("a")]);
    let names = Names::start(script.clone(), watched);
    sleep(Duration::from_secs(5)).await;
    targets.send_replace(vec![named("a"), named("b"), literal("10.0.0.3")]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(script.asked_after(), [0, 5]);
    assert_eq!(names.resolved().borrow().len(), 3);
    targets.send_replace(vec![named("b")]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(names.resolved().borrow().keys().cloned().collect::<Vec<_>>(), [named("b")]);
    drop(targets);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(addresses(&names, &named("b")).unwrap(), ["10.0.0.2:6443"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_changes_nothing_wakes_nobody() {
    let script = Script::of([Answer::Is(&["10.0.0.1", "10.0.0.2"], 10), Answer::Is(&["10.0.0.2", "10.0.0.1"], 600)]);
    let (_targets, watched) = watch::channel(vec![named("a")]);
    let names = Names::start(script, watched);
    let mut resolved = names.resolved();
    resolved.changed().await.unwrap();
    resolved.mark_unchanged();
    advance(Duration::from_secs(11)).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!resolved.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_family_is_there_at_once_while_the_other_one_is_waited_for() {
    let script = Script::of([Answer::Half(&["10.0.0.1"], 600, 15)]);
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(script, watched);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443"]);
    assert!(names.failing().borrow().names.is_empty());
    sleep(Duration::from_secs(15)).await;
    let problem = names.failing().borrow().names["api"].clone();
    assert_eq!(problem, "IPv6: scripted (1 times in a row, 0 addresses kept)");
    assert_eq!(names.failing().borrow().failures, 1);
}

#[tokio::test(start_paused = true)]
async fn a_family_that_fails_keeps_its_addresses_however_often_the_other_answers() {
    let half = || Answer::Half(&["10.0.0.1"], 10, 0);
    let script =
        Script::of((0..500).map(|n| if n == 0 { Answer::Is(&["10.0.0.1", "fd00::1"], 10) } else { half() }).collect::<Vec<_>>());
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(script.clone(), watched);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443", "[fd00::1]:6443"]);
    // The one that fails is tried again soon, and then at the other one's TTL.
    assert_eq!(script.asked_after()[..8], [0, 10, 11, 13, 17, 25, 35, 45]);
}

#[tokio::test(start_paused = true)]
async fn a_name_without_addresses_keeps_the_last_ones_and_one_family_without_loses_its_own() {
    let script = Script::of([
        Answer::Is(&["10.0.0.1", "fd00::1"], 400),
        Answer::Is(&[], 400),
        Answer::Is(&["10.0.0.1"], 400),
        Answer::Is(&["10.0.0.1"], 400),
        Answer::Is(&["10.0.0.1"], 400),
    ]);
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(script, watched);
    sleep(Duration::from_secs(401)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap().len(), 2, "a mistake of whoever serves it");
    sleep(Duration::from_secs(3000)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.1:6443"]);
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_panics_is_tried_again_and_harms_no_other_name() {
    let script = Script::of([Answer::Panics, Answer::Is(&["10.0.0.2"], 600), Answer::Panics, Answer::Is(&["10.0.0.1"], 600)]);
    let (_targets, watched) = watch::channel(vec![named("a"), named("b")]);
    let names = Names::start(script, watched);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(addresses(&names, &named("b")).unwrap(), ["10.0.0.2:6443"]);
    assert!(names.failing().borrow().names["a"].contains("panicked"));
    sleep(Duration::from_secs(4)).await;
    assert_eq!(addresses(&names, &named("a")).unwrap(), ["10.0.0.1:6443"]);
    assert!(names.failing().borrow().names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn answers_that_take_turns_change_nothing_once_all_were_seen() {
    let turns: [&[&str]; 3] = [&["10.0.0.1", "10.0.0.2"], &["10.0.0.3", "10.0.0.4"], &["10.0.0.5", "fd00::1"]];
    for ttl in [5, 60, 300] {
        let script = Script::of((0..1000).map(|n| Answer::Is(turns[n % 3], ttl)).collect::<Vec<_>>());
        let (_targets, watched) = watch::channel(vec![named("api")]);
        let names = Names::start(script, watched);
        sleep(Duration::from_secs(3 * ttl)).await;
        let mut resolved = names.resolved();
        resolved.mark_unchanged();
        assert_eq!(addresses(&names, &named("api")).unwrap().len(), 6, "TTL {ttl}");
        sleep(Duration::from_secs(900)).await;
        assert!(!resolved.has_changed().unwrap(), "TTL {ttl}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_answered_no_more_goes_after_5_minutes_and_3_answers() {
    for (ttl, goes) in [(5, 300..=306), (60, 300..=361), (200, 600..=601)] {
        let mut answers = vec![Answer::Is(&["10.0.0.1"], ttl)];
        answers.extend((0..100).map(|_| Answer::Is(&["10.0.0.2"], ttl)));
        let (_targets, watched) = watch::channel(vec![named("api")]);
        let names = Names::start(Script::of(answers), watched);
        sleep(Duration::from_millis(1)).await;
        let mut after = 0;
        while addresses(&names, &named("api")).unwrap().contains(&"10.0.0.1:6443".to_owned()) {
            sleep(Duration::from_secs(1)).await;
            after += 1;
        }
        assert!(goes.contains(&after), "TTL {ttl}: {after} s");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_file_says_replaces_what_was_known_at_once() {
    let script = Script::of([Answer::Is(&["10.0.0.1", "fd00::1"], 10), Answer::File(&["10.0.0.2"]), Answer::File(&["10.0.0.3"])]);
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(script, watched);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.2:6443"]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap(), ["10.0.0.3:6443"]);
}

#[tokio::test(start_paused = true)]
async fn addresses_are_bounded_in_each_family_whatever_is_answered() {
    let many: Vec<String> = (0..40).map(|n| format!("10.0.0.{n}")).chain((0..40).map(|n| format!("fd00::{n:x}"))).collect();
    let all: &'static [&'static str] = many.leak().iter().map(String::as_str).collect::<Vec<_>>().leak();
    let answers = (0..200).map(|n| {
        let from = n * 10 % 40;
        Answer::Is(if n == 0 { all } else { &all[from..from + 10] }, 5)
    });
    let (_targets, watched) = watch::channel(vec![named("api")]);
    let names = Names::start(Script::of(answers.collect::<Vec<_>>()), watched);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap().len(), 32, "16 of each family");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(addresses(&names, &named("api")).unwrap().len(), 32 + 16);
}
