//! The exploration. A *node* is a state of the model and a state of the abstract GIC that are
//! reached by the same steps. The model takes each step from each of its states once, because a
//! step's result depends on the restored state alone; and so does the abstract GIC. The search is
//! breadth-first, so the first finding is the shortest one.
//!
//! A restore could repair a state that a step has left inconsistent. Therefore, after each step and
//! a save, the machine also continues without a restore, with the scope's *probe*.

use crate::machine::{Machine, State};
use crate::scope::Scope;
use doorbell_test_support::guest::AbstractGic;
use doorbell_test_support::guest::program::{Observation, Step};
use indexmap::{IndexMap, IndexSet};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The nodes found so far, and the steps that led to them.
pub(crate) struct Exploration {
    machine: Machine,
    steps: Vec<Step>,
    probe: Vec<Step>,
    /// The model's states, serialized, and the results of the steps that were taken from them.
    models: IndexSet<Vec<u8>>,
    results: HashMap<usize, Results>,
    /// The different observations during probes.
    probed: IndexSet<Vec<Observation>>,
    references: References,
    /// The nodes by their numbers of the states of the model and of the abstract GIC.
    nodes: IndexMap<(usize, usize), Node>,
    /// Number of nodes from which all steps were taken.
    finished: usize,
}

struct Node {
    /// The node before the last step, and the step. The first node is its own parent.
    parent: usize,
    step: usize,
    depth: u32,
}

/// For each step, what the model has done, or the reason why it is wrong: its next state, the
/// observation, and the observations during the probe that follows, by their number.
type Results = Rc<[Result<(usize, Observation, usize), String>]>;

/// The abstract GIC's states, and the results of steps. A result is an error if the observation is
/// not allowed.
#[derive(Default)]
struct References {
    states: IndexSet<AbstractGic>,
    results: HashMap<(usize, usize, Observation), Result<usize, String>>,
    /// The states that were checked with the observations during a probe.
    probed: HashSet<(usize, usize)>,
}

impl References {
    fn result(
        &mut self,
        from: usize,
        step: (usize, Step),
        seen: Observation,
    ) -> Result<usize, String> {
        if let Some(result) = self.results.get(&(from, step.0, seen)) {
            return result.clone();
        }
        let mut state = self.states[from].clone();
        let checked = step.1.check(&mut state, seen);
        let result = checked.map(|()| self.states.insert_full(state).0);
        self.results.insert((from, step.0, seen), result.clone());
        result
    }

    /// Checks the observations during a probe from a state.
    fn check_probe(&self, from: usize, probe: &[Step], seen: &[Observation]) -> Result<(), String> {
        let mut state = self.states[from].clone();
        let mut all = probe.iter().zip(seen);
        all.try_for_each(|(step, observed)| step.check(&mut state, *observed))
            .map_err(|problem| format!("without a restore, then {seen:?}: {problem}"))
    }
}

/// The shortest sequence of steps whose last step has a result that is not allowed.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) steps: Vec<Step>,
    pub(crate) problem: String,
}

impl Exploration {
    pub(crate) fn new(scope: Scope) -> Self {
        let mut machine = Machine::new(scope);
        let models = IndexSet::from([machine.save().to_bytes()]);
        let states = IndexSet::from([scope.shape().reference()]);
        Self {
            machine,
            steps: scope.steps(),
            probe: scope.probe(),
            models,
            results: HashMap::new(),
            probed: IndexSet::new(),
            references: References { states, ..References::default() },
            nodes: IndexMap::from([((0, 0), Node { parent: 0, step: 0, depth: 0 })]),
            finished: 0,
        }
    }

    /// Takes all steps from all nodes, until a finding or until the time is up.
    pub(crate) fn run(&mut self, time: Duration) -> Option<Finding> {
        let start = Instant::now();
        while self.finished < self.nodes.len() && start.elapsed() < time {
            if let Some(finding) = self.finish(self.finished) {
                return Some(finding);
            }
            self.finished += 1;
        }
        None
    }

    /// Takes all steps from a node.
    fn finish(&mut self, parent: usize) -> Option<Finding> {
        let (&(model, reference), &Node { depth, .. }) = self.nodes.get_index(parent)?;
        let results = self.results(model);
        for (step, result) in results.iter().enumerate() {
            let taken = (step, self.steps[step]);
            let next = result.clone().and_then(|(model, observed, probed)| {
                let reference = self.references.result(reference, taken, observed)?;
                if self.references.probed.insert((reference, probed)) {
                    let seen = &self.probed[probed];
                    self.references.check_probe(reference, &self.probe, seen)?;
                }
                Ok((model, reference))
            });
            match next {
                Ok(next) => {
                    let node = || Node { parent, step, depth: depth + 1 };
                    self.nodes.entry(next).or_insert_with(node);
                }
                Err(problem) => return Some(self.finding(parent, step, problem)),
            }
        }
        None
    }

    /// Returns the results of all steps from a state of the model.
    fn results(&mut self, model: usize) -> Results {
        if let Some(results) = self.results.get(&model) {
            return results.clone();
        }
        let from = State::from_bytes(&self.models[model]);
        let steps = self.steps.iter().map(|step| {
            let observed = self.machine.step(&from, *step)?;
            let (model, _) = self.models.insert_full(self.machine.save().to_bytes());
            let probed = self.probe.iter().map(|step| self.machine.take(*step)).collect();
            Ok((model, observed, self.probed.insert_full(probed).0))
        });
        let results: Results = steps.collect();
        self.results.insert(model, results.clone());
        results
    }

    fn finding(&self, node: usize, last: usize, problem: String) -> Finding {
        let mut steps = vec![self.steps[last]];
        let mut at = node;
        while at != 0 {
            steps.push(self.steps[self.nodes[at].step]);
            at = self.nodes[at].parent;
        }
        steps.reverse();
        Finding { steps, problem }
    }

    /// Returns `true` if every step was taken from every node.
    pub(crate) fn is_complete(&self) -> bool {
        self.finished == self.nodes.len()
    }

    /// Describes the numbers of states and steps, and the frontier of an incomplete exploration.
    pub(crate) fn summary(&self) -> String {
        let (nodes, models) = (self.nodes.len(), self.models.len());
        let taken = self.results.len() * self.steps.len();
        let depth = self.nodes.last().map_or(0, |(_, node)| node.depth);
        let counts = format!(
            "{nodes} pairs of {models} states of the model and {} of the abstract GIC, \
             up to {depth} steps deep; {} steps, {taken} of them taken by the model",
            self.references.states.len(),
            self.finished * self.steps.len(),
        );
        match self.nodes.get_index(self.finished) {
            None => format!("complete: {counts}"),
            Some((_, next)) => format!(
                "incomplete: {counts}; finished are {} pairs, all of those less than {} steps deep",
                self.finished, next.depth
            ),
        }
    }
}
