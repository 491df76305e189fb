//! The guest's view of PCI: QEMU's host bridge, with only those functions that are assigned to this
//! guest. Configuration space of other functions reads as all ones.

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

/// Returns the machine's functions that have MSI or MSI-X.
pub(crate) fn functions(host: &PciHost) -> Vec<Function> {
    let mut functions = pci::enumerate(host);
    let kinds = [msi::CAPABILITY_ID, msix::CAPABILITY_ID];
    functions.retain(|function| kinds.iter().any(|id| function.capability(*id).is_some()));
    functions
}

/// A host bridge, with the functions behind it that are assigned to the guest.
pub(crate) struct Pci {
    /// ECAM window. The guest sees it at the same address.
    pub(crate) config: Range<u64>,
    /// Window for the functions' memory. The guest sees it at the same address.
    pub(crate) window: Range<u64>,
    functions: Vec<Assigned>,
}

impl Pci {
    /// Assigns these functions, which must have MSI or MSI-X, to the guest. The caller must confine
    /// their DMA.
    pub(crate) fn assign(
        host: &PciHost,
        window: Range<u64>,
        functions: impl Iterator<Item = Function>,
        gic: &Arc<Gic>,
    ) -> Self {
        let ecam = pci::ecam(host).expect("the host bridge has an ECAM window");
        let router = Router::new(GsiSpace::default(), controller::inputs(gic));
        let router = router.expect("not enough memory for the routes");
        let router = Arc::new(router);
        let parent = |requester| irqchip::get().pci_parent(host, requester);
        let functions = functions.filter_map(|function| {
            let parent = parent(function.sender())
                .expect("firmware routes the function's messages to an ITS");
            Assigned::new(function, parent, router.clone())
        });
        Self {
            config: ecam.base()..ecam.base() + ecam.size(),
            window,
            functions: functions.collect(),
        }
    }

    /// Returns the functions' memory that the guest can access without trapping.
    pub(crate) fn memory(&self) -> impl Iterator<Item = Range<u64>> {
        self.functions.iter().flat_map(Assigned::memory)
    }

    /// Stops the functions from sending messages and accessing memory.
    pub(crate) fn stop(&self) {
        self.functions.iter().for_each(Assigned::stop);
    }

    /// Reads from configuration space, or from a page that contains an MSI-X table. Returns `None`
    /// for other addresses.
    pub(crate) fn read(&self, address: u64, width: AccessWidth) -> Option<u64> {
        if !self.config.contains(&address) {
            return self.functions.iter().find_map(|function| function.read_page(address, width));
        }
        let found = self.function_at(address);
        let value =
            found.map_or(u64::MAX, |(function, offset)| function.read_config(offset, width));
        Some(value & width.mask())
    }

    /// Writes to configuration space, or to a page that contains an MSI-X table. Returns `None` for
    /// other addresses.
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
