//! Freed vectors must not be allocated again while the host may still send their messages.

use crate::asleep::Hooked;
use crate::board::{ADDRESS, Board, OTHER, SLOT, faults, function, refusal, request};
use crate::gic::Gic;
use crate::tamper::{Change, Fate};
use hyperv_vpci::channel::{ChannelError, PacketKind};
use hyperv_vpci::guest::{Faults, VpciError};
use hyperv_vpci::protocol::{Request, Slot};
use msi_types::{Attachment, Delivery, HwIrqBlock, MsiError, MsiMessage, MsiParent, Shape};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Answers that do not confirm a deletion: a failure, and an answer without a status.
const UNCONFIRMED: [(Change, u32); 2] =
    [(|answer| answer[3] = 0xc0, 0), (|answer| answer.truncate(0), 1)];

pub(crate) fn board() -> Board {
    Board::over(|ring, _| Box::new(ring))
}

/// Asserts that the vector still belongs to its old owner, so that its message cannot reach another
/// owner.
fn is_kept(board: &Board, first: u32, message: MsiMessage) {
    let spi = board.gic.spi(first);
    assert!(spi.claimed && !spi.enabled);
    assert_eq!(board.send(message), Delivery::Pending);
    let other = board.attach(OTHER);
    let next = board.bus.allocate(&other, &request(1, Shape::Independent)).unwrap();
    assert_ne!(next.first().get(), first);
    assert!(!board.gic.spi(next.first().get()).pending);
    board.bus.free(&other, next);
    board.bus.detach(other);
}

/// Asserts that the host deleted the message and the vector is free.
fn is_free(board: &Board, first: u32, message: MsiMessage) {
    assert!(!board.gic.spi(first).claimed);
    assert_eq!(board.send(message), Delivery::Blocked);
}

/// Requests a vector's message `count` times without receiving an answer.
pub(crate) fn compose_in_vain(board: &Board, block: &HwIrqBlock, count: usize) {
    for _ in 0..count {
        assert_eq!(refusal(&board.bus, block), "the host did not answer in time");
    }
}

/// Frees a vector whose message was requested `count` times, while the host keeps its answers.
fn free_requested(board: &Board, device: &Attachment, count: usize) {
    let block = board.bus.allocate(device, &request(1, Shape::Independent)).unwrap();
    board.tamper.set(Fate::Kept);
    compose_in_vain(board, &block, count);
    board.tamper.set(Fate::Sent);
    board.bus.free(device, block);
    assert_eq!(board.gic.claimed(), [64]);
}

#[test]
fn a_freed_vector_stays_claimed_while_its_message_request_is_pending() {
    for count in [1, 3] {
        let board = Board::new();
        let (device, other) = (board.attach(SLOT), board.attach(OTHER));
        free_requested(&board, &device, count);
        // The host has granted SPI 64 already, and would refuse it to another function.
        let (second, _) = board.vector(&other);
        assert_eq!((second.first().get(), board.mapped()), (65, 2));
        board.let_go();
        assert_eq!((board.gic.claimed(), board.mapped()), (vec![65], 1));
        assert_eq!(board.vector(&other).0.first().get(), 64);
    }
}

#[test]
fn a_freed_vector_stays_claimed_while_a_second_request_is_unanswered() {
    let (board, device, block) = Board::with_block();
    board.tamper.set(Fate::Kept);
    compose_in_vain(&board, &block, 1);
    // The host answers the second request first, with the same message.
    let [status, count, data] = [0, 1 << 16, 64].map(u32::to_le_bytes);
    let answer = [status, status, count, data].concat();
    board.tamper.set(Fate::Replaced([&answer[..], &ADDRESS.to_le_bytes()].concat()));
    assert!(board.bus.compose(&block, 0).is_ok());
    board.tamper.set(Fate::Sent);
    board.bus.free(&device, block);
    assert_eq!((board.gic.claimed(), board.mapped()), (vec![64], 0));
    board.let_go();
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_freed_vector_is_released_once_every_request_is_refused() {
    let (board, device) = Board::with_device();
    free_requested(&board, &device, 2);
    let kinds = board.tamper.heard().into_iter().map(|(kind, _)| kind);
    let ids = kinds.filter_map(|kind| match kind {
        PacketKind::Request(id) => Some(id),
        _ => None,
    });
    for (id, claimed) in ids.zip([&[64][..], &[]]) {
        let refusal = 0xc000_0001_u32.to_le_bytes();
        board.kernel.send(PacketKind::Completion(id), &refusal);
        board.hear();
        assert_eq!(board.gic.claimed(), claimed);
    }
    assert_eq!(board.bus.faults(), faults(|faults| faults.late = 2));
}

#[test]
fn a_function_removal_releases_a_vector_with_a_pending_request() {
    let (board, device) = Board::with_device();
    free_requested(&board, &device, 1);
    board.replace(7);
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_deletion_beyond_64_requests_is_sent_once_one_is_answered() {
    let (board, device, block, message) = Board::with_vector();
    let first = block.first().get();
    let other = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    board.tamper.set(Fate::Kept);
    compose_in_vain(&board, &other, 64);
    board.tamper.set(Fate::Sent);
    board.requests();
    board.bus.free(&device, block);
    assert_eq!(board.requests(), []);
    is_kept(&board, first, message);
    board.let_go();
    board.rest();
    is_free(&board, first, message);
    assert_eq!(board.mapped(), 0);
}

#[test]
fn deletions_that_find_a_full_ring_are_sent_once_there_is_room() {
    let board = board();
    let device = board.attach(SLOT);
    let vectors: Vec<_> = (0..4).map(|_| board.vector(&device)).collect();
    let messages: Vec<_> = vectors.iter().map(|(_, message)| *message).collect();
    let other = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    board.kernel.stall();
    // Each request takes 112 of the ring's 4088 bytes, so the first deletion still has room.
    compose_in_vain(&board, &other, 40);
    for (block, _) in vectors {
        board.bus.free(&device, block);
    }
    for (first, message) in (64..).zip(&messages) {
        is_kept(&board, first, *message);
    }
    board.kernel.go_on();
    board.rest();
    for (first, message) in (64..).zip(&messages) {
        is_free(&board, first, *message);
    }
    assert_eq!((board.mapped(), board.gic.claimed()), (0, vec![other.first().get()]));
}

#[test]
fn no_message_overtakes_a_deletion_that_waits_for_ring_room() {
    let board = board();
    let (third, fourth) = (Slot::new(2, 0), Slot::new(3, 0));
    board.kernel.change(|host| [third, fourth].map(|slot| host.offer(function(slot)).unwrap()));
    board.rest();
    let device = board.attach(SLOT);
    let (block, _) = board.vector(&device);
    let other = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    board.requests();
    board.kernel.stall();
    // The ring has 40 of its 4088 bytes left, which is enough for a notice of 32 bytes but not for
    // a deletion of 48.
    compose_in_vain(&board, &other, 35);
    board.bus.eject_complete(OTHER).unwrap();
    board.bus.eject_complete(third).unwrap();
    board.bus.free(&device, block);
    assert!(matches!(board.bus.eject_complete(fourth), Err(VpciError::Silent(_))));
    board.kernel.go_on();
    board.rest();
    board.bus.eject_complete(fourth).unwrap();
    let requests = board.requests();
    let place = |wanted: &dyn Fn(&Request) -> bool| requests.iter().position(wanted).unwrap();
    let deleted = place(&|request| matches!(request, Request::DeleteInterrupt { .. }));
    assert!(deleted < place(&|request| *request == Request::ReleaseResources(fourth)));
}

#[test]
fn a_refused_deletion_keeps_the_vector() {
    for (change, malformed) in UNCONFIRMED {
        let (board, device, block, _) = Board::with_vector();
        board.tamper.set(Fate::Changed(change));
        board.bus.free(&device, block);
        board.tamper.set(Fate::Sent);
        assert_eq!(board.gic.claimed(), [64]);
        assert_eq!(board.bus.faults(), faults(|faults| faults.malformed = malformed));
        let (next, _) = board.vector(&device);
        assert_eq!(next.first().get(), 65);
        board.bus.free(&device, next);
        board.bus.close().unwrap();
        assert!(board.gic.claimed().is_empty());
    }
}

#[test]
fn a_removal_ends_unconfirmed_deletions() {
    for fate in [Fate::Lost, Fate::Changed(UNCONFIRMED[0].0)] {
        let board = Board::new();
        let (device, other) = (board.attach(SLOT), board.attach(OTHER));
        let (block, _) = board.vector(&device);
        let (kept, _) = board.vector(&other);
        board.tamper.set(fate);
        board.bus.free(&device, block);
        board.bus.free(&other, kept);
        board.tamper.set(Fate::Sent);
        assert_eq!(board.gic.claimed(), [64, 65]);
        board.kernel.change(|host| host.remove(SLOT).unwrap());
        board.hear();
        assert_eq!(board.gic.claimed(), [65]);
    }
}

/// Records the vectors that are claimed at the GIC when its channel is closed.
struct AtClose(Arc<Gic>, Arc<Mutex<Vec<u32>>>);

impl Drop for AtClose {
    fn drop(&mut self) {
        *self.1.lock().unwrap() = self.0.claimed();
    }
}

fn rescindable() -> (Board, Arc<AtomicBool>, Arc<Mutex<Vec<u32>>>) {
    failing(ChannelError::Closed)
}

/// Returns a board whose channel fails once the flag is set.
pub(crate) fn failing(error: ChannelError) -> (Board, Arc<AtomicBool>, Arc<Mutex<Vec<u32>>>) {
    let (has_failed, claimed_at_close) = <(Arc<AtomicBool>, _)>::default();
    let board = Board::over(|inner, gic| {
        let has_failed = has_failed.clone();
        let at_close = AtClose(gic.clone(), Arc::clone(&claimed_at_close));
        Box::new(Hooked(inner, move |_| {
            let _ = &at_close;
            if has_failed.load(SeqCst) { Err(error) } else { Ok(()) }
        }))
    });
    (board, has_failed, claimed_at_close)
}

#[test]
fn a_rescinded_channel_ends_unconfirmed_deletions() {
    let (board, is_rescinded, _) = rescindable();
    let device = board.attach(SLOT);
    let ((before, _), (after, _)) = (board.vector(&device), board.vector(&device));
    board.tamper.set(Fate::Lost);
    board.bus.free(&device, before);
    assert_eq!(board.gic.claimed(), [64, 65]);
    is_rescinded.store(true, SeqCst);
    let operation = "receive";
    let ended = VpciError::Channel { operation, error: ChannelError::Closed };
    assert_eq!(board.bus.poll(), Err(ended));
    assert_eq!(board.gic.claimed(), [65]);
    board.bus.free(&device, after);
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn vectors_are_released_only_after_the_channel_is_closed() {
    let (board, _, claimed_at_close) = rescindable();
    let device = board.attach(SLOT);
    let (block, _) = board.vector(&device);
    board.tamper.set(Fate::Lost);
    board.bus.free(&device, block);
    assert!(matches!(board.bus.close(), Err(VpciError::Silent(_))));
    assert_eq!(*claimed_at_close.lock().unwrap(), [64]);
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn vectors_with_unconfirmed_deletions_count_toward_the_bus_limit() {
    let board = board();
    let device = board.attach(SLOT);
    let group = request(8, Shape::AlignedGroup);
    let block = board.bus.allocate(&device, &group).unwrap();
    board.bus.compose(&block, 0).unwrap();
    board.tamper.set(Fate::Kept);
    board.bus.free(&device, block);
    let other = board.attach(OTHER);
    let held = board.bus.allocate(&other, &group).unwrap();
    // The bus has 16 vectors.
    let full = board.bus.allocate(&other, &request(1, Shape::Independent));
    assert_eq!(full, Err(MsiError::NoVectors { wanted: 1 }));
    board.let_go();
    assert!(board.bus.allocate(&other, &request(1, Shape::Independent)).is_ok());
    assert_eq!(held.first().get(), 72);
}

#[test]
fn a_vector_freed_in_atomic_context_is_released_once_the_host_confirms() {
    let (board, device, block, message) = Board::with_vector();
    let first = block.first().get();
    board.kernel.may_wait.store(false, SeqCst);
    board.bus.free(&device, block);
    assert!(board.gic.spi(first).claimed);
    board.kernel.may_wait.store(true, SeqCst);
    board.hear();
    is_free(&board, first, message);
    assert_eq!(board.bus.faults(), Faults::default());
}

#[test]
fn an_unanswered_deletion_does_not_prevent_an_ejection() {
    let (board, device, block, _) = Board::with_vector();
    board.kernel.change(|host| host.eject(SLOT).unwrap());
    board.hear();
    board.requests();
    board.tamper.set(Fate::Kept);
    board.bus.free(&device, block);
    board.bus.detach(device);
    board.bus.eject_complete(SLOT).unwrap();
    let completed = [Request::ReleaseResources(SLOT), Request::EjectionComplete(SLOT)];
    let requests = board.requests();
    assert!(matches!(requests[0], Request::DeleteInterrupt { .. }), "{requests:?}");
    assert_eq!(requests[1..], completed);
}
