//! PCI functions in sysfs.

use super::config::{BridgeKind, Config};
use super::root::Root;
use doorbell_inspection::requesters::function_address;
use msi_types::RequesterId;
use msi_types::pci::MSIX_MAX_VECTORS;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Folder with one entry for each PCI function.
const DEVICES: &str = "sys/bus/pci/devices";
/// Maximum length of a configuration space.
const MAX_CONFIG: u64 = 4096;

/// Address of a function: domain, bus, and device with function number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Address {
    pub(super) domain: u32,
    pub(super) requester: RequesterId,
}

/// A PCI function, and the state of its interrupts according to Linux.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) address: Address,
    pub(super) config: Config,
    /// Name of the function's driver.
    pub(super) driver: Option<String>,
    /// Linux's interrupt number for the pin, or for the first vector if MSI is enabled.
    pub(super) irq: Option<u32>,
    /// Interrupts of the function's MSI or MSI-X vectors, in ascending order.
    pub(super) messages: Vec<Message>,
    /// `false` if Linux forbids MSI and MSI-X for the function, or for the functions below a
    /// bridge.
    pub(super) permits_messages: bool,
    pub(super) iommu_group: Option<String>,
    /// `true` if the function is known to have a PCI Express link.
    has_link: bool,
    /// Power state, such as `D0`.
    pub(super) power: Option<String>,
    /// Path of the host bridge's devicetree node.
    pub(super) host_node: Option<String>,
}

/// Interrupt of one of a function's MSI or MSI-X vectors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Message {
    pub(super) irq: u32,
    pub(super) is_msix: bool,
}

impl Address {
    fn bus(self) -> u8 {
        self.requester.pci_bus()
    }

    /// Returns the device and function number, as in a requester ID.
    fn devfn(self) -> u8 {
        self.requester.pci_device() << 3 | self.requester.pci_function()
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| {
            anyhow::format_err!("{text:?} is not a PCI address such as 0000:02:00.0")
        })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (domain, requester) = function_address(text)?;
    Some(Address { domain: domain.unwrap_or(0), requester })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (domain, id) = (self.domain, self.requester);
        let (bus, device, function) = (id.pci_bus(), id.pci_device(), id.pci_function());
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// Reads all functions, sorted by address.
pub(super) fn read(root: &Root) -> Vec<Function> {
    let mut functions: Vec<_> =
        root.names(DEVICES).iter().filter_map(|name| Function::read(root, name)).collect();
    functions.sort_by_key(|function| function.address);
    functions
}

impl Function {
    fn read(root: &Root, name: &str) -> Option<Self> {
        let address = parse(name)?;
        let folder = format!("{DEVICES}/{name}");
        let attribute = |attribute: &str| root.text(&format!("{folder}/{attribute}"));
        let message = |irq: &String| {
            let kind = attribute(&format!("msi_irqs/{irq}"))?;
            Some(Message { irq: irq.parse().ok()?, is_msix: kind == "msix" })
        };
        let mut messages: Vec<_> =
            root.names(&format!("{folder}/msi_irqs")).iter().filter_map(message).collect();
        messages.sort();
        messages.truncate(MSIX_MAX_VECTORS.into());
        let config = root.bytes(&format!("{folder}/config"), MAX_CONFIG);
        Some(Self {
            address,
            config: Config::new(config.unwrap_or_default()),
            driver: root.link_name(&format!("{folder}/driver")),
            irq: attribute("irq").and_then(|irq| irq.parse().ok()).filter(|irq| *irq != 0),
            messages,
            permits_messages: attribute("msi_bus").as_deref() != Some("0"),
            iommu_group: root.link_name(&format!("{folder}/iommu_group")),
            has_link: root.exists(&format!("{folder}/max_link_speed")),
            power: attribute("power_state"),
            host_node: host_node(root, &folder),
        })
    }

    /// Returns `true` if the function's driver passes the function to a program, such as a VMM. The
    /// drivers are `vfio-pci` and its variants, such as `mlx5_vfio_pci`.
    pub(super) fn has_vfio_driver(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| driver.contains("vfio"))
    }

    /// Returns `true` if the function supports MSI or MSI-X; `None` if its capabilities cannot be
    /// read.
    pub(super) fn has_messages(&self) -> Option<bool> {
        let has = self.config.msi().is_some() || self.config.msix().is_some();
        (self.config.is_whole() || !self.messages.is_empty())
            .then_some(has || !self.messages.is_empty())
    }
}

/// Bridges, by domain and secondary bus number.
#[derive(Debug)]
pub(super) struct Bridges<'f>(BTreeMap<(u32, u8), &'f Function>);

impl<'f> Bridges<'f> {
    pub(super) fn among(functions: &'f [Function]) -> Self {
        let mut bridges = BTreeMap::new();
        for function in functions {
            if let Some(bus) = function.config.secondary_bus() {
                bridges.entry((function.address.domain, bus)).or_insert(function);
            }
        }
        Self(bridges)
    }

    /// Returns the bridges above a function, starting at the root bus.
    pub(super) fn above(&self, function: &Function) -> Vec<&'f Function> {
        let mut bridges = Vec::new();
        let mut address = function.address;
        while let Some(bridge) = self.0.get(&(address.domain, address.bus())) {
            // A bridge's secondary bus number must exceed the number of its own bus. This check
            // guarantees that the loop ends.
            if bridge.address.bus() >= address.bus() {
                break;
            }
            bridges.push(*bridge);
            address = bridge.address;
        }
        bridges.reverse();
        bridges
    }
}

/// Returns the device and function numbers of the bridges above a function, starting at the root
/// bus, and then those of the function.
pub(super) fn path(bridges: &[&Function], function: &Function) -> Vec<u8> {
    bridges.iter().copied().chain([function]).map(|one| one.address.devfn()).collect()
}

/// Returns the requester ID with which a function's messages arrive at the host bridge. Bridges to
/// and on conventional buses replace requester IDs.
pub(super) fn requester_at_host(bridges: &[&Function], function: &Function) -> RequesterId {
    let mut below = function;
    let mut requester = function.address.requester;
    for bridge in bridges.iter().rev() {
        match kind(bridge, below) {
            BridgeKind::Port => {}
            BridgeKind::ToConventional => {
                requester = RequesterId::pci(bridge.config.secondary_bus().unwrap_or(0), 0, 0);
            }
            BridgeKind::Conventional => requester = bridge.address.requester,
        }
        below = bridge;
    }
    requester
}

/// Returns the kind of a bridge. A bridge whose capabilities cannot be read counts as a bridge to a
/// conventional bus if it has a PCI Express link and `below` has none.
fn kind(bridge: &Function, below: &Function) -> BridgeKind {
    if !bridge.config.is_whole() && bridge.has_link && !below.has_link {
        return BridgeKind::ToConventional;
    }
    bridge.config.bridge_kind()
}

/// Returns the devicetree path of the host bridge above a function. In sysfs, the folder of a root
/// bus, such as `pci0000:00`, is below the folder of its host bridge.
fn host_node(root: &Root, folder: &str) -> Option<String> {
    let device = root.resolved(folder)?;
    let is_bus = |path: &&Path| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| {
            name.strip_prefix("pci").is_some_and(|rest| rest.contains(':') && !rest.contains('.'))
        })
    };
    let host = device.ancestors().find(is_bus)?.parent()?;
    let node = std::fs::read_link(host.join("of_node")).ok()?;
    let node = node.to_str()?;
    node.split_once("/devicetree/base").map(|(_, path)| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn pci_addresses_round_trip_through_text() {
        for text in ["0000:02:00.0", "10000:ff:1f.7"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("02:00.1".parse::<Address>().unwrap().to_string(), "0000:02:00.1");
        for text in ["", "0:0", "0000:100:00.0", "0000:00:20.0", "0:0:0.8", "x:0:0.0"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    /// Returns the configuration space of a bridge with this secondary bus number and this
    /// Device/Port Type of PCI Express.
    fn bridge(secondary: u8, express: u8) -> Vec<u8> {
        let mut config = vec![0; 256];
        (config[0x0e], config[0x19], config[0x34]) = (1, secondary, 0x40);
        (config[0x40], config[0x42]) = (0x10, express << 4);
        config
    }

    fn functions(configs: &[(&str, Vec<u8>)]) -> Vec<Function> {
        let tree = configs.iter().fold(Tree::new(), |tree, (function, config)| {
            tree.bytes(&format!("{DEVICES}/{function}/config"), config)
        });
        read(&tree.root())
    }

    #[test]
    fn bridges_above_a_function_determine_its_requester_id_and_path() {
        let found = functions(&[
            ("0000:00:01.0", bridge(1, 4)),
            ("0000:01:00.0", bridge(2, 7)),
            ("0000:02:03.1", vec![0; 64]),
            ("0001:02:03.0", vec![0; 64]),
        ]);
        let bridges = Bridges::among(&found);
        let above = bridges.above(&found[2]);
        assert_eq!(path(&above, &found[2]), [8, 0, 0x19]);
        assert_eq!(requester_at_host(&above, &found[2]), RequesterId::new(0x200));
        assert!(bridges.above(&found[3]).is_empty());
        assert_eq!(requester_at_host(&[&found[0]], &found[1]), RequesterId::new(0x100));
    }

    #[test]
    fn a_missing_link_speed_identifies_a_conventional_bus() {
        let link = |function: &str| format!("{DEVICES}/{function}/max_link_speed");
        let tree = Tree::new()
            .bytes(&format!("{DEVICES}/0000:00:01.0/config"), &bridge(1, 4)[..64])
            .bytes(&format!("{DEVICES}/0000:01:00.0/config"), &bridge(2, 7)[..64])
            .bytes(&format!("{DEVICES}/0000:02:03.0/config"), &[0; 64])
            .file(&link("0000:00:01.0"), "16.0 GT/s PCIe\n");
        let requester = |tree: &Tree| {
            let found = read(&tree.root());
            requester_at_host(&Bridges::among(&found).above(&found[2]), &found[2]).get()
        };
        let tree = tree.file(&link("0000:01:00.0"), "16.0 GT/s PCIe\n");
        assert_eq!(requester(&tree), 0x200);
        assert_eq!(requester(&tree.file(&link("0000:02:03.0"), "16.0 GT/s PCIe\n")), 0x218);
    }

    #[test]
    fn the_search_for_bridges_ends_despite_a_cycle() {
        let circle = [
            ("0000:00:00.0", bridge(1, 4)),
            ("0000:01:00.0", bridge(0, 4)),
            ("0000:02:00.0", bridge(2, 4)),
        ];
        let found = functions(&circle);
        let bridges = Bridges::among(&found);
        assert_eq!(bridges.above(&found[1]).len(), 1);
        assert!(bridges.above(&found[2]).is_empty());
    }

    #[test]
    fn the_sysfs_attributes_of_a_function_are_read() {
        let of =
            |file: &str| format!("sys/devices/platform/40.pcie/pci0000:00/0000:00:02.0/{file}");
        let tree = Tree::new()
            .file(&of("irq"), "21\n")
            .file(&of("msi_bus"), "1\n")
            .file(&of("power_state"), "D0\n")
            .file(&of("msi_irqs/26"), "msix\n")
            .file(&of("msi_irqs/9"), "msix\n")
            .link(&of("driver"), "../../../../../bus/pci/drivers/nvme")
            .link(
                "sys/devices/platform/40.pcie/of_node",
                "../../../firmware/devicetree/base/pcie@10",
            )
            .link(
                &format!("{DEVICES}/0000:00:02.0"),
                "../../../devices/platform/40.pcie/pci0000:00/0000:00:02.0",
            );
        let [function] = &read(&tree.root())[..] else { panic!("one function") };
        assert_eq!((function.driver.as_deref(), function.irq), (Some("nvme"), Some(21)));
        assert_eq!(function.messages.iter().map(|one| one.irq).collect::<Vec<_>>(), [9, 26]);
        assert_eq!(function.host_node.as_deref(), Some("/pcie@10"));
        assert_eq!((function.has_messages(), function.permits_messages), (Some(true), true));
    }
}
