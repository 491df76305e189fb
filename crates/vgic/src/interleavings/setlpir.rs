//! Scenarios in which direct LPIs are signaled while commands and vCPUs change their entries.

use super::event_lpis::{LPI, OTHER, spawn};
use super::explore;
use super::machine::{NO_LPIS, machine};
use crate::lpi::Injection;

fn rung_while_the_vcpu_falls_asleep() {
    let (machine, _commands) = machine();
    let rings = [LPI, OTHER].map(|lpi| spawn(&machine, move |machine| machine.ring(0, lpi)));
    let sleeper = spawn(&machine, |machine| machine.vcpu(0).leave());
    for ring in rings {
        assert_ne!(ring.join().unwrap(), Injection::Dropped);
    }
    let gone = sleeper.join().unwrap();
    let kicks = machine.kicks(0);
    let mut taken = machine.vcpu(0).drain();
    taken.sort_unstable();
    assert_eq!(taken, [LPI, OTHER]);
    assert!(kicks <= 1 && (!gone || kicks == 1), "gone: {gone}, {kicks} kicks");
}

#[test]
fn a_direct_lpi_wakes_a_vcpu_falling_asleep() {
    explore(rung_while_the_vcpu_falls_asleep);
}

fn rung_while_lpis_are_disabled() {
    let (machine, mut commands) = machine();
    let rings = [1, 2].map(|_| spawn(&machine, |machine| machine.ring(0, LPI)));
    let vcpu = spawn(&machine, |machine| machine.vcpu(0).drain().len());
    commands.disable_lpis(0);
    assert_eq!(commands.pending(0), NO_LPIS, "pending after EnableLPIs was cleared");
    let fresh = rings.map(|ring| ring.join().unwrap() == Injection::Fresh);
    let taken = vcpu.join().unwrap();
    assert_eq!(commands.pending(0), NO_LPIS, "became pending after EnableLPIs was cleared");
    let fresh = fresh.into_iter().filter(|fresh| *fresh).count();
    assert_eq!(taken + usize::from(machine.table_has(0, LPI)), fresh);
}

#[test]
fn disabling_lpis_delivers_or_saves_a_direct_lpi() {
    explore(rung_while_lpis_are_disabled);
}

/// LPIs are enabled again. The LPI in the pending table must become pending, in addition to LPIs
/// that are signaled concurrently.
fn rung_while_lpis_are_enabled() {
    let (machine, mut commands) = machine();
    machine.ring(0, LPI);
    commands.disable_lpis(0);
    let slow = spawn(&machine, |machine| machine.ring(0, LPI));
    let vcpu = spawn(&machine, |machine| machine.vcpu(0).drain().len());
    commands.enable_lpis(0);
    let after = machine.ring(0, LPI);
    assert_ne!(after, Injection::Dropped, "LPIs are enabled");
    let fresh =
        [slow.join().unwrap(), after].iter().filter(|rung| **rung == Injection::Fresh).count();
    assert_eq!(vcpu.join().unwrap() + machine.vcpu(0).drain().len(), 1 + fresh);
}

#[test]
fn enabling_lpis_delivers_saved_and_concurrent_direct_lpis() {
    explore(rung_while_lpis_are_enabled);
}

fn rung_and_taken_back() {
    let (machine, mut commands) = machine();
    let vcpu = spawn(&machine, |machine| machine.vcpu(0).drain());
    machine.ring(0, LPI);
    machine.ring(0, OTHER);
    commands.clear_lpi(0, LPI);
    let before = vcpu.join().unwrap();
    let after = machine.vcpu(0).drain();
    assert!(!after.contains(&LPI), "the LPI was cleared");
    assert_eq!([before, after].concat().iter().filter(|lpi| **lpi == OTHER).count(), 1);
}

#[test]
fn a_cleared_direct_lpi_is_not_redelivered() {
    explore(rung_and_taken_back);
}
