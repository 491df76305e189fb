//! Addresses and INTIDs that are valid on both machines. These numbers are typed by hand instead of
//! taken from `gic-arch`, because an oracle must not share definitions with the code that it
//! checks.

/// Number of CPUs on both machines.
pub const CPUS: u16 = 3;

pub(super) const GICD: u64 = 0x0800_0000;
pub(super) const GICR: u64 = 0x080A_0000;
pub(super) const GICR_STRIDE: u64 = 0x2_0000;
pub(super) const SGI_FRAME: u64 = 0x1_0000;
pub(super) const ITS: u64 = 0x0808_0000;
pub(super) const TRANSLATER: u64 = ITS + 0x1_0040;

pub(super) const CTLR: u64 = 0x0000;
pub(super) const WAKER: u64 = 0x0014;
pub(super) const IGROUPR: u64 = 0x0080;
pub(super) const ISENABLER: u64 = 0x0100;
pub(super) const IPRIORITYR: u64 = 0x0400;
pub(super) const ICFGR: u64 = 0x0C00;
pub(super) const IROUTER: u64 = 0x6000;
pub(super) const PROPBASER: u64 = 0x0070;
pub(super) const PENDBASER: u64 = 0x0078;
pub(super) const CBASER: u64 = 0x0080;
pub(super) const CWRITER: u64 = 0x0088;
pub(super) const CREADR: u64 = 0x0090;
pub(super) const BASER0: u64 = 0x0100;
pub(super) const BASER1: u64 = 0x0108;

/// RAM, which is all zero when a machine starts.
pub(super) const RAM: u64 = 0x4000_0000;
pub(super) const RAM_BYTES: usize = 128 << 20;
/// Memory that cases use. Both machines have this memory, which is zero when a case starts.
pub(super) const USED: core::ops::Range<u64> = 0x4100_0000..0x4118_0000;
/// LPI configuration bytes, starting with INTID 8192.
pub(super) const CONFIGURATION: u64 = 0x4100_0000;
const PENDING: u64 = 0x4102_0000;
/// The command queue, with up to [`QUEUE_PAGES`] pages of 4 KiB.
pub(super) const QUEUE: u64 = 0x4110_0000;
pub(super) const QUEUE_PAGES: u64 = 2;
pub(super) const DEVICES: u64 = 0x4112_0000;
pub(super) const COLLECTIONS: u64 = 0x4114_0000;
/// Second-level pages of the device table, for the first and the last 512 of 2^16 devices.
pub(super) const DEVICE_PAGES: [(u64, u64); 2] = [(0, 0x4116_0000), (127, 0x4116_1000)];
/// Second-level pages of the collection table, for the first and the last 512 of 2^16 collections.
pub(super) const COLLECTION_PAGES: [(u64, u64); 2] = [(0, 0x4116_2000), (127, 0x4116_3000)];
/// Interrupt translation tables, one for each device that cases map. A table is zeroed when it is
/// mapped.
const TRANSLATION_TABLES: u64 = 0x4120_0000;
const TRANSLATION_TABLE: u64 = 0x10_0000;
/// Memory that must stay zero.
pub(super) const SPARE: core::ops::Range<u64> = 0x4200_0000..0x4400_0000;

/// Returns the RD_base of a CPU.
pub(super) const fn redistributor(cpu: u16) -> u64 {
    GICR + cpu as u64 * GICR_STRIDE
}

/// Returns the address of a CPU's LPI pending table.
pub(super) const fn pending_table(cpu: u16) -> u64 {
    PENDING + cpu as u64 * 0x1_0000
}

/// Returns a number less than 8 that identifies the device. The number is unique among the devices
/// that both machines can map.
pub(super) const fn slot(device: u32) -> u32 {
    match device {
        0..=2 => device,
        511 => 3,
        512 => 4,
        0xffff => 5,
        _ => 6,
    }
}

/// Returns the address of the device's interrupt translation table. Each device that can be mapped
/// has its own table.
pub(super) const fn translation_table(device: u32) -> u64 {
    TRANSLATION_TABLES + slot(device) as u64 * TRANSLATION_TABLE
}

/// Returns the first of a device's 8 events whose EventIDs equal their INTIDs, as MAPI requires.
pub(super) const fn named_events(device: u32) -> u32 {
    NAMED_EVENTS + 8 * slot(device)
}

/// EventID of device 0's first event for MAPI. The number is above all other INTIDs that cases use.
pub(super) const NAMED_EVENTS: u32 = 8192 + 512;

/// Returns the unique INTID to which cases map an event.
pub(super) const fn intid(device: u32, event: u32) -> u32 {
    let within = match event {
        0..32 | 63 => event,
        32 => 32,
        64 => 33,
        0xffff => 34,
        NAMED_EVENTS..0x1_0000 => 40 + event % 8,
        _ => 50,
    };
    8192 + 64 * slot(device) + within
}
