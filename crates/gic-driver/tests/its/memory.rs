//! Memory as a CPU and an ITS see it. A store is invisible to the ITS until it was published, and
//! freed memory is never reused.

use gic_driver::{Coherence, TableLayout};
use std::collections::BTreeMap;
use std::ops::Range;

/// From where the ITS reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum View {
    /// It looks into caches: sees what a barrier published.
    Coherent,
    /// It does not: sees what was cleaned.
    Dram,
}

#[derive(Debug)]
struct Region {
    cpu: Vec<u8>,
    barrier: Vec<u8>,
    dram: Vec<u8>,
}

/// All live allocations. Addresses are never used twice.
#[derive(Debug)]
pub(crate) struct Memory {
    regions: BTreeMap<u64, Region>,
    next: u64,
    /// The same below 4 GiB.
    next_low: u64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { regions: BTreeMap::new(), next: 0x1_4000_0000, next_low: 0x5000_0000 }
    }

    /// Zeroed, published, with a gap behind it; `shift` bytes from where it should be.
    pub(crate) fn allocate(&mut self, layout: TableLayout, shift: u64) -> u64 {
        let TableLayout { bytes, align, address_bits, .. } = layout;
        assert!(align.is_power_of_two() && bytes > 0, "layout of {bytes} bytes aligned to {align}");
        let next = if address_bits <= 32 { &mut self.next_low } else { &mut self.next };
        let place = next.next_multiple_of(align);
        *next = place + bytes + 0x100;
        let base = place + shift;
        let zeros = vec![0; usize::try_from(bytes).unwrap()];
        let region = Region { cpu: zeros.clone(), barrier: zeros.clone(), dram: zeros };
        assert!(self.regions.insert(base, region).is_none(), "{base:#x} is in use");
        base
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

    /// Reads as a device does. An access to freed memory is an error of the driver.
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

    pub(crate) fn device_write64(&mut self, address: u64, value: u64) {
        let (region, range) = self.locate(address, 8);
        for copy in [&mut region.cpu, &mut region.barrier, &mut region.dram] {
            copy[range.clone()].copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Number of allocations at or above this address.
    pub(crate) fn regions_from(&self, address: u64) -> usize {
        self.regions.range(address..).count()
    }

    /// The size of the allocation that begins here.
    pub(crate) fn bytes_at(&self, base: u64) -> Option<u64> {
        self.regions.get(&base).map(|region| region.cpu.len() as u64)
    }

    pub(crate) fn live_regions(&self) -> usize {
        self.regions.len()
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
