//! Firmware and the files of a Linux with one function, before a fault is planted.

use crate::live::fixture::Tree;
use gic_firmware::{
    ConfigAccess, Controller, ControllerIndex, Description, Fact, Gic, Iommu, IommuIndex,
    IommuRouting, MapEntry, MsiRouting, PciHost, Region, Status, StreamEntry, Target, devicetree,
};
use msi_types::{DeviceId, RequesterId};

pub(super) const FUNCTION: &str = "sys/bus/pci/devices/0000:00:02.0";
pub(super) const REQUESTER: RequesterId = RequesterId::new(0x10);
pub(super) const ITS: u64 = 0x808_0000;
pub(super) const LOG: &str = "dev/kmsg";
pub(super) const COMMAND_LINE: &str = "proc/cmdline";
/// Offsets of registers and capabilities in the configuration space.
pub(super) const COMMAND: usize = 0x04;
pub(super) const MSIX: usize = 0x40;
pub(super) const MSI: usize = 0x60;

/// Returns a map of `length` requester IDs to DeviceIDs at the ITS, starting at DeviceID 0x100.
pub(super) fn map(length: u32) -> MsiRouting {
    map_to(0x100, length)
}

pub(super) fn map_to(first: u32, length: u32) -> MsiRouting {
    MsiRouting::map([MapEntry {
        rid_base: 0.into(),
        length,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: DeviceId::new(first),
    }])
}

pub(super) fn firmware(msi: MsiRouting) -> Description {
    let region = |base, size| Region::new(base, size).unwrap();
    let redistributors = [region(0x80a_0000, 0xf6_0000)];
    Description {
        gic: Some(Gic::v3("/intc@8000000", region(0x800_0000, 0x1_0000), redistributors)),
        controllers: vec![Controller::its("/intc@8000000/its@8080000", region(ITS, 0x2_0000))],
        hosts: vec![PciHost::ecam("/pcie@10000000", region(0x1000_0000, 0x100_0000), msi)],
        ..Description::default()
    }
}

/// Returns firmware whose IOMMU translates the accesses of `length` requesters.
pub(super) fn with_iommu(length: u32) -> Description {
    let entry = StreamEntry {
        rid_base: 0.into(),
        length,
        iommu: Some(IommuIndex::new(0)),
        stream_id_base: Some(0),
    };
    let mut description = firmware(map(0x1_0000));
    description.hosts[0].iommu = IommuRouting { mask: None, map: vec![Fact::stated(entry)] };
    description.iommus = vec![Iommu {
        id: "/smmuv3@9050000".into(),
        compatible: vec!["arm,smmu-v3".to_owned()],
        status: Fact::stated(Status::Enabled),
        registers: Some(Fact::stated(Region::new(0x905_0000, 0x2_0000).unwrap())),
    }];
    description
}

/// Returns the configuration space of a function with an enabled MSI-X capability, a disabled MSI
/// capability, and a pin.
pub(super) fn config() -> Vec<u8> {
    let mut config = vec![0; 256];
    config[COMMAND] = 6;
    (config[0x34], config[0x3d]) = (0x40, 1);
    config[MSIX..MSIX + 4].copy_from_slice(&[0x11, 0x60, 3, 0x80]);
    config[MSI..MSI + 4].copy_from_slice(&[5, 0, 0x80, 1]);
    config[MSI + 4..MSI + 8].copy_from_slice(&0x809_0040_u32.to_le_bytes());
    config
}

/// Returns the configuration space of `config` with these bytes replaced.
pub(super) fn config_with(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut config = config();
    for (offset, byte) in changes {
        config[*offset] = *byte;
    }
    config
}

/// Creates the files of a Linux with one function, whose driver uses two MSI-X vectors.
pub(super) fn linux(firmware: &Description) -> Tree {
    let blob = devicetree::write(&devicetree::with_node_paths(firmware)).unwrap();
    let tree = Tree::new()
        .bytes("sys/firmware/fdt", &blob)
        .bytes(&format!("{FUNCTION}/config"), &config())
        .link(&format!("{FUNCTION}/driver"), "../../../bus/pci/drivers/nvme")
        .file(&format!("{FUNCTION}/irq"), "19\n")
        .file(&format!("{FUNCTION}/msi_bus"), "1\n")
        .file(&format!("{FUNCTION}/power_state"), "D0\n")
        .file("sys/devices/system/cpu/online", "0-1\n");
    let tree = irq(tree, 19, "GICv3", "37", "4,0");
    [(26, "0"), (27, "1")].into_iter().fold(tree, |tree, (number, cpu)| {
        irq(tree, number, "ITS-MSI", "32768", "3,2")
            .file(&format!("{FUNCTION}/msi_irqs/{number}"), "msix\n")
            .file(&format!("proc/irq/{number}/effective_affinity_list"), cpu)
    })
}

pub(super) fn irq(tree: Tree, number: u32, chip: &str, hwirq: &str, counts: &str) -> Tree {
    let folder = format!("sys/kernel/irq/{number}");
    tree.file(&format!("{folder}/chip_name"), chip)
        .file(&format!("{folder}/hwirq"), hwirq)
        .file(&format!("{folder}/actions"), "nvme0q0\n")
        .file(&format!("{folder}/per_cpu_count"), counts)
}

/// Adds a function with this address, whose driver uses one MSI-X vector.
pub(super) fn with_function(tree: Tree, address: &str, counts: &str) -> Tree {
    let file = |name: &str| format!("sys/bus/pci/devices/{address}/{name}");
    irq(tree, 28, "ITS-MSI", "1", counts)
        .bytes(&file("config"), &config())
        .file(&file("msi_bus"), "1\n")
        .file(&file("power_state"), "D0\n")
        .link(&file("driver"), "../../../bus/pci/drivers/nvme")
        .file(&file("msi_irqs/28"), "msix\n")
}

/// Creates the files of a Linux that has received no messages from its function.
pub(super) fn silent(firmware: &Description) -> Tree {
    let tree = linux(firmware);
    [26, 27].into_iter().fold(tree, |tree, number| irq(tree, number, "ITS-MSI", "0", "0,0"))
}

/// Creates the files of a Linux whose driver has fallen back to the function's pin.
pub(super) fn fallen_back(firmware: &Description) -> Tree {
    linux(firmware).without(&format!("{FUNCTION}/msi_irqs"))
}

/// Creates the files of a Linux whose driver uses MSI instead of MSI-X.
pub(super) fn with_msi(config: &[u8]) -> Tree {
    let tree = linux(&firmware(map(0x1_0000))).bytes(&format!("{FUNCTION}/config"), config);
    let irqs = [26, 27].map(|number| format!("{FUNCTION}/msi_irqs/{number}"));
    irqs.iter().fold(tree, |tree, irq| tree.file(irq, "msi\n"))
}

pub(super) fn sound() -> Description {
    firmware(map(0x1_0000))
}

/// Returns firmware whose host bridge is a DesignWare one and names no MSI controller.
pub(super) fn with_integrated_controller() -> Description {
    let mut description = firmware(MsiRouting::default());
    let host = &mut description.hosts[0];
    host.compatible = vec!["fsl,imx8mp-pcie".to_owned()];
    host.config = Some(Fact::stated(ConfigAccess::Registers(host.config.take().unwrap().region())));
    description
}
