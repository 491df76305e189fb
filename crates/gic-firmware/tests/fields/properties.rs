//! Properties of devicetrees.

use super::{Table, dts, judged};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use gic_firmware::{Rule, devicetree};
use std::collections::BTreeSet;
use std::fs;

/// Changes to the base machine that add properties which no example has.
const OTHERS: &str = "
    / {
        cpus { cpu-map { cluster0 { core0 { cpu = <&cpu0>; }; }; }; };
        msi-controller@9200000 {
            compatible = \"arm,gic-v2m-frame\";
            reg = <0x0 0x9200000 0x0 0x1000>;
            msi-controller;
            linux,phandle = <0x70>;
        };
        msi-controller@9300000 {
            compatible = \"brcm,bcm2712-mip\";
            reg = <0x0 0x9300000 0x0 0x1000>, <0xff 0xfffff000 0x0 0x1000>;
            msi-controller;
            msi-ranges = <&gic 0 64 1 8>;
        };
        serial@9400000 {
            reg = <0x0 0x9400000 0x0 0x1000>;
            interrupt-parent = <&gic>;
            interrupts = <0 64 4>;
        };
    };
    &pcie { iommu-map-mask = <0xff00>; };
    &dma { msi-parent = <0x70>; };
";

/// Returns the devicetrees of this crate's tests and of the rules' examples.
fn trees() -> Vec<Vec<u8>> {
    let base = include_str!("../../rules/base.dts");
    let examples = Rule::ALL.iter().flat_map(|rule| rule.explanation().split("```dts\n").skip(1));
    let examples = examples.filter_map(|example| example.split("```").next());
    let folder = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data")).expect("data");
    let files = folder.map(|entry| entry.expect("an entry").path());
    let compiled = files.filter(|path| path.extension().is_some_and(|it| it == "dtb"));
    examples
        .chain([OTHERS])
        .map(|example| dts::compile(&[base, example]))
        .chain(compiled.map(|path| fs::read(path).expect("a file")))
        .collect()
}

fn collect_names(node: &DeviceTreeNode, names: &mut BTreeSet<String>) {
    names.extend(node.properties().map(|property| property.name().to_owned()));
    node.children().for_each(|child| collect_names(child, names));
}

/// Renames a property in all nodes.
fn rename(node: &mut DeviceTreeNode, name: &str) {
    if let Some(property) = node.remove_property(name) {
        node.add_property(DeviceTreeProperty::new_unchecked("renamed", (&property).value()));
    }
    node.children_mut().for_each(|child| rename(child, name));
}

#[test]
fn documentation_lists_every_property_the_parser_reads_with_its_rules() {
    let mut read = Table::new();
    for blob in trees() {
        let tree = DeviceTree::from_fdt(&Fdt::new(&blob).expect("a tree"));
        let describe = |tree: &DeviceTree| {
            let blob = tree.to_dtb();
            (devicetree::parse_and_check(&blob).map(judged), devicetree::cpu_clusters(&blob))
        };
        let whole = describe(&tree);
        let mut names = BTreeSet::new();
        collect_names(&tree.root, &mut names);
        for name in names {
            let mut renamed = tree.clone();
            rename(&mut renamed.root, &name);
            if read.contains_key(&name) || describe(&renamed) != whole {
                let rules = read.entry(name.clone()).or_default();
                let findings = whole.0.iter().flat_map(|(_, findings)| findings);
                let about = findings.filter(|finding| finding.origin.item() == name);
                rules.extend(about.map(|finding| finding.rule.name()));
            }
        }
    }
    super::expect_listed("Properties of devicetrees", &read);
}
