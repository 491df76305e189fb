//! The way of a VFIO device's interrupts. The guest's accesses to the MSI-X table are trapped, its
//! messages become routes, and the device's eventfds send them.
//!
//! ```console
//! $ cargo run -p irq-routing --features std --example vfio
//! ```
//!
//! A memory file stands for the device's BAR, and a thread with an eventfd for its hardware. With
//! KVM, the router is a `kvm::KvmRouter`, and `bind` is its `KvmRouter::bind`.

use irq_routing::device_eventfds::{ByGsi, DeviceEventfds};
use irq_routing::irqfd::{EventfdPoller, Irqfds};
use irq_routing::msix::MsixTable;
use irq_routing::{GsiSpace, Inputs, Router, Sender};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, SetLine, SignalMsi};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite, write};
use std::sync::Arc;
use std::{io, thread};

const PAGE: u64 = 4096;
/// The second page of the BAR has the table; the guest maps only the first.
const TABLE: u64 = PAGE;

struct Gic;

impl SetLine for Gic {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Blocked
    }

    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Blocked
    }
}

impl SignalMsi<DeviceId> for Gic {
    fn signal_msi(&self, device: DeviceId, message: MsiMessage) -> Delivery {
        println!("ITS: DeviceID {device}, EventID {}", message.data);
        Delivery::Pending
    }
}

/// A trapped write: the table's are the monitor's, all others the device's.
fn trap(bar: &OwnedFd, table: &MsixTable, offset: u64, bytes: &[u8]) -> io::Result<()> {
    match offset.checked_sub(TABLE) {
        Some(offset) => table.write(offset, bytes),
        None => drop(pwrite(bar, bytes, offset)?),
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
    let router = Arc::new(Router::new(GsiSpace::default(), inputs)?);
    let poller = EventfdPoller::new()?;
    let irqfds = Irqfds::new(poller.clone(), router.clone());
    let (binds, routing) = (irqfds.clone(), router.clone());
    let bind = move |trigger, gsi| binds.bind(trigger, gsi).map_err(io::Error::other);
    let eventfds = Arc::new(DeviceEventfds::new(ByGsi::new(routing, bind)));
    let table = MsixTable::new(4, Sender::Device(DeviceId::new(8)), router)?;
    let table = table.with_observer(eventfds.clone());

    // VFIO_DEVICE_SET_IRQS gives the device the other descriptor.
    let bar = memfd_create("bar", MemfdFlags::CLOEXEC)?;
    ftruncate(&bar, 2 * PAGE)?;
    let trigger = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let source = eventfds.add(trigger.try_clone()?)?;
    eventfds.set_vector(source, Some(2))?;

    // The guest's driver: a message for vector 2, and a register that starts the device.
    trap(&bar, &table, TABLE + 0x20, &0x0809_0040u64.to_le_bytes())?;
    trap(&bar, &table, TABLE + 0x28, &7u64.to_le_bytes())?;
    table.write_control(Control::new().with_enable(true));
    trap(&bar, &table, 0x10, &[1])?;

    let device = thread::spawn(move || {
        let mut start = [0];
        pread(&bar, &mut start, 0x10)?;
        assert_eq!(start, [1]);
        write(&trigger, &1u64.to_ne_bytes())
    });
    device.join().map_err(|_| "the device panicked")??;
    // KVM needs no thread for this. The model is served here, or by `Irqfds::spawn`.
    assert_eq!(poller.dispatch(None)?, 1);

    table.write(0x2c, &1u32.to_le_bytes()); // The guest masks the vector.
    let mut pending = [0; 8];
    table.read_pending(0, &mut pending);
    assert_eq!(pending, [0; 8]);
    Ok(())
}
