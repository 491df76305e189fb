//! Interrupts of a VFIO device. The monitor traps the guest's accesses to the MSI-X table, and the
//! device's eventfds send the messages.
//!
//! ```console
//! $ cargo run -p irq-routing --features std --example vfio
//! ```
//!
//! An eventfd and a thread simulate the device. With KVM, `kvm::MsiIrqfdSet` replaces
//! `MessageEventfdSet`.

use irq_routing::device_eventfds::DeviceEventfds;
use irq_routing::irqfd::{EventfdPoller, MessageEventfdSet};
use irq_routing::msix::MsixTable;
use irq_routing::{MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId};
use rustix::event::{EventfdFlags, eventfd};
use std::{sync::Arc, thread};

/// Stand-in for a `Router` or a `KvmRouter`.
struct Its;

impl MessageSink for Its {
    fn signal_msi(&self, routed: RoutedMessage) -> Result<Delivery, SignalError> {
        println!("{:?} sends {:?}", routed.sender, routed.message);
        Ok(Delivery::Pending)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let poller = EventfdPoller::new()?;
    let eventfds = MessageEventfdSet::new(poller.clone(), Arc::new(Its));
    let eventfds = Arc::new(DeviceEventfds::new(eventfds));
    let table = MsixTable::new(4, Sender::Device(DeviceId::new(8)), Arc::new(Its))?;
    let table = table.with_observer(eventfds.clone());

    // VFIO_DEVICE_SET_IRQS would pass the other descriptor to the device.
    let trigger = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let source = eventfds.add(trigger.try_clone()?)?;
    eventfds.set_vector(source, Some(2))?;

    // The guest's trapped writes: a message for vector 2, then the enable bit.
    table.write(0x20, &0x0809_0040u64.to_le_bytes());
    table.write(0x28, &7u64.to_le_bytes());
    table.write_control(Control::new().with_enable(true));

    let device = thread::spawn(move || rustix::io::write(&trigger, &1u64.to_ne_bytes()));
    device.join().map_err(|_| "the device panicked")??;
    // A VMM calls `EventfdPoller::spawn` instead, which serves signals on a thread of its own. With
    // KVM, the kernel serves them.
    assert_eq!(poller.dispatch(None)?, 1);

    table.write(0x2c, &1u32.to_le_bytes()); // The guest masks the vector.
    let mut pending = [0; 8];
    table.read_pending(0, &mut pending);
    assert_eq!(pending, [0; 8]);
    Ok(())
}
