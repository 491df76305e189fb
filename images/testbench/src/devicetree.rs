//! Reads the part of the devicetree that doesn't describe interrupts: the SMMU in front of PCI.

use crate::smmu::{SmmuDescription, StreamSpan};
use alloc::vec::Vec;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::standard::NodeStandard;
use dtoolkit::{Node, Property};
use gic_arch::IntId;
use gic_driver::PhysicalRegion;

fn pci_host(tree: Fdt<'_>) -> Option<FdtNode<'_>> {
    tree.root().children().find(|node| node.is_compatible("pci-host-ecam-generic"))
}

/// Returns the SMMUv3 that the PCI host's `iommu-map` refers to (bindings `iommu/arm,smmu-v3.yaml`,
/// `pci/pci-iommu.txt`).
pub(crate) fn smmu(blob: &[u8]) -> Option<SmmuDescription> {
    /// Cells of an interrupt: kind, number, flags.
    const INTERRUPT_CELLS: usize = 3;
    const SPI: u32 = 0;
    let tree = Fdt::new(blob).ok()?;
    let map = cells(&pci_host(tree)?, "iommu-map");
    let (entries, _) = map.as_chunks();
    let phandle = entries.first().map(|&[_, phandle, ..]: &[u32; 4]| phandle)?;
    let node = tree.root().children().find(|node| cells(node, "phandle") == [phandle])?;
    let registers = node
        .is_compatible("arm,smmu-v3")
        .then(|| node.reg().ok()?.and_then(|mut reg| reg.next()))??;
    let index = position(node.property("interrupt-names")?.value(), "eventq")?;
    let interrupts = cells(&node, "interrupts");
    let event =
        interrupts.chunks_exact(INTERRUPT_CELLS).nth(index).filter(|event| event[0] == SPI)?;
    let streams = entries.iter().filter(|entry| entry[1] == phandle).map(
        |&[first_requester, _, first_stream, length]| StreamSpan {
            first_requester,
            first_stream,
            length,
        },
    );
    Some(SmmuDescription {
        registers: PhysicalRegion {
            base: registers.address().ok()?,
            bytes: registers.size().ok()?,
        },
        event_spi: IntId::spi(event[1])?.get(),
        streams: streams.collect(),
    })
}

/// Returns a property's cells, or no cells if the property doesn't exist.
fn cells(node: &FdtNode<'_>, name: &str) -> Vec<u32> {
    let value = node.property(name);
    let words = value.iter().flat_map(|value| value.value().chunks_exact(4));
    words.map(|word| word.iter().fold(0, |cell, byte| cell << 8 | u32::from(*byte))).collect()
}

/// Returns the position of a string in a list of strings.
fn position(strings: &[u8], wanted: &str) -> Option<usize> {
    strings.split(|byte| *byte == 0).position(|name| name == wanted.as_bytes())
}
