//! The targets of device writes. The doorbell table counts messages to addresses without a
//! doorbell, and messages that a controller dropped.

use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The doorbells on a bus, and the target of all other device writes: another register, RAM, or
/// none.
///
/// The sender's DeviceID is already known, because the host bridge or the platform's sideband has
/// assigned it.
#[derive(Default)]
pub struct Doorbells {
    bells: Vec<(u64, Arc<dyn SignalMsi<DeviceId>>)>,
    elsewhere: Option<Arc<dyn SignalMsi<DeviceId>>>,
    unanswered: AtomicU64,
    blocked: AtomicU64,
}

impl Doorbells {
    /// Creates an empty doorbell table. All writes to other addresses are passed to `elsewhere`.
    pub fn new(elsewhere: Arc<dyn SignalMsi<DeviceId>>) -> Self {
        Self { elsewhere: Some(elsewhere), ..Self::default() }
    }

    /// Registers the doorbell of `controller` at `address`. The controller receives the sender's
    /// DeviceID with each message.
    pub fn listen(&mut self, address: u64, controller: Arc<dyn SignalMsi<DeviceId>>) {
        self.bells.push((address, controller));
    }

    /// Rejects a message whose sender has no DeviceID on the bus.
    pub fn refuse(&self) -> Delivery {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        Delivery::Blocked
    }

    /// Returns the number of messages to addresses without a doorbell.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that a controller or the bus dropped.
    pub fn blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }
}

impl SignalMsi<DeviceId> for Doorbells {
    /// Performs a device write to any target. A write to a register or to RAM reaches no doorbell.
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        let bell = self.bells.iter().find(|(address, _)| *address == message.address);
        let target = bell.map(|(_, controller)| controller).or(self.elsewhere.as_ref());
        let delivery =
            target.map_or(Delivery::NoDoorbell, |target| target.signal_msi(from, message));
        match delivery {
            Delivery::Pending => {}
            Delivery::Blocked => _ = self.blocked.fetch_add(1, Ordering::Relaxed),
            Delivery::NoDoorbell => _ = self.unanswered.fetch_add(1, Ordering::Relaxed),
        }
        delivery
    }
}

msi_types::debug_by!(Doorbells as "Doorbells", |it| {count: it.bells.len()});

#[cfg(test)]
mod tests {
    use super::*;

    struct FixedDelivery(Delivery);
    impl SignalMsi<DeviceId> for FixedDelivery {
        fn signal_msi(&self, _from: DeviceId, _message: MsiMessage) -> Delivery {
            self.0
        }
    }

    #[test]
    fn messages_that_do_not_arrive_are_counted() {
        let mut bells = Doorbells::default();
        for (address, delivery) in [(0x40, Delivery::Pending), (0x80, Delivery::Blocked)] {
            bells.listen(address, Arc::new(FixedDelivery(delivery)));
        }
        let send = |address| bells.signal_msi(DeviceId::new(1), MsiMessage { address, data: 0 });
        let expected = [Delivery::Pending, Delivery::Blocked, Delivery::NoDoorbell];
        assert_eq!([0x40, 0x80, 0x44].map(send), expected);
        assert_eq!((bells.unanswered(), bells.blocked()), (1, 1));
    }
}
