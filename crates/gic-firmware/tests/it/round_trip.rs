//! Checks that written descriptions read back equal, and that routes agree with a model that
//! follows the text of the binding literally.

mod maps;

use gic_arch::{Affinity, IntId};
use gic_firmware::devicetree::{WriteErrorKind, parse, write};
use gic_firmware::{
    BusRange, Coherence, ConfigAccess, Controller, ControllerIndex, ControllerKind, CpuNode,
    Description, Fact, Gic, GicVersion, IntIdSpan, IommuRouting, MapEntry, MsiRouting, NoRoute,
    NodeId, ParentInterrupt, PciBridge, PciHost, PlatformDevice, Region, Role, SecondaryGic,
    Status, Target, Via, WiredUser,
};
use maps::{iommus, passages, routings, streams};
use msi_types::pci::{PciSpace, PciWindow};
use msi_types::{DeviceId, RequesterId};
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn regions() -> impl Strategy<Value = Region> {
    (any::<u64>(), 1..=u64::from(u32::MAX))
        .prop_filter_map("it wraps", |(base, size)| Region::new(base, size))
}

fn statuses() -> impl Strategy<Value = Fact<Status>> {
    prop_oneof![3 => Just(Status::Enabled), 1 => Just(Status::Disabled)].prop_map(Fact::stated)
}

fn coherences() -> impl Strategy<Value = Fact<Coherence>> {
    prop_oneof![Just(Coherence::ByRegister), Just(Coherence::NonCoherent)].prop_map(Fact::stated)
}

fn cpus() -> impl Strategy<Value = Vec<CpuNode>> {
    btree_set(any::<u32>(), 0..20).prop_flat_map(|affinities| {
        let count = affinities.len();
        (Just(affinities), vec(statuses(), count)).prop_map(|(affinities, statuses)| {
            affinities
                .into_iter()
                .zip(statuses)
                .map(|(affinity, status)| {
                    let id = format!("/cpus/cpu@{affinity:x}");
                    CpuNode { status, ..CpuNode::new(id.as_str(), Affinity::from_packed(affinity)) }
                })
                .collect()
        })
    })
}

fn gics() -> impl Strategy<Value = Gic> {
    let quirks = (any::<bool>(), any::<bool>());
    (
        regions(),
        vec(regions(), 1..6),
        option::of(1..64u64),
        option::of(regions()),
        coherences(),
        quirks,
    )
        .prop_map(
            |(
                distributor,
                redistributors,
                stride,
                cpu_interface,
                coherence,
                (special, broken_save_restore),
            )| Gic {
                redistributor_stride: stride.map(|frames| Fact::stated(frames << 16)),
                cpu_interface: cpu_interface.map(Fact::stated),
                coherence,
                compatible: special
                    .then(|| "qcom,msm8996-gic-v3".into())
                    .into_iter()
                    .chain(["arm,gic-v3".into()])
                    .collect(),
                broken_save_restore,
                ..Gic::v3("/soc/intc@8000000", distributor, redistributors)
            },
        )
}

fn its(index: usize) -> impl Strategy<Value = Controller> {
    let windows = option::of((any::<u32>(), 4..u32::MAX));
    (regions(), statuses(), coherences(), 0..=1u32, windows).prop_map(
        move |(registers, status, coherence, msi_cells, window)| Controller {
            status,
            coherence,
            msi_cells: Fact::stated(msi_cells),
            pre_its: window
                .and_then(|(base, size)| Region::new(base.into(), size.into()))
                .map(Fact::stated),
            ..Controller::its(format!("/soc/intc@8000000/its@{index}").as_str(), registers)
        },
    )
}

/// Generates an MBI controller at the GIC's own node, which is the first controller node in the
/// tree.
fn mbis(gic: &Gic) -> impl Strategy<Value = Controller> + use<> {
    let (id, distributor) = (gic.id.clone(), gic.distributor.value);
    let coherence = gic.coherence.clone();
    (vec((32..900u32, 1..100u32), 1..4), option::of(0..u64::MAX >> 1)).prop_map(
        move |(ranges, alias)| {
            let registers =
                alias.and_then(|base| Region::new(base, 0x1_0000)).unwrap_or(distributor);
            let spans = ranges
                .into_iter()
                .filter_map(|(first, count)| IntIdSpan::new(IntId::new(first), count));
            Controller {
                ranges: spans.map(Fact::stated).collect(),
                coherence: coherence.clone(),
                ..Controller::new(id.clone(), ControllerKind::Mbi, Some(registers))
            }
        },
    )
}

fn others(index: usize) -> impl Strategy<Value = Controller> {
    (option::of(regions()), 0..4u32, "[a-z]{1,12},[a-z-]{1,30}").prop_map(
        move |(registers, cells, compatible)| Controller {
            msi_cells: Fact::stated(cells),
            ..Controller::new(
                format!("/soc/msi@{index}").as_str(),
                ControllerKind::Other(compatible),
                registers,
            )
        },
    )
}

fn v2m_frames(index: usize) -> impl Strategy<Value = Controller> {
    (regions(), option::of((1..900u32, 1..100u32))).prop_map(move |(registers, range)| Controller {
        ranges: range
            .and_then(|(first, count)| IntIdSpan::new(IntId::new(first), count))
            .map(Fact::stated)
            .into_iter()
            .collect(),
        ..Controller::new(format!("/v2m@{index}").as_str(), ControllerKind::V2m, Some(registers))
    })
}

/// Generates controllers in the order of the tree: a controller at the GIC's own node, ITSes below
/// it, other controllers on its bus, and frames next to it.
fn controllers(gic: &Gic) -> impl Strategy<Value = Vec<Controller>> + use<> {
    let each = |count: usize, make: fn(usize) -> BoxedStrategy<Controller>| {
        (0..=count).prop_flat_map(move |count| (0..count).map(make).collect::<Vec<_>>())
    };
    (
        option::of(mbis(gic)),
        each(8, |index| its(index).boxed()),
        each(3, |index| others(index).boxed()),
        each(3, |index| v2m_frames(index).boxed()),
    )
        .prop_map(|(mbi, its, others, frames)| {
            mbi.into_iter().chain(its).chain(others).chain(frames).collect()
        })
}

fn windows() -> impl Strategy<Value = Vec<Fact<PciWindow>>> {
    let spaces =
        prop_oneof![Just(PciSpace::Io), Just(PciSpace::Memory32), Just(PciSpace::Memory64)];
    let window =
        (spaces, regions(), any::<u64>(), any::<bool>()).prop_map(|(space, cpu, bus, fetch)| {
            let window = PciWindow::new(space, cpu, bus);
            let window = window.unwrap_or(PciWindow::identity(space, cpu));
            Fact::stated(if fetch { window.prefetchable() } else { window })
        });
    vec(window, 0..4)
}

fn hosts(controllers: &[Controller]) -> BoxedStrategy<Vec<PciHost>> {
    let buses = (any::<[u8; 2]>(), windows(), windows());
    let parts = (regions(), any::<bool>(), buses, option::of(any::<u32>()), streams());
    let bridges = vec((any::<u8>(), routings(controllers)), 0..2);
    let host = (parts, routings(controllers), statuses(), bridges).prop_map(
        |(
            (window, is_ecam, (buses, windows, dma_windows), segment, iommu),
            msi,
            status,
            bridges,
        )| {
            // A node below a disabled node must be disabled too.
            let bridges = bridges.into_iter().filter(|(_, msi)| msi.map.is_some());
            let bridge = |(function, msi): (u8, _)| PciBridge {
                id: "/".into(),
                status: status.clone(),
                path: vec![function],
                msi,
            };
            let bridges = bridges.map(bridge).collect();
            let config =
                if is_ecam { ConfigAccess::Ecam(window) } else { ConfigAccess::Registers(window) };
            let compatible = if is_ecam { "pci-host-ecam-generic" } else { "snps,dw-pcie" };
            PciHost {
                compatible: vec!["vendor,host".into(), compatible.into()],
                status,
                config: Some(Fact::stated(config)),
                buses: Fact::stated(BusRange {
                    first: buses[0].min(buses[1]),
                    last: buses[0].max(buses[1]),
                }),
                windows,
                dma_windows,
                segment: segment.map(Fact::stated),
                bridges,
                iommu,
                ..PciHost::ecam("/", window, msi)
            }
        },
    );
    vec(host, 0..5)
        .prop_map(|mut hosts| {
            for (index, host) in hosts.iter_mut().enumerate() {
                host.id = format!("/pcie@{index}").as_str().into();
                for bridge in &mut host.bridges {
                    bridge.id = format!("{}/pci@{:x}", host.id, bridge.path[0]).into();
                }
            }
            hosts
        })
        .boxed()
}

fn devices(controllers: &[Controller]) -> BoxedStrategy<Vec<PlatformDevice>> {
    let passages = (streams(), passages());
    let parts = (routings(controllers), vec(regions(), 0..3), statuses(), passages);
    let device = parts.prop_filter_map(
        "a device that names nothing is not described",
        |(msi, registers, status, (streams, iommus))| {
            // The map is not read if the node also has a reference.
            let is_bus = msi.map.is_some() && msi.parents.is_empty();
            (!msi.is_empty()).then(|| PlatformDevice {
                iommu: if is_bus { streams } else { IommuRouting::default() },
                iommus: if is_bus { Vec::new() } else { iommus },
                status,
                registers: registers.into_iter().map(Fact::stated).collect(),
                role: if is_bus { Role::Bus } else { Role::Device },
                ..PlatformDevice::new("/", "vendor,device", msi)
            })
        },
    );
    let count = if controllers.is_empty() { 0..1 } else { 0..5 };
    vec(device, count)
        .prop_map(|mut devices| {
            for (index, device) in devices.iter_mut().enumerate() {
                device.id = format!("/soc/bus/device@{index}").as_str().into();
            }
            devices
        })
        .boxed()
}

fn vec_of<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(String::from).into()
}

fn descriptions() -> impl Strategy<Value = Description> {
    gics()
        .prop_flat_map(|gic| {
            let controllers = controllers(&gic);
            (Just(gic), controllers)
        })
        .prop_flat_map(|(gic, controllers)| {
            let (hosts, devices) = (hosts(&controllers), devices(&controllers));
            let parts = (cpus(), iommus(), vec(regions(), 0..3), secondary_gics(&gic));
            (Just(gic), Just(controllers), hosts, devices, parts)
        })
        .prop_map(|(gic, controllers, hosts, devices, (cpus, iommus, memory, secondary))| {
            Description {
                oem_id: None,
                model: Some(Fact::stated("generated".into())),
                compatible: vec_of(["radxa,rock-5b", "rockchip,rk3588"]),
                wired: users(&secondary, &gic),
                gic: Some(gic),
                secondary_gics: secondary,
                controllers,
                iommus,
                hosts,
                devices,
                iommu_users: Vec::new(),
                cpus,
                memory: memory.into_iter().map(Fact::stated).collect(),
                findings: Vec::new(),
            }
        })
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
    fn what_is_written_reads_back_equal(description in descriptions()) {
        let blob = write(&description).expect("the description can be written");
        let read = parse(&blob).expect("written blobs are well-formed");
        prop_assert_eq!(Description { findings: Vec::new(), ..read }, description);
    }

    #[test]
    fn routes_are_those_of_the_binding(
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
    fn spans_agree_with_routes(description in descriptions(), rids in vec(0..=0xffffu32, 16)) {
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
    let region = |base, size| Region::new(base, size).unwrap();
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
    let region = |base, size| Region::new(base, size).unwrap();
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
    let region = |base, size| Region::new(base, size).unwrap();
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
fn nearest_bridge_with_a_map_decides() {
    let region = |base| Region::new(base, 0x2_0000).expect("it does not wrap");
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
        ..PciHost::ecam("/pcie@0", region(0x4000_0000), MsiRouting::map([entry(0)]))
    };
    let machine = Description {
        controllers: vec![Controller::its("/its@0", region(0))],
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
fn what_no_devicetree_can_say_is_refused() {
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
    assert_eq!(refused(with_controller(Controller::its("its", region))), WriteErrorKind::NotAPath);
    assert_eq!(
        refused(with_controller(Controller::its("/a//its", region))),
        WriteErrorKind::NotAPath
    );
    let deep = "/a".repeat(64);
    assert_eq!(
        refused(with_controller(Controller::its(deep.as_str(), region))),
        WriteErrorKind::NotAPath
    );
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

/// Generates secondary GICs, each cascaded to the root GIC, to the previous secondary GIC, or to no
/// controller.
fn secondary_gics(root: &Gic) -> impl Strategy<Value = Vec<SecondaryGic>> + use<> {
    let root = root.id.clone();
    let intids = prop_oneof![32..1020u32, 16..32u32, 4096..5120u32, 1056..1120u32];
    vec((regions(), regions(), option::of((any::<bool>(), intids))), 0..3).prop_map(move |rows| {
        let id = |index: usize| NodeId::from(format!("/soc/intc@9{index}"));
        let secondary = |(index, (distributor, interface, stated)): (usize, (_, Region, _))| {
            let parent = |(follows_last, intid): (bool, u32)| ParentInterrupt {
                controller: if follows_last && index > 0 { id(index - 1) } else { root.clone() },
                intid: Some(IntId::new(intid)),
            };
            let gic = Gic {
                compatible: vec!["arm,gic-400".into()],
                version: Fact::stated(GicVersion::V2),
                cpu_interface: Some(Fact::stated(interface)),
                ..Gic::v3(id(index), distributor, [])
            };
            SecondaryGic { gic, parent: Option::map(stated, parent).map(Fact::stated) }
        };
        rows.into_iter().enumerate().map(secondary).collect()
    })
}

/// Adds the secondary GICs whose interrupts the root GIC receives to its wired users.
fn users(secondary: &[SecondaryGic], root: &Gic) -> Vec<WiredUser> {
    let user = |one: &SecondaryGic| {
        let parent = one.parent.as_ref().filter(|parent| parent.controller == root.id)?;
        let interrupts = vec![Fact::stated(parent.intid?)];
        Some(WiredUser { id: one.gic.id.clone(), status: one.gic.status.clone(), interrupts })
    };
    secondary.iter().filter_map(user).collect()
}
