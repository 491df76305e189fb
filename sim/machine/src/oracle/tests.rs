//! Tests the judge with correct histories, and with one example of each fault that it must report.

mod either_bit;
mod hardware;
mod pending_bit;

use super::*;
use doorbell_hardware::ram::Caches;
use gic_driver::direct_lpi::{Resend, ResendObserver, ResendReason};
use gic_firmware::Region;
use irq_domain::{Deferral, Dispatched};
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
            // `-late`: by a CPU that was descheduled for a long time since the last `look`.
            let (verb, looked_at) = match verb.strip_suffix("-late") {
                Some(verb) => (verb, self.looked_at.get()),
                None => (verb, self.record.clock.now()),
            };
            let resend = |reason| {
                let resend = Resend { hwirq: VECTOR, cpu: cpu(), reason };
                self.routes.resending(resend);
                self.routes.resent(resend);
            };
            let end = |outcome| self.route().due().dispatched(outcome);
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
                "add" => self.routes.add(VECTOR, self.pending, cpu()),
                "follow" => self.record.follow(self.route()),
                "allocate" => {
                    // A message that arrived during the allocation has been acknowledged.
                    self.play(name, "begin, add 0, follow, end, take 0, handled");
                    assert!(self.route().due().run().is_some(), "{name}");
                }
                "open" => self.route().open(cpu()),
                "settle" => self.route().settle(cpu()),
                "move" => self.play(name, &format!("open {number}, settle {number}")),
                "emptied" => self.routes.emptied(cpu()),
                "look" => self.looked_at.set(looked_at),
                "take" => _ = self.routes.acknowledged(VECTOR, cpu(), looked_at),
                "handle" => _ = self.record.handle(cpu(), looked_at),
                "run" => {
                    self.routes.acknowledged(VECTOR, cpu(), looked_at);
                    self.record.handle(cpu(), looked_at);
                    end(Dispatched::Handled);
                }
                "handled" => end(Dispatched::Handled),
                "deferred" => end(Dispatched::Deferred(Deferral::Running)),
                "disabled" => end(Dispatched::Deferred(Deferral::Disabled)),
                // The interrupt core resends the vector; the driver knows or guesses that it is
                // pending.
                "resend" => resend(ResendReason::Requested),
                "resending" => self.route().redelivering(cpu()),
                "resent" => self.route().resent(cpu()),
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
