//! Faults that the judge reports in the same way for one shared pending bit and for one bit per
//! CPU.

use super::*;

const BOTH: [Pending; 2] = [Pending::Travels, Pending::Stays];

const HISTORIES: &str = "\
a run at the target is right: send, run 0, told 0 0, settled
a run at a CPU that never was a target is wrong: send, run 2, told 1 0
a run at a CPU left before the message was sent is wrong: move 1, send, run 0, told 1 0
a message sent before a move may run at the old CPU: send, move 1, run 0, told 0 0
during a move the old CPU is right: open 1, send, run 0, settle 1, told 0 0
during a move the new CPU is right: open 1, send, run 1, settle 1, told 0 0
an abandoned move closes its target: open 1, settle 0, send, run 1, told 1 0
a move does not excuse a CPU left earlier: move 1, send, move 2, run 0, told 1 0
an early acknowledgment excuses a late run: \
    send, look, move 1, send, run 1, run-late 0, told 0 0
more runs than messages are spurious: send, run 0, run 0, told 0 1
a run of a former target without a message is spurious: \
    send, run 0, look, take 0, move 1, send, handle-late 0, handled, told 0 1
a run of a former target does not handle a later message: \
    send, run 0, look, move 1, send, run-late 0, told 0 1
the core's redelivery excuses no extra run: send, run 0, resend 0, run 0, told 0 1
coalesced messages hide no second run: send 10, run 0, run 0, told 0 1
a redelivery excuses no run if the dispatch was not deferred: \
    send 10, take 0, resend 0, handle 0, handled, run 0, told 0 1, resend 0, run 0, told 0 2
a message deferred during a run is due: send, take 0, move 1, send, take 1, deferred, handle 0, \
    resend 1, handled, run 1, told 0 0, run 1, told 0 1
two deferrals by one run are due once: send, take 0, move 1, send, take 1, deferred, \
    move 2, send, take 2, deferred, handle 0, resend 2, handled, run 2, resend 2, run 2, told 0 1
a message deferred until its handler is enabled is due: send, take 0, disabled, send, run 0, \
    resend 0, run 0, told 0 0, resend 0, run 0, told 0 1
a message sent before the record follows is due: begin, add 1, send, take 1, disabled, follow, \
    resend 1, end, run 1, told 0 0
a run for the former owner's message is late: send, take 0, look, abandon, allocate, \
    handle-late 0, told 0 0, late 1, run 0, told 0 1
the former owner's interrupt accounts for no message of the new owner: \
    send, look, abandon, allocate, send, run-late 0, run 0, told 0 0, late 1
a late run handles no message of the new owner: \
    look, allocate, send, run-late 1, look, move 1, send, run-late 0, told 0 0, late 1
a former target may run for a message already handled: \
    send, take 0, look, send, handle-late 0, handled, look, move 1, send, run-late 0, told 0 0
the core may resend the former owner's interrupt: send, look, abandon, allocate, send, take 0, \
    handle 0, take-late 1, resend 0, deferred, handled, run 0, told 0 0
the core may resend what it deferred for the former owner until the handler is enabled: \
    send 3, take 0, abandon, begin, add 0, disabled, follow, end, run 0, \
    resend 0, run 0, told 0 0, resend 0, run 0, told 0 1
the core may resend what was acknowledged while the vector had no owner: \
    send 3, free, take 0, abandon, begin, add 0, disabled, follow, end, run 0, \
    resend 0, run 0, told 0 0, resend 0, run 0, told 0 1
the core may resend what arrived for the former owner during a run of the new one: \
    send, take 0, abandon, allocate, send, take 0, handle 0, deferred, resend 0, handled, run 0, \
    told 0 0, resend 0, run 0, told 0 1
the core may resend what arrived during a late run: \
    send, take 0, look, abandon, allocate, handle-late 0, send, take 0, deferred, send, take 0, \
    resend 0, handle 0, handled, handled, run 0, told 0 0, late 1, resend 0, run 0, told 0 1
a resend is for the interrupt that was deferred, not for one in dispatch: \
    send, take 0, disabled, send, take 0, resend 0, handle 0, handled, run 0, told 0 0, \
    resend 0, run 0, told 0 1
an unhandled message keeps the record unsettled: send, run 0, send, unsettled, abandon, settled
a message that was not sent does not count: \
    sending, unsent, messages 0, settled, run 0, told 0 1";

#[test]
fn the_oracle_reports_the_faults_of_each_history() {
    for pending in BOTH {
        play_all(pending, HISTORIES);
    }
}

#[test]
fn a_device_stops_sending_when_far_ahead_of_its_handler() {
    let rig = Rig::new(Pending::Travels);
    let sent = (0..2 * AHEAD).take_while(|_| rig.record.send(|| SendOutcome::Sent)).count();
    assert_eq!(u64::try_from(sent), Ok(AHEAD));
    rig.play("far ahead", "run 0, send");
}

#[test]
fn the_oracle_reports_no_fault_from_overwritten_history() {
    for pending in BOTH {
        let rig = Rig::new(pending);
        rig.play("overwritten", "send, look, move 1");
        (0..3 * WINDOW).for_each(|_| rig.play("overwritten", "send, run 1"));
        rig.play("overwritten", "run-late 0, told 0 0");
    }
}
