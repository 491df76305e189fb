//! A device model sends a message to a controller that it knows only through a trait.

use msi_types::{Delivery, DeviceId, MsiMessage, SignalMsi};

/// A controller that knows one device.
struct Controller;

impl SignalMsi<DeviceId> for Controller {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        println!("device {from} wrote {:#x} to {:#x}", message.data, message.address);
        if from == DeviceId::new(0x12) { Delivery::Pending } else { Delivery::Blocked }
    }
}

fn main() {
    let controller: &dyn SignalMsi<DeviceId> = &Controller;
    let message = MsiMessage { address: 0x0809_0040, data: 9 };
    assert_eq!(controller.signal_msi(DeviceId::new(0x12), message), Delivery::Pending);
    assert_eq!(controller.signal_msi(DeviceId::new(0x13), message), Delivery::Blocked);
}
