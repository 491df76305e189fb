//! The source text that findings point at: devicetree nodes, or structures of ACPI tables.

use crate::location::Location;
use crate::source::{Raw, Source};
use gic_firmware::Origin;
use gic_firmware::acpi::{self, TableSet};
use gic_firmware::devicetree::{self, Excerpt};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A source's excerpts, indexed by the location stated in the finding.
#[derive(Debug, Default)]
pub struct Excerpts {
    texts: BTreeMap<String, Excerpt>,
    /// Lines of a source text, which take precedence.
    lines: BTreeMap<Origin, Location>,
    /// `true` if the texts are short enough to be shown in full.
    are_short: bool,
}

impl Excerpts {
    /// Collects the excerpts for `origins`.
    pub fn of<'o>(source: &Source, origins: impl IntoIterator<Item = &'o Origin>) -> Self {
        let origins: Vec<&Origin> = origins.into_iter().collect();
        let lines = origins.iter().filter_map(|&one| Some((one.clone(), source.locate(one)?)));
        let lines = lines.collect();
        let places: BTreeSet<&str> = origins.iter().filter_map(|origin| origin.place()).collect();
        if places.is_empty() {
            return Self::default();
        }
        let texts = match &source.raw {
            Raw::Devicetree(blob) => {
                let nodes = devicetree::excerpts(blob, &places).unwrap_or_default();
                nodes.into_iter().map(|(node, text)| (node.to_string(), text)).collect()
            }
            Raw::Tables(tables) => TableSet::from_blobs(tables.iter().map(Vec::as_slice))
                .map(|tables| acpi::excerpts(&tables, &places))
                .unwrap_or_default(),
            Raw::Embedded => BTreeMap::new(),
        };
        Self { texts, lines, are_short: matches!(source.raw, Raw::Tables(_)) }
    }

    /// Returns `true` if the texts are structures of ACPI tables, which have few fields.
    pub fn are_short(&self) -> bool {
        self.are_short
    }

    /// Returns the text at `origin`, and the range in it that a finding at `origin` is about.
    pub fn text(&self, origin: &Origin) -> Option<(&str, Range<usize>)> {
        if let Some(lines) = self.lines.get(origin) {
            return Some((&lines.text, lines.span.clone()));
        }
        let excerpt = self.texts.get(origin.place()?)?;
        Some((&excerpt.text, excerpt.place(origin.item())))
    }
}
