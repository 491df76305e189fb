//! A machine's GIC comes into being by attributes, step by step: on KVM and in the model.

use crate::Failure;
use crate::layout::{CPUS, DISTRIBUTOR, INTERRUPTS, ITS, REDISTRIBUTORS};
use gic_arch::gicd;
use vgic::CpuConfig;
use vgic_kvm::abi::{Attribute, Errno, control, frame};
use vgic_kvm::{KvmCreation, KvmDevice, KvmIncomplete};

/// Bits of guest physical addresses.
pub const ADDRESS_BITS: u8 = 40;

/// The newest revision of KVM's GIC.
pub const NEWEST: u8 = 3;

/// Creates this package's machines, with a GIC of a revision of KVM's.
pub fn bring_up(revision: u8) -> Vec<Step> {
    let gic = |attribute, value| Step::Set(KvmDevice::Gic, attribute, value);
    let mut steps: Vec<_> = (0..CPUS).map(Step::Cpu).collect();
    steps.extend([
        gic(Attribute::InterruptCount, INTERRUPTS.into()),
        gic(Attribute::Address(frame::DISTRIBUTOR), DISTRIBUTOR),
        gic(Attribute::Address(frame::REDISTRIBUTORS), REDISTRIBUTORS),
        gic(Attribute::Control(control::INIT), 0),
        revise(revision.into()),
    ]);
    for (index, base) in ITS.into_iter().enumerate() {
        let its = |attribute, value| Step::Set(KvmDevice::Its(index), attribute, value);
        let address = its(Attribute::Address(frame::ITS), base);
        steps.extend([Step::Its, address, its(Attribute::Control(control::INIT), 0)]);
    }
    steps
}

/// Writes `GICD_IIDR` with a revision.
pub const fn revise(revision: u64) -> Step {
    let attribute = Attribute::Distributor { offset: gicd::IIDR.offset() };
    Step::Set(KvmDevice::Gic, attribute, 0x4b00_043b | revision << 12)
}

/// Step of a monitor that creates a GIC.
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

/// Result of a step: a value where one was asked for.
pub type Outcome = Result<u64, Errno>;

/// A machine that comes into being.
pub trait Creation {
    /// Takes a step. `None` if nothing can be said of it here.
    fn take(&mut self, step: Step) -> Option<Outcome>;

    /// Takes steps that have to succeed.
    fn take_all(&mut self, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            let outcome = self.take(*step).unwrap_or(Ok(0));
            outcome.map_err(|errno| format!("{step:x?}: {errno}"))?;
        }
        Ok(())
    }
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
