//! Devicetrees that are valid but expensive, and as long as a file may be.

/// Number of bytes for nodes and properties, so that a file has nearly 16 MiB.
const BYTES: usize = (16 << 20) - 4096;
const BEGIN: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;
/// Node name `a`.
const A: u32 = 0x6100_0000;
/// Number of nodes inside each other. `gic-firmware` reads 64, as Linux does.
const DEPTH: usize = 60;

/// A tree's name, and the function that returns its content.
type Large = (&'static str, fn() -> Vec<u8>);

/// The trees.
pub(crate) const ALL: [Large; 4] = [
    ("nodes.dtb", nodes),
    ("siblings.dtb", siblings),
    ("properties.dtb", properties),
    ("map.dtb", map),
];

/// A million nodes with different names.
fn nodes() -> Vec<u8> {
    let name = |number: u32| {
        [number >> 15, number >> 10, number >> 5, number].map(|part| b'A' + (part & 31) as u8)
    };
    let node = |number| [BEGIN, u32::from_be_bytes(name(number)), 0, END_NODE];
    let count = u32::try_from(BYTES / 16).unwrap_or_default();
    blob(&(0..count).flat_map(node).collect::<Vec<_>>(), b"")
}

/// Nodes without children, deep in the tree.
fn siblings() -> Vec<u8> {
    let mut structure = [BEGIN, A].repeat(DEPTH);
    structure.extend([BEGIN, A, END_NODE].repeat(BYTES / 12 - DEPTH));
    structure.extend([END_NODE].repeat(DEPTH));
    blob(&structure, b"")
}

/// A node with many properties.
fn properties() -> Vec<u8> {
    blob(&[PROP, 0, 0].repeat(BYTES / 12), &[&[b'a'; 30][..], &[0]].concat())
}

/// A host with a map of a million overlapping entries, whose target is the host itself.
fn map() -> Vec<u8> {
    let count = u32::try_from(BYTES / 16).unwrap_or_default();
    let mut structure = vec![BEGIN, A, PROP, 4, 0, u32::from_be_bytes(*b"pci\0")];
    structure.extend([PROP, 4, 20, 1, PROP, 4, 28, 1, PROP, count * 16, 12]);
    structure.extend((0..count).flat_map(|number| [number / 16, 1, number, 0x1_0000]));
    structure.push(END_NODE);
    blob(&structure, b"device_type\0msi-map\0phandle\0#msi-cells\0")
}

/// Returns a blob whose root has these nodes and properties, with these names of properties
/// (Devicetree Specification 0.4, section 5).
fn blob(inner: &[u32], strings: &[u8]) -> Vec<u8> {
    let structure = [&[BEGIN, 0][..], inner, &[END_NODE, END]].concat();
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let (structures, names) = (length(structure.len() * 4), length(strings.len()));
    let header = [
        0xd00d_feed,
        56 + structures + names,
        56,
        56 + structures,
        40,
        17,
        16,
        0,
        names,
        structures,
    ];
    let words = header.into_iter().chain([0; 4]).chain(structure);
    words.flat_map(u32::to_be_bytes).chain(strings.iter().copied()).collect()
}
