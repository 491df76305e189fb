//! The guest's devicetree.

use crate::layout::{CPUS, DISTRIBUTOR, ECAM, ITS, PCI_WINDOW, RAM, REDISTRIBUTORS, UART};
use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use std::ops::Range;

const GIC_PHANDLE: u32 = 1;
const ITS_PHANDLE: u32 = 2;
/// Values in the interrupt cells of the binding `arm,gic-v3`: the kind and the trigger.
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;
/// The timers' PPIs, in the order of the binding `arm,armv8-timer`.
const TIMERS: [u32; 4] = [13, 14, 11, 10];

/// Returns the devicetree blob. The devicetree describes a PCI host if a function is passed through
/// to the guest.
pub(crate) fn devicetree(has_pci: bool) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let root = &mut tree.root;
    for property in [
        property("compatible", "linux,dummy-virt"),
        property("#address-cells", 2_u32),
        property("#size-cells", 2_u32),
        property("interrupt-parent", GIC_PHANDLE),
    ] {
        root.add_property(property);
    }
    for child in [node("chosen", []), memory(), cpus(), psci(), timer(), gic(), uart()] {
        root.add_child(child);
    }
    if has_pci {
        root.add_child(pci_host());
    }
    tree.to_dtb()
}

fn memory() -> DeviceTreeNode {
    node(
        format!("memory@{:x}", RAM.start),
        [property("device_type", "memory"), property("reg", doubles(&[RAM]))],
    )
}

fn cpus() -> DeviceTreeNode {
    let mut cpus =
        node("cpus", [property("#address-cells", 2_u32), property("#size-cells", 0_u32)]);
    for affinity in 0..CPUS {
        cpus.add_child(node(
            format!("cpu@{affinity:x}"),
            [
                property("device_type", "cpu"),
                property("compatible", "arm,armv8"),
                property("enable-method", "psci"),
                property("reg", affinity),
            ],
        ));
    }
    cpus
}

/// Describes PSCI. KVM implements version 1.1, which is compatible with 0.2; kvm-unit-tests looks
/// only for 0.2.
fn psci() -> DeviceTreeNode {
    let versions: &[&str] = &["arm,psci-1.0", "arm,psci-0.2"];
    node("psci", [property("compatible", versions), property("method", "hvc")])
}

fn timer() -> DeviceTreeNode {
    let interrupts = TIMERS.map(|number| [PPI, number, LEVEL_HIGH]);
    node(
        "timer",
        [
            property("compatible", "arm,armv8-timer"),
            property("interrupts", interrupts.as_flattened()),
        ],
    )
}

fn gic() -> DeviceTreeNode {
    let mut gic = node(
        format!("interrupt-controller@{:x}", DISTRIBUTOR.start),
        [
            property("#address-cells", 2_u32),
            property("#size-cells", 2_u32),
            property("ranges", &[] as &[u8]),
            property("compatible", "arm,gic-v3"),
            property("#interrupt-cells", 3_u32),
            property("interrupt-controller", &[] as &[u8]),
            property("#redistributor-regions", 1_u32),
            property("reg", doubles(&[DISTRIBUTOR, REDISTRIBUTORS])),
            property("phandle", GIC_PHANDLE),
        ],
    );
    gic.add_child(node(
        format!("msi-controller@{:x}", ITS.start),
        [
            property("compatible", "arm,gic-v3-its"),
            property("msi-controller", &[] as &[u8]),
            property("#msi-cells", 1_u32),
            property("reg", doubles(&[ITS])),
            property("phandle", ITS_PHANDLE),
        ],
    ));
    gic
}

/// Describes the UART, which has no interrupt.
fn uart() -> DeviceTreeNode {
    node(
        format!("serial@{:x}", UART.start),
        [
            property("compatible", &["arm,pl011", "arm,primecell"] as &[&str]),
            property("reg", doubles(&[UART])),
        ],
    )
}

/// Describes the PCI host. Each DeviceID equals its requester ID.
fn pci_host() -> DeviceTreeNode {
    const MEMORY_32: u32 = 0x0200_0000;
    let [start, size] = [PCI_WINDOW.start, PCI_WINDOW.end - PCI_WINDOW.start]
        .map(|word| u32::try_from(word).expect("the window is below 4 GiB"));
    node(
        format!("pcie@{:x}", ECAM.start),
        [
            property("compatible", "pci-host-ecam-generic"),
            property("device_type", "pci"),
            property("#address-cells", 3_u32),
            property("#size-cells", 2_u32),
            property("dma-coherent", &[] as &[u8]),
            property("bus-range", [0_u32, 0]),
            property("reg", doubles(&[ECAM])),
            property("ranges", [MEMORY_32, 0, start, 0, start, 0, size]),
            property("msi-map", [0, ITS_PHANDLE, 0, 0x1_0000]),
        ],
    )
}

/// Encodes addresses and sizes with two cells each.
fn doubles(regions: &[Range<u64>]) -> Vec<u8> {
    let words = regions.iter().flat_map(|region| [region.start, region.end - region.start]);
    words.flat_map(u64::to_be_bytes).collect()
}

fn node<const N: usize>(
    name: impl Into<String>,
    properties: [DeviceTreeProperty; N],
) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for property in properties {
        node.add_property(property);
    }
    node
}

fn property(name: &str, value: impl ToPropertyValue) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}
