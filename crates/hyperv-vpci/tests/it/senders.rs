//! Device models that send while their messages are created and deleted.

use crate::board::{Board, SLOT, channel, function, host_config};
use crate::peer::{Peer, create};
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::host::{Host, Injection};
use hyperv_vpci::protocol::{AssignedResources, Request, ResourcesForm, Version};
use msi_types::{Delivery, Level, Line, MsiMessage, MsiParent, NoIdentity, SetLine, SignalMsi};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

#[test]
fn no_interrupt_is_sent_after_its_message_is_deleted() {
    let (board, device) = Board::with_device();
    let stop = AtomicBool::new(false);
    let (sender, gic) = (board.devices[0].clone(), board.gic.clone());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    for data in 64..68 {
                        let message = MsiMessage { address: crate::board::ADDRESS, data };
                        sender.signal_msi(NoIdentity, message);
                    }
                }
            });
        }
        for _ in 0..300 {
            let (block, message) = board.vector(&device);
            assert_eq!(board.send(message), Delivery::Pending);
            let spi = block.first().get();
            board.bus.free(&device, block);
            // The vector was released after the host confirmed the deletion. A sender that was
            // still active would make the vector pending now.
            assert!(!gic.spi(spi).pending);
            std::thread::yield_now();
            assert!(!gic.spi(spi).pending);
        }
        stop.store(true, Ordering::SeqCst);
    });
}

/// Number of times that the test checks whether a removal has finished. A removal that does not
/// wait for senders finishes earlier.
const LOOKS: u32 = 1000;

/// Lines whose first pulse blocks until the test releases it.
struct SlowLines {
    pulses: AtomicU32,
    begun: Barrier,
    go_on: Barrier,
    is_done: AtomicBool,
}

impl SetLine for SlowLines {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Blocked
    }
    fn pulse(&self, _: Line) -> Delivery {
        if self.pulses.fetch_add(1, Ordering::SeqCst) == 0 {
            self.begun.wait();
            self.go_on.wait();
            self.is_done.store(true, Ordering::SeqCst);
        }
        Delivery::Pending
    }
}

#[test]
fn a_deletion_waits_for_a_signal_in_progress() {
    let lines = Arc::new(SlowLines {
        pulses: AtomicU32::new(0),
        begun: Barrier::new(2),
        go_on: Barrier::new(2),
        is_done: AtomicBool::new(false),
    });
    let mut host = Host::new(host_config(Version::V1_4), Injection::Spi(lines.clone())).unwrap();
    let device = host.offer(function(SLOT)).unwrap();
    let (mut near, mut far) = channel();
    let assigned = AssignedResources::new(SLOT, ResourcesForm::V2);
    for request in [
        Request::QueryVersion(0x1_0004),
        Request::D0Entry { window: 0 },
        Request::AssignResources(assigned),
        create(SLOT, 64, 1),
    ] {
        near.send(PacketKind::Request(1), &Peer::emit(&request)).unwrap();
        host.serve(&mut far).unwrap();
    }
    assert_eq!(host.vectors(SLOT), 1);
    let message = MsiMessage { address: crate::board::ADDRESS, data: 64 };
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| device.signal_msi(NoIdentity, message));
        lines.begun.wait();
        let removal = scope.spawn(|| {
            host.remove(SLOT).unwrap();
            assert!(lines.is_done.load(Ordering::SeqCst), "sent after the removal");
        });
        // The removal clears the message's target, then waits for senders.
        while device.signal_msi(NoIdentity, message) != Delivery::Blocked {
            std::thread::yield_now();
        }
        for _ in (0..LOOKS).take_while(|_| !removal.is_finished()) {
            std::thread::yield_now();
        }
        let is_early = removal.is_finished();
        lines.go_on.wait();
        assert!(!is_early, "the message is removed while it is being sent");
        assert_eq!(sender.join().unwrap(), Delivery::Pending);
        removal.join().unwrap();
    });
    assert_eq!(device.signal_msi(NoIdentity, message), Delivery::Blocked);
}

#[test]
fn messages_to_other_addresses_find_no_doorbell() {
    let (board, _device, _block, message) = Board::with_vector();
    for address in [0, message.address + 4, u64::MAX] {
        let stray = MsiMessage { address, ..message };
        assert_eq!(board.send(stray), Delivery::NoDoorbell);
    }
    for data in [0, 63, 65, 1019, 1020, u32::MAX] {
        assert_eq!(board.send(MsiMessage { data, ..message }), Delivery::Blocked);
    }
}
