//! Finds the guest's files in the loader's devicetree, and writes the guest's own devicetree.

use crate::controller::{FIRST_SPI, SPIS};
use crate::flash::{BANK, FLASH};
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
use gic_arch::gits;
use msi_types::pci::{PciSpace, PciWindow};
use vgic::VgicConfig;

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
    /// Node of the UART.
    pub(crate) uart: DeviceTreeNode,
    /// Nodes of other devices.
    pub(crate) others: Vec<DeviceTreeNode>,
}

/// Phandles of the GIC, the UART's clock, and an MSI controller with its own node.
const GIC_PHANDLE: u32 = 1;
pub(crate) const CLOCK: u32 = 2;
const CONTROLLER_PHANDLE: u32 = 3;
/// Phandle of the memory for LPI tables, which the next kernel does not use either.
const TABLES: u32 = 4;
/// Phandle of the SMMU.
const SMMU: u32 = 5;
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
        for child in
            [self.chosen(), memory(&self.ram), self.cpus(), psci(), timer(), self.gic(), clock()]
        {
            root.add_child(child);
        }
        if FLASH.contains(&self.files.kernel.start) {
            root.add_child(flash());
        }
        if let Some(pci) = self.pci {
            root.add_child(pci_host(pci, self.gic));
            pci.smmu.iter().for_each(|it| root.add_child(smmu(it)));
        }
        if self.gic.direct_lpi {
            root.add_child(platform_device());
        }
        if reserves_tables(self.gic) {
            root.add_child(self.reserved_memory());
        }
        iter::once(self.uart).chain(self.others).for_each(|it| root.add_child(it));
        tree.to_dtb()
    }

    fn chosen(&self) -> DeviceTreeNode {
        let mut chosen = node(
            "chosen",
            [
                property("bootargs", self.files.command_line.as_str()),
                property("stdout-path", format!("/{}", self.uart.name())),
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

    fn cpus(&self) -> DeviceTreeNode {
        let mut cpus =
            node("cpus", [property("#address-cells", 2_u32), property("#size-cells", 0_u32)]);
        for cpu in &self.gic.cpus {
            let mpidr = cpu.affinity.mpidr();
            cpus.add_child(node(
                format!("cpu@{mpidr:x}"),
                [
                    property("device_type", "cpu"),
                    property("compatible", "arm,armv8"),
                    property("enable-method", "psci"),
                    property("reg", mpidr),
                ],
            ));
        }
        cpus
    }

    /// Describes the GIC. The node has the name that QEMU uses on `virt`, because some kernels look
    /// for the path `/intc` (Hermit, for example).
    fn gic(&self) -> DeviceTreeNode {
        let distributor = self.gic.distributor;
        let mut regions = Vec::from([distributor, 0x1_0000]);
        for region in &self.gic.redistributors {
            regions.extend([region.base, region.stride * u64::from(region.count)]);
        }
        let mut gic = node(
            format!("intc@{distributor:x}"),
            [
                property("#address-cells", 2_u32),
                property("#size-cells", 2_u32),
                property("ranges", &[] as &[u8]),
                property("compatible", "arm,gic-v3"),
                property("#interrupt-cells", 3_u32),
                property("interrupt-controller", &[] as &[u8]),
                property("#redistributor-regions", self.gic.redistributors.len() as u32),
                property("reg", doubles(&regions)),
                property("phandle", GIC_PHANDLE),
            ],
        );
        describe_controller(self.gic, &mut gic);
        gic
    }
}

/// Adds the MSI controller to the GIC's node (bindings `arm,gic-v3` and `arm,gic`).
fn describe_controller(config: &VgicConfig, gic: &mut DeviceTreeNode) {
    let mark = || property("msi-controller", &[] as &[u8]);
    for its in &config.its {
        gic.add_child(node(
            format!("msi-controller@{:x}", its.base),
            [
                property("compatible", "arm,gic-v3-its"),
                mark(),
                property("#msi-cells", 1_u32),
                property("reg", doubles(&[its.base, gits::SIZE])),
                property("phandle", CONTROLLER_PHANDLE),
            ],
        ));
    }
    for frame in &config.v2m {
        gic.add_child(node(
            format!("msi-controller@{:x}", frame.base),
            [
                property("compatible", "arm,gic-v2m-frame"),
                mark(),
                property("reg", doubles(&[frame.base, frame.size()])),
                property("arm,msi-base-spi", frame.first_spi),
                property("arm,msi-num-spis", frame.count),
                property("phandle", CONTROLLER_PHANDLE),
            ],
        ));
    }
    if config.message_based_spis {
        gic.add_property(mark());
        gic.add_property(property("mbi-ranges", [FIRST_SPI, SPIS]));
    }
    if config.direct_lpi {
        gic.add_property(mark());
        gic.add_property(property("arm,direct-lpi", &[] as &[u8]));
        gic.add_property(property("#msi-cells", 0_u32));
    }
    if reserves_tables(config) {
        gic.add_property(property("memory-region", TABLES));
    }
}

/// Returns `true` if redistributors may use their LPI tables while the next kernel runs.
const fn reserves_tables(config: &VgicConfig) -> bool {
    config.direct_lpi && !config.can_clear_enable_lpis
}

/// Returns the property that routes a PCI host's messages. For an ITS, requester IDs are DeviceIDs;
/// the other controllers do not distinguish devices.
fn route(config: &VgicConfig) -> Option<DeviceTreeProperty> {
    const ALL: u32 = 0x1_0000;
    if !config.its.is_empty() {
        return Some(property("msi-map", [0, CONTROLLER_PHANDLE, 0, ALL]));
    }
    let has_own_node = !config.v2m.is_empty();
    let is_gic = config.message_based_spis || config.direct_lpi;
    let phandle = if is_gic { GIC_PHANDLE } else { CONTROLLER_PHANDLE };
    (has_own_node || is_gic).then(|| property("msi-parent", phandle))
}

fn pci_host(pci: &Pci, gic: &VgicConfig) -> DeviceTreeNode {
    const BYTES_PER_BUS: u64 = 1 << 20;
    let config = &pci.config;
    let ranges = pci.windows.iter().flat_map(|window| range(*window));
    let last_bus = (config.end - config.start) / BYTES_PER_BUS - 1;
    let mut host = node(
        format!("pcie@{:x}", config.start),
        [
            property("compatible", "pci-host-ecam-generic"),
            property("device_type", "pci"),
            property("#address-cells", 3_u32),
            property("#size-cells", 2_u32),
            property("dma-coherent", &[] as &[u8]),
            property("bus-range", [0, last_bus as u32]),
            property("reg", doubles(&[config.start, config.end - config.start])),
            property("ranges", ranges.collect::<Vec<_>>()),
            property("linux,pci-domain", 0_u32),
            property("#interrupt-cells", 1_u32),
            property("interrupt-map-mask", [3_u32 << DEVICE_SHIFT, 0, 0, 7]),
            property("interrupt-map", interrupt_map(pci).as_flattened()),
        ],
    );
    if let Some(route) = route(gic) {
        host.add_property(route);
    }
    if pci.smmu.is_some() {
        let entries = pci.streams().flat_map(|[guest, machine]| [guest, SMMU, machine, 1]);
        host.add_property(property("iommu-map", entries.collect::<Vec<_>>()));
    }
    host
}

/// Bit of a device number in an address (IEEE 1275 PCI binding §2.2.1.1).
const DEVICE_SHIFT: u32 = 11;

/// Returns the routes of the pins of devices 0 to 3, which are also those of all other devices.
fn interrupt_map(pci: &Pci) -> Vec<[u32; 10]> {
    let pins = (0..4).flat_map(|device| (1..=4).map(move |pin| (device, pin)));
    let route = |(device, pin)| {
        let (address, spi) = (u32::from(device) << DEVICE_SHIFT, pci.line(device, pin) - 32);
        [address, 0, 0, pin.into(), GIC_PHANDLE, 0, 0, SPI, spi, LEVEL_HIGH]
    };
    pins.map(route).collect()
}

/// Returns the cells that describe a window: kind and bus address, CPU address, and size (same
/// section).
fn range(window: PciWindow) -> [u32; 7] {
    let space = match window.space() {
        PciSpace::Io => 0x0100_0000,
        PciSpace::Memory32 => 0x0200_0000,
        PciSpace::Memory64 => 0x0300_0000,
    };
    let cells = |value: u64| [(value >> 32) as u32, value as u32];
    let ([bus_high, bus], [high, low]) = (cells(window.bus_base()), cells(window.cpu().base()));
    let [size_high, size] = cells(window.cpu().size());
    let prefetchable = u32::from(window.is_prefetchable()) << 30;
    [space | prefetchable, bus_high, bus, high, low, size_high, size]
}

/// Describes the machine's SMMU, with its interrupts in the order in which `virt` has them.
fn smmu(smmu: &GuestSmmu) -> DeviceTreeNode {
    let Range { start, end } = smmu.registers;
    let interrupts = smmu.interrupts.iter().flat_map(|intid| [SPI, intid - 32, EDGE_RISING]);
    node(
        format!("iommu@{start:x}"),
        [
            property("compatible", "arm,smmu-v3"),
            property("reg", doubles(&[start, end - start])),
            property("interrupts", interrupts.collect::<Vec<_>>()),
            property("interrupt-names", &["eventq", "priq", "cmdq-sync", "gerror"] as &[&str]),
            property("#iommu-cells", 1_u32),
            property("dma-coherent", &[] as &[u8]),
            property("phandle", SMMU),
        ],
    )
}

/// Describes a platform device without hardware, whose messages a driver in the guest's kernel
/// writes: no other device with a node of its own sends messages to the GIC.
fn platform_device() -> DeviceTreeNode {
    node("ring", [property("compatible", "doorbell,ring"), property("msi-parent", GIC_PHANDLE)])
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

fn flash() -> DeviceTreeNode {
    node(
        format!("flash@{:x}", FLASH.start),
        [
            property("compatible", "cfi-flash"),
            property("reg", doubles(&[FLASH.start, BANK, FLASH.start + BANK, BANK])),
            property("bank-width", 4_u32),
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
