//! The firmware of the running machine.

use super::flatten::flatten;
use super::root::Root;
use crate::source;
use doorbell_inspection::MAX_BYTES;
use gic_firmware::{Description, devicetree};

/// Folder that contains the ACPI tables.
const TABLES: &str = "sys/firmware/acpi/tables";
/// Flattened devicetree that the boot loader passed to Linux. Only root may read it.
const FLAT: &str = "sys/firmware/fdt";
/// The devicetree as a folder, which all users may read.
const UNFLATTENED: &str = "sys/firmware/devicetree/base";

/// The firmware's description of the machine.
#[derive(Debug)]
pub(super) struct Firmware {
    /// Path on its machine that the description was read from.
    pub(super) source: Option<String>,
    /// The description; empty if no firmware could be read.
    pub(super) description: Description,
}

/// Reads the firmware that Linux uses: the ACPI tables if sysfs has a MADT, otherwise the
/// devicetree.
pub(super) fn read(root: &Root) -> Firmware {
    let found = if root.exists(&format!("{TABLES}/APIC")) {
        tables(root).map(|description| (TABLES, description))
    } else {
        tree(root)
    };
    match found {
        Some((source, description)) => Firmware { source: Some(format!("/{source}")), description },
        None => Firmware { source: None, description: Description::default() },
    }
}

fn tables(root: &Root) -> Option<Description> {
    // Read one table first, so that a lack of permission is recorded as such.
    root.bytes(&format!("{TABLES}/APIC"), MAX_BYTES)?;
    match source::acpi(&root.path(TABLES)) {
        Ok(source) => Some(source.description),
        Err(error) => {
            root.record(TABLES, &std::io::Error::other(format!("{error:#}")));
            None
        }
    }
}

fn tree(root: &Root) -> Option<(&'static str, Description)> {
    let flat = root.bytes(FLAT, MAX_BYTES).map(|blob| (FLAT, blob));
    let (source, blob) = flat.or_else(|| Some((UNFLATTENED, flatten(root, UNFLATTENED)?)))?;
    match devicetree::parse_and_check(&blob) {
        Ok(description) => Some((source, description)),
        Err(error) => {
            root.record(source, &std::io::Error::other(error.to_string()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Tree;
    use super::*;

    #[test]
    fn the_devicetree_folder_is_read_if_the_blob_is_unreadable() {
        let tree = Tree::new()
            .file("sys/firmware/fdt/is-a-folder", "")
            .file(&format!("{UNFLATTENED}/model"), "board\0");
        let root = tree.root();
        let firmware = read(&root);
        assert_eq!(firmware.source, Some(format!("/{UNFLATTENED}")));
        assert_eq!(firmware.description.model.unwrap().value, "board");
        assert_eq!(root.problems()[0].path, format!("/{FLAT}"));
    }

    #[test]
    fn broken_firmware_is_a_problem() {
        for file in [FLAT, "sys/firmware/acpi/tables/APIC"] {
            let tree = Tree::new().file(file, "nonsense");
            let root = tree.root();
            assert_eq!(read(&root).source, None, "{file}");
            assert_eq!(root.problems().len(), 1, "{file}");
        }
    }
}
