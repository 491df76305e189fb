//! Tests for deriving driver configurations from firmware's descriptions.

use doorbell_test_support::after_failures;
use gic_arch::{Affinity, Iidr, IntId};
use gic_bringup::config::{self, RootConfig};
use gic_bringup::{BringUpError, ControllerError, Options};
use gic_driver::errata::{self, Erratum, IdRegister};
use gic_driver::its::IfEnabled;
use gic_driver::mbi::MbiConfig;
use gic_driver::{
    Coherence, GicConfig, GicV2Config, ItsConfig, PhysicalRegion, RedistributorRegion, SpiRange,
    TableAccess, V2mFrame,
};
use gic_firmware::{
    Controller, ControllerIndex, ControllerKind, CpuNode, Description, Fact, Gic, GicVersion,
    IntIdSpan, MapEntry, MsiRouting, PciHost, Region, Status, Target, WiredInterrupt, acpi,
    devicetree,
};
use msi_types::pci::{PciSpace, PciWindow};
use msi_types::{DeviceId, HwIrq, RequesterId, Trigger};
use std::num::NonZeroU16;

fn region(base: u64, size: u64) -> Region {
    Region::new(base, size).unwrap()
}

/// A GICv3 with two CPUs.
fn machine() -> Description {
    let cpu =
        |number: u8| CpuNode::new(format!("/cpus/cpu@{number}"), Affinity::new(0, 0, 0, number));
    Description {
        gic: Some(Gic::v3("/gic", region(0xfd40_0000, 0x1_0000), [region(0xfd46_0000, 0x10_0000)])),
        cpus: vec![cpu(0), cpu(1)],
        ..Description::default()
    }
}

fn v3(description: &Description, options: &Options<'_>) -> GicConfig {
    match RootConfig::new(description, options) {
        Ok(RootConfig::V3(config)) => config,
        other => panic!("{other:?}"),
    }
}

/// Returns the errata that apply to GIC-600 redistributors on a machine with these root
/// `compatible` names in its devicetree.
fn errata_of(names: &[&str]) -> Vec<Erratum> {
    let compatible = names.iter().map(|name| (*name).to_owned()).collect();
    let described = Description { compatible, ..machine() };
    let read = devicetree::parse(&devicetree::write(&described).unwrap()).unwrap();
    let names: Vec<_> = read.quirk_names().collect();
    errata::matching(IdRegister::Redistributor, Iidr::from(0x0201_743b), &names)
        .map(|entry| entry.erratum)
        .collect()
}

#[test]
fn the_devicetree_machine_name_selects_errata() {
    assert_eq!(errata_of(&["radxa,rock-5b", "rockchip,rk3588"]), [Erratum::TablesNotCoherent]);
    assert_eq!(errata_of(&["pine64,quartz64-a", "rockchip,rk3566"]), [Erratum::TablesBelow4GiB]);
    assert_eq!(errata_of(&["linux,dummy-virt"]), []);
}

#[test]
fn gicv3_config_has_described_regions_stride_and_coherence() {
    let mut described = machine();
    let gic = described.gic.as_mut().unwrap();
    gic.redistributor_stride = Some(Fact::stated(0x4_0000));
    gic.coherence = Fact::stated(gic_firmware::Coherence::NonCoherent);
    described.compatible = vec!["rockchip,rk3588".to_owned()];
    let frames = PhysicalRegion { base: 0xfd46_0000, bytes: 0x10_0000 };
    let redistributors = RedistributorRegion::new(frames).with_stride(Some(0x4_0000));
    let cpus = vec![Affinity::new(0, 0, 0, 0), Affinity::new(0, 0, 0, 1)];
    let expected = GicConfig::new(0xfd40_0000, vec![redistributors], cpus)
        .with_table_access(TableAccess::NonCoherent)
        .with_lpi_id_bits(Some(14))
        .with_machine(vec!["rockchip,rk3588".to_owned(), "arm,gic-v3".to_owned()]);
    assert_eq!(v3(&described, &Options::default().with_lpi_id_bits(Some(14))), expected);
}

#[test]
fn disabled_and_excess_cpus_are_left_out_of_the_config() {
    let mut described = machine();
    described.cpus[0].status = Fact::stated(Status::Disabled);
    assert_eq!(v3(&described, &Options::default()).cpus(), [Affinity::new(0, 0, 0, 1)]);
    let one = Options::default().with_max_cpus(1);
    assert_eq!(v3(&machine(), &one).cpus(), [Affinity::new(0, 0, 0, 0)]);
    let none = Options::default().with_max_cpus(0);
    assert_eq!(RootConfig::new(&machine(), &none), Err(BringUpError::NoCpus));
}

#[test]
fn a_gicv2_config_requires_a_cpu_interface() {
    let mut described = machine();
    let gic = described.gic.as_mut().unwrap();
    gic.version = Fact::stated(GicVersion::V2);
    assert_eq!(RootConfig::new(&described, &Options::default()), Err(BringUpError::NoCpuInterface));
    described.gic.as_mut().unwrap().cpu_interface = Some(Fact::stated(region(0x801_0000, 0x2000)));
    let expected = GicV2Config::new(0xfd40_0000, 0x801_0000, 2).with_cpu_interface_bytes(0x2000);
    assert_eq!(RootConfig::new(&described, &Options::default()), Ok(RootConfig::V2(expected)));
}

#[test]
fn gicv2_config_keeps_at_most_eight_cpus() {
    let mut described = machine();
    described.cpus =
        (0..9).map(|number| CpuNode::new("/cpus/cpu", Affinity::new(0, 0, 0, number))).collect();
    let gic = described.gic.as_mut().unwrap();
    gic.version = Fact::stated(GicVersion::V2);
    gic.cpu_interface = Some(Fact::stated(region(0x801_0000, 0x2000)));
    assert_eq!(RootConfig::new(&described, &Options::default()).unwrap().cpus().get(), 8);
}

#[test]
fn a_disabled_or_missing_gic_is_reported() {
    let mut described = machine();
    described.gic.as_mut().unwrap().status = Fact::stated(Status::Disabled);
    assert_eq!(RootConfig::new(&described, &Options::default()), Err(BringUpError::NoGic));
    assert_eq!(
        RootConfig::new(&Description::default(), &Options::default()),
        Err(BringUpError::NoGic)
    );
}

#[test]
fn its_config_has_described_coherence_and_machine_names() {
    let mut described = machine();
    described.compatible = vec!["rockchip,rk3588".to_owned()];
    let mut its = Controller::its("/gic/its", region(0xfe64_0000, 0x2_0000));
    its.coherence = Fact::stated(gic_firmware::Coherence::NonCoherent);
    let cpus = NonZeroU16::new(2).unwrap();
    let expected = ItsConfig::new(0xfe64_0000, 2)
        .with_coherence(Coherence::NonCoherent)
        .with_machine(vec!["rockchip,rk3588".to_owned(), "arm,gic-v3".to_owned()])
        .with_if_enabled(IfEnabled::TakeOver);
    assert_eq!(config::its(&described, &its, cpus), Ok(expected.clone()));
    its.pre_its = Some(Fact::stated(region(0x5800_0000, 0x20_0000)));
    let window = PhysicalRegion { base: 0x5800_0000, bytes: 0x20_0000 };
    assert_eq!(config::its(&described, &its, cpus), Ok(expected.with_pre_its(Some(window))));
    its.registers = None;
    let refused = config::its(&described, &its, NonZeroU16::MIN);
    assert_eq!(refused, Err(ControllerError::NoRegisters));
}

#[test]
fn an_mbi_frame_outside_the_distributor_becomes_the_alias() {
    let described = machine();
    let span = |first, count| Fact::stated(IntIdSpan::new(IntId::new(first), count).unwrap());
    let mut mbi = Controller::new("/gic", ControllerKind::Mbi, Some(region(0xfd40_0000, 0x1_0000)));
    mbi.ranges = vec![span(424, 56), span(500, 0)];
    let count = NonZeroU16::new(56).unwrap();
    let expected = MbiConfig::new(vec![SpiRange { first: HwIrq::new(424), count }]);
    let what = "an empty range is dropped";
    assert_eq!(config::mbi(&described, &mbi), Ok(expected.clone()), "{what}");
    mbi.registers = Some(Fact::stated(region(0xfd41_0000, 0x1_0000)));
    let expected = expected.with_alias(Some(0xfd41_0000));
    assert_eq!(config::mbi(&described, &mbi), Ok(expected));
}

#[test]
fn v2m_config_has_the_spis_that_firmware_states() {
    let mut frame = Controller::new("/v2m", ControllerKind::V2m, Some(region(0x802_0000, 0x1000)));
    let described = machine();
    assert_eq!(config::v2m(&described, &frame), Ok(V2mFrame::new(0x802_0000)));
    frame.ranges = vec![Fact::stated(IntIdSpan::new(IntId::new(80), 64).unwrap())];
    let stated = V2mFrame::new(0x802_0000).with_first_spi(Some(80)).with_spi_count(Some(64));
    assert_eq!(config::v2m(&described, &frame), Ok(stated));
}

#[test]
fn v2m_config_has_the_madt_oem_id() {
    let frame = Controller::new("/v2m", ControllerKind::V2m, Some(region(0x802_0000, 0x1000)));
    let named = Description {
        compatible: vec!["GRAVITON".to_owned(), "AMAZON".to_owned()],
        controllers: vec![frame.clone()],
        ..machine()
    };
    let tables = acpi::write(&named).unwrap();
    let tables = acpi::TableSet::from_blobs(tables.all().map(|(_, table)| table)).unwrap();
    let by_acpi = acpi::parse(&tables);
    let expected = V2mFrame::new(0x802_0000);
    let with_oem_id = expected.with_oem_id(Some("AMAZON"));
    assert_eq!(config::v2m(&by_acpi, &frame), Ok(with_oem_id));
    let by_devicetree = devicetree::parse(&devicetree::write(&named).unwrap()).unwrap();
    assert_eq!(config::v2m(&by_devicetree, &frame), Ok(expected));
}

#[test]
fn id_map_applies_the_msi_mask_and_is_none_for_an_unused_controller() {
    let its = ControllerIndex::new(0);
    let entry = MapEntry {
        rid_base: RequesterId::new(0),
        target: Target::Controller(its),
        device_id_base: DeviceId::new(0x1_0000),
        length: 0x100,
    };
    let routing = MsiRouting {
        map: Some(vec![Fact::stated(entry)]),
        mask: Some(Fact::stated(0xff)),
        ..MsiRouting::default()
    };
    let host = PciHost::ecam("/pcie", region(0x1000_0000, 0x1000_0000), routing);
    let mut described = machine();
    described.controllers = vec![Controller::its("/gic/its", region(0xfe64_0000, 0x2_0000))];
    described.hosts = vec![host];
    let map = config::id_map(&described, &described.hosts[0], its).unwrap().unwrap();
    assert_eq!(map.device(RequesterId::new(0x0305)), Some(DeviceId::new(0x1_0005)));
    let other = config::id_map(&described, &described.hosts[0], ControllerIndex::new(1)).unwrap();
    assert!(other.is_none(), "the host routes nothing to another controller");
}

#[test]
fn running_out_of_memory_fails_root_config_and_id_map() {
    let mut described = machine();
    described.compatible = vec!["radxa,rock-5b".to_owned(), "rockchip,rk3588".to_owned()];
    let no_memory = |error| assert_eq!(error, BringUpError::NoMemory);
    after_failures(1, || RootConfig::new(&described, &Options::default()), no_memory);

    let map = vec![Fact::stated(MapEntry {
        rid_base: RequesterId::new(0),
        length: 0x100,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: DeviceId::new(0),
    })];
    let mut second = map[0].clone();
    second.value.rid_base = RequesterId::new(0x200);
    let routing = MsiRouting { map: Some([map, vec![second]].concat()), ..MsiRouting::default() };
    let host = PciHost::ecam("/pcie", region(0x1000_0000, 0x1000_0000), routing);
    described.controllers = vec![Controller::its("/gic/its", region(0xfe64_0000, 0x2_0000))];
    described.hosts = vec![host];
    let map = || config::id_map(&described, &described.hosts[0], ControllerIndex::new(0));
    assert!(after_failures(1, map, drop).is_some());
}

#[test]
fn config_lists_the_boot_cpu_at_its_kernel_number() {
    let boot = |number, place: u8, options: &Options<'_>| {
        let affinity = Affinity::new(0, 0, 0, place);
        config::cpus(&machine(), options, Some((msi_types::Cpu::new(number), affinity)))
            .map(|cpus| cpus.iter().map(|cpu| cpu.levels()[3]).collect::<Vec<_>>())
    };
    let all = Options::default();
    assert_eq!(boot(0, 0, &all), Ok(vec![0, 1]));
    assert_eq!(boot(0, 1, &all), Ok(vec![1, 0]));
    assert_eq!(boot(1, 1, &all), Ok(vec![0, 1]));
    assert_eq!(boot(u32::MAX, 0, &all), Ok(vec![1, 0]));
    assert_eq!(
        boot(0, 1, &Options::default().with_max_cpus(1)),
        Ok(vec![1]),
        "the boot CPU is always included"
    );
    let unknown = BringUpError::UnknownBootCpu(Affinity::new(0, 0, 0, 7));
    assert_eq!(boot(0, 7, &all), Err(unknown));
}

#[test]
fn a_gicv2_config_ignores_the_boot_cpus_affinity() {
    let mut described = machine();
    described.gic.as_mut().unwrap().version = Fact::stated(GicVersion::V2);
    let boot = Some((msi_types::Cpu::new(0), Affinity::new(0, 0, 0, 7)));
    assert_eq!(config::cpus(&described, &Options::default(), boot).map(|cpus| cpus.len()), Ok(2));
}

/// Returns the address to which functions behind a bridge with its registers at 0x3380_0000 write,
/// given the bridge's windows to functions and to memory, and the memory.
fn bridge_doorbell(
    windows: &[(Region, u64)],
    dma_windows: &[(Region, u64)],
    memory: &[Region],
) -> Result<u64, ControllerError> {
    let index = ControllerIndex::new(0);
    let registers = Some(region(0x3380_0000, 0x1000));
    let line = WiredInterrupt { intid: IntId::new(172), trigger: Trigger::Level };
    let window = |(cpu, bus): &(Region, u64)| {
        Fact::stated(PciWindow::new(PciSpace::Memory32, *cpu, *bus).unwrap())
    };
    let host = PciHost {
        own_controller: Some(index),
        windows: windows.iter().map(window).collect(),
        dma_windows: dma_windows.iter().map(window).collect(),
        ..PciHost::ecam("/pcie", region(0x4000_0000_0000, 0x1000_0000), MsiRouting::default())
    };
    let described = Description {
        memory: memory.iter().copied().map(Fact::stated).collect(),
        hosts: vec![host],
        controllers: vec![Controller {
            lines: vec![Fact::stated(line)],
            ..Controller::new("/pcie", ControllerKind::ImsiRx, registers)
        }],
        ..machine()
    };
    config::bridge_msi(&described, index).map(|config| config.doorbell())
}

#[test]
fn the_doorbell_avoids_memory_and_bridge_windows() {
    let [own, top] = [0x3380_0000, 0xfff0_0000];
    let low = region(0x3000_0000, 0x1000_0000);
    let all = region(0, 1 << 32);
    for (windows, dma_windows, memory, expected) in [
        (&[][..], &[][..], &[][..], Ok(own)),
        (&[], &[], &[region(0x4000_0000, 1 << 30)], Ok(own)),
        // Memory is at the registers' PCI address, directly or through a window.
        (&[], &[], &[low], Ok(top)),
        (&[], &[(low, 0x3000_0000)], &[low], Ok(top)),
        (&[], &[(low, 0x8000_0000)], &[low], Ok(own)),
        (&[], &[(region(0x8000_0000, 1 << 30), 0)], &[region(0x8000_0000, 1 << 30)], Ok(top)),
        // The bridge forwards the address to functions.
        (&[(low, 0x3000_0000)], &[], &[], Ok(top)),
        (&[(low, 0x3000_0000)], &[], &[region(0xc000_0000, 1 << 30)], Ok(0xbff0_0000)),
        (&[], &[], &[all], Err(ControllerError::NoDoorbell)),
    ] {
        let chosen = bridge_doorbell(windows, dma_windows, memory);
        assert_eq!(chosen, expected, "{windows:?} {dma_windows:?} {memory:?}");
    }
}
