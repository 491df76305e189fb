//! Reads the windows of a PCI host bridge from its `ranges` and `dma-ranges` (IEEE 1275 PCI binding
//! §2.1.4.1 and §2.2.1.1; Devicetree Specification §2.3.9).

use super::address::{DMA_RANGES, RANGES, range_entries, search, to_cpu, to_memory};
use super::pci_hosts::is_pci_host;
use super::tree::NodeRef;
use crate::origin::Fact;
use crate::region::Region;
use alloc::string::String;
use alloc::vec::Vec;
use msi_types::pci::{PciSpace, PciWindow};

/// Number of cells of a PCI address: space and flags, then 64 bits of address.
const PCI_CELLS: usize = 3;

/// Bits of the first cell of a PCI address.
const PREFETCHABLE: u32 = 1 << 30;
const SPACE: u32 = 3 << 24;
const IO: u32 = 1 << 24;
const MEMORY_32: u32 = 2 << 24;
const MEMORY_64: u32 = 3 << 24;

/// Returns the windows of `host`, in the property's order. Omits entries without a CPU address, and
/// entries for configuration space.
pub(super) fn read(host: NodeRef<'_, '_>) -> Vec<Fact<PciWindow>> {
    entries(host, RANGES, to_cpu)
}

/// Returns the windows through which the functions behind `host` reach memory and doorbells. The
/// list is empty if firmware states no limit.
pub(super) fn read_dma(host: NodeRef<'_, '_>) -> Vec<Fact<PciWindow>> {
    entries(host, DMA_RANGES, to_memory)
}

/// Returns the address on the bus above `node` to which a write of `node` to `address` leads. Only
/// a PCI host has windows of its own. A host without the property, or with an empty one, has no
/// limit.
pub(super) fn dma_address(node: NodeRef<'_, '_>, address: u64) -> Result<u128, String> {
    let is_stated = node.property(DMA_RANGES).is_some_and(|ranges| !ranges.is_empty());
    match range_entries(node, DMA_RANGES, PCI_CELLS).filter(|_| is_stated && is_pci_host(node)) {
        None => Ok(address.into()),
        Some(entries) => {
            let memory = entries.filter_map(|[child, parent, size]| {
                let (flags, bus_base) = split(child)?;
                (flags & MEMORY_32 != 0).then_some([bus_base.into(), parent, size])
            });
            search(node, memory, address.into(), DMA_RANGES)
        }
    }
}

/// Reads a property of windows, whose parent addresses `cpu` translates.
fn entries<'t, 'a>(
    host: NodeRef<'t, 'a>,
    property: &'static str,
    cpu: fn(NodeRef<'t, 'a>, u128) -> Result<u64, String>,
) -> Vec<Fact<PciWindow>> {
    let Some(entries) = range_entries(host, property, PCI_CELLS) else { return Vec::new() };
    let windows = entries.filter_map(|[child, parent, size]| {
        let (flags, bus_base) = split(child)?;
        let space = match flags & SPACE {
            IO => PciSpace::Io,
            MEMORY_32 => PciSpace::Memory32,
            MEMORY_64 => PciSpace::Memory64,
            _ => return None,
        };
        let cpu = Region::new(cpu(host, parent).ok()?, u64::try_from(size).ok()?)?;
        let window = PciWindow::new(space, cpu, bus_base)?;
        let prefetchable = flags & PREFETCHABLE != 0;
        Some(if prefetchable { window.prefetchable() } else { window })
    });
    windows.map(|window| Fact::new(window, host.origin(property))).collect()
}

/// Returns the first cell of a PCI address, and the address itself.
fn split(address: u128) -> Option<(u32, u64)> {
    let flags = u32::try_from(address >> 64).ok()?;
    Some((flags, u64::try_from(address & u128::from(u64::MAX)).ok()?))
}

/// Returns the cells of `ranges` or `dma-ranges` for these windows. Each CPU address and each size
/// has two cells.
#[cfg(feature = "write")]
pub(super) fn ranges(windows: &[Fact<PciWindow>]) -> Vec<u32> {
    let entry = |window: &Fact<PciWindow>| {
        let space = match window.space() {
            PciSpace::Io => IO,
            PciSpace::Memory32 => MEMORY_32,
            PciSpace::Memory64 => MEMORY_64,
        };
        let flags = if window.is_prefetchable() { space | PREFETCHABLE } else { space };
        let [bus, cpu, size] =
            [window.bus_base(), window.cpu().base(), window.cpu().size()].map(halves);
        [flags, bus[0], bus[1], cpu[0], cpu[1], size[0], size[1]]
    };
    windows.iter().flat_map(entry).collect()
}

#[cfg(feature = "write")]
fn halves(value: u64) -> [u32; 2] {
    [value >> 32, value & 0xffff_ffff].map(|half| u32::try_from(half).unwrap_or(0))
}
