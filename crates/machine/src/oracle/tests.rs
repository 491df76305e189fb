//! Books that are kept right, and each fault that they have to tell.

mod hardware;

use super::*;
use doorbell_hardware::ram::Caches;
use gic_driver::direct_lpi::{Resend, ResendObserver, ResendReason};
use gic_firmware::Region;
use irq_domain::{Deferral, Dispatched};
use msi_types::HwIrq;

const CPUS: usize = 3;

/// A vector at CPU 0, as its device, its driver and the CPUs see it.
struct Rig {
    record: VectorRecord,
    routes: Routes,
}

const VECTOR: HwIrq = HwIrq::new(8192);

impl Rig {
    fn new(pending: Pending) -> Self {
        let ram = Arc::new(Ram::new(&[Region::new(0, 0x1_0000).unwrap()], Caches::Snooped));
        let clock = Arc::<Clock>::default();
        let record = VectorRecord::new(Arc::clone(&clock), ram, 0, CPUS);
        let rig = Self { record, routes: Routes::new(clock, CPUS) };
        rig.allocate(pending);
        rig
    }

    fn allocate(&self, pending: Pending) {
        self.record.begin_operation();
        self.routes.add(VECTOR, pending, Cpu::new(0));
        self.record.follow(self.route());
        self.record.end_operation();
        // An arrival meanwhile was taken.
        self.acknowledge_at(0);
        self.end(Dispatched::Handled);
        assert!(self.route().run());
    }

    fn route(&self) -> Arc<Route> {
        self.routes.get(VECTOR).unwrap()
    }

    fn send(&self) {
        assert!(self.record.send(|| SendOutcome::Sent));
    }

    fn move_to(&self, cpu: u32) {
        self.route().open(Cpu::new(cpu));
        self.route().settle(Cpu::new(cpu));
    }

    fn now(&self) -> u64 {
        self.record.clock.now()
    }

    fn run_at(&self, cpu: u32) {
        self.run_late(cpu, self.now());
    }

    /// The CPU went to look at this time, and then was off its processor for long.
    fn run_late(&self, cpu: u32, looked_at: u64) {
        self.route().acknowledged(Cpu::new(cpu), looked_at);
        self.record.handle(Cpu::new(cpu), looked_at);
        self.end(Dispatched::Handled);
    }

    fn acknowledge_at(&self, cpu: u32) {
        self.route().acknowledged(Cpu::new(cpu), self.now());
    }

    fn end(&self, outcome: Dispatched) {
        self.route().dispatched(outcome);
    }

    /// A CPU acknowledges it while its handler runs elsewhere; then it is sent again.
    fn defer_at(&self, cpu: u32, redelivered_to: u32) {
        self.acknowledge_at(cpu);
        self.redeliver_to(redelivered_to);
        self.end(Dispatched::Deferred(Deferral::Running));
    }

    /// The interrupt core has it sent again.
    fn redeliver_to(&self, cpu: u32) {
        self.resend_to(cpu, ResendReason::Requested);
    }

    fn resend_to(&self, cpu: u32, reason: ResendReason) {
        let resend = Resend { hwirq: VECTOR, cpu: Cpu::new(cpu), reason };
        self.routes.resending(resend);
        self.routes.resent(resend);
    }

    /// Wrong CPUs, spurious runs.
    fn faults(&self) -> (u64, u64) {
        let counts = self.record.counts();
        (counts.wrong_cpu, counts.spurious)
    }
}

mod whatever_is_pending {
    use super::*;

    const BOTH: [Pending; 2] = [Pending::Travels, Pending::Stays];

    #[test]
    fn a_run_at_the_target_is_right() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(0);
            assert_eq!((rig.faults(), rig.record.is_settled()), ((0, 0), true));
        }
    }

    #[test]
    fn run_at_cpu_never_target_is_wrong() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(2);
            assert_eq!(rig.faults().0, 1, "{pending:?}");
        }
    }

    #[test]
    fn run_at_cpu_left_before_send_is_wrong() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.move_to(1);
            rig.send();
            rig.run_at(0);
            assert_eq!(rig.faults().0, 1, "{pending:?}");
        }
    }

    #[test]
    fn message_sent_before_move_may_run_at_old_cpu() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.move_to(1);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
        }
    }

    #[test]
    fn during_a_move_both_cpus_are_right() {
        for (pending, cpu) in BOTH.into_iter().zip([0, 1]) {
            let rig = Rig::new(pending);
            rig.route().open(Cpu::new(1));
            rig.send();
            rig.run_at(cpu);
            rig.route().settle(Cpu::new(1));
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
        }
    }

    #[test]
    fn abandoned_move_closes_its_target() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.route().open(Cpu::new(1));
            rig.route().settle(Cpu::new(0));
            rig.send();
            rig.run_at(1);
            assert_eq!(rig.faults().0, 1, "{pending:?}");
        }
    }

    #[test]
    fn move_does_not_excuse_cpu_left_earlier() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.move_to(1);
            rig.send();
            rig.move_to(2);
            rig.run_at(0);
            assert_eq!(rig.faults().0, 1, "{pending:?}");
        }
    }

    #[test]
    fn early_acknowledgement_excuses_late_run() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            let looked_at = rig.now();
            rig.move_to(1);
            rig.send();
            rig.run_at(1);
            rig.run_late(0, looked_at);
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
        }
    }

    #[test]
    fn more_runs_than_messages_are_spurious() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(0);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn run_of_a_former_target_for_nothing_is_spurious() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(0);
            let looked_at = rig.now();
            rig.acknowledge_at(0);
            rig.move_to(1);
            rig.send();
            rig.record.handle(Cpu::new(0), looked_at);
            rig.end(Dispatched::Handled);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn run_of_a_former_target_is_for_no_later_message() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(0);
            let looked_at = rig.now();
            rig.move_to(1);
            rig.send();
            rig.run_late(0, looked_at);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn core_redelivery_excuses_no_extra_run() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(0);
            rig.redeliver_to(0);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn coalesced_messages_hide_no_second_run() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            (0..10).for_each(|_| rig.send());
            rig.run_at(0);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn redelivery_of_handled_interrupt_excuses_no_run() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            (0..10).for_each(|_| rig.send());
            rig.acknowledge_at(0);
            // Before the handler sees the message, or after: it is not deferred.
            rig.redeliver_to(0);
            rig.record.handle(Cpu::new(0), rig.now());
            rig.end(Dispatched::Handled);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
            rig.redeliver_to(0);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 2), "{pending:?}");
        }
    }

    #[test]
    fn message_deferred_during_run_is_due() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.acknowledge_at(0);
            rig.move_to(1);
            rig.send();
            rig.acknowledge_at(1);
            rig.end(Dispatched::Deferred(Deferral::Running));
            rig.record.handle(Cpu::new(0), rig.now());
            rig.redeliver_to(1);
            rig.end(Dispatched::Handled);
            rig.run_at(1);
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
            rig.run_at(1);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn two_deferrals_by_one_run_are_due_once() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.acknowledge_at(0);
            for cpu in [1, 2] {
                rig.move_to(cpu);
                rig.send();
                rig.acknowledge_at(cpu);
                rig.end(Dispatched::Deferred(Deferral::Running));
            }
            rig.record.handle(Cpu::new(0), rig.now());
            rig.redeliver_to(2);
            rig.end(Dispatched::Handled);
            rig.run_at(2);
            rig.redeliver_to(2);
            rig.run_at(2);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn message_deferred_until_enable_is_due() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.acknowledge_at(0);
            rig.end(Dispatched::Deferred(Deferral::Disabled));
            rig.send();
            rig.run_at(0);
            rig.redeliver_to(0);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
            rig.redeliver_to(0);
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn message_sent_before_record_follows_is_due() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.record.begin_operation();
            rig.routes.add(VECTOR, pending, Cpu::new(1));
            rig.send();
            rig.acknowledge_at(1);
            rig.end(Dispatched::Deferred(Deferral::Disabled));
            rig.record.follow(rig.route());
            rig.redeliver_to(1);
            rig.record.end_operation();
            rig.run_at(1);
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
        }
    }

    #[test]
    fn run_for_former_owners_message_is_late() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.acknowledge_at(0);
            let looked_at = rig.now();
            rig.record.abandon();
            rig.allocate(pending);
            rig.record.handle(Cpu::new(0), looked_at);
            assert_eq!((rig.faults(), rig.record.counts().late), ((0, 0), 1), "{pending:?}");
            rig.run_at(0);
            assert_eq!(rig.faults(), (0, 1), "{pending:?}");
        }
    }

    #[test]
    fn a_message_that_nobody_saw_is_unsettled() {
        let rig = Rig::new(Pending::Travels);
        rig.send();
        rig.run_at(0);
        rig.send();
        assert!(!rig.record.is_settled());
    }

    #[test]
    fn unsent_message_does_not_count() {
        let rig = Rig::new(Pending::Stays);
        assert!(!rig.record.send(|| SendOutcome::NotSent));
        assert_eq!((rig.record.sent(), rig.record.is_settled()), (0, true));
        rig.run_at(0);
        assert_eq!(rig.faults(), (0, 1));
    }

    #[test]
    fn device_far_ahead_waits_for_handler() {
        let rig = Rig::new(Pending::Travels);
        let sent = (0..2 * AHEAD).take_while(|_| rig.record.send(|| SendOutcome::Sent)).count();
        assert_eq!(u64::try_from(sent), Ok(AHEAD));
        rig.run_at(0);
        assert!(rig.record.send(|| SendOutcome::Sent));
    }

    #[test]
    fn overwritten_history_accuses_nobody() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            let looked_at = rig.now();
            rig.move_to(1);
            for _ in 0..3 * WINDOW {
                rig.send();
                rig.run_at(1);
            }
            rig.run_late(0, looked_at);
            assert_eq!(rig.faults(), (0, 0), "{pending:?}");
        }
    }
}

#[test]
fn shared_bit_late_run_at_old_cpu_is_wrong() {
    let rig = Rig::new(Pending::Travels);
    rig.send();
    rig.move_to(1);
    rig.run_at(1);
    rig.send();
    rig.run_at(0);
    assert_eq!(rig.faults(), (1, 0));
}

#[test]
fn cpu_bit_keeps_message_at_old_cpu() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.send();
    rig.run_at(1);
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 0));
}

#[test]
fn cpu_bit_run_after_drain_is_wrong() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.run_at(0);
    rig.send();
    rig.run_at(1);
    rig.run_at(0);
    assert_eq!(rig.faults(), (1, 1), "at a wrong CPU, and one more than there were messages");
}

#[test]
fn shared_bit_message_is_due_on_one_cpu() {
    let rig = Rig::new(Pending::Travels);
    (0..5).for_each(|_| rig.send());
    rig.run_at(0);
    let looked_at = rig.now();
    rig.send();
    rig.send();
    rig.run_at(0);
    // Neither acknowledgement is known to be the earlier one: there was one message for each.
    rig.run_late(0, looked_at);
    assert_eq!(rig.faults(), (0, 0));
    rig.run_late(0, looked_at);
    assert_eq!(rig.faults(), (0, 1), "two messages, three acknowledgements");
}

#[test]
fn shared_bit_message_under_way_is_due_once() {
    let rig = Rig::new(Pending::Travels);
    (0..5).for_each(|_| rig.send());
    rig.run_at(0);
    rig.record.send(|| {
        rig.run_at(0);
        rig.run_at(0);
        SendOutcome::Sent
    });
    assert_eq!(rig.faults(), (0, 1));
}

#[test]
fn cpu_bit_message_excuses_no_run_elsewhere() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    // As if the driver had sent it again and not told.
    rig.run_at(1);
    assert_eq!(
        rig.faults(),
        (0, 1),
        "it was a target since, but nothing can have been pending there"
    );
}

#[test]
fn cpu_bit_resend_runs_at_reported_cpu() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.resend_to(1, ResendReason::Carried);
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 0));
}

#[test]
fn needless_resend_excuses_one_run_only() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.run_at(0);
    rig.move_to(1);
    rig.resend_to(1, ResendReason::Unknowable);
    rig.run_at(1);
    assert_eq!((rig.faults(), rig.record.counts().unknowable), ((0, 0), 1));
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 1));
}

#[test]
fn a_needless_resend_excuses_no_other_vector() {
    let (rig, other) = (Rig::new(Pending::Stays), Rig::new(Pending::Stays));
    other.resend_to(0, ResendReason::Unknowable);
    rig.send();
    rig.run_at(0);
    rig.run_at(0);
    assert_eq!((rig.faults(), other.faults()), ((0, 1), (0, 0)));
}

#[test]
fn resend_to_non_target_excuses_no_run() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.resend_to(2, ResendReason::Unknowable);
    rig.run_at(2);
    assert_eq!(rig.faults().0, 1);
}

#[test]
fn message_taken_by_other_cpu_is_not_pending() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.send();
    rig.acknowledge_at(1);
    rig.record.handle(Cpu::new(1), rig.now());
    rig.defer_at(0, 1);
    rig.end(Dispatched::Handled);
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 0));
    rig.send();
    rig.run_at(0);
    assert_eq!(rig.faults(), (1, 0));
}

#[test]
fn held_message_may_arrive_during_operation() {
    let rig = Rig::new(Pending::Stays);
    rig.record.begin_operation();
    rig.record.send(|| SendOutcome::Held);
    rig.route().open(Cpu::new(1));
    rig.route().settle(Cpu::new(1));
    rig.record.end_operation();
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 0));
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 1));
}

#[test]
fn message_held_until_now_has_arrived() {
    let rig = Rig::new(Pending::Stays);
    rig.record.begin_operation();
    rig.record.send(|| {
        rig.record.end_operation();
        SendOutcome::Held
    });
    rig.run_at(0);
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 1), "nothing is held any more");
}

#[test]
fn message_during_move_may_arrive_at_either_cpu() {
    for cpu in [0, 1] {
        let rig = Rig::new(Pending::Stays);
        rig.record.send(|| {
            rig.move_to(1);
            SendOutcome::Sent
        });
        rig.run_at(cpu);
        assert_eq!(rig.faults(), (0, 0));
    }
}

#[test]
fn a_cpu_that_was_emptied_has_nothing_pending() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.routes.emptied(Cpu::new(0));
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 1));
}

#[test]
fn message_before_free_never_runs_later() {
    let rig = Rig::new(Pending::Stays);
    rig.resend_to(0, ResendReason::Unknowable);
    rig.run_at(0);
    rig.send();
    rig.record.abandon();
    rig.allocate(Pending::Stays);
    rig.run_at(0);
    assert_eq!((rig.faults(), rig.record.counts().unknowable), ((0, 1), 1));
}
