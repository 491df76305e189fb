//! Judged by the devices: what each vector sent and what its handler saw, and whether it saw it where it should.
//!
//! A message carries a sequence number in memory: the device stores it, notes the time, and sends. Time is a counter
//! that every event advances. For each CPU the ledger knows until when it was a possible target of the vector: *open*
//! while an operation that may lead there is under way or it is the target, closed when the operation that led away
//! returned. A run on a CPU is right if the oldest message that was unhandled when this CPU went to look for interrupts
//! was sent before the CPU was closed. (Not: when the handler ran. Between acknowledging and running, the CPU may be
//! off its processor for long, while another CPU handles a later message.)

use crate::lock::lock;
use crate::ram::Ram;
use msi_types::Cpu;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Messages that the books look back at. What is older than half of it is settled or out of sight.
const WINDOW: u64 = 1024;
/// How far a device runs ahead of its handler: further, its queue is full.
const AHEAD: u64 = WINDOW / 2;

/// A CPU that is still a possible target.
const OPEN: u64 = u64::MAX;

/// Logical time.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// Time goes on. The time of this event, and of no other.
    pub(crate) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The time of the last event.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What happened to one vector.
#[derive(Debug)]
pub(crate) struct Ledger {
    clock: Arc<Clock>,
    ram: Arc<Ram>,
    /// Where in RAM the sequence number is.
    mailbox: u64,
    /// Messages that the device sent.
    sent: AtomicU64,
    /// The highest number that a handler saw.
    seen: AtomicU64,
    wrong_cpu: AtomicU64,
    /// When a message was sent, and when it was first seen.
    sent_at: Times,
    seen_at: Times,
    /// By CPU.
    runs: Box<[AtomicU64]>,
    closed_at: Box<[AtomicU64]>,
    /// When the CPU went to look for what its last run handled.
    looked_at: Box<[AtomicU64]>,
    /// What is pending at a CPU stays there when the vector moves.
    stays: AtomicBool,
    /// Operations under way that may change the target.
    operations: Mutex<u32>,
}

/// Times of the last [`WINDOW`] messages.
#[derive(Debug)]
struct Times(Box<[AtomicU64]>);

impl Times {
    fn new() -> Self {
        Self((0..WINDOW).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, message: u64, time: u64) {
        if let Some(place) = self.place(message) {
            place.store(time, Ordering::SeqCst);
        }
    }

    fn get(&self, message: u64) -> u64 {
        self.place(message).map_or(0, |place| place.load(Ordering::SeqCst))
    }

    fn place(&self, message: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(message % WINDOW).ok()?)
    }
}

/// A vector's sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sums {
    pub(crate) sent: u64,
    pub(crate) runs: u64,
    pub(crate) wrong_cpu: u64,
    pub(crate) per_cpu: Vec<u64>,
}

impl Ledger {
    /// On `cpus` CPUs, all of them possible targets. The mailbox is 8 bytes of RAM.
    pub(crate) fn new(clock: Arc<Clock>, ram: Arc<Ram>, mailbox: u64, cpus: usize) -> Self {
        Self {
            clock,
            ram,
            mailbox,
            sent: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            wrong_cpu: AtomicU64::new(0),
            sent_at: Times::new(),
            seen_at: Times::new(),
            runs: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            closed_at: (0..cpus).map(|_| AtomicU64::new(OPEN)).collect(),
            looked_at: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            stays: AtomicBool::new(false),
            operations: Mutex::new(0),
        }
    }

    /// The device sends its next message by `fire`, which says whether it could. False if it could not, or if too many
    /// messages wait for the handler. One thread at a time.
    pub(crate) fn send(&self, fire: impl FnOnce() -> bool) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        if sent.saturating_sub(self.seen.load(Ordering::Acquire)) >= AHEAD {
            return false;
        }
        self.sent_at.set(sent + 1, self.clock.tick());
        self.ram.device_store64(self.mailbox, sent + 1);
        if !fire() {
            // Not sent: the next message takes the number.
            return false;
        }
        self.sent.store(sent + 1, Ordering::Release);
        true
    }

    /// The handler runs on `cpu`, which looked for interrupts at `looked_at`. Never beside itself.
    pub(crate) fn handle(&self, cpu: Cpu, looked_at: u64) {
        let number = self.ram.device_load64(self.mailbox).unwrap_or(0);
        let seen = self.seen.load(Ordering::Relaxed);
        if let Some(runs) = self.runs.get(cpu.index()) {
            runs.fetch_add(1, Ordering::Relaxed);
        }
        let oldest = self.oldest_unhandled(seen, number, looked_at);
        let looked_before =
            self.looked_at.get(cpu.index()).map_or(0, |at| at.swap(looked_at, Ordering::SeqCst));
        let left = self.stays.load(Ordering::Relaxed) && self.was_left(cpu, number, looked_before);
        if !left && oldest.is_some_and(|oldest| !self.is_right(cpu, oldest)) {
            self.wrong_cpu.fetch_add(1, Ordering::Relaxed);
        }
        if number > seen {
            let now = self.clock.tick();
            for handled in seen + 1..=number {
                self.seen_at.set(handled, now);
            }
            self.seen.store(number, Ordering::Release);
        }
    }

    /// From now on what is pending at a CPU stays there when the vector moves, as direct LPIs do: another CPU may have
    /// handled a later message when it is taken.
    pub(crate) fn pending_stays(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Was [`pending_stays`](Self::pending_stays) said?
    pub(crate) fn does_pending_stay(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// An operation begins that may make a CPU the target: `to`, or whichever.
    pub(crate) fn begin_operation(&self, to: Option<Cpu>) {
        let mut operations = lock(&self.operations);
        *operations += 1;
        for (closed_at, cpu) in self.closed_at.iter().zip(0..) {
            if to.is_none_or(|to| to == Cpu::new(cpu)) {
                closed_at.store(OPEN, Ordering::SeqCst);
            }
        }
    }

    /// It returned. Once no other is under way, only what `target` then says remains a possible target.
    pub(crate) fn end_operation(&self, target: impl FnOnce() -> Option<Cpu>) {
        let mut operations = lock(&self.operations);
        *operations = operations.saturating_sub(1);
        if *operations != 0 {
            return;
        }
        let target = target();
        let now = self.clock.tick();
        for (closed_at, cpu) in self.closed_at.iter().zip(0..) {
            if target != Some(Cpu::new(cpu)) && closed_at.load(Ordering::SeqCst) == OPEN {
                closed_at.store(now, Ordering::SeqCst);
            }
        }
    }

    /// The device was taken away: what it sent and nobody saw is nobody's fault.
    pub(crate) fn abandon(&self) {
        self.seen.fetch_max(self.sent.load(Ordering::Acquire), Ordering::AcqRel);
    }

    /// Did the handler see the last message?
    pub(crate) fn is_settled(&self) -> bool {
        self.seen.load(Ordering::Acquire) >= self.sent.load(Ordering::Acquire)
    }

    /// Messages sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn sums(&self) -> Sums {
        let per_cpu: Vec<_> = self.runs.iter().map(|runs| runs.load(Ordering::Acquire)).collect();
        Sums {
            sent: self.sent(),
            runs: per_cpu.iter().sum(),
            wrong_cpu: self.wrong_cpu.load(Ordering::Acquire),
            per_cpu,
        }
    }

    /// The oldest message that nobody had handled at `looked_at`; the last one, if all were: it arrived after an earlier
    /// one's handler had seen its number. `None` if it is out of sight.
    fn oldest_unhandled(&self, seen: u64, number: u64, looked_at: u64) -> Option<u64> {
        let mut oldest = number.min(seen + 1);
        while oldest > 1 && self.seen_at.get(oldest - 1) > looked_at {
            oldest -= 1;
            if number - oldest >= AHEAD {
                return None;
            }
        }
        Some(oldest)
    }

    /// Was a message sent before `cpu` was closed, and since it last went to look? That one may be pending there still.
    fn was_left(&self, cpu: Cpu, number: u64, looked_before: u64) -> bool {
        let sight = number.saturating_sub(AHEAD).max(1)..=number;
        let sent = sight.rev().find(|message| self.is_right(cpu, *message));
        sent.is_some_and(|message| self.sent_at.get(message) >= looked_before)
    }

    /// Was `message` sent before `cpu` was closed? There is no message 0.
    fn is_right(&self, cpu: Cpu, message: u64) -> bool {
        let closed_at =
            self.closed_at.get(cpu.index()).map_or(0, |closed_at| closed_at.load(Ordering::SeqCst));
        message != 0 && self.sent_at.get(message) < closed_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::Caches;
    use gic_firmware::Region;

    fn ledger() -> Ledger {
        let ram = Arc::new(Ram::new(&[Region::new(0, 0x1_0000).unwrap()], Caches::Snooped));
        let ledger = Ledger::new(Arc::default(), ram, 0, 3);
        settle_on(&ledger, 0);
        ledger
    }

    fn settle_on(ledger: &Ledger, cpu: u32) {
        ledger.begin_operation(Some(Cpu::new(cpu)));
        ledger.end_operation(|| Some(Cpu::new(cpu)));
    }

    fn wrong(ledger: &Ledger) -> u64 {
        ledger.sums().wrong_cpu
    }

    #[test]
    fn a_run_at_the_target_is_right() {
        let ledger = ledger();
        ledger.send(|| true);
        ledger.handle(Cpu::new(0), ledger.clock.now());
        assert_eq!((wrong(&ledger), ledger.is_settled()), (0, true));
    }

    #[test]
    fn a_run_at_a_cpu_that_was_left_before_the_message_was_sent_is_wrong() {
        let ledger = ledger();
        settle_on(&ledger, 1);
        ledger.send(|| true);
        ledger.handle(Cpu::new(0), ledger.clock.now());
        assert_eq!(wrong(&ledger), 1);
    }

    #[test]
    fn a_message_sent_before_the_move_may_still_run_at_the_old_cpu() {
        let ledger = ledger();
        ledger.send(|| true);
        settle_on(&ledger, 1);
        ledger.handle(Cpu::new(0), ledger.clock.now());
        assert_eq!(wrong(&ledger), 0);
    }

    #[test]
    fn while_an_operation_is_under_way_every_cpu_that_it_may_lead_to_is_right() {
        let ledger = ledger();
        ledger.begin_operation(None);
        ledger.send(|| true);
        ledger.handle(Cpu::new(2), ledger.clock.now());
        ledger.end_operation(|| Some(Cpu::new(1)));
        assert_eq!(wrong(&ledger), 0);
    }

    #[test]
    fn an_operation_does_not_excuse_a_cpu_that_was_left_before_it() {
        let ledger = ledger();
        settle_on(&ledger, 1);
        ledger.send(|| true);
        settle_on(&ledger, 2);
        ledger.handle(Cpu::new(0), ledger.clock.now());
        assert_eq!(wrong(&ledger), 1);
    }

    #[test]
    fn a_second_run_at_the_old_cpu_for_a_handled_message_is_wrong() {
        let ledger = ledger();
        ledger.send(|| true);
        settle_on(&ledger, 1);
        ledger.handle(Cpu::new(1), ledger.clock.now());
        ledger.send(|| true);
        ledger.handle(Cpu::new(0), ledger.clock.now());
        assert_eq!(wrong(&ledger), 1);
    }

    #[test]
    fn a_cpu_that_acknowledged_early_and_runs_late_is_right() {
        let ledger = ledger();
        ledger.send(|| true);
        let looked_at = ledger.clock.now();
        settle_on(&ledger, 1);
        ledger.send(|| true);
        ledger.handle(Cpu::new(1), ledger.clock.now());
        ledger.handle(Cpu::new(0), looked_at);
        assert_eq!(wrong(&ledger), 0);
    }

    #[test]
    fn the_last_of_overlapping_operations_decides_the_target() {
        let ledger = ledger();
        ledger.begin_operation(Some(Cpu::new(1)));
        ledger.begin_operation(Some(Cpu::new(2)));
        ledger.end_operation(|| panic!("the other operation may still move it"));
        ledger.end_operation(|| Some(Cpu::new(2)));
        ledger.send(|| true);
        ledger.handle(Cpu::new(2), ledger.clock.now());
        ledger.send(|| true);
        ledger.handle(Cpu::new(1), ledger.clock.now());
        assert_eq!(wrong(&ledger), 1);
    }

    #[test]
    fn a_message_that_nobody_saw_is_unsettled() {
        let ledger = ledger();
        ledger.send(|| true);
        ledger.handle(Cpu::new(0), ledger.clock.now());
        ledger.send(|| true);
        assert!(!ledger.is_settled());
    }

    #[test]
    fn a_message_that_could_not_be_sent_does_not_count() {
        let ledger = ledger();
        ledger.send(|| false);
        assert_eq!((ledger.sent(), ledger.is_settled()), (0, true));
    }

    #[test]
    fn a_device_waits_for_its_handler_when_it_is_far_ahead() {
        let ledger = ledger();
        let sent = (0..2 * AHEAD).take_while(|_| ledger.send(|| true)).count();
        assert_eq!(u64::try_from(sent), Ok(AHEAD));
        ledger.handle(Cpu::new(0), ledger.clock.now());
        assert!(ledger.send(|| true));
    }

    #[test]
    fn books_that_were_written_over_accuse_nobody() {
        let ledger = ledger();
        ledger.send(|| true);
        let looked_at = ledger.clock.now();
        settle_on(&ledger, 1);
        for _ in 0..3 * WINDOW {
            ledger.send(|| true);
            ledger.handle(Cpu::new(1), ledger.clock.now());
        }
        ledger.handle(Cpu::new(0), looked_at);
        assert_eq!(wrong(&ledger), 0);
    }
}
