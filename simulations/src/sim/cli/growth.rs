//! `growth`: what a cluster costs and how fast it learns, at several sizes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::pool::{self, Job};
use super::table::Table;
use crate::sim::file;
use crate::sim::measure::growth::{Figures, Story, point};
use crate::sim::measure::limits;
use crate::sim::outcome::{Outcome, PROGRAM};
use crate::sim::results::{Point, Results};

/// Sizes that everybody has the time for.
const SIZES: [usize; 3] = [5, 50, 200];
/// And those that take long.
const MORE: [usize; 2] = [500, 1_000];
/// A run that takes longer than this on the wall is ended, unless another limit is given.
const LONG: Duration = Duration::from_secs(2 * 3_600);
/// The smallest cluster in which every story can be told.
const LEAST: usize = 5;

/// Which sizes, and where the figures are kept.
#[derive(Debug, Args)]
pub struct Growth {
    /// Only these sizes; `report --full` measures 500 and 1,000 as well.
    #[arg(long, num_args = 1.., value_name = "N")]
    nodes: Vec<usize>,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the figures into this file of results, as `sweep --out` leaves one, or into a new one; those of other sizes stay there.
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// A run that takes longer than this on the wall is ended.
    #[arg(long, default_value_t = LONG.as_secs(), value_name = "SECONDS")]
    wall: u64,
    /// Runs at the same time: more than one makes each slower, and speed is one of the figures.
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
}

impl Growth {
    pub(super) fn execute(&self) -> anyhow::Result<bool> {
        self.into.as_deref().map(Results::to_change).transpose()?;
        let (points, whole) = measure(&self.sizes()?, self.seed, self.jobs, Duration::from_secs(self.wall))?;
        let kept = tell(&points, self.seed);
        if let Some(path) = &self.into {
            Results::change(path, |results| merge(&mut results.growth, points))?;
            say!("written to {}", path.display());
        }
        Ok(whole && kept)
    }

    fn sizes(&self) -> anyhow::Result<Vec<usize>> {
        let mut sizes = if self.nodes.is_empty() { SIZES.into() } else { self.nodes.clone() };
        sizes.sort_unstable();
        sizes.dedup();
        anyhow::ensure!(sizes.iter().all(|size| *size >= LEAST), "a cluster of fewer than {LEAST} nodes has no story to tell");
        Ok(sizes)
    }
}

/// Measures clusters of those sizes that are not among these points, each kept as soon as it is there, and prints all figures; and
/// whether nothing was broken and no limit missed. So many runs of large clusters are made at the same time.
pub(super) fn full(
    points: &mut Vec<Point>,
    at_once: usize,
    mut keep: impl FnMut(&[Point]) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let mut whole = true;
    for size in lacking(points) {
        let at_once = if SIZES.contains(&size) { 1 } else { at_once };
        let (new, unbroken) = measure(&[size], 1, at_once, LONG)?;
        whole &= unbroken;
        merge(points, new);
        keep(points)?;
    }
    Ok(tell(points, 1) && whole)
}

fn lacking(points: &[Point]) -> Vec<usize> {
    SIZES.into_iter().chain(MORE).filter(|size| points.iter().all(|point| point.nodes != *size)).collect()
}

/// Puts newly measured points in the place of those of the same sizes.
fn merge(points: &mut Vec<Point>, new: Vec<Point>) {
    points.retain(|point| new.iter().all(|other| other.nodes != point.nodes));
    points.extend(new);
    points.sort_by_key(|point| point.nodes);
}

/// Measures clusters of these sizes; and whether all stories were played to their end and broke nothing.
fn measure(sizes: &[usize], seed: u64, at_once: usize, wall: Duration) -> anyhow::Result<(Vec<Point>, bool)> {
    let mut dir = tempfile::Builder::new().prefix("prismesh-growth-").tempdir().context("no directory for the stories")?;
    let tries: Vec<(usize, Story)> =
        sizes.iter().flat_map(|nodes| Story::of(*nodes).iter().map(move |story| (*nodes, *story))).collect();
    let jobs: Vec<Job> =
        tries.iter().map(|(nodes, story)| job(dir.path(), *nodes, *story, seed)).collect::<anyhow::Result<_>>()?;
    let (mut told, mut whole) = (BTreeMap::<usize, Vec<Figures>>::new(), true);
    pool::play_all(&jobs, at_once, wall, |place, played| {
        let (nodes, story) = tries[place];
        whole &= played.outcome.passed();
        say!("{} at {nodes} nodes took {:.0} s", story.name(), played.seconds);
        complain(nodes, story, &played.outcome);
        told.entry(nodes).or_default().push(played.outcome.figures);
    })?;
    // What failed is played again from its file.
    dir.disable_cleanup(!whole);
    let points = told.into_iter().map(|(nodes, stories)| Point { nodes, figures: point(&stories) });
    Ok((points.collect(), whole))
}

fn job(dir: &Path, nodes: usize, story: Story, seed: u64) -> anyhow::Result<Job> {
    let path = dir.join(format!("{}-{nodes}.yaml", story.name()));
    std::fs::write(&path, file::written(&story.plan(nodes))?).context("cannot write a story")?;
    let words = ["--seed", &seed.to_string(), "--measure", "growth", "--cluster", &path.to_string_lossy()];
    Ok(Job { name: story.name().to_owned(), seed, arguments: words.map(str::to_owned).into() })
}

fn complain(nodes: usize, story: Story, outcome: &Outcome) {
    if !outcome.passed() {
        say!("FAILED: {} at {nodes} nodes, seed {}", story.name(), outcome.seed);
        for failure in outcome.failures() {
            say!("  {failure}");
        }
        say!("  again: {}", outcome.command());
    }
}

/// Prints the figures, and what misses its limit; whether nothing does that binds.
fn tell(points: &[Point], seed: u64) -> bool {
    for line in table(points).lines() {
        say!("{line}");
    }
    let mut kept = true;
    for point in points {
        for (figure, value, limit) in limits::missed(point) {
            let (sign, what) = if limit.binds() { (">", "MISSED") } else { ("<", "slower than it should be on this machine") };
            say!("{what}: {} at {} nodes: {value:.2} {sign} {:.2}", words(figure), point.nodes, limit.bound);
            kept &= !limit.binds();
        }
    }
    if !kept {
        let sizes: Vec<String> = points.iter().map(|point| point.nodes.to_string()).collect();
        say!("  again: {PROGRAM} growth --seed {seed} --nodes {}", sizes.join(" "));
    }
    kept
}

fn words(figure: &str) -> String {
    limits::words(figure).map_or_else(|| figure.to_owned(), |named| format!("{}, {}", named.words, named.unit))
}

/// A row a figure, a column a size; a figure that has a limit has it beside it.
fn table(points: &[Point]) -> Table {
    let sizes: Vec<String> = points.iter().map(|point| format!("{} nodes", point.nodes)).collect();
    let head: Vec<&str> = std::iter::once("").chain(sizes.iter().map(String::as_str)).collect();
    let mut table = Table::new(&head);
    for name in limits::ordered(points) {
        let cell = |point: &Point| {
            let value = point.figures.get(name)?;
            let limit = limits::limit(name, point.nodes);
            let beside = limit.map(|limit| format!(" (at {} {:.2})", if limit.at_least { "least" } else { "most" }, limit.bound));
            Some(format!("{value:.2}{}", beside.unwrap_or_default()))
        };
        let cells = points.iter().map(|point| cell(point).unwrap_or_else(|| "-".to_owned()));
        table.row(std::iter::once(words(name)).chain(cells).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_once_each_in_order_and_too_small_ones_are_refused() {
        let growth = |nodes: &[usize]| Growth { nodes: nodes.into(), seed: 1, into: None, wall: 1, jobs: 1 };
        assert_eq!(growth(&[50, 5, 50]).sizes().unwrap(), [5, 50]);
        assert_eq!(growth(&[]).sizes().unwrap(), SIZES);
        assert!(growth(&[4]).sizes().is_err());
    }

    #[test]
    fn figures_of_other_sizes_stay_and_only_what_is_not_there_is_measured() {
        let point = |nodes, value| Point { nodes, figures: [("a_s".to_owned(), value)].into() };
        let mut points = vec![point(50, 1.0), point(500, 1.0)];
        merge(&mut points, vec![point(500, 2.0), point(5, 2.0)]);
        let all: Vec<(usize, f64)> = points.iter().map(|point| (point.nodes, point.figures["a_s"])).collect();
        assert_eq!(all, [(5, 2.0), (50, 1.0), (500, 2.0)]);
        assert_eq!(lacking(&points), [200, 1_000]);
    }

    #[test]
    fn a_figure_that_a_size_has_not_is_a_dash() {
        let one = Point { nodes: 5, figures: [("a_s".to_owned(), 1.0)].into() };
        let two = Point { nodes: 50, figures: [("b_s".to_owned(), 2.0)].into() };
        assert_eq!(table(&[one, two]).lines(), ["     5 nodes  50 nodes", "a_s     1.00         -", "b_s        -      2.00"]);
    }

    #[test]
    fn a_figure_that_misses_its_limit_fails_and_a_slow_machine_does_not() {
        let point = |name: &str, value| [Point { nodes: 50, figures: [(name.to_owned(), value)].into() }];
        assert!(tell(&point("draining_known_last_s", 1.5), 1));
        assert!(!tell(&point("draining_known_last_s", 1.6), 1));
        assert!(tell(&point("speed_times", 0.1), 1));
    }
}
