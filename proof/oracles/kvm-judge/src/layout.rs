//! The guest's address map. Devices have the same addresses as on QEMU's `virt` machine; the
//! guest's tables and programs are in memory.

/// Number of vCPUs.
pub const CPUS: u16 = 2;
/// Number of INTIDs below 1024, including the private ones.
pub const INTERRUPTS: u32 = 96;

/// A level-triggered SPI. The SPI's input stays asserted until a vCPU acknowledges the interrupt.
pub const LEVEL_LINE: u32 = 95;
/// First special INTID. INTIDs from 1020 to 1023 do not identify interrupts.
pub const SPECIAL: u32 = 1020;

/// Base address of the distributor.
pub const DISTRIBUTOR: u64 = 0x0800_0000;
/// Base addresses of the ITSes.
pub const ITS: [u64; 2] = [0x0808_0000, 0x0810_0000];
/// Base address of the redistributors, which are contiguous.
pub const REDISTRIBUTORS: u64 = 0x080a_0000;
/// An unmapped address. A store to this address makes the guest exit.
pub const REPORT: u64 = 0x0900_0000;

/// Base address of memory.
pub const RAM: u64 = 0x4000_0000;
/// Size of memory in bytes.
pub const RAM_BYTES: usize = 0x20_0000;
/// Address of the guest's program.
pub const PROGRAM: u64 = RAM;
/// Address of the list of operations that the program performs.
pub const OPERATIONS: u64 = RAM + 0x1000;
/// Start of the memory that the GIC uses. A snapshot includes the memory from this address to the
/// end of RAM.
pub const GIC_MEMORY: u64 = RAM + 0x1_0000;
/// Command queue of the first ITS, 64 KiB. The second ITS uses [corresponding addresses](of_its) at
/// a higher offset.
pub const QUEUE: u64 = GIC_MEMORY;
/// Device table, 64 KiB: the only level of a flat table, or the first level of a two-level table.
pub const DEVICE_TABLE: u64 = RAM + 0x2_0000;
/// Collection table, 64 KiB.
pub const COLLECTION_TABLE: u64 = RAM + 0x3_0000;
/// LPI configuration table, one byte per LPI.
pub const CONFIGURATION: u64 = RAM + 0x4_0000;
/// Number of INTID bits for which the configuration table has room.
pub const ID_BITS: u8 = 14;
/// The vCPUs' pending tables, 64 KiB apart.
pub const PENDING: u64 = RAM + 0x5_0000;
/// Interrupt translation tables, 4 KiB apart.
pub const TRANSLATIONS: u64 = RAM + 0x7_0000;
/// Second-level pages for the device table, 64 KiB each.
pub const SECOND_LEVEL: u64 = RAM + 0x8_0000;

/// Returns the RD_base of a vCPU.
pub const fn redistributor(cpu: u16) -> u64 {
    REDISTRIBUTORS + cpu as u64 * gic_arch::gicr::STRIDE_V3
}

/// Converts an address that the first ITS uses to the corresponding address for the ITS with this
/// index.
pub const fn of_its(its: usize, address: u64) -> u64 {
    address + its as u64 * 0x10_0000
}

/// Returns the address of a vCPU's pending table.
pub const fn pending(cpu: u16) -> u64 {
    PENDING + cpu as u64 * 0x1_0000
}
