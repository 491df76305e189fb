//! What a guest did wrong: counted and rate-limited, for the virtual machine monitor to read. Never an error to it.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::mutex::SpinMutex;

/// What kind of mistake.
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
    /// A message named an event that is not mapped.
    UnmappedMessage,
    /// More was asked for than the model's memory budget allows.
    Budget,
}

impl FaultReason {
    const COUNT: usize = Self::Budget as usize + 1;
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
            Self::Budget => "more than the model's budget allows",
        })
    }
}

/// One mistake of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestFault {
    /// What kind.
    pub reason: FaultReason,
    /// Where: the guest physical address of the register or table; for a message, that of the doorbell.
    pub address: u64,
    /// What: the value written, the INTID, or the ITS command error code; 0 if there is none.
    pub detail: u64,
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "guest fault at {:#x}: {} ({:#x})", self.address, self.reason, self.detail)
    }
}

/// How many faults are kept with their details until they are read; what comes after them is only counted.
const KEPT: usize = 32;

/// The guest's mistakes so far: a count of each kind, and the first few since they were last read.
#[derive(Debug)]
pub struct Events {
    counts: [AtomicU64; FaultReason::COUNT],
    kept: SpinMutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    faults: [Option<GuestFault>; KEPT],
    len: usize,
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
            counts: [const { AtomicU64::new(0) }; FaultReason::COUNT],
            kept: SpinMutex::new(Kept { faults: [None; KEPT], len: 0 }),
        }
    }

    /// Counts a fault, and keeps it if there is room. Never waits: while another thread records or reads, it is
    /// only counted.
    pub(crate) fn record(&self, fault: GuestFault) {
        if let Some(count) = self.counts.get(fault.reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(mut kept) = self.kept.try_lock() {
            let at = kept.len;
            if let Some(place) = kept.faults.get_mut(at) {
                *place = Some(fault);
                kept.len += 1;
            }
        }
    }

    /// How many faults of this kind there were.
    pub fn count(&self, reason: FaultReason) -> u64 {
        self.counts.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many faults of any kind there were.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Hands out the faults kept since the last call, oldest first, and makes room for new ones.
    pub fn drain(&self, mut each: impl FnMut(GuestFault)) {
        let faults = {
            let mut kept = self.kept.lock();
            kept.len = 0;
            core::mem::replace(&mut kept.faults, [None; KEPT])
        };
        faults.into_iter().flatten().for_each(&mut each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    extern crate std;
    use std::vec::Vec;

    fn fault(address: u64) -> GuestFault {
        GuestFault { reason: FaultReason::UnknownRegister, address, detail: 0 }
    }

    #[test]
    fn a_storm_of_faults_is_counted_in_full_but_kept_only_up_to_the_limit() {
        let events = Events::new();

        for address in 0..1000 {
            events.record(fault(address));
        }

        let mut kept = Vec::new();
        events.drain(|fault| kept.push(fault.address));
        assert_eq!(events.count(FaultReason::UnknownRegister), 1000);
        assert_eq!(kept, (0..KEPT as u64).collect::<Vec<_>>());
    }

    #[test]
    fn reading_the_faults_makes_room_for_new_ones() {
        let events = Events::new();
        events.record(fault(1));
        events.drain(drop);

        events.record(fault(2));

        let mut kept = Vec::new();
        events.drain(|fault| kept.push(fault.address));
        assert_eq!(kept, [2]);
    }
}
