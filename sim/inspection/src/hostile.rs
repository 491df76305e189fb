//! Inputs that are designed to be expensive. The work for an output must be linear in the size of
//! the input, and the size of the output must be bounded.

use crate::graph::Graph;
use crate::inspect::Inspection;
use crate::source::Source;
use crate::work;
use gic_firmware::lint::KnownRegisters;
use gic_firmware::{
    Affinity, Controller, ControllerIndex, ControllerKind, CpuNode, Description, Fact, Gic, IntId,
    IntIdSpan, Iommu, IommuIndex, IommuRouting, MapEntry, MsiRouting, PciHost, PlatformDevice,
    Region, Status, StreamEntry, Target,
};

/// An input's name, and the function that creates it with the given number of repeated parts.
pub(crate) type Input = (&'static str, fn(u32) -> Description);

/// Every input.
pub(crate) const INPUTS: [Input; 10] = [
    ("overlapping", overlapping),
    ("disjoint", disjoint),
    ("masked", masked),
    ("parents", parents),
    ("hosts", hosts),
    ("itses", itses),
    ("ranges", ranges),
    ("devices", devices),
    ("cpus", cpus),
    ("iommus", iommus),
];

fn region(number: u32) -> Region {
    Region::new(u64::from(number) << 20, 0x2_0000).unwrap()
}

fn machine() -> Description {
    Description {
        gic: Some(Gic::v3("/gic@800000000", region(0x8000), [region(0x8001)])),
        cpus: vec![CpuNode::new("/cpus/cpu@0", Affinity::new(0, 0, 0, 0))],
        controllers: vec![Controller::its("/its@900000000", region(0x9000))],
        iommus: vec![iommu(0)],
        ..Description::default()
    }
}

fn iommu(number: u32) -> Iommu {
    Iommu {
        id: format!("/iommu@{:x}00000", number + 0xa0000).as_str().into(),
        compatible: vec!["arm,smmu-v3".to_owned()],
        status: Fact::stated(Status::Enabled),
        registers: None,
    }
}

fn entry(base: u32, length: u32) -> MapEntry {
    MapEntry {
        rid_base: base.into(),
        length,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: base.into(),
    }
}

fn stream(base: u32, length: u32, iommu: usize) -> Fact<StreamEntry> {
    let iommu = Some(IommuIndex::new(iommu));
    Fact::stated(StreamEntry { rid_base: base.into(), length, iommu, stream_id_base: Some(base) })
}

fn host(number: u32, msi: MsiRouting, map: Vec<Fact<StreamEntry>>) -> PciHost {
    let ecam = Region::new((u64::from(number) << 28) + (1 << 44), 1 << 28).unwrap();
    let iommu = IommuRouting { mask: None, map };
    PciHost { iommu, ..PciHost::ecam(format!("/pcie@{:x}", ecam.base()), ecam, msi) }
}

/// Hosts whose MSI maps and IOMMU maps have overlapping entries.
fn overlapping(count: u32) -> Description {
    let hosts = (0..4).map(|number| {
        let entries = (0..count / 4).map(|at| entry(at % 0xffff, 0x1_0000 - at % 0xffff));
        let streams = (0..count / 4).map(|at| stream((at * 7) % 0xff00, 0x100, 0));
        host(number, MsiRouting::map(entries), streams.collect())
    });
    Description { hosts: hosts.collect(), ..machine() }
}

/// A host with an entry per function.
fn disjoint(count: u32) -> Description {
    let entries = (0..count).map(|at| entry(at, 1));
    let streams = (0..count).map(|at| stream(at, 1, 0)).collect();
    Description { hosts: vec![host(0, MsiRouting::map(entries), streams)], ..machine() }
}

/// A host whose maps have masks, so that every IOMMU map entry may apply to every MSI map entry.
fn masked(count: u32) -> Description {
    let mut machine = disjoint(count);
    for host in &mut machine.hosts {
        host.msi.mask = Some(Fact::stated(0xfffe));
        host.iommu.mask = Some(Fact::stated(0xfffe));
    }
    machine
}

/// A host that refers to its controller many times.
fn parents(count: u32) -> Description {
    let mut machine = disjoint(count);
    let parent = MsiRouting::parent(ControllerIndex::new(0)).parents;
    let parents = (0..count).flat_map(|_| parent.clone()).collect();
    machine.hosts[0].msi = MsiRouting { parents, ..MsiRouting::default() };
    machine
}

fn hosts(count: u32) -> Description {
    let msi = || MsiRouting::parent(ControllerIndex::new(0));
    let hosts = (0..count).map(|number| host(number, msi(), vec![stream(0, 0x1_0000, 0)]));
    Description { hosts: hosts.collect(), ..machine() }
}

fn itses(count: u32) -> Description {
    let id = |number: u32| format!("/its@{:x}00000", number + 0x10_0000);
    let its = (0..count).map(|number| Controller::its(id(number), region(number + 0x10_0000)));
    let entries = (0..count).map(|at| MapEntry {
        target: Target::Controller(ControllerIndex::new(at as usize)),
        ..entry(at % 0x1_0000, 1)
    });
    let hosts = vec![host(0, MsiRouting::map(entries), Vec::new())];
    Description { controllers: its.collect(), hosts, ..machine() }
}

fn ranges(count: u32) -> Description {
    let range = |_| Fact::stated(IntIdSpan::new(IntId::new(32), 1).unwrap());
    let mut mbi = Controller::new("/gic@800000000", ControllerKind::Mbi, None);
    mbi.ranges = (0..count).map(range).collect();
    let msi = || MsiRouting::parent(ControllerIndex::new(0));
    let hosts = (0..8).map(|number| host(number, msi(), Vec::new())).collect();
    Description { controllers: vec![mbi], hosts, ..machine() }
}

fn devices(count: u32) -> Description {
    let device = |number: u32| {
        let id = format!("/device@{:x}", number + 0x1000_0000);
        let msi = MsiRouting::device(ControllerIndex::new(0), 7.into());
        PlatformDevice::new(id, "vendor,device", msi)
    };
    Description { devices: (0..count).map(device).collect(), ..machine() }
}

fn cpus(count: u32) -> Description {
    let cpu = |number: u32| {
        let affinity = Affinity::from_mpidr(u64::from(number));
        CpuNode::new(format!("/cpus/cpu@{number:x}"), affinity)
    };
    Description { cpus: (0..count).map(cpu).collect(), ..machine() }
}

/// A host whose map has a mask, and whose functions each pass through a different IOMMU.
fn iommus(count: u32) -> Description {
    let streams = (0..count).map(|at| stream(at % 0x1_0000, 1, at as usize)).collect();
    let entries = (0..count).map(|at| entry(at % 0x1_0000, 1));
    let mut host = host(0, MsiRouting::map(entries), streams);
    host.iommu.mask = Some(Fact::stated(0xfffe));
    let iommus = (0..count).map(iommu).collect();
    Description { iommus, hosts: vec![host], ..machine() }
}

fn source(description: Description) -> Source {
    Source::embedded("hostile", description)
}

/// Returns the number of steps that all outputs take.
fn steps(description: Description) -> u64 {
    let source = source(description);
    work::steps_of(|| {
        let inspection = Inspection::of(&source, &KnownRegisters::default());
        let _ = Graph::of(&source, &inspection);
    })
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn work_is_linear_in_the_input() {
    for (name, input) in INPUTS {
        let (once, twice) = (steps(input(8_000)), steps(input(16_000)));
        assert!(once < 40 * 8_000, "{name}: {once} steps");
        assert!(twice < once * 2 + once / 4 + 1000, "{name}: {once}, then {twice} steps");
    }
}

#[test]
fn outputs_are_bounded() {
    for (name, input) in INPUTS {
        let source = source(input(8_000));
        let inspection = Inspection::of(&source, &KnownRegisters::default());
        let rows = serde_json::to_string_pretty(&inspection).unwrap().len();
        assert!(rows < 8 << 20, "{name}: {rows} bytes");
        let graph = Graph::of(&source, &inspection);
        assert!(graph.nodes.len() < 1000 && graph.edges.len() < 50_000, "{name}");
    }
}

#[test]
fn omitted_rows_are_counted() {
    let omitted = |input: fn(u32) -> Description| {
        let inspection = Inspection::of(&source(input(5_000)), &KnownRegisters::default());
        inspection.omitted.sentences()
    };
    assert_eq!(omitted(hosts)[0], "904 more devices are not listed");
    assert_eq!(omitted(cpus), ["904 more CPUs are not listed"]);
    assert_eq!(omitted(ranges), ["904 more ranges of interrupts are not listed"]);
    assert!(omitted(disjoint)[0].contains("more routes"));
}
