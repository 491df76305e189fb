//! An overlay from an untrusted source, and a devicetree that it is applied to. Neither may make
//! the code panic, and the result must be a devicetree.
//!
//! The input is two programs that assemble well-formed trees. The overlay's first fragment also
//! has a target and the contents that the second program describes.
#![no_main]

use doorbell_fuzz::description::check;
use doorbell_fuzz::devicetree::assemble;
use gic_firmware::devicetree::{OverlaidTree, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|programs: [&[u8]; 2]| {
    let [base, overlay] = programs.map(assemble);
    let mut tree = OverlaidTree::new(&base).expect("a well-formed devicetree was rejected");
    // Applying it twice also adds nodes to nodes that it has added.
    for _ in 0..2 {
        if let Err(error) = tree.apply(&overlay) {
            assert!(!error.to_string().is_empty());
            return;
        }
        check(&parse(&tree.to_blob()).expect("the result is no devicetree"));
    }
});
