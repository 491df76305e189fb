//! Reads a devicetree's MSI controllers from the devicetree compiler's output. This interpretation
//! is independent: it shares no code with the command's parser.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Result, bail};
use doorbell_harness::dtb::Tools;
use doorbell_harness::process;

/// The nodes of one devicetree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) path: String,
    /// `true` if the node and all its ancestors are enabled.
    pub(super) enabled: bool,
    properties: HashMap<String, String>,
}

/// An entry of a map from requester IDs.
#[derive(Debug)]
pub(super) struct MapEntry<'t> {
    pub(super) first: u64,
    pub(super) target: &'t Node,
    /// First cell of the specifier of the first ID.
    pub(super) output: Option<u64>,
    pub(super) length: u64,
}

impl Tree {
    /// Reads `file` as printed by the devicetree compiler.
    ///
    /// # Errors
    /// Fails if the compiler rejects the file.
    pub(crate) fn read(tools: &Tools, file: &Path) -> Result<Self> {
        let mut compiler = tools.command("dtc");
        let text = process::capture(compiler.args(["-q", "-I", "dtb", "-O", "dts"]).arg(file))?;
        Self::parse(&text)
    }

    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut tree = Self::default();
        let mut open: Vec<usize> = Vec::new();
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_suffix(" {") {
                let parent =
                    open.last().map(|parent| tree.nodes[*parent].path.clone()).unwrap_or_default();
                let path = if name == "/" { String::new() } else { format!("{parent}/{name}") };
                open.push(tree.nodes.len());
                tree.nodes.push(Node { path, ..Node::default() });
            } else if line == "};" {
                open.pop();
            } else if let (Some(statement), Some(node)) = (line.strip_suffix(';'), open.last()) {
                let (name, value) = statement.split_once(" = ").unwrap_or((statement, ""));
                tree.nodes[*node].properties.insert(name.into(), value.into());
            }
        }
        if tree.nodes.is_empty() {
            bail!("the devicetree compiler printed no nodes");
        }
        tree.switch();
        Ok(tree)
    }

    /// Returns the paths of the enabled PCI hosts.
    pub(super) fn enabled_hosts(&self) -> HashSet<String> {
        let is_host = |node: &&Node| {
            let is_above = |it: &Node| it.path == above(&node.path) && is_bridge(it);
            let is_function = self.nodes.iter().any(is_above);
            node.enabled && is_bridge(node) && !is_function
        };
        self.nodes.iter().filter(is_host).map(|node| node.path.clone()).collect()
    }

    /// Returns `true` if a node that is compatible with one of `controllers` receives the node's
    /// interrupts, directly or through a controller with the same numbers.
    pub(super) fn is_wired_to(&self, node: &Node, controllers: &[&str]) -> bool {
        let mut path = node.path.as_str();
        loop {
            let is_it =
                |other: &&Node| other.path == path || (path == "/" && other.path.is_empty());
            let at = self.nodes.iter().find(is_it);
            if let Some(phandle) = at.and_then(|at| at.cells("interrupt-parent").first().copied()) {
                return self.by_phandle(phandle).is_some_and(|to| {
                    let is_between = to.is(FORWARDERS);
                    to.is(controllers) || (is_between && self.is_wired_to(to, controllers))
                });
            }
            if path == "/" || path.is_empty() {
                return false;
            }
            path = above(path);
            if path.is_empty() {
                path = "/";
            }
        }
    }

    pub(super) fn by_phandle(&self, phandle: u32) -> Option<&Node> {
        self.nodes.iter().find(|node| node.cells("phandle").first() == Some(&phandle))
    }

    /// Returns the entries of `map` up to the first malformed one. The property `cells` of a target
    /// states the number of cells in a specifier. Entries that do not define the specifier of each
    /// ID are omitted.
    pub(super) fn map_entries(&self, node: &Node, map: &str, cells: &str) -> Vec<MapEntry<'_>> {
        let words = node.cells(map);
        let mut quads = words.chunks(4);
        let is_old = quads.all(|quad| quad.get(1) == words.get(1) && quad.get(3) == Some(&1));
        let mut entries = Vec::new();
        let (mut at, mut limit) = (0, usize::MAX);
        while let Some(target) = words.get(at + 1).and_then(|&phandle| self.by_phandle(phandle)) {
            let stated = target.cells(cells).first().map_or(1, |&count| count as usize);
            if at == 0 && stated == 2 && is_old {
                limit = 1;
            }
            let count = stated.min(limit);
            let end = at.saturating_add(count).saturating_add(2);
            let (Some(output), Some(&length)) = (words.get(at + 2..end), words.get(end)) else {
                break;
            };
            let output = output.first().map(|&cell| u64::from(cell));
            let (first, length) = (u64::from(words[at]), u64::from(length));
            if count < 2 || length < 2 {
                entries.push(MapEntry { first, target, output, length });
            }
            at = end + 1;
        }
        entries
    }

    /// Determines which nodes are enabled. Parents must precede their children.
    fn switch(&mut self) {
        for at in 0..self.nodes.len() {
            let own = matches!(self.nodes[at].property("status"), "" | "\"okay\"" | "\"ok\"");
            let parent =
                self.nodes[at].path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
            let above =
                at == 0 || self.nodes.iter().any(|node| node.path == parent && node.enabled);
            self.nodes[at].enabled = own && above;
        }
    }
}

impl Node {
    pub(super) fn has(&self, name: &str) -> bool {
        self.properties.contains_key(name)
    }

    /// Returns `true` if the node is compatible with one of these names.
    pub(super) fn is(&self, names: &[&str]) -> bool {
        let stated = self.strings("compatible");
        stated.iter().any(|name| names.contains(&name.as_str()))
    }

    /// Returns the strings of a property, which the compiler prints either as one string or
    /// separately.
    pub(super) fn strings(&self, name: &str) -> Vec<String> {
        let parts = self.property(name).split(", ").flat_map(|part| part.split("\\0"));
        parts
            .map(|part| part.trim_matches('"').to_owned())
            .filter(|part| !part.is_empty())
            .collect()
    }

    pub(super) fn property(&self, name: &str) -> &str {
        self.properties.get(name).map_or("", String::as_str)
    }

    pub(super) fn is_its(&self) -> bool {
        self.is(&["arm,gic-v3-its"])
    }

    pub(super) fn is_frame(&self) -> bool {
        self.is(&["arm,gic-v2m-frame"])
    }

    pub(super) fn cells(&self, name: &str) -> Vec<u32> {
        let words = self.property(name).split(['<', '>', ' ']);
        let hexadecimal = words.filter_map(|word| word.strip_prefix("0x"));
        hexadecimal.filter_map(|digits| u32::from_str_radix(digits, 16).ok()).collect()
    }
}

pub(super) fn above(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(above, _)| above)
}

pub(super) const ECAM: &[&str] = &[
    "marvell,armada8k-pcie-ecam",
    "pci-host-ecam-generic",
    "snps,dw-pcie-ecam",
    "socionext,synquacer-pcie-ecam",
];
pub(super) fn is_bridge(node: &Node) -> bool {
    matches!(node.property("device_type"), "\"pci\"" | "\"pciex\"") || node.is(ECAM)
}

/// Controllers that receive the GIC's interrupts before the GIC does.
const FORWARDERS: &[&str] = &[
    "fsl,imx6q-gpc",
    "fsl,imx7d-gpc",
    "fsl,imx8mm-gpc",
    "fsl,imx8mn-gpc",
    "fsl,imx8mp-gpc",
    "fsl,imx8mq-gpc",
    "mediatek,mt6577-sysirq",
    "nvidia,tegra20-ictlr",
    "nvidia,tegra30-ictlr",
];

/// Host bridges with a controller that no driver serves.
const UNDRIVEN: &[&str] = &[
    "mediatek,mt2701-pcie",
    "mediatek,mt2712-pcie",
    "mediatek,mt7622-pcie",
    "mediatek,mt7623-pcie",
    "mediatek,mt7629-pcie",
    "nvidia,tegra124-pcie",
    "nvidia,tegra186-pcie",
    "nvidia,tegra20-pcie",
    "nvidia,tegra210-pcie",
    "nvidia,tegra30-pcie",
    "renesas,pcie-rcar-gen2",
    "renesas,pcie-rcar-gen3",
    "renesas,r9a08g045-pcie",
    "renesas,r9a09g047-pcie",
];
/// Returns the kind of the controller inside a host bridge, if messages reach it.
pub(super) fn own_controller(node: &Node) -> Option<String> {
    if !is_bridge(node) || node.has("msi-map") || node.has("msi-parent") {
        return None;
    }
    if node.is(&["mediatek,mt8192-pcie"]) {
        return Some("mediatek-gen3".into());
    }
    if node.is(UNDRIVEN) {
        return node.strings("compatible").into_iter().next();
    }
    // Amlogic's older trees give the port logic another region's name.
    let is_older_amlogic = node.is(&["amlogic,axg-pcie", "amlogic,g12a-pcie"]);
    let is_port_logic = |name: &String| {
        ["dbi", "rc-dbi"].contains(&name.as_str()) || is_older_amlogic && name == "elbi"
    };
    let is_designware = node.strings("reg-names").iter().any(is_port_logic);
    (is_designware && !node.is(&["samsung,exynos5433-pcie"])).then(|| "imsi-rx".into())
}
