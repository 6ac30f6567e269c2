//! The story: what breaks, in which order, and what is said about it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Something is done to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Watch,
    /// The external balancer stops forwarding; its kernel still accepts.
    BalancerHangs,
    /// The external balancer is killed: connections to it are refused.
    BalancerDies,
    /// The external balancer is started again.
    BalancerBack,
    /// An apiserver is killed.
    Kill(usize),
    /// An apiserver is started again.
    Start(usize),
    /// An apiserver hangs; its kernel still accepts.
    Hang(usize),
    /// A hung apiserver goes on.
    GoOn(usize),
    /// An apiserver is asked to stop: five seconds of not being ready, then it closes.
    Drain(usize),
}

/// A phase of the story: a row of the table.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Its name in the table.
    pub name: String,
    /// What is said when it begins.
    pub told: String,
    /// What is done.
    pub act: Act,
    /// How long it lasts.
    pub lasts: Duration,
}

/// The story for a seed: which apiserver meets which fate, in which order.
pub fn story(seed: u64, apiservers: &[String], fast: bool) -> Vec<Phase> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut fates: Vec<usize> = (0..apiservers.len()).collect();
    fates.shuffle(&mut random);
    let fate = |place: usize| fates.get(place % fates.len().max(1)).copied().unwrap_or_default();
    let (killed, hung, drained) = (fate(0), fate(1), fate(2));
    let mut chapters = [
        balancer(fast),
        kill(killed, name(apiservers, killed), fast),
        hang(hung, name(apiservers, hung), fast),
        drain(drained, name(apiservers, drained), fast),
    ];
    // The balancer comes first: it is what people rely on today.
    if let Some(rest) = chapters.get_mut(1..) {
        rest.shuffle(&mut random);
    }
    let _ = random.next_u32();
    let calm = phase("all is well", "Everything works. Both ways of reaching the API are fine.", Act::Watch, fast, (5.0, 2.0));
    std::iter::once(calm).chain(chapters.into_iter().flatten()).collect()
}

fn name(apiservers: &[String], index: usize) -> &str {
    apiservers.get(index).map_or("?", String::as_str)
}

/// Seconds: in full, and with `--fast`.
fn phase(name: &str, told: &str, act: Act, fast: bool, (full, quick): (f64, f64)) -> Phase {
    let lasts = Duration::from_secs_f64(if fast { quick } else { full });
    Phase { name: name.to_owned(), told: told.to_owned(), act, lasts }
}

fn balancer(fast: bool) -> Vec<Phase> {
    vec![
        phase(
            "balancer hangs",
            "The external balancer hangs: it still accepts connections, and forwards nothing.",
            Act::BalancerHangs,
            fast,
            (5.0, 2.0),
        ),
        phase(
            "balancer refuses",
            "The external balancer is killed: connections to it are refused, and those it carried are gone.",
            Act::BalancerDies,
            fast,
            (4.0, 1.5),
        ),
        phase("balancer back", "The external balancer is started again.", Act::BalancerBack, fast, (3.0, 1.0)),
    ]
}

fn kill(index: usize, name: &str, fast: bool) -> Vec<Phase> {
    vec![
        phase(
            &format!("{name} killed"),
            &format!("{name} is killed (SIGKILL). Its connections are gone, new ones to it are refused."),
            Act::Kill(index),
            fast,
            (6.0, 2.0),
        ),
        phase(&format!("{name} back"), &format!("{name} is started again."), Act::Start(index), fast, (4.0, 2.0)),
    ]
}

fn hang(index: usize, name: &str, fast: bool) -> Vec<Phase> {
    vec![
        phase(
            &format!("{name} hangs"),
            &format!("{name} hangs (SIGSTOP). Its kernel still accepts connections, so a check of the port sees nothing."),
            Act::Hang(index),
            fast,
            (10.0, 5.0),
        ),
        phase(&format!("{name} goes on"), &format!("{name} goes on (SIGCONT)."), Act::GoOn(index), fast, (4.0, 2.0)),
    ]
}

fn drain(index: usize, name: &str, fast: bool) -> Vec<Phase> {
    vec![
        phase(
            &format!("{name} drains"),
            &format!("{name} is asked to stop (SIGTERM). For 5 s it serves on and says that it is not ready, then it closes."),
            Act::Drain(index),
            fast,
            (7.0, 6.0),
        ),
        phase(&format!("{name} back"), &format!("{name} is started again."), Act::Start(index), fast, (4.0, 1.5)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["api-1", "api-2", "api-3"].map(str::to_owned).to_vec()
    }

    #[test]
    fn the_same_seed_tells_the_same_story() {
        let names_of = |seed| story(seed, &names(), false).into_iter().map(|phase| phase.name).collect::<Vec<_>>();
        assert_eq!(names_of(7), names_of(7));
        assert!((0..20).any(|seed| names_of(seed) != names_of(7)), "the seed must matter");
    }

    #[test]
    fn whatever_breaks_comes_back() {
        for seed in 0..20 {
            let acts: Vec<Act> = story(seed, &names(), false).into_iter().map(|phase| phase.act).collect();
            for index in 0..3 {
                let broken = acts.iter().position(|act| [Act::Kill(index), Act::Hang(index), Act::Drain(index)].contains(act));
                let back = acts.iter().position(|act| [Act::Start(index), Act::GoOn(index)].contains(act));
                assert!(broken.is_some() && broken < back, "api-{} in {acts:?}", index + 1);
            }
        }
    }

    #[test]
    fn the_story_takes_about_a_minute_and_half_of_it_when_fast() {
        let seconds = |fast| story(1, &names(), fast).iter().map(|phase| phase.lasts).sum::<Duration>().as_secs();
        assert!((45..=60).contains(&seconds(false)), "{}", seconds(false));
        assert!((20..=28).contains(&seconds(true)), "{}", seconds(true));
    }
}
