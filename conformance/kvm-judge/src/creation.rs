//! A machine's GIC comes into being by attributes, step by step: on KVM and in the model.

use gic_arch::kvm::{Attribute, Errno};
use vgic::CpuConfig;
use vgic::saved_state::kvm::{KvmCreation, KvmDevice, KvmIncomplete};

/// Bits of guest physical addresses.
pub const ADDRESS_BITS: u8 = 40;

/// What a monitor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Creates the vCPU of this number.
    Cpu(u16),
    /// Creates an ITS.
    Its,
    /// Writes an attribute.
    Set(KvmDevice, Attribute, u64),
    /// Reads one.
    Get(KvmDevice, Attribute),
    /// Asks for one.
    Has(KvmDevice, Attribute),
    /// Reads a region of redistributors, by its number.
    Region(u8),
    /// Runs the first vCPU. What KVM refuses to run is dead afterwards.
    Run,
}

/// What came of a step: a value where one was asked for.
pub type Outcome = Result<u64, Errno>;

/// A machine that comes into being.
pub trait Creation {
    /// Takes a step. `None` if nothing can be said of it here.
    fn take(&mut self, step: Step) -> Option<Outcome>;
}

impl Creation for KvmCreation {
    fn take(&mut self, step: Step) -> Option<Outcome> {
        let done = |outcome: Result<(), Errno>| outcome.map(|()| 0);
        Some(match step {
            Step::Cpu(number) => done(self.add_cpu(CpuConfig::in_clusters_of_sixteen(number))),
            Step::Its => {
                self.add_its();
                Ok(0)
            }
            Step::Set(device, attribute, value) => done(self.set(device, attribute, value)),
            Step::Get(device, attribute) => self.get(device, attribute),
            Step::Has(device, attribute) => done(self.has(device, attribute)),
            Step::Region(index) => self.region(index),
            Step::Run => match self.config() {
                Ok(_) => Ok(0),
                // KVM runs it, and nothing reaches the device.
                Err(KvmIncomplete::Config(_) | KvmIncomplete::NoItsAddress(_)) => return None,
                Err(incomplete) => Err(incomplete.errno()),
            },
        })
    }
}
