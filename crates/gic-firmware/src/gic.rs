//! The root interrupt controller, and others of its family.

use crate::coherence::Coherence;
use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::IntId;

/// A GIC: distributor and what stands beside it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gic {
    /// Its node.
    pub id: NodeId,
    /// By which names firmware identifies it, the most specific first.
    pub compatible: Vec<String>,
    /// Its architecture version.
    pub version: Fact<GicVersion>,
    /// State that firmware gives it.
    pub status: Fact<Status>,
    /// The distributor's registers.
    pub distributor: Fact<Region>,
    /// Regions full of redistributors (GICv3 and later), each to be walked until `GICR_TYPER.Last`
    /// or the region's end.
    pub redistributors: Vec<Fact<Region>>,
    /// Distance between redistributors in bytes; `None` = as `GICR_TYPER` says (128 KiB, with
    /// virtual LPIs 256 KiB).
    pub redistributor_stride: Option<Fact<u64>>,
    /// The memory-mapped CPU interface, which GICv2 always has and later versions may have for
    /// guests.
    pub cpu_interface: Option<Fact<Region>>,
    /// Coherence of the redistributors' table accesses with the CPUs' caches.
    pub coherence: Fact<Coherence>,
    /// Firmware that powers a CPU down does not bring back all of its redistributor's registers
    /// (`mediatek,broken-save-restore-fw`).
    pub broken_save_restore: bool,
}

/// The property behind [`Gic::broken_save_restore`].
pub(crate) const BROKEN_SAVE_RESTORE: &str = "mediatek,broken-save-restore-fw";

impl Gic {
    /// An enabled GICv3 without further particulars.
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

/// A GIC beside the root, which is cascaded to another interrupt controller, or a second root.
///
/// `arm,gic.yaml`: the interrupt that a secondary GIC states is its source at its parent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SecondaryGic {
    /// Its registers and its state.
    pub gic: Gic,
    /// The interrupt that it raises. `None` if nothing takes it: a finding says why, unless
    /// firmware disables the GIC.
    pub parent: Option<Fact<ParentInterrupt>>,
}

/// The interrupt of another controller that stands for all interrupts of a secondary GIC.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ParentInterrupt {
    /// The controller that takes it.
    pub controller: NodeId,
    /// Its INTID there. `None` if the controller is no GIC, which numbers otherwise.
    pub intid: Option<IntId>,
}

/// The GIC architecture version that firmware names.
///
/// Devicetree does not tell GICv4 from GICv3 (`GICD_PIDR2` does): [`V3`](Self::V3) there means "3
/// or later".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum GicVersion {
    /// GICv1 or GICv2 (`arm,gic-400` and its family): no redistributors, no LPIs.
    V2,
    /// GICv3 or later.
    V3,
    /// GICv4, where firmware says so.
    V4,
}

impl GicVersion {
    /// The number.
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
