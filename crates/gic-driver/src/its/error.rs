//! Errors of an ITS: of its initialization, of operations, and of its command queue.

use crate::lpi::LpiError;
use crate::platform::{GicPlatform, NoTable, TimedOut};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_lock::IrqLock;
use gic_arch::Lpi;
use gic_arch::its::{Command, RawCommand};
use msi_types::{ControllerFault, Cpu, DeviceId, MsiError};

/// Reasons that an ITS was not taken into use. It is left disabled, and all memory was freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The caller's configuration asks for something impossible.
    #[error("its@{base:x}: {reason}")]
    BadConfig {
        /// The ITS's physical base.
        base: u64,
        /// The impossible setting.
        reason: &'static str,
    },
    /// The platform maps nothing there.
    #[error("its@{0:x}: its registers cannot be mapped")]
    Unmappable(u64),
    /// The identification register names another architecture: firmware's description is wrong, or
    /// the block is off.
    #[error("its@{0:x}: no GICv3 or GICv4 ITS answers there")]
    NotAnIts(u64),
    /// The ITS serves virtual LPIs only.
    #[error("its@{0:x}: it has no physical LPIs")]
    NoPhysicalLpis(u64),
    /// The GIC has no LPIs, or direct LPIs use them.
    #[error("its@{base:x}: {reason}")]
    Lpis {
        /// The ITS's physical base.
        base: u64,
        /// The reason.
        reason: LpiError,
    },
    /// The ITS is enabled already, and the caller did not ask to [take it
    /// over](super::IfEnabled::TakeOver).
    #[error("its@{0:x}: it is enabled already: by another driver, firmware or a previous kernel")]
    AlreadyEnabled(u64),
    /// The ITS was left enabled and does not become quiescent: a fault of the hardware.
    #[error("its@{base:x}: {wait}")]
    NotQuiescent {
        /// The ITS's physical base.
        base: u64,
        /// The condition that did not come true.
        wait: TimedOut,
    },
    /// A table register does not take what the architecture says it takes.
    #[error("its@{base:x}: the {table} was refused: {reason}")]
    TableRefused {
        /// The ITS's physical base.
        base: u64,
        /// The table.
        table: &'static str,
        /// The refused setting.
        reason: &'static str,
    },
    /// The platform gave no memory.
    #[error("its@{base:x}: no memory for the {table}")]
    NoMemory {
        /// The ITS's physical base.
        base: u64,
        /// The table that needs it.
        table: &'static str,
    },
    /// The platform placed memory where the ITS cannot use it.
    #[error(
        "its@{base:x}: the platform placed the {table} at {address:#x}: misaligned, too small or \
         out of reach"
    )]
    Misplaced {
        /// The ITS's physical base.
        base: u64,
        /// The table that needs it.
        table: &'static str,
        /// Its physical address.
        address: u64,
    },
    /// The ITS has fewer collections than there are CPUs.
    #[error("its@{base:x}: {limit} collections are too few for {cpus} CPUs")]
    TooFewCollections {
        /// The ITS's physical base.
        base: u64,
        /// CPUs to serve.
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

/// Errors of operations on a running ITS. A failed operation leaves no change behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ItsError {
    /// The DeviceID is beyond what the ITS and its device table can hold.
    #[error("DeviceID {id} does not fit the ITS's {bits} DeviceID bits")]
    DeviceIdOutOfRange {
        /// The DeviceID.
        id: DeviceId,
        /// DeviceID bits that fit.
        bits: u8,
    },
    /// Another requester behind the same DeviceID has it in use, with a table that is too small for
    /// both.
    #[error("DeviceID {0} is attached already, for fewer events")]
    AttachedForFewer(DeviceId),
    /// More events than the ITS gives one device.
    #[error("{wanted} events are more than the {limit} that one device can have")]
    TooManyEvents {
        /// Number asked for.
        wanted: u32,
        /// The limit.
        limit: u32,
    },
    /// The device's events are used up, or no block of this shape is free.
    #[error("no block of {wanted} events is free in a device attached for {limit}")]
    NoEvents {
        /// Number asked for.
        wanted: u16,
        /// Number that the device was attached for.
        limit: u32,
    },
    /// No such block of LPIs is free.
    #[error("no block of {wanted} LPIs is free")]
    NoLpis {
        /// Number asked for.
        wanted: u16,
    },
    /// The CPU has no collection, or it is off.
    #[error("CPU {0} cannot take LPIs: {1}")]
    NotReachable(Cpu, &'static str),
    /// The LPI is not mapped at this ITS.
    #[error("{0} is not mapped at this ITS")]
    NotMapped(Lpi),
    /// The platform gave no memory.
    #[error("no memory for {0}")]
    NoMemory(&'static str),
    /// The platform placed memory where the ITS cannot use it.
    #[error("the platform placed {table} at {address:#x}: misaligned, too small or out of reach")]
    Misplaced {
        /// The table that needs it.
        table: &'static str,
        /// Its physical address.
        address: u64,
    },
    /// A command did not complete, the ITS is suspended, or the caller's attachment or block is
    /// another's.
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

/// Failures of a run of commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum QueueError {
    /// The ITS stopped making progress. The first command that it did not complete, if memory still
    /// resources one.
    Timeout(Option<Command>),
    /// The ITS refused this command; the others of the span were executed.
    Stalled(Option<Command>),
    /// The queue takes no commands: the ITS is suspended.
    Stopped,
}

impl QueueError {
    /// The error as others see it: names the ITS, the command and its object.
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

/// A failure that concerns no command.
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

/// Failures of operations that cannot return one (unmap, detach, mask).
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
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.with(platform, |last| *last = Some(error));
    }

    /// Returns the number of failures, and the last one.
    ///
    /// Context: any.
    pub(crate) fn read<P: GicPlatform>(&self, platform: &P) -> (u32, Option<ItsError>) {
        let last = self.last.with(platform, |last| *last);
        (self.count.load(Ordering::Relaxed), last)
    }
}

/// Number of refused commands that are kept until their callers ask.
const REMEMBERED_FAULTS: usize = 16;

/// Commands that the ITS refused, kept until their callers ask.
#[derive(Debug)]
pub(crate) struct Faults {
    known: Vec<(u64, RawCommand)>,
    /// Covers commands that found no room: a caller that waits for one of these numbers gets an
    /// unspecific failure.
    forgotten: Range<u64>,
}

impl Faults {
    pub(crate) fn new() -> Result<Self, TryReserveError> {
        let mut known = Vec::new();
        known.try_reserve_exact(REMEMBERED_FAULTS)?;
        Ok(Self { known, forgotten: 0..0 })
    }

    pub(crate) fn push(&mut self, sequence: u64, raw: RawCommand) {
        // Sequence numbers only grow, so the first is the oldest.
        if self.known.len() == REMEMBERED_FAULTS {
            let (oldest, _) = self.known.remove(0);
            if self.forgotten.is_empty() {
                self.forgotten.start = oldest;
            }
            self.forgotten.end = oldest + 1;
        }
        self.known.push((sequence, raw));
    }

    /// Reports the first fault in `span`, and removes all of them.
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
    fn fault_is_reported_once_to_its_span() {
        let mut faults = Faults::new().unwrap();
        faults.push(7, RAW);
        assert_eq!(faults.take(&(0..7)), Ok(()));
        assert_eq!(faults.take(&(8..9)), Ok(()));
        assert_eq!(faults.take(&(5..9)), Err(QueueError::Stalled(Command::decode(RAW).ok())));
        assert_eq!(faults.take(&(5..9)), Ok(()));
    }

    #[test]
    fn dropped_fault_is_still_reported() {
        let mut faults = Faults::new().unwrap();
        for sequence in 0..100 {
            faults.push(sequence, RAW);
        }
        assert_eq!(faults.take(&(3..4)), Err(QueueError::Stalled(None)));
        assert_eq!(faults.take(&(99..100)), Err(QueueError::Stalled(Command::decode(RAW).ok())));
        assert_eq!(faults.take(&(100..200)), Ok(()));
    }
}
