//! Functions that change, hosts that stop answering, and buses that are suspended.

use crate::board::{Board, OTHER, SLOT, channel_to, function, reason, refusal, request};
use crate::gic::Gic;
use crate::tamper::{Change, Fate};
use hyperv_vpci::channel::{Idle, PacketKind};
use hyperv_vpci::guest::{BusEvent, VpciError};
use hyperv_vpci::protocol::{
    DeviceDescription, InterruptForm, Notice, Relations, RelationsForm, Request, Slot, Version,
};
use msi_types::{Delivery, MsiError, MsiParent, Shape};
use std::iter::from_fn;
use std::sync::Arc;

/// Sends a list of functions as the host does.
fn list(board: &Board, functions: impl IntoIterator<Item = DeviceDescription>) {
    let (mut room, mut out) = (vec![0; 8192], vec![0; 8192]);
    let relations = Relations::new(RelationsForm::V2, functions, &mut room).unwrap();
    let length = Notice::Relations(relations).emit(&mut out).unwrap();
    board.kernel.send(PacketKind::Notice, &out[..length]);
}

/// A live migration to a host with a different topology changes only the NUMA node.
#[test]
fn a_changed_numa_node_is_an_update() {
    let (board, _device, block, message) = Board::with_vector();
    while board.bus.next_event().is_some() {}
    let mut changed = [SLOT, OTHER].map(|slot| function(slot).description);
    changed[0].node = Some(1);
    changed[1].serial += 1;
    list(&board, changed);
    assert_eq!(board.bus.poll(), Ok(Idle::Sleep));
    // A function with another serial number is a different function.
    let events: Vec<_> = from_fn(|| board.bus.next_event()).collect();
    assert_eq!(events, [BusEvent::Gone(OTHER), BusEvent::Arrived(OTHER)]);
    assert_eq!(board.bus.functions().unwrap(), changed);
    assert_eq!(board.bus.compose(&block, 0), Ok(message));
    assert_eq!(board.send(message), Delivery::Pending);
}

#[test]
fn surprise_removals_do_not_exhaust_request_slots() {
    let board = Board::new();
    for _ in 0..70 {
        while board.bus.next_event().is_some() {}
        let device = board.attach(SLOT);
        let block = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
        // The function is removed while its message is requested, and the host does not answer.
        board.tamper.set(Fate::Lost);
        board.kernel.meanwhile(|side| {
            side.serve().unwrap();
            side.host.remove(SLOT).unwrap();
        });
        assert_eq!(refusal(&board.bus, &block), "the function was removed");
        board.tamper.set(Fate::Sent);
        board.bus.free(&device, block);
        board.bus.detach(device);
        board.kernel.change(|host| host.offer(function(SLOT)).unwrap());
        board.rest();
    }
    assert_eq!(board.bus.close(), Ok(()));
}

/// If a host lists 256 functions and stops answering, each call must wait only once.
#[test]
fn each_poll_of_a_silent_host_waits_for_one_function_only() {
    let board = Board::new();
    while board.bus.next_event().is_some() {}
    let all = (0..=255).map(|number| DeviceDescription {
        slot: Slot::new(number & 0x1f, number >> 5),
        serial: 77,
        ..DeviceDescription::default()
    });
    list(&board, all);
    board.tamper.set(Fate::Lost);
    board.asked();
    for _ in 0..3 {
        assert_eq!(board.bus.poll(), Ok(Idle::Busy));
        assert_eq!(board.asked(), 1);
    }
    // The bus must be turned off at the host, no matter how many requests the host leaves
    // unanswered.
    for _ in 3..70 {
        assert_eq!(board.bus.poll(), Ok(Idle::Busy));
    }
    board.tamper.set(Fate::Sent);
    assert_eq!(board.bus.close(), Ok(()));
    assert_eq!(board.kernel.side.lock().unwrap().host.window(), None);
}

/// Requests 64 messages, none of which the host answers.
#[test]
fn a_bus_with_64_unanswered_requests_can_close() {
    let (board, _device, block) = Board::with_block();
    board.tamper.set(Fate::Lost);
    for _ in 0..64 {
        board.bus.compose(&block, 0).unwrap_err();
    }
    assert_eq!(refusal(&board.bus, &block), "too many requests are unanswered");
    board.tamper.set(Fate::Sent);
    assert_eq!(board.bus.close(), Ok(()));
    assert_eq!(board.kernel.side.lock().unwrap().host.window(), None);
}

fn created(requests: &[Request]) -> Vec<(u32, u16)> {
    let created = requests.iter().filter_map(|request| match request {
        Request::CreateInterrupt { form: InterruptForm::V3, interrupt, .. } => {
            Some((interrupt.vector, interrupt.count))
        }
        _ => None,
    });
    created.collect()
}

#[test]
fn a_resumed_bus_creates_its_messages_again() {
    let (board, device) = Board::with_device();
    while board.bus.next_event().is_some() {}
    let other = board.attach(OTHER);
    let (one, message) = board.vector(&device);
    let four = board.bus.allocate(&device, &request(4, Shape::AlignedGroup)).unwrap();
    let group = board.bus.compose(&four, 0).unwrap();
    let unasked = board.bus.allocate(&device, &request(1, Shape::Independent)).unwrap();
    let (of_other, _) = board.vector(&other);
    let claimed = board.gic.claimed();
    assert_eq!(board.bus.suspend(), Ok(()));
    assert_eq!(board.kernel.side.lock().unwrap().host.window(), None);
    assert_eq!((board.mapped(), board.send(message)), (0, Delivery::Blocked));
    assert_eq!(board.bus.poll(), Err(VpciError::Suspended));
    assert_eq!(board.gic.claimed(), claimed);
    assert_eq!(reason(board.bus.compose(&one, 0).unwrap_err()), "the bus is suspended");
    // A vector that is freed in the meantime has no message to delete.
    board.bus.free(&device, unasked);
    // The other function is removed before the guest resumes.
    let guest = channel_to(&board, |host| {
        host.reset();
        host.remove(OTHER).unwrap();
    });
    board.tamper.heard();
    assert_eq!(board.bus.resume(Box::new(guest)), Ok(()));
    let requests = board.requests();
    assert_eq!(requests[0], Request::QueryVersion(Version::V1_4.to_wire()));
    assert_eq!(created(&requests), [(64, 1), (68, 4)]);
    let events: Vec<_> = from_fn(|| board.bus.next_event()).collect();
    assert_eq!(events, [BusEvent::Gone(OTHER)]);
    board.bus.free(&other, of_other);
    board.bus.detach(other);
    // No message is requested again, and the vectors stay masked until they are unmasked.
    assert_eq!(board.bus.compose(&one, 0), Ok(message));
    assert_eq!(board.bus.compose(&four, 0), Ok(group));
    assert_eq!((created(&board.requests()), board.mapped()), (vec![], 5));
    assert_eq!((board.send(message), board.gic.acknowledge(0)), (Delivery::Pending, None));
    board.bus.unmask(one.first());
    assert_eq!(board.gic.acknowledge(0), Some(64));
    board.gic.end(64);
    board.bus.free(&device, one);
    board.bus.free(&device, four);
    board.bus.detach(device);
    assert_eq!(board.bus.close(), Ok(()));
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_bus_that_cannot_resume_stays_suspended() {
    let (board, device, block, message) = Board::with_vector();
    let (unused, _) = crate::board::channel();
    assert_eq!(board.bus.resume(Box::new(unused)), Err(VpciError::NotSuspended));
    assert_eq!(board.bus.suspend(), Ok(()));
    // The other host supports at most 1.3, but the bus keeps its version.
    let guest = channel_to(&board, |host| {
        let injection = hyperv_vpci::host::Injection::Spi(Arc::new(Gic::new(1020, 4)));
        let config = crate::board::host_config(Version::V1_3);
        *host = hyperv_vpci::host::Host::new(config, injection).unwrap();
    });
    assert_eq!(board.bus.resume(Box::new(guest)), Err(VpciError::NoVersion));
    assert_eq!(board.bus.poll(), Err(VpciError::Suspended));
    // The next host refuses the message.
    let injection = hyperv_vpci::host::Injection::Spi(board.gic.clone());
    let guest = channel_to(&board, |host| {
        let config = crate::board::host_config(Version::V1_4).with_quota(0);
        *host = hyperv_vpci::host::Host::new(config, injection.clone()).unwrap();
        host.offer(function(SLOT)).unwrap();
    });
    let refused = board.bus.resume(Box::new(guest));
    assert!(matches!(refused, Err(VpciError::NotRecreated(MsiError::Controller(_)))));
    assert_eq!(board.gic.claimed(), [64]);
    // The next host supports the version and grants the message.
    let guest = channel_to(&board, |host| {
        let config = crate::board::host_config(Version::V1_4);
        *host = hyperv_vpci::host::Host::new(config, injection.clone()).unwrap();
        host.offer(function(SLOT)).unwrap();
    });
    assert_eq!(board.bus.resume(Box::new(guest)), Ok(()));
    assert_eq!(board.bus.compose(&block, 0), Ok(message));
    // A suspended bus can be closed.
    assert_eq!(board.bus.suspend(), Ok(()));
    assert_eq!(board.bus.close(), Err(VpciError::Suspended));
    assert_eq!(board.bus.suspend(), Err(VpciError::Closed));
    let (unused, _) = crate::board::channel();
    assert_eq!(board.bus.resume(Box::new(unused)), Err(VpciError::Closed));
    board.bus.free(&device, block);
    assert!(board.gic.claimed().is_empty());
}

/// A failed resume waits for the host once, and asks nothing of a host that did not negotiate.
#[test]
fn a_failed_resume_waits_for_the_host_at_most_once() {
    let early = [Request::QueryVersion(Version::V1_4.to_wire())];
    let refuse: Change = |answer| answer[..4].copy_from_slice(&[0x0b, 9, 0, 0xc0]);
    for (fate, waits) in [(Fate::Lost, 1), (Fate::Changed(refuse), 0)] {
        let board = Board::new();
        assert_eq!(board.bus.suspend(), Ok(()));
        let guest = channel_to(&board, hyperv_vpci::host::Host::reset);
        board.requests();
        board.kernel.signals.waits_in_vain();
        board.tamper.set(fate);
        assert!(board.bus.resume(Box::new(guest)).is_err());
        assert_eq!((board.requests(), board.kernel.signals.waits_in_vain()), (early.into(), waits));
        assert_eq!(board.bus.poll(), Err(VpciError::Suspended));
    }
}
