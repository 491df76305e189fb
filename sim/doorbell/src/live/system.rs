//! State of a running Linux, and the positions of its PCI functions.

use super::firmware::{self, Firmware};
use super::functions::{self, Bridges, Function};
use super::irqs::{self, Irq};
use super::log;
use super::root::Root;
use gic_firmware::{Controller, ControllerKind, Description, NoRoute, PciHost, Route};
use msi_types::RequesterId;
use std::collections::BTreeMap;

/// State that was read from a running Linux.
#[derive(Debug)]
pub(super) struct System {
    pub(super) firmware: Firmware,
    pub(super) irqs: BTreeMap<u32, Irq>,
    pub(super) functions: Vec<Function>,
    pub(super) options: Options,
    /// List of the online CPUs, such as `0-3`.
    pub(super) online: Option<String>,
    /// Type of the default domain of each IOMMU group, such as `DMA` or `identity`.
    group_types: BTreeMap<String, String>,
    /// Number of DeviceIDs that each ITS's device table has room for, by the ITS's address.
    device_tables: BTreeMap<u64, u64>,
}

/// Options of the kernel's command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Options {
    /// `true` if `pci=nomsi` disables MSI and MSI-X.
    pub(super) no_messages: bool,
    /// `true` if `irqchip.gicv3_nolpi` disables LPIs, and with them the ITSes.
    pub(super) no_lpis: bool,
    /// `true` if the SMMU driver lets unknown streams bypass translation (`disable_bypass=0`).
    pub(super) smmu_bypass: bool,
}

impl Options {
    fn parse(line: &str) -> Self {
        let mut options = Self::default();
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            let name = name.replace('-', "_");
            if name == "pci" {
                options.no_messages |= value.split(',').any(|part| part == "nomsi");
            }
            if name == "irqchip.gicv3_nolpi" {
                options.no_lpis = value.starts_with(['1', 'y', 'Y']) || value == "on";
            }
            if ["arm_smmu.disable_bypass", "arm_smmu_v3.disable_bypass"].contains(&name.as_str()) {
                options.smmu_bypass = value.starts_with(['0', 'n', 'N']) || value == "off";
            }
        }
        options
    }
}

/// Position of a function between its host bridge and its MSI controller.
#[derive(Debug)]
pub(super) struct Placement<'s> {
    /// Bridges above the function, starting at the root bus.
    pub(super) bridges: Vec<&'s Function>,
    /// Requester ID with which the function's messages arrive at the host bridge.
    pub(super) requester: RequesterId,
    pub(super) host: Option<&'s PciHost>,
    /// Route to the MSI controller according to firmware; `None` if firmware is unknown or
    /// describes no GIC, or if the function's host bridge was not found in it.
    pub(super) route: Option<Result<Route, NoRoute>>,
}

impl System {
    pub(super) fn read(root: &Root) -> Self {
        let groups = root.names("sys/kernel/iommu_groups").into_iter();
        let types = groups.filter_map(|group| {
            let domain = root.text(&format!("sys/kernel/iommu_groups/{group}/type"))?;
            Some((group, domain))
        });
        let firmware = firmware::read(root);
        let mut controllers = firmware.description.controllers.iter();
        let has_its = controllers.any(|controller| controller.kind == ControllerKind::Its);
        Self {
            firmware,
            irqs: irqs::read(root),
            functions: functions::read(root),
            options: Options::parse(&root.text("proc/cmdline").unwrap_or_default()),
            online: root.text("sys/devices/system/cpu/online"),
            group_types: types.collect(),
            device_tables: if has_its { log::device_tables(root) } else { BTreeMap::new() },
        }
    }

    pub(super) fn description(&self) -> &Description {
        &self.firmware.description
    }

    /// Returns the position of a function.
    pub(super) fn place<'s>(&'s self, bridges: &Bridges<'s>, function: &Function) -> Placement<'s> {
        let bridges = bridges.above(function);
        let requester = functions::requester_at_host(&bridges, function);
        let path = functions::path(&bridges, function);
        let root_bus = bridges.first().map_or(function.address, |bridge| bridge.address);
        let host = self.host(function, root_bus.requester.pci_bus());
        let description = self.description();
        let route = host.filter(|_| description.gic.is_some());
        let route = route.map(|host| description.route_below(host, &path, requester));
        Placement { bridges, requester, host, route }
    }

    /// Returns the function's host bridge in firmware. If Linux names the node of the bridge, only
    /// this node matches. Otherwise, the segment and the root bus must match, or firmware must
    /// describe a single bridge without a segment.
    fn host(&self, function: &Function, root_bus: u8) -> Option<&PciHost> {
        let hosts = &self.description().hosts;
        if let Some(node) = &function.host_node {
            return hosts.iter().find(|host| host.id.as_str() == node);
        }
        let segment = |host: &PciHost| host.segment.as_ref().map(|segment| segment.value);
        let is_host = |host: &&PciHost| {
            segment(host) == Some(function.address.domain) && host.buses.contains(root_bus)
        };
        hosts.iter().find(is_host).or(match &hosts[..] {
            [only] if segment(only).is_none() => Some(only),
            _ => None,
        })
    }

    /// Returns `true` if an IOMMU translates the addresses in a function's messages.
    pub(super) fn is_translated(&self, function: &Function) -> bool {
        let group = function.iommu_group.as_ref().and_then(|group| self.group_types.get(group));
        group.is_some_and(|domain| domain != "identity")
    }

    /// Returns whether Linux uses an interrupt of any controller of the same kind; `None` if the
    /// kind's chips cannot be told by their names.
    pub(super) fn uses(&self, controller: &Controller) -> Option<bool> {
        family(&controller.kind)?;
        Some(self.irqs.values().any(|irq| belongs_to(&irq.chip, &controller.kind) == Some(true)))
    }

    /// Returns the number of DeviceIDs that an ITS's device table has room for; `None` if the
    /// kernel's log does not tell.
    pub(super) fn room(&self, controller: &Controller) -> Option<u64> {
        let registers =
            controller.registers.as_ref().filter(|_| controller.kind == ControllerKind::Its)?;
        self.device_tables.get(&registers.value.base()).copied()
    }
}

/// Prefixes of the names of chips, each for one kind of controller.
const FAMILIES: [&str; 4] = ["ITS", "GICv2m", "MBI", "MIP"];

/// Returns the prefix of the names of this kind's chips; `None` for kinds without a known prefix.
fn family(kind: &ControllerKind) -> Option<&'static str> {
    match kind {
        ControllerKind::Its => Some("ITS"),
        ControllerKind::V2m => Some("GICv2m"),
        ControllerKind::Mbi => Some("MBI"),
        ControllerKind::Mip => Some("MIP"),
        _ => None,
    }
}

/// Returns whether an interrupt's chip belongs to a controller of this kind; `None` if the names
/// don't tell.
///
/// Since about Linux 6.11, chip names start with the name of the controller, as in
/// `ITS-PCI-MSIX-0000:00:02.0`. Older kernels use the name `MSI` for both GICv2m and MBI.
pub(super) fn belongs_to(chip: &str, kind: &ControllerKind) -> Option<bool> {
    let of_kind = family(kind)?;
    if chip == "MSI" {
        return Some([ControllerKind::V2m, ControllerKind::Mbi].contains(kind));
    }
    let of_chip = FAMILIES.iter().find(|name| chip.starts_with(*name));
    of_chip.map(|name| *name == of_kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_kernel_command_line() {
        let options = |line| {
            let options = Options::parse(line);
            (options.no_messages, options.smmu_bypass, options.no_lpis)
        };
        assert_eq!(options("quiet pci=noaer,nomsi"), (true, false, false));
        assert_eq!(options("pci=nomsix nomsi xpci=nomsi"), (false, false, false));
        assert_eq!(options("arm-smmu-v3.disable_bypass=n"), (false, true, false));
        assert_eq!(options("arm_smmu.disable_bypass=1"), (false, false, false));
        assert_eq!(options("irqchip.gicv3_nolpi=1"), (false, false, true));
        assert_eq!(options("irqchip.gicv3_nolpi=0"), (false, false, false));
    }

    #[test]
    fn the_irq_chip_name_identifies_the_controller_kind() {
        use ControllerKind::{Its, Mbi, V2m};
        for (chip, kinds) in [
            ("ITS-MSI", [Some(true), Some(false), Some(false)]),
            ("ITS-PCI-MSIX-0000:00:01.0", [Some(true), Some(false), Some(false)]),
            ("GICv2m-PCI-MSI-0000:00:01.0", [Some(false), Some(true), Some(false)]),
            ("MSI", [Some(false), Some(true), Some(true)]),
            ("GICv3", [None; 3]),
            ("PCI-MSI", [None; 3]),
            ("MIP-MSI-0002:01:00.0", [Some(false); 3]),
        ] {
            assert_eq!([Its, V2m, Mbi].map(|kind| belongs_to(chip, &kind)), kinds, "{chip}");
        }
    }
}
