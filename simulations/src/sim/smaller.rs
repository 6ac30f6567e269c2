//! Smaller plans: the same story with less in it.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

use super::plan::{Plan, Step};

impl Plan {
    /// The same plan with every node's name written down, so that the others keep theirs when one is taken away.
    pub(super) fn with_names(mut self) -> Plan {
        let names = self.names();
        for (node, name) in self.cluster.nodes.iter_mut().zip(names) {
            node.name = name;
        }
        self
    }

    /// Without these steps.
    pub(super) fn without_steps(&self, which: Range<usize>) -> Plan {
        let mut plan = self.clone();
        plan.steps.drain(which.start.min(self.steps.len())..which.end.min(self.steps.len()));
        plan
    }

    /// Without these nodes, and without what happens to nobody else.
    pub(super) fn without_nodes(&self, which: Range<usize>) -> Plan {
        let mut plan = self.clone();
        let all = plan.cluster.nodes.len();
        let gone = plan.cluster.nodes.drain(which.start.min(all)..which.end.min(all));
        let gone: BTreeSet<String> = gone.map(|node| node.name).collect();
        plan.steps = self.steps.iter().filter_map(|step| without_names(step, &gone)).collect();
        plan
    }

    /// How many names stand in lists of more than one.
    pub(super) fn spare_names(&self) -> usize {
        self.steps.iter().map(|step| spare(step).len()).sum()
    }

    /// Without these of them.
    pub(super) fn without_spare_names(&self, which: &Range<usize>) -> Plan {
        let mut plan = self.clone();
        let mut first = 0;
        for step in &mut plan.steps {
            let names = spare(step);
            let here: BTreeSet<String> = names
                .iter()
                .enumerate()
                .filter(|(place, _)| which.contains(&(first + place)))
                .map(|(_, name)| name.clone())
                .collect();
            first += names.len();
            // A list that would become empty stays as it is.
            if let Some(less) = without_names(step, &here) {
                *step = less;
            }
        }
        plan
    }

    /// Simpler in one respect each.
    pub(super) fn simpler(&self) -> Vec<Plan> {
        type Change = fn(&mut Plan);
        let changes: [Change; 10] = [
            |plan| plan.cluster.zones = vec![vec![2]; 1],
            |plan| plan.cluster.steady = 0,
            |plan| plan.cluster.kubelets = false,
            |plan| plan.cluster.exchanges = false,
            |plan| plan.cluster.fresh_every = 0,
            |plan| plan.cluster.balancer = None,
            |plan| plan.cluster.jitter = 0.0,
            |plan| plan.cluster.stagger = 0,
            |plan| plan.cluster.config.clear(),
            |plan| plan.lasts = (plan.lasts / 4 * 3).max(plan.steps.iter().map(|step| step.at).max().unwrap_or(0)),
        ];
        let before = super::file::written(self).unwrap_or_default();
        let simpler = changes.iter().map(|change| {
            let mut plan = self.clone();
            change(&mut plan);
            if plan.cluster.zones.len() == 1 {
                plan.cluster.nodes.iter_mut().for_each(|node| node.zone = 0);
                plan.cluster.balancer = plan.cluster.balancer.map(|_| 0);
            }
            plan
        });
        simpler.filter(|plan| super::file::written(plan).is_ok_and(|after| after != before)).collect()
    }
}

/// The names of a step's lists of more than one.
fn spare(step: &Step) -> Vec<String> {
    let written = serde_json::to_value(&step.what).unwrap_or_default();
    let fields = written.as_object().into_iter().flat_map(|kind| kind.values()).filter_map(Value::as_object);
    let lists = fields.flatten().filter_map(|(_, list)| list.as_array()).filter(|list| list.len() > 1);
    lists.flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A step that does not name these; [`None`] if then it concerns nobody.
fn without_names(step: &Step, gone: &BTreeSet<String>) -> Option<Step> {
    if step.what.named().iter().all(|name| !gone.contains(name)) && !gone.iter().any(|name| is_node(step, name)) {
        return Some(step.clone());
    }
    let mut written = serde_json::to_value(step).ok()?;
    let fields = written.as_object_mut()?.values_mut().filter_map(Value::as_object_mut);
    for (_, field) in fields.flatten() {
        if let Value::Array(names) = field {
            names.retain(|name| name.as_str().is_none_or(|name| !gone.contains(name)));
            if names.is_empty() {
                return None;
            }
        } else if field.as_str().is_some_and(|name| gone.contains(name)) {
            return None;
        }
    }
    serde_json::from_value(written).ok()
}

/// A hostile member is named in a field of its own.
fn is_node(step: &Step, name: &str) -> bool {
    matches!(&step.what, super::plan::Fault::Hostile { node, .. } if node == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::plan::{Cluster, Fault, Node, who};
    use crate::sim::state::Mode;

    fn plan() -> Plan {
        let node = |name: &str| Node { name: name.to_owned(), control_plane: true, ..Node::default() };
        let nodes = ["a", "b", "c"].map(node).to_vec();
        let partition = Fault::Partition { from: who("a"), to: vec!["b".to_owned(), "c".to_owned()], both: true, class: None };
        Plan { cluster: Cluster { nodes, ..Cluster::default() }, steps: Vec::new(), lasts: 60_000 }
            .step(1_000, Fault::Apiserver { of: who("a"), mode: Mode::Hung })
            .fault(2_000, 500, partition)
    }

    #[test]
    fn what_happens_to_a_node_that_is_taken_away_goes_with_it() {
        let without_a = plan().without_nodes(0..1);
        assert_eq!(without_a.names(), ["b", "c"]);
        assert!(without_a.steps.is_empty());
        let without_c = plan().without_nodes(2..3);
        assert_eq!(without_c.steps.len(), 2);
        assert_eq!(without_c.steps[1].what.named(), ["a", "b"]);
        assert_eq!(without_c.steps[1].lasts, Some(500));
    }

    #[test]
    fn only_names_that_are_not_alone_in_their_list_are_taken_away() {
        assert_eq!(plan().spare_names(), 2);
        assert_eq!(plan().without_spare_names(&(0..1)).steps[1].what.named(), ["a", "c"]);
    }

    #[test]
    fn what_is_simpler_is_different_and_can_be_played() {
        for simpler in plan().simpler() {
            assert_eq!(simpler.faulty(), None);
        }
    }
}
