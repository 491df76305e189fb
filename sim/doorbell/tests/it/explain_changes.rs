//! Changes of one property of a board's devicetree, or of one byte of its ACPI tables. The
//! explanation of a device whose way changes must name the property or its node, or the table.
//! `docs/no-interrupt.md` states the score.

use crate::{Folder, path, table};
use doorbell_test_support::Score;
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use std::fs;

/// Length of an ACPI table's header, and the offset of its checksum (ACPI 6.5 §5.2.6).
const HEADER: usize = 36;
const CHECKSUM: usize = 9;

/// Boards, and a device of each.
const SCENES: [(&str, &str); 5] = [
    ("harbour", "/pcie@20000000 01:00.0"),
    ("harbour", "/crane@9000000"),
    ("lagoon", "/pcie@20000000 00:01.0"),
    ("estuary", "/pcie@20000000 00:01.0"),
    ("cove", "/pcie@20000000 00:01.0"),
];

/// Returns the paths of a node and of the nodes below it. Of several CPUs, one suffices.
fn paths(of: &DeviceTreeNode, above: &str) -> Vec<String> {
    let path = format!("{}/{}", above.trim_end_matches('/'), of.name());
    let below = of.children().flat_map(|child| paths(child, &path));
    let all = std::iter::once(path.clone()).chain(below);
    all.filter(|path| !path.contains("cpu@") || path.ends_with("cpu@0")).collect()
}

/// Returns other values of a property, or `None` without it: each cell changed, a cell less, a cell
/// more, or another text.
fn values(value: &[u8]) -> Vec<Option<Vec<u8>>> {
    let (cells, rest) = value.as_chunks::<4>();
    let mut all = vec![Vec::new(), [value, &[0; 4]].concat()];
    if rest.is_empty() {
        for (at, cell) in cells.iter().enumerate() {
            let old = u32::from_be_bytes(*cell);
            for new in [0, u32::MAX, old.wrapping_add(1), old ^ 0x1_0000] {
                let mut other = cells.to_vec();
                other[at] = new.to_be_bytes();
                all.push(other.concat());
            }
        }
        all.push(value[..value.len().saturating_sub(4)].to_vec());
    } else {
        all.push(b"other\0".to_vec());
    }
    all.retain(|other| other != value);
    all.into_iter().map(Some).chain([None]).collect()
}

/// Returns a tree with one property of one node changed, for each change: the names of the property
/// and of the node, and the tree.
fn changed(sound: &DeviceTree) -> Vec<(String, String, DeviceTree)> {
    let mut all = Vec::new();
    for path in paths(&sound.root, "") {
        let node = sound.find_node(&path).unwrap();
        let properties = node.properties().map(|one| (one.name().to_owned(), values(one.value())));
        let disabled = ("status".to_owned(), vec![Some(b"disabled\0".to_vec())]);
        for (name, values) in properties.chain([disabled]) {
            for value in values {
                let mut tree = sound.clone();
                let changed = tree.find_node_mut(&path).unwrap();
                changed.remove_property(&name);
                if let Some(value) = value {
                    changed.add_property(DeviceTreeProperty::new(name.clone(), value).unwrap());
                }
                all.push((name.clone(), node.name().to_owned(), tree));
            }
        }
    }
    all
}

#[test]
fn explain_names_each_changed_property_on_the_way() {
    let folder = Folder::new("explain-changes");
    let mut score = Score::new("a board's devicetree");
    for (board, device) in SCENES {
        let explain = |tree: &DeviceTree| {
            folder.write("board.dtb", tree.to_dtb());
            let said = folder.run(&["explain", "board.dtb", device]);
            said.out + &said.err
        };
        let blob = fs::read(path(&format!("../machine/machines/{board}.dtb"))).unwrap();
        let sound = DeviceTree::from_fdt(&Fdt::new(&blob).unwrap());
        let working = explain(&sound);
        for (property, node, tree) in changed(&sound) {
            // The root has no name, and a way does not name each CPU.
            let place = if node.is_empty() { "root" } else { &node };
            judge(&mut score, &[&property, place, "firmware disables"], &working, &explain(&tree));
        }
    }
    score.check();
}

#[test]
fn explain_names_each_changed_table_on_the_way() {
    let folder = Folder::new("explain-table-changes");
    let mut score = Score::new("a board's ACPI tables");
    let names = ["apic", "iort", "mcfg"];
    let write = |name: &str, table: &[u8]| folder.write(&format!("{name}.aml"), table);
    for device in [r"\_SB.ETH0", "0001:00:01.0"] {
        let explain = || {
            let said = folder.run(&["explain", ".", device]);
            said.out + &said.err
        };
        for name in names {
            write(name, &table(name));
        }
        let working = explain();
        for name in names {
            let sound = table(name);
            for at in HEADER..sound.len() {
                let mut changed = sound.clone();
                changed[at] ^= 0x81;
                // All bytes of a table add up to 0.
                let sum = changed.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
                changed[CHECKSUM] = changed[CHECKSUM].wrapping_sub(sum);
                write(name, &changed);
                // A device with another name is not found.
                let signature = if name == "apic" { "MADT" } else { &name.to_uppercase() };
                let words = [signature, "firmware disables", "doorbell: ."];
                judge(&mut score, &words, &working, &explain());
            }
            write(name, &sound);
        }
    }
    score.check();
}

/// Judges the explanation of a changed description by its findings and obstacles. A change that
/// shows no other way counts as harmless, even with a finding. Only a status is mended by removing it.
fn judge(score: &mut Score, words: &[&str], working: &str, other: &str) {
    assert!(words[0] == "status" || !other.contains("remove `status"), "{words:?}: {other}");
    let lines: Vec<_> = other.lines().collect();
    let mut way = working.lines().filter(|line| !line.contains("obstacle"));
    if way.all(|line| lines.contains(&line)) && !other.contains("fix: ") {
        return score.add_harmless();
    }
    let told: Vec<_> = lines.into_iter().filter(|line| !shows_a_way(line)).collect();
    score.add_fault(words, [working, &told.join("\n")]);
}

/// Returns `true` for a line that shows a part of a way and not what is wrong with it.
fn shows_a_way(line: &str) -> bool {
    let parts = ["passes ", "controller ", "doorbell: a controller", "translation: the device has"];
    let part = line.trim_start();
    part.len() == line.len() && !line.starts_with("doorbell: ")
        || parts.iter().any(|known| part.starts_with(known))
}
