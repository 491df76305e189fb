//! Compares every field that appears in the output of both the command and the devicetree compiler:
//! CPUs, the GIC, controllers, routes, streams and capacity.

use std::collections::BTreeMap;

use anyhow::{Error, Result};
use serde_json::{Value, json};

use super::addresses::number;
use super::devicetree::{ECAM, Node, Tree, above, is_bridge, own_controller};
use crate::said::{columns, list, same, sorted};

/// Compatible strings of the GICs in the kernels' devicetrees.
const GICS: &[&str] = &[
    "arm,gic-v3",
    "arm,gic-400",
    "arm,cortex-a15-gic",
    "arm,cortex-a9-gic",
    "arm,cortex-a7-gic",
    "qcom,msm-qgic2",
];
/// Kinds of controllers for which a capacity is shown.
const KNOWN: &[&str] = &["its", "v2m", "mbi", "direct-lpi", "imsi-rx", "mediatek-gen3", "mip"];
const PRE_ITS: &str = "socionext,synquacer-pre-its";
const EVERYONE: u64 = 0x1_0000;

/// Compares the command's output with the compiler's.
///
/// # Errors
/// Fails if the outputs differ.
pub(crate) fn compare(said: &Value, tree: &Tree) -> Result<()> {
    let reader = Reader { tree };
    let rows = |name, members: &[&str]| Ok::<_, Error>(sorted(columns(said, name, members)?));
    same("CPUs", &rows("cpus", &["id", "affinity", "enabled"])?, &reader.cpus())?;
    same("GIC", &said["gic"], &reader.gic())?;
    let shown = ["id", "kind", "enabled", "doorbells", "ranges", "coherence"];
    same("controllers", &rows("controllers", &shown)?, &reader.controllers())?;
    same("requesters", &requesters(said)?, &reader.requesters())?;
    let shown = ["controller", "interrupts", "device_id_bits", "needed_device_id_bits"];
    same("capacity", &rows("capacity", &shown)?, &reader.capacity())
}

/// Rows of a table.
type Rows = Vec<Vec<Value>>;

fn requesters(said: &Value) -> Result<Rows> {
    let route = |route: &Value| {
        json!([
            route["rid_base"],
            route["length"],
            route["controller"],
            route["device_id_base"],
            route["streams"],
        ])
    };
    let row = |device: &Value| -> Result<Vec<Value>> {
        let routes: Vec<_> = list(device, "routes")?.iter().map(route).collect();
        let [id, enabled, streams] = ["id", "enabled", "streams"].map(|name| device[name].clone());
        Ok(vec![id, enabled, json!(routes), streams])
    };
    Ok(sorted(list(said, "devices")?.iter().map(row).collect::<Result<_>>()?))
}

struct Reader<'t> {
    tree: &'t Tree,
}

/// Consecutive requesters of a node, and the controller through which they signal.
struct Span<'t> {
    first: u64,
    length: u64,
    controller: &'t Node,
    device: u64,
    /// `true` for `msi-map`, `false` for `msi-parent`.
    is_mapped: bool,
}

impl<'t> Reader<'t> {
    fn cpus(&self) -> Rows {
        let row = |node: &Node| {
            let mpidr = number(&node.cells("reg"));
            let affinity = [32, 16, 8, 0].map(|shift| ((mpidr >> shift) & 0xff).to_string());
            vec![json!(node.path), json!(affinity.join(".")), json!(node.enabled)]
        };
        let is_cpu = |node: &&Node| {
            above(&node.path) == "/cpus" && node.property("device_type") == "\"cpu\""
        };
        sorted(self.tree.nodes.iter().filter(is_cpu).map(row).collect())
    }

    fn gic(&self) -> Value {
        let gics = || self.tree.nodes.iter().filter(|node| node.is(GICS));
        let Some(node) = gics().find(|node| node.enabled).or_else(|| gics().next()) else {
            return Value::Null;
        };
        let regions = self.tree.regions(node);
        let version = if node.is(&["arm,gic-v3"]) { 3 } else { 2 };
        let stated =
            node.cells("#redistributor-regions").first().map_or(1, |&count| count as usize);
        let count = if version == 2 { 0 } else { stated };
        let stride = Some(number(&node.cells("redistributor-stride"))).filter(|&stride| stride > 0);
        let region = |region: &Option<(u64, u64)>| {
            let (base, size) = region.unwrap_or_default();
            json!({ "base": base, "size": size, "stride": stride })
        };
        let redistributors: Vec<_> = regions.iter().skip(1).take(count).map(region).collect();
        let distributor = regions.first().copied().flatten().map(|(base, _)| base);
        json!({
            "id": node.path,
            "version": version,
            "distributor": distributor,
            "redistributors": redistributors,
            "coherence": coherence(node),
        })
    }

    fn controllers(&self) -> Rows {
        let row = |node: &Node| {
            let enabled =
                node.enabled && (node.has("msi-controller") || own_controller(node).is_some());
            let doorbells: Vec<_> = self.doorbell(node).into_iter().collect();
            let ranges: Vec<_> = ranges(node)
                .into_iter()
                .map(|(first, count)| json!({ "first": first, "count": count }))
                .collect();
            vec![
                json!(node.path),
                json!(kind(node)),
                json!(enabled),
                json!(doorbells),
                json!(ranges),
                json!(coherence(node)),
            ]
        };
        let all = self.tree.nodes.iter().filter(|node| kind(node).is_some());
        sorted(all.map(row).collect())
    }

    /// Returns the address to which messages are written.
    fn doorbell(&self, node: &Node) -> Option<u64> {
        let offset = match kind(node)?.as_str() {
            "its" => 0x1_0040,
            "v2m" | "mbi" => 0x40,
            "mip" => return self.second_address(node),
            _ => return None,
        };
        if let Some(window) = node.cells(PRE_ITS).first() {
            return Some(u64::from(*window));
        }
        let alias = node.has("mbi-alias").then(|| number(&node.cells("mbi-alias")));
        let base = alias.or_else(|| Some(self.tree.regions(node).first().copied().flatten()?.0));
        Some(base? + offset)
    }

    /// Returns the number of vectors of a controller inside a host bridge.
    fn vectors(&self, node: &Node) -> Option<u64> {
        let names = node.strings("interrupt-names");
        let has = |name: &str| names.iter().any(|other| other == name);
        let numbered = (0..8).take_while(|number| has(&format!("msi{number}"))).count() as u64;
        match own_controller(node)?.as_str() {
            "imsi-rx" if !self.tree.is_wired_to(node, GICS) => Some(0),
            "imsi-rx" if has("msi") => Some(32),
            "imsi-rx" => Some(32 * numbered.max(1)),
            "mediatek-gen3" => Some(256),
            _ => None,
        }
    }

    /// Returns the second address of `reg`, as the node's bus counts.
    fn second_address(&self, node: &Node) -> Option<u64> {
        let bus = self.tree.node(above(&node.path))?;
        let count = |name| bus.cells(name).first().map(|&count| count as usize);
        let (address, size) = (count("#address-cells")?, count("#size-cells")?);
        Some(number(node.cells("reg").get(address + size..)?.get(..address)?))
    }

    fn requesters(&self) -> Rows {
        let row = |node: &'t Node| {
            let spans = self.spans(node);
            let route = |span: &Span<'_>| {
                let streams = self.streams(node, span.first, span.length);
                json!([span.first, span.length, span.controller.path, span.device, streams])
            };
            let routes: Vec<_> = spans.iter().map(route).collect();
            let (first, last) = self.existing(node, "iommu-map-mask");
            let streams = if spans.is_empty() {
                self.streams(node, first, last - first + 1)
            } else {
                Vec::new()
            };
            vec![json!(node.path), json!(node.enabled), json!(routes), json!(streams)]
        };
        sorted(self.senders().map(row).collect())
    }

    /// Returns the hosts, and the nodes that refer to a controller.
    fn senders(&self) -> impl Iterator<Item = &'t Node> {
        let names = |node: &Node| node.has("msi-map") || node.has("msi-parent");
        let below_bridge = |node: &Node| self.tree.node(above(&node.path)).is_some_and(is_bridge);
        self.tree.nodes.iter().filter(move |node| {
            if below_bridge(node) {
                return node.has("msi-map") || (names(node) && !is_bridge(node));
            }
            is_bridge(node) || names(node)
        })
    }

    /// Returns the requesters that have a route, on buses that exist.
    fn spans(&self, node: &'t Node) -> Vec<Span<'t>> {
        let exists = |span: Span<'t>| {
            let mask = if span.is_mapped { "msi-map-mask" } else { "" };
            let (first, last) = self.existing(node, mask);
            let end = (span.first + span.length).min(last + 1);
            let skipped = first.saturating_sub(span.first);
            let first = span.first + skipped;
            let length = end.checked_sub(first).filter(|&length| length != 0)?;
            Some(Span { first, length, device: span.device + skipped, ..span })
        };
        self.stated_spans(node).into_iter().filter_map(exists).collect()
    }

    fn stated_spans(&self, node: &'t Node) -> Vec<Span<'t>> {
        let mut spans = Vec::new();
        let is_known_bus = node.is(&["fsl,qoriq-mc", "xlnx,versal-net-cdx"]);
        let is_function = self.tree.node(above(&node.path)).is_some_and(is_bridge);
        let is_mapped = node.has("msi-map") && (is_function || !node.has("msi-parent"));
        let is_device = !is_bridge(node) && !is_known_bus && !is_mapped && !node.has("iommu-map");
        let entries = self.tree.map_entries(node, "msi-map", "#msi-cells");
        let entries =
            entries.into_iter().filter(|entry| !is_device && kind(entry.target).is_some());
        spans.extend(entries.map(|entry| Span {
            first: entry.first,
            length: entry.length,
            controller: entry.target,
            device: entry.output.unwrap_or(entry.first),
            is_mapped: true,
        }));
        let cells = node.cells("msi-parent");
        let mut rest = cells.as_slice();
        while let Some((phandle, after)) = rest.split_first() {
            let Some(controller) = self.tree.by_phandle(*phandle) else { break };
            let count = controller.cells("#msi-cells").first().map_or(0, |&count| count as usize);
            let specifier = after.get(..count).unwrap_or_default();
            rest = after.get(count..).unwrap_or_default();
            let (length, device) = match specifier {
                [device] if is_device => (1, u64::from(*device)),
                _ if is_device => (1, 0),
                _ => (EVERYONE, 0),
            };
            spans.push(Span { first: 0, length, controller, device, is_mapped: false });
        }
        let is_own = !node.has("msi-map")
            && !node.has("msi-parent")
            && (node.has("msi-controller") || own_controller(node).is_some());
        if is_own {
            let length = EVERYONE;
            spans.push(Span { first: 0, length, controller: node, device: 0, is_mapped: false });
        }
        spans
    }

    /// Returns the streams of the `length` requesters starting with `first`, except for requesters
    /// without an IOMMU.
    fn streams(&self, node: &Node, first: u64, length: u64) -> Vec<Value> {
        let mut streams = Vec::new();
        let host = self.host_of(node);
        for entry in self.tree.map_entries(host, "iommu-map", "#iommu-cells") {
            let (base, end) = (entry.first, entry.first + entry.length);
            let (first, last) = if host.has("iommu-map-mask") {
                (base, end)
            } else {
                (base.max(first), end.min(first + length))
            };
            if first < last {
                let stream = entry.output.map(|output| output + first - base);
                streams.push(stream_row(entry.target, (first, last - first), stream));
            }
        }
        let cells = if host.has("iommu-map") { Vec::new() } else { node.cells("iommus") };
        let mut rest = cells.as_slice();
        while let Some((phandle, after)) = rest.split_first().filter(|_| !is_bridge(node)) {
            let Some(iommu) = self.tree.by_phandle(*phandle) else { break };
            let count = iommu.cells("#iommu-cells").first().map_or(0, |&count| count as usize);
            let stream = after.get(..count).and_then(<[_]>::first).map(|&id| u64::from(id));
            streams.push(stream_row(iommu, (0, 1), stream));
            rest = after.get(count..).unwrap_or_default();
        }
        streams
    }

    /// Returns the host whose map applies to the node: its topmost PCI bridge, or the node itself
    /// if it is not behind one.
    fn host_of<'n>(&self, node: &'n Node) -> &'n Node
    where
        't: 'n,
    {
        let mut host = node;
        while let Some(parent) =
            self.tree.node(above(&host.path)).filter(|parent| is_bridge(parent))
        {
            host = parent;
        }
        host
    }

    /// Returns the capacity of the enabled Arm controllers, and the capacity that requesters need.
    fn capacity(&self) -> Rows {
        let highest = self.highest();
        let row = |node: &Node| {
            let counts: Vec<_> = ranges(node).iter().map(|(_, count)| u64::from(*count)).collect();
            let interrupts = (!counts.is_empty()).then(|| counts.iter().sum::<u64>());
            let interrupts = interrupts.or_else(|| self.vectors(node));
            let window = node.cells(PRE_ITS).get(1).map(|size| size.ilog2() - 2);
            let needed = highest.get(node.path.as_str());
            let needed = needed.map(|id| id.checked_ilog2().map_or(1, |highest| highest + 1));
            vec![json!(node.path), json!(interrupts), json!(window), json!(needed)]
        };
        let known = |node: &&Node| {
            let is_known = |kind: String| KNOWN.contains(&&*kind);
            let is_marked = node.has("msi-controller") || own_controller(node).is_some();
            node.enabled && is_marked && kind(node).is_some_and(is_known)
        };
        sorted(self.tree.nodes.iter().filter(known).map(row).collect())
    }

    /// Returns the highest DeviceID at each ITS.
    fn highest(&self) -> BTreeMap<&'t str, u64> {
        let mut highest = BTreeMap::new();
        for node in self.senders().filter(|node| node.enabled) {
            let mut is_first_parent = !node.has("msi-map");
            for span in self.spans(node) {
                let is_bus = span.length != 1 || is_bridge(node);
                let counts = span.is_mapped || !is_bus || std::mem::take(&mut is_first_parent);
                let its = span.controller;
                let usable = its.is_its() && its.enabled && its.has("msi-controller");
                if counts && usable {
                    let device = span.device + (span.length - 1);
                    let known = highest.entry(its.path.as_str()).or_insert(device);
                    *known = device.max(*known);
                }
            }
        }
        highest
    }

    /// Returns the first and last requester IDs that exist at a node. Behind a PCI host, these are
    /// the IDs on its buses. Without a PCI host, or if a mask maps several requesters to one ID,
    /// all IDs exist.
    fn existing(&self, node: &Node, mask: &str) -> (u64, u64) {
        let host = self.host_of(node);
        if !is_bridge(host) || node.has(mask) {
            return (0, u32::MAX.into());
        }
        let stated = host.cells("bus-range");
        let buses = match stated.as_slice() {
            [first, last] => (u64::from(*first), u64::from(*last)),
            _ if host.is(ECAM) => {
                let size =
                    self.tree.regions(host).first().copied().flatten().map_or(0, |(_, size)| size);
                (0, (size >> 20).clamp(1, 256) - 1)
            }
            _ => (0, 0xff),
        };
        (buses.0 << 8, buses.1 << 8 | 0xff)
    }
}

fn stream_row(iommu: &Node, (first, length): (u64, u64), stream: Option<u64>) -> Value {
    json!({
        "iommu": iommu.path,
        "enabled": iommu.enabled,
        "rid_base": first,
        "length": length,
        "stream_id_base": stream,
    })
}

/// Returns what the node states about its coherence with the caches, in the command's words.
fn coherence(node: &Node) -> &'static str {
    if node.has("dma-noncoherent") { "not coherent" } else { "by register" }
}

/// Returns the controller kind of a node, under the name that the command uses.
fn kind(node: &Node) -> Option<String> {
    if node.is_its() {
        return Some("its".into());
    }
    if node.is_frame() {
        return Some("v2m".into());
    }
    if node.is(&["arm,gic-v3"]) {
        let facets = [("mbi-ranges", "mbi"), ("arm,direct-lpi", "direct-lpi")];
        let facet = facets.iter().find(|(property, _)| node.has(property));
        return facet.map(|(_, kind)| (*kind).into());
    }
    if let Some(kind) = own_controller(node) {
        return Some(kind);
    }
    if node.is(&["brcm,bcm2712-mip"]) {
        return Some("mip".into());
    }
    let compatible = node.strings("compatible").into_iter().next();
    node.has("msi-controller").then(|| compatible.unwrap_or_default())
}

/// Returns the SPI ranges that firmware states for messages.
fn ranges(node: &Node) -> Vec<(u32, u32)> {
    if let [_, _kind, number, _flags, count, ..] = node.cells("msi-ranges")[..] {
        let offset = node.cells("brcm,msi-offset").first().copied().unwrap_or(0);
        return vec![(32 + number + offset, count)];
    }
    let pairs = node.cells("mbi-ranges");
    let pairs = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let frame = node.cells("arm,msi-base-spi").into_iter().zip(node.cells("arm,msi-num-spis"));
    if node.is_frame() { frame.collect() } else { pairs.collect() }
}
