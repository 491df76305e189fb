//! A target for the messages of functions under test.

use crate::lock::lock;
use msi_types::{Delivery, MsiMessage, RequesterId, SignalMsi};
use std::sync::Mutex;

/// The messages that functions have sent, each with its sender.
#[derive(Default)]
pub(super) struct SentMessages(Mutex<Vec<(RequesterId, MsiMessage)>>);

impl SentMessages {
    pub(super) fn all(&self) -> Vec<(RequesterId, MsiMessage)> {
        lock(&self.0).clone()
    }
}

impl SignalMsi<RequesterId> for SentMessages {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        lock(&self.0).push((from, message));
        Delivery::Pending
    }
}
