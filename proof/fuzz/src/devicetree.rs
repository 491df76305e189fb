//! Assembles well-formed devicetrees from arbitrary bytes.

use gic_firmware::devicetree::MAX_DEPTH;

/// First word of a devicetree.
pub const MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();

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
    let mut structure = WordWriter::default();
    structure.begin("");
    let mut depth = 1;
    // A node's properties must precede its children.
    let mut has_children = false;
    let mut rest = program.iter().copied();
    while let Some(code) = rest.next() {
        match code {
            0..=31 if depth < MAX_DEPTH => {
                structure.begin(NODES[usize::from(code) % NODES.len()]);
                depth += 1;
                has_children = false;
            }
            32..=47 if depth > 1 => {
                structure.word(2);
                depth -= 1;
                has_children = true;
            }
            _ if has_children => {}
            _ => {
                let name = usize::from(code) % PROPERTIES.len();
                structure.property(name, &value(&mut rest));
            }
        }
    }
    (0..depth).for_each(|_| structure.word(2));
    structure.word(9);
    blob(&structure.0)
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

/// Returns a blob with header, memory reservations, structure and strings, in this order.
fn blob(structure: &[u8]) -> Vec<u8> {
    let names: Vec<u8> = PROPERTIES.iter().flat_map(|name| name.bytes().chain([0])).collect();
    let size = |bytes: usize| u32::try_from(bytes).expect("inputs are small");
    let (header, reservations) = (40, 16);
    let structure_at = header + reservations;
    let names_at = structure_at + structure.len();
    let mut blob = WordWriter(MAGIC.to_vec());
    for field in [
        names_at + names.len(),
        structure_at,
        names_at,
        header,
        17,
        16,
        0,
        names.len(),
        structure.len(),
    ] {
        blob.word(size(field));
    }
    [&blob.0, &[0; 16][..], structure, &names].concat()
}

/// Writes big-endian words.
#[derive(Default)]
struct WordWriter(Vec<u8>);

impl WordWriter {
    fn word(&mut self, word: u32) {
        self.0.extend(word.to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn begin(&mut self, name: &str) {
        self.word(1);
        self.bytes(&[name.as_bytes(), &[0]].concat());
    }

    fn property(&mut self, name: usize, value: &[u8]) {
        let offset: usize = PROPERTIES[..name].iter().map(|name| name.len() + 1).sum();
        self.word(3);
        self.word(u32::try_from(value.len()).expect("values are small"));
        self.word(u32::try_from(offset).expect("the list of names is short"));
        self.bytes(value);
    }
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
