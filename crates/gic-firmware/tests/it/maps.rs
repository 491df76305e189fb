//! Compares maps from requester IDs to StreamIDs and DeviceIDs with a model of Linux's `of_map_id`.

use dtoolkit::ToPropertyValue;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use gic_firmware::{Description, Finding, PciHost, Role, Rule, devicetree};
use msi_types::{DeviceId, RequesterId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Nodes that maps refer to. Node `n` has phandle `n + 1`.
const TARGETS: usize = 4;
const IOMMU: [&str; 3] = ["iommu-map", "#iommu-cells", "iommu-map-mask"];
const MSI: [&str; 3] = ["msi-map", "#msi-cells", "msi-map-mask"];

fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

/// Parses a machine whose host has the map `words`. The map's targets are nodes that state these
/// numbers of cells.
fn machine(
    [map, cells, mask_name]: [&str; 3],
    targets: &[Option<u32>],
    mask: Option<u32>,
    words: &[u32],
) -> Description {
    let mut tree = DeviceTree::new();
    for (phandle, stated) in (1u32..).zip(targets) {
        let mut node = DeviceTreeNode::new_unchecked(format!("target@{phandle}"));
        set(&mut node, "compatible", "arm,gic-v3-its");
        set(&mut node, "msi-controller", Vec::<u8>::new());
        set(&mut node, "reg", [phandle << 20, 0x2_0000].as_slice());
        set(&mut node, "phandle", phandle);
        if let Some(stated) = stated {
            set(&mut node, cells, *stated);
        }
        tree.root.add_child(node);
    }
    let mut host = DeviceTreeNode::new_unchecked("pcie@0");
    set(&mut host, "device_type", "pci");
    set(&mut host, map, words);
    if let Some(mask) = mask {
        set(&mut host, mask_name, mask);
    }
    tree.root.add_child(host);
    devicetree::parse(&tree.to_dtb()).expect("the tree is sound")
}

fn host(machine: &Description) -> &PciHost {
    machine.hosts.first().expect("the tree has a host")
}

/// Returns the index of the node that `iommu-map` maps `id` to, and the StreamID.
fn stream(machine: &Description, id: u32) -> Option<(usize, u32)> {
    let (iommu, stream) = host(machine).iommu.stream(RequesterId::new(id))?;
    let target = machine.iommu(iommu).expect("a stream has an IOMMU").id.as_str();
    let target = target.strip_prefix("/target@").and_then(|phandle| phandle.parse::<usize>().ok());
    Some((target.expect("the map refers to it") - 1, stream))
}

/// Returns the index of the node that `msi-map` maps `id` to, and the DeviceID.
fn device(machine: &Description, id: u32) -> Option<(usize, u32)> {
    let route = machine.route(host(machine), RequesterId::new(id)).ok()?;
    Some((route.controller.get(), route.device_id.get()))
}

fn rules(machine: &Description) -> Vec<Rule> {
    let shape = [Rule::MalformedProperty, Rule::SeveralOutputCells, Rule::UnknownPhandle];
    let rules = machine.findings.iter().map(|finding| finding.rule);
    rules.filter(|rule| shape.contains(rule)).collect()
}

/// Models `of_map_id` as its documentation and callers describe it. Returns the index of the target
/// and its cells, or `None` if no entry translates `id` or if Linux rejects the map before it finds
/// such an entry.
fn of_map_id(
    words: &[u32],
    targets: &[Option<u32>],
    mask: Option<u32>,
    id: u32,
) -> Option<(usize, Vec<u32>)> {
    let mask = mask.unwrap_or(u32::MAX);
    let place = |phandle: u32| (phandle as usize).checked_sub(1).filter(|at| *at < targets.len());
    let is_old = || {
        words.len().is_multiple_of(4)
            && words.chunks(4).all(|entry| entry[1] == words[1] && entry[3] == 1)
    };
    let (mut at, mut old) = (0, false);
    while at < words.len() {
        let [first, phandle] = *words.get(at..at + 2)? else { return None };
        let target = place(phandle)?;
        let mut cells = targets[target].unwrap_or(1) as usize;
        if at == 0 && cells == 2 && is_old() {
            old = true;
        }
        if old {
            cells = 1;
        }
        if first & !mask != 0 || cells > 16 {
            return None;
        }
        let output = words.get(at + 2..at + 2 + cells)?;
        let length = *words.get(at + 2 + cells)?;
        at += 3 + cells;
        let Some(offset) = (id & mask).checked_sub(first).filter(|offset| *offset < length) else {
            continue;
        };
        if cells > 1 && length > 1 {
            return None;
        }
        // Linux wraps around here, but an ID has only 32 bits.
        let cells: Option<_> = output.iter().map(|cell| cell.checked_add(offset)).collect();
        return Some((target, cells?));
    }
    None
}

fn counts() -> impl Strategy<Value = Vec<Option<u32>>> {
    let stated = prop_oneof![6 => 0..4u32, 1 => 15..18u32, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    vec(option::weighted(0.9, stated), TARGETS)
}

/// Generates a few entries, each with the number of cells that its target states or with one cell,
/// and may truncate the last entry.
fn maps(targets: Vec<Option<u32>>) -> impl Strategy<Value = Vec<u32>> {
    let length = prop_oneof![3 => Just(1u32), 1 => 0..8u32, 1 => any::<u32>()];
    let number = prop_oneof![4 => 0..8u32, 1 => any::<u32>()];
    let entry = (number.clone(), 1..=5u32, vec(number, 20), length);
    let cut = prop_oneof![4 => Just(usize::MAX), 1 => 0..20usize];
    (vec(entry, 0..5), any::<[bool; 2]>(), cut).prop_map(move |(entries, [old, one], cut)| {
        let mut words = Vec::new();
        for (first, phandle, cells, length) in entries {
            let phandle = if one { 1 } else { phandle };
            let stated = targets.get(phandle as usize - 1).copied().flatten().unwrap_or(1);
            let count = if old { 1 } else { stated.min(20) as usize };
            words.extend([first, phandle]);
            words.extend(cells.iter().take(count));
            words.push(if old && one { 1 } else { length });
        }
        words.truncate(cut);
        words
    })
}

fn cases() -> impl Strategy<Value = (Vec<Option<u32>>, Vec<u32>)> {
    counts().prop_flat_map(|targets| {
        let noise = vec(prop_oneof![3 => 0..6u32, 1 => any::<u32>()], 0..24);
        let words = prop_oneof![6 => maps(targets.clone()), 1 => noise];
        (Just(targets), words)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn stream_ids_match_linux(
        (targets, words) in cases(),
        mask in option::weighted(0.2, prop_oneof![Just(6u32), any::<u32>()]),
        any_id: u32,
    ) {
        let machine = machine(IOMMU, &targets, mask, &words);
        for id in (0..10).chain([any_id]) {
            let expected = of_map_id(&words, &targets, mask, id).and_then(|(target, cells)| {
                // A node without `#iommu-cells` is not an IOMMU.
                targets[target].map(|_| (target, cells.first().copied()))
            });
            let expected = expected.and_then(|(target, first)| Some((target, first?)));
            prop_assert_eq!(stream(&machine, id), expected, "{:#x}", id);
        }
    }

    #[test]
    fn device_ids_match_linux((targets, words) in cases(), any_id: u32) {
        let machine = machine(MSI, &targets, None, &words);
        for id in (0..10).chain([any_id]) {
            let expected = of_map_id(&words, &targets, None, id);
            // If the target's specifiers have no cells, the DeviceID equals the requester ID.
            let expected = expected.map(|(target, cells)| (target, *cells.first().unwrap_or(&id)));
            prop_assert_eq!(device(&machine, id), expected, "{:#x}", id);
        }
    }
}

#[test]
fn two_iommu_map_cells_hold_a_stream_id_and_a_mask() {
    let words = [0, 1, 0x1400, 0x7f, 1, 0x100, 1, 0x1401, 0, 1];
    let machine = machine(IOMMU, &[Some(2)], None, &words);
    assert_eq!(machine.findings, []);
    assert_eq!([0, 0x100].map(|id| stream(&machine, id)), [Some((0, 0x1400)), Some((0, 0x1401))]);
    assert_eq!(stream(&machine, 1), None);
}

#[test]
fn a_one_cell_map_of_single_ids_for_a_two_cell_target_is_still_read() {
    let words = [0, 1, 0x1c10, 1, 0x100, 1, 0x1c11, 1];
    let machine = machine(IOMMU, &[Some(2)], None, &words);
    assert_eq!(machine.findings, []);
    assert_eq!([0, 0x100].map(|id| stream(&machine, id)), [Some((0, 0x1c10)), Some((0, 0x1c11))]);
}

#[test]
fn a_one_cell_map_entry_for_many_ids_and_a_two_cell_target_is_refused() {
    let machine = machine(IOMMU, &[Some(2)], None, &[0, 1, 0, 0x1_0000]);
    assert_eq!(rules(&machine), [Rule::MalformedProperty]);
    let said = machine.findings.first().map(ToString::to_string);
    let message = "by its `#iommu-cells`, an entry for /target@1 has 5 cells, but 4 remain";
    assert_eq!(said, Some(format!("error[malformed-property] /pcie@0: iommu-map: {message}")));
    assert_eq!(stream(&machine, 0), None);
}

#[test]
fn entries_of_one_map_may_differ_in_length() {
    let words = [0, 1, 0x10, 0x100, 0x100, 2, 0x20, 0, 1, 0x200, 3, 1];
    let read = machine(IOMMU, &[Some(1), Some(2), Some(0)], None, &words);
    assert_eq!(read.findings, []);
    assert_eq!([0xff, 0x100].map(|id| stream(&read, id)), [Some((0, 0x10f)), Some((1, 0x20))]);
    let last = host(&read).iommu.map.last().expect("it has three entries");
    assert_eq!(
        (last.iommu.map(gic_firmware::IommuIndex::get), last.stream_id_base),
        (Some(2), None)
    );
    let read = machine(MSI, &[Some(1), Some(2), Some(0)], None, &words);
    assert_eq!(rules(&read), []);
    let devices = [0xff, 0x100, 0x200].map(|id| device(&read, id));
    assert_eq!(devices, [Some((0, 0x10f)), Some((1, 0x20)), Some((2, 0x200))]);
}

#[test]
fn a_multi_cell_map_entry_for_several_ids_is_reported() {
    for (kind, name) in [(IOMMU, "iommu-map"), (MSI, "msi-map")] {
        let read = machine(kind, &[Some(2)], None, &[0, 1, 0x10, 0, 2, 8, 1, 0x20, 0, 1]);
        assert_eq!(rules(&read), [Rule::SeveralOutputCells], "{name}");
        let found = |finding: &&Finding| finding.rule == Rule::SeveralOutputCells;
        let said = read.findings.iter().find(found).map(ToString::to_string);
        let message = "2 IDs from 0x0 on, but a specifier of 2 cells fits one";
        assert_eq!(said, Some(format!("error[several-output-cells] /pcie@0: {name}: {message}")));
        let find = if name == "msi-map" { device } else { stream };
        assert_eq!([0, 1, 8].map(|id| find(&read, id)), [None, None, Some((0, 0x20))], "{name}");
    }
}

#[test]
fn map_parsing_stops_at_an_entry_of_unknown_length() {
    let read = |cells: u32, phandle: u32| {
        let words = [0, 1, 0x10, 1, 1, phandle, 0x11, 1, 2, 1, 0x12, 1];
        machine(IOMMU, &[Some(1), Some(cells)], None, &words)
    };
    for (cells, phandle, rule) in [
        (1, 7, Rule::UnknownPhandle),
        (17, 2, Rule::MalformedProperty),
        (u32::MAX, 2, Rule::MalformedProperty),
    ] {
        let machine = read(cells, phandle);
        assert_eq!(rules(&machine), [rule]);
        assert_eq!([0, 1, 2].map(|id| stream(&machine, id)), [Some((0, 0x10)), None, None]);
    }
    assert_eq!(stream(&read(1, 2), 2), Some((0, 0x12)));
}

/// Reads a PCI endpoint controller, as in `pci-ep.yaml`, next to a device with `msi-parent`.
#[test]
fn endpoint_controller_has_a_device_id_for_each_function() {
    let mut tree = DeviceTree::new();
    let mut its = DeviceTreeNode::new_unchecked("its@1");
    set(&mut its, "compatible", "arm,gic-v3-its");
    set(&mut its, "msi-controller", Vec::<u8>::new());
    set(&mut its, "#msi-cells", 1u32);
    set(&mut its, "reg", [1u32, 0x2_0000].as_slice());
    set(&mut its, "phandle", 1u32);
    tree.root.add_child(its);
    for (name, has_parent) in [("pcie-ep@2", false), ("dma@3", true)] {
        let mut node = DeviceTreeNode::new_unchecked(name);
        set(&mut node, "compatible", "vendor,device");
        set(&mut node, "msi-map", [0u32, 1, 0x10, 8].as_slice());
        if has_parent {
            set(&mut node, "msi-parent", [1u32, 0x77].as_slice());
        }
        tree.root.add_child(node);
    }
    let machine = devicetree::parse(&tree.to_dtb()).expect("the tree is sound");
    assert_eq!(machine.findings, []);
    let [endpoint, dma] = machine.devices.as_slice() else { panic!("{:?}", machine.devices) };
    assert_eq!((endpoint.role, dma.role), (Role::Bus, Role::Device));
    let function = |id| machine.route_by(&endpoint.msi, RequesterId::new(id));
    let ids = [0, 7].map(|id| function(id).map(|route| route.device_id));
    assert_eq!(ids, [Ok(DeviceId::new(0x10)), Ok(DeviceId::new(0x17))]);
    assert!(function(8).is_err());
    let routes = machine.platform_routes(dma);
    let ids: Vec<_> = routes.iter().map(|route| route.map(|route| route.device_id)).collect();
    assert_eq!(ids, [Ok(DeviceId::new(0x77))]);
    let spans: Vec<_> =
        machine.device_spans(dma).iter().map(|span| (span.device_id_base, span.length)).collect();
    assert_eq!(spans, [(DeviceId::new(0x77), 1)]);
}
