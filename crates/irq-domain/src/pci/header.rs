//! Configuration header registers (PCI Express Base §7.5.1).

pub(super) const VENDOR: u16 = 0x00;
pub(super) const DEVICE: u16 = 0x02;
pub(super) const COMMAND: u16 = 0x04;
/// Status register.
pub(super) const STATUS: u16 = 0x06;
/// Bit of the Status register: the function has a capability list.
pub(super) const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Revision ID (bits 7:0) and class code (bits 31:8).
pub(super) const CLASS: u16 = 0x08;
pub(super) const HEADER_TYPE: u16 = 0x0e;
/// The first base address register.
pub(super) const BAR0: u16 = 0x10;

/// Bit of the Command register: the function decodes its I/O ports.
pub(super) const COMMAND_IO: u16 = 1 << 0;
/// Bit of the Command register: the function decodes its memory regions.
pub(super) const COMMAND_MEMORY: u16 = 1 << 1;
/// Bit of the Command register: the function may write to memory, and thus may send messages.
pub(super) const COMMAND_MASTER: u16 = 1 << 2;

/// Bit of the header type: the device has several functions.
pub(super) const MULTI_FUNCTION: u8 = 0x80;
pub(super) const TYPE_ENDPOINT: u8 = 0;
pub(super) const TYPE_BRIDGE: u8 = 1;
pub(super) const TYPE_CARDBUS: u8 = 2;

// Bridge registers, type 1.
pub(super) const PRIMARY_BUS: u16 = 0x18;
pub(super) const SECONDARY_BUS: u16 = 0x19;
pub(super) const SUBORDINATE_BUS: u16 = 0x1a;
pub(super) const MEMORY: u16 = 0x20;
pub(super) const PREFETCHABLE: u16 = 0x24;
pub(super) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
pub(super) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;

/// PCI Express capability ID.
pub(super) const EXPRESS: u8 = 0x10;
/// Offset of the PCI Express Capabilities register. Bits 7:4 are the port type (§7.5.3.2).
pub(super) const EXPRESS_FLAGS: u16 = 0x02;
pub(super) const PORT_ROOT: u8 = 4;
pub(super) const PORT_DOWNSTREAM: u8 = 6;
/// Port type: PCI Express to conventional PCI bridge.
pub(super) const PORT_TO_CONVENTIONAL: u8 = 7;
/// Port type: conventional PCI to PCI Express bridge.
pub(super) const PORT_FROM_CONVENTIONAL: u8 = 8;
/// Port type: root complex event collector.
pub(super) const PORT_EVENT_COLLECTOR: u8 = 10;
