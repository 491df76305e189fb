//! Assembles well-formed devicetrees from arbitrary bytes.

use gic_firmware::devicetree::MAX_DEPTH;

/// First word of a devicetree.
pub const MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();

/// Tokens of the structure (Devicetree Specification 0.4, section 5.4).
const BEGIN: usize = 1;
const END_NODE: usize = 2;
const PROPERTY: usize = 3;
const END: usize = 9;

/// Names of nodes, only some of which the parser recognizes.
const NODES: &[&str] = &[
    "cpus",
    "cpu@0",
    "cpu@1",
    "intc@1000",
    "its@2000",
    "its@3000",
    "soc",
    "pcie@4000",
    "dev@5000",
    "memory@0",
    "fragment@0",
    "__overlay__",
    "__symbols__",
    "__fixups__",
    "aliases",
];

/// Names of properties, only some of which the parser recognizes.
const PROPERTIES: &[&str] = &[
    "compatible",
    "reg",
    "phandle",
    "#address-cells",
    "#size-cells",
    "ranges",
    "status",
    "msi-controller",
    "#msi-cells",
    "msi-parent",
    "msi-map",
    "msi-map-mask",
    "#redistributor-regions",
    "redistributor-stride",
    "mbi-ranges",
    "mbi-alias",
    "dma-noncoherent",
    "device_type",
    "bus-range",
    "model",
    "interrupt-controller",
    "#interrupt-cells",
    "arm,msi-base-spi",
    "arm,msi-num-spis",
    "iommu-map",
    "iommus",
    "#iommu-cells",
    "interrupt-parent",
    "interrupts",
    "interrupts-extended",
    "interrupt-map",
    "linux,phandle",
    "target",
    "target-path",
];

/// Meaningful string values.
const TEXTS: &[&str] = &[
    "arm,gic-v3",
    "arm,gic-v3-its",
    "arm,gic-400",
    "arm,gic-v2m-frame",
    "arm,gic-v4",
    "pci-host-ecam-generic",
    "pci",
    "cpu",
    "memory",
    "okay",
    "disabled",
    "simple-bus",
    "/",
    "/soc",
    "reg",
    "/fragment@0:target:0",
    "/fragment@0/__overlay__/dev@5000",
];

/// Assembles a devicetree. Each byte of `program` opens a node, closes one, or adds a property
/// whose value is derived from the bytes that follow.
pub fn assemble(program: &[u8]) -> Vec<u8> {
    let mut structure = Vec::new();
    add(&mut structure, &[BEGIN], &[0]);
    let mut depth = 1;
    // A node's properties must precede its children.
    let mut has_children = false;
    let mut rest = program.iter().copied();
    while let Some(code) = rest.next() {
        match code {
            0..=31 if depth < MAX_DEPTH => {
                let name = NODES[usize::from(code) % NODES.len()];
                add(&mut structure, &[BEGIN], &[name.as_bytes(), &[0]].concat());
                depth += 1;
                has_children = false;
            }
            32..=47 if depth > 1 => {
                add(&mut structure, &[END_NODE], &[]);
                depth -= 1;
                has_children = true;
            }
            _ if has_children => {}
            _ => {
                let before = &PROPERTIES[..usize::from(code) % PROPERTIES.len()];
                let offset = before.iter().map(|name| name.len() + 1).sum();
                let value = value(&mut rest);
                add(&mut structure, &[PROPERTY, value.len(), offset], &value);
            }
        }
    }
    add(&mut structure, &vec![END_NODE; depth], &[]);
    add(&mut structure, &[END], &[]);
    let names: Vec<u8> = PROPERTIES.iter().flat_map(|name| name.bytes().chain([0])).collect();
    let (reservations, structures) = (40, 56);
    let strings = structures + structure.len();
    let end = strings + names.len();
    let (version, compatible, boot_cpu, lengths) = (17, 16, 0, [names.len(), structure.len()]);
    let mut blob = MAGIC.to_vec();
    let header = [end, structures, strings, reservations, version, compatible, boot_cpu];
    add(&mut blob, &[&header[..], &lengths, &[0; 4]].concat(), &structure);
    [blob, names].concat()
}

/// Adds big-endian words, and bytes up to the next word.
fn add(to: &mut Vec<u8>, words: &[usize], bytes: &[u8]) {
    let words = words.iter().map(|word| u32::try_from(*word).expect("inputs are small"));
    to.extend(words.flat_map(u32::to_be_bytes));
    to.extend(bytes);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// Returns a meaningful string, or up to twelve cells that are either small or taken from four
/// input bytes.
fn value(rest: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let form = rest.next().unwrap_or_default();
    if form >= 128 {
        let text = TEXTS[usize::from(form) % TEXTS.len()];
        return [text.as_bytes(), &[0]].concat();
    }
    let mut bytes = Vec::new();
    for _ in 0..form % 13 {
        let cell = match rest.next().unwrap_or_default() {
            small @ 0..=239 => u32::from(small),
            _ => u32::from_be_bytes([0; 4].map(|_: u8| rest.next().unwrap_or_default())),
        };
        bytes.extend(cell.to_be_bytes());
    }
    // For some forms, drop a byte, so that the length isn't a multiple of a cell.
    bytes.truncate(bytes.len() - bytes.len().min(usize::from(form / 13 == 9)));
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node `intc@1000` with `compatible = "arm,gic-v3"` must be recognized as a GIC, which shows
    /// that the fuzzer's inputs reach the parser's semantic checks.
    #[test]
    fn an_assembled_gic_node_reaches_the_semantic_checks() {
        let open =
            NODES.iter().position(|name| *name == "intc@1000").expect("the table has the node");
        let property = |name: &str| {
            (48..=255)
                .find(|code| PROPERTIES[code % PROPERTIES.len()] == name)
                .expect("the table has the property")
        };
        let text = (128..=255)
            .find(|form| TEXTS[form % TEXTS.len()] == "arm,gic-v3")
            .expect("the table has the text");
        let program =
            [open, property("compatible"), text].map(|code| u8::try_from(code).expect("a byte"));
        let description =
            gic_firmware::devicetree::parse(&assemble(&program)).expect("well-formed");
        assert!(
            format!("{:?}", description.findings).contains("intc@1000"),
            "{:?}",
            description.findings
        );
    }
}
