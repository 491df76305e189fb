//! Faults that depend on whether all CPUs share one pending bit or have one each.

use super::*;

const SHARED: &str = "\
a late run at the old CPU is wrong: send, move 1, run 1, send, run 0, told 1 0
two messages explain two acknowledgments in unknown order, but not three: \
    send 5, run 0, look, send 2, run 0, run-late 0, told 0 0, run-late 0, told 0 1
an early acknowledgment excuses a late run if another CPU accounts for its message: \
    send, take 0, send, handle 0, handled, look, move 1, send, run 1, run-late 0, told 0 0
a message in flight excuses a late run at the old CPU, once: \
    send, sending, run 0, take 0, sent, move 1, send, handle 0, handled, told 0 0, run 0, told 1 0
a message in flight is due once: send 5, run 0, sending, run 0, run 0, sent, told 0 1
the CPU acknowledges a message before a slow resend: \
    send, take 0, handle 0, send, take 0, deferred, resending 0, \
    sending, run 0, sent, send, run 0, resent 0, handled, run 0, told 0 0, run 0, told 0 1
a run before the message was for the resend: \
    send, take 0, handle 0, send, take 0, deferred, resending 0, \
    run 0, send 2, run 0, resent 0, handled, run 0, told 0 1";

const PER_CPU: &str = "\
a message stays at the old CPU: send, move 1, send, run 1, run 0, told 0 0
a second run at a former target is wrong, and one more than messages: \
    send, move 1, run 0, send, run 1, run 0, told 1 1
a message excuses no run at a later target, as if it was secretly resent: \
    send, move 1, run 1, told 0 1
a resend runs at the reported CPU: send, move 1, carry 1, run 1, told 0 0
a needless resend excuses one run only: \
    send, run 0, move 1, guess 1, run 1, told 0 0, unknowable 1, run 1, told 0 1
a resend to a CPU that is not the target excuses no run: send, guess 2, run 2, told 1 0
a message taken by another CPU is not pending: send, move 1, send, take 1, handle 1, take 0, \
    resend 1, deferred, handled, run 1, told 0 0, send, run 0, told 1 0
a held message may arrive during the operation: \
    begin, sending, held, move 1, end, run 1, told 0 0, run 1, told 0 1
a message held until the operation ends is due once: \
    send 5, run 0, begin, sending, end, held, run 0, run 0, told 0 1
a message in flight excuses no run at a CPU that is not a target: \
    sending, run 1, sent, told 1 0
a message during a move may arrive at the old CPU: sending, move 1, sent, run 0, told 0 0
a message during a move may arrive at the new CPU: sending, move 1, sent, run 1, told 0 0
a run at an emptied CPU is spurious: send, move 1, emptied 0, run 0, told 0 1
a message sent before free does not excuse a later run: \
    guess 0, run 0, send, abandon, allocate, run 0, told 0 1, unknowable 1";

#[test]
fn the_oracle_distinguishes_shared_from_per_cpu_pending_bits() {
    play_all(Pending::Travels, SHARED);
    play_all(Pending::Stays, PER_CPU);
}

#[test]
fn a_needless_resend_excuses_no_other_vector() {
    let [rig, other] = [(); 2].map(|()| Rig::new(Pending::Stays));
    other.play("other", "guess 0");
    rig.play("vector", "send, run 0, run 0, told 0 1");
    other.play("other", "told 0 0");
}
