//! Scenario in which guest faults are recorded while the VMM reads them.

use super::explore;
use super::std::vec::Vec;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use alloc::sync::Arc;
use shuttle::thread;

/// Two threads record one fault each while a third thread reads the log. One thread may find the
/// log locked, so that its fault is only counted. A later fault must be stored.
fn two_faults() {
    let events = Arc::new(EventLog::new(FaultReason::COUNT).unwrap());
    let faults = [7, 8, 9].map(|at: u32| {
        let frame = RegisterFrame::Its(u64::from(at) << 16);
        GuestFault::new(FaultReason::UnmappedEvent, (frame, at), FaultDetail::Value(at.into()))
    });
    let recorders = [0, 1].map(|number| {
        let events = events.clone();
        thread::spawn(move || events.record(faults[number]))
    });
    let mut seen = Vec::new();
    events.drain(|fault| seen.push(fault));
    for recorder in recorders {
        recorder.join().unwrap();
    }
    events.record(faults[2]);
    events.drain(|fault| seen.push(fault));
    assert_eq!(events.total(), 3, "each fault must be counted");
    assert_eq!(seen.pop(), Some(faults[2]), "the later fault must be stored last");
    let is_once = |fault: &_| seen.iter().filter(|it| *it == fault).count() == 1;
    let stored = faults[..2].iter().filter(|fault| is_once(fault)).count();
    assert!(stored > 0 && stored == seen.len(), "one of {seen:?} is missing, or not complete");
}

#[test]
fn faults_recorded_during_a_read_are_counted() {
    explore(two_faults);
}
