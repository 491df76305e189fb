//! Checks that written descriptions read back equal, and that routes agree with a model that
//! follows the text of the binding literally.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod generators;

use generators::descriptions;
use gic_arch::Affinity;
use gic_firmware::devicetree::{WriteErrorKind, parse, write};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, CpuNode, Description, Fact, Gic, MapEntry,
    MsiRouting, NoRoute, PciBridge, PciHost, PlatformDevice, Region, Status, Target, Via,
};
use msi_types::{DeviceId, RequesterId};
use proptest::collection::vec;
use proptest::prelude::*;

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

fn vec_of<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).into()
}

/// Models the text of the binding literally.
fn route_by_the_book(
    machine: &Description,
    host: &PciHost,
    rid: u32,
) -> Result<(usize, u32, Via), NoRoute> {
    let usable = |index: ControllerIndex| machine.controllers[index.get()].status.is_enabled();
    let mask = host.msi.mask.as_ref().map_or(0xffff_ffff, |mask| mask.value);
    for (place, entry) in host.msi.map.iter().flatten().enumerate() {
        let (base, length) = (u64::from(entry.rid_base.get()), u64::from(entry.length));
        let masked = u64::from(rid & mask);
        if base & u64::from(!mask) != 0 {
            break;
        }
        if base <= masked && masked < base + length {
            let Target::Controller(index) = entry.target else { return Err(NoRoute::Nowhere) };
            if !usable(index) {
                return Err(NoRoute::Disabled(index));
            }
            let device = masked - base + u64::from(entry.device_id_base.get());
            let requester = RequesterId::new(rid);
            let device = u32::try_from(device).map_err(|_| NoRoute::DeviceIdRange(requester))?;
            return Ok((index.get(), device, Via::Map(place)));
        }
    }
    let via = if host.msi.map.is_some() { Via::ParentAfterMap } else { Via::Parent };
    let mut first_problem = None;
    for (place, parent) in host.msi.parents.iter().enumerate() {
        match parent.target {
            Target::Controller(index) if usable(index) => {
                return Ok((index.get(), rid, via(place)));
            }
            Target::Controller(index) => {
                first_problem = first_problem.or(Some(NoRoute::Disabled(index)));
            }
            Target::Nowhere => first_problem = first_problem.or(Some(NoRoute::Nowhere)),
        }
    }
    let silent = if host.msi.map.is_some() {
        NoRoute::Unmapped(RequesterId::new(rid))
    } else {
        NoRoute::NotDescribed
    };
    Err(first_problem.unwrap_or(silent))
}

/// Returns the first span that contains the requester and whose controller is enabled, as the
/// documentation of `host_spans` requires.
fn route_by_spans(machine: &Description, host: &PciHost, rid: u32) -> Option<(usize, u32)> {
    let mask = host.msi.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
    machine.host_spans(host).find_map(|span| {
        let id = if matches!(span.via, Via::Map(_)) { rid & mask } else { rid };
        let offset = id.checked_sub(span.rid_base.get()).filter(|&offset| offset < span.length)?;
        let enabled = machine.controller(span.controller)?.status.is_enabled();
        enabled.then_some((span.controller.get(), span.device_id_base.get().checked_add(offset)?))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn written_devicetrees_read_back_equal(description in descriptions()) {
        let blob = write(&description).expect("the description can be written");
        let read = parse(&blob).expect("written blobs are well-formed");
        prop_assert_eq!(Description { findings: Vec::new(), ..read }, description);
    }

    #[test]
    fn routes_match_the_binding(
        description in descriptions(),
        rids in vec(0..=0xffffu32, 16),
    ) {
        for host in &description.hosts {
            for &rid in &rids {
                let route = description.route(host, RequesterId::new(rid));
                let plain =
                    route.map(|route| (route.controller.get(), route.device_id.get(), route.via));
                prop_assert_eq!(plain, route_by_the_book(&description, host, rid));
            }
        }
    }

    #[test]
    fn host_spans_agree_with_routes(description in descriptions(), rids in vec(0..=0xffffu32, 16)) {
        for host in &description.hosts {
            // An entry that ends the search, or that refers to a disabled controller, results in a
            // span but not in a route.
            let sound = host.msi.map.iter().flatten().all(|entry| {
                let mask = host.msi.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
                let Target::Controller(index) = entry.target else { return false };
                entry.rid_base.get() & !mask == 0
                    && description.controllers[index.get()].status.is_enabled()
                    && entry.device_id_base.get().checked_add(entry.length).is_some()
            });
            for &rid in rids.iter().filter(|_| sound) {
                let route = description.route(host, RequesterId::new(rid)).ok();
                let plain = route.map(|route| (route.controller.get(), route.device_id.get()));
                prop_assert_eq!(plain, route_by_spans(&description, host, rid));
            }
        }
    }
}

#[test]
fn large_machine_is_written_without_findings() {
    let machine = Description {
        gic: Some(Gic::v3(
            "/intc@8000000",
            region(0x800_0000, 0x1_0000),
            [region(0x1000_0000, 64 << 17)],
        )),
        cpus: (0..64u8)
            .map(|n| {
                CpuNode::new(
                    format!("/cpus/cpu@{n:x}").as_str(),
                    Affinity::new(0, 0, n >> 4, n & 15),
                )
            })
            .collect(),
        controllers: (0..8u64)
            .map(|n| {
                let base = 0x2000_0000 + n * 0x2_0000;
                Controller::its(
                    format!("/intc@8000000/its@{base:x}").as_str(),
                    region(base, 0x2_0000),
                )
            })
            .collect(),
        hosts: (0..8u64)
            .map(|n| {
                let base = 0x40_0000_0000 + (n << 28);
                let to = MapEntry {
                    rid_base: RequesterId::new(0),
                    length: 0x1_0000,
                    target: Target::Controller(ControllerIndex::new(usize::try_from(n).unwrap())),
                    device_id_base: DeviceId::new(0),
                };
                let id = format!("/pcie@{base:x}");
                PciHost::ecam(id.as_str(), region(base, 1 << 28), MsiRouting::map([to]))
            })
            .collect(),
        devices: vec![PlatformDevice::new(
            "/dma",
            "vendor,dma",
            MsiRouting::device(ControllerIndex::new(7), DeviceId::new(0x12345)),
        )],
        ..Description::default()
    };
    assert_eq!(parse(&write(&machine).unwrap()).unwrap(), machine);
}

#[test]
fn quirk_names_come_from_machine_and_gic() {
    let gic = Gic {
        compatible: vec_of(["qcom,msm8996-gic-v3", "arm,gic-v3"]),
        broken_save_restore: true,
        ..Gic::v3("/intc", region(0x800_0000, 0x1_0000), [region(0x80a_0000, 0x10_0000)])
    };
    let machine = Description {
        compatible: vec_of(["qcom,apq8096-db820c", "qcom,apq8096"]),
        gic: Some(gic),
        ..Description::default()
    };
    let read = parse(&write(&machine).unwrap()).unwrap();
    let names: Vec<_> = read.quirk_names().collect();
    let expected = [
        "qcom,apq8096-db820c",
        "qcom,apq8096",
        "qcom,msm8996-gic-v3",
        "arm,gic-v3",
        "mediatek,broken-save-restore-fw",
    ];
    assert_eq!(names, expected);
}

#[test]
fn direct_lpi_has_a_doorbell_per_cpu() {
    let gic = Gic {
        redistributor_stride: Some(Fact::stated(0x4_0000)),
        ..Gic::v3(
            "/intc",
            region(0x800_0000, 0x1_0000),
            [region(0x1000_0000, 0x8_0000), region(0, 0x8_0000)],
        )
    };
    let direct = Controller::new("/intc", ControllerKind::DirectLpi, None);
    let cpu = |n: u8| CpuNode::new(format!("/cpus/cpu@{n}").as_str(), Affinity::new(0, 0, 0, n));
    let machine = Description {
        gic: Some(gic),
        cpus: (0..3).map(cpu).collect(),
        controllers: vec![direct],
        ..Description::default()
    };
    let read = parse(&write(&machine).unwrap()).unwrap();
    assert_eq!(read, machine);
    assert_eq!(read.doorbells(&read.controllers[0]), [0x1000_0040, 0x1004_0040, 0x40]);
}

#[test]
fn the_nearest_bridge_with_an_msi_map_routes_a_device() {
    let entry = |device| MapEntry {
        rid_base: RequesterId::new(0),
        length: 0x1_0000,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: DeviceId::new(device),
    };
    let bridge = |id: &str, path: &[u8], device| PciBridge {
        id: id.into(),
        status: Fact::stated(Status::Enabled),
        path: path.to_vec(),
        msi: MsiRouting::map([entry(device)]),
    };
    let below = bridge("/pcie@0/pci@8/pci@10/nic@0", &[8, 0x10, 0], 0x2_0000);
    let host = PciHost {
        bridges: vec![bridge("/pcie@0/pci@8", &[8], 0x1_0000), below],
        ..PciHost::ecam("/pcie@0", region(0x4000_0000, 0x2_0000), MsiRouting::map([entry(0)]))
    };
    let machine = Description {
        controllers: vec![Controller::its("/its@0", region(0, 0x2_0000))],
        hosts: vec![host],
        ..Description::default()
    };
    let machine = parse(&write(&machine).expect("it can be written")).expect("it is sound");
    assert_eq!((machine.findings.len(), machine.devices.len()), (0, 0));
    let device = |path: &[u8]| {
        let route = machine.route_below(&machine.hosts[0], path, RequesterId::new(5));
        route.map(|route| route.device_id.get())
    };
    assert_eq!(device(&[0]), Ok(5));
    assert_eq!(device(&[8]), Ok(0x1_0005), "the bridge's own messages");
    assert_eq!(device(&[8, 0x10, 8]), Ok(0x1_0005));
    assert_eq!(device(&[8, 0x10, 0]), Ok(0x2_0005));
}

#[test]
fn devicetree_writer_refuses_inexpressible_facts() {
    let region = Region::new(0, 0x1000).unwrap();
    let refused = |description: Description| write(&description).unwrap_err().kind;
    let with_cpu = |id: &str| Description {
        cpus: vec![CpuNode::new(id, Affinity::default())],
        ..Default::default()
    };
    let with_controller =
        |controller| Description { controllers: vec![controller], ..Default::default() };
    assert_eq!(refused(with_cpu("/cpu@0")), WriteErrorKind::NotInCpus);
    assert_eq!(refused(with_cpu("/cpus/")), WriteErrorKind::NotAPath);
    let cpu = || CpuNode::new("/cpus/cpu@0", Affinity::default());
    let twice = Description { cpus: vec![cpu(), cpu()], ..Default::default() };
    assert_eq!(refused(twice), WriteErrorKind::Twice);
    for path in ["its", "/a//its", &*"/a".repeat(64)] {
        let its = Controller::its(path, region);
        assert_eq!(refused(with_controller(its)), WriteErrorKind::NotAPath, "{path}");
    }
    let mbi = Controller::new("/intc", ControllerKind::Mbi, Some(region));
    assert_eq!(refused(with_controller(mbi)), WriteErrorKind::NotTheGic);
    let nowhere = MsiRouting::parent(ControllerIndex::new(0));
    let host = PciHost::ecam("/pcie", region, nowhere);
    let lonely = Description { hosts: vec![host.clone()], ..Default::default() };
    assert_eq!(refused(lonely), WriteErrorKind::Nowhere);
    let bare_reference =
        Description { hosts: vec![host], ..with_controller(Controller::its("/its", region)) };
    assert_eq!(refused(bare_reference), WriteErrorKind::Specifier);
}
