//! Messages without a mapping that are reported while the guest reads and clears the report, and guest faults that are
//! recorded while the monitor reads them.

use super::scenarios::{holds, needs};
use super::shared::Unmapped;
use crate::events::{Events, FaultReason, GuestFault};
use crate::safeguard::Safeguard;
use crate::status::Status;
use alloc::sync::Arc;
use gic_arch::gits::Statusr;
use shuttle::thread;

/// Reads the report and clears what it saw. How many messages did it hear of?
fn hear(status: &Status) -> u32 {
    let seen = status.status();
    if seen.umsi() {
        let message = status.message();
        let reported = (message.device_id(), message.event_id(), seen.syndrome());
        assert!([(7, 1, 3), (8, 2, 5)].contains(&reported), "{reported:?}");
    }
    status.clear(seen.into_bits());
    u32::from(seen.umsi()) + u32::from(seen.overflow())
}

fn two_messages() {
    let status = Arc::new(Status::new());
    let messages = [(7, 1, Unmapped::Device), (8, 2, Unmapped::Event)];
    let senders = messages.map(|(device, event, lacks)| {
        let status = status.clone();
        thread::spawn(move || status.unmapped(device, event, lacks))
    });
    let heard = hear(&status) + hear(&status);
    for sender in senders {
        sender.join().unwrap();
    }
    assert_eq!(heard + hear(&status), 2, "each is reported, or overflows");
    assert_eq!(status.status(), Statusr::new());
}

#[test]
fn a_report_is_of_one_message_and_no_message_goes_without() {
    holds(two_messages);
    needs(Safeguard::ClaimReport, two_messages);
}

/// Two threads record, a third reads.
fn two_faults() {
    let events = Arc::new(Events::new());
    let faults = [(FaultReason::UnmappedMessage, 7), (FaultReason::Budget, 8)];
    let faults = faults.map(|(reason, at)| GuestFault { reason, address: at, detail: at });
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
    assert_eq!(seen, faults, "each once, and whole");
    assert_eq!(events.total(), 2);
}

#[test]
fn faults_that_are_recorded_and_read_at_once_are_all_kept() {
    holds(two_faults);
    needs(Safeguard::WholeFault, two_faults);
}
