//! Recognizes PCI host bridges, and reads their windows from `ranges` and `dma-ranges` (IEEE 1275
//! PCI binding §2.1.4.1 and §2.2.1.1; Devicetree Specification §2.3.9).
//!
//! Also checks that messages pass the `dma-ranges` between a requester and the root. As in Linux
//! 7.2, the way begins at a PCI host itself, because bridges below it have no say
//! (`pci_dma_configure`), and at the parent of another device (`of_dma_configure_id`). Each bus
//! translates (`of_translate_dma_address`); a bus without the property does not.

use super::tree::{DMA_RANGES, NodeRef, RANGES, Tree, range_entries, search, to_cpu, to_memory};
use crate::description::{Description, PlatformDevice, Role};
use crate::finding::{Fact, FindingList, Region, Rule};
use crate::lint::msi_maps::{doorbells, untranslated};
use crate::route::RouteSpan;
use alloc::collections::BTreeMap;
use alloc::format;
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

/// Reports requesters whose messages some `dma-ranges` does not let through to a doorbell.
pub(super) fn check(tree: &Tree<'_>, description: &Description, findings: &mut FindingList) {
    let hosts = description.hosts.iter().filter(|host| host.status.is_enabled());
    let hosts = hosts.map(|host| (&host.id, untranslated(description, host).collect()));
    let devices = description.devices.iter().filter(|device| writes_doorbells(description, device));
    let devices = devices.map(|device| (&device.id, description.device_spans(device)));
    let spans: BTreeMap<_, Vec<_>> = hosts.chain(devices).collect();
    for node in tree.nodes() {
        let Some(bus) = first_limit(node) else { continue };
        let spans = spans.get(&node.id()).into_iter().flatten();
        let obstacle = spans.copied().find_map(|span| obstacle(node, description, span));
        if let Some(message) = obstacle {
            findings.add(Rule::DoorbellOutsideDmaRanges, bus.origin(DMA_RANGES), message);
        }
    }
}

/// Returns `true` if the device itself writes messages, and no IOMMU translates them. Operating
/// systems ignore a disabled IOMMU.
fn writes_doorbells(description: &Description, device: &PlatformDevice) -> bool {
    let is_ignored = |iommu| description.iommu(iommu).is_none_or(|it| !it.status.is_enabled());
    device.role == Role::Device
        && device.status.is_enabled()
        && device.iommus.iter().all(|reference| is_ignored(reference.iommu))
}

/// Returns the first bus that translates or limits what `node` writes. Interconnects that stand for
/// a parent (`dma-mem`) are not followed.
fn first_limit<'t, 'a>(node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    let skipped = usize::from(!is_pci_host(node));
    let mut way = node.upwards().skip(skipped).filter(|bus| bus.parent().is_some());
    let bus = way.find(|bus| bus.property(DMA_RANGES).is_some_and(|ranges| !ranges.is_empty()))?;
    let leaves = |bus: NodeRef<'_, '_>| bus.strings("interconnect-names").any(|it| it == "dma-mem");
    (!node.upwards().any(leaves)).then_some(bus)
}

/// Returns the reason why messages of `span` do not reach a doorbell. Returns `None` if the tree
/// has too many ranges to find out.
fn obstacle(node: NodeRef<'_, '_>, description: &Description, span: RouteSpan) -> Option<String> {
    let to = description.controller(span.controller)?;
    for doorbell in doorbells(description, span) {
        let reached = dma_address(node, doorbell).and_then(|address| to_memory(node, address));
        node.spend()?;
        // The doorbell of a MIP is a PCI address, which leads to the registers.
        let is_right = |cpu: u64| match (&to.message, &to.registers) {
            (Some(_), Some(registers)) => registers.contains(cpu),
            _ => cpu == doorbell,
        };
        match reached {
            Ok(cpu) if is_right(cpu) => {}
            Ok(cpu) => {
                return Some(format!(
                    "{doorbell:#x}, the doorbell of {}, leads to {cpu:#x}",
                    to.id
                ));
            }
            Err(reason) => return Some(format!("{reason}, the doorbell of {}", to.id)),
        }
    }
    None
}

pub(super) const MAP: &str = "msi-map";
pub(super) const PARENT: &str = "msi-parent";

/// Compatible strings of PCI hosts whose first register region is ECAM (as in Linux's
/// `pci-host-generic`).
pub(super) const ECAM_HOSTS: &[&str] = &[
    "marvell,armada8k-pcie-ecam",
    "pci-host-ecam-generic",
    ECAM_WITH_PORT_LOGIC,
    "snps,dw-pcie-ecam",
    "socionext,synquacer-pcie-ecam",
];

/// Compatible string of a DesignWare bridge that its firmware has initialized. The first function
/// of its ECAM is the root port, with the port logic (as in Linux's `pcie-qcom.c`).
pub(super) const ECAM_WITH_PORT_LOGIC: &str = "qcom,pcie-sa8255p";

/// Returns `true` if `node` is a PCI bridge that is not behind another PCI bridge.
pub(super) fn is_pci_host(node: NodeRef<'_, '_>) -> bool {
    is_pci_bridge(node) && !node.parent().is_some_and(is_pci_bridge)
}

pub(super) fn is_pci_bridge(node: NodeRef<'_, '_>) -> bool {
    matches!(node.text("device_type"), Some("pci" | "pciex")) || node.is_compatible(ECAM_HOSTS)
}
