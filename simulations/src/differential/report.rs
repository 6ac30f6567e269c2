//! What was found, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::draw::{APISERVERS, Kind, Trial, World};
use super::exempt::Exemption;
use super::judge::Verdict;
use super::pair::{Fared, Side};
use super::play::Played;

/// A trial during which this machine stood still for longer is not judged: clients and agents lose what others kept only because of whose
/// turn it was.
const STANDSTILL: Duration = Duration::from_secs(1);
/// Lines of the agent's log that are shown of a difference.
const LOG_LINES: usize = 60;

/// Prints.
pub(super) fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// How pairs fared.
#[derive(Clone, Debug, Default, Serialize)]
struct Counts {
    pairs: u64,
    both_survived: u64,
    both_failed: u64,
    direct_failed_alone: u64,
    prismesh_failed_alone: u64,
    exempt: BTreeMap<Exemption, u64>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    seed: u64,
    trials: BTreeMap<World, u64>,
    /// Trials beside these that were not judged.
    stood_still: u64,
    /// Trials in which a pair was exempt because of a silent kernel or a process that hung.
    trials_with_exemptions: u64,
    kinds: BTreeMap<Kind, Counts>,
    /// A line each.
    pairs: Vec<String>,
    /// Each with all that is known of it.
    differences: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Report {
        Report {
            seed,
            trials: BTreeMap::new(),
            stood_still: 0,
            trials_with_exemptions: 0,
            kinds: BTreeMap::new(),
            pairs: Vec::new(),
            differences: Vec::new(),
        }
    }

    pub(super) fn passed(&self) -> bool {
        self.differences.is_empty() && !self.kinds.is_empty() && self.stood_still <= self.judged()
    }

    fn judged(&self) -> u64 {
        self.trials.values().sum()
    }

    /// Counts a trial. What is to be said about it.
    pub(super) fn add(&mut self, played: &Played) -> String {
        let mut told = told(played);
        if played.stalled > STANDSTILL {
            self.stood_still += 1;
            let _ = write!(told, " | NOT JUDGED: this machine stood still for {:?}", played.stalled);
            return told;
        }
        *self.trials.entry(played.trial.world).or_default() += 1;
        let before = self.differences.len();
        for (fared, verdict) in &played.pairs {
            self.pairs.push(line(played, fared, verdict));
            let counts = self.kinds.entry(fared.pair.kind).or_default();
            counts.pairs += 1;
            match verdict {
                Verdict::BothSurvived => counts.both_survived += 1,
                Verdict::BothFailed => counts.both_failed += 1,
                Verdict::DirectFailedAlone => counts.direct_failed_alone += 1,
                Verdict::Exempt(why) => *counts.exempt.entry(*why).or_default() += 1,
                Verdict::Difference(_) => {
                    counts.prismesh_failed_alone += 1;
                    self.differences.push(self.difference(played, fared, verdict));
                }
            }
        }
        if let Some(complaint) = &played.complaint {
            self.differences.push(format!("trial {} of seed {}: {complaint}", played.trial.number, self.seed));
        }
        let wanted = |(_, verdict): &(Fared, Verdict)| matches!(verdict, Verdict::Exempt(Exemption::Silent | Exemption::Hung));
        self.trials_with_exemptions += u64::from(played.pairs.iter().any(wanted));
        for difference in &self.differences[before..] {
            let _ = write!(told, "\n{difference}");
        }
        told
    }

    fn difference(&self, played: &Played, fared: &Fared, verdict: &Verdict) -> String {
        let Played { trial, harms, log, stalled, .. } = played;
        let mut text = format!("trial {} of seed {}, {}: {verdict}\n", trial.number, self.seed, fared.pair.kind);
        let _ = writeln!(text, "  began to connect at {:.2} s, lasts {:?}", fared.begun.as_secs_f64(), fared.pair.lasts);
        let _ = writeln!(text, "  through prismesh: {}", fate(&fared.through));
        for (apiserver, side) in &fared.direct {
            let _ = writeln!(text, "  direct, api-{}: {}", apiserver + 1, fate(side));
        }
        for fault in &trial.faults {
            let _ = writeln!(text, "  fault: {fault}");
        }
        for harm in harms {
            let to = harm.to.map_or("its end".to_owned(), |to| format!("{:.3} s", to.as_secs_f64()));
            let _ =
                writeln!(text, "  really: api-{} {:?} {:.3} s to {to}", harm.apiserver + 1, harm.what, harm.from.as_secs_f64());
        }
        let _ = writeln!(text, "  this machine stood still for {stalled:?} at most");
        let _ = writeln!(text, "  state when it had failed: {}", fared.state.as_deref().unwrap_or("not looked at"));
        // Each notice is told twice, and the other time in plain words.
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("notice=")).collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            let _ = writeln!(text, "  log: {line}");
        }
        text
    }

    /// The end.
    pub(super) fn summary(&self) -> String {
        let trials: Vec<String> = self.trials.iter().map(|(world, count)| format!("{count} {world}")).collect();
        let mut text = format!(
            "\nseed {}: {} trials ({}), {} of them with exemptions; {} more were not judged, because this machine stood still\n\n",
            self.seed,
            self.judged(),
            trials.join(", "),
            self.trials_with_exemptions,
            self.stood_still
        );
        let _ = writeln!(
            text,
            "{:<15} {:>6} {:>9} {:>7} {:>7} {:>9} {:>7} {:>7} {:>7}",
            "", "pairs", "both", "both", "direct", "prismesh", "exempt:", "", ""
        );
        let _ = writeln!(
            text,
            "{:<15} {:>6} {:>9} {:>7} {:>7} {:>9} {:>7} {:>7} {:>7}",
            "", "", "survived", "failed", "alone", "alone", "silent", "hung", "dead"
        );
        for (kind, counts) in &self.kinds {
            let exempt = |why| counts.exempt.get(&why).copied().unwrap_or_default();
            let _ = writeln!(
                text,
                "{:<15} {:>6} {:>9} {:>7} {:>7} {:>9} {:>7} {:>7} {:>7}",
                kind.to_string(),
                counts.pairs,
                counts.both_survived,
                counts.both_failed,
                counts.direct_failed_alone,
                counts.prismesh_failed_alone,
                exempt(Exemption::Silent),
                exempt(Exemption::Hung),
                exempt(Exemption::Dead)
            );
        }
        let _ = write!(text, "\n{} differences", self.differences.len());
        if self.stood_still > self.judged() {
            text.push_str(", and this machine stood still too often for that to mean something");
        }
        text
    }
}

fn line(played: &Played, fared: &Fared, verdict: &Verdict) -> String {
    let direct = fared.direct.iter().map(|(chosen, side)| format!("direct, api-{}: {}", chosen + 1, fate(side)));
    let (Trial { number, world, .. }, kind) = (&played.trial, fared.pair.kind);
    let direct: Vec<String> = direct.collect();
    format!("{number} {world}, {kind}: {verdict} | through prismesh: {} | {}", fate(&fared.through), direct.join(" | "))
}

fn fate(side: &Side) -> String {
    let local = side.local.map_or("never connected".to_owned(), |local| format!("from {local}"));
    let came = match &side.came {
        Ok(came) => format!("all of it came ({came})"),
        Err(why) => format!("failed ({why})"),
    };
    format!("{local}, {came} at {:.3} s", side.at.as_secs_f64())
}

fn told(played: &Played) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (_, verdict) in &played.pairs {
        let name = if let Verdict::Difference(_) = verdict { "DIFFERENT".to_owned() } else { verdict.to_string() };
        *counts.entry(name).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let faults: Vec<String> = played.trial.faults.iter().map(ToString::to_string).collect();
    let Trial { number, world, .. } = played.trial;
    let chosen = (0..APISERVERS).map(|apiserver| {
        let led_there = |(fared, _): &&(Fared, Verdict)| matches!(fared.direct.as_slice(), [(chosen, _)] if *chosen == apiserver);
        played.pairs.iter().filter(led_there).count().to_string()
    });
    let chosen = chosen.collect::<Vec<_>>().join(" ");
    format!("trial {number:>3} {world}: {} | pairs at each apiserver: {chosen} | {}", counts.join(", "), faults.join("; "))
}
