//! Guest faults: all are counted, the first few kept.

use crate::events::{Events, FaultReason, GuestFault, QUEUED};
use alloc::vec::Vec;

fn fault(address: u64) -> GuestFault {
    GuestFault { reason: FaultReason::UnknownRegister, address, detail: 0 }
}

#[test]
fn a_storm_of_faults_is_counted_in_full() {
    let events = Events::new();

    for address in 0..1000 {
        events.record(fault(address));
    }

    let mut drained = Vec::new();
    events.drain(|fault| drained.push(fault.address));
    assert_eq!(events.count(FaultReason::UnknownRegister), 1000);
    assert_eq!(drained, (0..QUEUED as u64).collect::<Vec<_>>());
}

#[test]
fn every_reason_is_counted_and_kept_as_itself() {
    let events = Events::new();
    for reason in FaultReason::ALL {
        events.record(GuestFault { reason, address: 1, detail: 2 });
    }
    let mut drained = Vec::new();
    events.drain(|fault| drained.push(fault.reason));
    assert_eq!(drained, FaultReason::ALL);
    assert!(FaultReason::ALL.iter().all(|reason| events.count(*reason) == 1));
}

#[test]
fn reading_the_faults_makes_room_for_new_ones() {
    let events = Events::new();
    events.record(fault(1));
    events.drain(drop);

    events.record(fault(2));

    let mut drained = Vec::new();
    events.drain(|fault| drained.push(fault.address));
    assert_eq!(drained, [2]);
}
