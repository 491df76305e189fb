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
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The nodes found so far, and the steps that led to them.
pub(crate) struct Exploration {
    machine: Machine,
    steps: Vec<Step>,
    probe: Vec<Step>,
    models: Models,
    references: References,
    nodes: Vec<Node>,
    known: HashSet<(u32, u32)>,
    /// Number of nodes from which all steps were taken.
    finished: usize,
}

struct Node {
    model: u32,
    reference: u32,
    /// The node before the last step, and the step. The first node is its own parent.
    parent: u32,
    step: usize,
    depth: u32,
}

/// For each step, what the model has done, or the reason why it is wrong.
type Results = Rc<[Result<Taken, String>]>;

/// The result of a step of the model.
#[derive(Clone)]
struct Taken {
    /// The next state.
    model: u32,
    observed: Observation,
    /// The observations during the probe that follows, by their number.
    probed: u32,
}

/// The model's states, serialized, and the results of the steps that were taken from them.
#[derive(Default)]
struct Models {
    states: Vec<Rc<[u8]>>,
    numbers: HashMap<Rc<[u8]>, u32>,
    results: HashMap<u32, Results>,
    /// The different observations during probes.
    probed: Vec<Rc<[Observation]>>,
    probed_numbers: HashMap<Rc<[Observation]>, u32>,
}

impl Models {
    fn number(&mut self, state: &State) -> u32 {
        let bytes: Rc<[u8]> = state.to_bytes().into();
        *self.numbers.entry(bytes).or_insert_with_key(|bytes| push(&mut self.states, bytes.clone()))
    }

    fn probed_number(&mut self, seen: Rc<[Observation]>) -> u32 {
        let entry = self.probed_numbers.entry(seen);
        *entry.or_insert_with_key(|seen| push(&mut self.probed, seen.clone()))
    }
}

/// The abstract GIC's states, and the results of steps. A result is an error if the observation is
/// not allowed.
#[derive(Default)]
struct References {
    states: Vec<Rc<AbstractGic>>,
    numbers: HashMap<Rc<AbstractGic>, u32>,
    results: HashMap<(u32, usize, Observation), Result<u32, String>>,
    /// The states that were checked with the observations during a probe.
    probed: HashSet<(u32, u32)>,
}

impl References {
    fn number(&mut self, state: AbstractGic) -> u32 {
        let state = Rc::new(state);
        *self.numbers.entry(state).or_insert_with_key(|state| push(&mut self.states, state.clone()))
    }

    fn result(&mut self, from: u32, step: (usize, Step), seen: Observation) -> Result<u32, String> {
        if let Some(result) = self.results.get(&(from, step.0, seen)) {
            return result.clone();
        }
        let mut state = AbstractGic::clone(&self.states[index(from)]);
        let result = step.1.check(&mut state, seen).map(|()| self.number(state));
        self.results.insert((from, step.0, seen), result.clone());
        result
    }

    /// Checks the observations during a probe from a state.
    fn check_probe(&self, from: u32, probe: &[Step], seen: &[Observation]) -> Result<(), String> {
        let mut state = AbstractGic::clone(&self.states[index(from)]);
        let mut all = probe.iter().zip(seen);
        all.try_for_each(|(step, observed)| step.check(&mut state, *observed))
            .map_err(|problem| format!("without a restore, then {seen:?}: {problem}"))
    }
}

/// Appends an element, and returns its index.
fn push<T>(to: &mut Vec<T>, element: T) -> u32 {
    to.push(element);
    u32::try_from(to.len() - 1).expect("memory is exhausted earlier")
}

fn index(number: u32) -> usize {
    number.try_into().expect("it was an index")
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
        let (mut models, mut references) = (Models::default(), References::default());
        let model = models.number(&machine.save());
        let reference = references.number(scope.shape().reference());
        let first = Node { model, reference, parent: 0, step: 0, depth: 0 };
        let (nodes, known) = (vec![first], HashSet::from([(model, reference)]));
        let (steps, probe) = (scope.steps(), scope.probe());
        Self { machine, steps, probe, models, references, nodes, known, finished: 0 }
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
    fn finish(&mut self, node: usize) -> Option<Finding> {
        let Node { model, reference, depth, .. } = self.nodes[node];
        let results = self.results(model);
        for (step, result) in results.iter().enumerate() {
            let taken = (step, self.steps[step]);
            let next = result.clone().and_then(|Taken { model, observed, probed }| {
                let reference = self.references.result(reference, taken, observed)?;
                if self.references.probed.insert((reference, probed)) {
                    let seen = &self.models.probed[index(probed)];
                    self.references.check_probe(reference, &self.probe, seen)?;
                }
                Ok((model, reference))
            });
            let (model, reference) = match next {
                Ok(next) => next,
                Err(problem) => return Some(self.finding(node, step, problem)),
            };
            if self.known.insert((model, reference)) {
                let parent = u32::try_from(node).expect("memory is exhausted earlier");
                push(&mut self.nodes, Node { model, reference, parent, step, depth: depth + 1 });
            }
        }
        None
    }

    /// Returns the results of all steps from a state of the model.
    fn results(&mut self, model: u32) -> Results {
        if let Some(results) = self.models.results.get(&model) {
            return results.clone();
        }
        let from = State::from_bytes(&self.models.states[index(model)]);
        let steps = self.steps.iter().map(|step| {
            let observed = self.machine.step(&from, *step)?;
            let model = self.models.number(&self.machine.save());
            let probed = self.probe.iter().map(|step| self.machine.take(*step)).collect();
            Ok(Taken { model, observed, probed: self.models.probed_number(probed) })
        });
        let results: Results = steps.collect();
        self.models.results.insert(model, results.clone());
        results
    }

    fn finding(&self, node: usize, last: usize, problem: String) -> Finding {
        let mut steps = vec![self.steps[last]];
        let mut at = node;
        while at != 0 {
            steps.push(self.steps[self.nodes[at].step]);
            at = index(self.nodes[at].parent);
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
        let (nodes, models) = (self.nodes.len(), self.models.states.len());
        let taken = self.models.results.len() * self.steps.len();
        let depth = self.nodes.last().map_or(0, |node| node.depth);
        let counts = format!(
            "{nodes} pairs of {models} states of the model and {} of the abstract GIC, \
             up to {depth} steps deep; {} steps, {taken} of them taken by the model",
            self.references.states.len(),
            self.finished * self.steps.len(),
        );
        match self.nodes.get(self.finished) {
            None => format!("complete: {counts}"),
            Some(next) => format!(
                "incomplete: {counts}; finished are {} pairs, all of those less than {} steps deep",
                self.finished, next.depth
            ),
        }
    }
}
