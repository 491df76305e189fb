//! Checks the worked example in the draft of an IORT node for direct LPIs.

use std::fs;

use gic_arch::Affinity;
use gic_firmware::acpi::{Extensions, TableSet, WrittenTables, parse, write_with};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, CpuNode, Description, Gic, MsiRouting, PciHost,
    PlatformDevice, Region,
};
use msi_types::RequesterId;

const DRAFT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/specs/iort-redistributor-group.md");
const SECTION: &str = "## Worked example\n";

/// Returns the offset and the bytes in each row of the worked example's table.
fn rows() -> Vec<(usize, Vec<u8>)> {
    let text = fs::read_to_string(DRAFT).expect("the draft can be read");
    let (_, section) = text.split_once(SECTION).expect("the draft has a worked example");
    let section = section.split("\n## ").next().unwrap_or_default();
    let row = |line: &str| {
        let (offset, rest) = line.strip_prefix("| 0x")?.split_once(" | `")?;
        let bytes = rest.split('`').next()?.split(' ');
        let bytes = bytes.map(|byte| u8::from_str_radix(byte, 16).expect("bytes are hexadecimal"));
        Some((usize::from_str_radix(offset, 16).expect("a hexadecimal offset"), bytes.collect()))
    };
    section.lines().filter_map(row).collect()
}

/// Returns the tables of the machine that the worked example describes.
fn tables() -> WrittenTables {
    let at = |base, size| Region::new(base, size).expect("it does not wrap");
    let route = || MsiRouting::parent(ControllerIndex::new(0));
    let redistributors = at(0x80a_0000, 0x4_0000);
    let cpu = |uid: u8| {
        CpuNode::new(format!("MADT/GICC@{uid}").as_str(), Affinity::from_packed(uid.into()))
    };
    let machine = Description {
        gic: Some(Gic::v3("MADT/GICD@0", at(0x800_0000, 0x1_0000), [redistributors])),
        cpus: vec![cpu(0), cpu(1)],
        controllers: vec![Controller::new(
            "IORT/redistributor-group",
            ControllerKind::DirectLpi,
            None,
        )],
        hosts: vec![PciHost::ecam("MCFG/0000:00-0f", at(0x4000_0000, 16 << 20), route())],
        devices: vec![PlatformDevice::new("\\_SB.DMA0", "VNDR0001", route())],
        ..Description::default()
    };
    write_with(&machine, Extensions::DRAFT_REDISTRIBUTOR_GROUP).expect("the node expresses it")
}

#[test]
fn the_worked_example_matches_the_bytes_the_writer_emits() {
    let written = tables().iort.unwrap();
    let documented = rows();
    let mut offset = 0;
    for (stated, bytes) in &documented {
        let end = (offset + bytes.len()).min(written.len());
        assert_eq!((*stated, bytes.as_slice()), (offset, &written[offset..end]), "{written:02x?}");
        offset = end;
    }
    assert_eq!(offset, written.len(), "{:02x?}", &written[offset..]);
}

#[test]
fn the_worked_example_routes_its_host_and_its_device_to_direct_lpis() {
    let others = tables();
    let iort: Vec<u8> = rows().into_iter().flat_map(|(_, bytes)| bytes).collect();
    let blobs = [others.madt.as_slice(), others.mcfg.as_deref().unwrap(), &iort];
    let read = parse(&TableSet::from_blobs(blobs).unwrap());
    assert_eq!(read.findings, []);
    let kinds: Vec<_> = read.controllers.iter().map(|one| &one.kind).collect();
    assert_eq!(kinds, [&ControllerKind::DirectLpi]);
    assert_eq!(read.doorbells(&read.controllers[0]), [0x80a_0040, 0x80c_0040]);
    let route = read.route(&read.hosts[0], RequesterId::new(0xfff)).unwrap();
    assert_eq!(route.controller, ControllerIndex::new(0));
    let [Ok(route)] = read.platform_routes(&read.devices[0])[..] else {
        panic!("the device has one route")
    };
    assert_eq!(route.controller, ControllerIndex::new(0));
}
