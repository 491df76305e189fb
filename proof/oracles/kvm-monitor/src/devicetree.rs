//! The guest's devicetree.

use crate::layout::{CPUS, DISTRIBUTOR, ECAM, ITS, PCI_WINDOW, RAM, REDISTRIBUTORS, UART};
use dtoolkit::ToPropertyValue;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use gic_firmware::{
    Affinity, Controller, ControllerIndex, CpuNode, Description, DeviceId, Fact, Gic, MapEntry,
    MsiRouting, PciHost, Region, RequesterId, Target, devicetree,
};
use msi_types::pci::{PciSpace, PciWindow};
use std::ops::Range;

/// Phandle of the GIC. `gic_firmware` numbers MSI controllers from 1.
const GIC_PHANDLE: u32 = 0x10;
/// Values in the interrupt cells of the binding `arm,gic-v3`: the kind and the trigger.
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;
/// The timers' PPIs, in the order of the binding `arm,armv8-timer`.
const TIMERS: [u32; 4] = [13, 14, 11, 10];

/// Returns the devicetree blob. The devicetree describes a PCI host if a function is passed through
/// to the guest.
pub(crate) fn devicetree(has_pci: bool) -> Vec<u8> {
    let blob = devicetree::write(&description(has_pci)).expect("all identifiers are paths");
    let mut tree = DeviceTree::from_fdt(&Fdt::new(&blob).expect("the blob was just written"));
    // With "ranges", the root would be a bus below another one.
    tree.root.remove_property("ranges");
    tree.root.add_property(property("interrupt-parent", GIC_PHANDLE));
    let cpus = tree.find_node_mut("/cpus").expect("it was written");
    for cpu in cpus.children_mut() {
        cpu.add_property(property("enable-method", "psci"));
    }
    let gic = tree.find_node_mut(&gic_path()).expect("it was written");
    gic.add_property(property("phandle", GIC_PHANDLE));
    if let Some(host) = tree.find_node_mut(&host_path()) {
        host.add_property(property("dma-coherent", &[] as &[u8]));
    }
    for child in [node("chosen", []), psci(), timer(), uart()] {
        tree.root.add_child(child);
    }
    tree.to_dtb()
}

/// Returns the guest's memory, CPUs, GIC with its ITS, and PCI host. Each DeviceID equals its
/// requester ID.
fn description(has_pci: bool) -> Description {
    let its = format!("{}/msi-controller@{:x}", gic_path(), ITS.start);
    let route = MsiRouting::map([MapEntry {
        rid_base: RequesterId::new(0),
        length: 0x1_0000,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: DeviceId::new(0),
    }]);
    let window = PciWindow::identity(PciSpace::Memory32, region(&PCI_WINDOW));
    let host = PciHost {
        windows: vec![Fact::stated(window)],
        ..PciHost::ecam(host_path(), region(&ECAM), route)
    };
    let cpu = |index| CpuNode::new(format!("/cpus/cpu@{index:x}"), Affinity::from_mpidr(index));
    Description {
        compatible: vec!["linux,dummy-virt".into()],
        memory: vec![Fact::stated(region(&RAM))],
        cpus: (0..CPUS).map(cpu).collect(),
        gic: Some(Gic::v3(gic_path(), region(&DISTRIBUTOR), [region(&REDISTRIBUTORS)])),
        controllers: vec![Controller::its(its, region(&ITS))],
        hosts: has_pci.then_some(host).into_iter().collect(),
        ..Description::default()
    }
}

fn gic_path() -> String {
    format!("/interrupt-controller@{:x}", DISTRIBUTOR.start)
}

fn host_path() -> String {
    format!("/pcie@{:x}", ECAM.start)
}

fn region(range: &Range<u64>) -> Region {
    Region::new(range.start, range.end - range.start).expect("the layout has valid regions")
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
