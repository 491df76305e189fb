//! Scenarios in which guest faults are recorded while the VMM reads them.

use super::explore;
use super::std::vec::Vec;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use alloc::sync::Arc;
use shuttle::thread;

/// Two threads record one fault each while a third thread reads the log.
fn two_faults(second: FaultReason) {
    let events = Arc::new(EventLog::new(FaultReason::COUNT).unwrap());
    let faults = [(FaultReason::UnmappedEvent, 7), (second, 8)];
    let faults = faults.map(|(reason, at)| {
        let frame = RegisterFrame::Its(u64::from(at) << 16);
        GuestFault::new(reason, (frame, at), FaultDetail::Value(at.into()))
    });
    let recorders = faults.map(|fault| {
        let events = events.clone();
        thread::spawn(move || events.record(fault))
    });
    let mut seen = Vec::new();
    events.drain(|fault| seen.push(fault));
    for recorder in recorders {
        recorder.join().unwrap();
    }
    events.drain(|fault| seen.push(fault));
    seen.sort_unstable_by_key(|fault| fault.address);
    assert_eq!(seen, faults, "each fault must be read once, and completely");
    assert_eq!(events.total(), 2);
}

#[test]
fn faults_recorded_during_a_read_are_kept() {
    explore(|| two_faults(FaultReason::Budget));
}

#[test]
fn two_concurrent_faults_of_one_kind_are_both_kept() {
    explore(|| two_faults(FaultReason::UnmappedEvent));
}
