//! Converts the folder in which Linux shows its devicetree into a flattened devicetree.
//!
//! Linux lets only root read `/sys/firmware/fdt`, but all users may read the folder.

use super::root::Root;
use std::fs;

/// Format version of the output, and the oldest version that it is compatible with.
const VERSION: [u32; 2] = [17, 16];
const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;
/// Length of the header.
const HEADER: usize = 40;
/// Length of the memory reservation block, which contains only its terminator.
const RESERVATIONS: usize = 16;
/// Maximum length of the structure and the names together.
const MAX_BYTES: usize = 16 << 20;
const MAX_DEPTH: usize = gic_firmware::devicetree::MAX_DEPTH;

/// Flattens the devicetree in a folder. Returns `None` if the folder has no properties, or if the
/// tree is too large or too deep.
pub(super) fn flatten(root: &Root, folder: &str) -> Option<Vec<u8>> {
    let mut flat = Flat::default();
    flat.node(root, folder, "", 0)?;
    flat.word(END);
    (!flat.names.is_empty()).then(|| flat.with_header())
}

#[derive(Default)]
struct Flat {
    structure: Vec<u8>,
    /// Property names, each terminated by a zero byte.
    names: Vec<u8>,
}

impl Flat {
    fn node(&mut self, root: &Root, folder: &str, name: &str, depth: usize) -> Option<()> {
        (self.has_room(name.len()) && depth < MAX_DEPTH).then_some(())?;
        self.word(BEGIN_NODE);
        self.text(name);
        let mut children = Vec::new();
        for entry in root.names(folder) {
            let path = format!("{folder}/{entry}");
            // Linux adds a property `name` to each node.
            match fs::symlink_metadata(root.path(&path)) {
                Ok(found) if found.is_dir() => children.push((entry, path)),
                Ok(found) if found.is_file() && entry != "name" => {
                    // Linux hides only properties that contain secrets, which do not describe
                    // interrupts. Treat such a property as empty.
                    let value = root.bytes(&path, MAX_BYTES as u64);
                    self.property(&entry, &value.unwrap_or_default())?;
                }
                _ => {}
            }
        }
        for (child, path) in children {
            self.node(root, &path, &child, depth + 1)?;
        }
        self.word(END_NODE);
        Some(())
    }

    fn property(&mut self, name: &str, value: &[u8]) -> Option<()> {
        self.has_room(name.len() + value.len()).then_some(())?;
        self.word(PROPERTY);
        self.word(u32::try_from(value.len()).ok()?);
        self.word(u32::try_from(self.names.len()).ok()?);
        self.names.extend(name.bytes().chain([0]));
        self.structure.extend(value);
        self.align();
        Some(())
    }

    /// Returns `true` if this many more bytes fit within the limit.
    fn has_room(&self, bytes: usize) -> bool {
        self.structure.len() + self.names.len() + bytes < MAX_BYTES
    }

    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.structure.extend(text.bytes().chain([0]));
        self.align();
    }

    fn align(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn with_header(self) -> Vec<u8> {
        let structure = HEADER + RESERVATIONS;
        let names = structure + self.structure.len();
        let total = names + self.names.len();
        // The structure and the names together are only slightly larger than `MAX_BYTES`.
        let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let header = [
            MAGIC,
            number(total),
            number(structure),
            number(names),
            number(HEADER),
            VERSION[0],
            VERSION[1],
            0,
            number(self.names.len()),
            number(self.structure.len()),
        ];
        let mut blob: Vec<u8> = header.into_iter().flat_map(u32::to_be_bytes).collect();
        blob.resize(structure, 0);
        blob.extend(self.structure);
        blob.extend(self.names);
        blob
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;
    use gic_firmware::devicetree;

    const BASE: &str = "sys/firmware/devicetree/base";

    #[test]
    fn a_folder_is_flattened_to_an_equivalent_devicetree() {
        let tree = Tree::new("flatten")
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
        assert_eq!(flatten(&Tree::new("no-tree").root(), BASE), None);
        let deep = format!("{BASE}/{}reg", "a/".repeat(MAX_DEPTH));
        let tree = Tree::new("deep").file(&deep, "").file(&format!("{BASE}/model"), "m\0");
        assert_eq!(flatten(&tree.root(), BASE), None);
    }
}
