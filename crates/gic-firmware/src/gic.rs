//! Root and secondary GICs.

use crate::controller::Coherence;
use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::IntId;

/// A GIC: its distributor, redistributors and CPU interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gic {
    /// Node of the GIC.
    pub id: NodeId,
    /// Compatible strings of the GIC, most specific first.
    pub compatible: Vec<String>,
    /// Architecture version.
    pub version: Fact<GicVersion>,
    /// Status of the node according to firmware.
    pub status: Fact<Status>,
    /// Registers of the distributor.
    pub distributor: Fact<Region>,
    /// Redistributor regions (GICv3 and later). Drivers must walk each region up to the
    /// redistributor with `GICR_TYPER.Last` or the region's end.
    pub redistributors: Vec<Fact<Region>>,
    /// Distance between redistributors in bytes; `None` if firmware states none, in which case
    /// `GICR_TYPER` implies it (128 KiB, or 256 KiB with virtual LPIs).
    pub redistributor_stride: Option<Fact<u64>>,
    /// Memory-mapped CPU interface. A GICv2 always has this region; a later version may have it for
    /// guests.
    pub cpu_interface: Option<Fact<Region>>,
    /// Coherence of the redistributors' table accesses with the CPUs' caches.
    pub coherence: Fact<Coherence>,
    /// `true` if the firmware that powers a CPU down does not restore all registers of its
    /// redistributor (`mediatek,broken-save-restore-fw`).
    pub broken_save_restore: bool,
}

/// Message about a GICv3 without a maintenance interrupt (as in Linux's `gic_of_setup_kvm_info`).
pub(crate) const NO_MAINTENANCE: &str =
    "no interrupt is stated for a virtual CPU interface, so KVM offers no virtual GIC";

/// Returns `true` if firmware states that an operating system can use EL2: it calls PSCI by `smc`,
/// and names no hypervisor.
pub(crate) fn owns_el2(hypervisor: Option<&Fact<String>>, psci: Option<&Fact<String>>) -> bool {
    hypervisor.is_none() && psci.is_some_and(|method| method.value == "smc")
}

/// Property that sets [`Gic::broken_save_restore`].
pub(crate) const BROKEN_SAVE_RESTORE: &str = "mediatek,broken-save-restore-fw";

impl Gic {
    /// Creates an enabled GICv3 with defaults for all other fields.
    pub fn v3(
        id: impl Into<NodeId>,
        distributor: Region,
        redistributors: impl IntoIterator<Item = Region>,
    ) -> Self {
        Self {
            id: id.into(),
            compatible: vec!["arm,gic-v3".into()],
            version: Fact::stated(GicVersion::V3),
            status: Fact::stated(Status::Enabled),
            distributor: Fact::stated(distributor),
            redistributors: redistributors.into_iter().map(Fact::stated).collect(),
            redistributor_stride: None,
            cpu_interface: None,
            coherence: Fact::stated(Coherence::ByRegister),
            broken_save_restore: false,
        }
    }
}

/// A GIC other than the root GIC: one that is cascaded to another interrupt controller, or a second
/// one without a parent.
///
/// The `interrupts` property of a secondary GIC (`arm,gic.yaml`) states the interrupt that the GIC
/// raises at its parent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecondaryGic {
    /// Registers and state of the GIC.
    pub gic: Gic,
    /// Interrupt that this GIC raises at its parent. `None` if no controller receives the
    /// interrupt; unless firmware disables the GIC, a finding then states the reason.
    pub parent: Option<Fact<ParentInterrupt>>,
}

/// Parent interrupt through which a secondary GIC signals all of its own interrupts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ParentInterrupt {
    /// Controller that receives the interrupt.
    pub controller: NodeId,
    /// INTID at the controller that receives the interrupt. `None` if that controller is not a GIC,
    /// and so has no INTIDs.
    pub intid: Option<IntId>,
}

/// The GIC architecture version, according to firmware.
///
/// A devicetree does not distinguish GICv4 from GICv3, so [`V3`](Self::V3) then means "3 or later".
/// The hardware states the version in `GICD_PIDR2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum GicVersion {
    /// GICv1 or GICv2 (`arm,gic-400` and its family): no redistributors, no LPIs.
    V2,
    /// GICv3 or later.
    V3,
    /// GICv4, if firmware distinguishes it from GICv3.
    V4,
}

impl GicVersion {
    /// Returns the version number.
    pub const fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }
}

impl fmt::Display for GicVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GICv{}", self.number())
    }
}
