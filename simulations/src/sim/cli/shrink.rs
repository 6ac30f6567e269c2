//! `shrink`: the smallest story that still breaks the same thing.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::pool::{self, Job, Played};
use super::story::{NO_FIGURE, Story};
use crate::sim::file;
use crate::sim::outcome::Outcome;
use crate::sim::plan::Plan;
use crate::sim::words;

/// A complaint is known again by so much of it.
const KNOWN_BY: usize = 60;

/// Which failure, and how long to look for a smaller one.
#[derive(Debug, Args)]
pub struct Shrink {
    #[command(flatten)]
    story: Story,
    /// Keep this invariant broken [default: whatever is broken first]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=11))]
    invariant: Option<u8>,
    /// Runs at most.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = at_least_one)]
    tries: usize,
    /// A run that takes longer than this on the wall is ended, and has failed.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    wall: u64,
    /// Write the smallest plan to this file [default: a file among the temporary ones]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Shrink {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        let told = self.story.tell()?;
        let name = told.scenario.name;
        let dir = tempfile::tempdir().context("cannot make a directory for the plans")?;
        let mut hunt = Hunt { shrink: self, dir: dir.path(), tries: 0, target: String::new() };
        let mut best = told.plan.with_names();
        let first = hunt.play(std::slice::from_ref(&best))?.remove(0).outcome;
        let broken = kinds(&first);
        hunt.target = match self.invariant {
            Some(number) => format!("invariant {number}"),
            None => broken.first().cloned().unwrap_or_default(),
        };
        if !broken.contains(&hunt.target) {
            let why = match (self.invariant, broken.as_slice()) {
                (_, []) => format!("all holds with seed {}", self.story.seed),
                (Some(number), others) => format!("invariant {number} holds; what does not: {}", others.join("; ")),
                (None, others) => others.join("; "),
            };
            anyhow::bail!("there is nothing to shrink of {name}: {why}");
        }
        let out = self.out(name)?;
        eprintln!("broken: {}; with {}", hunt.target, size(&best));
        while hunt.round(&mut best)? && hunt.left() > 0 {}
        let yaml = file::written(&best)?;
        std::fs::write(&out, &yaml).with_context(|| format!("cannot write {}", out.display()))?;
        say!("{}", yaml.trim_end());
        eprintln!("{} still break {}; {} after {}", size(&best), hunt.target, out.display(), words::count(hunt.tries, "run"));
        if hunt.left() == 0 {
            eprintln!("more tries may find less: --tries");
        }
        eprintln!("again:  {}", self.of(&out).command("run"));
        Ok(true)
    }

    /// Where the smallest plan goes: it can be written before a search of minutes begins.
    fn out(&self, name: &str) -> anyhow::Result<PathBuf> {
        let usual = || std::env::temp_dir().join(format!("{name}-{}.yaml", self.story.seed));
        let out = self.out.clone().unwrap_or_else(usual);
        std::fs::write(&out, "").with_context(|| format!("cannot write {}", out.display()))?;
        Ok(out)
    }

    /// The same story with its plan in a file.
    fn of(&self, plan: &Path) -> Story {
        Story { cluster: Some(plan.to_owned()), faults: None, smallest: false, ..self.story.clone() }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|tries| *tries > 0).ok_or_else(|| "at least one run is needed to see what is broken".to_owned())
}

fn size(plan: &Plan) -> String {
    format!("{} and {}", words::count(plan.cluster.nodes.len(), "node"), words::count(plan.steps.len(), "step"))
}

/// What is broken, so that it is known again when names and numbers in it are others.
fn kinds(outcome: &Outcome) -> Vec<String> {
    let complaint = |text: &String| {
        let what = text.split_once(" ms: ").filter(|(at, _)| at.starts_with("at ")).map_or(text.as_str(), |(_, what)| what);
        let plain: String = what.chars().filter(|sign| !sign.is_ascii_digit()).take(KNOWN_BY).collect();
        format!("complaint {}", plain.trim())
    };
    // A story too small to have a figure at all does not break what was expected of it.
    let promised = outcome.broken_promises.iter().any(|promise| !promise.ends_with(NO_FIGURE));
    let others = outcome.broken_kinds().into_iter().filter(|kind| kind != "complaint" && (promised || kind != "promise"));
    others.chain(outcome.complaints.iter().map(complaint)).collect()
}

struct Hunt<'a> {
    shrink: &'a Shrink,
    dir: &'a Path,
    tries: usize,
    target: String,
}

impl Hunt<'_> {
    fn left(&self) -> usize {
        self.shrink.tries.saturating_sub(self.tries)
    }

    /// Plays these plans, some at a time.
    fn play(&mut self, plans: &[Plan]) -> anyhow::Result<Vec<Played>> {
        let mut jobs = Vec::new();
        for plan in plans {
            self.tries += 1;
            let path = self.dir.join(format!("{}.yaml", self.tries));
            std::fs::write(&path, file::written(plan)?).context("cannot write a plan")?;
            let story = self.shrink.of(&path);
            jobs.push(Job { name: "a smaller plan".to_owned(), seed: story.seed, arguments: story.arguments() });
        }
        let mut played: Vec<(usize, Played)> = Vec::new();
        let wall = Duration::from_secs(self.shrink.wall);
        pool::play_all(&jobs, pool::cores(), wall, |place, it| played.push((place, it)))?;
        played.sort_by_key(|(place, _)| *place);
        Ok(played.into_iter().map(|(_, it)| it).collect())
    }

    /// The first of these that is still broken, and which it is. Plans that cannot be played are left out.
    fn first_broken(&mut self, plans: Vec<Plan>) -> anyhow::Result<Option<(usize, Plan)>> {
        let plans = plans.into_iter().enumerate().filter(|(_, plan)| plan.faulty().is_none());
        let plans: Vec<(usize, Plan)> = plans.take(self.left()).collect();
        for some in plans.chunks(pool::cores()) {
            let played = self.play(&some.iter().map(|(_, plan)| plan.clone()).collect::<Vec<_>>())?;
            let still = some.iter().zip(played).find(|(_, it)| kinds(&it.outcome).contains(&self.target));
            if let Some(((place, plan), _)) = still {
                eprintln!("after {} runs: {}", self.tries, size(plan));
                return Ok(Some((*place, plan.clone())));
            }
        }
        Ok(None)
    }

    /// Tries everything once, and says whether something became smaller.
    fn round(&mut self, best: &mut Plan) -> anyhow::Result<bool> {
        let steps = self.remove(best, |plan| plan.steps.len(), Plan::without_steps)?;
        let nodes = self.remove(best, |plan| plan.cluster.nodes.len(), Plan::without_nodes)?;
        let names = self.remove(best, Plan::spare_names, |plan, which| plan.without_spare_names(&which))?;
        let mut simpler = false;
        while let Some((_, plan)) = self.first_broken(best.simpler())? {
            *best = plan;
            simpler = true;
        }
        Ok(steps || nodes || names || simpler)
    }

    /// Takes away halves, then quarters, and so on down to one by one, whatever is not needed.
    fn remove(
        &mut self,
        best: &mut Plan,
        count: impl Fn(&Plan) -> usize,
        without: impl Fn(&Plan, Range<usize>) -> Plan,
    ) -> anyhow::Result<bool> {
        let mut smaller = false;
        let mut size = count(best).div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < count(best) {
                let starts: Vec<usize> = (from..count(best)).step_by(size).collect();
                let plans = starts.iter().map(|start| without(best, *start..start + size)).collect();
                let Some((place, plan)) = self.first_broken(plans)? else { break };
                *best = plan;
                smaller = true;
                from = starts[place];
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        Ok(smaller)
    }
}
