//! Interrupt controllers: root and secondary GICs, and MSI controllers with their doorbells. Also the
//! wired interrupts of PCI functions, INTA to INTD.

use crate::finding::{Fact, NodeId, Region, Status};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::IntId;
use msi_types::pci::MsiGate;
use msi_types::{DeviceId, MsiMessage, RequesterId, Trigger};

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

/// Interrupt pin of a PCI function (PCI Local Bus 3.0 §6.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum IntxPin {
    /// INTA.
    A,
    /// INTB.
    B,
    /// INTC.
    C,
    /// INTD.
    D,
}

impl IntxPin {
    const ALL: [Self; 4] = [Self::A, Self::B, Self::C, Self::D];

    /// Converts the value of a function's Interrupt Pin register, the byte at 0x3d of its
    /// configuration space. Returns `None` if the function uses no pin, or if the value is
    /// reserved.
    pub const fn from_register(register: u8) -> Option<Self> {
        match register {
            1 => Some(Self::A),
            2 => Some(Self::B),
            3 => Some(Self::C),
            4 => Some(Self::D),
            _ => None,
        }
    }

    /// Returns the pin that this pin becomes above a PCI bridge, where `device` is the device
    /// number below the bridge (PCI-to-PCI Bridge 1.2 §9.1).
    #[must_use]
    pub const fn above_bridge(self, device: u8) -> Self {
        Self::ALL[(self as usize + device as usize) % Self::ALL.len()]
    }

    /// Returns the pin's number: 1 for INTA.
    pub const fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// An interrupt wired to the root GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct WiredInterrupt {
    /// The interrupt.
    pub intid: IntId,
    /// Trigger of the interrupt. INTx is level-triggered, and several functions may share it.
    pub trigger: Trigger,
}

/// Routing of the pins of a PCI bus: an `interrupt-map` (Devicetree Specification §2.4.3), or
/// ACPI's `_PRT` (ACPI 6.5 §6.2.13).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IntxRouting {
    /// Mask of the address bits that are compared.
    pub address_mask: u32,
    /// Mask of the pin number bits that are compared.
    pub pin_mask: u32,
    /// Routes in firmware's order; the first route that matches is used.
    pub routes: Vec<Fact<IntxRoute>>,
}

/// One route of an [`IntxRouting`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IntxRoute {
    /// Address of the function on the routed bus: bus number in bits 23 to 16, device in bits 15 to
    /// 11, function in bits 10 to 8 (IEEE 1275 PCI binding §2.2.1.1).
    pub address: u32,
    /// Number of the pin: 1 for INTA.
    pub pin: u32,
    /// Interrupt of the root GIC. `None` if the pin is routed to another controller.
    pub interrupt: Option<WiredInterrupt>,
}

/// Reason why a function's pin is not connected to an interrupt of the GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoIntx {
    /// The description has no routing for the host bridge, because firmware states none or states
    /// it in AML only.
    #[error("the interrupt pins of the host bridge have no routing")]
    NotDescribed,
    /// No route matches the function and pin.
    #[error("firmware routes no interrupt for pin {0:?} of the function")]
    Unmapped(IntxPin),
    /// The interrupt is routed to another controller.
    #[error("pin {0:?} of the function leads to a controller other than the GIC")]
    OtherController(IntxPin),
    /// The caller passed an empty path.
    #[error("the path to the function is empty")]
    EmptyPath,
}

impl IntxRouting {
    /// Creates a routing by device number and pin, the form in which `_PRT` states routes.
    ///
    /// `_PRT` is AML, which this crate does not interpret: under ACPI, the kernel must evaluate it
    /// and pass the routes. The kernel may call [`route`](Self::route) on the returned routing, or
    /// store the routing in [`PciHost::intx`](crate::PciHost::intx). If a `_PRT` entry names no
    /// link device, it states a level-triggered GSI, which equals the INTID on a GIC (ACPI 6.5
    /// §6.2.13, §5.2.12.15). A bridge below the host bridge may have its own `_PRT`, which routes
    /// the functions behind that bridge; the paths of those functions must then end below it.
    pub fn by_device(routes: impl IntoIterator<Item = (u8, IntxPin, WiredInterrupt)>) -> Self {
        const DEVICE: u32 = 0xf800;
        let route = |(device, pin, interrupt): (u8, IntxPin, _)| IntxRoute {
            address: u32::from(device) << 11 & DEVICE,
            pin: pin.number().into(),
            interrupt: Some(interrupt),
        };
        Self {
            address_mask: DEVICE,
            pin_mask: 7,
            routes: routes.into_iter().map(route).map(Fact::stated).collect(),
        }
    }

    /// Returns the interrupt of a function's pin. `path` must have the function first, then each
    /// bridge above it up to the routed bus: a single element for a function on that bus. A
    /// function with an Alternative Routing-ID (ARI) is routed as device 0, because its requester
    /// ID has no device number (PCI Express 4.0 §2.2.8.1).
    ///
    /// Returns [`NoIntx`] if the routing has no interrupt of the GIC for the pin, or if `path` is
    /// empty.
    pub fn route(&self, path: &[RequesterId], pin: IntxPin) -> Result<WiredInterrupt, NoIntx> {
        let (top, below) = path.split_last().ok_or(NoIntx::EmptyPath)?;
        let pin = below.iter().fold(pin, |pin, below| pin.above_bridge(below.pci_device()));
        let address = top.get() << 8 & 0xff_ff00;
        let matches = |route: &&Fact<IntxRoute>| {
            (route.address ^ address) & self.address_mask == 0
                && (route.pin ^ u32::from(pin.number())) & self.pin_mask == 0
        };
        let route = self.routes.iter().find(matches).ok_or(NoIntx::Unmapped(pin))?;
        route.interrupt.ok_or(NoIntx::OtherController(pin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FUNCTION: RequesterId = RequesterId::pci(0, 5, 0);

    fn level(intid: u32) -> WiredInterrupt {
        WiredInterrupt { intid: IntId::new(intid), trigger: Trigger::Level }
    }

    #[test]
    fn a_prt_routes_by_device_and_pin() {
        let routes = [(5, IntxPin::A, level(36)), (5, IntxPin::B, level(37))];
        let bus = IntxRouting::by_device(routes);
        assert_eq!(bus.route(&[FUNCTION], IntxPin::B), Ok(level(37)));
        let other = RequesterId::pci(0, 5, 3);
        assert_eq!(bus.route(&[other], IntxPin::A), Ok(level(36)));
        let refused = bus.route(&[RequesterId::pci(0, 6, 0)], IntxPin::A);
        assert_eq!(refused, Err(NoIntx::Unmapped(IntxPin::A)));
        assert_eq!(bus.route(&[], IntxPin::A), Err(NoIntx::EmptyPath));
    }

    #[test]
    fn each_bridge_swizzles_the_intx_pin() {
        let pins = IntxPin::ALL.map(|pin| (5, pin, level(32 + u32::from(pin.number()))));
        let bus = IntxRouting::by_device(pins);
        let below = |device| RequesterId::pci(2, device, 0);
        // INTD of device 2 behind device 3, which is behind device 5 of the root bus.
        let path = [below(2), RequesterId::pci(1, 3, 0), FUNCTION];
        assert_eq!(bus.route(&path, IntxPin::D), Ok(level(33)));
        assert_eq!(bus.route(&[below(31), FUNCTION], IntxPin::A), Ok(level(36)));
    }

    #[test]
    fn interrupt_pin_register_encodes_four_pins() {
        let pins: Vec<_> = (0..=255).filter_map(IntxPin::from_register).collect();
        assert_eq!(pins, IntxPin::ALL);
    }
}
