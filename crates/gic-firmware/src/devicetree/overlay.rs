//! Applies overlays as the devicetree compiler's `fdtoverlay` does.

mod edit;
mod phandles;

use super::blob;
use super::blob::DtbError;
use crate::finding::Origin;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use edit::{EditTree, SetBy};
pub use edit::{OverlayError, OverlayErrorKind};

/// A devicetree with overlays.
///
/// # Example
///
/// ```
/// use gic_firmware::devicetree::{OverlaidTree, parse};
///
/// let base = include_bytes!("../../tests/data/single-its.dtb");
/// let mut tree = OverlaidTree::new(base)?;
/// // A tree without fragments changes nothing.
/// tree.apply(base)?;
/// assert_eq!(parse(&tree.to_blob())?, parse(base)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct OverlaidTree {
    tree: EditTree,
    overlays: Vec<EditTree>,
}

impl OverlaidTree {
    /// Reads a flattened devicetree.
    ///
    /// # Errors
    ///
    /// Returns an error if `base` is not a valid devicetree.
    pub fn new(base: &[u8]) -> Result<Self, DtbError> {
        Ok(Self { tree: EditTree::new(blob::nodes(base)?), overlays: Vec::new() })
    }

    /// Applies an overlay. After an error, the tree may have a part of it.
    ///
    /// # Errors
    ///
    /// Returns an error if `overlay` is not a valid devicetree, or does not fit the tree: the error
    /// names the fixup or the fragment. Either the overlay or the choice of the tree is at fault.
    pub fn apply(&mut self, overlay: &[u8]) -> Result<(), OverlayError> {
        let mut overlay = EditTree::new(blob::nodes(overlay).map_err(OverlayError::blob)?);
        self.tree.renew_steps();
        let merged = self.merge(&mut overlay);
        if !self.tree.has_steps() || !overlay.has_steps() {
            return Err(OverlayErrorKind::TooLarge.at("/"));
        }
        self.overlays.push(overlay);
        merged
    }

    fn merge(&mut self, overlay: &mut EditTree) -> Result<(), OverlayError> {
        phandles::make_distinct(&self.tree, overlay)?;
        phandles::resolve_labels(&self.tree, overlay)?;
        let number = self.overlays.len();
        let mut merge = Merge { base: &mut self.tree, overlay, number };
        merge.fragments()?;
        merge.symbols()
    }

    /// Returns the tree as a flattened devicetree, without memory reservations.
    pub fn to_blob(&self) -> Vec<u8> {
        self.tree.to_blob()
    }

    /// Returns the index of the overlay that set a property, and the path of the node in that
    /// overlay. For a node, or a property that is absent, this is the overlay that added the node.
    /// Returns `None` if the base has it.
    pub fn set_by(&self, origin: &Origin) -> Option<(usize, String)> {
        self.tree.renew_steps();
        let node = self.tree.find(origin.place()?)?;
        let SetBy { overlay, node } = self.tree.set_by(node, origin.item())?;
        Some((overlay, self.overlays.get(overlay)?.path(node)))
    }
}

/// A merge of an overlay whose phandles are those of the base.
struct Merge<'t> {
    base: &'t mut EditTree,
    overlay: &'t EditTree,
    number: usize,
}

impl Merge<'_> {
    /// Merges the contents of each fragment into its target.
    fn fragments(&mut self) -> Result<(), OverlayError> {
        for fragment in self.overlay.children(EditTree::ROOT) {
            let Some(content) = self.overlay.child(fragment, "__overlay__") else { continue };
            let target = self.target(fragment)?;
            self.merge(content, target)?;
        }
        Ok(())
    }

    fn target(&self, fragment: usize) -> Result<usize, OverlayError> {
        let at = |kind: OverlayErrorKind| kind.at(&self.overlay.path(fragment));
        let phandle = match self.overlay.property(fragment, "target") {
            Some(target) => u32::from_be_bytes(
                target.try_into().map_err(|_| at(OverlayErrorKind::Malformed("target")))?,
            ),
            None => 0,
        };
        // As in libfdt, a phandle of 0 counts as absent.
        let found = match phandle {
            0 => self.overlay.text(fragment, "target-path").and_then(|path| self.base.find(path)),
            u32::MAX => None,
            phandle => self.base.by_phandle(phandle),
        };
        found.ok_or_else(|| at(OverlayErrorKind::NoTarget))
    }

    fn merge(&mut self, from: usize, to: usize) -> Result<(), OverlayError> {
        let mut open = alloc::vec![(from, to)];
        while let Some((from, to)) = open.pop() {
            let at = |kind: OverlayErrorKind| kind.at(&self.overlay.path(from));
            let set_by = |node| Some(SetBy { overlay: self.number, node });
            for (name, value) in self.overlay.properties(from) {
                self.base.set(to, name, value.to_vec(), set_by(from)).map_err(at)?;
            }
            let mut children = Vec::new();
            for child in self.overlay.children(from) {
                let name = self.overlay.name(child);
                let target = match self.base.child(to, name) {
                    Some(target) => target,
                    None => self.base.add(to, name, set_by(child)).map_err(at)?,
                };
                children.push((child, target));
            }
            open.extend(children.into_iter().rev());
        }
        Ok(())
    }

    /// Adds the overlay's labels, so that later overlays can refer to its nodes.
    fn symbols(&mut self) -> Result<(), OverlayError> {
        let Some(symbols) = self.overlay.find("/__symbols__") else { return Ok(()) };
        let at = |kind: OverlayErrorKind| kind.at("/__symbols__");
        let in_base = match self.base.child(EditTree::ROOT, "__symbols__") {
            Some(symbols) => symbols,
            None => self.base.add(EditTree::ROOT, "__symbols__", None).map_err(at)?,
        };
        for (label, value) in self.overlay.properties(symbols) {
            if !self.overlay.has_steps() || !self.base.has_steps() {
                return Err(at(OverlayErrorKind::TooLarge));
            }
            let path = value.strip_suffix(&[0]).and_then(|path| core::str::from_utf8(path).ok());
            let path = path.filter(|path| path.starts_with('/') && !path.contains('\0'));
            let path = path.ok_or_else(|| at(OverlayErrorKind::Malformed("label")))?;
            let Some((fragment, below)) = split_symbol(path) else { continue };
            let fragment = self.overlay.child(EditTree::ROOT, fragment);
            let fragment = fragment.ok_or_else(|| at(OverlayErrorKind::NoTarget))?;
            let target = self.target(fragment)?;
            // As in libfdt, a path that the fragment states is not normalized.
            let stated = self.overlay.property(fragment, "target").is_none();
            let stated = stated.then(|| self.overlay.text(fragment, "target-path")).flatten();
            let target = stated.map_or_else(|| self.base.path(target), String::from);
            let target = if target == "/" { "" } else { target.as_str() };
            let path = format!("{target}/{below}\0").into_bytes();
            self.base.set(in_base, label, path, None).map_err(at)?;
        }
        Ok(())
    }
}

/// Splits the path of a symbol into the fragment's name and the path below `__overlay__`. Returns
/// `None` for a path outside of fragments.
fn split_symbol(path: &str) -> Option<(&str, &str)> {
    let (fragment, rest) = path.strip_prefix('/')?.split_once('/')?;
    let rest = rest.strip_prefix("__overlay__")?;
    match rest.strip_prefix('/') {
        Some(below) => Some((fragment, below)),
        None => rest.is_empty().then_some((fragment, "")),
    }
}
