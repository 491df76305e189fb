//! The configuration of an ITS.

use crate::lpi::MAX_EVENT_BITS;
use gic_arch::gits::{PageSize, SIZE, Typer};
use gic_arch::{Iidr, gicr};

/// Bits of a collection's number in commands and tables.
const MAX_COLLECTION_BITS: u8 = 16;

/// An ITS. [`ItsConfig::new`] gives a complete one; setters change what differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsConfig {
    /// Guest physical address of the control frame; the translation frame follows. 64 KiB aligned.
    pub base: u64,
    /// DeviceID bits: 1 to 32.
    pub device_id_bits: u8,
    /// EventID bits: 1 to 23.
    pub event_id_bits: u8,
    /// The name of a redistributor in commands (`GITS_TYPER.PTA`).
    pub redistributor_naming: RedistributorNaming,
    /// Collections that the ITS holds by itself, from number 0 on (`GITS_TYPER.HCC`).
    pub held_collections: u8,
    /// The device table (`GITS_BASER0`).
    pub device_table: TableLevels,
    /// The collection table (`GITS_BASER1`), for collections beyond those held.
    pub collection_table: Option<TableLevels>,
    /// Bits of collections' numbers, if they are limited (`GITS_TYPER.CIL`, `CIDbits`): 1 to 16.
    /// `None` says 16 without saying it. For an ITS with a collection table: without one,
    /// [`held_collections`](Self::held_collections) are all.
    pub collection_id_bits: Option<u8>,
    /// Page sizes of the tables.
    pub page_sizes: PageSizes,
    /// Coherence of accesses to tables and queue with the guest's caches.
    pub coherence: Coherence,
    /// `GITS_IIDR`: guests choose errata by it. Revision 0 is KVM's table format.
    pub iidr: Iidr,
    /// The reaction to a command error.
    pub error_policy: ErrorPolicy,
    /// Units of work at one register access before the rest is left for the next. A command is one
    /// unit, and so are every 16 mappings that it visits. A command that has more to visit goes on
    /// at the next access, or when a vCPU is about to leave.
    pub work_per_access: u32,
}

/// The name of a redistributor in commands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RedistributorNaming {
    /// By `GICR_TYPER.Processor_Number` (`PTA` = 0).
    ProcessorNumber,
    /// By the physical address of RD_base (`PTA` = 1).
    Address,
}

/// The levels that a table can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TableLevels {
    /// One level only: `GITS_BASERn.Indirect` reads as zero.
    Flat,
    /// The guest chooses.
    FlatOrTwo,
}

/// Page sizes that tables can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageSizes {
    /// The guest chooses.
    Any,
    /// This one: `GITS_BASERn.Page_Size` is read-only.
    Only(PageSize),
}

/// Coherence of table accesses with the guest's caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// They do.
    Coherent,
    /// They do not: shareability reads as zero, and the guest cleans what it writes.
    NonCoherent,
}

/// The reaction to a command error. The architecture leaves the choice (IHI 0069 §5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorPolicy {
    /// The command is skipped.
    Skip,
    /// The queue stalls at the command (`GITS_CREADR.Stalled`) until the guest writes
    /// `GITS_CWRITER.Retry`.
    Stall,
}

/// A configuration that no ITS can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItsConfigError {
    /// The frames.
    #[error("the ITS at {0:#x} is not aligned to 64 KiB within 52 address bits")]
    Base(u64),
    /// DeviceID bits.
    #[error("{0} DeviceID bits: an ITS has 1 to 32")]
    DeviceIdBits(u8),
    /// EventID bits.
    #[error("{0} EventID bits: this ITS has 1 to {MAX_EVENT_BITS}")]
    EventIdBits(u8),
    /// No collections.
    #[error("the ITS has no collections: neither held nor in a table")]
    NoCollections,
    /// Bits of collections' numbers.
    #[error("{0} bits of collections' numbers: an ITS has 1 to {MAX_COLLECTION_BITS}")]
    CollectionIdBits(u8),
    /// A limit of collections' numbers that is no limit: there are no others than held ones, or it
    /// excludes some of them.
    #[error(
        "collections' numbers limited to {bits} bits where {held} are held: it says nothing, or \
         too little"
    )]
    CollectionIdBitsBesideHeld {
        /// The limit.
        bits: u8,
        /// The number of collections held.
        held: u8,
    },
    /// No work is done.
    #[error("an ITS that does no work at an access never gets done")]
    NoWork,
    /// More ITSes than can be told apart.
    #[error("there are too many ITSes")]
    TooMany,
}

impl ItsConfig {
    /// An ITS like KVM's. It has 16 bits of DeviceIDs and EventIDs, redistributors by number, 64
    /// KiB pages, and a device table of one or two levels. Its collection table is flat, and errors
    /// are skipped.
    pub const fn new(base: u64) -> Self {
        Self {
            base,
            device_id_bits: 16,
            event_id_bits: 16,
            redistributor_naming: RedistributorNaming::ProcessorNumber,
            held_collections: 0,
            device_table: TableLevels::FlatOrTwo,
            collection_table: Some(TableLevels::Flat),
            collection_id_bits: None,
            page_sizes: PageSizes::Only(PageSize::Size64K),
            coherence: Coherence::Coherent,
            iidr: Iidr::new().with_implementer(0x43b),
            error_policy: ErrorPolicy::Skip,
            work_per_access: 1024,
        }
    }

    msi_types::setters! {
        with_base: base: u64,
        with_device_id_bits: device_id_bits: u8,
        with_event_id_bits: event_id_bits: u8,
        with_redistributor_naming: redistributor_naming: RedistributorNaming,
        with_held_collections: held_collections: u8,
        with_device_table: device_table: TableLevels,
        with_collection_table: collection_table: Option<TableLevels>,
        with_collection_id_bits: collection_id_bits: Option<u8>,
        with_page_sizes: page_sizes: PageSizes,
        with_coherence: coherence: Coherence,
        with_iidr: iidr: Iidr,
        with_error_policy: error_policy: ErrorPolicy,
        with_work_per_access: work_per_access: u32,
    }

    /// The address that devices write EventIDs to: `GITS_TRANSLATER`.
    pub const fn doorbell(&self) -> u64 {
        self.base + gic_arch::gits::TRANSLATER.offset() as u64
    }

    /// Checks everything.
    ///
    /// # Errors
    /// The first thing that no ITS can be.
    pub const fn validate(&self) -> Result<(), ItsConfigError> {
        if !self.base.is_multiple_of(gicr::FRAME_SIZE) || self.base > (1 << 52) - SIZE {
            return Err(ItsConfigError::Base(self.base));
        }
        if self.device_id_bits == 0 || self.device_id_bits > 32 {
            return Err(ItsConfigError::DeviceIdBits(self.device_id_bits));
        }
        if self.event_id_bits == 0 || self.event_id_bits > MAX_EVENT_BITS {
            return Err(ItsConfigError::EventIdBits(self.event_id_bits));
        }
        if self.held_collections == 0 && self.collection_table.is_none() {
            return Err(ItsConfigError::NoCollections);
        }
        if self.work_per_access == 0 {
            return Err(ItsConfigError::NoWork);
        }
        match self.collection_id_bits {
            Some(bits) if bits == 0 || bits > MAX_COLLECTION_BITS => {
                Err(ItsConfigError::CollectionIdBits(bits))
            }
            Some(bits)
                if self.collection_table.is_none() || 1 << bits < self.held_collections as u32 =>
            {
                Err(ItsConfigError::CollectionIdBitsBesideHeld {
                    bits,
                    held: self.held_collections,
                })
            }
            _ => Ok(()),
        }
    }

    /// Can there be a collection of this number, if it is held or a table has room for it?
    pub(crate) const fn names_collection(&self, number: u16) -> bool {
        match self.collection_id_bits {
            Some(bits) => (number as u32) >> bits == 0,
            None => true,
        }
    }

    /// `GITS_TYPER`. Collections held and those in memory add up (`CCT`).
    pub(crate) const fn typer(&self) -> Typer {
        Typer::new()
            .with_physical(true)
            .with_cct(self.held_collections > 0 && self.collection_table.is_some())
            .with_itt_entry_bytes_minus_one(7)
            .with_event_id_bits_minus_one(self.event_id_bits - 1)
            .with_device_id_bits_minus_one(self.device_id_bits - 1)
            .with_pta(matches!(self.redistributor_naming, RedistributorNaming::Address))
            .with_hcc(self.held_collections)
            .with_cil(self.collection_id_bits.is_some())
            .with_collection_id_bits_minus_one(match self.collection_id_bits {
                Some(bits) => bits - 1,
                None => 0,
            })
    }
}
