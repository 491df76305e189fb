//! Generates descriptions that a devicetree can express.

mod maps;

use self::maps::{iommus, passages, routings, streams};
use gic_arch::{Affinity, IntId};
use gic_firmware::{
    BusRange, Coherence, ConfigAccess, Controller, ControllerKind, CpuNode, Description, Fact, Gic,
    GicVersion, IntIdSpan, IommuRouting, NodeId, ParentInterrupt, PciBridge, PciHost,
    PlatformDevice, Region, Role, SecondaryGic, Status, WiredUser,
};
use msi_types::pci::{PciSpace, PciWindow};
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

pub(super) fn descriptions() -> impl Strategy<Value = Description> {
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
                hypervisor: None,
                psci: None,
                model: Some(Fact::stated("generated".into())),
                compatible: ["radxa,rock-5b", "rockchip,rk3588"].map(String::from).into(),
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
