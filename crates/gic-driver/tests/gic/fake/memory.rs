//! Memory as seen by CPUs and controllers. A controller can't see a store until it is published,
//! and CPUs can't see a controller's store until they observe it. Freed memory is never reused.
//!
//! Formats of the interpreter's table entries. The architecture leaves entry formats to the
//! implementation.

use super::virtual_execution::FakeVpe;
use bitfield_struct::bitfield;
use gic_driver::{Coherence, PhysicalRegion, Table, TableLayout};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A controller's view of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    /// View of a controller that is coherent with caches, and sees stores that were published with
    /// a barrier.
    Coherent,
    /// View of a controller that is not coherent, and only sees stores that were cleaned.
    Dram,
}

#[derive(Debug)]
struct Region {
    cpu: Vec<u8>,
    barrier: Vec<u8>,
    dram: Vec<u8>,
}

/// All live allocations. Each address is allocated at most once.
#[derive(Debug)]
pub(crate) struct Memory {
    regions: BTreeMap<u64, Region>,
    /// Regions of a previous kernel that have not been adopted yet.
    left: BTreeSet<u64>,
    /// Regions reserved by firmware or a previous kernel.
    reserved: BTreeSet<u64>,
    /// Number of further allocations that will succeed.
    pub(crate) allowance: Option<u32>,
    /// Size in bytes of the largest allocation that succeeds.
    pub(crate) largest: u64,
    /// Number of allocations before a misaligned one, and the misalignment in bytes.
    pub(crate) misplaced: Option<(u32, u64)>,
    /// `true` if the kernel can invalidate its caches.
    pub(crate) observable: bool,
    next: u64,
    /// Address of the next allocation below 4 GiB.
    next_low: u64,
    /// vPEs, which the ITSes share with their tables.
    pub(crate) vpes: Vec<FakeVpe>,
    /// Sequence number of the last VMOVP.
    pub(crate) last_vpe_move: Option<u16>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            regions: BTreeMap::new(),
            left: BTreeSet::new(),
            reserved: BTreeSet::new(),
            allowance: None,
            largest: u64::MAX,
            misplaced: None,
            observable: false,
            next: 0x1_4000_0000,
            next_low: 0x5000_0000,
            vpes: Vec::new(),
            last_vpe_move: None,
        }
    }

    /// Allocates zeroed and published memory, followed by a gap.
    pub(crate) fn allocate(&mut self, layout: TableLayout) -> Option<u64> {
        let TableLayout { bytes, align, address_bits, .. } = layout;
        assert!(align.is_power_of_two() && bytes > 0, "layout of {bytes} bytes aligned to {align}");
        if bytes > self.largest {
            return None;
        }
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.checked_sub(1)?;
        }
        let shift = self.shift();
        let next = if address_bits <= 32 { &mut self.next_low } else { &mut self.next };
        let place = next.next_multiple_of(align);
        *next = place + bytes + 0x100;
        let base = place + shift;
        assert!(self.regions.insert(base, region(bytes, 0)).is_none(), "{base:#x} is in use");
        Some(base)
    }

    /// Creates a previous kernel's table, with every LPI enabled.
    pub(crate) fn leave(&mut self, base: u64, bytes: u64) {
        if self.left.insert(base) {
            self.regions.insert(base, region(bytes, 0xa3));
        }
    }

    /// Creates a previous kernel's table that may be adopted.
    pub(crate) fn reserve(&mut self, base: u64, bytes: u64) {
        self.leave(base, bytes);
        self.reserved.insert(base);
    }

    pub(crate) fn adopt(&mut self, region: PhysicalRegion) -> Option<Table> {
        let PhysicalRegion { base, bytes } = region;
        if self.left.contains(&base) && !self.reserved.contains(&base) {
            return None;
        }
        let found = self.regions.get(&base)?.cpu.len() as u64;
        (found >= bytes).then(|| {
            self.left.remove(&base);
            Table::new(base, found, 0)
        })
    }

    /// Returns the offset by which the next allocation is misaligned.
    fn shift(&mut self) -> u64 {
        match self.misplaced.take() {
            Some((0, shift)) => shift,
            Some((more, shift)) => {
                self.misplaced = Some((more - 1, shift));
                0
            }
            None => 0,
        }
    }

    pub(crate) fn release(&mut self, base: u64) {
        assert!(self.regions.remove(&base).is_some(), "{base:#x} was released twice");
    }

    pub(crate) fn store(&mut self, address: u64, bytes: &[u8]) {
        let (region, range) = self.locate(address, bytes.len());
        region.cpu[range].copy_from_slice(bytes);
    }

    pub(crate) fn load(&mut self, address: u64, count: usize) -> Vec<u8> {
        let (region, range) = self.locate(address, count);
        region.cpu[range].to_vec()
    }

    pub(crate) fn publish(&mut self, base: u64, range: Range<u64>, coherence: Coherence) {
        let count = usize::try_from(range.end - range.start).unwrap();
        let (region, range) = self.locate(base + range.start, count);
        region.barrier[range.clone()].copy_from_slice(&region.cpu[range.clone()]);
        if coherence == Coherence::NonCoherent {
            region.dram[range.clone()].copy_from_slice(&region.cpu[range]);
        }
    }

    /// Makes a controller's stores visible to CPUs. Returns `false` if the kernel can't invalidate
    /// its caches.
    pub(crate) fn observe(&mut self, base: u64, range: Range<u64>, coherence: Coherence) -> bool {
        if coherence == Coherence::NonCoherent && !self.observable {
            return false;
        }
        let count = usize::try_from(range.end - range.start).unwrap();
        let (region, range) = self.locate(base + range.start, count);
        let source = match coherence {
            Coherence::Coherent => &region.barrier,
            Coherence::NonCoherent => &region.dram,
        };
        region.cpu[range.clone()].copy_from_slice(&source[range]);
        true
    }

    /// Reads memory as a controller with this view sees it. Accessing freed memory is a driver bug
    /// and panics.
    pub(crate) fn device_read(&mut self, view: View, address: u64, count: usize) -> Vec<u8> {
        let (region, range) = self.locate(address, count);
        match view {
            View::Coherent => region.barrier[range].to_vec(),
            View::Dram => region.dram[range].to_vec(),
        }
    }

    pub(crate) fn device_read64(&mut self, view: View, address: u64) -> u64 {
        u64::from_le_bytes(self.device_read(view, address, 8).try_into().unwrap())
    }

    /// Writes memory as a controller does.
    pub(crate) fn device_write(&mut self, address: u64, bytes: &[u8]) {
        let (region, range) = self.locate(address, bytes.len());
        region.barrier[range.clone()].copy_from_slice(bytes);
        region.dram[range].copy_from_slice(bytes);
    }

    pub(crate) fn device_write64(&mut self, address: u64, value: u64) {
        self.device_write(address, &value.to_le_bytes());
    }

    /// Returns the number of allocations at or above this address.
    pub(crate) fn regions_from(&self, address: u64) -> usize {
        self.regions.range(address..).count()
    }

    pub(crate) fn live_regions(&self) -> usize {
        self.regions.len() - self.left.len()
    }

    fn locate(&mut self, address: u64, count: usize) -> (&mut Region, Range<usize>) {
        let (base, region) = self
            .regions
            .range_mut(..=address)
            .next_back()
            .unwrap_or_else(|| panic!("no memory at {address:#x}"));
        let start = usize::try_from(address - base).unwrap();
        assert!(
            start + count <= region.cpu.len(),
            "{count} bytes at {address:#x} are not allocated"
        );
        (region, start..start + count)
    }
}

fn region(bytes: u64, fill: u8) -> Region {
    let cpu = vec![fill; usize::try_from(bytes).unwrap()];
    Region { barrier: cpu.clone(), dram: cpu.clone(), cpu }
}

/// An entry of the device table.
#[bitfield(u64)]
pub(crate) struct DeviceEntry {
    #[bits(5)]
    pub(crate) event_bits_minus_one: u8,
    #[bits(44)]
    itt_address_51_8: u64,
    #[bits(14)]
    __: u16,
    pub(crate) valid: bool,
}

impl DeviceEntry {
    pub(crate) const fn itt_address(self) -> u64 {
        self.itt_address_51_8() << 8
    }

    pub(crate) const fn with_itt_address(self, address: u64) -> Self {
        self.with_itt_address_51_8((address >> 8) & 0xfff_ffff_ffff)
    }
}

/// An entry of a device's interrupt translation table. The entry is zero if the event is not
/// mapped.
#[bitfield(u64)]
pub(crate) struct TranslationEntry {
    /// The collection, or the vPE of a virtual LPI.
    pub(crate) collection: u16,
    pub(crate) intid: u32,
    #[bits(15)]
    __: u16,
    pub(crate) is_virtual: bool,
}
