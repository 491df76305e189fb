//! The vector's steps as separate symbols, for Arm's memory model. Message *n* has address *n* and
//! data *n*.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]
#![expect(missing_docs, reason = "each function only calls the function that it is named after")]

pub use crate::route_latch::memory_model::*;

use super::{Entered, MsixVector, OPEN, SENDER};
use crate::lock::WaitQueue;
use crate::sync::SeqCst;
use crate::{RoutedMessage, Sender};
use msi_types::MsiMessage;

#[inline(never)]
pub fn vector_state(vector: &MsixVector) -> u64 {
    vector.state.load(SeqCst)
}

#[inline(never)]
pub fn vector_address(vector: &MsixVector) -> u64 {
    vector.address.load(SeqCst)
}

#[inline(never)]
pub fn vector_rest(vector: &MsixVector) -> u64 {
    vector.rest.load(SeqCst)
}

/// Returns 0 if the message is held, or the message that the caller must send.
#[inline(never)]
pub fn enter_vector(vector: &MsixVector) -> u64 {
    match vector.enter() {
        Entered::Open(message) => packed(message),
        Entered::Held => 0,
    }
}

/// Reads the message for a sender that has entered.
#[inline(never)]
pub fn entered_message(vector: &MsixVector) -> u64 {
    packed(vector.message(OPEN | SENDER))
}

/// Returns the address in bits 31:16, and the data in bits 15:0. herd7 shifts 32 bits.
fn packed(routed: RoutedMessage) -> u64 {
    routed.message.address << 16 | u64::from(routed.message.data)
}

#[inline(never)]
pub fn leave_vector(vector: &MsixVector, idle: &WaitQueue) {
    vector.leave(idle);
}

/// Returns `true` if a message was pending.
#[inline(never)]
pub fn open_vector(vector: &MsixVector, number: u32) -> bool {
    let message = MsiMessage { address: number.into(), data: number };
    vector.open(RoutedMessage { sender: Sender::Anonymous, message })
}

#[inline(never)]
pub fn close_vector(vector: &MsixVector, idle: &WaitQueue) {
    vector.close(idle);
}
