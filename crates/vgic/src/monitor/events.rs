//! Counts and logs guest errors for the virtual machine monitor to read. The model never returns
//! guest errors to the VMM as Rust errors. The log stores only a bounded number of errors of each
//! kind, regardless of how many errors the guest causes.

mod command_fault;
mod fault;

pub use command_fault::{CommandFault, CommandFaultLog, FailedCommand};
pub use fault::{FaultDetail, FaultReason, GuestFault, RegisterFrame};

use crate::sync::lock::Mutex;
use crate::sync::{AtomicU64, Ordering::SeqCst};
use alloc::collections::VecDeque;
use doorbell_fallible::OutOfMemory;

/// Number of faults of one kind that are stored until the VMM reads them. Later faults are counted,
/// but not stored.
const KEPT: u8 = 4;
/// Number of times that a thread tries to store a fault while another thread holds the lock.
const ATTEMPTS: u32 = 64;

/// Guest error log, which counts the errors of each kind and stores the first few of each kind
/// since it was last read. A fault that the guest repeats endlessly doesn't displace faults of
/// other kinds.
pub struct EventLog {
    /// Fault count for each kind.
    counts: [AtomicU64; FaultReason::COUNT],
    /// Bit n is set while [`KEPT`] faults of the nth kind are stored.
    full: AtomicU64,
    /// Number of stored faults.
    len: AtomicU64,
    kept: Mutex<Kept>,
}

/// Stored faults, oldest first.
struct Kept {
    faults: VecDeque<GuestFault>,
    of_kind: [u8; FaultReason::COUNT],
}

impl EventLog {
    /// Creates an empty log for a machine on which this number of kinds is possible.
    pub(crate) fn new(kinds: usize) -> Result<Self, OutOfMemory> {
        let mut faults = VecDeque::new();
        faults.try_reserve_exact(kinds * usize::from(KEPT))?;
        Ok(Self {
            counts: [const { AtomicU64::new(0) }; FaultReason::COUNT],
            full: AtomicU64::new(0),
            len: AtomicU64::new(0),
            kept: Mutex::new(Kept { faults, of_kind: [0; FaultReason::COUNT] }),
        })
    }

    /// Counts a fault, and stores it unless the log is full for faults of its kind. Never waits: if
    /// another thread keeps the log locked, the fault is only counted. Context: any.
    pub(crate) fn record(&self, fault: GuestFault) {
        self.record_with(fault.reason, || fault);
    }

    /// Records a fault of this kind like [`record`](Self::record). A fault that is not stored costs
    /// one locked operation, and `fault` isn't called, so endless faults cost the host little.
    #[inline]
    pub(crate) fn record_with(&self, reason: FaultReason, fault: impl FnOnce() -> GuestFault) {
        self.counts[reason as usize].fetch_add(1, SeqCst);
        if self.full.load(SeqCst) & 1 << reason as u32 == 0 {
            self.store(fault());
        }
    }

    #[cold]
    #[inline(never)]
    fn store(&self, fault: GuestFault) {
        for _ in 0..ATTEMPTS {
            let Some(mut kept) = self.kept.try_lock() else {
                core::hint::spin_loop();
                continue;
            };
            let kind = fault.reason as usize;
            if kept.of_kind[kind] < KEPT {
                kept.of_kind[kind] += 1;
                kept.faults.push_back(fault);
                self.note(&kept);
            }
            return;
        }
    }

    fn note(&self, kept: &Kept) {
        let full = kept.of_kind.iter().rev().fold(0, |bits, of| bits << 1 | u64::from(*of == KEPT));
        self.full.store(full, SeqCst);
        self.len.store(kept.faults.len() as u64, SeqCst);
    }

    /// Returns the number of faults of this kind since the log was created.
    pub fn count(&self, reason: FaultReason) -> u64 {
        self.counts[reason as usize].load(SeqCst)
    }

    /// Returns the number of faults of all kinds since the log was created.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(SeqCst)).sum()
    }

    /// Removes the faults recorded since the last call, and passes them to `each`, oldest first. If
    /// there are no new faults, a call costs one atomic load, so a VMM may call it on every exit.
    #[inline]
    pub fn drain(&self, each: impl FnMut(GuestFault)) {
        let stored = self.len.load(SeqCst);
        (0..stored).map_while(|_| self.pop()).for_each(each);
    }

    #[cold]
    fn pop(&self) -> Option<GuestFault> {
        let mut kept = self.kept.lock();
        let fault = kept.faults.pop_front()?;
        kept.of_kind[fault.reason as usize] -= 1;
        self.note(&kept);
        Some(fault)
    }
}

impl core::fmt::Debug for EventLog {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EventLog").field("total", &self.total()).finish_non_exhaustive()
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;
    use gic_arch::its::UnknownOpcode;
    use gic_arch::{IntId, gicd, gicr, gits};
    use msi_types::{Cpu, DeviceId, EventId};

    const ITS: RegisterFrame = RegisterFrame::Its(0x808_0000);

    fn fault(reason: FaultReason, value: u64) -> GuestFault {
        GuestFault::new(reason, (ITS, 0), FaultDetail::Value(value))
    }

    fn drained(events: &EventLog) -> Vec<GuestFault> {
        let mut faults = Vec::new();
        events.drain(|fault| faults.push(fault));
        faults
    }

    #[test]
    fn many_faults_of_one_kind_hide_no_fault_of_another_kind() {
        let events = EventLog::new(FaultReason::COUNT).unwrap();
        let storm = FaultReason::UnmappedEvent;

        (0..1000).for_each(|number| events.record(fault(storm, number)));
        events.record(fault(FaultReason::UnalignedQueue, 1000));

        let kept = (0..u64::from(KEPT)).map(|number| fault(storm, number));
        let expected = kept.chain([fault(FaultReason::UnalignedQueue, 1000)]);
        assert_eq!(drained(&events), expected.collect::<Vec<_>>());
        assert_eq!((events.count(storm), events.total()), (1000, 1001));
    }

    #[test]
    fn faults_of_several_kinds_are_read_in_their_order() {
        let events = EventLog::new(FaultReason::COUNT).unwrap();
        let reasons = [FaultReason::OutOfMemory, FaultReason::Budget, FaultReason::UnknownRegister];
        let faults: Vec<_> =
            reasons.into_iter().cycle().zip(0..6).map(|(reason, at)| fault(reason, at)).collect();
        faults.iter().copied().for_each(|fault| events.record(fault));
        assert_eq!(drained(&events), faults);
        assert!(reasons.iter().all(|reason| events.count(*reason) == 2));
    }

    #[test]
    fn reading_the_faults_makes_room_for_new_ones() {
        let events = EventLog::new(FaultReason::COUNT).unwrap();
        for round in 0..3 {
            let faults: Vec<_> = (0..u64::from(KEPT))
                .map(|at| fault(FaultReason::Budget, round << 8 | at))
                .collect();
            faults.iter().copied().for_each(|fault| events.record(fault));
            assert_eq!(drained(&events), faults);
        }
    }

    #[test]
    fn a_fault_displays_its_register_and_cause() {
        let reader = (ITS, gits::CREADR.offset());
        let unknown = CommandFault::Unknown(UnknownOpcode(0));
        let command = FailedCommand { address: 0x6f92_0000, fault: unknown };
        let redistributor = RegisterFrame::Redistributor(0x80c_0000);
        let distributor = RegisterFrame::Distributor(0x800_0000);
        let message = FaultDetail::Message { device: DeviceId::new(8), event: EventId::new(3) };
        for (reason, at, detail, sentence) in [
            (
                FaultReason::ItsCommand,
                reader,
                FaultDetail::Command(command),
                "its@8080000: command at 0x6f920000 (opcode 0x00, unknown): \
                 no physical ITS command has this opcode",
            ),
            (
                FaultReason::UnalignedQueue,
                (ITS, gits::CBASER.offset()),
                FaultDetail::Value(0xb8e0_0000_6f92_2401),
                "its@8080000: GITS_CBASER = 0xb8e000006f922401: \
                 the command queue is not aligned to 64 KiB: bits 15:12 are treated as zero",
            ),
            (
                FaultReason::ItsTable,
                (ITS, 0x108),
                FaultDetail::Memory(0x9000_0000),
                "its@8080000: GITS_BASER1: points outside of guest memory \
                 (no memory at 0x90000000)",
            ),
            (
                FaultReason::SharedPendingTable,
                (redistributor, gicr::PENDBASER.offset()),
                FaultDetail::Redistributor(Cpu::new(0)),
                "gicr@80c0000: GICR_PENDBASER: the pending table overlaps that of another \
                 redistributor whose LPIs are enabled (of vCPU 0)",
            ),
            (
                FaultReason::UnmappedEvent,
                (ITS, gits::TRANSLATER.offset()),
                message,
                "its@8080000: GITS_TRANSLATER: message for an event that MAPTI or MAPI has not \
                 mapped (DeviceID 0x8, EventID 0x3)",
            ),
            (
                FaultReason::NoSuchInterrupt,
                (distributor, gicd::SETSPI_NSR.offset()),
                FaultDetail::Interrupt(IntId::new(900)),
                "gicd@8000000: GICD_SETSPI_NSR: no such interrupt (SPI 900)",
            ),
            (
                FaultReason::UnknownRegister,
                (distributor, 0x20),
                FaultDetail::None,
                "gicd@8000000: offset 0x20: no register at this address",
            ),
        ] {
            assert_eq!(GuestFault::new(reason, at, detail).to_string(), sentence);
        }
    }
}
