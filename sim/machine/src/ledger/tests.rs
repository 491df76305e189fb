//! Tests the ledger with correct histories, and with one example of each fault that it must report.

use super::*;
use doorbell_hardware::ram::Caches;
use gic_driver::direct_lpi::{Resend, ResendObserver, ResendReason};
use gic_firmware::Region;
use msi_types::{HwIrq, HwIrqBlock};
use std::cell::Cell;
use std::num::NonZeroU16;

const CPUS: usize = 3;

/// A vector that targets CPU 0, as seen by its device, its driver and the CPUs.
struct Rig {
    record: VectorRecord,
    routes: RouteTable,
    pending: Pending,
    looked_at: Cell<u64>,
}

const VECTOR: HwIrq = HwIrq::new(8192);

impl Rig {
    fn new(pending: Pending) -> Self {
        let ram = Arc::new(Ram::new(&[Region::new(0, 0x1_0000).unwrap()], Caches::Snooped));
        let clock = Arc::<Clock>::default();
        let record = VectorRecord::new(Arc::clone(&clock), ram, 0, CPUS);
        let routes = RouteTable::new(clock, CPUS);
        let rig = Self { record, routes, pending, looked_at: Cell::default() };
        rig.play("allocation", "allocate");
        rig
    }

    fn route(&self) -> Arc<Route> {
        self.routes.get(VECTOR).unwrap()
    }

    /// Performs the steps of a history. A number is a CPU, except after `send` and in a check.
    fn play(&self, name: &str, steps: &str) {
        self.perform(name, &mut steps.split(", "));
    }

    /// Performs steps up to the end of a message's flight, and returns how it ended.
    fn perform(&self, name: &str, steps: &mut dyn Iterator<Item = &str>) -> SendOutcome {
        while let Some(step) = steps.next() {
            let (verb, number) = step.split_once(' ').unwrap_or((step, ""));
            let cpu = || Cpu::new(number.parse().unwrap());
            let resend = |reason| {
                let resend = Resend { hwirq: VECTOR, cpu: cpu(), reason };
                self.routes.resending(resend);
                self.routes.resent(resend);
            };
            let counts = self.record.counts();
            let check = |count: String| assert_eq!(count, number, "{name}, {:?}", self.pending);
            match verb {
                "send" => (0..number.parse().unwrap_or(1))
                    .for_each(|_| assert!(self.record.send(|| SendOutcome::Sent), "{name}")),
                // The steps that follow take place while the message is in flight.
                "sending" => {
                    let mut left = SendOutcome::Sent;
                    let flight = || {
                        left = self.perform(name, steps);
                        left
                    };
                    assert_eq!(self.record.send(flight), left != SendOutcome::NotSent, "{name}");
                }
                "sent" => return SendOutcome::Sent,
                "held" => return SendOutcome::Held,
                "unsent" => return SendOutcome::NotSent,
                "begin" => self.record.begin_operation(),
                "end" => self.record.end_operation(),
                "free" => self.routes.remove(&HwIrqBlock::new(VECTOR, NonZeroU16::MIN)),
                "abandon" => self.record.abandon(),
                "allocate" => {
                    self.record.begin_operation();
                    self.routes.add(VECTOR, self.pending, Cpu::new(0));
                    self.record.follow(self.route());
                    self.record.end_operation();
                    // No message arrived during the allocation.
                    let looked_at = self.record.clock.now();
                    self.route().judge(Run { cpu: Cpu::new(0), looked_at, number: 0, seen: 0 }, 0);
                }
                "open" => self.route().open(cpu()),
                "settle" => self.route().settle(cpu()),
                "move" => self.play(name, &format!("open {number}, settle {number}")),
                "emptied" => self.routes.emptied(cpu()),
                "look" => self.looked_at.set(self.record.clock.now()),
                "run" => _ = self.record.handle(cpu(), self.record.clock.now()),
                // By a CPU that was descheduled for a long time since the last `look`.
                "run-late" => _ = self.record.handle(cpu(), self.looked_at.get()),
                "looks" => self.routes.looks().begin(cpu(), self.record.clock.now()),
                "looked" => self.routes.looks().end(cpu(), false),
                "dispatch" => self.routes.dispatches(VECTOR).begin(cpu(), self.looked_at.get()),
                "returned" => self.routes.dispatches(VECTOR).end(cpu(), false),
                "defer" => self.routes.dispatches(VECTOR).end(Cpu::new(0), true),
                // The interrupt core resends the vector; the driver knows or guesses that it is
                // pending.
                "resend" => resend(ResendReason::Requested),
                "carry" => resend(ResendReason::Carried),
                "guess" => resend(ResendReason::Unknowable),
                // The numbers of runs on wrong CPUs and of spurious runs.
                "told" => check(format!("{} {}", counts.wrong_cpu, counts.spurious)),
                "late" => check(counts.late.to_string()),
                "unknowable" => check(counts.unknowable.to_string()),
                "messages" => check(counts.sent.to_string()),
                "settled" => assert!(self.record.is_settled(), "{name}"),
                "unsettled" => assert!(!self.record.is_settled(), "{name}"),
                _ => panic!("{name}: {step}"),
            }
        }
        SendOutcome::Sent
    }
}

/// Performs each line of `histories`, which is a name and its steps.
fn play_all(pending: Pending, histories: &str) {
    for history in histories.lines() {
        let (name, steps) = history.split_once(": ").unwrap();
        Rig::new(pending).play(name, steps);
    }
}

const BOTH: [Pending; 2] = [Pending::Travels, Pending::Stays];

const HISTORIES: &str = "\
a run at the target is right: send, run 0, told 0 0, settled
a run at a CPU that never was a target is wrong: send, run 2, told 1 0
a run at a CPU left before the message was sent is wrong: move 1, send, run 0, told 1 0
a message sent before a move may run at the old CPU: send, move 1, run 0, told 0 0
during a move the old CPU is right: open 1, send, run 0, settle 1, told 0 0
during a move the new CPU is right: open 1, send, run 1, settle 1, told 0 0
an abandoned move closes its target: open 1, settle 0, send, run 1, told 1 0
a move does not excuse a CPU left earlier: move 1, send, move 2, run 0, told 1 0
an early look excuses a late run: send, look, move 1, send, run 1, run-late 0, told 0 0
more runs than messages are spurious: send, run 0, run 0, told 0 1
coalesced messages hide no second run: send 10, run 0, run 0, told 0 1
a message that arrived after the look of the last run is due: send, look, send, run-late 0, run 0, \
    told 0 0, run 0, told 0 1
a resend of the core excuses no run unless an interrupt was deferred: \
    send 10, run 0, resend 0, run 0, told 0 1, defer, resend 0, run 0, told 0 1, run 0, told 0 2
a run that a dispatch leaves to another CPU is right: \
    send 10, look, run 0, dispatch 1, run 0, told 0 0, returned 1, run 0, told 0 1
a CPU may have acknowledged an earlier message: \
    send 10, looks 1, send, run 0, run 0, looked 1, run 0, told 0 0, run 0, told 0 1
a deferral of the former owner excuses a run: \
    send 3, free, defer, abandon, allocate, resend 0, run 0, told 0 0, run 0, told 0 1
a run for the former owner's message is late: \
    send, look, abandon, allocate, run-late 0, told 0 0, late 1, run 0, told 0 1
a late run handles no message of the new owner: \
    look, allocate, send, run-late 1, move 1, send, run 0, told 0 0, late 1
an unhandled message keeps the record unsettled: send, run 0, send, unsettled, abandon, settled
a message that was not sent does not count: \
    sending, unsent, messages 0, settled, run 0, told 0 1
a message in flight is due: send 5, run 0, sending, run 0, sent, told 0 0
a message in flight is due although an operation ended: \
    send, begin, sending, end, run 0, run 0, sent, told 0 0
a held message is due once it has arrived: send 5, begin, sending, held, run 0, end, run 0, told 0 0
a message held after an operation ended arrives with the next one: \
    send 5, run 0, begin, sending, end, begin, run 0, held, end, run 0, told 0 0";

const SHARED: &str = "\
a late run at the old CPU is wrong: send, move 1, run 1, send, run 0, told 1 0";

const PER_CPU: &str = "\
a message stays at the old CPU: send, move 1, send, run 1, run 0, told 0 0
a second run at a former target is wrong, and one more than messages: \
    send, move 1, run 0, send, run 1, run 0, told 1 1
a resend runs at the reported CPU: send, move 1, carry 1, run 1, told 0 0
a needless resend excuses one run only: \
    send, run 0, move 1, guess 1, run 1, told 0 0, unknowable 1, run 1, told 0 1
a resend to a CPU that is not the target excuses no run: send, guess 2, run 2, told 1 0
a held message may arrive during the operation: begin, sending, held, move 1, end, run 1, told 0 0
a message during a move may arrive at the old CPU: sending, move 1, sent, run 0, told 0 0
a message during a move may arrive at the new CPU: sending, move 1, sent, run 1, told 0 0
a run at an emptied CPU is wrong: send, move 1, emptied 0, send, run 1, run 0, told 1 0";

#[test]
fn the_ledger_reports_the_faults_of_each_history() {
    for pending in BOTH {
        play_all(pending, HISTORIES);
    }
    play_all(Pending::Travels, SHARED);
    play_all(Pending::Stays, PER_CPU);
}

#[test]
fn a_device_stops_sending_when_far_ahead_of_its_handler() {
    let rig = Rig::new(Pending::Travels);
    let sent = (0..2 * AHEAD).take_while(|_| rig.record.send(|| SendOutcome::Sent)).count();
    assert_eq!(u64::try_from(sent), Ok(AHEAD));
    rig.play("far ahead", "run 0, send");
}

#[test]
fn the_ledger_reports_no_fault_from_overwritten_history() {
    for pending in BOTH {
        let rig = Rig::new(pending);
        rig.play("overwritten", "send, look, move 1");
        (0..3 * WINDOW).for_each(|_| rig.play("overwritten", "send, run 1"));
        rig.play("overwritten", "run-late 0, told 0 0");
    }
}
