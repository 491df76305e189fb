//! The targets of device writes. The doorbell table counts messages to addresses without a
//! doorbell, and messages that a controller dropped.

use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The result of a device write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Written {
    /// The write reached a doorbell.
    Message(Delivery),
    /// The write reached a register, like a CPU write.
    Register,
    /// The write reached RAM.
    Memory,
    /// No region contains the address.
    Nowhere,
}

/// A target for device writes that doesn't need to know which device sent them.
pub trait DeviceWrites: Send + Sync {
    /// Stores 32 bits.
    fn write(&self, address: u64, data: u32) -> Written;
}

/// The doorbells on a bus, and the target of all other device writes: another register, RAM, or
/// none.
///
/// The sender's DeviceID is already known, because the host bridge or the platform's sideband has
/// assigned it.
#[derive(Default)]
pub struct Doorbells {
    bells: Vec<(u64, Arc<dyn SignalMsi<DeviceId>>)>,
    elsewhere: Option<Arc<dyn DeviceWrites>>,
    unanswered: AtomicU64,
    blocked: AtomicU64,
    registers: AtomicU64,
}

impl Doorbells {
    /// Creates an empty doorbell table. All writes to other addresses are passed to `elsewhere`.
    pub fn new(elsewhere: Arc<dyn DeviceWrites>) -> Self {
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

    /// Performs a device write to any target.
    pub fn write(&self, from: DeviceId, message: MsiMessage) -> Written {
        let bell = self.bells.iter().find(|(address, _)| *address == message.address);
        let written = match (bell, &self.elsewhere) {
            (Some((_, controller)), _) => Written::Message(controller.signal_msi(from, message)),
            (None, Some(elsewhere)) => elsewhere.write(message.address, message.data),
            (None, None) => Written::Nowhere,
        };
        let counter = match written {
            Written::Message(Delivery::Blocked) => &self.blocked,
            Written::Register => &self.registers,
            Written::Message(_) | Written::Memory | Written::Nowhere => return written,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        written
    }

    /// Returns the number of device writes to registers other than doorbells.
    pub fn registers(&self) -> u64 {
        self.registers.load(Ordering::Relaxed)
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
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        let delivery = match self.write(from, message) {
            Written::Message(delivery) => delivery,
            Written::Register | Written::Memory | Written::Nowhere => Delivery::NoDoorbell,
        };
        if delivery == Delivery::NoDoorbell {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
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
    fn a_message_without_a_doorbell_is_counted() {
        let mut bells = Doorbells::default();
        bells.listen(0x40, Arc::new(FixedDelivery(Delivery::Pending)));
        let send = |address| bells.signal_msi(DeviceId::new(1), MsiMessage { address, data: 0 });
        assert_eq!((send(0x44), send(0x40)), (Delivery::NoDoorbell, Delivery::Pending));
        assert_eq!((bells.unanswered(), bells.blocked()), (1, 0));
    }

    #[test]
    fn a_blocked_message_is_counted() {
        let mut bells = Doorbells::default();
        bells.listen(0x40, Arc::new(FixedDelivery(Delivery::Blocked)));
        bells.signal_msi(DeviceId::new(1), MsiMessage { address: 0x40, data: 0 });
        assert_eq!(bells.blocked(), 1);
    }
}
