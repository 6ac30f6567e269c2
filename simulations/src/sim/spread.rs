//! What a handful of runs say of one figure, and which way a figure is bad.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::figures::quantile;
use super::outcome::Outcome;

/// How a figure is spread over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many runs have it.
    pub runs: usize,
    /// The least.
    pub least: f64,
    /// A quarter of the runs is at most here.
    pub p25: f64,
    /// Half of them.
    pub p50: f64,
    /// Three quarters of them.
    pub p75: f64,
    /// 99 in a hundred; with fewer runs the most.
    pub p99: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of some values; [`None`] if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share| quantile(&sorted, share);
        Some(Spread {
            runs: sorted.len(),
            least: at(0.0)?,
            p25: at(0.25)?,
            p50: at(0.5)?,
            p75: at(0.75)?,
            p99: at(0.99)?,
            most: at(1.0)?,
        })
    }

    /// How far apart the middle half of the runs is.
    pub fn middle(&self) -> f64 {
        self.p75 - self.p25
    }
}

/// Every figure that some of these runs have.
pub fn figures<'r>(runs: impl IntoIterator<Item = &'r Outcome>) -> BTreeMap<&'r str, Spread> {
    spreads(runs.into_iter().map(|outcome| &outcome.figures))
}

/// Every figure that is in some of these.
pub fn spreads<'r>(all: impl IntoIterator<Item = &'r BTreeMap<String, f64>>) -> BTreeMap<&'r str, Spread> {
    let mut values: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, figure) in all.into_iter().flatten() {
        values.entry(name).or_default().push(*figure);
    }
    values.into_iter().filter_map(|(name, values)| Some((name, Spread::of(values)?))).collect()
}

/// Whether more of it is worse. Of what merely tells how much went on, neither is: nobody is to blame for many connections.
pub fn more_is_worse(figure: &str) -> bool {
    let costs = ["_failed", "_ms", "_kB", "_kB_per_node_s", "_MB_per_node", "_per_s", "_per_endpoint_s", "_s"];
    costs.iter().any(|cost| figure.ends_with(cost))
}

/// A difference of no more than this is of no interest: of times, two steps of the world's clock and a scheduler's whim; of
/// shares and rates, what rounding makes of them.
pub fn grain(figure: &str) -> f64 {
    match figure {
        _ if figure.ends_with("_ms") => 5.0,
        _ if figure.contains("_kB_") => 0.1,
        _ if figure.ends_with("_s") || figure.ends_with("_failed") => 1.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_three_runs_is_all_of_them() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.runs, spread.least, spread.p50, spread.p99, spread.most), (3, 1.0, 2.0, 3.0, 3.0));
        assert_eq!(spread.middle(), 2.0);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_run_that_lacks_a_figure_does_not_count_for_it() {
        let of = |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let all = [of(&[("a_ms", 1.0), ("b", 2.0)]), of(&[("a_ms", 3.0)])];
        let spreads = spreads(&all);
        assert_eq!((spreads["a_ms"].runs, spreads["b"].runs), (2, 1));
    }

    #[test]
    fn waiting_failing_and_traffic_are_worse_the_more_there_is_and_connections_are_not() {
        for worse in
            ["first_byte_p99_ms", "connections_failed", "gossip_kB_per_node_s", "engine_steps_per_s", "lease_age_oldest_s"]
        {
            assert!(more_is_worse(worse), "{worse}");
        }
        assert!(!more_is_worse("connections"));
    }
}
