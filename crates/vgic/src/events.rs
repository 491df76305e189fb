//! The guest's mistakes, counted and kept for the virtual machine monitor to read. They are never
//! an error to it, and a bounded number is kept, however many the guest makes.

use crate::sync::{AtomicU64, Ordering::SeqCst};
use core::cmp::Ordering;
use core::fmt;

/// The kind of a mistake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum FaultReason {
    /// An offset at which the frame has no register.
    UnknownRegister,
    /// A width or alignment that the register does not take.
    AccessWidth,
    /// A write-only register was read or a read-only one written.
    AccessDirection,
    /// A register names an interrupt that does not exist.
    NoSuchInterrupt,
    /// LPI tables were changed while LPIs are enabled.
    LpiTablesInUse,
    /// An LPI table is too small, or not in memory.
    LpiTable,
    /// An ITS table or command queue is not in memory or makes no sense.
    ItsTable,
    /// An ITS command failed.
    ItsCommand,
    /// A message named an event that is not mapped, or whose collection is not.
    UnmappedMessage,
    /// A message named a mapped event, while the ITS or LPIs at its redistributor were disabled. Or
    /// the event's LPI is beyond the redistributor's tables.
    DisabledMessage,
    /// More was asked for than the model's memory budget allows.
    Budget,
    /// The heap has no memory left for what the guest asked for. The address is 0 where that is in
    /// progress; it goes on when the guest polls for its end, or by
    /// [`Vgic::poll`](crate::Vgic::poll).
    OutOfMemory,
}

impl FaultReason {
    pub(crate) const ALL: [Self; 12] = [
        Self::UnknownRegister,
        Self::AccessWidth,
        Self::AccessDirection,
        Self::NoSuchInterrupt,
        Self::LpiTablesInUse,
        Self::LpiTable,
        Self::ItsTable,
        Self::ItsCommand,
        Self::UnmappedMessage,
        Self::DisabledMessage,
        Self::Budget,
        Self::OutOfMemory,
    ];
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownRegister => "no register at this address",
            Self::AccessWidth => "width or alignment not supported by the register",
            Self::AccessDirection => "read of a write-only or write of a read-only register",
            Self::NoSuchInterrupt => "no such interrupt",
            Self::LpiTablesInUse => "LPI tables changed while LPIs are enabled",
            Self::LpiTable => "LPI table too small or not in memory",
            Self::ItsTable => "ITS table or command queue not in memory or malformed",
            Self::ItsCommand => "ITS command failed",
            Self::UnmappedMessage => "message without a mapping",
            Self::DisabledMessage => "message while its ITS or LPI is disabled",
            Self::Budget => "more than the model's budget allows",
            Self::OutOfMemory => "the heap has no memory left for it",
        })
    }
}

/// One mistake of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestFault {
    /// The kind.
    pub reason: FaultReason,
    /// The guest physical address of the register or table; for a message, that of the doorbell.
    pub address: u64,
    /// The value written, the INTID, or the ITS command error code; 0 if there is none. Of a
    /// message, the DeviceID in the upper half and the EventID in the lower.
    pub detail: u64,
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest fault at {:#x}: {} ({:#x})", self.address, self.reason, self.detail)
    }
}

/// Number of faults kept with their details until they are read; later ones are only counted.
pub(crate) const QUEUED: usize = 32;

/// The guest's mistakes so far: a count of each kind, and the first few since they were last read.
#[derive(Debug)]
pub struct Events {
    counts: [AtomicU64; FaultReason::ALL.len()],
    queue: FaultQueue,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// No mistakes yet.
    pub(crate) const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; FaultReason::ALL.len()],
            queue: FaultQueue::new(),
        }
    }

    /// Counts a fault, and keeps it if there is room. Lock-free; any thread.
    pub(crate) fn record(&self, fault: GuestFault) {
        if let Some(count) = self.counts.get(fault.reason as usize) {
            count.fetch_add(1, SeqCst);
        }
        self.queue.push(fault);
    }

    /// Counts the faults of this kind so far.
    pub fn count(&self, reason: FaultReason) -> u64 {
        self.counts.get(reason as usize).map_or(0, |count| count.load(SeqCst))
    }

    /// Counts the faults of any kind so far.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(SeqCst)).sum()
    }

    /// Hands out the faults kept since the last call, oldest first, and makes room for new ones.
    pub fn drain(&self, each: impl FnMut(GuestFault)) {
        (0..QUEUED).map_while(|_| self.queue.pop()).for_each(each);
    }
}

/// The faults that are kept: a bounded queue for many writers and readers, none of whom waits.
#[derive(Debug)]
struct FaultQueue {
    cells: [FaultCell; QUEUED],
    /// Number of faults ever pushed.
    pushed: AtomicU64,
    /// Number of faults ever popped.
    popped: AtomicU64,
}

/// A fault's cell. Its turn is `n` when the `n`th push may write here, `n + 1` when the `n`th pop
/// may read, and after that `n + QUEUED`.
#[derive(Debug)]
struct FaultCell {
    turn: AtomicU64,
    reason: AtomicU64,
    address: AtomicU64,
    detail: AtomicU64,
}

impl FaultQueue {
    const fn new() -> Self {
        let mut cells = [const { FaultCell::with_turn(0) }; QUEUED];
        let mut turn = 0;
        while turn < QUEUED {
            cells[turn] = FaultCell::with_turn(turn as u64);
            turn += 1;
        }
        Self { cells, pushed: AtomicU64::new(0), popped: AtomicU64::new(0) }
    }

    fn cell(&self, number: u64) -> &FaultCell {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the remainder is less than the number of cells"
        )]
        let index = (number % QUEUED as u64) as usize;
        &self.cells[index]
    }

    /// Keeps a fault, or nothing if there is no room.
    fn push(&self, fault: GuestFault) {
        let mut number = self.pushed.load(SeqCst);
        loop {
            let cell = self.cell(number);
            match cell.turn.load(SeqCst).cmp(&number) {
                Ordering::Less => return,
                Ordering::Equal => {
                    match self.pushed.compare_exchange(number, number + 1, SeqCst, SeqCst) {
                        Ok(_) => return cell.write(fault, number + 1),
                        Err(now) => number = now,
                    }
                }
                Ordering::Greater => number = self.pushed.load(SeqCst),
            }
        }
    }

    /// The oldest fault; `None` if there is none, or it is just being written.
    fn pop(&self) -> Option<GuestFault> {
        let mut number = self.popped.load(SeqCst);
        loop {
            let cell = self.cell(number);
            match cell.turn.load(SeqCst).cmp(&(number + 1)) {
                Ordering::Less => return None,
                Ordering::Equal => {
                    match self.popped.compare_exchange(number, number + 1, SeqCst, SeqCst) {
                        Ok(_) => return Some(cell.read(number + QUEUED as u64)),
                        Err(now) => number = now,
                    }
                }
                Ordering::Greater => number = self.popped.load(SeqCst),
            }
        }
    }
}

impl FaultCell {
    const fn with_turn(turn: u64) -> Self {
        Self {
            turn: AtomicU64::new(turn),
            reason: AtomicU64::new(0),
            address: AtomicU64::new(0),
            detail: AtomicU64::new(0),
        }
    }

    fn write(&self, GuestFault { reason, address, detail }: GuestFault, next: u64) {
        self.reason.store(reason as u64, SeqCst);
        self.address.store(address, SeqCst);
        self.detail.store(detail, SeqCst);
        self.turn.store(next, SeqCst);
    }

    fn read(&self, next: u64) -> GuestFault {
        let reason = usize::try_from(self.reason.load(SeqCst)).unwrap_or(0);
        let reason = FaultReason::ALL.get(reason).copied().unwrap_or(FaultReason::UnknownRegister);
        let fault = GuestFault {
            reason,
            address: self.address.load(SeqCst),
            detail: self.detail.load(SeqCst),
        };
        self.turn.store(next, SeqCst);
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn fault(address: u64) -> GuestFault {
        GuestFault { reason: FaultReason::UnknownRegister, address, detail: 0 }
    }

    #[test]
    fn a_storm_of_faults_is_counted_in_full() {
        let events = Events::new();

        for address in 0..1000 {
            events.record(fault(address));
        }

        let mut drained = Vec::new();
        events.drain(|fault| drained.push(fault.address));
        assert_eq!(events.count(FaultReason::UnknownRegister), 1000);
        assert_eq!(drained, (0..QUEUED as u64).collect::<Vec<_>>());
    }

    #[test]
    fn every_reason_is_counted_and_kept_as_itself() {
        let events = Events::new();
        for reason in FaultReason::ALL {
            events.record(GuestFault { reason, address: 1, detail: 2 });
        }
        let mut drained = Vec::new();
        events.drain(|fault| drained.push(fault.reason));
        assert_eq!(drained, FaultReason::ALL);
        assert!(FaultReason::ALL.iter().all(|reason| events.count(*reason) == 1));
    }

    #[test]
    fn reading_the_faults_makes_room_for_new_ones() {
        let events = Events::new();
        events.record(fault(1));
        events.drain(drop);

        events.record(fault(2));

        let mut drained = Vec::new();
        events.drain(|fault| drained.push(fault.address));
        assert_eq!(drained, [2]);
    }
}
