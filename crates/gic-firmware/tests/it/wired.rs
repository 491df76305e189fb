//! Tests for users of wired interrupts, and for platform devices' IOMMUs.
//!
//! Tests devicetrees with several GICs: the choice of the root GIC, and the parents of secondary
//! GICs.

use gic_firmware::devicetree::{self, excerpts};
use gic_firmware::lint::{KnownRegisters, check};
#[cfg(feature = "write")]
use gic_firmware::{
    Controller, ControllerIndex, DeviceId, Iommu, IommuReference, MsiRouting, PlatformDevice,
    Region,
};
use gic_firmware::{
    ControllerKind, Description, Fact, GicVersion, IntId, IntxPin, IommuIndex, NoIntx, NodeId,
    RequesterId, Rule, Status, Trigger,
};
use std::collections::BTreeSet;

fn machine() -> Description {
    devicetree::parse(include_bytes!("../data/wired.dtb")).expect("a readable tree")
}

fn interrupts(machine: &Description, id: &str) -> Vec<u32> {
    let users = machine.wired.iter().filter(|user| user.id.as_str() == id);
    users.flat_map(|user| &user.interrupts).map(|intid| intid.get()).collect()
}

#[test]
fn each_interrupt_class_starts_at_its_first_intid() {
    let machine = machine();
    assert_eq!(interrupts(&machine, "/intc@8000000"), [25]);
    assert_eq!(interrupts(&machine, "/gpio@9000000"), [39, 4104, 1119]);
}

#[test]
fn interrupts_extended_skips_references_to_other_controllers() {
    assert_eq!(interrupts(&machine(), "/serial@9010000"), [65, 19]);
}

#[test]
fn interrupts_of_other_controllers_are_not_listed() {
    let machine = machine();
    for id in ["/key", "/bus/key", "/bus", "/pcie@10000000/function@0"] {
        assert_eq!(interrupts(&machine, id), [], "{id}");
    }
}

#[test]
fn a_nexus_lists_the_interrupts_of_its_map() {
    let machine = machine();
    assert_eq!(interrupts(&machine, "/pcie@10000000"), [72, 74]);
    let nexus = machine.wired.iter().find(|user| user.id.as_str() == "/pcie@10000000").unwrap();
    assert_eq!(nexus.interrupts[0].origin.to_string(), "/pcie@10000000: interrupt-map");
}

/// Returns the INTID and the trigger of a pin of a function on the root bus.
fn intx(host: &str, function: RequesterId, pin: IntxPin) -> Result<(u32, Trigger), NoIntx> {
    let machine = machine();
    let host = machine.hosts.iter().find(|found| found.id.as_str() == host).expect("a host");
    host.route_intx(&[function], pin).map(|found| (found.intid.get(), found.trigger))
}

#[test]
fn intx_pins_are_routed_by_the_interrupt_map() {
    let device = |device| RequesterId::pci(0, device, 0);
    let any = "/pcie@10000000";
    assert_eq!(intx(any, device(9), IntxPin::A), Ok((72, Trigger::Level)));
    assert_eq!(intx(any, device(9), IntxPin::B), Err(NoIntx::OtherController(IntxPin::B)));
    assert_eq!(intx(any, device(9), IntxPin::D), Err(NoIntx::Unmapped(IntxPin::D)));
    let by_device = "/pcie@20000000";
    // The first matching entry is used. An entry matches no function if its lower address cells are
    // compared and are not zero.
    assert_eq!(intx(by_device, device(1), IntxPin::A), Ok((92, Trigger::Level)));
    assert_eq!(intx(by_device, device(3), IntxPin::A), Ok((95, Trigger::Level)));
    // Function and bus numbers are compared if the mask includes them.
    let functions = RequesterId::pci(0, 3, 1);
    assert_eq!(intx(by_device, functions, IntxPin::A), Ok((93, Trigger::Edge)));
    let elsewhere = intx(by_device, RequesterId::pci(1, 1, 0), IntxPin::A);
    assert_eq!(elsewhere, Err(NoIntx::Unmapped(IntxPin::A)));
    // The mask omits the highest bits of the device.
    assert_eq!(intx(by_device, device(5), IntxPin::A), Ok((92, Trigger::Level)));
}

#[test]
fn an_interrupt_map_without_a_mask_compares_all_bits() {
    let host = "/pcie@30000000";
    assert_eq!(intx(host, RequesterId::pci(0, 1, 0), IntxPin::A), Ok((97, Trigger::Level)));
    let function = intx(host, RequesterId::pci(0, 1, 1), IntxPin::A);
    assert_eq!(function, Err(NoIntx::Unmapped(IntxPin::A)));
}

#[test]
fn a_host_without_an_interrupt_map_routes_no_intx() {
    let machine = devicetree::parse(include_bytes!("../data/single-its.dtb")).expect("a tree");
    let host = machine.hosts.first().expect("a host");
    let refused = host.route_intx(&[RequesterId::pci(0, 1, 0)], IntxPin::A);
    assert_eq!(refused, Err(NoIntx::NotDescribed));
}

#[test]
fn legacy_maps_without_a_parent_address_are_read() {
    assert_eq!(interrupts(&machine(), "/extirq@9060000"), [82, 83]);
}

#[test]
fn excerpts_print_properties_as_devicetree_source() {
    let blob = include_bytes!("../data/mistakes.dtb");
    let found = excerpts(blob, &BTreeSet::from(["/", "/pcie@10000000", "/nowhere"])).unwrap();
    assert_eq!(found.len(), 2);
    let host = &found[&NodeId::new("/pcie@10000000")];
    assert!(host.text.starts_with("pcie@10000000 {\n    "), "{}", host.text);
    assert!(host.text.contains("    device_type = \"pci\";\n"), "{}", host.text);
    assert!(host.text[host.place("msi-map")].starts_with("msi-map = <0x0 "), "{}", host.text);
    assert_eq!(&host.text[host.place("nowhere")], "pcie@10000000");
}

#[test]
fn interrupt_numbers_beyond_their_class_are_reported() {
    let machine = machine();
    assert_eq!(interrupts(&machine, "/wrong@9030000"), [1019]);
    let found = machine.findings.iter().filter(|one| one.rule == Rule::InterruptSpecifier);
    let messages: Vec<_> = found.map(ToString::to_string).collect();
    let place = "error[interrupt-specifier] /wrong@9030000: interrupts:";
    assert_eq!(
        messages,
        [
            format!(
                "{place} SPI 988 does not exist: SPIs have the numbers 0 to 987; \
                 INTID 988 is SPI 956"
            ),
            format!(
                "{place} PPI 16 does not exist: PPIs have the numbers 0 to 15; INTID 16 is PPI 0"
            ),
            format!("{place} 0x9 is not a type of interrupt"),
        ]
    );
}

#[test]
fn disabled_wired_devices_are_listed_as_disabled() {
    let machine = machine();
    let off = machine.wired.iter().find(|user| user.id.as_str() == "/off@9020000").unwrap();
    assert_eq!((off.status.value, off.interrupts.len()), (Status::Disabled, 1));
}

#[test]
fn iommu_references_end_at_the_first_broken_one() {
    let machine = machine();
    let dma = machine.devices.iter().find(|device| device.id.as_str() == "/dma@9040000").unwrap();
    let passed: Vec<_> =
        dma.iommus.iter().map(|passed| (passed.iommu, passed.specifier.as_slice())).collect();
    assert_eq!(passed, [(IommuIndex::new(0), &[1, 2][..]), (IommuIndex::new(0), &[3, 4])]);
    assert_eq!(dma.iommus[1].stream_id(), Some(3));
    let broken = machine.findings.iter().find(|one| one.rule == Rule::NotAnIommu).unwrap();
    assert_eq!(
        broken.to_string(),
        "error[not-an-iommu] /dma@9040000: iommus: /intc@8000000 is not an IOMMU"
    );
}

#[cfg(feature = "write")]
#[test]
fn stream_ids_are_written_as_they_are_read() {
    let its = Controller::its("/its@1000000", Region::new(0x100_0000, 0x2_0000).unwrap());
    let msi = MsiRouting::device(ControllerIndex::new(0), DeviceId::new(7));
    let mut dma = PlatformDevice::new("/dma@2000000", "dma", msi);
    // The second reference has no mask, so it is padded to the number of cells of the first
    // reference.
    for specifier in [&[0x11, 0x7f][..], &[0x12]] {
        let reference = IommuReference { iommu: IommuIndex::new(0), specifier: specifier.to_vec() };
        dma.iommus.push(Fact::stated(reference));
    }
    let smmu = Iommu {
        id: "/iommu@3000000".into(),
        compatible: vec!["arm,mmu-500".into()],
        status: Fact::stated(Status::Enabled),
        registers: None,
    };
    let machine = Description {
        controllers: vec![its],
        iommus: vec![smmu],
        devices: vec![dma],
        ..Description::default()
    };
    let read = devicetree::parse(&devicetree::write(&machine).unwrap()).unwrap();
    let specifiers: Vec<_> =
        read.devices[0].iommus.iter().map(|passed| passed.specifier.as_slice()).collect();
    assert_eq!(specifiers, [&[0x11, 0x7f], &[0x12, 0]]);
}

fn cascaded() -> Description {
    devicetree::parse(include_bytes!("../data/cascaded.dtb")).expect("a readable tree")
}

#[test]
fn the_uncascaded_gic_is_the_root() {
    let machine = cascaded();
    let root = machine.gic.expect("a root");
    assert_eq!((root.id.as_str(), root.version.value), ("/intc@8000000", GicVersion::V3));
}

#[test]
fn secondary_gics_state_their_parent_interrupts() {
    let machine = cascaded();
    let parents: Vec<_> = machine
        .secondary_gics
        .iter()
        .map(|secondary| {
            let parent = secondary.parent.as_ref().expect("a parent");
            let intid = parent.intid.map(IntId::get);
            (secondary.gic.id.as_str(), parent.controller.as_str(), intid)
        })
        .collect();
    assert_eq!(
        parents,
        [
            ("/intc@2000000", "/intc@8000000", Some(42)),
            ("/intc@3000000", "/intc@2000000", Some(52)),
            ("/intc@4000000", "/gpio@6000000", None),
        ]
    );
    let places = machine.secondary_gics.iter().map(|secondary| {
        secondary.parent.as_ref().map(|parent: &Fact<_>| parent.origin.to_string())
    });
    let places: Vec<_> = places.flatten().collect();
    assert_eq!(places[0], "/intc@2000000: interrupts");
    assert_eq!(places[1], "/intc@3000000: interrupts-extended");
}

#[test]
fn an_msi_controller_belongs_to_the_gic_that_contains_it() {
    let machine = cascaded();
    let of = |kind: &ControllerKind| {
        let controller = machine.controllers.iter().find(|one| one.kind == *kind).expect("one");
        machine.gic_of(controller).expect("its GIC").id.to_string()
    };
    assert_eq!(of(&ControllerKind::V2m), "/intc@2000000");
    assert_eq!(of(&ControllerKind::Its), "/intc@8000000");
    assert_eq!(machine.root_controllers().count(), 1);
}

#[test]
fn spis_of_a_secondary_gic_do_not_conflict_with_the_root() {
    // The frame allocates INTIDs 64 to 95 of its own GIC; INTID 65 of the root GIC is wired to a
    // serial port.
    assert_eq!(check(&cascaded(), &KnownRegisters::default()), []);
}
