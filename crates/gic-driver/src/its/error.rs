//! ITS errors: from initialization, from operations, and from the command queue.

use crate::lpi::LpiError;
use crate::platform::{GicPlatform, NoTable, TimedOut};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::lock::IrqLock;
use gic_arch::Lpi;
use gic_arch::its::{Command, RawCommand};
use msi_types::{ControllerFault, Cpu, DeviceId, MsiError};

/// Reason why an ITS could not be initialized. All memory has been freed, and the ITS is either
/// unchanged or disabled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The caller's configuration contains an invalid setting.
    #[error("its@{base:x}: {reason}")]
    BadConfig {
        /// The ITS's physical base.
        base: u64,
        /// The reason why the setting is invalid.
        reason: &'static str,
    },
    /// The platform can't map the ITS registers.
    #[error("its@{0:x}: the platform cannot map its registers; check the firmware description")]
    Unmappable(u64),
    /// `GITS_PIDR2` does not identify a supported ITS: firmware's description is wrong, or the
    /// block is powered off.
    #[error("its@{0:x}: not a GICv3 or GICv4 ITS; firmware may state a wrong address")]
    NotAnIts(u64),
    /// The ITS serves virtual LPIs only.
    #[error("its@{0:x}: the ITS does not support physical LPIs")]
    NoPhysicalLpis(u64),
    /// The GIC has no usable LPIs, or direct LPIs use them.
    #[error("its@{base:x}: {reason}")]
    Lpis {
        /// The ITS's physical base.
        base: u64,
        /// The reason.
        reason: LpiError,
    },
    /// The ITS is already enabled, and the caller did not request to [take it
    /// over](super::IfEnabled::TakeOver).
    #[error("its@{0:x}: another driver, firmware or a previous kernel has already enabled the ITS")]
    AlreadyEnabled(u64),
    /// The ITS was disabled but does not become quiescent. This indicates a hardware fault.
    #[error("its@{base:x}: {wait}")]
    NotQuiescent {
        /// The ITS's physical base.
        base: u64,
        /// The condition that was not met in time.
        wait: TimedOut,
    },
    /// A table can't be set up because its register does not exist, or rejects values that the
    /// architecture requires.
    #[error("its@{base:x}: the {table} cannot be set up: {reason}")]
    TableRefused {
        /// The ITS's physical base.
        base: u64,
        /// The table or queue.
        table: &'static str,
        /// The reason.
        reason: &'static str,
    },
    /// The platform or the heap is out of memory.
    #[error("its@{base:x}: out of memory for the {table}")]
    NoMemory {
        /// The ITS's physical base.
        base: u64,
        /// The table that needs the memory.
        table: &'static str,
    },
    /// The platform placed memory where the ITS can't use it.
    #[error(
        "its@{base:x}: the platform placed the {table} at {address:#x}: misaligned, too small or \
         out of reach"
    )]
    Misplaced {
        /// The ITS's physical base.
        base: u64,
        /// The table that needs the memory.
        table: &'static str,
        /// The table's physical address.
        address: u64,
    },
    /// The ITS supports fewer collections than the configuration has CPUs.
    #[error("its@{base:x}: the ITS supports only {limit} collections, too few for {cpus} CPUs")]
    TooFewCollections {
        /// The ITS's physical base.
        base: u64,
        /// Number of CPUs in the configuration.
        cpus: u32,
        /// Number of collections that the ITS can hold.
        limit: u64,
    },
}

impl ProbeError {
    pub(crate) const fn no_table(base: u64, table: &'static str, error: NoTable) -> Self {
        match error {
            NoTable::NoMemory => Self::NoMemory { base, table },
            NoTable::Misplaced(address) => Self::Misplaced { base, table, address },
        }
    }
}

/// Error from an operation on a running ITS. Unless documented otherwise, a failed operation
/// changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItsError {
    /// The DeviceID is beyond the range of the ITS or its device table.
    #[error("DeviceID {id} does not fit the {bits} DeviceID bits of the ITS")]
    DeviceIdOutOfRange {
        /// The DeviceID.
        id: DeviceId,
        /// Number of supported DeviceID bits.
        bits: u8,
    },
    /// Another requester is already using this DeviceID, and its table is too small for both.
    #[error("DeviceID {0} is already attached, with a table that is too small for more events")]
    AttachedForFewer(DeviceId),
    /// The request exceeds the number of events that the ITS supports per device.
    #[error("{wanted} events exceed the limit of {limit} per device")]
    TooManyEvents {
        /// Number of requested events.
        wanted: u32,
        /// The limit.
        limit: u32,
    },
    /// The attachment's quota is used up, or no block of this shape is free.
    #[error("no block of {wanted} events is free for an attachment with a quota of {limit}")]
    NoEvents {
        /// Number of requested events.
        wanted: u16,
        /// Quota with which the device was attached.
        limit: u32,
    },
    /// No block of LPIs of this size is free.
    #[error("no block of {wanted} LPIs is free")]
    NoLpis {
        /// Number of requested LPIs.
        wanted: u16,
    },
    /// The CPU has no collection, or is offline.
    #[error("CPU {0} cannot take LPIs: {1}")]
    NotReachable(Cpu, &'static str),
    /// The LPI is not mapped at this ITS.
    #[error("{0} is not mapped at this ITS")]
    NotMapped(Lpi),
    /// The platform or the heap is out of memory.
    #[error("out of memory for {0}")]
    NoMemory(&'static str),
    /// The platform placed memory where the ITS can't use it.
    #[error("the platform placed {table} at {address:#x}: misaligned, too small or out of reach")]
    Misplaced {
        /// The table that needs the memory.
        table: &'static str,
        /// The table's physical address.
        address: u64,
    },
    /// A command did not complete, the ITS is suspended, or the attachment or block does not belong
    /// to the caller.
    #[error("{0}")]
    Fault(ControllerFault),
}

impl ItsError {
    pub(crate) const fn no_table(table: &'static str, error: NoTable) -> Self {
        match error {
            NoTable::NoMemory => Self::NoMemory(table),
            NoTable::Misplaced(address) => Self::Misplaced { table, address },
        }
    }
}

impl From<ItsError> for MsiError {
    fn from(error: ItsError) -> Self {
        match error {
            ItsError::DeviceIdOutOfRange { id, bits } => Self::DeviceIdOutOfRange { id, bits },
            ItsError::AttachedForFewer(id) => Self::AlreadyAttached(id),
            ItsError::TooManyEvents { wanted, limit } => {
                Self::DeviceFull { wanted: u16::try_from(wanted).unwrap_or(u16::MAX), limit }
            }
            ItsError::NoEvents { wanted, limit } => Self::DeviceFull { wanted, limit },
            ItsError::NoLpis { wanted } => Self::NoVectors { wanted },
            ItsError::NotReachable(cpu, reason) => Self::NotReachable(cpu, reason),
            ItsError::NotMapped(lpi) => Self::UnknownVector(lpi.intid().hwirq()),
            ItsError::NoMemory(what) | ItsError::Misplaced { table: what, .. } => {
                Self::NoMemory(what)
            }
            ItsError::Fault(fault) => Self::Controller(fault),
        }
    }
}

/// Error from posting commands to the queue or waiting for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueueError {
    /// The ITS stopped making progress. Holds the first command that was not completed, if it can
    /// be decoded.
    Timeout(Option<Command>),
    /// The ITS refused this command. All other commands of the same caller were executed.
    Stalled(Option<Command>),
    /// The queue does not accept commands, because the ITS is suspended.
    Stopped,
}

impl QueueError {
    /// Converts to the public error type, adding the ITS, the command, and its device and event.
    pub(crate) fn at(self, base: u64) -> ItsError {
        let (command, reason) = match self {
            Self::Timeout(command) => (command, "timeout"),
            Self::Stalled(command) => (command, "queue stalled"),
            Self::Stopped => (None, "suspended"),
        };
        ItsError::Fault(ControllerFault {
            kind: "its",
            base,
            operation: command.map_or("command", |command| command.opcode().name()),
            device: command.and_then(Command::device),
            event: command.and_then(Command::event),
            reason,
        })
    }
}

/// Creates an error that is not about a particular command.
pub(crate) const fn fault(base: u64, operation: &'static str, reason: &'static str) -> ItsError {
    ItsError::Fault(ControllerFault {
        kind: "its",
        base,
        operation,
        device: None,
        event: None,
        reason,
    })
}

/// Failure log for operations that can't return an error (unmap, detach, mask).
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    count: AtomicU32,
    last: IrqLock<Option<ItsError>>,
}

impl FaultLog {
    /// Records a failure.
    ///
    /// Context: any.
    pub(crate) fn note<P: GicPlatform>(&self, platform: &P, error: ItsError) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.last.with(platform, |last| *last = Some(error));
    }

    /// Returns the number of failures, and the last one.
    ///
    /// Context: any.
    pub(crate) fn read<P: GicPlatform>(&self, platform: &P) -> (u32, Option<ItsError>) {
        let last = self.last.with(platform, |last| *last);
        (self.count.load(Ordering::SeqCst), last)
    }
}

/// Maximum number of refused commands that are kept until their callers query them.
const REMEMBERED_FAULTS: usize = 16;

/// Commands that the ITS refused, kept until their callers query them.
#[derive(Debug)]
pub(crate) struct Faults {
    known: Vec<(u64, RawCommand)>,
    /// Sequence numbers of refused commands that didn't fit in the list. A caller that waits for
    /// one of these commands receives an error that does not name the command.
    forgotten: Range<u64>,
}

impl Faults {
    pub(crate) fn new() -> Result<Self, TryReserveError> {
        let mut known = Vec::new();
        known.try_reserve_exact(REMEMBERED_FAULTS)?;
        Ok(Self { known, forgotten: 0..0 })
    }

    pub(crate) fn push(&mut self, sequence: u64, raw: RawCommand) {
        // Sequence numbers only grow, so the first entry is the oldest.
        if self.known.len() == REMEMBERED_FAULTS {
            let (oldest, _) = self.known.remove(0);
            if self.forgotten.is_empty() {
                self.forgotten.start = oldest;
            }
            self.forgotten.end = oldest + 1;
        }
        self.known.push((sequence, raw));
    }

    /// Returns an error for the first refused command in `span`, and removes all refused commands
    /// in `span` from the list.
    pub(crate) fn take(&mut self, span: &Range<u64>) -> Result<(), QueueError> {
        let overlaps = self.forgotten.start < span.end && span.start < self.forgotten.end;
        let first =
            self.known.iter().find(|(sequence, _)| span.contains(sequence)).map(|(_, raw)| *raw);
        self.known.retain(|(sequence, _)| !span.contains(sequence));
        match first {
            Some(raw) => Err(QueueError::Stalled(Command::decode(raw).ok())),
            None if overlaps => Err(QueueError::Stalled(None)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: RawCommand = [0x05, 0, 0, 0];

    #[test]
    fn a_fault_is_reported_once_to_the_span_that_contains_it() {
        let mut faults = Faults::new().unwrap();
        faults.push(7, RAW);
        assert_eq!(faults.take(&(0..7)), Ok(()));
        assert_eq!(faults.take(&(8..9)), Ok(()));
        assert_eq!(faults.take(&(5..9)), Err(QueueError::Stalled(Command::decode(RAW).ok())));
        assert_eq!(faults.take(&(5..9)), Ok(()));
    }

    #[test]
    fn a_fault_dropped_from_the_full_record_is_still_reported() {
        let mut faults = Faults::new().unwrap();
        for sequence in 0..100 {
            faults.push(sequence, RAW);
        }
        assert_eq!(faults.take(&(3..4)), Err(QueueError::Stalled(None)));
        assert_eq!(faults.take(&(99..100)), Err(QueueError::Stalled(Command::decode(RAW).ok())));
        assert_eq!(faults.take(&(100..200)), Ok(()));
    }
}
