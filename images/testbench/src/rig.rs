//! A device under test: its function, its driver, its vectors, and the CPUs that ran their
//! handlers.

use crate::driver::Driver;
use crate::ledger::Ledger;
use crate::machine::Machine;
use crate::report::{Outcome, Verdict};
use crate::smp;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use image_rt::cpu::{self, MAX_CPUS};
use image_rt::pci::Function;
use irq_domain::pci::FunctionStore;
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig, MsiVector};
use msi_types::Cpu;

/// A device that is not used.
struct Idle;

impl Driver for Idle {
    fn vectors(&self) -> u16 {
        0
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}

/// Runs of handlers, by slot and CPU.
#[derive(Debug)]
pub(crate) struct Counts(Vec<[AtomicU64; MAX_CPUS]>);

impl Counts {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| [const { AtomicU64::new(0) }; MAX_CPUS]).collect())
    }

    fn count(&self, slot: u16, cpu: Cpu) {
        self.0[usize::from(slot)][cpu.index()].fetch_add(1, Ordering::Release);
    }

    /// On `cpu`, and on the others: each CPU is looked at once, as it may run meanwhile.
    fn at(&self, slot: u16, cpu: Cpu) -> Runs {
        let mut runs = Runs { there: 0, elsewhere: 0 };
        for (index, count) in self.0[usize::from(slot)].iter().enumerate() {
            let count = count.load(Ordering::Acquire);
            if index == cpu.index() { runs.there += count } else { runs.elsewhere += count }
        }
        runs
    }

    /// On all CPUs.
    pub(crate) fn of(&self, slot: u16) -> u64 {
        self.0[usize::from(slot)].iter().map(|count| count.load(Ordering::Acquire)).sum()
    }
}

/// A device with its vectors.
pub(crate) struct Rig {
    pub(crate) name: String,
    pub(crate) device: Arc<dyn Driver>,
    pub(crate) vectors: Vec<MsiVector>,
    pub(crate) handles: Vec<IrqHandle>,
    pub(crate) counts: Arc<Counts>,
    /// Cost of setting the vectors up at the ITS.
    pub(crate) cost: Ledger,
    msi: MsiDevice,
}

impl Rig {
    /// Gives a device its vectors, with handlers, and starts it.
    pub(crate) fn new(
        machine: &Machine,
        name: &str,
        function: &Function,
        device: Arc<dyn Driver>,
    ) -> Result<Self, Verdict> {
        let vectors = device.vectors();
        let rig = Self::with_vectors(machine, name, function, device, vectors)?;
        rig.device.start()?;
        Ok(rig)
    }

    /// Gives a device vectors, and nothing to do.
    pub(crate) fn unstarted(
        machine: &Machine,
        name: &str,
        function: &Function,
        vectors: u16,
    ) -> Result<Self, Verdict> {
        Self::with_vectors(machine, name, function, Arc::new(Idle), vectors)
    }

    fn with_vectors(
        machine: &Machine,
        name: &str,
        function: &Function,
        device: Arc<dyn Driver>,
        most: u16,
    ) -> Result<Self, Verdict> {
        let parent = machine.parent_of(function);
        let parent = parent.ok_or(Verdict::Skipped("no MSI controller".into()))?;
        let FunctionStore { store, shape } = function.store()?;
        let before = Ledger::now();
        let config = MsiDeviceConfig::new(name, function.requester, parent, store);
        let msi = MsiDevice::attach(&machine.interrupts, config)?;
        let vectors = msi.allocate(shape, 1..=most)?;
        let counts = Arc::new(Counts::new(vectors.len()));
        let mut handles = Vec::new();
        for vector in &vectors {
            let (slot, device, counts) = (vector.slot, device.clone(), counts.clone());
            handles.push(msi.request(slot, name, move |context| {
                device.handle(slot);
                counts.count(slot, context.cpu());
            })?);
        }
        let cost = Ledger::now() - before;
        Ok(Self { name: name.into(), device, vectors, handles, counts, cost, msi })
    }

    /// Fires and waits for the handler: the runs by CPU that came of it. `None` if the device
    /// cannot.
    pub(crate) fn fire(&self, slot: u16, expected: Cpu) -> Result<Option<Runs>, Verdict> {
        let before = self.counts.at(slot, expected);
        if !self.device.fire(slot)? {
            return Ok(None);
        }
        cpu::wait_until(self.patience(slot), || {
            self.counts.at(slot, expected).there > before.there
        });
        // A second message for the same cause is not to be taken for the next one's.
        smp::catch_up(expected)?;
        let after = self.counts.at(slot, expected);
        Ok(Some(Runs {
            there: after.there - before.there,
            elsewhere: after.elsewhere - before.elsewhere,
        }))
    }

    /// Milliseconds after which a message does not come any more; another machine may take longer.
    pub(crate) fn patience(&self, slot: u16) -> u64 {
        if self.device.prompt(slot) { 2000 } else { 20_000 }
    }

    /// Writes again everything that the device lost.
    pub(crate) fn restore(&self) -> Outcome {
        Ok(self.msi.restore()?)
    }

    /// Releases everything.
    pub(crate) fn tear_down(self) -> Outcome {
        drop(self.handles);
        self.msi.tear_down()?;
        Ok(())
    }
}

/// Runs of a handler on the CPU that was asked for, and on others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Runs {
    pub(crate) there: u64,
    pub(crate) elsewhere: u64,
}
