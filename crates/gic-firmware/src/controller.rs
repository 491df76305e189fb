//! MSI controllers and their doorbells.

use crate::intx::WiredInterrupt;
use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::IntId;
use msi_types::pci::MsiGate;
use msi_types::{DeviceId, MsiMessage};

/// Offset of `GITS_TRANSLATER` in the two frames of an ITS.
const ITS_TRANSLATER: u64 = 0x1_0040;
/// Offset of `GICD_SETSPI_NSR`, `GICR_SETLPIR` and a v2m frame's `MSI_SETSPI_NS` in their frames.
pub(crate) const SET_REGISTER: u64 = 0x40;

/// An MSI controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// Node of the controller. MBI and Direct LPI are functions of the GIC itself, so they share
    /// the GIC's node.
    pub id: NodeId,
    /// Kind of the controller.
    pub kind: ControllerKind,
    /// Status of the controller according to firmware.
    pub status: Fact<Status>,
    /// Registers of the controller. For an ITS, both of its frames; for MBI, the frame in which
    /// devices write `SETSPI_NSR`, which is the distributor's or an alias of it; for v2m, the MSI
    /// frame. `None` for Direct LPI, which uses the registers of the redistributors.
    pub registers: Option<Fact<Region>>,
    /// INTIDs that the controller may use (for MBI and MIP, firmware must state them; for v2m, they
    /// override the frame's `MSI_TYPER`).
    pub ranges: Vec<Fact<IntIdSpan>>,
    /// Interrupts of the root GIC that a controller [inside a bridge](ControllerKind::is_in_bridge)
    /// raises, in the order of its blocks of 32 vectors. Empty for other kinds, and if the lines
    /// are not wired to the root GIC.
    pub lines: Vec<Fact<WiredInterrupt>>,
    /// All vectors of iMSI-RX raise its only line. Otherwise, a line is that of 32 vectors.
    pub has_shared_line: bool,
    /// Bits outside of the registers of iMSI-RX that must be set before messages interrupt.
    pub gate: Option<Fact<MsiGate>>,
    /// For a MIP, the message of its first INTID.
    pub message: Option<Fact<MsiMessage>>,
    /// Number of cells after the controller's phandle in a reference to it (`#msi-cells`). If the
    /// number is 1, the cell holds a DeviceID.
    pub msi_cells: Fact<u32>,
    /// Coherence of the controller's table accesses with the CPUs' caches.
    pub coherence: Fact<Coherence>,
    /// Window in front of the ITS, to which devices write instead of `GITS_TRANSLATER` (SynQuacer).
    /// Each DeviceID has four bytes in the window, so the address encodes the DeviceID. Note that
    /// any bus master can pose as any other bus master.
    pub pre_its: Option<Fact<Region>>,
    /// Secondary GIC that the controller belongs to; `None` if it belongs to the root GIC.
    pub secondary_gic: Option<NodeId>,
}

impl Controller {
    /// Creates an enabled controller of this kind, with defaults for all other fields.
    pub fn new(id: impl Into<NodeId>, kind: ControllerKind, registers: Option<Region>) -> Self {
        let msi_cells = u32::from(kind == ControllerKind::Its);
        Self {
            id: id.into(),
            kind,
            status: Fact::stated(Status::Enabled),
            registers: registers.map(Fact::stated),
            ranges: Vec::new(),
            lines: Vec::new(),
            has_shared_line: false,
            gate: None,
            message: None,
            msi_cells: Fact::stated(msi_cells),
            coherence: Fact::stated(Coherence::ByRegister),
            pre_its: None,
            secondary_gic: None,
        }
    }

    /// Creates an enabled ITS with both frames in `registers`.
    pub fn its(id: impl Into<NodeId>, registers: Region) -> Self {
        Self::new(id, ControllerKind::Its, Some(registers))
    }

    /// Returns the number of DeviceID bits that firmware states; `None` if only the hardware states
    /// it (`GITS_TYPER.Devbits`).
    ///
    /// A pre-ITS window of 2^n bytes encodes n − 2 bits.
    pub fn device_id_bits(&self) -> Option<u32> {
        let window = self.pre_its.as_ref()?.size();
        window.checked_ilog2()?.checked_sub(2)
    }

    /// Returns `true` if a driver for the controller exists here: its kind is known, and firmware
    /// states the registers of a controller inside a bridge, and its lines at the root GIC.
    pub fn is_driven(&self) -> bool {
        match self.kind {
            ControllerKind::Other(_) => false,
            ControllerKind::ImsiRx | ControllerKind::MediatekGen3 => {
                !self.lines.is_empty() && self.registers.is_some()
            }
            _ => true,
        }
    }

    /// Returns the number of vectors of a controller [inside a
    /// bridge](ControllerKind::is_in_bridge). `None` for other kinds.
    pub fn vectors(&self) -> Option<u32> {
        match self.kind {
            ControllerKind::ImsiRx if self.has_shared_line && self.lines.len() == 1 => Some(256),
            ControllerKind::ImsiRx => u32::try_from(self.lines.len()).ok()?.checked_mul(32),
            ControllerKind::MediatekGen3 => Some(256),
            _ => None,
        }
    }

    /// Returns the CPU physical address of the doorbell that `device` writes to, without
    /// translation by an IOMMU. For a MIP, it is a PCI address. Returns `None` for Direct LPI (one
    /// doorbell per redistributor), for controllers inside bridges (their drivers choose it), for
    /// foreign controllers, and for a DeviceID outside the pre-ITS window.
    pub fn doorbell(&self, device: DeviceId) -> Option<u64> {
        let offset = match self.kind {
            ControllerKind::Its => {
                if let Some(window) = &self.pre_its {
                    let address = window.base().checked_add(u64::from(device.get()) << 2)?;
                    return window.contains(address).then_some(address);
                }
                ITS_TRANSLATER
            }
            ControllerKind::Mbi | ControllerKind::V2m => SET_REGISTER,
            ControllerKind::Mip => return self.message.as_ref().map(|message| message.address),
            ControllerKind::DirectLpi
            | ControllerKind::ImsiRx
            | ControllerKind::MediatekGen3
            | ControllerKind::Other(_) => return None,
        };
        self.registers.as_ref()?.base().checked_add(offset)
    }
}

/// The kind of an MSI controller.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum ControllerKind {
    /// Interrupt Translation Service.
    Its,
    /// The `GICR_SETLPIR` registers of the redistributors, in a system without an ITS.
    DirectLpi,
    /// Message-based SPIs of a GICv3 distributor.
    Mbi,
    /// A GICv2m frame.
    V2m,
    /// DesignWare's controller inside a host bridge.
    ImsiRx,
    /// The controller inside MediaTek's host bridges of the third generation.
    MediatekGen3,
    /// Broadcom's controller that turns messages into SPIs (Raspberry Pi 5).
    Mip,
    /// Any other controller, by its first compatible string.
    Other(String),
}

impl ControllerKind {
    /// Returns the short name; for [`Other`](Self::Other), the compatible string.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Its => "its",
            Self::DirectLpi => "direct-lpi",
            Self::Mbi => "mbi",
            Self::V2m => "v2m",
            Self::ImsiRx => "imsi-rx",
            Self::MediatekGen3 => "mediatek-gen3",
            Self::Mip => "mip",
            Self::Other(compatible) => compatible,
        }
    }

    /// Returns `true` if a host bridge contains the controller and takes its functions' messages.
    /// Only the node of a foreign controller tells.
    pub const fn is_in_bridge(&self) -> bool {
        matches!(self, Self::ImsiRx | Self::MediatekGen3)
    }

    /// Returns `true` if messages to this controller must carry the sender's DeviceID.
    pub const fn needs_device_id(&self) -> bool {
        matches!(self, Self::Its)
    }
}

impl fmt::Display for ControllerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Index of a controller in [`Description::controllers`](crate::Description::controllers).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ControllerIndex(usize);

impl ControllerIndex {
    /// Creates the index of the controller at this position.
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Returns the controller's position in the list.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// Range of consecutive INTIDs, which ends at 2^32 − 1 or below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntIdSpan {
    first: u32,
    count: u32,
}

impl IntIdSpan {
    /// Creates a span of `count` INTIDs that starts at `first`; `None` if it would reach past 2^32.
    pub const fn new(first: IntId, count: u32) -> Option<Self> {
        match first.get().checked_add(count.saturating_sub(1)) {
            Some(_) => Some(Self { first: first.get(), count }),
            None => None,
        }
    }

    /// Returns the first INTID.
    pub const fn first(self) -> IntId {
        IntId::new(self.first)
    }

    /// Returns the number of INTIDs.
    pub const fn count(self) -> u32 {
        self.count
    }

    /// Returns the last INTID; `None` if the span is empty.
    pub const fn last(self) -> Option<IntId> {
        match self.count {
            0 => None,
            count => Some(IntId::new(self.first + (count - 1))),
        }
    }

    /// Returns `true` if all INTIDs in the span are SPIs, or if all are extended SPIs.
    pub fn is_shared(self) -> bool {
        self.last().is_some_and(|last| last.is_shared() && last.class() == self.first().class())
    }
}

impl fmt::Debug for IntIdSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntIdSpan({} + {})", self.first, self.count)
    }
}

/// Coherence of a controller's own memory accesses with the CPUs' caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// Stated by the controller's registers: accesses are coherent if a shareability field reads
    /// back as written.
    ByRegister,
    /// Not coherent, regardless of what the registers read back as (`dma-noncoherent`, MADT flag
    /// *non-coherent*).
    NonCoherent,
}
