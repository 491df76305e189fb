//! The state of a running machine's interrupts, in the manner of KVM's `vgic-state`.
//!
//! [`Vgic::view`](crate::Vgic::view) does not stop vCPUs, so parts of the state may have been read
//! at different times. A [saved state](crate::saved_state) is consistent, but requires that all
//! vCPUs are paused.

mod text;

use alloc::vec::Vec;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::explain::{Group, TargetState};
use msi_types::{Cpu, DeviceId, EventId, Level, Trigger};

/// The state of a machine. `Display` writes a table with one line per interrupt.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct StateView {
    /// `GICD_CTLR`.
    pub ctlr: u32,
    /// The vCPUs, in the order of their numbers.
    pub cpus: Vec<CpuView>,
    /// SPIs that are enabled, pending, active or in a list register, in INTID order.
    pub spis: Vec<InterruptView>,
    /// The ITSes, in the order of [`VgicConfig::its`](crate::VgicConfig::its).
    pub its: Vec<ItsView>,
    /// Number of guest faults so far.
    pub faults: u64,
}

/// A vCPU and its redistributor. `Display` writes one line, without the interrupts.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CpuView {
    /// The vCPU.
    pub cpu: Cpu,
    /// The vCPU's affinity.
    pub affinity: Affinity,
    /// `true` if `GICR_WAKER.ProcessorSleep` is 0.
    pub awake: bool,
    /// The vCPU's state, which determines whether an interrupt must kick it.
    pub state: TargetState,
    /// `ICC_PMR_EL1`. If the vCPU has list registers, then this field, `running_priority`, `groups`
    /// and `acknowledged` are as of its last exit.
    pub priority_mask: u8,
    /// `ICC_RPR_EL1`.
    pub running_priority: u8,
    /// Enable bits in `ICC_IGRPEN0_EL1` and `ICC_IGRPEN1_EL1`.
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
    /// SGIs and PPIs that are enabled, pending, active or in a list register, in INTID order.
    pub interrupts: Vec<InterruptView>,
    /// LPIs that are pending at the redistributor independently of any event, in INTID order.
    pub lpis: Vec<LpiView>,
}

/// An SGI, PPI or SPI. `Display` writes one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct InterruptView {
    /// The INTID.
    pub intid: IntId,
    /// `true` if the interrupt is enabled.
    pub enabled: bool,
    /// `true` if the interrupt is pending, possibly in a list register.
    pub pending: bool,
    /// `true` if the interrupt is active. While the interrupt is in a list register, this field is
    /// as of the vCPU's last exit.
    pub active: bool,
    /// `true` if the interrupt is in a list register.
    pub listed: bool,
    /// The level of the interrupt's line.
    pub line: Level,
    /// The trigger.
    pub trigger: Trigger,
    /// The group.
    pub group: Group,
    /// The priority that the guest configured.
    pub priority: u8,
    /// The vCPU to which the interrupt is routed, if any.
    pub target: Option<Cpu>,
}

/// An LPI at its target. `Display` writes one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LpiView {
    /// The INTID.
    pub intid: IntId,
    /// `true` if the LPI is enabled in the configuration that the redistributor has cached.
    pub enabled: bool,
    /// `true` if the LPI is pending, possibly in a list register.
    pub pending: bool,
    /// `true` if hardware delivers the messages of the LPI's event
    /// ([`DirectInjection`](crate::DirectInjection)). The LPI may then be pending although
    /// [`pending`](Self::pending) is `false`.
    pub direct: bool,
    /// `true` if the LPI is in a list register.
    pub listed: bool,
    /// The priority that the guest configured.
    pub priority: u8,
    /// The target vCPU.
    pub target: Cpu,
}

/// An ITS. `Display` writes one line, without the mappings.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsView {
    /// Address of the control frame.
    pub base: u64,
    /// `GITS_CTLR.Enabled`.
    pub enabled: bool,
    /// `GITS_CREADR`.
    pub creadr: u64,
    /// `GITS_CWRITER`.
    pub cwriter: u64,
    /// Number of commands that the ITS has completed since its reset.
    pub commands: u64,
    /// Number of commands that the ITS has refused since its reset.
    pub refused: u64,
    /// The mapped collections, in the order of their numbers.
    pub collections: Vec<CollectionView>,
    /// The mapped devices, in DeviceID order.
    pub devices: Vec<DeviceView>,
}

/// A mapped collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CollectionView {
    /// The collection's number (ICID).
    pub collection: CollectionId,
    /// The vCPU to which the collection is mapped.
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
    /// The device's mapped events, in EventID order.
    pub events: Vec<EventView>,
}

/// A mapped event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EventView {
    /// The EventID.
    pub event: EventId,
    /// The event's collection.
    pub collection: CollectionId,
    /// The event's LPI.
    pub lpi: LpiView,
}

/// Numbers of a vCPU's interrupts by state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct InterruptCounts {
    /// Number of pending interrupts, including those that may be pending in list registers.
    pub pending: usize,
    /// Number of active interrupts.
    pub active: usize,
    /// Number of interrupts in list registers.
    pub listed: usize,
}

impl StateView {
    /// Counts the interrupts whose target is this vCPU.
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
