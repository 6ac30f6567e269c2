//! Plans and fault schedules in files: YAML, or JSON, which is YAML too. What is wrong is told with its file and line.

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_saphyr::Spanned;

use super::plan::{Plan, Step};
use super::sound::Place;

/// Reads a plan.
///
/// # Errors
/// The file cannot be read, is no plan, or its plan cannot be played.
pub fn plan(path: &Path) -> anyhow::Result<Plan> {
    let text = read(path)?;
    let plan: Plan = parse(path, &text)?;
    sound(path, &plan, &parse(path, &text).unwrap_or_default())?;
    Ok(plan)
}

/// Reads a list of steps, and puts it in place of a plan's.
///
/// # Errors
/// The file cannot be read, is no list of steps, or the plan's cluster cannot play them.
pub fn faults(path: &Path, plan: &mut Plan) -> anyhow::Result<()> {
    let text = read(path)?;
    plan.steps = parse::<Vec<Step>>(path, &text)?;
    sound(path, plan, &Lines { steps: parse(path, &text).unwrap_or_default(), ..Lines::default() })
}

/// A plan as it stands in a file.
///
/// # Errors
/// Never, as far as is known: a plan is plain data.
pub fn written(plan: &Plan) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(plan)?)
}

/// A node's configuration that prismesh refuses. Nobody wrote it as it is: it is made of what a plan says.
#[derive(Debug)]
pub struct Misconfigured {
    /// Whose.
    pub node: String,
    /// The line that is wrong.
    pub said: Option<String>,
    /// What is wrong with it, and what would be right.
    pub what: String,
}

impl fmt::Display for Misconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration of {}, made of the plan and its `config`, is refused", self.node)?;
        if let Some(said) = &self.said {
            write!(f, " for its line `{said}`")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for Misconfigured {}

impl Misconfigured {
    /// The number of the line in a file whose `config` it comes from.
    fn line(&self, text: &str) -> Option<usize> {
        let said = self.said.as_deref()?;
        let whole = text.lines().position(|line| line.trim() == said);
        whole.or_else(|| text.lines().position(|line| line.contains(said))).map(|place| place + 1)
    }
}

/// Tells where in these files something stands that only an agent found to be wrong.
pub fn placed(error: anyhow::Error, paths: &[&Path]) -> anyhow::Error {
    let Some(wrong) = error.downcast_ref::<Misconfigured>() else { return error };
    let found = paths.iter().find_map(|path| Some((path, wrong.line(&read(path).ok()?)?)));
    match found {
        Some((path, line)) => anyhow!("{}:{line}: {wrong}", path.display()),
        None => error,
    }
}

/// Where things stand in a file.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Lines {
    cluster: ClusterLines,
    steps: Vec<Spanned<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClusterLines {
    zones: Option<Spanned<IgnoredAny>>,
    jitter: Option<Spanned<IgnoredAny>>,
    balancer: Option<Spanned<IgnoredAny>>,
    nodes: Vec<Spanned<NodeLine>>,
}

/// A line that stands for so many nodes.
#[derive(Deserialize)]
struct NodeLine {
    count: Option<usize>,
}

impl Lines {
    /// The number of the line, where one is known.
    fn of(&self, place: Place) -> Option<u64> {
        let cluster = &self.cluster;
        match place {
            Place::Cluster("zones") => cluster.zones.as_ref().map(line),
            Place::Cluster("jitter") => cluster.jitter.as_ref().map(line),
            Place::Cluster("balancer") => cluster.balancer.as_ref().map(line),
            Place::Cluster(_) => None,
            Place::Node(place) => {
                let lines = cluster.nodes.iter().flat_map(|node| (0..node.value.count.unwrap_or(1)).map(move |_| node));
                lines.map(line).nth(place)
            }
            Place::Step(place) => self.steps.get(place).map(line),
        }
    }
}

fn line<T>(spanned: &Spanned<T>) -> u64 {
    spanned.referenced.line()
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> anyhow::Result<T> {
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let message = error.without_snippet().render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let message = message.split(" at line ").next().unwrap_or_default();
        match error.location().map(|location| location.line()).filter(|line| *line > 0) {
            Some(line) => anyhow!("{}:{line}: {message}", path.display()),
            None => anyhow!("{}: {message}", path.display()),
        }
    })
}

fn sound(path: &Path, plan: &Plan, lines: &Lines) -> anyhow::Result<()> {
    let Some((place, what)) = plan.faulty() else { return Ok(()) };
    Err(match lines.of(place) {
        Some(line) => anyhow!("{}:{line}: {what}", path.display()),
        None => anyhow!("{}: {what}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(text: &str) -> Result<Plan, String> {
        let path = Path::new("some.yaml");
        let plan: Plan = parse(path, text).map_err(|error| format!("{error:#}"))?;
        let lines = parse(path, text).unwrap_or_default();
        sound(path, &plan, &lines).map_err(|error| format!("{error:#}"))?;
        Ok(plan)
    }

    const GOOD: &str = "\
cluster:
  zones: [[2, 10], [10, 2]]
  stagger: 1s
  nodes:
    - {control-plane: true}
    - {count: 3, zone: 1}
steps:
  - at: 10s
    lasts: 5s
    apiserver: {of: cp-1, mode: refusing}
  - at: 20s
    new-ca:
  - at: 21s
    give-ca: {of: [cp-1, worker-*]}
  - at: 22s
    apiserver: {of: [cp-1], mode: {slow: 20}}
lasts: 60s
";

    #[test]
    fn a_plan_is_read_as_people_write_it_and_comes_back_as_it_was_written() {
        let plan = plan_of(GOOD).unwrap();
        assert_eq!(plan.names(), ["cp-1", "worker-1", "worker-2", "worker-3"]);
        assert_eq!((plan.steps[0].at, plan.steps[0].lasts, plan.lasts), (10_000, Some(5_000), 60_000));
        let again = plan_of(&written(&plan).unwrap()).unwrap();
        assert_eq!(again.steps, plan.steps);
        assert_eq!(again.names(), plan.names());
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let wrong = [
            ("at: 20s", "at: soon", "some.yaml:11: ", "no span of time"),
            ("apiserver: {of: cp-1,", "apisever: {of: cp-1,", "some.yaml:10: ", "apisever"),
            ("    lasts: 5s", "    last: 5s", "some.yaml:9: ", "last"),
            ("mode: refusing", "mode: lazy", "some.yaml:10: ", "lazy"),
            ("of: cp-1,", "of: cp-9,", "some.yaml:8: ", "cp-9"),
            ("control-plane: true", "control-plan: true", "some.yaml:5: ", "control-plan"),
            ("lasts: 60s", "lasts: 20s", "some.yaml:13: ", "after the end"),
            ("zone: 1", "zone: 7", "some.yaml:6: ", "zone"),
            ("[[2, 10], [10, 2]]", "[[2, 5], [5, 2]]", "some.yaml:2: ", "whole ms"),
            ("[[2, 10], [10, 2]]", "[[2, 10], [4, 2]]", "some.yaml:2: ", "from either end"),
            ("[[2, 10], [10, 2]]", "[[2, 0.5], [0.5, 2]]", "some.yaml:2: ", "whole milliseconds"),
            ("[[2, 10], [10, 2]]", "[[2]]", "some.yaml:6: ", "zone"),
            ("{control-plane: true}", "{zone: 0}", "some.yaml: ", "nobody can be reached"),
            ("worker-*", "zzz*", "some.yaml:13: ", "begins with \"zzz\""),
            ("give-ca: {of: [cp-1, worker-*]}", "join: {of: worker-1}", "some.yaml:13: ", "there already"),
            ("new-ca:", "balancer: {mode: hung}", "some.yaml:11: ", "no balancer"),
            ("new-ca:", "flap: {of: cp-1, period: 0}", "some.yaml:11: ", "period"),
            ("new-ca:", "flap: {of: cp-1, period: 2s}", "some.yaml:11: ", "how long"),
            ("new-ca:", "state-restored: {of: cp-1, from: 30s}", "some.yaml:11: ", "cannot be put back"),
            ("new-ca:", "keyring: {of: cp-1, step: turn}", "some.yaml:11: ", "add, promote, retire"),
            ("  stagger: 1s", " stagger: 1s", "some.yaml:3: ", ""),
        ];
        for (right, slip, place, what) in wrong {
            let told = plan_of(&GOOD.replace(right, slip)).unwrap_err();
            assert!(told.starts_with(place) && told.contains(what), "{slip}: {told}");
        }
    }
}
