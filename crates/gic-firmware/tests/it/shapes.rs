//! Checks the description of each kind of devicetree. The folder `data/` contains the devicetree
//! sources and the compiled blobs.

use gic_arch::Affinity;
use gic_firmware::{
    BusRange, Coherence, ConfigAccess, Controller, ControllerKind, Description, Finding,
    GicVersion, IommuIndex, NoRoute, PciHost, Region, Role, Status, Via, devicetree,
};
use msi_types::{DeviceId, RequesterId};

macro_rules! read {
    ($name:literal) => {
        devicetree::parse(include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/",
            $name,
            ".dtb"
        )))
        .expect("the blob is sound")
    };
}

mod controllers;

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).expect("it does not wrap")
}

fn host<'d>(description: &'d Description, id: &str) -> &'d PciHost {
    description.hosts.iter().find(|host| host.id.as_str() == id).expect("the host is described")
}

fn controller<'d>(description: &'d Description, id: &str) -> &'d Controller {
    description
        .controllers
        .iter()
        .find(|controller| controller.id.as_str() == id)
        .expect("it is described")
}

/// Returns the rule and the origin of each finding.
fn findings(description: &Description) -> Vec<String> {
    let finding = |one: &Finding| format!("{} {}", one.rule, one.origin);
    description.findings.iter().map(finding).collect()
}

/// Returns a requester's route: the controller's path, the DeviceID, and firmware's statement of
/// the route.
fn answer(
    description: &Description,
    host_id: &str,
    rid: u32,
) -> Result<(String, u32, Via), NoRoute> {
    description.route(host(description, host_id), RequesterId::new(rid)).map(|route| {
        let controller =
            description.controller(route.controller).expect("a route leads to a controller");
        (controller.id.to_string(), route.device_id.get(), route.via)
    })
}

/// Returns the routes of the platform device with this path, as (controller, DeviceID).
fn device_answers(description: &Description, id: &str) -> Vec<Result<(String, u32), NoRoute>> {
    let device = description
        .devices
        .iter()
        .find(|device| device.id.as_str() == id)
        .expect("it is described");
    let routes = description.platform_routes(device).into_iter();
    routes
        .map(|route| {
            route.map(|route| {
                let controller =
                    description.controller(route.controller).expect("a route leads somewhere");
                (controller.id.to_string(), route.device_id.get())
            })
        })
        .collect()
}

#[test]
fn the_cpu_map_defines_clusters() {
    let blob = include_bytes!("../data/single-its.dtb");
    let clusters = devicetree::cpu_clusters(blob).expect("the blob is sound");
    let clusters: Vec<_> = clusters.iter().map(|(cpu, path)| (cpu.as_str(), &path[..])).collect();
    let [zero, one] = ["cluster0", "cluster1"].map(|name| [name.to_owned()]);
    let expected = [("/cpus/cpu@0", &zero[..]), ("/cpus/cpu@101", &one), ("/cpus/cpu@102", &one)];
    assert_eq!(clusters, expected);
}

#[test]
fn cpus_are_read_with_affinity_and_status() {
    let machine = read!("single-its");
    let cpus: Vec<_> =
        machine.cpus.iter().map(|cpu| (cpu.affinity.value, cpu.status.value)).collect();
    assert_eq!(
        cpus,
        [
            (Affinity::new(0, 0, 0, 0), Status::Enabled),
            (Affinity::new(0, 0, 1, 1), Status::Enabled),
            (Affinity::new(0, 0, 1, 2), Status::Disabled),
        ]
    );
    assert_eq!(machine.enabled_cpus().count(), 2);
}

#[test]
fn two_cell_cpu_reg_has_affinity_level_3() {
    assert_eq!(read!("several-its").cpus[0].affinity.value, Affinity::new(1, 2, 3, 4));
}

#[test]
fn facts_record_their_node_and_property() {
    let machine = read!("single-its");
    let gic = machine.gic.as_ref().expect("there is a GIC");
    assert_eq!(gic.distributor.origin.to_string(), "/intc@8000000: reg");
    assert_eq!(machine.cpus[2].status.origin.to_string(), "/cpus/cpu@102: status");
    assert_eq!(
        machine.hosts[0].msi.map.as_ref().unwrap()[0].origin.to_string(),
        "/pcie@10000000: msi-map"
    );
}

#[test]
fn a_machine_with_one_its_is_read_without_findings() {
    let machine = read!("single-its");
    let gic = machine.gic.as_ref().expect("there is a GIC");
    assert_eq!(machine.model.as_ref().unwrap().value, "single ITS");
    assert_eq!(gic.version.value, GicVersion::V3);
    assert_eq!(gic.distributor.value, region(0x800_0000, 0x1_0000));
    assert_eq!(gic.redistributors[0].value, region(0x80a_0000, 0xf6_0000));
    assert_eq!(machine.memory[0].value, region(0x4000_0000, 0x8000_0000));
    assert_eq!(machine.memory.len(), 1, "an empty region is not memory");
    let its = &machine.controllers[0];
    assert_eq!(its.kind, ControllerKind::Its);
    assert_eq!(machine.doorbells(its), [0x809_0040]);
    assert_eq!(machine.findings, []);
}

#[test]
fn bridges_behind_a_host_are_not_hosts() {
    let machine = read!("single-its");
    assert_eq!(machine.hosts.len(), 1);
    let host = &machine.hosts[0];
    assert_eq!(
        host.config.as_ref().unwrap().value,
        ConfigAccess::Ecam(region(0x40_1000_0000, 0x1000_0000))
    );
    assert_eq!((host.buses.value, host.segment.as_ref().unwrap().value), (BusRange::ALL, 0));
}

#[test]
fn registers_are_translated_through_every_bus() {
    let machine = read!("several-its");
    let gic = machine.gic.as_ref().expect("there is a GIC");
    assert_eq!(gic.distributor.value, region(0x10_0100_0000, 0x1_0000));
    assert_eq!(gic.cpu_interface.as_ref().unwrap().value, region(0x10_0200_0000, 0x2000));
    let bases: Vec<_> = machine
        .controllers
        .iter()
        .map(|controller| controller.registers.as_ref().unwrap().base())
        .collect();
    assert_eq!(bases, [0x10_0104_0000, 0x10_0106_0000, 0x10_0300_0000]);
}

#[test]
fn untranslatable_device_registers_are_left_out() {
    let machine = read!("several-its");
    let dma =
        machine.devices.iter().find(|device| device.id.as_str() == "/soc/dma@5100000").unwrap();
    let bases: Vec<_> = dma.registers.iter().map(|region| region.base()).collect();
    assert_eq!(bases, [0x10_0510_0000, 0x10_3fff_f000, 0x30_0000_0000]);
    assert_eq!(machine.findings, []);
}

#[test]
fn a_host_without_ecam_accesses_config_space_through_registers() {
    let machine = read!("several-its");
    let host = &machine.hosts[0];
    assert_eq!(
        host.config.as_ref().unwrap().value,
        ConfigAccess::Registers(region(0x20_0000_0000, 0x2000))
    );
    assert_eq!(host.buses.value, BusRange { first: 0x10, last: 0x1f });
    assert_eq!(host.segment.as_ref().unwrap().value, 3);
}

#[test]
fn each_of_several_itses_serves_the_nodes_that_reference_it() {
    let machine = read!("several-its");
    let [its0, its1] = ["40000", "60000"]
        .map(|at| format!("/soc/interrupt-controller@1000000/msi-controller@{at}"));
    assert_eq!(
        answer(&machine, "/soc/pcie@80000000", 0x1100),
        Ok((its1.clone(), 0x1_1100, Via::Map(0)))
    );
    assert_eq!(device_answers(&machine, "/soc/mbigen@5000000"), [Ok((its0.clone(), 0x4_0b1c))]);
    assert_eq!(
        device_answers(&machine, "/soc/dma@5100000"),
        [Ok((its0, 7)), Ok(("/soc/msi@3000000".into(), 0)), Ok((its1, 0xffff_ffff))]
    );
}

#[test]
fn a_non_gic_msi_controller_has_a_name_but_no_doorbell() {
    let machine = read!("several-its");
    let inta = controller(&machine, "/soc/msi@3000000");
    assert_eq!(inta.kind, ControllerKind::Other("ti,sci-inta".into()));
    assert_eq!(machine.doorbells(inta), []);
}

#[test]
fn map_entries_route_to_their_controllers() {
    let machine = read!("msi-map");
    let [its0, its1] = ["/intc@8000000/its@8080000", "/intc@8000000/its@80c0000"].map(String::from);
    let host = "/pcie@10000000";
    assert_eq!(answer(&machine, host, 0x0000), Ok((its0.clone(), 0x2_0000, Via::Map(0))));
    assert_eq!(answer(&machine, host, 0x00ff), Ok((its0.clone(), 0x2_00ff, Via::Map(0))));
    assert_eq!(answer(&machine, host, 0x0200), Ok((its1.clone(), 0, Via::Map(1))));
    assert_eq!(answer(&machine, host, 0x027f), Ok((its1, 0x7f, Via::Map(1))));
    assert_eq!(answer(&machine, host, 0x029f), Ok((its0, 0xffff_ffff, Via::Map(2))));
}

#[test]
fn unmapped_requester_has_no_route() {
    let machine = read!("msi-map");
    for rid in [0x0100, 0x01ff, 0x02a0, 0xffff] {
        let unmapped = NoRoute::Unmapped(RequesterId::new(rid));
        assert_eq!(answer(&machine, "/pcie@10000000", rid), Err(unmapped));
    }
}

#[test]
fn the_mask_makes_functions_share_a_device_id() {
    let machine = read!("msi-map");
    let its1 = String::from("/intc@8000000/its@80c0000");
    for function in 0..8 {
        let found = answer(&machine, "/pcie@20000000", 0x0318 + function);
        assert_eq!(found, Ok((its1.clone(), 0x418, Via::Map(0))));
    }
    assert_eq!(answer(&machine, "/pcie@20000000", 0x0320), Ok((its1, 0x420, Via::Map(0))));
}

#[test]
fn iommu_map_assigns_stream_ids_to_requesters() {
    let machine = read!("msi-map");
    let ids: Vec<_> = machine.iommus.iter().map(|iommu| iommu.id.as_str()).collect();
    assert_eq!(ids, ["/iommu@60000000"]);
    let streams = &host(&machine, "/pcie@20000000").iommu;
    let stream = |rid| streams.stream(RequesterId::new(rid));
    assert_eq!(stream(0x318), Some((IommuIndex::new(0), 0x318)));
    assert_eq!(stream(0x1_0000), None);
}

#[test]
fn the_msi_parent_serves_requesters_absent_from_the_msi_map() {
    let machine = read!("msi-map");
    let [its0, its1] = ["/intc@8000000/its@8080000", "/intc@8000000/its@80c0000"].map(String::from);
    assert_eq!(answer(&machine, "/pcie@30000000", 0x0180), Ok((its0, 0x80, Via::Map(0))));
    assert_eq!(
        answer(&machine, "/pcie@30000000", 0x0280),
        Ok((its1, 0x280, Via::ParentAfterMap(0)))
    );
}

#[test]
fn a_host_that_is_an_msi_controller_routes_to_itself() {
    let machine = read!("msi-map");
    assert_eq!(
        answer(&machine, "/pcie@40000000", 0x10),
        Ok(("/pcie@40000000".into(), 0x10, Via::Own))
    );
    assert_eq!(
        controller(&machine, "/pcie@40000000").kind,
        ControllerKind::Other("brcm,bcm2711-pcie".into())
    );
}

#[test]
fn a_host_without_msi_properties_has_no_route() {
    assert_eq!(answer(&read!("msi-map"), "/pcie@50000000", 0), Err(NoRoute::NotDescribed));
}

#[test]
fn a_parent_without_a_specifier_preserves_requester_ids() {
    let machine = read!("msi-parent");
    let plain = String::from("/intc@8000000/its@8080000");
    assert_eq!(answer(&machine, "/pcie@10000000", 0x1234), Ok((plain, 0x1234, Via::Parent(0))));
}

#[test]
fn the_first_enabled_parent_routes_messages() {
    let machine = read!("msi-parent");
    let plain = String::from("/intc@8000000/its@8080000");
    assert_eq!(answer(&machine, "/pcie@20000000", 1), Ok((plain, 1, Via::Parent(1))));
    assert!(matches!(answer(&machine, "/pcie@30000000", 1), Err(NoRoute::Disabled(_))));
}

#[test]
fn a_bus_with_requester_ids_is_not_a_device() {
    let machine = read!("msi-parent");
    let mc = &machine.devices[0];
    assert_eq!(mc.role, Role::Bus);
    let route = machine.route_by(&mc.msi, RequesterId::new(0x17)).expect("it has a parent");
    assert_eq!(route.device_id, DeviceId::new(0x17));
}

#[test]
fn redistributor_stride_and_coherence_are_read() {
    let machine = read!("redistributors");
    let gic = machine.gic.as_ref().expect("there is a GIC");
    let bases: Vec<_> = gic.redistributors.iter().map(|region| region.base()).collect();
    assert_eq!(bases, [0x4d10_0000, 0x100_6d10_0000, 0x400_4d10_0000, 0x500_6d10_0000]);
    assert_eq!(gic.redistributor_stride.as_ref().unwrap().value, 0x4_0000);
    assert_eq!(gic.cpu_interface.as_ref().unwrap().value, region(0xfe00_0000, 0x1_0000));
    assert_eq!(gic.coherence.value, Coherence::NonCoherent);
    assert_eq!(machine.controllers[0].coherence.value, Coherence::NonCoherent);
}

#[test]
fn coherence_defaults_to_what_the_registers_state() {
    let machine = read!("single-its");
    assert_eq!(machine.gic.unwrap().coherence.value, Coherence::ByRegister);
    assert_eq!(machine.controllers[0].coherence.value, Coherence::ByRegister);
}

#[test]
fn a_disabled_ancestor_disables_an_its_and_is_named_as_the_origin() {
    let machine = read!("disabled");
    let its = &machine.controllers[0];
    assert_eq!(its.status.value, Status::Disabled);
    assert_eq!(its.status.origin.to_string(), "/off: status");
    assert!(matches!(device_answers(&machine, "/device")[..], [Err(NoRoute::Disabled(_))]));
}

#[test]
fn an_enabled_gic_is_preferred_to_a_disabled_one() {
    let gic = read!("disabled").gic.expect("there is a GIC");
    assert_eq!((gic.id.as_str(), gic.version.value), ("/intc@2000000", GicVersion::V3));
}

#[test]
fn each_mistake_is_reported_at_its_node_and_property() {
    assert_eq!(
        findings(&read!("mistakes")),
        [
            "duplicate-phandle /device-d: phandle",
            "redistributor-regions /intc@8000000: #redistributor-regions",
            "redistributor-stride /intc@8000000: redistributor-stride",
            "several-gics /intc@9000000: compatible",
            "mbi-range /intc@8000000: mbi-ranges",
            "mbi-range /intc@8000000: mbi-ranges",
            "missing-msi-controller /intc@8000000: msi-controller",
            "malformed-property /intc@8000000/its@8080000: socionext,synquacer-pre-its",
            "missing-msi-controller /intc@8000000/its@80a0000: msi-controller",
            "malformed-property /intc@8000000/its@80c0000: reg",
            "missing-property /intc@8000000/its@80e0000: reg",
            "malformed-property /intc@8000000/its@80e0000: #msi-cells",
            "direct-lpi-with-mbi /intc@9000000: arm,direct-lpi",
            "untranslatable-address /unreachable/its@3000000: reg",
            "malformed-property /pcie@10000000: bus-range",
            "not-an-msi-controller /pcie@10000000: msi-map",
            "disabled-controller /pcie@10000000: msi-map",
            "unknown-phandle /pcie@10000000: msi-map",
            "msi-map-mask /pcie@10000000: msi-map",
            "msi-map-range /pcie@10000000: msi-map",
            "msi-map-range /pcie@10000000: msi-map",
            "msi-map-overlap /pcie@10000000: msi-map",
            "malformed-property /pcie@20000000: msi-map-mask",
            "malformed-property /pcie@20000000: msi-map",
            "malformed-property /pcie@20000000: msi-parent",
            "unknown-phandle /device-a: msi-parent",
            "malformed-property /device-b: msi-parent",
            "not-an-msi-controller /device-c: msi-parent",
            "missing-device-id /device-e: msi-parent",
            "duplicate-affinity /cpus/cpu@1: reg",
            "malformed-property /cpus/cpu@2: reg",
            "malformed-property /cpus/cpu@3: reg",
            "missing-property /cpus/cpu@4: reg",
        ]
    );
}

#[test]
fn findings_state_the_size_or_address_at_fault() {
    let machine = read!("mistakes");
    let message = |place: &str| {
        let finding = machine.findings.iter().find(|finding| finding.origin.to_string() == place);
        finding.expect("it is found").message.clone()
    };
    assert_eq!(
        message("/intc@8000000/its@80c0000: reg"),
        "12 bytes are not a whole number of (2,2)-cell entries"
    );
    assert_eq!(
        message("/unreachable/its@3000000: reg"),
        "/unreachable has no `ranges` for address 0x3000000"
    );
}

#[test]
fn a_map_entry_with_bits_outside_the_mask_ends_the_search() {
    let machine = read!("mistakes");
    assert!(answer(&machine, "/pcie@10000000", 0x0210).is_err());
    assert!(matches!(answer(&machine, "/pcie@10000000", 0x0700), Err(NoRoute::Unmapped(_))));
    let spans = machine.host_spans(host(&machine, "/pcie@10000000"));
    let found: Vec<_> = spans.map(|span| span.rid_base.get()).collect();
    assert_eq!(found, [0, 0x100], "the entry and those after it have no route");
}

#[test]
fn its_without_the_msi_controller_property_is_disabled() {
    let machine = read!("mistakes");
    let its = controller(&machine, "/intc@8000000/its@80a0000");
    assert_eq!(its.status.value, Status::Disabled);
    assert_eq!(its.status.origin.item(), "msi-controller");
}
