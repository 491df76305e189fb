//! Guest faults: the kind, the register involved, and the invalid value.

use super::command_fault::FailedCommand;
use core::fmt;
use gic_arch::{IntId, RegisterInfo, gicd, gicr, gits, v2m};
use msi_types::{Cpu, DeviceId, EventId};

/// Kind of guest error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FaultReason {
    /// The frame has no register at the offset.
    #[error("no register at this address")]
    UnknownRegister,
    /// The register does not support the access's width or alignment.
    #[error("width or alignment not supported by the register")]
    AccessWidth,
    /// A write-only register was read, or a read-only register was written.
    #[error("read of a write-only or write of a read-only register")]
    AccessDirection,
    /// A register selects an interrupt that does not exist.
    #[error("no such interrupt")]
    NoSuchInterrupt,
    /// A write to `GICR_PROPBASER` or `GICR_PENDBASER` was ignored, because LPIs are enabled or are
    /// still being disabled.
    #[error("write ignored, because LPIs are enabled or being disabled")]
    LpiTablesInUse,
    /// An LPI table is too small for any LPI, or is outside guest memory.
    #[error("LPI table too small or not in memory")]
    LpiTable,
    /// `EnableLPIs` was set while bits 15:12 of `GICR_PENDBASER` were not zero. The model treats
    /// these bits as zero.
    #[error("the pending table is not aligned to 64 KiB: bits 15:12 are treated as zero")]
    UnalignedPendingTable,
    /// `EnableLPIs` was set with a pending table that overlaps the table of another redistributor
    /// with LPIs enabled.
    #[error("the pending table overlaps that of another redistributor whose LPIs are enabled")]
    SharedPendingTable,
    /// `GICR_INVLPIR` or `GICR_INVALLR` was written before `GICR_SYNCR.Busy` was read as 0 after
    /// the previous such write. The guest therefore cannot know that the previous invalidation was
    /// complete (IHI 0069 §12.11, `GICR_SYNCR`). The model performs both.
    #[error("write before GICR_SYNCR.Busy was read as 0 after the last invalidation")]
    InvalidationInProgress,
    /// A write to `GITS_BASER<n>` or `GITS_CBASER` was ignored, because the ITS is enabled.
    #[error("write ignored, because the ITS is enabled")]
    ItsTablesInUse,
    /// `GITS_BASER<n>` or `GITS_CBASER` was written after the ITS was disabled, but before
    /// `GITS_CTLR.Quiescent` was read as 1. Writes while the bit is 0 are UNPREDICTABLE.
    #[error("write before GITS_CTLR.Quiescent was read as 1 after the ITS was disabled")]
    ItsNotQuiescent,
    /// An ITS table or command queue is not in memory.
    #[error("points outside of guest memory")]
    ItsTable,
    /// MAPD named an interrupt translation table that is not in memory. The command succeeds,
    /// because the model keeps mappings in host memory.
    #[error("MAPD with an interrupt translation table outside of memory")]
    TranslationTable,
    /// The ITS was enabled with a table whose address is not aligned to its page size. With pages
    /// of 64 KiB, bits 15:12 of `GITS_BASER<n>` are address bits 51:48 (IHI 0069 §12.19), where the
    /// guest has no memory.
    #[error(
        "the ITS table is not aligned to its page size, which may be read-only (with \
                 64 KiB pages, bits 15:12 are address bits 51:48)"
    )]
    UnalignedItsTable,
    /// The ITS was enabled while bits 15:12 of `GITS_CBASER` were not zero, which is CONSTRAINED
    /// UNPREDICTABLE (IHI 0069 §12.19). The model treats these bits as zero.
    #[error("the command queue is not aligned to 64 KiB: bits 15:12 are treated as zero")]
    UnalignedQueue,
    /// An ITS command failed.
    #[error("ITS command failed")]
    ItsCommand,
    /// A message arrived for a mapped event, but the ITS or the redistributor's LPIs were disabled,
    /// or the event's LPI is beyond the redistributor's tables. Recorded if the exact reason is not
    /// known, because it no longer applied or, for `GICR_SETLPIR`, because another thread held a
    /// lock.
    #[error("message while the ITS or the LPI is disabled")]
    DisabledMessage,
    /// A message arrived while `GITS_CTLR.Enabled` was 0, or before the ITS had been fully enabled.
    #[error("message while GITS_CTLR.Enabled is 0")]
    ItsDisabled,
    /// A message arrived from a device that MAPD has not mapped.
    #[error("message from a device that MAPD has not mapped")]
    UnmappedDevice,
    /// A message arrived with an EventID beyond the device's interrupt translation table.
    #[error("message with an EventID beyond the device's interrupt translation table")]
    EventOutOfRange,
    /// A message arrived for an event that MAPTI or MAPI has not mapped.
    #[error("message for an event that MAPTI or MAPI has not mapped")]
    UnmappedEvent,
    /// A message arrived for an event whose collection MAPC has not mapped.
    #[error("message for an event whose collection MAPC has not mapped")]
    UnmappedCollection,
    /// A message arrived for an event or a direct LPI while `GICR_CTLR.EnableLPIs` was 0 at its
    /// target, or before the bit had fully taken effect.
    #[error("message while GICR_CTLR.EnableLPIs is 0 at its target")]
    LpisDisabled,
    /// `GICR_CTLR.EnableLPIs` was set while `GICR_PROPBASER` was 0. Recorded when the bit is set,
    /// and for each message that is dropped at that redistributor.
    #[error("GICR_CTLR.EnableLPIs was set while GICR_PROPBASER was 0")]
    NoConfigurationTable,
    /// A message arrived for an event or a direct LPI whose INTID exceeds `GICR_PROPBASER.IDbits`
    /// of its target.
    #[error("message for an LPI beyond GICR_PROPBASER.IDbits of its target")]
    LpiOutOfRange,
    /// The guest requested more than the model's memory budget allows.
    #[error("the request exceeds the model's budget")]
    Budget,
    /// There is not enough heap memory for the guest's request. Work in progress continues when the
    /// guest polls for its completion, or when the VMM calls [`Vgic::poll`](crate::Vgic::poll).
    #[error("the heap has no memory left for the request")]
    OutOfMemory,
}

impl FaultReason {
    pub(crate) const COUNT: usize = Self::OutOfMemory as usize + 1;
    /// Number of kinds that are possible on a machine without LPIs: the first ones.
    pub(crate) const WITHOUT_LPIS: usize = Self::NoSuchInterrupt as usize + 1;

    /// Kinds that are recorded for messages that do not make an LPI pending.
    pub const DROPPED_MESSAGES: [Self; 9] = [
        Self::DisabledMessage,
        Self::ItsDisabled,
        Self::UnmappedDevice,
        Self::EventOutOfRange,
        Self::UnmappedEvent,
        Self::UnmappedCollection,
        Self::LpisDisabled,
        Self::NoConfigurationTable,
        Self::LpiOutOfRange,
    ];
}

/// Register frame, identified by the guest physical address of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum RegisterFrame {
    /// The distributor.
    Distributor(u64),
    /// The alias frame with the distributor's doorbells.
    MbiAlias(u64),
    /// A redistributor, or an unused frame of a redistributor region.
    Redistributor(u64),
    /// An ITS.
    Its(u64),
    /// A GICv2m frame.
    V2m(u64),
}

impl RegisterFrame {
    /// Returns the address of the frame's first byte.
    pub const fn base(self) -> u64 {
        match self {
            Self::Distributor(base)
            | Self::MbiAlias(base)
            | Self::Redistributor(base)
            | Self::Its(base)
            | Self::V2m(base) => base,
        }
    }

    /// Returns the prefix that the Arm manual uses for register names in this frame, and the
    /// frame's registers.
    const fn registers(self) -> (&'static str, &'static [RegisterInfo]) {
        match self {
            Self::Distributor(_) | Self::MbiAlias(_) => ("GICD", gicd::REGISTERS),
            Self::Redistributor(_) => ("GICR", gicr::REGISTERS),
            Self::Its(_) => ("GITS", gits::REGISTERS),
            Self::V2m(_) => ("MSI", v2m::REGISTERS),
        }
    }
}

/// Formats the frame as a devicetree would name its node: `its@8080000`.
impl fmt::Display for RegisterFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Distributor(_) => "gicd",
            Self::MbiAlias(_) => "mbi",
            Self::Redistributor(_) => "gicr",
            Self::Its(_) => "its",
            Self::V2m(_) => "v2m",
        };
        write!(f, "{name}@{:x}", self.base())
    }
}

/// The value involved in a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultDetail {
    /// No value: the guest read a register, or requested more than is available.
    None,
    /// The value that the guest wrote to the register, or that the register holds as a result.
    Value(u64),
    /// The interrupt selected by the register.
    Interrupt(IntId),
    /// Guest physical address in the register, at which the guest has no memory.
    Memory(u64),
    /// A message from a device.
    Message {
        /// DeviceID.
        device: DeviceId,
        /// EventID.
        event: EventId,
    },
    /// A failed ITS command.
    Command(FailedCommand),
    /// The vCPU whose redistributor uses the same memory.
    Redistributor(Cpu),
}

/// A single guest error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct GuestFault {
    /// Kind of error.
    pub reason: FaultReason,
    /// Frame of the register.
    pub frame: RegisterFrame,
    /// Guest physical address of the register, even if the fault is in the memory that it points
    /// to. For a command, the address of `GITS_CREADR`; for a message, the address of the doorbell.
    pub address: u64,
    /// The value involved.
    pub detail: FaultDetail,
}

impl GuestFault {
    /// Creates a fault at an offset of a frame.
    pub(crate) const fn new(
        reason: FaultReason,
        (frame, offset): (RegisterFrame, u32),
        detail: FaultDetail,
    ) -> Self {
        Self { reason, frame, address: frame.base().wrapping_add(offset as u64), detail }
    }

    /// Returns the offset of the register in its frame.
    pub(super) const fn offset(&self) -> u64 {
        self.address.wrapping_sub(self.frame.base())
    }

    fn write_register(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, registers) = self.frame.registers();
        let offset = u32::try_from(self.offset()).ok();
        let found = registers.iter().find_map(|info| Some((info, info.index_of(offset?)?)));
        match found {
            Some((info, index)) if info.count > 1 => write!(f, "{prefix}_{}{index}", info.name),
            Some((info, _)) => write!(f, "{prefix}_{}", info.name),
            None => write!(f, "offset {:#x}", self.offset()),
        }
    }
}

/// Formats the fault as a sentence with the frame, the register and the value.
impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.frame)?;
        if let FaultDetail::Command(command) = self.detail {
            return command.fmt(f);
        }
        self.write_register(f)?;
        if let FaultDetail::Value(value) = self.detail {
            write!(f, " = {value:#x}")?;
        }
        write!(f, ": {}", self.reason)?;
        match self.detail {
            FaultDetail::None | FaultDetail::Value(_) | FaultDetail::Command(_) => Ok(()),
            FaultDetail::Interrupt(intid) => write!(f, " ({intid})"),
            FaultDetail::Memory(address) => write!(f, " (no memory at {address:#x})"),
            FaultDetail::Message { device, event } => {
                write!(f, " (DeviceID {:#x}, EventID {:#x})", device.get(), event.get())
            }
            FaultDetail::Redistributor(cpu) => write!(f, " (of vCPU {})", cpu.get()),
        }
    }
}
