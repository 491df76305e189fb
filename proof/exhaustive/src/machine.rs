//! The machine that takes the steps, and its states.

use crate::scope::{LPIS, Scope};
use doorbell_test_support::guest::program::{
    Bench, CONFIGURATIONS, Observation, Step, Target as _,
};
use vgic::GuestMemory as _;
use vgic::saved_state::SavedState;

/// A state from which a machine can continue.
#[derive(Clone, Debug)]
pub(crate) struct State {
    saved: SavedState,
    /// The LPIs' configurations in memory.
    configurations: [u8; LPIS.len()],
}

impl State {
    /// Serializes the state. Different states have different bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_allocvec(&(&self.saved, self.configurations)).unwrap()
    }

    /// Deserializes a state.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let (saved, configurations) = postcard::from_bytes(bytes).unwrap();
        Self { saved, configurations }
    }
}

pub(crate) struct Machine(Bench);

impl Machine {
    /// Creates a machine without mappings, in which each LPI is enabled.
    pub(crate) fn new(scope: Scope) -> Self {
        Self(Bench::new(scope.shape()))
    }

    pub(crate) fn save(&mut self) -> State {
        let mut saved = self.0.machine.save();
        for its in &mut saved.its {
            // The queue's contents don't matter once it is empty.
            assert_eq!(its.creadr, its.cwriter, "commands remain in the queue");
            (its.creadr, its.cwriter) = (0, 0);
        }
        let mut configurations = [0; LPIS.len()];
        self.0.machine.ram.read(CONFIGURATIONS, &mut configurations).unwrap();
        State { saved, configurations }
    }

    /// Takes a step from a state, while all vCPUs sleep.
    ///
    /// # Errors
    /// Describes a vCPU that still sleeps although an interrupt is signaled to it.
    pub(crate) fn step(&mut self, from: &State, step: Step) -> Result<Observation, String> {
        self.0.restore(&from.saved);
        self.0.machine.ram.write(CONFIGURATIONS, &from.configurations).unwrap();
        self.0.take(step)
    }

    /// Takes a step from the current state.
    pub(crate) fn take(&mut self, step: Step) -> Observation {
        self.0.take_awake(step)
    }
}
