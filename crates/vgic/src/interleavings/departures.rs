//! Scenarios for LPIs from mapped events, with vCPUs that fall asleep while messages arrive and
//! commands clear ready bits.

use super::event_lpis::{LPI, OTHER, one_event, spawn, two_itses};
use super::machine::{Commands, Machine};
use super::{explore, explore_more};
use alloc::sync::Arc;
use shuttle::thread;

fn check_sleep(machine: &Arc<Machine>, gone: bool) {
    assert!(machine.kicks(0) <= 1, "one departure must cause at most one kick");
    let ready = !machine.vcpu(0).drain().is_empty();
    assert!(!(gone && ready) || machine.kicks(0) == 1, "the vCPU sleeps despite its interrupt");
}

/// Two events signal a vCPU that is falling asleep.
fn a_vcpu_sleeps() {
    let (machine, mut commands) = one_event();
    commands.map_event(1, 1, OTHER, 0);
    let senders = [0, 1].map(|event| spawn(&machine, move |machine| machine.send(1, event)));
    let sleeper = spawn(&machine, |machine| machine.vcpu(0).leave());
    for sender in senders {
        sender.join().unwrap();
    }
    let gone = sleeper.join().unwrap();
    check_sleep(&machine, gone);
}

#[test]
fn two_events_wake_a_vcpu_falling_asleep() {
    explore(a_vcpu_sleeps);
}

/// The vCPU finds a stale ready bit, which becomes valid again while the vCPU falls asleep.
fn a_vcpu_sleeps_over_a_stale_hint() {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    commands.movi(1, 0, 1);
    machine.leave_ready_bit(0, (1, 0));
    let mover = thread::spawn(move || commands.movi(1, 0, 0));
    let sleeper = spawn(&machine, |machine| machine.vcpu(0).leave());
    mover.join().unwrap();
    let gone = sleeper.join().unwrap();
    assert!(!gone || machine.kicks(0) == 1, "the vCPU sleeps despite its interrupt");
    assert_eq!(machine.vcpu(0).drain(), [LPI]);
}

#[test]
fn an_lpi_whose_stale_ready_bit_becomes_valid_wakes_its_vcpu() {
    explore(a_vcpu_sleeps_over_a_stale_hint);
}

/// CLEAR clears an event's ready bit, while a message makes it or its neighbor pending and the vCPU
/// falls asleep.
fn a_ready_bit_is_cleared_while_a_vcpu_sleeps(event: u32) {
    let (machine, mut commands) = one_event();
    commands.map_event(1, 1, OTHER, 0);
    machine.send(1, 0);
    clear_while_a_vcpu_sleeps(&machine, [(commands, 0)], event);
}

/// Each ITS clears an event of its device 1 on a separate thread, while a message makes an event of
/// the first ITS pending and the vCPU falls asleep.
fn clear_while_a_vcpu_sleeps<const N: usize>(
    machine: &Arc<Machine>,
    cleared: [(Commands, u32); N],
    sent: u32,
) {
    let mut commands = cleared[0].0.clone();
    let clearers =
        cleared.map(|(mut commands, event)| thread::spawn(move || commands.clear(1, event)));
    let sender = spawn(machine, move |machine| machine.send(1, sent));
    let sleeper = spawn(machine, |machine| machine.vcpu(0).leave());
    clearers.into_iter().for_each(|clearer| clearer.join().unwrap());
    sender.join().unwrap();
    let gone = sleeper.join().unwrap();
    let pending = commands.pending(0);
    assert!(!gone || pending.is_empty() || machine.kicks(0) == 1, "the vCPU sleeps");
    assert_eq!(machine.vcpu(0).drain(), pending, "an interrupt has no ready bit");
}

/// CLEAR overtakes the messages of two events, and the second clears the ready bit that the first
/// message may have left. Meanwhile, the first event's next message arrives.
fn an_entry_is_ready_again_after_an_overtaken_message() {
    let (machine, mut commands) = one_event();
    commands.map_event(1, 1, OTHER, 0);
    machine.begin_signal((1, 0));
    commands.clear(1, 0);
    machine.begin_signal((1, 1));
    clear_while_a_vcpu_sleeps(&machine, [(commands, 1)], 0);
}

#[test]
fn clearing_a_stale_bit_hides_no_interrupt() {
    explore(an_entry_is_ready_again_after_an_overtaken_message);
}

fn an_entry_is_ready_again_after_clear() {
    a_ready_bit_is_cleared_while_a_vcpu_sleeps(0);
}

fn a_neighbor_is_ready_after_clear() {
    a_ready_bit_is_cleared_while_a_vcpu_sleeps(1);
}

/// Two ITSes empty a leaf that a message fills.
fn two_ready_bits_are_cleared_while_a_vcpu_sleeps() {
    // The LPI has another lock than the other two.
    const DISTANT: u32 = LPI + 32;
    let ([first, second], [mut commands, mut others]) = two_itses();
    first.configure(DISTANT, true, 0xa0);
    others.map_event(1, 0, DISTANT, 0);
    commands.map_event(1, 1, OTHER, 0);
    for its in [&first, &second] {
        its.send(1, 0);
    }
    clear_while_a_vcpu_sleeps(&first, [(commands, 0), (others, 0)], 1);
}

#[test]
fn clearing_two_ready_bits_hides_no_interrupt() {
    explore_more(25, two_ready_bits_are_cleared_while_a_vcpu_sleeps);
}

#[test]
fn clearing_a_ready_bit_hides_no_interrupt() {
    explore(an_entry_is_ready_again_after_clear);
    explore_more(5, a_neighbor_is_ready_after_clear);
}

/// CLEAR empties the leaf in which the vCPU has just cleared a stale ready bit, while a message
/// makes that bit's entry pending.
fn a_leaf_is_emptied_while_a_vcpu_looks_at_its_entry() {
    let (machine, mut commands) = one_event();
    commands.map_event(1, 1, OTHER, 0);
    machine.leave_ready_bit(0, (1, 0));
    machine.send(1, 1);
    clear_while_a_vcpu_sleeps(&machine, [(commands, 1)], 0);
}

#[test]
fn emptying_a_leaf_hides_no_entry_that_a_vcpu_is_checking() {
    explore_more(10, a_leaf_is_emptied_while_a_vcpu_looks_at_its_entry);
}

/// CLEAR hides a neighbor's ready bit for a moment, in which the vCPU falls asleep.
fn a_vcpu_sleeps_over_a_hidden_bit() {
    let (machine, mut commands) = one_event();
    commands.map_event(1, 1, OTHER, 0);
    machine.send(1, 0);
    let clearer = thread::spawn(move || commands.clear(1, 0));
    let sleeper = spawn(&machine, |machine| {
        machine.send(1, 1);
        machine.vcpu(0).leave()
    });
    clearer.join().unwrap();
    let gone = sleeper.join().unwrap();
    assert!(!gone || machine.kicks(0) == 1, "the vCPU sleeps despite its interrupt");
    assert_eq!(machine.vcpu(0).drain(), [OTHER]);
}

#[test]
fn an_lpi_hidden_by_clear_wakes_its_vcpu() {
    explore_more(40, a_vcpu_sleeps_over_a_hidden_bit);
}
