//! Where devices' writes ring.

use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The end of a device's write on the bus: a controller's doorbell, or nothing.
///
/// The sender has its DeviceID already: the host bridge or the platform's sideband gave it.
#[derive(Default)]
pub struct Doorbells {
    bells: Vec<(u64, Arc<dyn SignalMsi<DeviceId>>)>,
    unanswered: AtomicU64,
    blocked: AtomicU64,
}

impl Doorbells {
    /// Lets `controller` listen at `address`.
    pub fn listen(&mut self, address: u64, controller: Arc<dyn SignalMsi<DeviceId>>) {
        self.bells.push((address, controller));
    }

    /// A message was written by somebody whom the bus gives no DeviceID.
    pub fn refuse(&self) -> Delivery {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        Delivery::Blocked
    }

    /// Messages to an address where nobody listens.
    pub fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Messages that a controller, or the bus on the way, dropped.
    pub fn blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }
}

impl SignalMsi<DeviceId> for Doorbells {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        let Some((_, controller)) = self.bells.iter().find(|(address, _)| *address == message.address) else {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
            return Delivery::NoDoorbell;
        };
        let delivery = controller.signal_msi(from, message);
        match delivery {
            Delivery::Pending => {}
            Delivery::Blocked => {
                self.blocked.fetch_add(1, Ordering::Relaxed);
            }
            Delivery::NoDoorbell => {
                self.unanswered.fetch_add(1, Ordering::Relaxed);
            }
        }
        delivery
    }
}

impl fmt::Debug for Doorbells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbells").field("count", &self.bells.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Taker(Delivery);
    impl SignalMsi<DeviceId> for Taker {
        fn signal_msi(&self, _from: DeviceId, _message: MsiMessage) -> Delivery {
            self.0
        }
    }

    #[test]
    fn a_message_to_nowhere_is_counted() {
        let mut bells = Doorbells::default();
        bells.listen(0x40, Arc::new(Taker(Delivery::Pending)));
        let send = |address| bells.signal_msi(DeviceId::new(1), MsiMessage { address, data: 0 });
        assert_eq!((send(0x44), send(0x40)), (Delivery::NoDoorbell, Delivery::Pending));
        assert_eq!((bells.unanswered(), bells.blocked()), (1, 0));
    }

    #[test]
    fn a_message_that_the_controller_drops_is_counted() {
        let mut bells = Doorbells::default();
        bells.listen(0x40, Arc::new(Taker(Delivery::Blocked)));
        bells.signal_msi(DeviceId::new(1), MsiMessage { address: 0x40, data: 0 });
        assert_eq!(bells.blocked(), 1);
    }
}
