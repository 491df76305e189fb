//! Checks the descriptions of MSI controllers other than the ITS, and of those in host bridges.

use super::*;
use gic_arch::IntId;
use gic_firmware::{Fact, IntIdSpan, Rule};
use msi_types::pci::MsiGate;
use msi_types::{MsiMessage, Trigger};

#[test]
fn gicv2_board_has_its_v2m_frames() {
    let machine = read!("gicv2m");
    let gic = machine.gic.as_ref().expect("there is a GIC");
    assert_eq!((gic.version.value, gic.redistributors.len()), (GicVersion::V2, 0));
    assert_eq!(gic.cpu_interface.as_ref().unwrap().value, region(0x801_0000, 0x2000));
    let doorbells: Vec<_> =
        machine.controllers.iter().flat_map(|controller| machine.doorbells(controller)).collect();
    assert_eq!(doorbells, [0x802_0040, 0x803_0040]);
    assert!(machine.controllers.iter().all(|controller| controller.kind == ControllerKind::V2m));
}

#[test]
fn a_v2m_spi_override_needs_base_and_count() {
    let machine = read!("gicv2m");
    assert_eq!(machine.controllers[0].ranges[0].value, IntIdSpan::new(IntId::new(80), 64).unwrap());
    assert_eq!(machine.controllers[1].ranges, []);
}

#[test]
fn v2m_needs_no_device_id() {
    let machine = read!("gicv2m");
    assert_eq!(device_answers(&machine, "/device"), [Ok(("/intc@8000000/v2m@20000".into(), 0))]);
}

#[test]
fn an_incomplete_v2m_spi_override_is_reported() {
    let found = read!("gicv2m").findings;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].rule, Rule::FrameRange);
    assert_eq!(found[0].origin.to_string(), "/intc@8000000/v2m@30000: arm,msi-base-spi");
}

#[test]
fn mbi_is_read_beside_an_its() {
    let machine = read!("mbi");
    let mbi = controller(&machine, "/intc@fe600000");
    assert_eq!(mbi.kind, ControllerKind::Mbi);
    let ranges: Vec<_> =
        mbi.ranges.iter().map(|range| (range.first().get(), range.count())).collect();
    assert_eq!(ranges, [(480, 32), (4096, 128)]);
    assert_eq!(machine.doorbells(mbi), [0xfe61_0040]);
    assert_eq!(machine.controllers.len(), 2);
    assert_eq!(answer(&machine, "/pcie@10000000", 8).unwrap().0, "/intc@fe600000");
    assert_eq!(machine.findings, []);
}

#[test]
fn pre_its_relocates_doorbells_and_limits_device_ids() {
    let machine = read!("pre-its");
    let its = &machine.controllers[0];
    assert_eq!(its.device_id_bits(), Some(19));
    assert_eq!(its.doorbell(DeviceId::new(0)), Some(0x5800_0000));
    assert_eq!(its.doorbell(DeviceId::new(0x7ffff)), Some(0x581f_fffc));
    assert_eq!(its.doorbell(DeviceId::new(0x80000)), None);
}

#[test]
fn a_direct_lpi_controller_has_the_redistributor_doorbells() {
    let machine = read!("direct-lpi");
    assert_eq!(machine.findings, []);
    let direct = controller(&machine, "/intc@8000000");
    assert_eq!((&direct.kind, direct.status.value), (&ControllerKind::DirectLpi, Status::Enabled));
    assert_eq!(machine.doorbells(direct), [0x80a_0040, 0x80c_0040]);
    let intc = String::from("/intc@8000000");
    assert_eq!(
        answer(&machine, "/pcie@10000000", 0x108),
        Ok((intc.clone(), 0x108, Via::Parent(0)))
    );
    assert_eq!(device_answers(&machine, "/sensor"), [Ok((intc, 0))]);
}

#[test]
fn direct_lpi_is_never_inferred() {
    for machine in [read!("gicv2m"), read!("redistributors"), read!("disabled")] {
        assert!(machine.controllers.iter().all(|one| one.kind != ControllerKind::DirectLpi));
    }
}

#[test]
fn direct_lpis_beside_an_its_are_reported_and_disabled() {
    let machine = read!("direct-lpi-mistakes");
    assert_eq!(
        findings(&machine),
        [
            "malformed-property /intc@8000000: #msi-cells",
            "direct-lpi-with-its /intc@8000000: arm,direct-lpi",
        ]
    );
    assert_eq!(controller(&machine, "/intc@8000000").status.value, Status::Disabled);
    assert_eq!(controller(&machine, "/intc@8000000/its@8080000").status.value, Status::Enabled);
}

/// Describes the controller inside a host bridge: its kind, its registers' address, its lines,
/// whether a driver exists, and its vectors.
fn inside(description: &Description, id: &str) -> Option<String> {
    let own = description.controller(host(description, id).own_controller?)?;
    let lines: Vec<u32> = own.lines.iter().map(|line| line.intid.get()).collect();
    let base = own.registers.as_ref()?.base();
    let (driven, vectors) = (own.is_driven(), own.vectors());
    Some(format!("{} {base:#x} {lines:?} {driven} {vectors:?}", own.kind))
}

#[test]
fn host_bridges_contain_their_own_msi_controllers() {
    let machine = read!("bridges");
    assert_eq!(machine.findings, []);
    let eight = "imsi-rx 0x20000000 [173, 174, 175, 176, 179, 180, 181, 189] true Some(256)";
    let expected = [
        ("/pcie@10000000", Some("imsi-rx 0x10000000 [172] true Some(32)")),
        ("/pcie@20000000", Some(eight)),
        ("/pcie@30000000", Some("imsi-rx 0x30000000 [253] true Some(32)")),
        ("/pcie@40000000", Some("mediatek-gen3 0x40000000 [823] true Some(256)")),
        ("/pcie@50000000", Some("renesas,pcie-r8a7795 0x50000000 [] false None")),
        ("/pcie@60000000", Some("imsi-rx 0x60000000 [] false Some(0)")),
        ("/pcie@70000000", None),
        ("/pcie@80000000", None),
    ];
    for (id, own) in expected {
        assert_eq!(inside(&machine, id).as_deref(), own, "{id}");
        if own.is_some() {
            assert_eq!(answer(&machine, id, 0x100), Ok((id.into(), 0x100, Via::Own)));
        }
    }
    let lines = &controller(&machine, "/pcie@20000000").lines;
    let edges = lines.iter().map(|line| line.trigger == Trigger::Edge);
    assert!(edges.eq([false, false, false, false, false, false, true, false]));
}

#[test]
fn a_mip_is_read_with_its_spis_and_message() {
    let machine = read!("bridges");
    let mip = controller(&machine, "/msi-controller@92000000");
    assert_eq!(mip.kind, ControllerKind::Mip);
    let ranges = mip.ranges.iter().map(|range| (range.first().get(), range.count()));
    assert!(ranges.eq([(432, 32)]));
    let message = MsiMessage { address: 0xff_ffff_f000, data: 8 };
    assert_eq!(mip.message.as_ref().map(|message| message.value), Some(message));
    assert_eq!(mip.doorbell(DeviceId::new(3)), Some(message.address));
    let (path, _, via) = answer(&machine, "/pcie@70000000", 0x100).unwrap();
    assert_eq!((path.as_str(), via), ("/msi-controller@92000000", Via::Map(0)));
}

#[test]
fn msi_controllers_in_host_bridges_are_written_as_they_are_read() {
    let machine = read!("bridges");
    let again = devicetree::parse(&devicetree::write(&machine).unwrap()).unwrap();
    for (before, after) in machine.controllers.iter().zip(&again.controllers) {
        let lines = |one: &Controller| one.lines.iter().map(|line| line.value).collect::<Vec<_>>();
        assert_eq!(lines(before), lines(after), "{}", before.id);
        assert_eq!(before.kind, after.kind, "{}", before.id);
        assert_eq!(before.message, after.message, "{}", before.id);
    }
    assert_eq!(machine.controllers.len(), again.controllers.len());
}

#[test]
fn a_written_gate_is_read_back() {
    let register = |address, bits| Some(MsiGate::Register { address, bits });
    let mut machine = read!("bridges");
    for (name, gate, is_shared) in [
        ("fsl,imx8mm-pcie", Some(MsiGate::RootPort), false),
        ("fsl,imx8mp-pcie", None, false),
        ("nvidia,tegra234-pcie", register(0x1800_0008, 1 << 31 | 1 << 4), true),
        ("renesas,rcar-gen4-pcie", register(0x1800_0310, 1 << 26), true),
    ] {
        machine.hosts[0].compatible = vec![name.to_owned()];
        let own = machine.hosts[0].own_controller.unwrap().get();
        machine.controllers[own].gate = gate.map(Fact::stated);
        machine.controllers[own].has_shared_line = is_shared;
        let again = devicetree::parse(&devicetree::write(&machine).unwrap()).unwrap();
        let read = controller(&again, machine.hosts[0].id.as_str());
        assert_eq!(read.gate.as_ref().map(|gate| gate.value), gate, "{name}");
        assert_eq!((read.has_shared_line, read.is_driven()), (is_shared, true), "{name}");
    }
}
