//! Scenarios in which commands change LPIs that are in list registers.

use super::event_lpis::{LPI, one_event, spawn};
use super::explore;
use super::machine::{Commands, Machine, NO_LPIS};
use super::std::vec;
use crate::lpi::Injection;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use shuttle::thread;

/// Action of the guest on its list registers.
#[derive(Clone, Copy)]
enum LpiAction {
    Acknowledges,
    Masks,
}

/// Makes vCPU 0 enter and exit once. Returns `true` if the guest acknowledged an interrupt.
fn runs(machine: &Arc<Machine>, guest: LpiAction) -> thread::JoinHandle<bool> {
    spawn(machine, move |machine| {
        let mut vcpu = machine.vcpu(0);
        let listed = vcpu.enter();
        vcpu.exit(listed, matches!(guest, LpiAction::Masks));
        listed.is_some() && matches!(guest, LpiAction::Acknowledges)
    })
}

fn synced_while_listed() {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    let holds_it = Arc::new(AtomicBool::new(false));
    let runner = {
        let holds_it = holds_it.clone();
        spawn(&machine, move |machine| {
            let mut vcpu = machine.vcpu(0);
            let listed = vcpu.enter();
            holds_it.store(listed.is_some(), SeqCst);
            thread::yield_now();
            holds_it.store(false, SeqCst);
            vcpu.exit(listed, true);
        })
    };
    commands.movi(1, 0, 1);
    assert!(
        !commands.sync() || !holds_it.load(SeqCst),
        "the LPI is in the old vCPU's list register after SYNC"
    );
    runner.join().unwrap();
}

#[test]
fn sync_removes_a_moved_lpi_from_its_old_list_register() {
    explore(synced_while_listed);
}

fn mapped_anew_while_listed() {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    let runner = runs(&machine, LpiAction::Masks);
    commands.discard(1, 0);
    commands.map_event(1, 0, LPI, 0);
    runner.join().unwrap();
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS, "nothing signaled the new mapping");
}

#[test]
fn discarding_a_listed_lpi_does_not_signal_its_new_mapping() {
    explore(mapped_anew_while_listed);
}

/// The device of a listed LPI is unmapped. The entry's next owner is signaled, and is in a list
/// register of another vCPU.
fn next_owner_listed_meanwhile() {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    let runner = runs(&machine, LpiAction::Masks);
    commands.unmap_device(1);
    commands.map_device(2, 1);
    commands.map_event(2, 0, LPI, 1);
    machine.send(2, 0);
    let mut vcpu = machine.vcpu(1);
    let listed = vcpu.enter();
    runner.join().unwrap();
    vcpu.exit(listed, false);
    let taken = usize::from(listed.is_some()) + vcpu.drain().len();
    assert_eq!(taken, 1, "device 2 sent one message");
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS);
}

#[test]
fn an_exit_with_an_unmapped_lpi_does_not_signal_the_entrys_next_owner() {
    explore(next_owner_listed_meanwhile);
}

/// A signal of one event, whose LPI vCPU 0 acknowledges while `change` is in progress. Afterwards,
/// the vCPUs have acknowledged one LPI altogether.
fn acknowledged_during(change: fn(&mut Commands)) {
    for guest in [LpiAction::Acknowledges, LpiAction::Masks] {
        explore(move || {
            let (machine, mut commands) = one_event();
            machine.send(1, 0);
            let runner = runs(&machine, guest);
            change(&mut commands);
            let acknowledged = usize::from(runner.join().unwrap());
            assert!(commands.sync(), "SYNC must complete after all vCPUs have exited");
            let pending = [0, 1].map(|vcpu| machine.vcpu(vcpu).drain().len());
            let all = acknowledged + pending.iter().sum::<usize>();
            assert_eq!(all, 1, "{acknowledged} acknowledged and {pending:?} pending of one signal");
        });
    }
}

#[test]
fn an_lpi_acknowledged_during_movall_is_delivered_once() {
    acknowledged_during(|commands| commands.movall(0, 1));
}

#[test]
fn a_listed_lpi_moved_to_a_vcpu_with_disabled_lpis_is_delivered_once() {
    acknowledged_during(|commands| {
        commands.disable_lpis(1);
        commands.movi(1, 0, 1);
        commands.enable_lpis(1);
    });
}

/// MOVALL has moved the LPI to vCPU 1, which has it in a list register while the event follows.
/// Afterwards, the event sends `more` messages. Returns the numbers of LPIs that vCPU 1
/// acknowledged before and after that.
fn followed_while_listed(guest: LpiAction, more: usize) -> [usize; 2] {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    commands.movall(0, 1);
    let runner = spawn(&machine, move |machine| {
        let mut vcpu = machine.vcpu(1);
        let listed = vcpu.enter();
        vcpu.exit(listed, matches!(guest, LpiAction::Masks));
        listed.is_some() && matches!(guest, LpiAction::Acknowledges)
    });
    commands.movi(1, 0, 1);
    let acknowledged = usize::from(runner.join().unwrap());
    (0..more).for_each(|_| _ = machine.send(1, 0));
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS, "pending at the old vCPU");
    [acknowledged, machine.vcpu(1).drain().len()]
}

#[test]
fn a_listed_lpi_whose_event_moves_after_movall_is_delivered_once() {
    for guest in [LpiAction::Acknowledges, LpiAction::Masks] {
        explore(move || {
            assert_eq!(followed_while_listed(guest, 0).iter().sum::<usize>(), 1, "one signal");
        });
    }
}

#[test]
fn an_event_moved_to_its_listed_lpi_is_pending_once() {
    for guest in [LpiAction::Acknowledges, LpiAction::Masks] {
        explore(move || assert_eq!(followed_while_listed(guest, 1)[1], 1, "one is pending"));
    }
}

fn rung_while_listed() {
    let (machine, _commands) = one_event();
    machine.send(1, 0);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let runner = spawn(&machine, |machine| machine.vcpu(0).enter());
    let listed = runner.join().unwrap();
    sender.join().unwrap();
    let kicked = machine.kicks(0) == 1;
    machine.vcpu(0).exit(listed, false);
    let again = machine.vcpu(0).drain();
    assert!(again.is_empty() || kicked, "a message must force the guest to exit");
}

#[test]
fn a_message_for_a_listed_lpi_forces_an_exit() {
    explore(rung_while_listed);
}

/// A vCPU that has handled an LPI enters the guest twice while the next message arrives.
fn rung_while_entering() {
    let (machine, _commands) = one_event();
    machine.send(1, 0);
    assert_eq!(machine.vcpu(0).drain(), [LPI]);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let runner = spawn(&machine, |machine| {
        let mut vcpu = machine.vcpu(0);
        let first = vcpu.enter();
        vcpu.exit(first, true);
        let kicks = machine.kicks(0);
        (vcpu.enter(), kicks)
    });
    let (listed, before) = runner.join().unwrap();
    sender.join().unwrap();
    assert!(listed.is_some() || machine.kicks(0) > before, "the guest runs despite a pending LPI");
}

#[test]
fn a_message_during_a_vm_entry_is_listed_or_kicks_the_vcpu() {
    explore(rung_while_entering);
}

/// The old and the new target vCPU run while another message arrives.
fn moved_and_rung_while_listed() {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let old = runs(&machine, LpiAction::Masks);
    let new = spawn(&machine, |machine| {
        let mut vcpu = machine.vcpu(1);
        let listed = vcpu.enter();
        vcpu.exit(listed, true);
    });
    commands.movi(1, 0, 1);
    sender.join().unwrap();
    old.join().unwrap();
    new.join().unwrap();
    assert_eq!((machine.vcpu(0).drain(), machine.vcpu(1).drain()), (vec![], vec![LPI]));
}

#[test]
fn an_lpi_moved_while_signaled_is_pending_once() {
    explore(moved_and_rung_while_listed);
}

/// Makes a vCPU enter and exit twice, and read `number` whenever its guest acknowledges an
/// interrupt. Returns the last value read. If `masks` is set, the guest does not acknowledge
/// anything in the first run.
fn runs_twice(
    machine: &Arc<Machine>,
    vcpu: u16,
    number: &Arc<AtomicU64>,
    masks: bool,
) -> thread::JoinHandle<u64> {
    let number = number.clone();
    spawn(machine, move |machine| {
        let mut vcpu = machine.vcpu(vcpu);
        let mut seen = 0;
        for keeps in [masks, false] {
            let listed = vcpu.enter();
            if listed.is_some() && !keeps {
                seen = number.load(SeqCst);
            }
            vcpu.exit(listed, keeps);
        }
        seen
    })
}

/// Number of LPIs that one event can leave pending.
#[derive(Clone, Copy)]
enum Left {
    One,
    /// MOVALL and disabling LPIs transfer pending state to the redistributor.
    OneEach,
}

/// A sender numbers its messages, both vCPUs enter the guest twice, and commands execute in
/// between. The last message that was accepted must have been seen, or still be pending.
fn entered_again(change: fn(&mut Commands), left: Left) {
    let (machine, mut commands) = one_event();
    let number = Arc::new(AtomicU64::new(0));
    let sender = {
        let number = number.clone();
        spawn(&machine, move |machine| {
            (1..=3).fold(0, |last, message| {
                number.store(message, SeqCst);
                if machine.send(1, 0) == Injection::Dropped { last } else { message }
            })
        })
    };
    let vcpus = [0, 1].map(|vcpu| runs_twice(&machine, vcpu, &number, vcpu == 0));
    change(&mut commands);
    let last = sender.join().unwrap();
    let seen = vcpus.map(|vcpu| vcpu.join().unwrap()).into_iter().max().unwrap();
    assert!(commands.sync(), "SYNC must complete after all vCPUs have exited");
    let pending = [0, 1].map(|vcpu| machine.vcpu(vcpu).drain().len());
    let sum = pending.iter().sum::<usize>();
    assert!(sum > 0 || seen >= last, "message {last} was accepted, but {seen} was seen");
    assert!(pending.iter().all(|pending| *pending <= 1), "{pending:?} at one vCPU");
    assert!(sum <= 1 || matches!(left, Left::OneEach), "{pending:?} of one event");
}

fn entered_again_while_it_moves() {
    entered_again(
        |commands| {
            commands.movi(1, 0, 1);
            commands.inv(1, 0);
            commands.movi(1, 0, 0);
            commands.movi(1, 0, 1);
        },
        Left::One,
    );
}

fn entered_again_while_all_move() {
    entered_again(
        |commands| {
            commands.movall(0, 1);
            commands.movi(1, 0, 1);
            commands.movall(1, 0);
            commands.movi(1, 0, 0);
        },
        Left::OneEach,
    );
}

fn entered_again_while_lpis_are_disabled() {
    entered_again(
        |commands| {
            commands.disable_lpis(0);
            commands.movi(1, 0, 1);
            commands.enable_lpis(0);
            commands.movi(1, 0, 0);
        },
        Left::OneEach,
    );
}

fn entered_again_while_an_its_is_disabled() {
    entered_again(
        |commands| {
            commands.set_its_enabled(false);
            commands.movi(1, 0, 1);
            commands.set_its_enabled(true);
        },
        Left::One,
    );
}

/// Runs [`entered_again_while_all_move`], but MOVI also moves the event to the vCPU to which MOVALL
/// moved the LPI.
fn entered_again_while_the_event_follows() {
    entered_again(
        |commands| {
            commands.movall(0, 1);
            commands.movi(1, 0, 1);
        },
        Left::One,
    );
}

#[test]
fn vcpus_that_reenter_the_guest_lose_no_message() {
    explore(entered_again_while_it_moves);
    explore(entered_again_while_all_move);
    explore(entered_again_while_the_event_follows);
    explore(entered_again_while_lpis_are_disabled);
    explore(entered_again_while_an_its_is_disabled);
}
