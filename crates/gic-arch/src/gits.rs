//! The Interrupt Translation Service, `GITS_*` (IHI 0069 §12.19), with a control frame and a
//! translation frame of 64 KiB each. All offsets here are relative to the control frame.

use crate::reg::{register_frame, register_values};
use crate::{
    Cacheability, Iidr, OuterCacheability, ReadOnly, Reg, RegArray, Shareability, WriteOnly,
};
use bitfield_struct::bitfield;

/// Size of one frame in bytes.
pub const FRAME_SIZE: u64 = 0x1_0000;
/// Size of both frames in bytes.
pub const SIZE: u64 = 2 * FRAME_SIZE;

register_frame! {
    /// All registers of both frames except the identification registers, in ascending order of
    /// their offsets.
    REGISTERS;
    /// Control register.
    CTLR: Reg<Ctlr> = Reg::at(0x0000);
    /// Identification of the implementer and revision.
    IIDR: Reg<Iidr, ReadOnly> = Reg::at(0x0004);
    /// Implemented features.
    TYPER: Reg<Typer, ReadOnly> = Reg::at(0x0008);
    /// Maximum PARTID and PMG (GICv3.1 with MPAM).
    MPAMIDR: Reg<u32, ReadOnly> = Reg::at(0x0010);
    /// PARTID and PMG of table accesses (GICv3.1 with MPAM).
    PARTIDR: Reg<u32> = Reg::at(0x0014);
    /// Affinity of the shared vPE table (GICv4.1).
    MPIDR: Reg<u32, ReadOnly> = Reg::at(0x0018);
    /// Reported errors; writing 1 to a bit clears it.
    STATUSR: Reg<Statusr> = Reg::at(0x0040);
    /// The unmapped message that [`Statusr::umsi`] reports.
    UMSIR: Reg<Umsir, ReadOnly> = Reg::at(0x0048);
    /// Location and size of the command queue.
    CBASER: Reg<Cbaser> = Reg::at(0x0080);
    /// Offset in the queue at which software writes the next command.
    CWRITER: Reg<Cwriter> = Reg::at(0x0088);
    /// Offset in the queue of the next command that the ITS executes.
    CREADR: Reg<Creadr, ReadOnly> = Reg::at(0x0090);
    /// Locations, sizes and kinds of the ITS's tables.
    BASER: RegArray<Baser> = RegArray::at(0x0100, 8);
    /// The doorbell: devices signal messages by writing an EventID to it.
    TRANSLATER: Reg<u32, WriteOnly> = Reg::at(0x1_0040);
}

/// Value of `GITS_CTLR`.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Ctlr {
    /// The ITS is enabled and accepts messages and commands.
    pub enabled: bool,
    #[bits(3)]
    __: u8,
    /// Number of this ITS in the lists of `VMOVP` commands (GICv4).
    #[bits(4)]
    pub its_number: u8,
    /// An unmapped message raises an interrupt ([`Typer::umsi_irq`]).
    pub umsi_irq: bool,
    #[bits(22)]
    __: u32,
    /// The ITS is disabled and all its operations have completed. Read-only.
    pub quiescent: bool,
}

/// Value of `GITS_TYPER`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Typer {
    /// Physical LPIs are supported.
    pub physical: bool,
    /// Virtual LPIs are supported (GICv4).
    pub virtual_lpis: bool,
    /// Collections in memory are supported in addition to those held in hardware.
    pub cct: bool,
    __: bool,
    /// Interrupt translation table entry size in bytes, minus one.
    #[bits(4)]
    pub itt_entry_bytes_minus_one: u8,
    /// Number of EventID bits, minus one.
    #[bits(5)]
    pub event_id_bits_minus_one: u8,
    /// Number of DeviceID bits, minus one.
    #[bits(5)]
    pub device_id_bits_minus_one: u8,
    /// Command errors are reported as SError.
    pub seis: bool,
    /// Commands identify redistributors by physical address instead of by processor number.
    pub pta: bool,
    #[bits(4)]
    __: u8,
    /// Number of collections that the ITS holds in hardware. Collections with lower numbers need no
    /// table.
    pub hcc: u8,
    /// Number of CollectionID bits, minus one; valid if [`cil`](Self::cil) is set.
    #[bits(4)]
    pub collection_id_bits_minus_one: u8,
    /// The number of CollectionID bits is limited.
    pub cil: bool,
    /// A `VMOVP` command to a single ITS is sufficient (GICv4).
    pub vmovp: bool,
    /// MPAM is supported (GICv3.1).
    pub mpam: bool,
    /// Virtual SGIs are supported (GICv4.1).
    pub vsgi: bool,
    /// `VMAPP` has the GICv4.1 layout.
    pub vmapp: bool,
    /// Set of redistributors and ITSes that share a vPE table (GICv4.1).
    #[bits(2)]
    pub svpet: u8,
    /// Individual doorbells are *not* supported (GICv4.1).
    pub n_id: bool,
    /// Unmapped messages are reported in `STATUSR` and `UMSIR`.
    pub umsi: bool,
    /// Unmapped messages can raise an interrupt.
    pub umsi_irq: bool,
    /// Clearing the Valid bit of a table while the ITS is quiescent invalidates caches of the
    /// table.
    pub inv: bool,
    #[bits(17)]
    __: u32,
}

impl Typer {
    /// Returns the interrupt translation table entry size in bytes, between 1 and 16.
    pub const fn itt_entry_bytes(self) -> u8 {
        self.itt_entry_bytes_minus_one() + 1
    }

    /// Returns the number of EventID bits, between 1 and 32.
    pub const fn event_id_bits(self) -> u8 {
        self.event_id_bits_minus_one() + 1
    }

    /// Returns the number of DeviceID bits, between 1 and 32.
    pub const fn device_id_bits(self) -> u8 {
        self.device_id_bits_minus_one() + 1
    }

    /// Returns the number of CollectionID bits, which is 16 unless limited.
    pub const fn collection_id_bits(self) -> u8 {
        if self.cil() { self.collection_id_bits_minus_one() + 1 } else { 16 }
    }
}

/// Value of `GITS_STATUSR`, in which each bit is write-1-to-clear.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Statusr {
    /// A reserved location was read.
    pub rrd: bool,
    /// A reserved location was written.
    pub wrd: bool,
    /// A write-only location was read.
    pub rwod: bool,
    /// A read-only location was written.
    pub wrod: bool,
    /// An unmapped message arrived.
    pub umsi: bool,
    /// Another unmapped message arrived while `UMSI` was set.
    pub overflow: bool,
    /// Reason why the message was unmapped. 0: unknown; 2: DeviceID out of range; 3: DeviceID
    /// unmapped; 4: EventID out of range; 5: EventID unmapped; 7: collection unmapped.
    #[bits(4)]
    pub syndrome: u8,
    #[bits(22)]
    __: u32,
}

/// Value of `GITS_UMSIR`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Umsir {
    /// EventID of the message.
    pub event_id: u32,
    /// DeviceID of the message.
    pub device_id: u32,
}

/// Value of `GITS_CBASER`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cbaser {
    /// Number of 4 KiB pages, minus one.
    pub pages_minus_one: u8,
    #[bits(2)]
    __: u8,
    /// Shareability of accesses to the queue.
    #[bits(2)]
    pub shareability: Shareability,
    /// Bits 51:12 of the queue's physical address.
    #[bits(40)]
    pub address_51_12: u64,
    __: bool,
    /// Outer cacheability of accesses to the queue.
    #[bits(3)]
    pub outer_cache: OuterCacheability,
    #[bits(3)]
    __: u8,
    /// Inner cacheability of accesses to the queue.
    #[bits(3)]
    pub inner_cache: Cacheability,
    __: bool,
    /// The queue's address and size are valid.
    pub valid: bool,
}

impl Cbaser {
    /// Returns the physical address of the queue. Software must align the queue to 64 KiB.
    pub const fn address(self) -> u64 {
        self.address_51_12() << 12
    }

    /// Returns the value with the queue at `address`. Bits 11:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_12((address >> 12) & 0xff_ffff_ffff)
    }

    /// Returns the size of the queue in bytes, between 4 KiB and 1 MiB.
    pub const fn bytes(self) -> u32 {
        (self.pages_minus_one() as u32 + 1) * 0x1000
    }
}

/// Value of `GITS_CWRITER`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cwriter {
    /// Restarts a stalled queue when software writes 1. Reads as 0.
    pub retry: bool,
    #[bits(4)]
    __: u8,
    /// Bits 19:5 of the byte offset.
    #[bits(15)]
    pub slot: u16,
    #[bits(44)]
    __: u64,
}

impl Cwriter {
    /// Creates the value for this byte offset. Bits other than 19:5 are dropped.
    pub const fn at_offset(offset: u32) -> Self {
        Self::from_bits((offset & 0xf_ffe0) as u64)
    }

    /// Returns the byte offset in the queue, a multiple of 32.
    pub const fn offset(self) -> u32 {
        self.slot() as u32 * 32
    }
}

/// Value of `GITS_CREADR`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Creadr {
    /// The ITS stopped at a faulty command.
    pub stalled: bool,
    #[bits(4)]
    __: u8,
    /// Bits 19:5 of the byte offset.
    #[bits(15)]
    pub slot: u16,
    #[bits(44)]
    __: u64,
}

impl Creadr {
    /// Creates the value for this byte offset. Bits other than 19:5 are dropped.
    pub const fn at_offset(offset: u32) -> Self {
        Self::from_bits((offset & 0xf_ffe0) as u64)
    }

    /// Returns the byte offset in the queue, a multiple of 32.
    pub const fn offset(self) -> u32 {
        self.slot() as u32 * 32
    }
}

/// Value of `GITS_BASER<n>`.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Baser {
    /// Number of pages, minus one.
    pub pages_minus_one: u8,
    /// Size of a page. May be read-only.
    #[bits(2)]
    pub page_size: PageSize,
    /// Shareability of accesses to the table.
    #[bits(2)]
    pub shareability: Shareability,
    /// Encoded physical address of the table, see [`address`](Self::address).
    #[bits(36)]
    pub address_code: u64,
    /// Entry size in bytes, minus one. Read-only.
    #[bits(5)]
    pub entry_bytes_minus_one: u8,
    /// Outer cacheability of accesses to the table.
    #[bits(3)]
    pub outer_cache: OuterCacheability,
    /// Kind of the table's entries. Read-only.
    #[bits(3)]
    pub kind: TableKind,
    /// Inner cacheability of accesses to the table.
    #[bits(3)]
    pub inner_cache: Cacheability,
    /// The table has two levels. Reads as zero if only flat tables are supported.
    pub indirect: bool,
    /// The table is allocated, and the ITS may use it.
    pub valid: bool,
}

impl Baser {
    /// Returns the physical address of the table. With 64 KiB pages, bits 15:12 of the register
    /// hold bits 51:48 of the address.
    pub const fn address(self) -> u64 {
        let field = self.address_code() << 12;
        match self.page_size() {
            PageSize::Size4K => field,
            PageSize::Size16K => field & !0x3fff,
            PageSize::Size64K | PageSize::Reserved => (field & !0xffff) | ((field & 0xf000) << 36),
        }
    }

    /// Returns the value with the table at `address`, which must be aligned to the page size of
    /// this value. Address bits that this page size cannot express are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        let field = match self.page_size() {
            PageSize::Size4K => address & 0xffff_ffff_f000,
            PageSize::Size16K => address & 0xffff_ffff_c000,
            PageSize::Size64K | PageSize::Reserved => {
                (address & 0xffff_ffff_0000) | ((address >> 36) & 0xf000)
            }
        };
        self.with_address_code(field >> 12)
    }

    /// Returns the entry size in bytes, between 1 and 32.
    pub const fn entry_bytes(self) -> u8 {
        self.entry_bytes_minus_one() + 1
    }

    /// Returns the size in bytes of the memory that the register points to: a flat table or the
    /// first level.
    pub const fn bytes(self) -> u64 {
        (self.pages_minus_one() as u64 + 1) * self.page_size().bytes()
    }
}

/// Page size of a table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageSize {
    /// 4 KiB.
    Size4K = 0,
    /// 16 KiB.
    Size16K = 1,
    /// 64 KiB.
    Size64K = 2,
    /// Reserved; treated as 64 KiB.
    Reserved = 3,
}

impl PageSize {
    /// Decodes the two low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Size4K,
            1 => Self::Size16K,
            2 => Self::Size64K,
            _ => Self::Reserved,
        }
    }

    /// Returns the two-bit encoding.
    pub const fn into_bits(self) -> u8 {
        self as u8
    }

    /// Returns the size in bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 0x1000,
            Self::Size16K => 0x4000,
            Self::Size64K | Self::Reserved => 0x1_0000,
        }
    }
}

/// Kinds of tables described by `GITS_BASER<n>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TableKind {
    /// The register is not implemented.
    None = 0,
    /// Device table.
    Devices = 1,
    /// Virtual PE table (GICv4).
    VirtualPes = 2,
    /// Reserved.
    Reserved3 = 3,
    /// Collection table.
    Collections = 4,
    /// Reserved.
    Reserved5 = 5,
    /// Reserved.
    Reserved6 = 6,
    /// Reserved.
    Reserved7 = 7,
}

impl TableKind {
    /// Decodes the three low bits of `bits`.
    pub const fn from_bits(bits: u8) -> Self {
        match bits & 7 {
            0 => Self::None,
            1 => Self::Devices,
            2 => Self::VirtualPes,
            3 => Self::Reserved3,
            4 => Self::Collections,
            5 => Self::Reserved5,
            6 => Self::Reserved6,
            _ => Self::Reserved7,
        }
    }

    /// Returns the three-bit encoding.
    pub const fn into_bits(self) -> u8 {
        self as u8
    }
}

register_values!(u32: Ctlr, Statusr);
register_values!(u64: Typer, Umsir, Cbaser, Cwriter, Creadr, Baser);
