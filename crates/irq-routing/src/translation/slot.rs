//! A copy of a translation. Threads read it while one thread changes it.
//!
//! A writer makes the version odd, stores the words, and makes the version even again. A reader
//! that meets a writer finds no copy, and asks the IOMMU instead of waiting.

use crate::sync::{AtomicU64, SeqCst};
use msi_types::DeviceId;

/// A translation of one address for one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    pub(crate) device: DeviceId,
    pub(crate) iova: u64,
    pub(crate) address: u64,
}

/// Bit of the device's word that is set if the slot has a copy.
const VALID: u64 = 1 << 32;

#[derive(Debug)]
pub(crate) struct Slot {
    /// Number of changes that have started or ended.
    version: AtomicU64,
    device: AtomicU64,
    iova: AtomicU64,
    address: AtomicU64,
}

impl Slot {
    pub(crate) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { version: zero(), device: zero(), iova: zero(), address: zero() }
    }

    /// Stores a copy, or none. Callers must ensure that only one thread stores at a time.
    pub(crate) fn store(&self, mapping: Option<Mapping>) {
        let none = Mapping { device: DeviceId::new(0), iova: 0, address: 0 };
        let valid = if mapping.is_some() { VALID } else { 0 };
        let Mapping { device, iova, address } = mapping.unwrap_or(none);
        let version = self.version.load(SeqCst);
        self.version.store(version | 1, SeqCst);
        self.device.store(valid | u64::from(device.get()), SeqCst);
        self.iova.store(iova, SeqCst);
        self.address.store(address, SeqCst);
        self.version.store(version.wrapping_add(2), SeqCst);
    }

    /// Returns the copy, or `None` if there is none or it is being changed.
    pub(crate) fn load(&self) -> Option<Mapping> {
        let version = self.version.load(SeqCst);
        let device = self.device.load(SeqCst);
        let (iova, address) = (self.iova.load(SeqCst), self.address.load(SeqCst));
        let is_stable = version & 1 == 0 && self.version.load(SeqCst) == version;
        let device = u32::try_from(device ^ VALID).ok().filter(|_| is_stable)?;
        Some(Mapping { device: DeviceId::new(device), iova, address })
    }

    /// Returns `true` if the slot has no copy.
    pub(crate) fn is_free(&self) -> bool {
        self.device.load(SeqCst) & VALID == 0
    }
}
