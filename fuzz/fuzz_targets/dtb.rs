//! A devicetree from an untrusted source: the parser must answer any bytes, and what it answers must hold together.
//!
//! Inputs that begin with a devicetree's magic number go to the parser as they are. All others are read as a
//! program that assembles a well-formed devicetree of the nodes and properties that the parser looks at, so that
//! the search gets past the format to the meaning; a few bytes of the result may then be overwritten.
#![no_main]

use gic_firmware::{Description, PciHost, Route, Via, devicetree};
use libfuzzer_sys::fuzz_target;
use msi_types::{DeviceId, RequesterId};

const MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();

fuzz_target!(|input: &[u8]| {
    if input.starts_with(&MAGIC) {
        return answer(devicetree::parse(input));
    }
    let Some((&first, rest)) = input.split_first() else { return };
    let (overwrites, program) = rest.split_at(rest.len().min(3 * usize::from(first % 8)));
    let mut blob = assemble(program);
    for overwrite in overwrites.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([overwrite[0], overwrite[1]])) % blob.len();
        blob[at] = overwrite[2];
    }
    let parsed = devicetree::parse(&blob);
    if overwrites.is_empty() {
        assert!(parsed.is_ok(), "a well-formed devicetree was refused: {parsed:?}");
    }
    answer(parsed);
});

/// What the parser answered must hold together.
fn answer(parsed: Result<Description, devicetree::DtbError>) {
    match parsed {
        Ok(description) => check(&description),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Asks a description everything that a machine builder asks.
fn check(description: &Description) {
    for controller in &description.controllers {
        _ = controller.doorbell(DeviceId::new(u32::MAX));
        _ = description.doorbells(controller);
    }
    for host in &description.hosts {
        for requester in [0, 1, 0x100, 0xffff, 0x1_0000, u32::MAX].map(RequesterId::new) {
            if let Ok(route) = description.route(host, requester) {
                check_route(description, host, requester, route);
            }
        }
    }
    for device in &description.devices {
        _ = description.device_spans(device);
        description
            .platform_routes(device)
            .into_iter()
            .flatten()
            .for_each(|route| check_target(description, route));
    }
    for finding in &description.findings {
        assert!(!finding.message.is_empty());
    }
}

/// A route leads to an enabled controller, and lies in the span of the statement that makes it.
fn check_route(description: &Description, host: &PciHost, requester: RequesterId, route: Route) {
    check_target(description, route);
    let spans = description.host_spans(host);
    let span = spans.iter().find(|span| span.via == route.via).expect("a route has its span");
    assert_eq!(span.controller, route.controller);
    if let Via::Map(_) = route.via {
        let mask = host.msi.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let offset = (requester.get() & mask) - span.rid_base.get();
        assert!(offset < span.length, "a route outside its span");
        assert_eq!(route.device_id.get(), span.device_id_base.get() + offset);
    } else {
        assert_eq!(route.device_id.get(), requester.get());
    }
}

fn check_target(description: &Description, route: Route) {
    let controller = description.controller(route.controller).expect("a route leads to a controller");
    assert!(controller.status.is_enabled(), "a route leads to a disabled controller");
}

/// Names of nodes that the parser may know, or not.
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
];

/// Names of properties that the parser may know, or not.
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
    "linux,phandle",
];

/// Values that mean something.
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
];

/// Assembles a devicetree: each byte of `program` opens a node, closes one, or adds a property whose value the
/// bytes after it give.
fn assemble(program: &[u8]) -> Vec<u8> {
    let mut structure = Words::default();
    structure.begin("");
    let mut depth = 1;
    // A node's properties stand before its children.
    let mut has_children = false;
    let mut rest = program.iter().copied();
    while let Some(code) = rest.next() {
        match code {
            0..=31 if depth < devicetree::MAX_DEPTH => {
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

/// A text that means something, or up to twelve cells, each small or of four given bytes.
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
    // Lengths that are no multiple of a cell.
    bytes.truncate(bytes.len() - bytes.len().min(usize::from(form / 13 == 9)));
    bytes
}

/// Header, memory reservations, structure and names, in this order.
fn blob(structure: &[u8]) -> Vec<u8> {
    let names: Vec<u8> = PROPERTIES.iter().flat_map(|name| name.bytes().chain([0])).collect();
    let size = |bytes: usize| u32::try_from(bytes).expect("inputs are small");
    let (header, reservations) = (40, 16);
    let structure_at = header + reservations;
    let names_at = structure_at + structure.len();
    let mut blob = Words(MAGIC.to_vec());
    for field in
        [names_at + names.len(), structure_at, names_at, header, 17, 16, 0, names.len(), structure.len()]
    {
        blob.word(size(field));
    }
    [&blob.0, &[0; 16][..], structure, &names].concat()
}

/// Big-endian words.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
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
        self.word(u32::try_from(offset).expect("names are few"));
        self.bytes(value);
    }
}
