//! Device models that send while their messages come and go.

use crate::board::{Board, SLOT};
use msi_types::{Delivery, MsiMessage, MsiParent, NoIdentity, SignalMsi};
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn nothing_is_sent_after_a_deletion() {
    let board = Board::new();
    let device = board.attach(SLOT);
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
            // The vector was released after the host confirmed. A sender that was still on its way
            // would make it pending now.
            assert!(!gic.spi(spi).pending);
            std::thread::yield_now();
            assert!(!gic.spi(spi).pending);
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn messages_to_other_addresses_find_no_doorbell() {
    let board = Board::new();
    let device = board.attach(SLOT);
    let (_block, message) = board.vector(&device);
    for address in [0, message.address + 4, u64::MAX] {
        let stray = MsiMessage { address, ..message };
        assert_eq!(board.send(stray), Delivery::NoDoorbell);
    }
    for data in [0, 63, 65, 1019, 1020, u32::MAX] {
        assert_eq!(board.send(MsiMessage { data, ..message }), Delivery::Blocked);
    }
}
