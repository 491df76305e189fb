//! Scenarios for mappings that are made beside other commands.

use super::event_lpis::{LPI, OTHER, one_event, spawn};
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

/// Two threads map an event each to one LPI, as two ITSes do. Both are invalidated afterwards.
fn two_events_are_mapped_to_one_lpi() {
    let (machine, mut commands) = one_event();
    commands.map_device(2, 1);
    commands.map_event(2, 0, OTHER, 1);
    commands.discard(1, 0);
    commands.discard(2, 0);
    let mut other = commands.clone();
    let mapper = thread::spawn(move || other.map_event(2, 0, LPI, 1));
    commands.map_event(1, 0, LPI, 0);
    mapper.join().unwrap();
    machine.configure(LPI, false, 0xa0);
    [0, 1].into_iter().for_each(|vcpu| machine.invalidate(vcpu, LPI));
    for device in [1, 2] {
        machine.send(device, 0);
    }
    let taken = [0, 1].map(|vcpu| machine.vcpu(vcpu).drain());
    assert_eq!(taken, [NO_LPIS, NO_LPIS], "an event's LPI does not find it");
}

#[test]
fn an_invalidation_reaches_events_that_two_itses_map() {
    explore(two_events_are_mapped_to_one_lpi);
}
