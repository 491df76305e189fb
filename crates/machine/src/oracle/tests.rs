//! Books that are kept right, and each fault that they have to tell.

mod hardware;

use super::*;
use doorbell_hardware::ram::Caches;
use gic_driver::direct_lpi::{Resend, ResendObserver, ResendReason};
use gic_firmware::Region;
use irq_domain::{Deferral, Dispatched};
use msi_types::Vector;

const CPUS: usize = 3;

/// A vector at CPU 0, as its device, its driver and the CPUs see it.
struct Rig {
    record: VectorRecord,
    routes: Routes,
}

const VECTOR: Vector = Vector::new(8192);

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
        // What may have arrived meanwhile was taken.
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
        let resend = Resend { vector: VECTOR, cpu: Cpu::new(cpu), reason };
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
    fn a_run_at_a_cpu_that_was_never_a_target_is_wrong() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.send();
            rig.run_at(2);
            assert_eq!(rig.faults().0, 1, "{pending:?}");
        }
    }

    #[test]
    fn a_run_at_a_cpu_that_was_left_before_the_message_was_sent_is_wrong() {
        for pending in BOTH {
            let rig = Rig::new(pending);
            rig.move_to(1);
            rig.send();
            rig.run_at(0);
            assert_eq!(rig.faults().0, 1, "{pending:?}");
        }
    }

    #[test]
    fn a_message_sent_before_the_move_may_still_run_at_the_old_cpu() {
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
    fn a_move_that_was_given_up_leaves_the_cpu_that_it_would_have_led_to() {
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
    fn a_move_does_not_excuse_a_cpu_that_was_left_before_it() {
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
    fn a_cpu_that_acknowledged_early_and_runs_late_is_right() {
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
    fn what_the_interrupt_core_sent_again_had_been_taken_without_a_run_and_excuses_none() {
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
    fn a_redelivery_of_what_was_handled_excuses_no_run() {
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
    fn a_message_that_arrives_during_the_run_and_is_deferred_is_due() {
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
    fn what_was_put_off_until_the_handler_is_enabled_is_due() {
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
    fn a_message_sent_before_the_books_follow_the_vector_is_due() {
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
    fn a_run_for_what_the_former_owner_left_under_way_is_late() {
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
    fn a_message_that_could_not_be_sent_does_not_count() {
        let rig = Rig::new(Pending::Stays);
        assert!(!rig.record.send(|| SendOutcome::NotSent));
        assert_eq!((rig.record.sent(), rig.record.is_settled()), (0, true));
        rig.run_at(0);
        assert_eq!(rig.faults(), (0, 1));
    }

    #[test]
    fn a_device_waits_for_its_handler_when_it_is_far_ahead() {
        let rig = Rig::new(Pending::Travels);
        let sent = (0..2 * AHEAD).take_while(|_| rig.record.send(|| SendOutcome::Sent)).count();
        assert_eq!(u64::try_from(sent), Ok(AHEAD));
        rig.run_at(0);
        assert!(rig.record.send(|| SendOutcome::Sent));
    }

    #[test]
    fn books_that_were_written_over_accuse_nobody() {
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
fn where_it_travels_a_late_run_at_the_old_cpu_is_wrong() {
    let rig = Rig::new(Pending::Travels);
    rig.send();
    rig.move_to(1);
    rig.run_at(1);
    rig.send();
    rig.run_at(0);
    assert_eq!(rig.faults(), (1, 0));
}

#[test]
fn where_it_stays_a_message_sent_before_the_move_runs_at_the_old_cpu_whatever_ran_elsewhere() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.send();
    rig.run_at(1);
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 0));
}

#[test]
fn where_it_stays_a_second_run_at_the_old_cpu_is_wrong_once_it_was_drained() {
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
fn where_it_travels_one_message_is_not_due_on_two_cpus_at_a_time() {
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
fn where_it_travels_a_message_under_way_is_due_once() {
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
fn where_it_stays_a_message_that_went_to_the_old_cpu_excuses_no_run_at_the_new_one() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    // As if the driver had sent it again and not told.
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 1), "it was a target since, but nothing can have been pending there");
}

#[test]
fn where_it_stays_what_the_driver_sent_again_runs_where_it_told() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    rig.resend_to(1, ResendReason::Carried);
    rig.run_at(1);
    assert_eq!(rig.faults(), (0, 0));
}

#[test]
fn a_resend_that_may_have_been_needless_excuses_one_run_more_and_no_second_one() {
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
fn a_resend_to_a_cpu_that_is_no_target_excuses_no_run_there() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.resend_to(2, ResendReason::Unknowable);
    rig.run_at(2);
    assert_eq!(rig.faults().0, 1);
}

#[test]
fn what_was_left_to_another_cpu_s_run_is_pending_no_more() {
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
fn a_message_that_was_held_back_arrives_until_the_operation_is_over() {
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
fn a_message_that_the_endpoint_held_until_just_now_has_arrived() {
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
fn a_message_under_way_while_the_vector_moves_may_arrive_at_either_cpu() {
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
fn what_was_sent_before_the_vector_was_freed_does_not_run_after_it_is_allocated_anew() {
    let rig = Rig::new(Pending::Stays);
    rig.resend_to(0, ResendReason::Unknowable);
    rig.run_at(0);
    rig.send();
    rig.record.abandon();
    rig.allocate(Pending::Stays);
    rig.run_at(0);
    assert_eq!((rig.faults(), rig.record.counts().unknowable), ((0, 1), 1));
}
