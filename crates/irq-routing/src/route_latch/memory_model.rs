//! The latch's steps as separate symbols, for Arm's memory model. Route *n* is a message with
//! address *n* and data *n*.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]
#![expect(missing_docs, reason = "each function only calls the function that it is named after")]

use super::RouteLatch;
use crate::route::{Route, RoutedMessage, Sender};
use crate::sync::SeqCst;
use msi_types::MsiMessage;

#[inline(never)]
pub fn version(latch: &RouteLatch) -> u64 {
    latch.version.load(SeqCst)
}

#[inline(never)]
pub fn even_address(latch: &RouteLatch) -> u64 {
    latch.copies[0].address.load(SeqCst)
}

#[inline(never)]
pub fn even_rest(latch: &RouteLatch) -> u64 {
    latch.copies[0].rest.load(SeqCst)
}

#[inline(never)]
pub fn odd_address(latch: &RouteLatch) -> u64 {
    latch.copies[1].address.load(SeqCst)
}

#[inline(never)]
pub fn odd_rest(latch: &RouteLatch) -> u64 {
    latch.copies[1].rest.load(SeqCst)
}

#[inline(never)]
pub fn store_route(latch: &RouteLatch, number: u32) {
    let message = MsiMessage { address: number.into(), data: number };
    latch.store(Some(Route::Message(RoutedMessage { sender: Sender::Anonymous, message })));
}

/// Returns a message's address in bits 31:16, and its data in bits 15:0. herd7 shifts 32 bits.
#[inline(never)]
pub fn load_route(latch: &RouteLatch) -> u64 {
    match latch.load() {
        Some(Route::Message(RoutedMessage { message, .. })) => {
            message.address << 16 | u64::from(message.data)
        }
        Some(Route::Pin(_)) | None => 0,
    }
}
