//! A device under test: its driver, its vectors, and the number of handler runs on each CPU.

use crate::devices::Driver;
use crate::machine::Machine;
use crate::report::{Outcome, Verdict};
use crate::smp::{self, PerCpu};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use image_rt::cpu;
use image_rt::pci::{self, Function};
use irq_domain::pci::FunctionStore;
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig, MsiVector};
use msi_types::Cpu;

/// Number of handler runs, by slot (vector index) and CPU.
#[derive(Debug)]
pub(crate) struct Counts(Vec<PerCpu>);

impl Counts {
    fn at(&self, slot: u16, cpu: Cpu) -> Runs {
        let counts = &self.0[usize::from(slot)];
        Runs { there: counts.on(cpu), elsewhere: counts.elsewhere(cpu) }
    }

    /// Returns the number of runs on all CPUs.
    pub(crate) fn of(&self, slot: u16) -> u64 {
        self.0[usize::from(slot)].all()
    }
}

/// Time in milliseconds after which a message is considered lost.
pub(crate) const PATIENCE: u64 = 2000;

/// A device with its driver and its vectors.
pub(crate) struct Rig {
    pub(crate) name: String,
    pub(crate) device: Arc<dyn Driver>,
    pub(crate) vectors: Vec<MsiVector>,
    pub(crate) handles: Vec<IrqHandle>,
    pub(crate) counts: Arc<Counts>,
    msi: MsiDevice,
}

impl Rig {
    /// Creates a rig of the first device of this kind.
    pub(crate) fn of(machine: &Machine, name: &str) -> Result<Self, Verdict> {
        let (function, kind) = machine.device(name)?;
        Self::new(machine, name, function, kind.drive(function))
    }

    /// Allocates vectors with handlers for a device, and starts the device.
    pub(crate) fn new(
        machine: &Machine,
        name: &str,
        function: &Function,
        device: Arc<dyn Driver>,
    ) -> Result<Self, Verdict> {
        let parent = machine.parent_of(function);
        let parent = parent.ok_or(Verdict::Skipped("no MSI controller".into()))?;
        let FunctionStore { store, shape } = pci::store(function)?;
        let config = MsiDeviceConfig::new(name, function.requester().at_host(), parent, store);
        let msi = MsiDevice::attach(&machine.interrupts, config)?;
        let vectors = msi.allocate(shape, 1..=device.vectors())?;
        let counts = vectors.iter().map(|_| PerCpu::default()).collect();
        let counts = Arc::new(Counts(counts));
        let mut handles = Vec::new();
        for vector in &vectors {
            let (slot, device, counts) = (vector.slot, device.clone(), counts.clone());
            handles.push(msi.request(slot, name, move |context| {
                device.handle(slot);
                counts.0[usize::from(slot)].count(context.cpu());
            })?);
        }
        device.start()?;
        Ok(Self { name: name.into(), device, vectors, handles, counts, msi })
    }

    /// Makes the device send a message, and waits for the handler. Returns the handler runs by CPU,
    /// or `None` if the device cannot send the message.
    pub(crate) fn fire(&self, slot: u16, expected: Cpu) -> Result<Option<Runs>, Verdict> {
        let before = self.counts.at(slot, expected);
        if !self.device.fire(slot)? {
            return Ok(None);
        }
        cpu::wait_until(PATIENCE, || self.counts.at(slot, expected).there > before.there);
        // Wait for a possible second run, so that it isn't mistaken for the next message's.
        smp::catch_up(expected)?;
        let after = self.counts.at(slot, expected);
        Ok(Some(Runs {
            there: after.there - before.there,
            elsewhere: after.elsewhere - before.elsewhere,
        }))
    }

    /// Restores the device's registers after a power-down.
    pub(crate) fn restore(&self) -> Outcome {
        Ok(self.msi.restore()?)
    }

    /// Releases the vectors and detaches the device.
    pub(crate) fn tear_down(self) -> Outcome {
        drop(self.handles);
        self.msi.tear_down()?;
        Ok(())
    }
}

/// Number of handler runs on the requested CPU, and on other CPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Runs {
    pub(crate) there: u64,
    pub(crate) elsewhere: u64,
}
