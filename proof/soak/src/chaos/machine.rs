//! The machines, their sources and their configurations.

use super::ledger::{Ledger, Signal, Source};
use super::seat::Seat;
use crate::guest::{self, EDGE, FIRST_LPI, Guest};
use crate::lifecycle::Memory;
use doorbell_test_support::guest::{Field, Half, Kicks, Physical, vtr};
use fastrand::Rng;
use gic_arch::{IntId, gicd, gicr, gits};
use irq_routing::{Pin, Route};
use msi_types::{Cpu, Delivery, DeviceId, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use std::array;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use vgic::its::ItsConfig;
use vgic::{SecurityView, Vcpu, Vgic, VgicConfig};
use vgic_kvm::{kvm_config, kvm_its_config};

pub(crate) const CPUS: usize = 4;
const ITSES: [u64; 2] = [0x1000_0000, 0x1010_0000];
/// Number of LPIs with a source.
const LPIS: u32 = 24;
/// Distance between two LPIs.
const LPI_STRIDE: u32 = 37;
/// SPIs that are pulsed, written by messages, or driven.
const PULSED: [u32; 4] = [32, 40, 63, 64];
const WRITTEN: [u32; 2] = [100, 127];
const DRIVEN: [u32; 2] = [41, 96];
/// Extended SPIs that are pulsed, and one that is driven.
const EXTENDED: [u32; 3] = [4096, 4127, 4159];
const EXTENDED_DRIVEN: u32 = 4128;
/// PPIs of each CPU, and the SPI and the PPI that are linked.
const PPI: u32 = 27;
const EXTENDED_PPI: [u32; 2] = [1056, 1119];
const LINKED_SPI: u32 = 70;
const LINKED_PPI: u32 = 26;
/// Number of SGIs that vCPUs send.
const SGIS: u32 = 2;

/// The features of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// One security state, two ITSes, 1 of N, message-based SPIs.
    Plain,
    /// The same, with extended ranges and 8 priority bits.
    Extended,
    /// The Non-secure view, with extended ranges.
    NonSecure { priority_bits: u8 },
    /// Direct LPIs without an ITS.
    Direct,
    /// Interrupts that are linked to physical ones.
    Linked,
    /// A machine that KVM can have.
    Kvm,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let priority_bits = [5, 8][rng.usize(..2)];
        let plans = [
            Self::Plain,
            Self::Extended,
            Self::NonSecure { priority_bits },
            Self::Direct,
            Self::Linked,
            Self::Kvm,
        ];
        plans[rng.usize(..plans.len())]
    }

    pub(crate) fn is_non_secure(self) -> bool {
        matches!(self, Self::NonSecure { .. })
    }

    pub(crate) fn has_one_of_n(self) -> bool {
        self != Self::Kvm
    }

    fn is_extended(self) -> bool {
        matches!(self, Self::Extended | Self::NonSecure { .. })
    }

    pub(crate) fn has_its(self) -> bool {
        self != Self::Direct
    }

    /// Draws each vCPU's number of list registers, or 0 for a software CPU interface.
    pub(crate) fn draw_kinds(self, rng: &mut Rng) -> [u8; CPUS] {
        array::from_fn(|_| if self.is_non_secure() { 0 } else { [0, 0, 1, 2, 4][rng.usize(..5)] })
    }

    /// Returns the width of the INTIDs of LPIs. Sweeps over few LPIs end between two signals more
    /// often.
    fn lpi_id_bits(self) -> u8 {
        if self.is_extended() { 16 } else { 14 }
    }

    fn config(self, budget: u32) -> VgicConfig {
        let its = |base| ItsConfig::new(base).with_work_per_access(budget);
        let base = VgicConfig::new(4)
            .with_spis(96)
            .with_lpi_id_bits(Some(self.lpi_id_bits()))
            .with_one_of_n(true)
            .with_redistributor_invalidation(true);
        let both = |config: VgicConfig| {
            config.with_its(ITSES.map(its).to_vec()).with_message_based_spis(true)
        };
        let extended = |config: VgicConfig| config.with_extended_spis(64).with_extended_ppis(64);
        let config = match self {
            Self::Plain | Self::Linked => both(base),
            Self::Extended => extended(both(base)).with_priority_bits(8),
            Self::NonSecure { priority_bits } => extended(both(base))
                .with_priority_bits(priority_bits)
                .with_security(SecurityView::NonSecure),
            Self::Direct => base.with_direct_lpi(true),
            Self::Kvm => {
                let its = |base| kvm_its_config(base).with_work_per_access(budget);
                kvm_config(4, 128).with_its(ITSES.map(its).to_vec())
            }
        };
        config.with_lpi_work_per_access(budget)
    }

    fn sources(self) -> Vec<Source> {
        let mut sources: Vec<_> =
            PULSED.map(|spi| Source::new(Signal::Pulse(Line::Spi(spi)), spi, None)).into();
        let has_messages = matches!(self, Self::Plain | Self::Extended | Self::NonSecure { .. });
        let written = |spi| if has_messages { Signal::Spi } else { Signal::Pulse(Line::Spi(spi)) };
        sources.extend(WRITTEN.map(|spi| Source::new(written(spi), spi, None)));
        sources.extend(DRIVEN.map(|spi| Source::new(Signal::Level(Line::Spi(spi)), spi, None)));
        for cpu in 0..CPUS {
            let line = |intid| Line::Ppi { cpu: number(cpu), intid };
            let mut private = |signal, intid| sources.push(Source::new(signal, intid, Some(cpu)));
            match self {
                Self::Kvm => private(Signal::Level(line(PPI)), PPI),
                _ => private(Signal::Pulse(line(PPI)), PPI),
            }
            if self.is_extended() {
                for ppi in EXTENDED_PPI {
                    private(Signal::Pulse(line(ppi)), ppi);
                }
            }
            if self == Self::Linked {
                private(Signal::Linked(line(LINKED_PPI)), LINKED_PPI);
            }
        }
        if self.is_extended() {
            let pulse = |spi| Source::new(Signal::Pulse(Line::Spi(spi)), spi, None);
            sources.extend(EXTENDED.map(pulse));
            let level = Signal::Level(Line::Spi(EXTENDED_DRIVEN));
            sources.push(Source::new(level, EXTENDED_DRIVEN, None));
        }
        if self == Self::Linked {
            sources.push(Source::new(Signal::Linked(Line::Spi(LINKED_SPI)), LINKED_SPI, None));
        }
        sources.extend((0..LPIS).map(|index| self.lpi(index)));
        sources
    }

    /// Returns the source of an LPI. Six events belong to each of two devices of each ITS.
    fn lpi(self, index: u32) -> Source {
        let lpi = FIRST_LPI + LPI_STRIDE * index;
        if self.has_its() {
            let (its, device, event) = (index as usize % 2, 1 + index / 2 % 2, index / 4);
            Source::new(Signal::Event { its, device, event }, lpi, None)
        } else {
            Source::new(Signal::Lpi, lpi, Some(index as usize % CPUS))
        }
    }
}

fn number(cpu: usize) -> Cpu {
    Cpu::new(u32::try_from(cpu).unwrap())
}

/// Numbers of the things that a slice has done, by name.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

/// A machine, its guest, its devices and the vCPUs while they don't run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) guest: Guest,
    pub(crate) ledger: Ledger,
    pub(crate) kicks: Arc<Kicks>,
    pub(crate) physical: Arc<Physical>,
    pub(crate) seats: Vec<Seat>,
}

impl World {
    pub(crate) fn new(plan: Plan, rng: &mut Rng) -> Self {
        let kicks = Arc::new(Kicks::new(CPUS));
        let memory = guest::memory();
        let (gic, vcpus) = make(plan, rng, &memory, &kicks);
        let sgis = (0..CPUS)
            .flat_map(|cpu| (0..SGIS).map(move |sgi| Source::new(Signal::Sgi, sgi, Some(cpu))));
        let ledger = Ledger { sources: plan.sources(), sgis: sgis.collect() };
        let seats = vcpus.into_iter().enumerate().map(Seat::new).collect();
        let guest = Guest::new(&gic, &memory);
        let physical = Arc::default();
        let mut world = Self { plan, guest, ledger, kicks, physical, seats };
        world.start();
        world.link();
        world
    }

    /// Programs the controllers as a guest does that boots.
    fn start(&mut self) {
        let guest = &self.guest;
        guest.start_wired();
        for source in self.ledger.sources.iter().filter(|it| it.intid < FIRST_LPI) {
            let cpu = source.cpu.unwrap_or(0);
            if matches!(source.signal, Signal::Pulse(_) | Signal::Spi) {
                guest.set_field(cpu, Field::Trigger, source.intid, EDGE);
            }
            guest.set_field(cpu, Field::Enable, source.intid, 1);
        }
        for cpu in 0..CPUS {
            (0..SGIS).for_each(|sgi| guest.set_field(cpu, Field::Enable, sgi, 1));
            guest.start_lpis(cpu);
        }
        for its in 0..guest.gic.config().its.len() {
            guest.start_its(its, its == 1);
            (0..4).for_each(|cpu| guest.run(its, guest::mapc(cpu, cpu)));
            (1..3).for_each(|device| guest.run(its, guest::mapd(its, device, 3)));
        }
        for (source, collection) in self.ledger.sources.iter().zip((0..4).cycle()) {
            if let Signal::Event { its, device, event } = source.signal {
                guest.run(its, guest::mapti(device, event, source.intid, collection));
            }
        }
        for seat in &mut self.seats {
            seat.start(self.plan.is_non_secure());
        }
    }

    /// Links the physical interrupts of a machine that has just been created or restored.
    pub(crate) fn link(&self) {
        let linked = self.linked();
        if linked.is_empty() {
            return;
        }
        self.guest.gic.serve_physical(self.physical.clone()).unwrap();
        for (line, intid) in linked {
            self.guest.gic.link(line, IntId::new(intid)).unwrap();
            self.physical.link(line, true);
        }
        self.fire();
    }

    /// Removes the links of a machine that is about to be given up.
    pub(crate) fn unlink(&self) {
        for (line, _) in self.linked() {
            self.guest.gic.unlink(line).unwrap();
            self.physical.link(line, false);
        }
        self.physical.end_all();
    }

    fn linked(&self) -> Vec<(Line, u32)> {
        let linked = |source: &Source| match source.signal {
            Signal::Linked(line) => Some((line, source.intid)),
            _ => None,
        };
        self.ledger.sources.iter().filter_map(linked).collect()
    }

    /// Passes the physical interrupts that have fired to the model, as a hypervisor does.
    pub(crate) fn fire(&self) {
        if self.plan == Plan::Linked {
            for line in self.physical.take() {
                self.guest.gic.set_line(line, Level::High);
            }
        }
    }

    /// Signals a source, again and again while the model refuses the signal because the guest has
    /// disabled the LPIs of the target or the ITS.
    pub(crate) fn send(&self, source: &Source) {
        source.raise(|| {
            while self.signal(source) != Delivery::Pending {
                thread::yield_now();
            }
        });
    }

    /// Signals a source once.
    pub(crate) fn signal(&self, source: &Source) -> Delivery {
        let gic = &self.guest.gic;
        match source.signal {
            Signal::Pulse(line) => gic.pulse(line),
            Signal::Level(line) => gic.set_line(line, Level::High),
            Signal::Linked(line) => {
                self.physical.drive(line, Level::High);
                self.fire();
                Delivery::Pending
            }
            Signal::Spi | Signal::Lpi => gic.signal_msi(NoIdentity, self.message(source)),
            Signal::Event { its, device, .. } => {
                gic.its(its).unwrap().signal_msi(DeviceId::new(device), self.message(source))
            }
            Signal::Sgi => unreachable!("only vCPUs send SGIs"),
        }
    }

    /// Returns the message of a source that sends one.
    fn message(&self, source: &Source) -> MsiMessage {
        let (frame, register, data) = match source.signal {
            Signal::Event { its, event, .. } => (ITSES[its], gits::TRANSLATER.offset(), event),
            Signal::Lpi => {
                let frame = self.guest.frame(source.cpu.unwrap_or(0));
                (frame, gicr::SETLPIR.offset(), source.intid)
            }
            _ => {
                let distributor = self.guest.gic.config().distributor;
                (distributor, gicd::SETSPI_NSR.offset(), source.intid)
            }
        };
        MsiMessage { address: frame + u64::from(register), data }
    }

    /// Returns the route of an eventfd that signals a source, if a router to the first ITS has one.
    pub(crate) fn route(&self, source: &Source, with_messages: bool) -> Option<Route> {
        match source.signal {
            Signal::Pulse(Line::Spi(spi)) => Pin::of_spi(spi).ok().map(Route::Pin),
            Signal::Spi | Signal::Lpi if with_messages => {
                Some(Route::to_doorbell(self.message(source)))
            }
            Signal::Event { its: 0, device, .. } if with_messages => {
                Some(Route::to_its(DeviceId::new(device), self.message(source)))
            }
            _ => None,
        }
    }

    /// Handles an interrupt that a CPU has acknowledged.
    pub(crate) fn handle(&self, cpu: usize, intid: u32) {
        self.ledger.handle(cpu, intid, |source| match source.signal {
            Signal::Level(line) => {
                self.guest.gic.set_line(line, Level::Low);
            }
            Signal::Linked(line) => self.physical.drive(line, Level::Low),
            _ => {}
        });
    }
}

/// Creates a machine with a random budget, and vCPUs of random kinds.
pub(crate) fn make(
    plan: Plan,
    rng: &mut Rng,
    memory: &Arc<Memory>,
    kicks: &Arc<Kicks>,
) -> (Arc<Vgic>, Vec<Half>) {
    let budget = [1, 1, 2, 64, 1024][rng.usize(..5)];
    let (gic, vcpus) = Vgic::new(plan.config(budget), memory.clone(), kicks.clone()).unwrap();
    let kinds = plan.draw_kinds(rng);
    let half = |(vcpu, lists): (Vcpu, u8)| {
        if lists == 0 {
            return Half::Software(vcpu);
        }
        let vtr = vtr(lists, gic.config().priority_bits).with_tds(rng.bool());
        let kicked = kicks.flag(vcpu.cpu().index());
        Half::with_interface(vcpu, vtr, kicked)
    };
    let halves = vcpus.into_iter().zip(kinds).map(half).collect();
    (gic, halves)
}
