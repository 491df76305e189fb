//! Scenarios for mappings that are made beside other commands.

use super::event_lpis::{LPI, one_event, spawn, two_itses};
use super::explore;
use super::machine::NO_LPIS;
use shuttle::thread;

/// One thread maps an event to an LPI, while another thread disables the LPI at its redistributor.
fn a_mapping_reads_a_configuration() {
    let (machine, mut commands) = one_event();
    commands.discard(1, 0);
    let disabler = spawn(&machine, |machine| {
        machine.configure(LPI, false, 0xa0);
        machine.invalidate(0, LPI);
    });
    commands.map_event(1, 0, LPI, 0);
    disabler.join().unwrap();
    machine.send(1, 0);
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS, "GICR_INVLPIR has no effect");
}

#[test]
fn an_event_mapped_during_an_invalidation_uses_the_new_configuration() {
    explore(a_mapping_reads_a_configuration);
}

/// Two ITSes map an event each to one LPI. One of them disables it afterwards.
fn two_events_are_mapped_to_one_lpi() {
    let ([first, second], [mut commands, mut others]) = two_itses();
    commands.discard(1, 0);
    others.discard(1, 0);
    let mapper = thread::spawn(move || others.map_event(1, 0, LPI, 1));
    commands.map_event(1, 0, LPI, 0);
    mapper.join().unwrap();
    first.configure(LPI, false, 0xa0);
    commands.inv(1, 0);
    for its in [&first, &second] {
        its.send(1, 0);
    }
    let taken = [0, 1].map(|vcpu| first.vcpu(vcpu).drain());
    assert_eq!(taken, [NO_LPIS, NO_LPIS], "INV by one event does not reach the other");
}

#[test]
fn inv_reaches_events_that_two_itses_map() {
    explore(two_events_are_mapped_to_one_lpi);
}
