//! The source text that findings point at: devicetree nodes, or bytes in ACPI tables.

use crate::source::{Raw, Source};
use gic_firmware::devicetree::{Excerpt, excerpts};
use gic_firmware::{NodeId, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

/// Number of table bytes that are shown, in total and per line.
const SHOWN_BYTES: usize = 48;
const LINE_BYTES: usize = 16;

/// A source's excerpts, indexed by the location stated in the finding.
#[derive(Debug, Default)]
pub(crate) struct Excerpts {
    nodes: BTreeMap<NodeId, Excerpt>,
    structures: BTreeMap<String, String>,
}

impl Excerpts {
    /// Collects the excerpts for `origins`.
    pub(crate) fn of<'o>(source: &Source, origins: impl IntoIterator<Item = &'o Origin>) -> Self {
        let places: BTreeSet<&str> = origins.into_iter().filter_map(Origin::place).collect();
        match &source.raw {
            Raw::Devicetree(blob) => {
                Self { nodes: excerpts(blob, &places).unwrap_or_default(), ..Self::default() }
            }
            Raw::Tables(tables) => {
                let structures = places
                    .iter()
                    .filter_map(|place| Some(((*place).to_owned(), structure(tables, place)?)));
                Self { structures: structures.collect(), ..Self::default() }
            }
            Raw::Embedded => Self::default(),
        }
    }

    /// Returns the text at `origin`, and the range in it that a finding at `origin` is about.
    pub(crate) fn text(&self, origin: &Origin) -> Option<(&str, Range<usize>)> {
        let place = origin.place()?;
        if let Some(node) = self.nodes.get(&NodeId::new(place)) {
            return Some((&node.text, node.place(origin.item())));
        }
        let structure = self.structures.get(place)?;
        Some((structure, 0..structure.find('\n').unwrap_or(structure.len())))
    }
}

/// Returns the bytes at a location such as `MADT+0x2c`.
fn structure(tables: &[Vec<u8>], place: &str) -> Option<String> {
    let (table, offset) = place.split_once("+0x")?;
    let signature = if table == "MADT" { "APIC" } else { table };
    let table = tables.iter().find(|bytes| bytes.starts_with(signature.as_bytes()))?;
    let rest = table.get(usize::from_str_radix(offset, 16).ok()?..)?;
    let mut text = String::new();
    for line in rest.get(..SHOWN_BYTES).unwrap_or(rest).chunks(LINE_BYTES) {
        for byte in line {
            let _ = write!(text, "{byte:02x} ");
        }
        text.pop();
        text.push('\n');
    }
    Some(text)
}
