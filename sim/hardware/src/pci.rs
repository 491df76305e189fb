//! PCI host bridges, bridges and functions with real configuration space, and the code that
//! enumerates the functions.

mod bridge;
mod bus_number;
mod config_bytes;
pub mod enumerate;
mod function;
mod host_bridge;
mod message_store;
mod segment;
#[cfg(test)]
pub(crate) mod sent;

pub use bridge::BridgeKind;
pub use bus_number::DevFn;
pub use function::{DeviceFunctions, Function, FunctionConfig};
pub use host_bridge::{HostBridge, Translator, Windows};
pub use message_store::{AddressWidth, Signaled, StoreConfig};
pub use segment::Segment;

/// Registers in the configuration header and in the capabilities that the machine implements (PCI
/// Express Base §7.5).
pub mod header {
    /// Vendor ID, 16 bits; all bits are ones if the slot has no function.
    pub const VENDOR: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE: u16 = 0x02;
    /// Command, 16 bits.
    pub const COMMAND: u16 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u16 = 0x06;
    /// Revision and class code, 32 bits.
    pub const CLASS: u16 = 0x08;
    /// Header type, 8 bits.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register.
    pub const BAR0: u16 = 0x10;
    /// Type 1: primary, secondary and subordinate bus numbers.
    pub const BUS_NUMBERS: u16 = 0x18;
    /// Type 1: prefetchable memory base and limit, 16 bits each.
    pub const PREFETCHABLE: u16 = 0x24;
    /// Type 1: upper halves of the prefetchable base and limit.
    pub const PREFETCHABLE_UPPER: u16 = 0x28;
    /// Pointer to the first capability, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;

    /// Bit in the command register: the function responds to accesses to its memory regions.
    pub const COMMAND_MEMORY: u16 = 1 << 1;
    /// Bit in the command register: the function may write to memory, and so send messages.
    pub const COMMAND_MASTER: u16 = 1 << 2;
    /// Bit in the status register: the function has a capability list.
    pub const STATUS_CAPABILITIES: u16 = 1 << 4;
    /// Bit in the header type: the device has more than one function.
    pub const MULTI_FUNCTION: u8 = 0x80;

    /// PCI Express capability ID.
    pub const EXPRESS: u8 = 0x10;
    /// Offset of the PCI Express capabilities register, 16 bits. Bits 7:4 hold the port type.
    pub const EXPRESS_FLAGS: u16 = 0x02;
    /// Port type: an endpoint.
    pub const PORT_ENDPOINT: u16 = 0x0;
    /// Port type: a root port.
    pub const PORT_ROOT: u16 = 0x4;
    /// Port type: a bridge to conventional PCI.
    pub const PORT_TO_CONVENTIONAL: u16 = 0x7;
}
