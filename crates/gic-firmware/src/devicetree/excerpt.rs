//! A node as source text, for messages that point at its properties.

use super::address::cells;
use super::blob;
use super::error::DtbError;
use super::tree::{NodeRef, Tree};
use crate::origin::NodeId;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;
use dtoolkit::Property as _;

/// Values of more cells or bytes are cut off.
const MAX_SHOWN: usize = 24;
/// Maps are spelled one entry at a time, each of so many cells.
const MAPS: &[(&str, usize)] = &[("msi-map", 4), ("iommu-map", 4), ("mbi-ranges", 2)];

/// A node as devicetree source, without its children.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Excerpt {
    /// The source, of several lines.
    pub text: String,
    name: Range<usize>,
    properties: Vec<(String, Range<usize>)>,
}

impl Excerpt {
    /// Bytes of [`text`](Self::text) that hold this property; the node's name without it.
    pub fn place(&self, property: &str) -> Range<usize> {
        let stated = self.properties.iter().find(|(name, _)| name == property);
        stated.map_or_else(|| self.name.clone(), |(_, place)| place.clone())
    }
}

/// Spells the nodes of these paths, as far as they are there.
///
/// # Errors
///
/// There is no tree to read.
pub fn excerpts(
    input: &[u8],
    paths: &BTreeSet<&str>,
) -> Result<BTreeMap<NodeId, Excerpt>, DtbError> {
    let tree = Tree::unfold(blob::open(input)?);
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
        text.push_str(property.name());
        let value: &[u8] = property.value_as().unwrap_or_default();
        if !value.is_empty() {
            text.push_str(" = ");
            text.push_str(&spelled(property.name(), value));
        }
        text.push(';');
        properties.push((property.name().to_string(), start..text.len()));
        text.push('\n');
    }
    text.push('}');
    Excerpt { text, name: 0..name.len(), properties }
}

/// A value as strings, as cells, or as bytes, whichever fits.
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

/// The strings that `value` holds, if it holds nothing else.
fn strings(value: &[u8]) -> Option<Vec<String>> {
    let text = core::str::from_utf8(value.strip_suffix(&[0])?).ok()?;
    let is_shown = |part: &str| {
        !part.is_empty() && part.chars().all(|one| one == ' ' || one.is_ascii_graphic())
    };
    text.split('\0').map(|part| is_shown(part).then(|| format!("{part:?}"))).collect()
}
