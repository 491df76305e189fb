//! Counts and logs guest errors for the virtual machine monitor to read. The model never returns
//! guest errors to the VMM as Rust errors. The log stores only a bounded number of errors of each
//! kind, regardless of how many errors the guest causes.

mod command_fault;
mod encoding;
mod fault;
mod queue;

pub use command_fault::{CommandFault, CommandFaultLog, FailedCommand};
pub use fault::{FaultDetail, FaultReason, GuestFault, RegisterFrame};

use crate::sync::{AtomicU64, Ordering::SeqCst};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_boxed_slice};
use queue::{FaultQueue, KEPT};

/// Guest error log, which counts the errors of each kind and stores the first few of each kind
/// since it was last read. A fault that the guest repeats endlessly doesn't displace faults of
/// other kinds.
#[derive(Debug)]
pub struct EventLog {
    /// Fault count for each kind.
    counts: [AtomicU64; FaultReason::ALL.len()],
    /// Queues for the kinds of fault that are possible on this machine.
    queues: Box<[FaultQueue]>,
    /// Number of faults that were queued. A fault's number orders it among all kinds.
    numbered: AtomicU64,
    /// Number of faults that were written to a queue.
    stored: AtomicU64,
    /// The value of `stored` at the last drain.
    drained: AtomicU64,
}

impl EventLog {
    /// Creates an empty log. `kinds` lists the faults that are possible on this machine, and must
    /// be a prefix of [`FaultReason::ALL`].
    pub(crate) fn new(kinds: &[FaultReason]) -> Result<Self, OutOfMemory> {
        let counts = [const { AtomicU64::new(0) }; FaultReason::ALL.len()];
        let [numbered, stored, drained] = [const { AtomicU64::new(0) }; 3];
        let queues = try_boxed_slice(kinds.iter().map(|_| FaultQueue::new()))?;
        Ok(Self { counts, queues, numbered, stored, drained })
    }

    /// Creates a log for a machine on which every kind of fault is possible.
    #[cfg(test)]
    pub(crate) fn of_all_kinds() -> Self {
        Self::new(&FaultReason::ALL).unwrap()
    }

    /// Counts a fault, and stores it unless the queue for faults of its kind is full. Lock-free.
    /// Context: any.
    pub(crate) fn record(&self, fault: GuestFault) {
        self.record_with(fault.reason, || fault);
    }

    /// Records a fault of this kind like [`record`](Self::record). A fault that is not stored costs
    /// one locked operation, and `fault` isn't called, so endless faults cost the host little.
    #[inline]
    pub(crate) fn record_with(&self, reason: FaultReason, fault: impl FnOnce() -> GuestFault) {
        let kind = reason as usize;
        if let Some(count) = self.counts.get(kind) {
            count.fetch_add(1, SeqCst);
        }
        if let Some(queue) = self.queues.get(kind).filter(|queue| !queue.is_full()) {
            self.store(queue, &fault());
        }
    }

    #[cold]
    #[inline(never)]
    fn store(&self, queue: &FaultQueue, fault: &GuestFault) {
        if queue.push(|| self.numbered.fetch_add(1, SeqCst), fault) {
            self.stored.fetch_add(1, SeqCst);
        }
    }

    /// Returns the number of faults of this kind since the log was created.
    pub fn count(&self, reason: FaultReason) -> u64 {
        self.counts.get(reason as usize).map_or(0, |count| count.load(SeqCst))
    }

    /// Returns the number of faults of all kinds since the log was created.
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(SeqCst)).sum()
    }

    /// Removes the faults recorded since the last call, and passes them to `each`, oldest first. If
    /// there are no new faults, a call costs two atomic loads, so a VMM may call it on every exit.
    #[inline]
    pub fn drain(&self, each: impl FnMut(GuestFault)) {
        let stored = self.stored.load(SeqCst);
        if self.drained.load(SeqCst) != stored {
            self.drain_kinds(each);
            self.drained.store(stored, SeqCst);
        }
    }

    #[cold]
    fn drain_kinds(&self, mut each: impl FnMut(GuestFault)) {
        for _ in 0..FaultReason::ALL.len() * KEPT {
            let queues = FaultReason::ALL.iter().zip(&self.queues);
            let kept = queues.filter_map(|kind| Some((kind.1.oldest()?, kind)));
            let Some((_, (reason, queue))) = kept.min_by_key(|(number, _)| *number) else { return };
            if let Some(fault) = queue.pop(*reason) {
                each(fault);
            }
        }
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
        let events = EventLog::of_all_kinds();
        let storm = FaultReason::UnmappedEvent;

        (0..1000).for_each(|number| events.record(fault(storm, number)));
        events.record(fault(FaultReason::UnalignedQueue, 1000));

        let kept = (0..KEPT as u64).map(|number| fault(storm, number));
        let expected = kept.chain([fault(FaultReason::UnalignedQueue, 1000)]);
        assert_eq!(drained(&events), expected.collect::<Vec<_>>());
        assert_eq!((events.count(storm), events.total()), (1000, 1001));
    }

    #[test]
    fn faults_of_all_kinds_are_read_in_their_order() {
        let events = EventLog::of_all_kinds();
        let reasons = FaultReason::ALL.into_iter().rev().chain(FaultReason::ALL);
        let faults: Vec<_> = reasons.zip(0..).map(|(reason, at)| fault(reason, at)).collect();

        faults.iter().copied().for_each(|fault| events.record(fault));

        assert_eq!(drained(&events), faults);
        assert!(FaultReason::ALL.iter().all(|reason| events.count(*reason) == 2));
    }

    #[test]
    fn fault_kinds_without_lpis_precede_all_others() {
        assert!(FaultReason::ALL.starts_with(&FaultReason::WITHOUT_LPIS));
    }

    #[test]
    fn reading_the_faults_makes_room_for_new_ones() {
        let events = EventLog::of_all_kinds();
        for round in 0..3 {
            let faults: Vec<_> =
                (0..KEPT as u64).map(|at| fault(FaultReason::Budget, round << 8 | at)).collect();
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
