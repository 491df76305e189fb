//! Scenarios for LPIs from mapped events, with concurrent senders, commands and vCPUs.

use super::machine::{Commands, Machine, NO_LPIS, machine, machine_of, machine_with, second_its};
use super::{explore, explore_more, store_buffer};
use crate::lpi::Injection;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::thread;

pub(super) const LPI: u32 = 8192;
pub(super) const OTHER: u32 = 8193;

pub(super) fn spawn<T: Send + 'static>(
    machine: &Arc<Machine>,
    act: impl FnOnce(Arc<Machine>) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let machine = machine.clone();
    thread::spawn(move || act(machine))
}

/// Creates a machine with one event of device 1, mapped to [`LPI`] at vCPU 0.
pub(super) fn one_event() -> (Arc<Machine>, Commands) {
    with_one_event(machine())
}

fn with_one_event((machine, mut commands): (Arc<Machine>, Commands)) -> (Arc<Machine>, Commands) {
    commands.map_device(1, 1);
    commands.map_event(1, 0, LPI, 0);
    (machine, commands)
}

/// Creates [`one_event`] with a second ITS, whose device 1 has an event of [`OTHER`] at vCPU 0.
pub(super) fn two_itses() -> ([Arc<Machine>; 2], [Commands; 2]) {
    let (first, commands) = with_one_event(machine_of(2, 512));
    let (second, mut others) = second_its(&first);
    others.map_device(1, 1);
    others.map_event(1, 0, OTHER, 0);
    ([first, second], [commands, others])
}

/// A sender numbers its messages in memory. The handler of the last interrupt must see the last
/// number.
fn the_last_message_is_seen() {
    let (machine, _commands) = one_event();
    let number = Arc::new(AtomicU64::new(0));
    let sender = {
        let number = number.clone();
        spawn(&machine, move |machine| {
            for message in 1..=2 {
                store_buffer::store(&number, message);
                machine.send(1, 0);
            }
        })
    };
    let handler = {
        let number = number.clone();
        spawn(&machine, move |machine| {
            let mut vcpu = machine.vcpu(0);
            let mut seen = 0;
            for _ in 0..2 {
                if vcpu.take().is_some() {
                    seen = number.load(SeqCst);
                }
            }
            seen
        })
    };
    sender.join().unwrap();
    let seen = handler.join().unwrap();
    // The store buffer may delay the sender's store arbitrarily, but no longer than its interrupt
    // is in flight.
    let left = machine.vcpu(0).take();
    store_buffer::drain_all();
    assert!(left.is_some() || seen == 2, "message 2 was delivered, but {seen} was seen");
}

#[test]
fn the_last_handler_sees_the_last_coalesced_message() {
    explore(the_last_message_is_seen);
}

/// An ITS moves an event while another ITS maps one. Messages arrive for both, and both vCPUs enter
/// the guest, acknowledge an interrupt, and fall asleep.
fn movi_beside_mapti(is_pending: bool) {
    let ([first, second], [mut mover, mut mapper]) = two_itses();
    if is_pending {
        first.send(1, 0);
    }
    mapper.discard(1, 0);
    let vcpus = [0, 1].map(|vcpu| {
        spawn(&first, move |machine| {
            let mut vcpu = machine.vcpu(vcpu);
            let listed = vcpu.enter();
            vcpu.exit(listed, false);
            (usize::from(listed.is_some()), vcpu.leave())
        })
    });
    let senders = [&first, &second].map(|its| spawn(its, |machine| machine.send(1, 0)));
    let mapper = thread::spawn(move || mapper.map_event(1, 0, OTHER, 1));
    mover.movi(1, 0, 1);
    assert_eq!(mover.pending(0), NO_LPIS, "pending at the old vCPU after the move");
    mapper.join().unwrap();
    let sent = senders.map(|sender| sender.join().unwrap());
    let fresh = sent.iter().filter(|sent| **sent == Injection::Fresh).count();
    let [(old, _), (new, sleeps)] = vcpus.map(|vcpu| vcpu.join().unwrap());
    assert_eq!(first.vcpu(0).drain(), NO_LPIS);
    let left = first.vcpu(1).drain().len();
    assert!(!sleeps || left == 0 || first.kicks(1) > 0, "the vCPU sleeps over an interrupt");
    assert_eq!(old + new + left, usize::from(is_pending) + fresh, "one interrupt per message");
}

#[test]
fn movi_races_with_another_itss_mapti() {
    explore(|| movi_beside_mapti(false));
    explore(|| movi_beside_mapti(true));
}

/// An ITS executes MOVALL while another ITS invalidates an event, and messages arrive for both.
fn movall_against_senders() {
    let ([first, second], [mut commands, mut others]) = two_itses();
    first.send(1, 0);
    let senders = [&first, &second].map(|its| spawn(its, |machine| machine.send(1, 0)));
    let old = spawn(&first, |machine| machine.vcpu(0).drain().len());
    let other = thread::spawn(move || others.inv(1, 0));
    commands.movall(0, 1);
    other.join().unwrap();
    let sent = senders.map(|sender| sender.join().unwrap());
    let fresh = sent.iter().filter(|sent| **sent == Injection::Fresh).count();
    let taken = old.join().unwrap() + first.vcpu(0).drain().len() + first.vcpu(1).drain().len();
    assert_eq!(taken, 1 + fresh);
}

#[test]
fn movall_neither_loses_nor_duplicates_an_lpi() {
    explore(movall_against_senders);
}

/// MOVALL has moved the LPI away from its event. MOVI then moves the event while a message arrives,
/// and the new vCPU may take interrupts concurrently.
fn an_event_follows_its_lpi(is_running: bool) {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    commands.movall(0, 1);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let vcpu = spawn(&machine, move |machine| is_running && machine.vcpu(1).take().is_some());
    commands.movi(1, 0, 1);
    let taken = vcpu.join().unwrap();
    let second = sender.join().unwrap() == Injection::Fresh;
    let left = machine.vcpu(1).drain().len();
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS);
    assert!(left <= 1, "pending {left} times at one vCPU");
    assert!(taken || left == 1, "the LPI is lost");
    assert!(!taken || left == 0 || second, "one message caused two interrupts");
}

#[test]
fn an_event_moved_to_its_pending_lpi_is_pending_once() {
    explore(|| an_event_follows_its_lpi(false));
    explore(|| an_event_follows_its_lpi(true));
}

/// One thread disables an LPI and rereads its configuration, while another thread rereads it at the
/// LPI's redistributor.
fn two_threads_reread_a_configuration() {
    let (machine, mut commands) = one_event();
    let other = spawn(&machine, |machine| machine.invalidate(0, LPI));
    let disabler = spawn(&machine, move |machine| {
        machine.configure(LPI, false, 0xa0);
        commands.inv(1, 0);
    });
    other.join().unwrap();
    disabler.join().unwrap();
    machine.send(1, 0);
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS, "INV has no effect");
}

#[test]
fn a_concurrent_reread_does_not_undo_an_inv() {
    explore(two_threads_reread_a_configuration);
}

/// Two threads enable a pending LPI each, of which each wakes another vCPU.
fn two_commands_wake_two_vcpus() {
    let (machine, mut commands) = one_event();
    commands.map_event(1, 1, OTHER, 1);
    for (event, number) in [(0, LPI), (1, OTHER)] {
        machine.configure(number, false, 0xa0);
        commands.inv(1, event);
        machine.send(1, event);
        machine.configure(number, true, 0xa0);
        assert!(machine.vcpu(event.try_into().unwrap()).leave());
    }
    let other = spawn(&machine, |machine| machine.invalidate(1, OTHER));
    commands.inv(1, 0);
    other.join().unwrap();
    assert_eq!([0, 1].map(|vcpu| machine.kicks(vcpu)), [1, 1]);
}

#[test]
fn concurrent_invalidations_each_wake_their_vcpu() {
    explore(two_commands_wake_two_vcpus);
}

/// Device 1 sends while its entries are reassigned to device 2.
fn slots_change_hands() {
    let (machine, mut commands) = one_event();
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    commands.unmap_device(1);
    commands.map_device(2, 1);
    commands.map_event(2, 0, OTHER, 1);
    sender.join().unwrap();
    assert_eq!(machine.vcpu(1).drain(), NO_LPIS, "device 1 signaled device 2's interrupt");
    assert_eq!(machine.vcpu(0).drain(), NO_LPIS);
}

#[test]
fn a_late_message_never_signals_a_reused_translation_entry() {
    explore_more(20, slots_change_hands);
}

/// Runs [`slots_change_hands`], but also reassigns the device table entry to the next device.
fn entries_change_hands() {
    let (machine, mut commands) = machine_with(17);
    commands.map_device(1, 1);
    commands.map_event(1, 0, LPI, 0);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    commands.unmap_device(1);
    commands.map_device(0x1_0001, 1);
    commands.map_event(0x1_0001, 0, OTHER, 1);
    sender.join().unwrap();
    assert_eq!(machine.vcpu(1).drain(), NO_LPIS, "device 1 signaled device 0x1_0001's LPI");
}

#[test]
fn a_late_message_never_signals_a_reused_device_entry() {
    explore_more(8, entries_change_hands);
}

/// Runs [`slots_change_hands`] for a device that has enough events to need a node between its
/// device table entry and its translation entries.
fn nodes_change_hands() {
    let (machine, mut commands) = machine();
    commands.map_device(1, 7);
    commands.map_event(1, 0, LPI, 0);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    commands.unmap_device(1);
    commands.map_device(2, 7);
    commands.map_event(2, 0, OTHER, 1);
    sender.join().unwrap();
    assert_eq!(machine.vcpu(1).drain(), NO_LPIS, "device 1 signaled device 2's interrupt");
}

#[test]
fn a_late_message_never_signals_a_reused_node() {
    explore_more(60, nodes_change_hands);
}

fn lpis_are_disabled() {
    let (machine, mut commands) = one_event();
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let handler = spawn(&machine, |machine| machine.vcpu(0).take().is_some());
    commands.disable_lpis(0);
    let after = commands.pending(0);
    let sent = sender.join().unwrap() != Injection::Dropped;
    let taken = handler.join().unwrap();
    assert_eq!(after, NO_LPIS, "pending after EnableLPIs was cleared");
    assert_eq!(commands.pending(0), NO_LPIS, "became pending after EnableLPIs was cleared");
    assert_eq!(usize::from(taken) + usize::from(machine.table_has(0, LPI)), usize::from(sent));
}

#[test]
fn disabling_lpis_delivers_or_saves_a_concurrent_message() {
    explore(lpis_are_disabled);
}

/// An LPI is already set in the pending table, and a message for it arrives while LPIs are being
/// enabled.
fn lpis_are_enabled() {
    let (machine, mut commands) = one_event();
    machine.send(1, 0);
    commands.disable_lpis(0);
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let handler = spawn(&machine, |machine| machine.vcpu(0).drain().len());
    commands.enable_lpis(0);
    let after = machine.send(1, 0);
    let fresh =
        [sender.join().unwrap(), after].iter().filter(|sent| **sent == Injection::Fresh).count();
    assert_ne!(after, Injection::Dropped, "LPIs are enabled");
    let taken = handler.join().unwrap() + machine.vcpu(0).drain().len();
    assert_eq!(taken, 1 + fresh, "the LPI in the table and the messages must be delivered");
}

#[test]
fn enabling_lpis_delivers_saved_and_newly_arriving_lpis() {
    explore(lpis_are_enabled);
}

/// Two events have different priorities. The path to the first event's ready bit is empty, and
/// isn't the path used last.
fn a_path_is_pruned() {
    let (machine, mut commands) = machine();
    machine.configure(OTHER, true, 0x20);
    commands.map_device(1, 1);
    commands.map_event(1, 0, LPI, 0);
    commands.map_event(1, 1, OTHER, 0);
    let mut vcpu = machine.vcpu(0);
    machine.send(1, 0);
    assert_eq!(vcpu.take(), Some(LPI));
    machine.send(1, 1);
    assert_eq!(vcpu.take(), Some(OTHER));
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let handler = thread::spawn(move || vcpu.drain());
    sender.join().unwrap();
    let taken = handler.join().unwrap().len();
    assert_eq!(taken + machine.vcpu(0).drain().len(), 1, "the hint was pruned away");
}

/// The checking thread hasn't taken an interrupt before, so no summary bits on the path are
/// preserved.
fn a_cold_path_is_pruned() {
    let (machine, _commands) = one_event();
    machine.send(1, 0);
    assert_eq!(machine.vcpu(0).take(), Some(LPI));
    let sender = spawn(&machine, |machine| machine.send(1, 0));
    let handler = spawn(&machine, |machine| machine.vcpu(0).drain().len());
    sender.join().unwrap();
    assert_eq!(
        handler.join().unwrap() + machine.vcpu(0).drain().len(),
        1,
        "the hint was pruned away"
    );
}

#[test]
fn clearing_the_summary_bits_of_an_empty_path_loses_no_lpi() {
    explore(a_path_is_pruned);
}

#[test]
fn clearing_summary_bits_on_a_path_not_used_before_loses_no_lpi() {
    explore(a_cold_path_is_pruned);
}
