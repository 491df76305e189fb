//! A PCI function and its registers.

use crate::platform::Kernel;
use alloc::sync::Arc;
use core::fmt;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use irq_domain::pci::{self, ConfigSpace, FunctionStore, PciError, TableMemory, capabilities};
use msi_types::RequesterId;
use msi_types::pci::PciRequester;
use safe_mmio::UniqueMmioPointer;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Memory region of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Bar {
    fn pointer<T>(self, offset: u64) -> *mut T {
        let end = offset + size_of::<T>() as u64;
        assert!(end <= self.length, "offset {offset:#x} exceeds {self:?}");
        with_exposed_provenance_mut((self.address + offset) as usize)
    }

    /// Reads device memory. Uses an instruction that a hypervisor can emulate from the syndrome,
    /// which is not possible for a volatile load that the compiler turned into one with write-back
    /// (DDI 0487, `ESR_ELx.ISV`).
    fn read<T: FromBytes + IntoBytes>(self, offset: u64) -> T {
        // SAFETY: the register is in the region, which is mapped as device memory above address 0;
        // the pointer is used for this access only.
        unsafe {
            UniqueMmioPointer::new(NonNull::new_unchecked(self.pointer(offset))).read_unsafe()
        }
    }

    /// Writes device memory with an instruction that a hypervisor can emulate, like `read`.
    fn write<T: IntoBytes + Immutable>(self, offset: u64, value: T) {
        // SAFETY: as in `read`.
        unsafe {
            let register = NonNull::new_unchecked(self.pointer(offset));
            UniqueMmioPointer::new(register).write_unsafe(value);
        }
    }

    /// Reads 16 bits.
    pub fn read16(self, offset: u64) -> u16 {
        self.read(offset)
    }

    /// Writes 16 bits.
    pub fn write16(self, offset: u64, value: u16) {
        self.write(offset, value);
    }

    /// Writes 64 bits.
    pub fn write64(self, offset: u64, value: u64) {
        self.write(offset, value);
    }
}

impl TableMemory for Bar {
    fn length(&self) -> u64 {
        self.length
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset)
    }

    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, value);
    }
}

/// A function that enumeration found.
#[derive(Clone)]
pub struct Function {
    /// Address of the function itself.
    pub address: RequesterId,
    /// Requester ID at the host bridge. A function behind a bridge to conventional PCI has the
    /// bridge's requester ID.
    pub requester: RequesterId,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Configuration space.
    pub config: Arc<dyn ConfigSpace>,
    /// Memory regions, indexed by their BARs.
    pub bars: [Option<Bar>; 6],
    found: pci::Function,
}

impl Function {
    pub(super) fn new(found: pci::Function) -> Self {
        let bar = |index: usize| found.bar(index as u8).map(Bar::from);
        Self {
            address: found.requester().function,
            requester: found.requester().at_host(),
            vendor: found.vendor(),
            device: found.device(),
            config: found.config().clone(),
            bars: core::array::from_fn(bar),
            found,
        }
    }

    /// Returns the function as enumeration found it.
    pub fn found(&self) -> &pci::Function {
        &self.found
    }

    /// Returns the function's address and alias.
    pub fn sender(&self) -> PciRequester {
        self.found.requester()
    }

    /// Returns the number of the bus below the function, if the function is a bridge.
    pub fn secondary_bus(&self) -> Option<u8> {
        self.found.secondary_bus()
    }

    /// Returns `true` if the function has these vendor and device IDs.
    pub fn is(&self, vendor: u16, device: u16) -> bool {
        (self.vendor, self.device) == (vendor, device)
    }

    /// Returns the memory region of a BAR, which must exist.
    pub fn bar(&self, index: usize) -> Bar {
        self.bars[index].unwrap_or_else(|| panic!("{} has no BAR {index}", self.address))
    }

    /// Returns the offset of the first capability with this ID.
    pub fn capability(&self, id: u8) -> Option<u16> {
        capabilities(&*self.config)
            .find(|capability| capability.id == id)
            .map(|capability| capability.offset)
    }

    /// Reads what isolates the function from others.
    pub fn isolation(&self) -> pci::Isolation {
        self.found.isolation()
    }

    /// Stops the function from decoding accesses, accessing memory, sending messages and asserting
    /// INTx.
    pub fn disable(&self) {
        const COMMAND: u16 = 0x04;
        const INTX_DISABLE: u16 = 1 << 10;
        self.config.write16(COMMAND, INTX_DISABLE);
    }

    /// Returns `true` if the function is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.found.is_bridge()
    }

    /// Creates the function's message store: for MSI-X if available, otherwise for MSI.
    pub fn store(&self) -> Result<FunctionStore, PciError> {
        self.found.store(Arc::new(Kernel), |bar| Some(Arc::new(Bar::from(bar))))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.fmt(f)
    }
}

impl From<pci::Bar> for Bar {
    fn from(bar: pci::Bar) -> Self {
        Self { address: bar.cpu.base(), length: bar.cpu.size() }
    }
}
