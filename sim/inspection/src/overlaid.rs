//! Devicetrees with overlays, and which overlay brought what.

use crate::location::{Locate, Location};
use anyhow::{Context, Result};
use gic_firmware::devicetree::OverlaidTree;
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Description, Finding, Origin};
use std::path::Path;

/// The overlays of a devicetree.
#[derive(Debug)]
pub struct Overlays {
    list: Vec<Overlay>,
    tree: OverlaidTree,
}

#[derive(Debug)]
struct Overlay {
    name: String,
    /// Positions in the overlay's text, if it was compiled.
    positions: Option<Box<dyn Locate>>,
    /// The description before this overlay was applied.
    before: Description,
}

/// Returns `true` if the file is named like an overlay, compiled or not.
pub fn is_overlay(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "dtbo" || end == "dtso")
}

impl Overlays {
    /// Creates the list for a base.
    pub(crate) fn new(base: &[u8]) -> Result<Self> {
        Ok(Self { list: Vec::new(), tree: OverlaidTree::new(base)? })
    }

    /// Applies an overlay to the tree that `before` describes, and returns the new tree.
    pub(crate) fn apply(
        &mut self,
        name: &str,
        overlay: &[u8],
        positions: Option<Box<dyn Locate>>,
        before: Description,
    ) -> Result<Vec<u8>> {
        let applied = self.tree.apply(overlay);
        applied.with_context(|| format!("{name} cannot be applied to the devicetree"))?;
        self.list.push(Overlay { name: name.to_owned(), positions, before });
        Ok(self.tree.to_blob())
    }

    /// Returns the text that sets a property or adds a node: that of an overlay, or else of the
    /// base.
    pub(crate) fn locate(&self, origin: &Origin, base: Option<&dyn Locate>) -> Option<Location> {
        match self.tree.set_by(origin) {
            Some((overlay, node)) => {
                self.list.get(overlay)?.positions.as_ref()?.locate(&node, origin.item())
            }
            None => base?.locate(origin.place()?, origin.item()),
        }
    }

    /// Returns for each finding the overlay without which it would not exist: the last one before
    /// which the description does not have it. Returns `None` if the base has the finding.
    pub(crate) fn brought(
        &self,
        findings: &[Finding],
        known: &KnownRegisters,
    ) -> Vec<Option<&str>> {
        let mut brought = vec![None; findings.len()];
        for overlay in &self.list {
            let before = lint::check(&overlay.before, known);
            for (finding, brought) in findings.iter().zip(&mut brought) {
                if !before.contains(finding) {
                    *brought = Some(overlay.name.as_str());
                }
            }
        }
        brought
    }
}
