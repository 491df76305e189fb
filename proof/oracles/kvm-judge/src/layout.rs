//! The guest's address map: devices as on QEMU's `virt` machine, and the guest's tables and
//! programs in memory.

/// Number of vCPUs.
pub const CPUS: u16 = 2;
/// INTIDs below 1024, the private ones included.
pub const INTERRUPTS: u32 = 96;

/// An SPI that is level-triggered: its line is high until a vCPU acknowledges it.
pub const LEVEL_LINE: u32 = 95;
/// INTIDs from here to 1023 name no interrupt.
pub const SPECIAL: u32 = 1020;

/// The distributor.
pub const DISTRIBUTOR: u64 = 0x0800_0000;
/// The ITSes.
pub const ITS: [u64; 2] = [0x0808_0000, 0x0810_0000];
/// The redistributors, consecutively.
pub const REDISTRIBUTORS: u64 = 0x080a_0000;
/// Nothing is there: a store leaves the guest.
pub const REPORT: u64 = 0x0900_0000;

/// Beginning of the memory.
pub const RAM: u64 = 0x4000_0000;
/// Bytes of memory.
pub const RAM_BYTES: usize = 0x20_0000;
/// The guest's program.
pub const PROGRAM: u64 = RAM;
/// The operations that it is to do.
pub const OPERATIONS: u64 = RAM + 0x1000;
/// Start of the GIC's memory: everything from here on belongs to a snapshot.
pub const GIC_MEMORY: u64 = RAM + 0x1_0000;
/// The first ITS's command queue, 64 KiB. What an ITS uses lies for the second one [further
/// up](of_its).
pub const QUEUE: u64 = GIC_MEMORY;
/// The device table, 64 KiB: of one level, or the first of two.
pub const DEVICE_TABLE: u64 = RAM + 0x2_0000;
/// The collection table, 64 KiB.
pub const COLLECTION_TABLE: u64 = RAM + 0x3_0000;
/// The LPIs' configuration, a byte for each.
pub const CONFIGURATION: u64 = RAM + 0x4_0000;
/// INTID bits of that.
pub const ID_BITS: u8 = 14;
/// The pending table of each vCPU, 64 KiB apart.
pub const PENDING: u64 = RAM + 0x5_0000;
/// Interrupt translation tables, 4 KiB apart.
pub const TRANSLATIONS: u64 = RAM + 0x7_0000;
/// Pages of the device table's second level, 64 KiB each.
pub const SECOND_LEVEL: u64 = RAM + 0x8_0000;

/// RD_base of a vCPU.
pub const fn redistributor(cpu: u16) -> u64 {
    REDISTRIBUTORS + cpu as u64 * gic_arch::gicr::STRIDE_V3
}

/// Address at this ITS that corresponds to `address` at the first one.
pub const fn of_its(its: usize, address: u64) -> u64 {
    address + its as u64 * 0x10_0000
}

/// The pending table of a vCPU.
pub const fn pending(cpu: u16) -> u64 {
    PENDING + cpu as u64 * 0x1_0000
}
