//! Faults that depend on whether all CPUs share one pending bit or have one each.

use super::*;

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
    assert_eq!(rig.faults(), (1, 1), "at a wrong CPU, and one more run than messages");
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
    // The order of the two acknowledgements is unknown, and there was a message for each of them.
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

/// Returns a vector whose handler is running, and which the interrupt core is resending to CPU 0.
fn resending() -> Rig {
    let rig = Rig::new(Pending::Travels);
    rig.send();
    rig.acknowledge_at(0);
    rig.record.handle(Cpu::new(0), rig.now());
    rig.send();
    rig.acknowledge_at(0);
    rig.end(Dispatched::Deferred(Deferral::Running));
    rig.route().redelivering(Cpu::new(0));
    rig
}

fn end_resending(rig: &Rig) {
    rig.route().resent(Cpu::new(0));
    rig.end(Dispatched::Handled);
}

#[test]
fn shared_bit_slow_resend_is_due_after_messages() {
    let rig = resending();
    // The CPU acknowledges the message, not the resend, which is in flight for longer.
    rig.record.send(|| {
        rig.run_at(0);
        SendOutcome::Sent
    });
    rig.send();
    rig.run_at(0);
    end_resending(&rig);
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 0));
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 1));
}

#[test]
fn shared_bit_run_before_message_was_for_resend() {
    let rig = resending();
    rig.run_at(0);
    rig.send();
    rig.send();
    rig.run_at(0);
    end_resending(&rig);
    rig.run_at(0);
    assert_eq!(rig.faults(), (0, 1));
}

#[test]
fn cpu_bit_message_excuses_no_run_elsewhere() {
    let rig = Rig::new(Pending::Stays);
    rig.send();
    rig.move_to(1);
    // The run looks as if the driver had resent the interrupt without reporting it.
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
    assert_eq!(rig.faults(), (0, 1), "no message is held any more");
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
