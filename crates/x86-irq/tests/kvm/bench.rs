//! A vector domain whose local APICs are KVM's, and a device that signals on request.

use crate::machine::Machine;
use core::num::NonZeroU16;
use doorbell_test_support::kvm::Failure;
use msi_types::{Cpu, HwIrq, MsiMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use x86_irq::message::{ApicMessage, DestinationFormat};
use x86_irq::{
    Apic, ApicId, ApicVector, Arrival, Cleanup, CpuVector, IrqState, LocalCpu, VectorDomain,
    VectorDomainConfig,
};

const LIMIT: Duration = Duration::from_secs(10);

/// The kernel's implementation of [`Apic`].
pub(crate) struct KvmApic {
    machine: Arc<Machine>,
    cleanups: Mutex<BTreeSet<Cpu>>,
    resent: Mutex<u32>,
}

impl LocalCpu for KvmApic {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn relax(&self) {
        std::thread::yield_now();
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Apic for KvmApic {
    /// Sends an interprocessor interrupt, here in the form of a message.
    fn send(&self, to: ApicId, vector: ApicVector) {
        let message =
            ApicMessage::fixed(to, vector).encode(DestinationFormat::Kvm32).expect("32 bits fit");
        self.machine.signal(message).expect("the CPU exists");
        *self.resent.lock().expect("no thread panicked") += 1;
    }

    /// Always answers that nothing is pending, because the bench cleans up only while no message
    /// is in flight.
    fn is_requested(&self, _: Cpu, _: ApicVector) -> Option<bool> {
        Some(false)
    }

    fn request_cleanup(&self, cpu: Cpu) {
        self.cleanups.lock().expect("no thread panicked").insert(cpu);
    }
}

/// The machine, the domain, and the interrupts that have arrived.
pub(crate) struct Bench {
    pub(crate) machine: Arc<Machine>,
    pub(crate) domain: Arc<VectorDomain>,
    apic: Arc<KvmApic>,
    seen: Vec<Vec<u32>>,
    delivered: BTreeMap<HwIrq, u32>,
    held: u32,
}

impl Bench {
    pub(crate) fn start(ids: &[u32], destinations: DestinationFormat) -> Result<Self, Failure> {
        let machine = Arc::new(Machine::start(ids)?);
        let apic = Arc::new(KvmApic {
            machine: machine.clone(),
            cleanups: Mutex::default(),
            resent: Mutex::default(),
        });
        let cpus = NonZeroU16::new(u16::try_from(ids.len())?).ok_or("no CPU")?;
        let config = VectorDomainConfig::new(cpus, apic.clone()).with_destinations(destinations);
        let domain = Arc::new(VectorDomain::new(config).expect("memory"));
        for (cpu, id) in (0..).map(Cpu::new).zip(ids) {
            domain.online(cpu, ApicId::new(*id))?;
        }
        let seen = vec![vec![0; 256]; ids.len()];
        Ok(Self { machine, domain, apic, seen, delivered: BTreeMap::new(), held: 0 })
    }

    /// Reads the guest's counters and processes the arrivals as its trap entry would. Every arrival
    /// must belong to a hwirq.
    pub(crate) fn pump(&mut self) -> Result<(), Failure> {
        for cpu in 0..self.seen.len() {
            let counts = self.machine.counts(cpu);
            for (number, count) in (0..=u8::MAX).zip(counts) {
                while self.seen[cpu][usize::from(number)] < count {
                    self.seen[cpu][usize::from(number)] += 1;
                    self.arrived(Cpu::new(u32::try_from(cpu)?), number)?;
                }
            }
        }
        Ok(())
    }

    fn arrived(&mut self, cpu: Cpu, number: u8) -> Result<(), Failure> {
        let vector = ApicVector::new(number).ok_or("an exception arrived")?;
        match self.domain.arrive(cpu, vector) {
            Arrival::Deliver(slot) => *self.delivered.entry(slot).or_default() += 1,
            Arrival::Held => self.held += 1,
            other => return Err(format!("{} was {other:?}", CpuVector { cpu, vector }).into()),
        }
        Ok(())
    }

    /// Returns the number of times that an interrupt was dispatched.
    pub(crate) fn delivered(&self, hwirq: HwIrq) -> u32 {
        self.delivered.get(&hwirq).copied().unwrap_or(0)
    }

    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    pub(crate) fn resent(&self) -> u32 {
        *self.apic.resent.lock().expect("no thread panicked")
    }

    /// Signals an interrupt, and waits until it has been dispatched once more.
    pub(crate) fn deliver(&mut self, hwirq: HwIrq, message: MsiMessage) -> Result<(), Failure> {
        let before = self.delivered(hwirq);
        self.machine.signal(message)?;
        self.wait(|bench| bench.delivered(hwirq) > before)?;
        match self.delivered(hwirq) - before {
            1 => Ok(()),
            more => Err(format!("one message arrived {more} times").into()),
        }
    }

    pub(crate) fn wait(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            self.pump()?;
            if done(self) {
                return Ok(());
            }
            if start.elapsed() > LIMIT {
                return Err("a message was lost".into());
            }
            std::thread::yield_now();
        }
    }

    /// Performs the requested clean-ups. No message may be in flight.
    pub(crate) fn clean_up(&self) -> Result<(), Failure> {
        let due = core::mem::take(&mut *self.apic.cleanups.lock().expect("no thread panicked"));
        for cpu in due {
            if self.domain.clean_up(cpu) != Cleanup::Done {
                return Err("a clean-up found a request although none is pending".into());
            }
        }
        Ok(())
    }
}
