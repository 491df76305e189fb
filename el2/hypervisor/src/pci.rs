//! The guest's view of PCI: QEMU's host bridge, of which it sees the functions that it has to
//! itself. What else is asked of configuration space finds nobody.

use crate::controller;
use crate::gic::Gic;
use crate::irqchip;
use crate::passthrough::Assigned;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use gic_firmware::PciHost;
use image_rt::pci::{self, Function};
use irq_routing::{GsiSpace, Router};
use msi_types::pci::{msi, msix};
use vgic::AccessWidth;

/// The machine's functions that have messages.
pub(crate) fn functions(host: &PciHost) -> Vec<Function> {
    let mut functions = pci::enumerate(host);
    let kinds = [msi::CAPABILITY_ID, msix::CAPABILITY_ID];
    functions.retain(|function| kinds.iter().any(|id| function.capability(*id).is_some()));
    functions
}

/// A host bridge, and the functions behind it that are the guest's.
pub(crate) struct Pci {
    /// ECAM, at the same addresses for the guest.
    pub(crate) config: Range<u64>,
    /// Addresses of functions' memory, likewise.
    pub(crate) window: Range<u64>,
    functions: Vec<Assigned>,
}

impl Pci {
    /// Gives the guest these functions, which have messages. Their DMA is the caller's to confine.
    pub(crate) fn assign(
        host: &PciHost,
        window: Range<u64>,
        functions: impl Iterator<Item = Function>,
        gic: &Arc<Gic>,
    ) -> Self {
        let ecam = pci::ecam(host).expect("an ECAM window");
        let router = Router::new(GsiSpace::default(), controller::inputs(gic));
        let router = router.expect("the routes");
        let router = Arc::new(router);
        let parent = |requester| irqchip::get().pci_parent(host, requester);
        let functions = functions.filter_map(|function| {
            let parent = parent(function.sender()).expect("firmware's ITS");
            Assigned::new(function, parent, router.clone())
        });
        Self {
            config: ecam.base()..ecam.base() + ecam.size(),
            window,
            functions: functions.collect(),
        }
    }

    /// Memory of the functions that the guest reaches without a trap.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<u64>> {
        self.functions.iter().flat_map(Assigned::memory)
    }

    /// Has the functions send and reach memory no more.
    pub(crate) fn stop(&self) {
        self.functions.iter().for_each(Assigned::stop);
    }

    /// Reads configuration space, or a page that holds an MSI-X table. `None`: neither is there.
    pub(crate) fn read(&self, address: u64, width: AccessWidth) -> Option<u64> {
        if !self.config.contains(&address) {
            return self.functions.iter().find_map(|function| function.read_page(address, width));
        }
        let found = self.function_at(address);
        let value =
            found.map_or(u64::MAX, |(function, offset)| function.read_config(offset, width));
        Some(value & width.mask())
    }

    /// Writes it. `None`: neither is there.
    pub(crate) fn write(&self, address: u64, width: AccessWidth, value: u64) -> Option<()> {
        if !self.config.contains(&address) {
            let mut functions = self.functions.iter();
            return functions.find_map(|function| function.write_page(address, width, value));
        }
        if let Some((function, offset)) = self.function_at(address) {
            function.write_config(offset, width, value);
        }
        Some(())
    }

    fn function_at(&self, address: u64) -> Option<(&Assigned, u16)> {
        let offset = (address & 0xfff) as u16;
        let base = address & !0xfff;
        Some((self.functions.iter().find(|function| function.config_base() == base)?, offset))
    }
}
