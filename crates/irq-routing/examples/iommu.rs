//! An IOMMU in front of the interrupt controller. The guest maps the page of the ITS's doorbell for
//! a device, stores the IOVA as the address of the device's message, and later unmaps the page.

use irq_routing::msix::MsixTable;
use irq_routing::{Access, GsiSpace, Inputs, Invalidation, Router, Routing, Sender, TranslateMsi};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Level, Line, MsiMessage, SetLine, SignalMsi};
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};

/// Stand-in for an interrupt controller model such as `vgic::Vgic`.
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
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        println!("device {from} sends {:#x} to {:#x}", message.data, message.address);
        Delivery::Pending
    }
}

/// An emulated IOMMU. A real one reads these mappings from the guest's tables.
#[derive(Default)]
struct Iommu {
    pages: RwLock<HashMap<(DeviceId, u64), u64>>,
}

const PAGE: u64 = 0xfff;

impl TranslateMsi for Iommu {
    fn translate(&self, device: DeviceId, iova: u64, access: Access) -> Option<u64> {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let page = pages.get(&(device, iova & !PAGE)).copied();
        if page.is_none() && access == Access::Message {
            println!("event: device {device} wrote to {iova:#x}, which is not mapped");
        }
        Some(page? | iova & PAGE)
    }
}

impl Iommu {
    fn map(&self, device: DeviceId, iova: u64, address: u64) {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        pages.insert((device, iova & !PAGE), address & !PAGE);
    }

    /// Unmaps a page and executes the guest's commands: invalidates the page, and waits for the
    /// invalidation.
    fn unmap(
        &self,
        device: DeviceId,
        iova: u64,
        router: &dyn Routing,
    ) -> Result<(), Box<dyn Error>> {
        let first = iova & !PAGE;
        self.pages.write().unwrap_or_else(PoisonError::into_inner).remove(&(device, first));
        // The lock is free again: the router asks for the translation.
        router.invalidate(&Invalidation::all().with_addresses(first..=first | PAGE))?;
        println!("no message uses the translation of {first:#x} any more");
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let iommu = Arc::new(Iommu::default());
    let inputs = Inputs::new(Arc::new(Gic)).with_its(Arc::new(Gic));
    let inputs = inputs.with_translator(iommu.clone());
    let router = Arc::new(Router::new(GsiSpace::default(), inputs)?);
    let device = DeviceId::new(8);
    let table = MsixTable::new(1, Sender::Device(device), router.clone())?;

    // The guest maps the doorbell, writes vector 0 and enables MSI-X.
    iommu.map(device, 0xffff_f040, 0x0809_0040);
    table.write(0, &0xffff_f040u64.to_le_bytes());
    table.write(8, &7u64.to_le_bytes());
    table.write_control(Control::new().with_enable(true));

    println!("{:?}", table.signal(0));
    iommu.unmap(device, 0xffff_f040, &*router)?;
    println!("{:?}", table.signal(0));
    assert_eq!(router.dropped(), 1);
    Ok(())
}
