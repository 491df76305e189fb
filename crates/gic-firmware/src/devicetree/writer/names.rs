//! Assigns devicetree paths to nodes of descriptions from other sources.

use crate::controller::{ControllerKind, Gic, GicVersion};
use crate::description::{ConfigAccess, Description, PciHost, PlatformDevice};
use crate::finding::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::{format, vec};

/// Returns `description` with identifiers that are node paths, and with compatible strings from
/// which the reader derives the same kinds. Identifiers that already are node paths are kept.
pub fn with_node_paths(description: &Description) -> Description {
    let mut description = description.clone();
    let mut names = Names::default();
    for cpu in &mut description.cpus {
        names.rename(&mut cpu.id, &format!("/cpus/cpu@{:x}", cpu.affinity.mpidr()));
    }
    let mut parent = String::new();
    if let Some(gic) = &mut description.gic {
        names.rename(&mut gic.id, &format!("/interrupt-controller@{:x}", gic.distributor.base()));
        make_compatible(gic);
        parent = String::from(gic.id.as_str());
    }
    for controller in &mut description.controllers {
        let base = controller.registers.as_ref().map_or(0, |region| region.base());
        match controller.kind {
            // These controllers share the GIC's node.
            ControllerKind::DirectLpi | ControllerKind::Mbi => {
                let root = || NodeId::new(&parent);
                controller.id = controller.secondary_gic.clone().unwrap_or_else(root);
                continue;
            }
            // These controllers share their host bridge's node.
            ControllerKind::ImsiRx | ControllerKind::MediatekGen3 => continue,
            ControllerKind::Its
            | ControllerKind::V2m
            | ControllerKind::Mip
            | ControllerKind::Other(_) => {}
        }
        names.rename(&mut controller.id, &format!("{parent}/msi-controller@{base:x}"));
    }
    let mut renamed = BTreeMap::new();
    for iommu in &mut description.iommus {
        let base = iommu.registers.as_ref().map_or(0, |region| region.base());
        let before = iommu.id.clone();
        names.rename(&mut iommu.id, &format!("/iommu@{base:x}"));
        renamed.insert(before, iommu.id.clone());
    }
    for host in &mut description.hosts {
        rename_host(host, &mut names);
    }
    for device in &mut description.devices {
        // An IOMMU that sends MSIs is also a device: both share one node.
        match renamed.get(&device.id) {
            Some(id) => device.id = id.clone(),
            None => rename_device(device, &mut names),
        }
    }
    description
}

fn make_compatible(gic: &mut Gic) {
    if gic.compatible.is_empty() {
        let name = match gic.version.value {
            GicVersion::V2 => "arm,gic-400",
            GicVersion::V3 | GicVersion::V4 => "arm,gic-v3",
        };
        gic.compatible = vec![String::from(name)];
    }
}

fn rename_host(host: &mut PciHost, names: &mut Names) {
    let config = host.config.as_ref().map(|config| config.value);
    let base = config.map_or(0, |config| config.region().base());
    names.rename(&mut host.id, &format!("/pcie@{base:x}"));
    if host.compatible.is_empty() && matches!(config, Some(ConfigAccess::Ecam(_))) {
        host.compatible = vec![String::from("pci-host-ecam-generic")];
    }
}

/// Renames a device. A device of the ACPI namespace keeps the last component of its path.
fn rename_device(device: &mut PlatformDevice, names: &mut Names) {
    let last = device.id.as_str().rsplit(['.', '\\', '/']).next().unwrap_or_default();
    let name = match device.registers.first() {
        Some(registers) => format!("/device@{:x}", registers.base()),
        None => format!("/{}", last.to_lowercase()),
    };
    names.rename(&mut device.id, &name);
}

/// The node paths that are already in use.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    /// Renames a node whose identifier is not a node path to `path`, with a numeric suffix if
    /// `path` is in use.
    fn rename(&mut self, id: &mut NodeId, path: &str) {
        if !id.as_str().starts_with('/') {
            let numbered = (1..u32::MAX).map(|number| format!("{path}-{number}"));
            let mut free = [String::from(path)].into_iter().chain(numbered);
            if let Some(path) = free.find(|path| !self.0.contains(path)) {
                *id = NodeId::from(path);
            }
        }
        self.0.insert(String::from(id.as_str()));
    }
}
