//! Makes the phandles of an overlay those of the base.

use super::edit::{EditTree, OverlayError, OverlayErrorKind};
use alloc::string::String;
use alloc::vec::Vec;

const PHANDLES: [&str; 2] = ["phandle", "linux,phandle"];
const LOCAL_FIXUP: OverlayErrorKind = OverlayErrorKind::Malformed("local fixup");

/// Adds the base's greatest phandle to all phandles of the overlay, and to its references to its
/// own nodes, which are listed in `__local_fixups__`.
pub(super) fn make_distinct(base: &EditTree, overlay: &mut EditTree) -> Result<(), OverlayError> {
    let stated = base.nodes().filter_map(|node| base.phandle(node));
    let by = stated.filter(|&phandle| phandle != u32::MAX).max().unwrap_or(0);
    for node in overlay.nodes() {
        for name in PHANDLES {
            let Some(value) = overlay.property_mut(node, name) else { continue };
            let word = value.try_into().map_err(|_| OverlayErrorKind::Malformed("phandle"));
            let added = word.and_then(|word| add(word, by));
            added.map_err(|kind| kind.at(&overlay.path(node)))?;
        }
    }
    let Some(fixups) = overlay.find("/__local_fixups__") else { return Ok(()) };
    let mut open = alloc::vec![(fixups, EditTree::ROOT)];
    while let Some((fixup, node)) = open.pop() {
        let fixed = fix_node(overlay, fixup, node, by);
        fixed.map_err(|kind| kind.at(&overlay.path(fixup)))?;
        for child in overlay.children(fixup) {
            let same = overlay.child(node, overlay.name(child));
            let same = same.ok_or_else(|| LOCAL_FIXUP.at(&overlay.path(child)))?;
            open.push((child, same));
        }
    }
    Ok(())
}

/// Adds to the references in the properties of a node, as listed in its local fixup.
fn fix_node(
    overlay: &mut EditTree,
    fixup: usize,
    node: usize,
    by: u32,
) -> Result<(), OverlayErrorKind> {
    for (name, offsets) in copied(overlay, fixup) {
        let (offsets, rest) = offsets.as_chunks();
        if !rest.is_empty() {
            return Err(LOCAL_FIXUP);
        }
        for offset in offsets {
            let word = word_at(overlay, node, &name, u32::from_be_bytes(*offset));
            add(word.ok_or(LOCAL_FIXUP)?, by)?;
        }
    }
    Ok(())
}

/// Returns a copy of a node's properties.
fn copied(tree: &EditTree, node: usize) -> Vec<(String, Vec<u8>)> {
    tree.properties(node).map(|(name, value)| (name.into(), value.into())).collect()
}

/// Writes the base's phandles where the overlay refers to labels of the base, as listed in
/// `__fixups__`.
pub(super) fn resolve_labels(base: &EditTree, overlay: &mut EditTree) -> Result<(), OverlayError> {
    let Some(fixups) = overlay.find("/__fixups__") else { return Ok(()) };
    let symbols = base.find("/__symbols__");
    for (label, places) in copied(overlay, fixups) {
        let node = symbols.and_then(|symbols| base.find(base.text(symbols, &label)?));
        let phandle = node.and_then(|node| base.phandle(node)).filter(|&phandle| phandle != 0);
        let Some(phandle) = phandle else {
            return Err(OverlayErrorKind::NoLabel(label).at("/__fixups__"));
        };
        let malformed = || OverlayErrorKind::Malformed("fixup").at("/__fixups__");
        let places = places.strip_suffix(&[0]).ok_or_else(malformed)?;
        for place in places.split(|&byte| byte == 0) {
            let place = core::str::from_utf8(place).map_err(|_| malformed())?;
            *reference(overlay, place).ok_or_else(malformed)? = phandle.to_be_bytes();
        }
    }
    Ok(())
}

/// Returns the word that a fixup such as `/fragment@0:target:0` names.
fn reference<'t>(overlay: &'t mut EditTree, place: &str) -> Option<&'t mut [u8; 4]> {
    let (path, place) = place.split_once(':')?;
    let (name, offset) = place.split_once(':')?;
    let node = overlay.find(path)?;
    word_at(overlay, node, name, offset.parse().ok()?)
}

fn word_at<'t>(
    tree: &'t mut EditTree,
    node: usize,
    name: &str,
    offset: u32,
) -> Option<&'t mut [u8; 4]> {
    tree.property_mut(node, name)?.get_mut(usize::try_from(offset).ok()?..)?.first_chunk_mut()
}

fn add(word: &mut [u8; 4], by: u32) -> Result<(), OverlayErrorKind> {
    let sum = u32::from_be_bytes(*word).checked_add(by).filter(|&sum| sum != u32::MAX);
    *word = sum.ok_or(OverlayErrorKind::NoPhandles)?.to_be_bytes();
    Ok(())
}
