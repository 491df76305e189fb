//! A target for the messages of devices under test.

use crate::lock::lock;
use msi_types::{Delivery, DeviceId, MsiMessage, RequesterId, SignalMsi};
use std::sync::Mutex;

/// The messages that devices have sent, each with its sender.
#[derive(Default)]
pub(crate) struct SentMessages(Mutex<Vec<(RequesterId, MsiMessage)>>);

impl SentMessages {
    pub(crate) fn all(&self) -> Vec<(RequesterId, MsiMessage)> {
        lock(&self.0).clone()
    }
}

impl SignalMsi<RequesterId> for SentMessages {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        lock(&self.0).push((from, message));
        Delivery::Pending
    }
}

impl SignalMsi<DeviceId> for SentMessages {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        self.signal_msi(RequesterId::new(from.get()), message)
    }
}
