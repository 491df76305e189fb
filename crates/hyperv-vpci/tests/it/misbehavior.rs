//! Hosts that answer late, wrongly, twice or never.

use crate::board::{Board, OTHER, SLOT, faults, reason, refusal, request};
use crate::deletions::failing;
use crate::tamper::{Change, Fate};
use hyperv_vpci::channel::{Channel, ChannelError, Idle, PacketKind};
use hyperv_vpci::guest::Faults;
use hyperv_vpci::ring::RingError;
use msi_types::{Delivery, MsiParent, Shape};
use std::sync::atomic::Ordering::SeqCst;

/// Invalid answers of the host, each with the guest's reason for refusing it.
const WRONG: [(Change, &str); 5] = [
    (|answer| answer[10] = 2, "the host granted a different number of vectors"),
    (|answer| answer.truncate(8), "a message is malformed"),
    (|answer| answer.truncate(0), "a message is malformed"),
    (|answer| answer[3] = 0xc0, "the host refused"),
    (|answer| answer[3] = 0x80, "the host refused"),
];

#[test]
fn malformed_answers_are_refused_without_effect() {
    for (change, expected) in WRONG {
        let (board, device, block) = Board::with_block();
        board.tamper.set(Fate::Changed(change));
        assert_eq!(refusal(&board.bus, &block), expected);
        board.tamper.set(Fate::Sent);
        // The bus still works.
        let other = board.attach(OTHER);
        let (second, message) = board.vector(&other);
        assert_eq!(board.bus.faults(), Faults::default());
        assert_eq!(message.data, second.first().get());
        board.bus.free(&device, block);
        assert_eq!(board.gic.claimed(), [second.first().get()]);
    }
}

#[test]
fn an_unaligned_group_answer_is_refused() {
    let (board, device) = Board::with_device();
    let block = board.bus.allocate(&device, &request(4, Shape::AlignedGroup)).unwrap();
    board.tamper.set(Fate::Changed(|answer| answer[12] |= 2));
    assert_eq!(refusal(&board.bus, &block), "the host's data is not aligned to the group");
}

#[test]
fn a_message_of_another_vector_is_refused() {
    let (board, device, first, message) = Board::with_vector();
    let block = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    // The first vector is SPI 64, and this one is SPI 65.
    board.tamper.set(Fate::Changed(|answer| answer[12] = 64));
    assert_eq!(refusal(&board.bus, &block), "the host gave this message to another interrupt");
    board.tamper.set(Fate::Sent);
    assert_eq!(board.bus.poll(), Ok(Idle::Sleep));
    board.kernel.side.lock().unwrap().serve().unwrap();
    // The message of the first vector still works.
    assert_eq!(board.send(message), Delivery::Pending);
    assert_eq!(board.gic.acknowledge(0), Some(first.first().get()));
}

#[test]
fn a_second_answer_is_ignored() {
    let (board, device) = Board::with_device();
    board.tamper.set(Fate::Doubled);
    let (one, _) = board.vector(&device);
    let (two, message) = board.vector(&device);
    assert_eq!(message.data, two.first().get());
    board.kernel.signals.settle();
    board.tamper.set(Fate::Sent);
    assert_eq!(board.bus.poll(), Ok(Idle::Sleep));
    assert_eq!(board.bus.faults(), faults(|faults| faults.unexpected = 2));
    board.bus.free(&device, one);
    board.bus.free(&device, two);
    assert_eq!(board.mapped(), 0);
}

#[test]
fn an_answer_without_a_request_is_ignored() {
    let (board, device) = Board::with_device();
    for id in [0, 1, 1000, u64::MAX] {
        board.kernel.send(PacketKind::Completion(id), &[0; 24]);
    }
    let (_, message) = board.vector(&device);
    assert_eq!(message.data, 64);
    assert_eq!(board.bus.faults().unexpected, 4);
}

#[test]
fn a_request_to_a_silent_host_times_out() {
    let (board, device, block) = Board::with_block();
    board.tamper.set(Fate::Lost);
    assert_eq!(refusal(&board.bus, &block), "the host did not answer in time");
    board.tamper.set(Fate::Sent);
    board.requests();
    // The vector has no message to delete, but the host may still grant one.
    board.bus.free(&device, block);
    assert_eq!((board.requests(), board.gic.claimed()), (vec![], vec![64]));
    board.bus.close().unwrap();
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_late_message_is_returned_to_the_host() {
    let (board, _device, block) = Board::with_block();
    board.tamper.set(Fate::Kept);
    board.bus.compose(&block, 0).unwrap_err();
    assert_eq!(board.mapped(), 1);
    board.let_go();
    assert_eq!(board.mapped(), 0);
    assert_eq!(board.bus.faults(), faults(|faults| faults.late = 1));
    // Another message can now be requested for the vector.
    assert!(board.bus.compose(&block, 0).is_ok());
}

#[test]
fn an_unconfirmed_deletion_keeps_the_vector() {
    let (board, device, block, _) = Board::with_vector();
    let first = block.first().get();
    board.tamper.set(Fate::Kept);
    board.bus.free(&device, block);
    board.bus.detach(device);
    // The host may still send the message, so the vector must stay masked and claimed.
    let spi = board.gic.spi(first);
    assert!(spi.claimed && !spi.enabled);
    board.tamper.set(Fate::Sent);
    let other = board.attach(OTHER);
    assert_eq!(board.vector(&other).0.first().get(), first + 1);
    board.let_go();
    assert!(!board.gic.spi(first).claimed);
    assert_eq!(board.vector(&other).0.first().get(), first);
}

#[test]
fn unanswered_requests_are_bounded() {
    let (board, device, block) = Board::with_block();
    board.tamper.set(Fate::Lost);
    let reasons: Vec<_> =
        (0..70).map(|_| reason(board.bus.compose(&block, 0).unwrap_err())).collect();
    assert_eq!(reasons[63], "the host did not answer in time");
    assert_eq!(reasons[64], "too many requests are unanswered");
    // A request that cannot be tracked is not sent, so its vector is free immediately.
    let second = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    assert_eq!(refusal(&board.bus, &second), "too many requests are unanswered");
    board.bus.free(&device, second);
    board.bus.free(&device, block);
    assert_eq!(board.gic.claimed(), [64]);
}

#[test]
fn a_broken_channel_ends_every_wait() {
    let (board, is_broken, _) = failing(ChannelError::Broken(RingError::BadIndex(4)));
    let device = board.attach(SLOT);
    let (block, _) = board.vector(&device);
    let second = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    board.kernel.meanwhile(move |_| is_broken.store(true, SeqCst));
    assert_eq!(refusal(&board.bus, &second), "the channel failed");
    assert!(board.bus.poll().is_err());
    // The host may still send the message that it granted.
    let first = block.first().get();
    board.bus.free(&device, block);
    board.bus.free(&device, second);
    assert_eq!(board.gic.claimed(), [first]);
    assert!(board.bus.close().is_err());
    assert!(board.gic.claimed().is_empty());
}

/// The longest message of a host has 7,176 bytes.
#[test]
fn notices_longer_than_any_message_are_skipped() {
    let (board, device) = Board::with_device();
    board.kernel.meanwhile(|side| {
        side.channel.inner.send(PacketKind::Notice, &[0; 7184]).unwrap();
        side.channel.inner.send(PacketKind::Completion(1), &[0; 8000]).unwrap();
    });
    let (block, message) = board.vector(&device);
    assert_eq!((message.data, board.send(message)), (64, Delivery::Pending));
    assert_eq!(board.bus.faults(), faults(|faults| (faults.unexpected, faults.skipped) = (1, 2)));
    // An answer that is too long ends the wait for it.
    board.tamper.set(Fate::Changed(|answer| answer.resize(7184, 0)));
    let other = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    assert_eq!(refusal(&board.bus, &other), "a message is malformed");
    board.tamper.set(Fate::Sent);
    board.bus.free(&device, block);
    assert_eq!(board.gic.claimed(), [65]);
}

#[test]
fn malformed_notices_are_counted() {
    let board = Board::new();
    let relations = [0x4249_0019u32, u32::MAX].map(u32::to_le_bytes).concat();
    for message in [&[][..], &[0xff; 8], &[1; 3], &relations] {
        board.kernel.send(PacketKind::Notice, message);
    }
    assert_eq!(board.bus.poll(), Ok(Idle::Sleep));
    // The ring pads three bytes to eight.
    assert_eq!(board.bus.faults(), faults(|faults| faults.malformed = 4));
    assert_eq!(board.bus.functions().unwrap().len(), 2);
}
