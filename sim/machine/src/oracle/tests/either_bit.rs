//! Faults that the judge reports in the same way for one shared pending bit and for one bit per
//! CPU.

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
        // The interrupt core resends an interrupt whose dispatch was not deferred.
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
fn former_owners_interrupt_accounts_for_no_message_of_the_new_owner() {
    for pending in BOTH {
        let rig = Rig::new(pending);
        rig.send();
        let looked_at = rig.now();
        rig.record.abandon();
        rig.allocate(pending);
        rig.send();
        rig.run_late(0, looked_at);
        rig.run_at(0);
        assert_eq!((rig.faults(), rig.record.counts().late), ((0, 0), 1), "{pending:?}");
    }
}

#[test]
fn late_run_handles_no_message_of_the_new_owner() {
    let rig = Rig::new(Pending::Travels);
    let looked_at = rig.now();
    rig.allocate(Pending::Travels);
    rig.send();
    rig.run_late(1, looked_at);
    let looked_at = rig.now();
    rig.move_to(1);
    rig.send();
    rig.run_late(0, looked_at);
    assert_eq!((rig.faults(), rig.record.counts().late), ((0, 0), 1));
}

#[test]
fn run_of_a_former_target_may_be_for_a_message_that_an_earlier_run_saw() {
    let rig = Rig::new(Pending::Travels);
    rig.send();
    rig.acknowledge_at(0);
    let looked_at = rig.now();
    rig.send();
    rig.record.handle(Cpu::new(0), looked_at);
    rig.end(Dispatched::Handled);
    let looked_at = rig.now();
    rig.move_to(1);
    rig.send();
    rig.run_late(0, looked_at);
    assert_eq!(rig.faults(), (0, 0));
}

#[test]
fn core_may_resend_former_owners_interrupt() {
    for pending in BOTH {
        let rig = Rig::new(pending);
        rig.send();
        let looked_at = rig.now();
        rig.record.abandon();
        rig.allocate(pending);
        rig.send();
        rig.acknowledge_at(0);
        rig.record.handle(Cpu::new(0), rig.now());
        rig.route().acknowledged(Cpu::new(1), looked_at);
        rig.redeliver_to(0);
        rig.end(Dispatched::Deferred(Deferral::Running));
        rig.end(Dispatched::Handled);
        rig.run_at(0);
        assert_eq!(rig.faults(), (0, 0), "{pending:?}");
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
