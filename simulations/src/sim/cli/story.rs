//! Which story a command is about: a scenario with a seed, or a file.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::bail;
use clap::Args;

use crate::scenarios;
use crate::sim::file;
use crate::sim::outcome::{Outcome, PROGRAM};
use crate::sim::plan::Plan;
use crate::sim::run::Ran;
use crate::sim::sabotage::{self, Sabotage};
use crate::sim::scenario::{Cast, Class, Scenario, nothing_more};

/// What is said of a figure that a run does not have.
pub(super) const NO_FIGURE: &str = "there is no such figure";

/// A story, as the command line names it.
#[derive(Clone, Debug, Args)]
pub(super) struct Story {
    /// The scenario's name; `list` prints them all.
    #[arg(required_unless_present = "cluster")]
    pub(super) scenario: Option<String>,
    /// What everything is drawn from.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// The smallest cluster in which the story means something.
    #[arg(long)]
    pub(super) smallest: bool,
    /// Play this cluster and its steps, a YAML file, in place of the scenario's; what the scenario promises must still hold.
    #[arg(long, value_name = "FILE")]
    pub(super) cluster: Option<PathBuf>,
    /// Play these steps, a YAML or JSON list, in place of the scenario's or the cluster's.
    #[arg(long, value_name = "FILE")]
    pub(super) faults: Option<PathBuf>,
    /// Spoil the agents in this way, to see who notices; `sabotages` prints them all.
    #[arg(long, value_name = "NAME", value_parser = find_sabotage)]
    pub(super) sabotage: Option<&'static Sabotage>,
    /// Fail unless a figure is as said, such as connections_failed<=0; may be given several times.
    #[arg(long, value_name = "FIGURE<=NUMBER")]
    pub(super) expect: Vec<Expect>,
}

/// A story that can be played.
pub(super) struct Told {
    pub(super) scenario: Scenario,
    pub(super) plan: Plan,
    expect: Vec<Expect>,
    from_file: bool,
}

impl Story {
    /// Finds it, and reads its files.
    pub(super) fn tell(&self) -> anyhow::Result<Told> {
        let scenario = self.scenario.as_deref().map(find).transpose()?;
        let mut plan = match (&self.cluster, scenario) {
            (Some(path), _) => file::plan(path)?,
            (None, Some(scenario)) => scenario.tell(self.seed, self.smallest),
            (None, None) => bail!("name a scenario, or give a --cluster file"),
        };
        if let Some(path) = &self.faults {
            file::faults(path, &mut plan)?;
            if plan.steps.is_empty() {
                eprintln!("{}: no steps: nothing happens", path.display());
            }
        }
        if let Some((_, what)) = plan.faulty() {
            bail!("{}: {what}", scenario.map_or("the plan", |scenario| scenario.name));
        }
        let scenario = scenario.copied().unwrap_or_else(|| self.of_a_file());
        Ok(Told { scenario, plan, expect: self.expect.clone(), from_file: self.cluster.is_some() })
    }

    /// Why a run of it could not be made.
    pub(super) fn cannot(&self, error: anyhow::Error, name: &str) -> anyhow::Error {
        let paths: Vec<&Path> = self.cluster.iter().chain(&self.faults).map(PathBuf::as_path).collect();
        file::placed(error, &paths).context(format!("{name} cannot be played"))
    }

    /// A scenario that is nothing but a file.
    fn of_a_file(&self) -> Scenario {
        let name = self.cluster.as_deref().map_or_else(|| "cluster".to_owned(), name_of);
        let plan = |_: &Cast| Plan { cluster: Default::default(), steps: Vec::new(), lasts: 0 };
        // One a process, and names of scenarios live as long as that.
        let name = Box::leak(name.into_boxed_str());
        Scenario { name, story: "A cluster from a file.", class: Class::Quick, plan, holds: nothing_more, errors: &[] }
    }

    /// The arguments that name it again.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = self.scenario.iter().cloned().collect();
        words.extend(["--seed".to_owned(), self.seed.to_string()]);
        if self.smallest {
            words.push("--smallest".to_owned());
        }
        for (option, path) in [("--cluster", &self.cluster), ("--faults", &self.faults)] {
            if let Some(path) = path {
                words.extend([option.to_owned(), path.to_string_lossy().into_owned()]);
            }
        }
        if let Some(sabotage) = self.sabotage {
            words.extend(["--sabotage".to_owned(), sabotage.name.to_owned()]);
        }
        for expect in &self.expect {
            words.extend(["--expect".to_owned(), expect.to_string()]);
        }
        words
    }

    /// What a person types to do something with it.
    pub(super) fn command(&self, what: &str) -> String {
        format!("{PROGRAM} {what} {}", quoted(&self.arguments()))
    }
}

/// Words as a shell takes them.
pub(super) fn quoted(words: &[String]) -> String {
    let quoted = words.iter().map(|word| if plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A shell takes it as it is.
fn plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|sign| sign.is_ascii_alphanumeric() || "-_./:=".contains(sign))
}

impl Told {
    /// Judges what came of it.
    pub(super) fn judge(&self, ran: &Ran) -> Outcome {
        let mut outcome = Outcome::of(&self.scenario, ran);
        let broken: Vec<String> = self.expect.iter().filter_map(|expect| expect.broken(&outcome)).collect();
        outcome.broken_promises.extend(broken);
        outcome.from_file = self.from_file;
        outcome
    }
}

/// What a cluster is called that comes from a file.
pub(super) fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(|| "cluster".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

/// The sabotage of this name.
fn find_sabotage(name: &str) -> Result<&'static Sabotage, String> {
    sabotage::find(name).ok_or_else(|| "there is none of that name; `sabotages` prints them all".to_owned())
}

/// The scenario of this name.
pub(super) fn find(name: &str) -> anyhow::Result<&'static Scenario> {
    let found = scenarios::ALL.iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| anyhow::anyhow!("there is no scenario {name:?}; `list` names them all"))
}

/// The scenarios of this name; a `*` at its end stands for whatever follows.
pub(super) fn matching(pattern: &str) -> anyhow::Result<Vec<&'static Scenario>> {
    let Some(start) = pattern.strip_suffix('*') else { return Ok(vec![find(pattern)?]) };
    let found: Vec<_> = scenarios::ALL.iter().filter(|scenario| scenario.name.starts_with(start)).collect();
    anyhow::ensure!(!found.is_empty(), "no scenario's name begins with {start:?}; `list` names them all");
    Ok(found)
}

/// A story in short.
pub(super) fn first_sentence(story: &str) -> &str {
    story.split_inclusive(". ").next().unwrap_or(story).trim()
}

/// What a figure has to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Expect {
    figure: String,
    at_most: bool,
    bound: f64,
}

impl FromStr for Expect {
    type Err = String;

    fn from_str(text: &str) -> Result<Expect, String> {
        let wrong = || format!("{text:?} is not like connections_failed<=0 or connections>=100");
        let split = text.split_once("<=").map(|halves| (halves, true));
        let ((figure, bound), at_most) = split.or_else(|| Some((text.split_once(">=")?, false))).ok_or_else(wrong)?;
        let bound = bound.trim().parse().map_err(|_| wrong())?;
        Ok(Expect { figure: figure.trim().to_owned(), at_most, bound })
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.figure, if self.at_most { "<=" } else { ">=" }, self.bound)
    }
}

impl Expect {
    fn broken(&self, outcome: &Outcome) -> Option<String> {
        let Some(figure) = outcome.figures.get(&self.figure) else {
            return Some(format!("expected {self}, and {NO_FIGURE}"));
        };
        let held = if self.at_most { *figure <= self.bound } else { *figure >= self.bound };
        (!held).then(|| format!("expected {self}, and it is {figure}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_of_a_figure_is_read_as_it_is_written() {
        for text in ["connections_failed<=0", "connections>=100.5"] {
            assert_eq!(text.parse::<Expect>().unwrap().to_string(), text);
        }
        assert!("connections".parse::<Expect>().is_err());
        assert!("connections<=few".parse::<Expect>().is_err());
    }

    #[test]
    fn a_command_is_written_as_a_shell_takes_it() {
        let words = ["run", "--expect", "connections_failed<=0", "my cluster's.yaml"].map(str::to_owned);
        assert_eq!(quoted(&words), r"run --expect 'connections_failed<=0' 'my cluster'\''s.yaml'");
    }

    #[test]
    fn the_first_sentence_of_a_story_ends_with_its_stop() {
        assert_eq!(first_sentence("One. Two."), "One.");
        assert_eq!(first_sentence("Only one."), "Only one.");
    }
}
