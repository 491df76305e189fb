//! Converts the folder in which Linux shows its devicetree into a flattened devicetree.
//!
//! Linux lets only root read `/sys/firmware/fdt`, but all users may read the folder.

use super::root::Root;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use std::fs;

/// Maximum length of the flattened devicetree.
const MAX_BYTES: usize = 16 << 20;
/// Maximum overhead of a node and of a property.
const OVERHEAD: usize = 24;
const MAX_DEPTH: usize = gic_firmware::devicetree::MAX_DEPTH;

/// Flattens the devicetree in a folder. Returns `None` if the folder is empty, or if the tree is
/// too large or too deep.
pub(super) fn flatten(root: &Root, folder: &str) -> Option<Vec<u8>> {
    let (mut tree, mut left) = (DeviceTree::new(), MAX_BYTES);
    tree.root = node(root, folder, "", MAX_DEPTH, &mut left)?;
    (tree != DeviceTree::new()).then(|| tree.to_dtb())
}

/// Reads a node with at most this many levels, and at most as many bytes as are left.
fn node(
    root: &Root,
    folder: &str,
    name: &str,
    levels: usize,
    left: &mut usize,
) -> Option<DeviceTreeNode> {
    let levels = levels.checked_sub(1)?;
    *left = left.checked_sub(OVERHEAD + name.len())?;
    let mut node = DeviceTreeNode::new_unchecked(name);
    for entry in root.names(folder) {
        let path = format!("{folder}/{entry}");
        // Linux adds a property `name` to each node.
        match fs::symlink_metadata(root.path(&path)) {
            Ok(found) if found.is_dir() => {
                node.add_child(self::node(root, &path, &entry, levels, left)?);
            }
            Ok(found) if found.is_file() && entry != "name" => {
                // Linux hides only properties that contain secrets, which do not describe
                // interrupts. Treat such a property as empty.
                let value = root.bytes(&path, MAX_BYTES as u64).unwrap_or_default();
                *left = left.checked_sub(OVERHEAD + entry.len() + value.len())?;
                node.add_property(DeviceTreeProperty::new_unchecked(entry, value));
            }
            _ => {}
        }
    }
    Some(node)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;
    use gic_firmware::devicetree;

    const BASE: &str = "sys/firmware/devicetree/base";

    #[test]
    fn a_folder_is_flattened_to_an_equivalent_devicetree() {
        let tree = Tree::new()
            .file(&format!("{BASE}/compatible"), "linux,dummy-virt\0")
            .file(&format!("{BASE}/name"), "\0")
            .bytes(&format!("{BASE}/#address-cells"), &[0, 0, 0, 1])
            .bytes(&format!("{BASE}/#size-cells"), &[0, 0, 0, 1])
            .file(&format!("{BASE}/memory@40000000/device_type"), "memory\0")
            .bytes(&format!("{BASE}/memory@40000000/reg"), &[0x40, 0, 0, 0, 0x10, 0, 0, 0]);
        let machine = devicetree::parse(&flatten(&tree.root(), BASE).unwrap()).unwrap();
        assert_eq!(machine.compatible, ["linux,dummy-virt"]);
        let memory = machine.memory.iter().map(|region| (region.base(), region.size()));
        assert!(memory.eq([(0x4000_0000, 0x1000_0000)]), "{machine:?}");
        assert_eq!(machine.findings, []);
    }

    #[test]
    fn an_absent_or_too_deep_folder_is_not_flattened() {
        assert_eq!(flatten(&Tree::new().root(), BASE), None);
        let deep = format!("{BASE}/{}reg", "a/".repeat(MAX_DEPTH));
        let tree = Tree::new().file(&deep, "").file(&format!("{BASE}/model"), "m\0");
        assert_eq!(flatten(&tree.root(), BASE), None);
    }
}
