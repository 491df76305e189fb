//! A devicetree from an untrusted source, and overlays that are applied to it. The code must not
//! panic for any bytes, a description that it returns must be consistent, and the result of an
//! overlay must be a devicetree.
//!
//! Inputs that start with a devicetree's magic number are parsed unchanged. All others are
//! interpreted as two programs that assemble well-formed devicetrees from nodes and properties that
//! the parser recognizes, so they pass the format checks and reach the semantic checks. The second
//! tree is an overlay, whose first fragment also has a target and the contents that its program
//! describes. Finally, a few bytes of the first tree may be overwritten.
#![no_main]

use doorbell_fuzz::description::check;
use doorbell_fuzz::devicetree::{MAGIC, assemble};
use gic_firmware::Description;
use gic_firmware::devicetree::{DtbError, OverlaidTree, parse_and_check};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if input.starts_with(&MAGIC) {
        return answer(parse_and_check(input));
    }
    let Some((&first, rest)) = input.split_first() else { return };
    let (overwrites, programs) = rest.split_at(rest.len().min(3 * usize::from(first % 8)));
    let (program, overlay) = programs.split_at(programs.len() * usize::from(first >> 3) / 31);
    let mut blob = assemble(program);
    for overwrite in overwrites.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([overwrite[0], overwrite[1]])) % blob.len();
        blob[at] = overwrite[2];
    }
    let parsed = parse_and_check(&blob);
    if overwrites.is_empty() {
        assert!(parsed.is_ok(), "a well-formed devicetree was rejected: {parsed:?}");
    }
    answer(parsed);
    if let Ok(tree) = OverlaidTree::new(&blob) {
        overlay_twice(tree, &assemble(overlay));
    }
});

/// Applies an overlay twice, which also adds nodes to nodes that it has added.
fn overlay_twice(mut tree: OverlaidTree, overlay: &[u8]) {
    for _ in 0..2 {
        if let Err(error) = tree.apply(overlay) {
            assert!(!error.to_string().is_empty());
            return;
        }
        check(&parse_and_check(&tree.to_blob()).expect("the result is no devicetree"));
    }
}

/// Checks that the description that the parser returned is consistent.
fn answer(parsed: Result<Description, DtbError>) {
    match parsed {
        Ok(description) => check(&description),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
