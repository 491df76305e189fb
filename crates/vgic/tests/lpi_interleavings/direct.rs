//! Direct LPIs that are rung where there is no room for them yet.

use super::machine::{Commands, Machine, machine};
use super::scenarios::{LPI, OTHER, holds, needs, spawn};
use super::shared::Injection;
use crate::safeguard::Safeguard;
use alloc::sync::Arc;
use shuttle::sync::Mutex;

fn locked() -> (Arc<Machine>, Arc<Mutex<Commands>>) {
    let (machine, commands) = machine();
    (machine, Arc::new(Mutex::new(commands)))
}

fn rung_while_the_vcpu_falls_asleep() {
    let (machine, commands) = locked();
    let rings = [LPI, OTHER].map(|lpi| spawn(&machine, move |machine| machine.ring(0, lpi)));
    let sleeper = {
        let commands = commands.clone();
        spawn(&machine, move |machine| machine.vcpu(0).leave_with(&commands))
    };
    for ring in rings {
        assert_ne!(ring.join().unwrap(), Injection::Dropped);
    }
    let gone = sleeper.join().unwrap();
    let kicks = machine.kicks(0);
    let mut taken = machine.vcpu(0).drain_with(&commands);
    taken.sort_unstable();
    assert_eq!(taken, [LPI, OTHER]);
    assert!(kicks <= 1 && (!gone || kicks == 1), "gone: {gone}, {kicks} kicks");
}

#[test]
fn a_vcpu_never_sleeps_over_an_lpi_that_was_rung_without_room() {
    holds(rung_while_the_vcpu_falls_asleep);
    needs(Safeguard::FlagLast, rung_while_the_vcpu_falls_asleep);
}

fn rung_while_lpis_are_disabled() {
    let (machine, commands) = locked();
    let rings = [1, 2].map(|_| spawn(&machine, |machine| machine.ring(0, LPI)));
    let vcpu = {
        let commands = commands.clone();
        spawn(&machine, move |machine| machine.vcpu(0).drain_with(&commands).len())
    };
    commands.lock().unwrap().disable_lpis(0);
    let sent = rings.map(|ring| ring.join().unwrap() != Injection::Dropped);
    let taken = vcpu.join().unwrap();
    assert!(machine.table_has(0, LPI) || taken != 0 || sent == [false; 2]);
    commands.lock().unwrap().reset_lpis();
    commands.lock().unwrap().enable_lpis_without_pending(0);
    assert_ne!(machine.ring(0, OTHER), Injection::Dropped);
    assert_eq!(machine.vcpu(0).drain_with(&commands), [OTHER], "nobody else rang since");
}

#[test]
fn what_was_rung_without_room_is_delivered_or_in_the_pending_table() {
    holds(rung_while_lpis_are_disabled);
    needs(Safeguard::RingAgain, rung_while_lpis_are_disabled);
    needs(Safeguard::ForgetLate, rung_while_lpis_are_disabled);
}

/// One thread is slow to find that LPIs were disabled: they are enabled again by then, and somebody else rings.
fn rung_after_lpis_were_enabled_again() {
    let (machine, commands) = locked();
    let slow = spawn(&machine, |machine| machine.ring(0, LPI));
    commands.lock().unwrap().disable_lpis(0);
    commands.lock().unwrap().enable_lpis(0);
    assert_ne!(machine.ring(0, LPI), Injection::Dropped);
    slow.join().unwrap();
    assert_eq!(machine.vcpu(0).drain_with(&commands), [LPI]);
}

#[test]
fn whoever_rings_too_late_takes_nobody_elses_ring_back() {
    holds(rung_after_lpis_were_enabled_again);
}

/// One thread rings and takes it back, while the vCPU makes room.
fn rung_and_taken_back() {
    let (machine, commands) = locked();
    let vcpu = {
        let commands = commands.clone();
        spawn(&machine, move |machine| machine.vcpu(0).drain_with(&commands).len())
    };
    machine.ring(0, LPI);
    machine.ring(0, OTHER);
    commands.lock().unwrap().clear_lpi(0, LPI);
    let before = vcpu.join().unwrap();
    let after = machine.vcpu(0).drain_with(&commands);
    assert!(!after.contains(&LPI), "it was taken back");
    assert!((1..=2).contains(&(before + after.len())), "the other is delivered");
}

#[test]
fn an_lpi_that_was_taken_back_is_not_admitted_afterwards() {
    holds(rung_and_taken_back);
}
