//! ITS configuration.

use crate::lpi::MAX_EVENT_BITS;
use gic_arch::gits::{PageSize, SIZE, Typer};
use gic_arch::{Iidr, gicr};

/// Width of a collection number in commands and tables, in bits.
const MAX_COLLECTION_BITS: u8 = 16;

/// Configuration for an ITS. [`ItsConfig::new`] returns a complete configuration; setters change
/// individual fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ItsConfig {
    /// Guest physical address of the control frame, aligned to 64 KiB. The translation frame
    /// follows the control frame.
    pub base: u64,
    /// Number of DeviceID bits, 1 to 32.
    pub device_id_bits: u8,
    /// Number of EventID bits, 1 to 23.
    pub event_id_bits: u8,
    /// Encoding of a command's target redistributor (`GITS_TYPER.PTA`).
    pub redistributor_naming: RedistributorNaming,
    /// Number of collections held in the ITS itself, starting at collection 0 (`GITS_TYPER.HCC`).
    pub held_collections: u8,
    /// The device table (`GITS_BASER0`).
    pub device_table: TableLevels,
    /// The collection table (`GITS_BASER1`), for collections that the ITS doesn't hold itself.
    pub collection_table: Option<TableLevels>,
    /// Number of bits in a collection number, 1 to 16, if the ITS reports a limit
    /// (`GITS_TYPER.CIL`, `CIDbits`). `None` means 16 bits without a reported limit. A limit
    /// requires a collection table; without one, only [`held_collections`](Self::held_collections)
    /// exist.
    pub collection_id_bits: Option<u8>,
    /// Page sizes that the tables support.
    pub page_sizes: PageSizes,
    /// Coherence of the ITS's accesses to tables and command queue with the guest's caches.
    pub coherence: Coherence,
    /// `GITS_IIDR`. Guests use the identification to select errata workarounds. Revision 0
    /// identifies KVM's table format.
    pub iidr: Iidr,
    /// Policy for command errors.
    pub error_policy: ErrorPolicy,
    /// Units of work that one register access may do before the rest is left for the next access. A
    /// command is one unit, plus one for every 16 mappings that it visits. A mapping that is
    /// visited and changed counts twice. A command or a write to `GITS_CTLR` that exceeds the limit
    /// resumes at the next access, or when a vCPU is about to sleep or to enter its guest.
    pub work_per_access: u32,
}

/// Encoding of a command's target redistributor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RedistributorNaming {
    /// By `GICR_TYPER.Processor_Number` (`PTA` = 0).
    ProcessorNumber,
    /// By the physical address of RD_base (`PTA` = 1).
    Address,
}

/// Number of levels that an ITS table may have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TableLevels {
    /// One level only: `GITS_BASERn.Indirect` reads as zero.
    Flat,
    /// One level or two, at the guest's choice.
    FlatOrTwo,
}

/// Page sizes that tables can have.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageSizes {
    /// Any size, at the guest's choice.
    Any,
    /// Only this size: `GITS_BASERn.Page_Size` is read-only.
    Only(PageSize),
}

/// Coherence of table accesses with the guest's caches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Coherence {
    /// Accesses are coherent.
    Coherent,
    /// Accesses are not coherent. The shareability fields read as zero, and the guest must clean
    /// the cache lines that it writes.
    NonCoherent,
}

/// Policy for command errors. The architecture leaves the choice to the implementation (IHI 0069
/// §5.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorPolicy {
    /// Skip the command.
    Skip,
    /// Stall the queue at the command (`GITS_CREADR.Stalled`) until the guest writes
    /// `GITS_CWRITER.Retry`.
    Stall,
}

/// Error for an [`ItsConfig`] that no ITS could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItsConfigError {
    /// The frames are misaligned, or extend beyond 52 address bits.
    #[error("the ITS at {0:#x} is not aligned to 64 KiB within 52 address bits")]
    Base(u64),
    /// The number of DeviceID bits is invalid.
    #[error("{0} DeviceID bits: an ITS has 1 to 32")]
    DeviceIdBits(u8),
    /// The number of EventID bits is invalid.
    #[error("{0} EventID bits: this ITS has 1 to {MAX_EVENT_BITS}")]
    EventIdBits(u8),
    /// The ITS has no collections.
    #[error("the ITS has no collections: neither held nor in a table")]
    NoCollections,
    /// The number of bits in a collection number is invalid.
    #[error("{0} bits for collection numbers: an ITS has 1 to {MAX_COLLECTION_BITS}")]
    CollectionIdBits(u8),
    /// The limit on collection numbers is meaningless without a collection table, or excludes some
    /// of the held collections.
    #[error(
        "{held} held collections cannot be combined with a limit of {bits} bits for collection \
         numbers: the limit excludes some of them, or no collection table exists"
    )]
    CollectionIdBitsBesideHeld {
        /// Limit in bits.
        bits: u8,
        /// Number of held collections.
        held: u8,
    },
    /// `work_per_access` is zero.
    #[error("an ITS must do some work at each access: set work_per_access")]
    NoWork,
    /// The machine has more ITSes than the model supports.
    #[error("there are too many ITSes")]
    TooMany,
}

impl ItsConfig {
    /// Creates the configuration of an ITS like KVM's: 16 DeviceID and EventID bits, processor
    /// numbers as targets, 64 KiB pages, a device table of one or two levels, a flat collection
    /// table, and a policy of skipping erroneous commands.
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

    /// Returns the address to which devices write EventIDs: `GITS_TRANSLATER`.
    pub const fn doorbell(&self) -> u64 {
        self.base + gic_arch::gits::TRANSLATER.offset() as u64
    }

    /// Checks that an ITS with this configuration can exist.
    ///
    /// # Errors
    /// The first violated constraint, if any.
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

    /// Returns `true` if `number` is within the limit on collection numbers. A collection within
    /// the limit exists only if the ITS holds it or the table has room for it.
    pub(crate) const fn names_collection(&self, number: u16) -> bool {
        match self.collection_id_bits {
            Some(bits) => (number as u32) >> bits == 0,
            None => true,
        }
    }

    /// Returns `GITS_TYPER`. `CCT` means that held collections are in addition to the collections
    /// in memory.
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
