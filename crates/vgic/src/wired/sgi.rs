//! Sending of SGIs.

use super::Wired;
use super::index::WiredIndex;
use super::interrupt::InterruptWord;
use super::pes::Private;
use crate::wakeup::WakeupWord;
use gic_arch::icc::Sgi;
use msi_types::Cpu;
use msi_types::explain::Group;

/// Sends an SGI for `ICC_SGI1R_EL1` or a related register, to all targets at which the SGI is
/// in `group`.
#[inline]
pub(crate) fn send_sgi(wired: &Wired, from: Cpu, sgi: Sgi, group: Group) {
    let Some(index) = WiredIndex::new(sgi.intid().into()) else { return };
    if sgi.all_but_self() {
        return send_to_others(wired, from, index, group);
    }
    wired.affinities.each_target(sgi, move |target| {
        let word = wired.wakeup.words().get(target.index());
        if let Some((private, word)) = wired.private(target).zip(word) {
            pend_sgi(wired, target, private, word, index, group);
        }
    });
}

/// Makes an SGI pending at all vCPUs but `from`.
#[inline(never)]
fn send_to_others(wired: &Wired, from: Cpu, index: WiredIndex, group: Group) {
    let parts = wired.privates().iter().zip(wired.wakeup.words());
    for (target, (private, word)) in (0..).map(Cpu::new).zip(parts) {
        if target != from {
            pend_sgi(wired, target, private, word, index, group);
        }
    }
}

/// Makes an SGI pending at `target`, if it is in `group` there. SGIs don't have an input,
/// aren't rerouted, and are never linked to a physical interrupt. `word` is the target's.
#[inline]
fn pend_sgi(
    wired: &Wired,
    target: Cpu,
    private: &Private,
    word: &WakeupWord,
    index: WiredIndex,
    group: Group,
) {
    let Some(interrupt) = private.interrupts.get(index.get()) else { return };
    let pend = |state: InterruptWord| state.latches(group).then(|| state.with_latch(true));
    if interrupt.try_update(pend).is_none() {
        return pend_other_sgi(wired, target, private, index, group);
    }
    private.candidates.set(index);
    if word.needs_kick() {
        kick_if_forwarded(wired, target, group);
    }
}

/// Makes an SGI pending that doesn't only have to be [latched](InterruptWord::latches).
#[cold]
fn pend_other_sgi(wired: &Wired, target: Cpu, private: &Private, index: WiredIndex, group: Group) {
    let Some(interrupt) = private.interrupts.get(index.get()) else { return };
    let pended =
        interrupt.try_update(|state| (state.group() == group).then(|| state.with_latch(true)));
    let Some((old, new)) = pended else { return };
    if new.ready() {
        // This also refreshes the list register, which can only be one of the target.
        wired.notify(target, private, index, group);
    } else {
        wired.refresh_listed(old, new);
    }
}

/// Kicks the target of an SGI that is ready, unless the distributor does not forward `group`.
#[cold]
fn kick_if_forwarded(wired: &Wired, target: Cpu, group: Group) {
    if wired.forwards(group) {
        wired.wakeup.kick(target);
    }
}
