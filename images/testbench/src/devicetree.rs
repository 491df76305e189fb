//! The devicetree's facts beside interrupts: memory, firmware's conduit, PCI's windows, the SMMU in
//! front of PCI, the command line.

use crate::smmu::{SmmuDescription, StreamSpan};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use gic_driver::PhysicalRegion;
use image_rt::power::Conduit;

/// PCI address space code of 32-bit memory in the first cell of a range.
const MEMORY_32: u32 = 0x0200_0000;
const SPACE: u32 = 0x0300_0000;

/// The blob that the loader handed over.
///
/// # Safety
/// A devicetree lies at `address` and is not changed as long as the program runs.
pub(crate) unsafe fn blob(address: usize) -> &'static [u8] {
    let start = core::ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: a devicetree begins with its magic number and its size (the caller's promise).
    let size = unsafe { core::slice::from_raw_parts(start, 8) };
    let size = u32::from_be_bytes([size[4], size[5], size[6], size[7]]);
    // SAFETY: as above.
    unsafe { core::slice::from_raw_parts(start, size as usize) }
}

/// The machine beside its interrupts.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) memory: Range<usize>,
    pub(crate) conduit: Conduit,
    pub(crate) pci_window: Option<Range<u64>>,
}

impl Surroundings {
    /// `None` if it is no devicetree of a machine that this image can use. Without the heap, of which it knows the place.
    pub(crate) fn read(blob: &'static [u8]) -> Option<Self> {
        let tree = Fdt::new(blob).ok()?;
        let root = tree.root();
        let method = root.child("psci").and_then(|psci| psci.property("method"));
        let conduit = match method.and_then(|method| method.value_as::<&str>().ok()) {
            Some("smc") => Conduit::Smc,
            _ => Conduit::Hvc,
        };
        Some(Self { memory: memory(tree)?, conduit, pci_window: pci_window(tree) })
    }
}

fn memory(tree: Fdt<'_>) -> Option<Range<usize>> {
    let node = tree.root().children().find(|node| node.name_without_address() == "memory")?;
    let first = node.reg().ok()??.next()?;
    let (start, size) = (first.address::<u64>().ok()?, first.size::<u64>().ok()?);
    Some(start as usize..(start + size) as usize)
}

fn pci_host(tree: Fdt<'_>) -> Option<FdtNode<'_>> {
    tree.root().children().find(|node| node.is_compatible("pci-host-ecam-generic"))
}

/// The window for 32-bit memory, whose addresses are the same on both sides on `virt`.
fn pci_window(tree: Fdt<'_>) -> Option<Range<u64>> {
    pci_host(tree)?.ranges().ok()??.find_map(|range| {
        let space = range.child_bus_address.as_ref().first()?.get();
        let start = range.parent_bus_address::<u64>().ok()?;
        let length = range.length::<u64>().ok()?;
        (space & SPACE == MEMORY_32).then(|| start..start + length)
    })
}

/// The SMMUv3 to which the PCI host's `iommu-map` leads (bindings `iommu/arm,smmu-v3.yaml`, `pci/pci-iommu.txt`).
pub(crate) fn smmu(blob: &[u8]) -> Option<SmmuDescription> {
    /// An interrupt: kind, number, flags.
    const INTERRUPT_CELLS: usize = 3;
    const SPI: u32 = 0;
    const FIRST_SPI: u32 = 32;
    let tree = Fdt::new(blob).ok()?;
    let map = cells(&pci_host(tree)?, "iommu-map");
    let (entries, _) = map.as_chunks();
    let phandle = entries.first().map(|&[_, phandle, ..]: &[u32; 4]| phandle)?;
    let node = tree.root().children().find(|node| cells(node, "phandle") == [phandle])?;
    let registers =
        node.is_compatible("arm,smmu-v3").then(|| node.reg().ok()?.and_then(|mut reg| reg.next()))??;
    let index = position(node.property("interrupt-names")?.value(), "eventq")?;
    let interrupts = cells(&node, "interrupts");
    let event = interrupts.chunks_exact(INTERRUPT_CELLS).nth(index).filter(|event| event[0] == SPI)?;
    let streams = entries.iter().filter(|entry| entry[1] == phandle).map(
        |&[first_requester, _, first_stream, length]| StreamSpan { first_requester, first_stream, length },
    );
    Some(SmmuDescription {
        registers: PhysicalRegion { base: registers.address().ok()?, bytes: registers.size().ok()? },
        event_spi: FIRST_SPI + event[1],
        streams: streams.collect(),
    })
}

/// A property's cells; none where there is no such property.
fn cells(node: &FdtNode<'_>, name: &str) -> Vec<u32> {
    let value = node.property(name);
    let words = value.iter().flat_map(|value| value.value().chunks_exact(4));
    words.map(|word| word.iter().fold(0, |cell, byte| cell << 8 | u32::from(*byte))).collect()
}

/// Returns the position of a string in a list of strings.
fn position(strings: &[u8], wanted: &str) -> Option<usize> {
    strings.split(|byte| *byte == 0).position(|name| name == wanted.as_bytes())
}

/// The command line.
pub(crate) fn arguments(blob: &[u8]) -> String {
    let tree = Fdt::new(blob).ok();
    let property = tree.and_then(|tree| tree.root().child("chosen")?.property("bootargs"));
    property.and_then(|text| text.value_as::<&str>().ok().map(String::from)).unwrap_or_default()
}
