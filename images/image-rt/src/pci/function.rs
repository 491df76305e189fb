//! One function.

use crate::platform::Kernel;
use alloc::sync::Arc;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use irq_domain::pci::{
    AccessContext, ConfigSpace, MsiStore, MsixCapability, MsixParts, MsixStore, PciError,
    TableMemory, capabilities,
};
use msi_types::{MessageStore, RequesterId, Shape};
use safe_mmio::UniqueMmioPointer;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Command register: memory space and bus mastering.
const COMMAND: u16 = 0x04;
const MEMORY_AND_MASTER: u16 = 0x6;

/// A function's configuration space.
#[derive(Clone, Copy, Debug)]
pub struct Ecam(pub u64);

impl Ecam {
    fn pointer<T>(self, offset: u16) -> *mut T {
        with_exposed_provenance_mut((self.0 + u64::from(offset)) as usize)
    }
}

// ECAM is mapped as device memory by the start code: each access is one load or store at an aligned
// offset below 4 KiB.
impl ConfigSpace for Ecam {
    fn read8(&self, offset: u16) -> u8 {
        // SAFETY: mapped device memory, see above.
        unsafe { load::<u8>(self.pointer(offset)) }
    }

    fn read16(&self, offset: u16) -> u16 {
        // SAFETY: mapped device memory, see above.
        unsafe { load::<u16>(self.pointer(offset)) }
    }

    fn read32(&self, offset: u16) -> u32 {
        // SAFETY: mapped device memory, see above.
        unsafe { load::<u32>(self.pointer(offset)) }
    }

    fn write8(&self, offset: u16, value: u8) {
        // SAFETY: mapped device memory, see above.
        unsafe { store::<u8>(self.pointer(offset), value) };
    }

    fn write16(&self, offset: u16, value: u16) {
        // SAFETY: mapped device memory, see above.
        unsafe { store::<u16>(self.pointer(offset), value) };
    }

    fn write32(&self, offset: u16, value: u32) {
        // SAFETY: mapped device memory, see above.
        unsafe { store::<u32>(self.pointer(offset), value) };
    }

    fn context(&self) -> AccessContext {
        AccessContext::Any
    }
}

/// A memory region of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Physical address.
    pub address: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Bar {
    fn pointer<T>(self, offset: u64) -> *mut T {
        assert!(offset + size_of::<T>() as u64 <= self.length, "{offset:#x} is beyond {self:?}");
        with_exposed_provenance_mut((self.address + offset) as usize)
    }

    /// Reads 16 bits.
    pub fn read16(self, offset: u64) -> u16 {
        // SAFETY: in the region, which is mapped as device memory.
        unsafe { load::<u16>(self.pointer(offset)) }
    }

    /// Writes 16 bits.
    pub fn write16(self, offset: u64, value: u16) {
        // SAFETY: in the region, which is mapped as device memory.
        unsafe { store::<u16>(self.pointer(offset), value) };
    }

    /// Reads 64 bits.
    pub fn read64(self, offset: u64) -> u64 {
        // SAFETY: in the region, which is mapped as device memory.
        unsafe { load::<u64>(self.pointer(offset)) }
    }

    /// Writes 64 bits.
    pub fn write64(self, offset: u64, value: u64) {
        // SAFETY: in the region, which is mapped as device memory.
        unsafe { store::<u64>(self.pointer(offset), value) };
    }
}

impl TableMemory for Bar {
    fn length(&self) -> u64 {
        self.length
    }

    fn read32(&self, offset: u64) -> u32 {
        // SAFETY: in the region, which is mapped as device memory.
        unsafe { load::<u32>(self.pointer(offset)) }
    }

    fn write32(&self, offset: u64, value: u32) {
        // SAFETY: in the region, which is mapped as device memory.
        unsafe { store::<u32>(self.pointer(offset), value) };
    }
}

/// Reads device memory. A hypervisor under the image can tell what the instruction wants, which is
/// not so for a volatile load with write-back (DDI 0487, `ESR_ELx.ISV`).
///
/// # Safety
/// The register is mapped as device memory, and aligned.
unsafe fn load<T: FromBytes + IntoBytes>(register: *mut T) -> T {
    // SAFETY: the caller's promise; the pointer lives for this one access.
    unsafe { UniqueMmioPointer::new(NonNull::new_unchecked(register)).read_unsafe() }
}

/// Writes device memory, likewise.
///
/// # Safety
/// As for [`load`].
unsafe fn store<T: IntoBytes + Immutable>(register: *mut T, value: T) {
    // SAFETY: as in `load`.
    unsafe { UniqueMmioPointer::new(NonNull::new_unchecked(register)).write_unsafe(value) };
}

/// A function that enumeration found.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its own address.
    pub address: RequesterId,
    /// Requester ID at the host bridge; behind a conventional bridge it is the bridge's.
    pub requester: RequesterId,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Configuration space.
    pub config: Ecam,
    /// Memory regions, by their registers.
    pub bars: [Option<Bar>; 6],
}

impl Function {
    /// Lets it be reached, and send.
    pub fn enable(&self) {
        let command = self.config.read16(COMMAND);
        self.config.write16(COMMAND, command | MEMORY_AND_MASTER);
    }

    /// Is it of this vendor and kind?
    pub fn is(&self, vendor: u16, device: u16) -> bool {
        (self.vendor, self.device) == (vendor, device)
    }

    /// A region that the device's driver knows to be there.
    pub fn bar(&self, index: usize) -> Bar {
        self.bars[index].unwrap_or_else(|| panic!("{} has no BAR {index}", self.address))
    }

    /// Returns the offset of its first capability of this kind.
    pub fn capability(&self, id: u8) -> Option<u16> {
        capabilities(&self.config)
            .find(|capability| capability.id == id)
            .map(|capability| capability.offset)
    }

    /// Returns the offset of its extended capability of this kind.
    pub fn extended_capability(&self, id: u16) -> Option<u16> {
        const FIRST: u16 = 0x100;
        const END: u16 = 0x1000;
        let header = |offset| Some(self.config.read32(offset)).filter(|header| *header != 0);
        let mut offset = FIRST;
        // As many as there is room for.
        for _ in (FIRST..END).step_by(4) {
            let found = header(offset)?;
            if found as u16 == id {
                return Some(offset);
            }
            offset = (found >> 20) as u16 & !3;
            if offset < FIRST {
                return None;
            }
        }
        None
    }

    /// Its MSI-X, else its MSI, with the shape that vectors have there.
    pub fn store(&self) -> Result<(Arc<dyn MessageStore>, Shape), PciError> {
        match MsixCapability::find(&self.config) {
            Ok(capability) => {
                let bar = |bir: u8| -> Arc<dyn TableMemory> { Arc::new(self.bar(bir.into())) };
                let store = MsixStore::new(MsixParts::new(
                    capability,
                    Arc::new(self.config),
                    bar(capability.table.bir()),
                    bar(capability.pending.bir()),
                    Arc::new(Kernel),
                ))?;
                Ok((Arc::new(store), Shape::Independent))
            }
            Err(PciError::NoCapability { .. }) => {
                let store = MsiStore::new(Arc::new(self.config), Arc::new(Kernel))?;
                Ok((Arc::new(store), Shape::AlignedGroup))
            }
            Err(error) => Err(error),
        }
    }
}
