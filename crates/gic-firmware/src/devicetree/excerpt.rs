//! Renders nodes as devicetree source, so that a message can show the property that it refers to.

use super::blob::DtbError;
use super::tree::{NodeRef, Tree, cells};
use crate::excerpt::Excerpt;
use crate::finding::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Maximum number of cells or bytes shown per value.
const MAX_SHOWN: usize = 24;
/// Properties that are printed entry by entry, with the number of cells per entry.
const MAPS: &[(&str, usize)] = &[("msi-map", 4), ("iommu-map", 4), ("mbi-ranges", 2)];

/// Returns the source text of the nodes at `paths`; paths without a node are skipped.
///
/// # Errors
///
/// Returns an error if `input` is not a valid devicetree.
pub fn excerpts(
    input: &[u8],
    paths: &BTreeSet<&str>,
) -> Result<BTreeMap<NodeId, Excerpt>, DtbError> {
    let tree = Tree::read(input)?;
    let wanted = tree.nodes().filter(|node| paths.contains(&*node.path()));
    Ok(wanted.map(|node| (node.id(), excerpt_of(node))).collect())
}

fn excerpt_of(node: NodeRef<'_, '_>) -> Excerpt {
    let name = if node.name().is_empty() { "/" } else { node.name() };
    let mut text = format!("{name} {{\n");
    let mut properties = Vec::new();
    for property in node.properties() {
        text.push_str("    ");
        let start = text.len();
        text.push_str(property.name);
        if !property.value.is_empty() {
            text.push_str(" = ");
            text.push_str(&spelled(property.name, property.value));
        }
        text.push(';');
        properties.push((property.name.to_string(), start..text.len()));
        text.push('\n');
    }
    text.push('}');
    Excerpt { text, name: 0..name.len(), properties, offsets: Vec::new() }
}

/// Formats a value as strings if possible, otherwise as cells if possible, otherwise as bytes.
fn spelled(name: &str, value: &[u8]) -> String {
    if let Some(strings) = strings(value) {
        return strings.join(", ");
    }
    let more = |all: usize| if all > MAX_SHOWN { " …" } else { "" };
    let Some(cells) = cells(value) else {
        let bytes: Vec<_> =
            value.iter().take(MAX_SHOWN).map(|byte| format!("{byte:02x}")).collect();
        return format!("[{}{}]", bytes.join(" "), more(value.len()));
    };
    let entry = MAPS.iter().find(|(map, _)| *map == name).map_or(MAX_SHOWN, |(_, cells)| *cells);
    let shown: Vec<_> = cells.iter().take(MAX_SHOWN).map(|cell| format!("{cell:#x}")).collect();
    let entries: Vec<_> =
        shown.chunks(entry).map(|entry| format!("<{}>", entry.join(" "))).collect();
    format!("{}{}", entries.join(", "), more(cells.len()))
}

/// Returns the strings in `value`, if it consists of printable strings only.
fn strings(value: &[u8]) -> Option<Vec<String>> {
    let text = core::str::from_utf8(value.strip_suffix(&[0])?).ok()?;
    let is_shown = |part: &str| {
        !part.is_empty() && part.chars().all(|one| one == ' ' || one.is_ascii_graphic())
    };
    text.split('\0').map(|part| is_shown(part).then(|| format!("{part:?}"))).collect()
}
