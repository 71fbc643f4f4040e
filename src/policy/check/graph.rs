//! Recursion and long chains. The engine answers recursion with an error, and a long chain with its stack.

use std::collections::BTreeMap;

use super::super::fault::Fault;
use super::names::World;
use super::walk::{Graph, Walk};
use crate::limits;

pub(super) fn faults(world: &World<'_>, walk: &Walk<'_>) -> Vec<Fault> {
    let mut search =
        Search { graph: &walk.graph, depth: BTreeMap::new(), path: Vec::new(), cycles: Vec::new() };
    walk.graph.keys().for_each(|node| {
        search.visit(node);
    });
    let place = |node: &str, rule: &'static str, message: String| match walk.places.get(node) {
        Some((module, span)) => world.modules[*module].parsed.fault(*span, rule, message),
        None => Fault::of_bundle(rule, message),
    };
    let mut faults: Vec<Fault> = search
        .cycles
        .iter()
        .map(|cycle| place(&cycle[0], "recursion", format!("rules need each other: {}", cycle.join(" -> "))))
        .collect();
    // Only where the bound is first passed; what stands on it is as deep or deeper.
    for (node, depth) in search.depth.iter().filter(|(_, depth)| **depth == limits::POLICY_RULE_CHAIN_MAX + 1)
    {
        let max = limits::POLICY_RULE_CHAIN_MAX;
        faults.push(place(
            node,
            "chain_too_long",
            format!("stands on a chain of {depth} rules, at most {max}"),
        ));
    }
    faults
}

struct Search<'a> {
    graph: &'a Graph,
    depth: BTreeMap<&'a str, usize>,
    path: Vec<&'a str>,
    cycles: Vec<Vec<String>>,
}

impl<'a> Search<'a> {
    /// How many rules the longest chain from here has. Runs on the loading thread's large stack.
    fn visit(&mut self, node: &'a str) -> usize {
        if let Some(depth) = self.depth.get(node) {
            return *depth;
        }
        if let Some(at) = self.path.iter().position(|on| *on == node) {
            let cycle = self.path[at..].iter().chain([&node]).map(ToString::to_string).collect();
            self.cycles.push(cycle);
            return 0;
        }
        self.path.push(node);
        let needs = self.graph.get(node).into_iter().flatten();
        let deepest = needs.map(|next| self.visit(next)).max().unwrap_or(0);
        self.path.pop();
        self.depth.insert(node, deepest + 1);
        deepest + 1
    }
}
