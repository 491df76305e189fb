//! Who moves the machine's interrupt controller while the machine runs.

#[cfg(test)]
mod tests;

use crate::cpu::CpuCore;
use crate::machine::{Model, Wire};
use crate::rng::Rng;
use std::sync::Arc;
use vgic::Vcpu;

/// One in so many times, the model is restored where it is.
const STAY: usize = 4;

/// Where a model goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Destination {
    /// To a fresh model, which takes its place.
    Fresh,
    /// To itself.
    Same,
}

impl Destination {
    /// A fresh model, mostly.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        if rng.one_in(STAY) { Self::Same } else { Self::Fresh }
    }
}

/// Saves the machine's model and restores it from the bytes.
pub(crate) struct Migrator {
    cores: Vec<Arc<CpuCore>>,
    wire: Wire,
}

impl Migrator {
    /// For a machine with these CPUs.
    pub(crate) fn new(cores: &[Arc<CpuCore>], wire: Wire) -> Self {
        Self { cores: cores.to_vec(), wire }
    }

    /// Moves the model while no CPU accesses its half of it: between any two instructions of theirs.
    ///
    /// # Errors
    /// The model's reason.
    pub(crate) fn migrate(&self, model: &Model, to: Destination) -> Result<(), String> {
        let mut halves: Vec<_> = self.cores.iter().map(|core| core.vcpu()).collect();
        let mut vcpus: Vec<&mut Vcpu> = halves.iter_mut().map(|half| &mut **half).collect();
        match to {
            Destination::Fresh => model.exchange(&mut vcpus, &self.wire),
            Destination::Same => model.reload(&mut vcpus, &self.wire),
        }
    }
}

/// Sends what was saved.
pub(crate) fn intact() -> Wire {
    Box::new(|saved| saved)
}
