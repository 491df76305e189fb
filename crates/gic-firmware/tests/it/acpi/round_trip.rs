//! Checks that written tables read back equal.

use gic_arch::{Affinity, IntId};
use gic_firmware::acpi::{Extensions, TableSet, WriteErrorKind, parse, write, write_with};
use gic_firmware::{
    BusRange, Coherence, ConfigAccess, Controller, ControllerIndex, ControllerKind, CpuNode,
    Description, Fact, Gic, GicVersion, IntIdSpan, Iommu, MapEntry, MsiRouting, Parent, PciHost,
    PlatformDevice, Region, Role, Status, Target,
};
use msi_types::{DeviceId, RequesterId};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn base() -> impl Strategy<Value = u64> {
    (1..1u64 << 40).prop_map(|page| page << 16)
}

fn region(base: u64, size: u64) -> Fact<Region> {
    Fact::stated(Region::new(base, size).expect("it does not wrap"))
}

fn coherences() -> impl Strategy<Value = Fact<Coherence>> {
    prop_oneof![Just(Coherence::ByRegister), Just(Coherence::NonCoherent)].prop_map(Fact::stated)
}

fn cpus() -> impl Strategy<Value = Vec<CpuNode>> {
    btree_set((any::<u32>(), 0..1000u32), 1..12).prop_map(|cpus| {
        let mut cpus: Vec<_> = cpus.into_iter().collect();
        cpus.dedup_by_key(|(affinity, _)| *affinity);
        let cpu = |(affinity, uid)| {
            let status = if uid % 5 == 0 { Status::Disabled } else { Status::Enabled };
            let id = format!("MADT/GICC@{uid}");
            let status = Fact::stated(status);
            CpuNode { status, ..CpuNode::new(id.as_str(), Affinity::from_packed(affinity)) }
        };
        cpus.into_iter().map(cpu).collect()
    })
}

fn gics() -> impl Strategy<Value = Gic> {
    let versions = prop_oneof![Just(GicVersion::V3), Just(GicVersion::V4)];
    let regions = vec((base(), 1..0x8000u64), 1..4);
    let parts = (base(), regions, versions, coherences(), option::of(base()), 0..9u32);
    parts.prop_map(|(distributor, regions, version, coherence, interface, id)| Gic {
        compatible: Vec::new(),
        version: Fact::stated(version),
        redistributors: regions
            .into_iter()
            .map(|(base, frames)| region(base, frames << 16))
            .collect(),
        coherence,
        cpu_interface: interface.map(|base| region(base, 0x2000)),
        ..Gic::v3(format!("MADT/GICD@{id}"), region(distributor, 0x1_0000).value, [])
    })
}

fn itses() -> impl Strategy<Value = Vec<Controller>> {
    vec((base(), coherences()), 1..6).prop_map(|itses| {
        let its = |(index, (base, coherence)): (usize, (u64, _))| Controller {
            coherence,
            ..Controller::its(format!("MADT/ITS@{}", 3 * index), region(base, 0x2_0000).value)
        };
        itses.into_iter().enumerate().map(its).collect()
    })
}

fn frames() -> impl Strategy<Value = Vec<Controller>> {
    vec((base(), option::of((32..1000u32, 1..20u32))), 1..4).prop_map(|frames| {
        let frame = |(index, (base, spis)): (usize, (u64, Option<(u32, u32)>))| {
            let span = spis.and_then(|(first, count)| IntIdSpan::new(IntId::new(first), count));
            let registers = Some(region(base, 0x1000).value);
            Controller {
                ranges: span.map(Fact::stated).into_iter().collect(),
                ..Controller::new(format!("MADT/MSI-frame@{index}"), ControllerKind::V2m, registers)
            }
        };
        frames.into_iter().enumerate().map(frame).collect()
    })
}

fn target(index: usize) -> Target {
    Target::Controller(ControllerIndex::new(index))
}

/// Generates disjoint ranges that are not adjacent, because adjacent ranges are ambiguous.
fn maps(controllers: usize) -> impl Strategy<Value = MsiRouting> {
    let entry = (1..99u32, 1..0x800u32, 0..controllers, 0..u32::MAX - 0x1000);
    let ranges = vec(entry, 1..6).prop_map(|parts| {
        let mut next = 0;
        let entry = |(gap, length, index, device): (u32, u32, usize, u32)| {
            let rid = next + gap;
            next = rid + length;
            MapEntry {
                rid_base: RequesterId::new(rid),
                length,
                target: target(index),
                device_id_base: DeviceId::new(device),
            }
        };
        MsiRouting::map(parts.into_iter().map(entry).collect::<Vec<_>>())
    });
    let single = (0..controllers, any::<u32>()).prop_map(|(index, device)| {
        let (rid_base, device_id_base) = (RequesterId::new(0), DeviceId::new(device));
        let entry = MapEntry { rid_base, length: 1, target: target(index), device_id_base };
        MsiRouting { mask: Some(Fact::stated(0)), ..MsiRouting::map([entry]) }
    });
    prop_oneof![3 => ranges, 1 => single]
}

fn hosts(msi: impl Strategy<Value = MsiRouting>) -> impl Strategy<Value = Vec<PciHost>> {
    vec((msi, base(), any::<[u8; 2]>()), 0..4).prop_map(|hosts| {
        let host = |(index, (msi, base, [one, other])): (u32, (_, u64, [u8; 2]))| {
            let (first, last) = (one.min(other), one.max(other));
            let window =
                region(base + (u64::from(first) << 20), (u64::from(last - first) + 1) << 20);
            PciHost {
                compatible: Vec::new(),
                buses: Fact::stated(BusRange { first, last }),
                segment: Some(Fact::stated(index)),
                config: Some(Fact::stated(ConfigAccess::Ecam(window.value))),
                ..PciHost::ecam(
                    format!("MCFG/{index:04x}:{first:02x}-{last:02x}"),
                    window.value,
                    msi,
                )
            }
        };
        (0..).zip(hosts).map(host).collect()
    })
}

fn devices(controllers: usize) -> impl Strategy<Value = Vec<PlatformDevice>> {
    let parents = vec((0..controllers, any::<u32>()), 1..3);
    let buses = maps(controllers).prop_filter("a bus has ranges", |msi| msi.mask.is_none());
    vec((parents, option::of(buses), 0..3u8), 0..5).prop_map(|devices| {
        let device = |(index, (parents, bus, kind)): (u64, (Vec<_>, Option<MsiRouting>, u8))| {
            let parents = parents.into_iter().map(|(index, device): (usize, u32)| {
                Fact::stated(Parent { target: target(index), specifier: vec![device] })
            });
            let direct = MsiRouting { parents: parents.collect(), ..MsiRouting::default() };
            let address = 0x10_0000 * (index + 1);
            let (id, compatible, size) = match kind {
                0 => (format!("\\_SB.PCI0.DEV{index}"), None, 0),
                1 => (format!("IORT/SMMUv3@{address:x}"), Some("arm,smmu-v3"), 0x2_0000),
                _ => (format!("IORT/PMCG@{address:x}"), Some("arm,smmu-v3-pmcg"), 0x1000),
            };
            let has_one = MsiRouting { parents: direct.parents[..1].to_vec(), ..direct.clone() };
            let (role, msi) = match bus {
                Some(bus) if kind == 0 => (Role::Bus, bus),
                _ if kind == 0 => (Role::Device, direct),
                _ => (Role::Device, has_one),
            };
            PlatformDevice {
                compatible: compatible.into_iter().map(String::from).collect(),
                registers: compatible.map(|_| region(address, size)).into_iter().collect(),
                role,
                ..PlatformDevice::new(id, "", msi)
            }
        };
        (0..).zip(devices).map(device).collect()
    })
}

fn named(
    gic: Gic,
    cpus: Vec<CpuNode>,
    controllers: Vec<Controller>,
    hosts: Vec<PciHost>,
) -> Description {
    Description {
        model: Some(Fact::stated("VENDOR MACHINE".into())),
        compatible: vec!["MACHINE".into(), "VENDOR".into()],
        oem_id: Some("VENDOR".into()),
        gic: Some(gic),
        cpus,
        controllers,
        hosts,
        ..Description::default()
    }
}

/// Returns the IOMMU that represents the same node as a device, if any.
fn smmu(device: &PlatformDevice) -> Option<Iommu> {
    let is_smmu = device.compatible.iter().any(|name| name == "arm,smmu-v3");
    is_smmu.then(|| Iommu {
        id: device.id.clone(),
        compatible: device.compatible.clone(),
        status: device.status.clone(),
        registers: device.registers.first().cloned(),
    })
}

pub(crate) fn with_its() -> impl Strategy<Value = Description> {
    itses().prop_flat_map(|itses| {
        let count = itses.len();
        (gics(), cpus(), Just(itses), hosts(maps(count)), devices(count)).prop_map(
            |(gic, cpus, itses, hosts, devices)| Description {
                iommus: devices.iter().filter_map(smmu).collect(),
                devices,
                ..named(gic, cpus, itses, hosts)
            },
        )
    })
}

pub(crate) fn with_frames() -> impl Strategy<Value = Description> {
    let first = || Just(MsiRouting::parent(ControllerIndex::new(0)));
    (gics(), cpus(), frames(), hosts(first()))
        .prop_map(|(gic, cpus, frames, hosts)| named(gic, cpus, frames, hosts))
}

pub(crate) fn read(description: &Description) -> Description {
    let written = write(description).expect("the description can be written");
    parse(
        &TableSet::from_blobs(written.all().map(|(_, table)| table))
            .expect("written tables are well-formed"),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn written_tables_read_back_equal(
        description in prop_oneof![3 => with_its(), 1 => with_frames()],
    ) {
        // A random machine breaks rules, e.g. because two of its CPUs have the same number.
        let read = Description { findings: Vec::new(), ..read(&description) };
        prop_assert_eq!(read, description);
    }
}

/// Checks that the draft node is written only on request.
#[test]
fn direct_lpis_are_written_as_draft_nodes_on_request() {
    let mut machine = foreign();
    let redistributors = "IORT/redistributor-group";
    machine.controllers = vec![Controller::new(redistributors, ControllerKind::DirectLpi, None)];
    let first = ControllerIndex::new(0);
    machine.hosts[0].msi = MsiRouting::parent(first);
    machine.devices[0].msi = MsiRouting::parent(first);
    assert_eq!(write(&machine).unwrap_err().kind, WriteErrorKind::Controller);
    let written = write_with(&machine, Extensions::DRAFT_REDISTRIBUTOR_GROUP).unwrap();
    let read = parse(&TableSet::from_blobs(written.all().map(|(_, table)| table)).unwrap());
    assert_eq!(read.findings, []);
    assert_eq!(read.controllers, machine.controllers);
    let route = read.route(&read.hosts[0], RequesterId::new(0xffff)).unwrap();
    assert_eq!(route.controller, first);
    assert_eq!(read.devices[0].msi, machine.devices[0].msi);
}

/// Returns a machine whose names are not those of table structures.
pub(crate) fn foreign() -> Description {
    let at = |base| region(base, 0x2_0000).value;
    let route = MsiRouting::parent(ControllerIndex::new(1));
    Description {
        gic: Some(Gic::v3("/intc", at(0x800_0000), [at(0x80a_0000)])),
        cpus: vec![CpuNode::new("/cpus/cpu@5", Affinity::from_packed(5))],
        controllers: vec![
            Controller::its("/its@0", at(0x1000_0000)),
            Controller::its("/its@1", at(0x2000_0000)),
        ],
        hosts: vec![PciHost::ecam("/pcie", region(0x4000_0000, 16 << 20).value, route)],
        devices: vec![PlatformDevice::new(
            "/dma",
            "vendor,dma",
            MsiRouting::device(ControllerIndex::new(1), DeviceId::new(9)),
        )],
        ..Description::default()
    }
}

#[test]
fn written_tables_replace_non_acpi_names_with_numbers_in_order() {
    let machine = read(&foreign());
    assert_eq!(machine.findings, []);
    assert_eq!(machine.cpus[0].id.as_str(), "MADT/GICC@0");
    assert_eq!(machine.controllers[1].id.as_str(), "MADT/ITS@1");
    assert_eq!(machine.hosts[0].id.as_str(), "MCFG/0000:00-0f");
    let route = machine.route(&machine.hosts[0], RequesterId::new(0x123)).unwrap();
    assert_eq!((route.controller.get(), route.device_id.get()), (1, 0x123));
    assert_eq!(machine.devices[0].id.as_str(), "\\_SB.D000");
    assert_eq!(machine.platform_routes(&machine.devices[0])[0].unwrap().device_id, 9.into());
}

#[test]
fn overlapping_map_entries_route_the_same_after_a_round_trip() {
    let mut machine = foreign();
    let entry = |rid, length, index, device| MapEntry {
        rid_base: RequesterId::new(rid),
        length,
        target: target(index),
        device_id_base: DeviceId::new(device),
    };
    machine.hosts[0].msi = MsiRouting::map([entry(0, 0x11, 0, 0), entry(0x10, 0x10, 1, 0x5000)]);
    let read = read(&machine);
    assert_eq!(read.findings, []);
    for rid in [0, 0xf, 0x10, 0x11, 0x1f] {
        let route = |machine: &Description| {
            let route = machine.route(&machine.hosts[0], RequesterId::new(rid)).unwrap();
            (route.controller, route.device_id)
        };
        assert_eq!(route(&read), route(&machine), "{rid:#x}");
    }
}

#[test]
fn disabled_controllers_and_devices_are_not_written() {
    let mut machine = foreign();
    machine.controllers[0].status = Fact::stated(Status::Disabled);
    machine.devices[0].status = Fact::stated(Status::Disabled);
    let machine = read(&machine);
    assert_eq!((machine.controllers.len(), machine.devices.len()), (1, 0));
    let route = machine.route(&machine.hosts[0], RequesterId::new(0x123)).unwrap();
    assert_eq!(
        machine.controller(route.controller).unwrap().registers.as_ref().unwrap().base(),
        0x2000_0000
    );
}

#[test]
fn acpi_writer_refuses_inexpressible_facts() {
    let refused = |change: fn(&mut Description)| {
        let mut machine = foreign();
        change(&mut machine);
        write(&machine).unwrap_err().kind
    };
    let mbi = |machine: &mut Description| machine.controllers[1].kind = ControllerKind::Mbi;
    assert_eq!(refused(mbi), WriteErrorKind::Controller);
    assert_eq!(refused(|machine| machine.gic = None), WriteErrorKind::NoGic);
    let window =
        |machine: &mut Description| machine.controllers[0].pre_its = Some(region(0, 0x1000));
    assert_eq!(refused(window), WriteErrorKind::Registers);
    let mask = |machine: &mut Description| {
        machine.hosts[0].msi =
            MsiRouting { mask: Some(Fact::stated(0xff00)), ..MsiRouting::map([]) };
    };
    assert_eq!(refused(mask), WriteErrorKind::Mask);
    let segment =
        |machine: &mut Description| machine.hosts[0].segment = Some(Fact::stated(0x1_0000));
    assert_eq!(refused(segment), WriteErrorKind::ConfigAccess);
    let sharing = |machine: &mut Description| {
        let mut other = machine.hosts[0].clone();
        other.msi = MsiRouting::parent(ControllerIndex::new(0));
        machine.hosts.push(other);
        machine.hosts.iter_mut().for_each(|host| host.segment = Some(Fact::stated(1)));
    };
    assert_eq!(refused(sharing), WriteErrorKind::Segment);
    let bare = |machine: &mut Description| {
        machine.devices[0].msi = MsiRouting::parent(ControllerIndex::new(0));
    };
    assert_eq!(refused(bare), WriteErrorKind::Route);
}
