//! A device under test: its driver, its vectors, and the number of handler runs on each CPU.

use crate::driver::Driver;
use crate::its_cost::ItsCost;
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

/// Driver for a device that isn't in use.
struct Idle;

impl Driver for Idle {
    fn vectors(&self) -> u16 {
        0
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        Ok(false)
    }
}

/// Number of handler runs, by slot (vector index) and CPU.
#[derive(Debug)]
pub(crate) struct Counts(Vec<[AtomicU64; MAX_CPUS]>);

impl Counts {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| [const { AtomicU64::new(0) }; MAX_CPUS]).collect())
    }

    fn count(&self, slot: u16, cpu: Cpu) {
        self.0[usize::from(slot)][cpu.index()].fetch_add(1, Ordering::Release);
    }

    /// Returns the number of runs on `cpu` and on other CPUs. Each counter is read only once,
    /// because the handler may run concurrently.
    fn at(&self, slot: u16, cpu: Cpu) -> Runs {
        let mut runs = Runs { there: 0, elsewhere: 0 };
        for (index, count) in self.0[usize::from(slot)].iter().enumerate() {
            let count = count.load(Ordering::Acquire);
            if index == cpu.index() { runs.there += count } else { runs.elsewhere += count }
        }
        runs
    }

    /// Returns the number of runs on all CPUs.
    pub(crate) fn of(&self, slot: u16) -> u64 {
        self.0[usize::from(slot)].iter().map(|count| count.load(Ordering::Acquire)).sum()
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
    /// Number of ITS register accesses and commands that were needed to set up the vectors.
    pub(crate) cost: ItsCost,
    msi: MsiDevice,
}

impl Rig {
    /// Allocates vectors with handlers for a device, and starts the device.
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

    /// Allocates vectors for a device, without starting the device.
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
        let before = ItsCost::now();
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
        let cost = ItsCost::now() - before;
        Ok(Self { name: name.into(), device, vectors, handles, counts, cost, msi })
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
