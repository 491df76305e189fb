//! A function that enumeration found.

use super::bars::Bars;
use super::header::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY};
use super::store::{FunctionStore, find_store};
use super::windows::Bar;
use super::{ConfigSpace, PciError, TableMemory};
use crate::host::Host;
use alloc::sync::Arc;
use core::fmt;
use msi_types::pci::PciRequester;

/// A function that [`enumerate`](super::enumerate) found, with addresses. It neither decodes them
/// nor sends until [`enable`](Self::enable).
#[derive(Clone)]
pub struct Function {
    pub(super) requester: PciRequester,
    pub(super) vendor: u16,
    pub(super) device: u16,
    pub(super) class: u32,
    pub(super) secondary: Option<u8>,
    pub(super) config: Arc<dyn ConfigSpace>,
    pub(super) bars: Bars,
}

impl Function {
    /// Its address, and the alias of its messages behind a bridge to conventional PCI.
    pub fn requester(&self) -> PciRequester {
        self.requester
    }

    /// Vendor ID.
    pub fn vendor(&self) -> u16 {
        self.vendor
    }

    /// Device ID.
    pub fn device(&self) -> u16 {
        self.device
    }

    /// Class code: base class, subclass and programming interface in 24 bits.
    pub fn class(&self) -> u32 {
        self.class
    }

    /// The bus behind it, if it is a bridge that got a bus number.
    pub fn secondary_bus(&self) -> Option<u8> {
        self.secondary
    }

    /// Configuration space.
    pub fn config(&self) -> &Arc<dyn ConfigSpace> {
        &self.config
    }

    /// The memory region at a base address register. `None` if the function has none there, or if
    /// the windows have no room for it.
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.bars.placed.get(usize::from(index)).copied().flatten()
    }

    /// Makes the function decode its memory regions, and lets it write to memory and send
    /// messages. May be called again after a reset: writes the addresses again.
    ///
    /// # Errors
    /// [`PciError::Unplaced`]: a region without an address would answer at address 0.
    pub fn enable(&self) -> Result<(), PciError> {
        if let Some(bir) = self.bars.unplaced {
            return Err(PciError::Unplaced { bir });
        }
        self.bars.restore(&*self.config);
        let command = self.config.read16(COMMAND);
        self.config.write16(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
        Ok(())
    }

    /// Takes the function's messages over, as [`find_store`] does; `map` maps the region of the
    /// MSI-X table. The function must be [enabled](Self::enable).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// As [`find_store`].
    pub fn store(
        &self,
        host: Arc<dyn Host>,
        mut map: impl FnMut(Bar) -> Option<Arc<dyn TableMemory>>,
    ) -> Result<FunctionStore, PciError> {
        find_store(self.config.clone(), host, |bir| map(self.bar(bir)?))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("requester", &self.requester)
            .field("vendor", &format_args!("{:#06x}", self.vendor))
            .field("device", &format_args!("{:#06x}", self.device))
            .finish_non_exhaustive()
    }
}
