//! Functions that are ejected, or removed while they send.

use crate::board::{Board, OTHER, SLOT, channel_to, faults, refusal};
use crate::tamper::Fate;
use hyperv_vpci::guest::{BusEvent, VpciError};
use hyperv_vpci::host::Host;
use hyperv_vpci::protocol::Slot;
use msi_types::{Delivery, MsiError, MsiParent};

fn drain(board: &Board) -> Vec<BusEvent> {
    std::iter::from_fn(|| board.bus.next_event()).collect()
}

#[test]
fn an_ejected_function_works_until_its_driver_confirms() {
    let (board, device, block, message) = Board::with_vector();
    drain(&board);
    board.kernel.change(|host| host.eject(SLOT).unwrap());
    board.hear();
    assert_eq!(drain(&board), [BusEvent::EjectRequested(SLOT)]);
    // The function works until the guest confirms the ejection.
    assert_eq!(board.send(message), Delivery::Pending);
    board.bus.free(&device, block);
    board.bus.detach(device);
    board.bus.eject_complete(SLOT).unwrap();
    board.hear();
    // The driver confirmed the ejection, so no event follows.
    assert_eq!(drain(&board), []);
    assert_eq!(board.bus.functions().unwrap().len(), 1);
    assert_eq!(board.bus.eject_complete(SLOT), Err(VpciError::NoFunction(SLOT)));
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_function_can_be_pulled_out_while_it_fires() {
    let board = Board::new();
    drain(&board);
    let (device, other) = (board.attach(SLOT), board.attach(OTHER));
    let (block, message) = board.vector(&device);
    let (kept, _) = board.vector(&other);
    let sender = board.devices[0].clone();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let sent =
                    msi_types::SignalMsi::signal_msi(&*sender, msi_types::NoIdentity, message);
                assert_ne!(sent, Delivery::NoDoorbell);
            }
        });
        board.kernel.change(|host| host.remove(SLOT).unwrap());
        assert_eq!(board.send(message), Delivery::Blocked);
        board.bus.mask(block.first());
        board.bus.set_pending(block.first(), msi_types::Pending::Clear);
        // The function must not send after the host has removed it.
        for _ in 0..1000 {
            assert_eq!(board.bus.is_pending(block.first()), Some(false));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    board.hear();
    assert_eq!(drain(&board), [BusEvent::Gone(SLOT)]);
    board.tamper.heard();
    board.bus.free(&device, block);
    board.bus.detach(device);
    // The host has already deleted the message, so the guest must not request its deletion.
    assert_eq!(board.requests(), []);
    assert_eq!(board.gic.claimed(), [kept.first().get()]);
    assert!(board.bus.attach(SLOT.requester(crate::board::BUS), 1).is_err());
}

#[test]
fn removing_a_function_drops_its_unread_ejection() {
    let board = Board::new();
    drain(&board);
    board.kernel.change(|host| host.eject(SLOT).unwrap());
    board.hear();
    board.kernel.change(|host| host.remove(SLOT).unwrap());
    board.hear();
    assert_eq!(drain(&board), [BusEvent::Gone(SLOT)]);
}

/// The host asks again after the bus was resumed.
#[test]
fn a_suspend_voids_the_ejections_of_before() {
    let board = Board::new();
    board.kernel.change(|host| host.eject(SLOT).unwrap());
    board.hear();
    assert!(drain(&board).contains(&BusEvent::EjectRequested(SLOT)));
    assert_eq!(board.bus.suspend(), Ok(()));
    let channel = channel_to(&board, Host::reset);
    assert_eq!(board.bus.resume(Box::new(channel)), Ok(()));
    assert_eq!(board.bus.eject_complete(SLOT), Err(VpciError::NoFunction(SLOT)));
}

#[test]
fn removing_a_function_ends_its_pending_request() {
    let (board, device, block) = Board::with_block();
    board.tamper.set(Fate::Lost);
    board.kernel.meanwhile(|side| side.host.remove(SLOT).unwrap());
    assert_eq!(refusal(&board.bus, &block), "the function was removed");
    board.bus.free(&device, block);
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_late_message_of_a_gone_function_is_not_deleted() {
    let (board, device, block) = Board::with_block();
    board.tamper.set(Fate::Kept);
    board.bus.compose(&block, 0).unwrap_err();
    board.tamper.set(Fate::Sent);
    board.replace(10);
    // The second function is allocated the same vector and therefore granted the same message.
    board.bus.free(&device, block);
    let again = board.attach(SLOT);
    let (second, _) = board.vector(&again);
    assert_eq!(second.first().get(), 64);
    board.let_go();
    assert_eq!(board.mapped(), 1);
}

#[test]
fn an_ejection_of_an_empty_slot_is_counted_as_a_fault() {
    use hyperv_vpci::channel::PacketKind;
    use hyperv_vpci::protocol::Notice;
    let board = Board::new();
    drain(&board);
    let mut message = [0; 8];
    Notice::Eject(Slot::new(9, 0)).emit(&mut message).unwrap();
    board.kernel.send(PacketKind::Notice, &message);
    board.hear();
    assert_eq!(drain(&board), []);
    assert_eq!(board.bus.faults(), faults(|faults| faults.unexpected = 1));
    let stray = board.bus.attach(Slot::new(9, 0).requester(crate::board::BUS), 1);
    assert!(matches!(stray, Err(MsiError::NoRoute(_))));
}
