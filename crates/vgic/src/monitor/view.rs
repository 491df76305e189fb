//! The state of a running machine's interrupts, in the manner of KVM's `vgic-state`.
//!
//! [`Vgic::view`](crate::Vgic::view) reads it without stopping vCPUs, so its parts may belong to
//! different moments. A [saved state](crate::saved_state) is consistent, but requires a freeze.

mod text;

use alloc::vec::Vec;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::explain::{Group, TargetState};
use msi_types::{Cpu, DeviceId, EventId, Level, Trigger};

/// The state of a machine. `Display` writes a table, with one line per interrupt.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StateView {
    /// `GICD_CTLR`.
    pub ctlr: u32,
    /// The vCPUs, by number.
    pub cpus: Vec<CpuView>,
    /// SPIs that are enabled, pending or active, by INTID.
    pub spis: Vec<InterruptView>,
    /// The ITSes, in the order of [`VgicConfig::its`](crate::VgicConfig::its).
    pub its: Vec<ItsView>,
    /// Number of the guest's mistakes so far.
    pub faults: u64,
}

/// A vCPU and its redistributor. `Display` writes one line without the interrupts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuView {
    /// The vCPU.
    pub cpu: Cpu,
    /// Its affinity.
    pub affinity: Affinity,
    /// `GICR_WAKER.ProcessorSleep` is 0.
    pub awake: bool,
    /// Whether it must be kicked.
    pub state: TargetState,
    /// `ICC_PMR_EL1`. This and the next fields are those of the vCPU's last exit if its guest runs
    /// with list registers.
    pub priority_mask: u8,
    /// `ICC_RPR_EL1`.
    pub running_priority: u8,
    /// `ICC_IGRPEN0_EL1` and `ICC_IGRPEN1_EL1`.
    pub groups: [bool; 2],
    /// `GICR_CTLR.EnableLPIs`.
    pub lpis_enabled: bool,
    /// `GICR_PROPBASER`.
    pub propbaser: u64,
    /// `GICR_PENDBASER`.
    pub pendbaser: u64,
    /// Number of interrupts that the guest has acknowledged.
    pub acknowledged: u64,
    /// Number of kicks sent to the vCPU.
    pub kicks: u64,
    /// SGIs and PPIs that are enabled, pending or active, by INTID.
    pub interrupts: Vec<InterruptView>,
    /// LPIs that are pending here independently of any event, by INTID.
    pub lpis: Vec<LpiView>,
}

/// An SGI, PPI or SPI. `Display` writes one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct InterruptView {
    /// The INTID.
    pub intid: IntId,
    /// It is enabled.
    pub enabled: bool,
    /// It is pending.
    pub pending: bool,
    /// It was acknowledged and has not been deactivated.
    pub active: bool,
    /// It is in a list register, whose state is not known here.
    pub listed: bool,
    /// The level of its line.
    pub line: Level,
    /// Its trigger.
    pub trigger: Trigger,
    /// Its group.
    pub group: Group,
    /// Its priority, as the guest configured it.
    pub priority: u8,
    /// The vCPU to which it is routed, if any.
    pub target: Option<Cpu>,
}

/// An LPI at its target. `Display` writes one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LpiView {
    /// The INTID.
    pub intid: IntId,
    /// It is enabled in the configuration that the redistributor uses.
    pub enabled: bool,
    /// It is pending, possibly in a list register.
    pub pending: bool,
    /// It is in a list register.
    pub listed: bool,
    /// Its priority, as the guest configured it.
    pub priority: u8,
    /// Its target.
    pub target: Cpu,
}

/// An ITS. `Display` writes one line without the mappings.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsView {
    /// Address of its control frame.
    pub base: u64,
    /// `GITS_CTLR.Enabled`.
    pub enabled: bool,
    /// `GITS_CREADR`.
    pub creadr: u64,
    /// `GITS_CWRITER`.
    pub cwriter: u64,
    /// Number of commands that the ITS has completed since its reset.
    pub commands: u64,
    /// Number of commands that it refused since then.
    pub refused: u64,
    /// Its mapped collections, by number.
    pub collections: Vec<CollectionView>,
    /// Its mapped devices, by DeviceID.
    pub devices: Vec<DeviceView>,
}

/// A mapped collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CollectionView {
    /// Its number.
    pub collection: CollectionId,
    /// Its vCPU.
    pub target: Cpu,
}

/// A mapped device.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DeviceView {
    /// The DeviceID.
    pub device: DeviceId,
    /// Number of EventID bits.
    pub event_bits: u8,
    /// Its mapped events, by EventID.
    pub events: Vec<EventView>,
}

/// A mapped event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EventView {
    /// The EventID.
    pub event: EventId,
    /// Its collection.
    pub collection: CollectionId,
    /// Its LPI.
    pub lpi: LpiView,
}

/// Numbers of a vCPU's interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct InterruptCounts {
    /// Pending interrupts, including those in list registers.
    pub pending: usize,
    /// Active interrupts.
    pub active: usize,
    /// Interrupts in list registers.
    pub listed: usize,
}

impl StateView {
    /// Returns the numbers of interrupts whose target is this vCPU.
    pub fn counts(&self, cpu: Cpu) -> InterruptCounts {
        let own = self.cpus.get(cpu.index());
        let private = own.into_iter().flat_map(|own| &own.interrupts);
        let spis = self.spis.iter().filter(|spi| spi.target == Some(cpu));
        let events = self.its.iter().flat_map(|its| &its.devices).flat_map(|device| &device.events);
        let lpis = events.map(|event| &event.lpi).filter(|lpi| lpi.target == cpu);
        let lpis = lpis.chain(own.into_iter().flat_map(|own| &own.lpis));
        let mut counts = InterruptCounts::default();
        for (pending, active, listed) in private
            .chain(spis)
            .map(|interrupt| (interrupt.pending, interrupt.active, interrupt.listed))
            .chain(lpis.map(|lpi| (lpi.pending, false, lpi.listed)))
        {
            counts.pending += usize::from(pending);
            counts.active += usize::from(active);
            counts.listed += usize::from(listed);
        }
        counts
    }
}
