//! Applies overlays to devicetrees, and compares the result with that of `fdtoverlay`.

use gic_firmware::Origin;
use gic_firmware::devicetree::{OverlaidTree, OverlayErrorKind, parse};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rustix::time::{ClockId, clock_gettime};

const BASE: &[u8] = include_bytes!("../overlay/base.dtb");
const FIRST: &[u8] = include_bytes!("../overlay/first.dtbo");
const SECOND: &[u8] = include_bytes!("../overlay/second.dtbo");

#[test]
fn overlays_change_the_tree_as_fdtoverlay_does() {
    let mut tree = OverlaidTree::new(BASE).unwrap();
    tree.apply(FIRST).unwrap();
    tree.apply(SECOND).unwrap();
    let expected = OverlaidTree::new(include_bytes!("../overlay/merged.dtb")).unwrap();
    assert_eq!(tree.to_blob(), expected.to_blob());
}

#[test]
fn an_overlaid_tree_names_the_overlay_that_set_a_property() {
    let mut tree = OverlaidTree::new(BASE).unwrap();
    tree.apply(FIRST).unwrap();
    tree.apply(SECOND).unwrap();
    let set_by = |node: &str, property| tree.set_by(&Origin::new(node.into(), property));
    let first = |node: &str| Some((0, node.to_owned()));
    assert_eq!(set_by("/soc/serial@9000000", "reg"), None);
    assert_eq!(set_by("/soc/serial@9000000", ""), None);
    assert_eq!(set_by("/soc/serial@9000000", "interrupts"), first("/fragment@0/__overlay__"));
    let added = first("/fragment@1/__overlay__/serial@a000000");
    assert_eq!(set_by("/soc/serial@a000000", "reg"), added);
    assert_eq!(set_by("/soc/serial@a000000", "compatible"), added, "absent: that of the node");
    let second = Some((1, String::from("/fragment@0/__overlay__")));
    assert_eq!(set_by("/soc/serial@a000000", "second"), second);
}

#[test]
fn a_mismatched_overlay_is_refused_with_its_path() {
    let mut tree = OverlaidTree::new(BASE).unwrap();
    let error = tree.apply(SECOND).unwrap_err();
    assert_eq!(error.kind, OverlayErrorKind::NoLabel("new".into()));
    assert_eq!(error.place, "/__fixups__");
    let other = include_bytes!("../data/single-its.dtb");
    let error = OverlaidTree::new(other).unwrap().apply(FIRST).unwrap_err();
    assert!(matches!(error.kind, OverlayErrorKind::NoLabel(_)), "{error}");
    let error = tree.apply(&FIRST[..100]).unwrap_err();
    assert!(matches!(error.kind, OverlayErrorKind::Blob(_)), "{error}");
}

/// Returns a blob whose root has this structure, without its begin and end, and these names of
/// properties.
fn blob(structure: &[u32], names: &[u8]) -> Vec<u8> {
    let structure: Vec<u32> = [&[1, 0], structure, &[2, 9]].concat();
    let size = |length: usize| u32::try_from(length).expect("a test's blob is small");
    let strings = 56 + size(structure.len() * 4);
    let header = [
        0xd00d_feed,
        strings + size(names.len()),
        56,
        strings,
        40,
        17,
        16,
        0,
        size(names.len()),
        size(structure.len() * 4),
    ];
    let words = header.iter().chain(&[0; 4]).chain(&structure);
    words.flat_map(|word| word.to_be_bytes()).chain(names.iter().copied()).collect()
}

/// An overlay that searches many nodes for many others is refused after some time.
#[test]
fn an_overlay_that_is_too_expensive_to_apply_is_refused() {
    const COUNT: u32 = 200_000;
    let word = |text: &str, at: usize| {
        u32::from_be_bytes(*text.as_bytes()[at..].first_chunk().expect("names are long enough"))
    };
    let children = |from: u32| {
        (from..from + COUNT).flat_map(move |child| {
            let name = format!("{child:07x}\0");
            [1, word(&name, 0), word(&name, 4), 2]
        })
    };
    let base = blob(&children(0).collect::<Vec<_>>(), b"");
    let content = [1, word("__ov", 0), word("erla", 0), word("y__\0", 0)];
    let fragment = [1, word("f\0\0\0", 0), 3, 2, 0, word("/\0\0\0", 0)];
    let structure = fragment.into_iter().chain(content).chain(children(COUNT)).chain([2, 2]);
    let overlay = blob(&structure.collect::<Vec<_>>(), b"target-path\0");
    let mut tree = OverlaidTree::new(&base).unwrap();
    let before = clock_gettime(ClockId::ThreadCPUTime);
    assert_eq!(tree.apply(&overlay).unwrap_err().kind, OverlayErrorKind::TooLarge);
    assert!(clock_gettime(ClockId::ThreadCPUTime).tv_sec - before.tv_sec < 60);
}

/// A label of each of many properties makes the merge read a long target again.
#[test]
fn many_labels_on_a_long_target_path_are_refused() {
    const COUNT: u32 = 40_000;
    let word = |text: &str, at: usize| {
        u32::from_be_bytes(*text.as_bytes()[at..].first_chunk().expect("names are long enough"))
    };
    let slashes = [u32::from_be_bytes(*b"////")].repeat(COUNT as usize / 4);
    let target = [3, COUNT + 1, 0].into_iter().chain(slashes).chain([0]);
    let content = [1, word("__ov", 0), word("erla", 0), word("y__\0", 0), 2];
    let symbols = [1, word("__sy", 0), word("mbol", 0), word("s__\0", 0)];
    let path: Vec<u32> = b"/f/__overlay__\0\0"
        .chunks(4)
        .map(|four| word(str::from_utf8(four).unwrap(), 0))
        .collect();
    let labels = [&[3, 15, 12][..], &path].concat().repeat(COUNT as usize);
    let fragment = [1, word("f\0\0\0", 0)].into_iter().chain(target).chain(content).chain([2]);
    let structure = fragment.chain(symbols).chain(labels).chain([2]);
    let overlay = blob(&structure.collect::<Vec<_>>(), b"target-path\0l\0");
    let mut tree = OverlaidTree::new(BASE).unwrap();
    assert_eq!(tree.apply(&overlay).unwrap_err().kind, OverlayErrorKind::TooLarge);
}

proptest! {
    #[test]
    fn damaged_overlays_are_applied_or_refused(
        damages in vec((0_usize..3, any::<Index>(), any::<u8>()), 0..6),
        repeat in 0_usize..3,
    ) {
        let mut blobs = [BASE.to_vec(), FIRST.to_vec(), SECOND.to_vec()];
        for (which, at, byte) in damages {
            let at = at.index(blobs[which].len());
            blobs[which][at] = byte;
        }
        let [base, first, second] = blobs;
        if let Ok(mut tree) = OverlaidTree::new(&base) {
            for overlay in std::iter::once(&first).chain(std::iter::repeat_n(&second, repeat)) {
                if tree.apply(overlay).is_err() {
                    break;
                }
                prop_assert!(parse(&tree.to_blob()).is_ok(), "the tree is a devicetree");
            }
            let _ = tree.set_by(&Origin::new("/soc/serial@a000000".into(), "second"));
        }
    }
}
