//! Finds the guest's files in the loader's devicetree, and writes the guest's own devicetree.

use crate::controller::{FIRST_SPI, SPIS};
use crate::flash::FLASH;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter;
use core::ops::Range;
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property, ToPropertyValue};
use el2_passthrough::{GuestSmmu, Pci};
use el2_vm::{PHYSICAL_TIMER, Ram, VIRTUAL_TIMER};
use gic_arch::{IntId, gits};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, CpuNode, Description, Fact, Gic, IntIdSpan, Iommu,
    IommuIndex, IommuRouting, MapEntry, MsiRouting, PciHost, PlatformDevice, Region, Status,
    StreamEntry, Target, devicetree,
};
use msi_types::{DeviceId, RequesterId};
use vgic::{V2mConfig, VgicConfig};

/// Files of a guest in memory, by physical or by guest physical addresses (QEMU's guest loader,
/// docs/system/guest-loader.rst).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Files {
    /// Address range of the kernel.
    pub(crate) kernel: Range<u64>,
    /// Address range of the initramfs.
    pub(crate) initrd: Option<Range<u64>>,
    /// Command line of the kernel.
    pub(crate) command_line: String,
}

impl Files {
    /// Returns the same files by guest physical addresses. A kernel before the RAM is firmware, at
    /// the start of flash.
    pub(crate) fn placed_in(&self, ram: &Ram) -> Self {
        let Range { start, end } = self.kernel;
        Self {
            kernel: if start < ram.physical {
                FLASH.start..FLASH.start + (end - start)
            } else {
                ram.guest_range(&self.kernel)
            },
            initrd: self.initrd.as_ref().map(|initrd| ram.guest_range(initrd)),
            command_line: self.command_line.clone(),
        }
    }
}

/// Returns the guests' files, as stated in the machine's devicetree, sorted by address. An
/// initramfs belongs to the kernel that precedes it.
pub(crate) fn files(blob: &[u8]) -> Vec<Files> {
    // The validation refuses property names of more than 31 characters, which boards have.
    let Some(chosen) = Fdt::new_unchecked(blob).root().child("chosen") else { return Vec::new() };
    let modules = |kind| chosen.children().filter(move |node| is_compatible(node, kind));
    let kernels = modules("multiboot,kernel").filter_map(|node| {
        let command_line = node.property("bootargs").map(|text| text.value_as::<&str>());
        let command_line = command_line.and_then(Result::ok).map(String::from).unwrap_or_default();
        Some(Files { kernel: region(&node)?, initrd: None, command_line })
    });
    let mut files: Vec<_> = kernels.collect();
    files.sort_unstable_by_key(|files| files.kernel.start);
    for initrd in modules("multiboot,ramdisk").filter_map(|node| region(&node)) {
        let before = |files: &&mut Files| files.kernel.start < initrd.start;
        if let Some(files) = files.iter_mut().rev().find(before) {
            files.initrd = Some(initrd);
        }
    }
    files
}

fn is_compatible(node: &FdtNode<'_>, kind: &str) -> bool {
    let compatible = node.property("compatible");
    compatible
        .is_some_and(|list| list.value().split(|byte| *byte == 0).any(|it| it == kind.as_bytes()))
}

/// Parses an address and a size of two cells each.
fn region(node: &FdtNode<'_>) -> Option<Range<u64>> {
    let reg = node.property("reg")?;
    let (cells, _) = reg.value().as_chunks::<8>();
    let [address, size] = *cells else { return None };
    let (address, size) = (u64::from_be_bytes(address), u64::from_be_bytes(size));
    Some(address..address.checked_add(size)?)
}

/// Contents of the guest's devicetree.
pub(crate) struct Machine<'a> {
    pub(crate) gic: &'a VgicConfig,
    pub(crate) pci: Option<&'a Pci>,
    /// Guest physical addresses of RAM.
    pub(crate) ram: Range<u64>,
    pub(crate) files: &'a Files,
    /// Nodes of the UART and of other devices.
    pub(crate) devices: Vec<DeviceTreeNode>,
}

/// Phandles of the GIC, and of the UART's clock. `gic_firmware` numbers MSI controllers and IOMMUs
/// from 1; a GIC that is an MSI controller itself has the number of that controller.
const GIC_PHANDLE: u32 = 0x10;
pub(crate) const CLOCK: u32 = 0x11;
/// Phandle of the memory for LPI tables, which the next kernel does not use either.
const TABLES: u32 = 0x12;
/// Size of an LPI table, and its alignment.
const TABLE: u64 = 0x1_0000;
/// Space for the devicetree at the end of the guest's RAM (Documentation/arch/arm64/booting.rst: at
/// most 2 MiB).
pub(crate) const DEVICETREE_ROOM: u64 = 2 << 20;
const CLOCK_HZ: u32 = 24_000_000;
/// Interrupt cells of the binding `arm,gic-v3`: kinds and a trigger.
pub(crate) const SPI: u32 = 0;
const PPI: u32 = 1;
pub(crate) const LEVEL_HIGH: u32 = 4;
const EDGE_RISING: u32 = 1;

impl Machine<'_> {
    /// Returns the devicetree blob.
    pub(crate) fn devicetree(self) -> Vec<u8> {
        let blob = devicetree::write(&self.description()).expect("all identifiers are paths");
        let written = Fdt::new(&blob).expect("the blob was just written");
        let mut tree = DeviceTree::from_fdt(&written);
        let phandle = self.complete(&mut tree);
        let root = &mut tree.root;
        root.add_property(property("interrupt-parent", phandle));
        let fixed = [hypervisor(), memory(&self.ram), psci(), timer(), clock()];
        for child in iter::once(self.chosen()).chain(fixed) {
            root.add_child(child);
        }
        if reserves_tables(self.gic) {
            root.add_child(self.reserved_memory());
        }
        self.devices.into_iter().for_each(|it| root.add_child(it));
        tree.to_dtb()
    }

    /// Returns the GIC, its MSI controllers, and who sends them messages. The GIC's node has the
    /// name that QEMU uses on `virt`, because some kernels look for the path `/intc` (Hermit, for
    /// example).
    fn description(&self) -> Description {
        let config = self.gic;
        let id = gic_path(config);
        let cpus = config.cpus.iter().map(|cpu| cpu.affinity);
        let frames = config.redistributors.iter();
        let frames = frames.map(|it| at(it.base, it.stride * u64::from(it.count)));
        let controllers = controllers(config, &id);
        let route = route(&controllers);
        let ring = PlatformDevice::new("/ring", "doorbell,ring", route.clone());
        Description {
            compatible: Vec::from(["linux,dummy-virt".into()]),
            cpus: cpus.map(|it| CpuNode::new(format!("/cpus/cpu@{:x}", it.mpidr()), it)).collect(),
            gic: Some(Gic::v3(id, at(config.distributor, 0x1_0000), frames)),
            controllers,
            hosts: self.pci.iter().map(|pci| pci_host(pci, route.clone())).collect(),
            iommus: self.pci.iter().filter_map(|pci| Some(smmu(pci.smmu.as_ref()?))).collect(),
            // No device with a node of its own sends messages to the GIC, so this one stands for
            // all of them. A driver in the guest's kernel writes its messages.
            devices: config.direct_lpi.then_some(ring).into_iter().collect(),
            ..Description::default()
        }
    }

    /// Adds what `gic_firmware` does not write. Returns the phandle of the GIC.
    fn complete(&self, tree: &mut DeviceTree) -> u32 {
        // With "ranges", the root would be a bus below another one.
        tree.root.remove_property("ranges");
        for cpu in node_at(tree, "/cpus").children_mut() {
            cpu.add_property(property("enable-method", "psci"));
        }
        let gic = node_at(tree, &gic_path(self.gic));
        let written = gic.property("phandle").and_then(|it| it.value_as::<u32>().ok());
        let phandle = written.unwrap_or(GIC_PHANDLE);
        gic.add_property(property("phandle", phandle));
        // Of the unit addresses in `interrupt_map`; the GIC need not have children.
        gic.add_property(property("#address-cells", 2_u32));
        gic.add_property(property("#size-cells", 2_u32));
        if reserves_tables(self.gic) {
            gic.add_property(property("memory-region", TABLES));
        }
        let Some(pci) = self.pci else { return phandle };
        let host = node_at(tree, &host_path(pci));
        host.add_property(coherent());
        host.add_property(property("#interrupt-cells", 1_u32));
        host.add_property(property("interrupt-map-mask", [3_u32 << DEVICE_SHIFT, 0, 0, 7]));
        host.add_property(property("interrupt-map", interrupt_map(pci, phandle).as_flattened()));
        if let Some(smmu) = &pci.smmu {
            // In the order in which `virt` has them.
            let names: &[&str] = &["eventq", "priq", "cmdq-sync", "gerror"];
            let interrupts = smmu.interrupts.iter().flat_map(|it| [SPI, it - 32, EDGE_RISING]);
            let node = node_at(tree, &smmu_path(smmu));
            node.add_property(coherent());
            node.add_property(property("interrupts", interrupts.collect::<Vec<_>>()));
            node.add_property(property("interrupt-names", names));
        }
        phandle
    }

    fn chosen(&self) -> DeviceTreeNode {
        let mut chosen = node(
            "chosen",
            [
                property("bootargs", self.files.command_line.as_str()),
                property("stdout-path", format!("/{}", self.devices[0].name())),
            ],
        );
        if let Some(initrd) = &self.files.initrd {
            chosen.add_property(property("linux,initrd-start", initrd.start));
            chosen.add_property(property("linux,initrd-end", initrd.end));
        }
        chosen
    }

    /// Reserves memory for the configuration table of LPIs, and for a pending table of each
    /// redistributor.
    fn reserved_memory(&self) -> DeviceTreeNode {
        let size = TABLE * (1 + self.gic.cpus.len() as u64);
        let start = self.ram.end - DEVICETREE_ROOM - size;
        let mut memory = node(
            "reserved-memory",
            [
                property("#address-cells", 2_u32),
                property("#size-cells", 2_u32),
                property("ranges", &[] as &[u8]),
            ],
        );
        let reg = property("reg", doubles(&[start, size]));
        let tables = [reg, property("phandle", TABLES)];
        memory.add_child(node(format!("lpi-tables@{start:x}"), tables));
        memory
    }
}

fn node_at<'a>(tree: &'a mut DeviceTree, path: &str) -> &'a mut DeviceTreeNode {
    tree.find_node_mut(path).expect("the node was written")
}

fn coherent() -> DeviceTreeProperty {
    property("dma-coherent", &[] as &[u8])
}

fn gic_path(config: &VgicConfig) -> String {
    format!("/intc@{:x}", config.distributor)
}

fn host_path(pci: &Pci) -> String {
    format!("/pcie@{:x}", pci.config.start)
}

fn smmu_path(smmu: &GuestSmmu) -> String {
    format!("/iommu@{:x}", smmu.registers.start)
}

fn at(base: u64, bytes: u64) -> Region {
    Region::new(base, bytes).expect("the guest's frames are not at the end of memory")
}

/// Returns the MSI controllers of the GIC that has this path.
fn controllers(config: &VgicConfig, gic: &str) -> Vec<Controller> {
    let path = |base: u64| format!("{gic}/msi-controller@{base:x}");
    let spis = |first, count| {
        let span = IntIdSpan::new(IntId::new(first), count);
        Vec::from([Fact::stated(span.expect("the SPIs exist"))])
    };
    let its = config.its.iter().map(|it| Controller::its(path(it.base), at(it.base, gits::SIZE)));
    let frames = config.v2m.iter().map(|it| Controller {
        ranges: spis(it.first_spi, it.count),
        ..Controller::new(path(it.base), ControllerKind::V2m, Some(at(it.base, V2mConfig::SIZE)))
    });
    let mbi = config.message_based_spis.then(|| Controller {
        ranges: spis(FIRST_SPI, SPIS),
        ..Controller::new(gic, ControllerKind::Mbi, None)
    });
    let direct = || Controller::new(gic, ControllerKind::DirectLpi, None);
    let direct = config.direct_lpi.then(direct);
    its.chain(frames).chain(mbi).chain(direct).collect()
}

/// Returns `true` if redistributors may use their LPI tables while the next kernel runs.
const fn reserves_tables(config: &VgicConfig) -> bool {
    config.direct_lpi && !config.can_clear_enable_lpis
}

/// Returns the routing of messages to the first controller. For an ITS, requester IDs are
/// DeviceIDs; the other controllers do not distinguish devices.
fn route(controllers: &[Controller]) -> MsiRouting {
    let first = ControllerIndex::new(0);
    match controllers.first().map(|controller| &controller.kind) {
        None => MsiRouting::default(),
        Some(ControllerKind::Its) => MsiRouting::map([MapEntry {
            rid_base: RequesterId::new(0),
            length: 0x1_0000,
            target: Target::Controller(first),
            device_id_base: DeviceId::new(0),
        }]),
        Some(_) => MsiRouting::parent(first),
    }
}

fn pci_host(pci: &Pci, route: MsiRouting) -> PciHost {
    let Range { start, end } = pci.config;
    let stream = |[guest, machine]: [u32; 2]| StreamEntry {
        rid_base: RequesterId::new(guest),
        length: 1,
        iommu: Some(IommuIndex::new(0)),
        stream_id_base: Some(machine),
    };
    let streams = pci.smmu.iter().flat_map(|_| pci.streams()).map(stream).map(Fact::stated);
    PciHost {
        windows: pci.windows.iter().copied().map(Fact::stated).collect(),
        segment: Some(Fact::stated(0)),
        iommu: IommuRouting { map: streams.collect(), ..IommuRouting::default() },
        ..PciHost::ecam(host_path(pci), at(start, end - start), route)
    }
}

fn smmu(smmu: &GuestSmmu) -> Iommu {
    let Range { start, end } = smmu.registers;
    Iommu {
        id: smmu_path(smmu).into(),
        compatible: Vec::from(["arm,smmu-v3".into()]),
        status: Fact::stated(Status::Enabled),
        registers: Some(Fact::stated(at(start, end - start))),
    }
}

/// Bit of a device number in an address (IEEE 1275 PCI binding §2.2.1.1).
const DEVICE_SHIFT: u32 = 11;

/// Returns the routes of the pins of devices 0 to 3, which are also those of all other devices.
fn interrupt_map(pci: &Pci, gic: u32) -> Vec<[u32; 10]> {
    let pins = (0..4).flat_map(|device| (1..=4).map(move |pin| (device, pin)));
    let route = |(device, pin)| {
        let (address, spi) = (u32::from(device) << DEVICE_SHIFT, pci.line(device, pin) - 32);
        [address, 0, 0, pin.into(), gic, 0, 0, SPI, spi, LEVEL_HIGH]
    };
    pins.map(route).collect()
}

fn memory(ram: &Range<u64>) -> DeviceTreeNode {
    node(
        format!("memory@{:x}", ram.start),
        [
            property("device_type", "memory"),
            property("reg", doubles(&[ram.start, ram.end - ram.start])),
        ],
    )
}

/// Names the hypervisor, so that a kernel does not store messages where the hypervisor cannot see
/// them.
fn hypervisor() -> DeviceTreeNode {
    node("hypervisor", [property("compatible", "doorbell,hypervisor")])
}

/// Describes PSCI. Version 1.1 is compatible with 0.2, and some kernels look only for 0.2
/// (kvm-unit-tests, for example).
fn psci() -> DeviceTreeNode {
    let versions: &[&str] = &["arm,psci-1.0", "arm,psci-0.2"];
    node("psci", [property("compatible", versions), property("method", "hvc")])
}

/// Describes the timers. The guest has the physical and the virtual timer of EL1; the binding
/// `arm,armv8-timer` also requires the interrupts of the secure timer and of EL2's.
fn timer() -> DeviceTreeNode {
    let ppi = |number| [PPI, number, LEVEL_HIGH];
    let [virtual_timer, physical] = [VIRTUAL_TIMER, PHYSICAL_TIMER].map(|it| ppi(it.get() - 16));
    let interrupts = [ppi(13), physical, virtual_timer, ppi(10)];
    node(
        "timer",
        [
            property("compatible", "arm,armv8-timer"),
            property("always-on", &[] as &[u8]),
            property("interrupts", interrupts.as_flattened()),
        ],
    )
}

fn clock() -> DeviceTreeNode {
    node(
        "clock",
        [
            property("compatible", "fixed-clock"),
            property("#clock-cells", 0_u32),
            property("clock-frequency", CLOCK_HZ),
            property("phandle", CLOCK),
        ],
    )
}

pub(crate) fn doubles(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// Returns a node with these properties.
pub(crate) fn node<const N: usize>(
    name: impl Into<String>,
    properties: [DeviceTreeProperty; N],
) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(name);
    for property in properties {
        node.add_property(property);
    }
    node
}

pub(crate) fn property(name: &str, value: impl ToPropertyValue) -> DeviceTreeProperty {
    DeviceTreeProperty::new_unchecked(name, value)
}
