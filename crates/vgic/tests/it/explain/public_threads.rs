//! Faults of guests and monitors from public bug reports. Each test links to its report.

use super::guest::{
    CONFIGURATION, CPU, DEVICE, EVENT, Guest, LPI, PENDING, config, facts, mapc, mapd, mapti,
    propbaser,
};
use doorbell_test_support::guest::{Field, ITS, Machine, RAM};
use gic_arch::gicr::{self, Pendbaser};
use gic_arch::gits::{self, Baser, PageSize};
use gic_arch::its::{Command, Level1Entry};
use gic_arch::{Cacheability, icc};
use msi_types::explain::{self, ExplainInput, Fact, Group, Obstacle, TableRegister};
use msi_types::{Cpu, DeviceId, HwIrq, Level, Line, MsiMessage, NoIdentity, SetLine, SignalMsi};
use vgic::its::{ItsConfig, PageSizes, TableLevels};
use vgic::{AccessWidth, GuestMemory, V2mConfig, VgicConfig};

const SPI: u32 = 40;
/// Address of the second kernel's LPI configuration table.
const SECOND: u64 = RAM + 0x18_0000;

/// <https://github.com/freebsd/freebsd-src/pull/676>: a kernel that another kernel started with
/// kexec cannot replace the LPI tables, because LPIs are still enabled.
#[test]
fn an_ignored_propbaser_write_after_kexec_is_named() {
    let guest = Guest::working();
    guest.configure(0xa0);
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    let own = propbaser().with_address(SECOND);
    guest.machine.write_gicr(0, gicr::PROPBASER, own);
    guest.machine.ram.write(SECOND, &[0xa1]).unwrap();
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    guest.send();
    let register = TableRegister::Propbaser(CPU);
    let (value, ignored) = (propbaser().into_bits(), own.into_bits());
    let expected = Obstacle::WriteIgnored { register, value, ignored };
    assert_eq!(guest.obstacle(), Some(expected));
}

/// <https://github.com/valentinbreiz/nativeaot-patcher/pull/343>: firmware had enabled LPIs. The
/// kernel did not write `GICR_PROPBASER`, and configured its LPIs in its own table.
#[test]
fn the_address_of_the_configuration_byte_is_shown() {
    let guest = Guest::working();
    guest.configure(0);
    guest.machine.ram.write(SECOND, &[0xa1]).unwrap();
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    guest.send();
    let explanation = guest.explain();
    assert_eq!(explanation.obstacle(), Some(Obstacle::Disabled { interrupt: LPI }));
    let read = Fact::ConfigurationByte { address: CONFIGURATION, byte: 0 };
    assert!(facts(&explanation).contains(&read));
}

/// <https://github.com/cloud-hypervisor/cloud-hypervisor/pull/8638>: a monitor restored the
/// redistributor registers of vCPU 0 to all vCPUs, which then shared one pending table.
#[test]
fn a_pending_table_shared_by_two_cpus_is_named() {
    let guest = Guest::new(config());
    let pending = Pendbaser::new().with_address(PENDING);
    for cpu in 0..2 {
        guest.machine.write_gicr(cpu, gicr::PROPBASER, propbaser());
        guest.machine.write_gicr(cpu, gicr::PENDBASER, pending);
        guest.machine.write_gicr(cpu, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    }
    guest.machine.start_its();
    guest.machine.run([mapc(0, 1), mapd(1), mapti(0, 8192, 0)]);
    let cpu = Cpu::new(1);
    let pendbaser = pending.into_bits();
    let expected = Obstacle::SharedPendingTable { cpu, pendbaser, other: CPU };
    assert_eq!(guest.obstacle(), Some(expected));
    guest.send();
    assert_eq!(guest.obstacle(), None, "it is pending all the same");
}

/// <https://github.com/infernode-os/infernode/pull/677>: a GICv2m frame pulses its SPI. If the SPI
/// is level-sensitive, it is no longer pending after the pulse.
#[test]
fn a_pulse_at_a_level_sensitive_input_is_named() {
    let frame = V2mConfig::new(0x0802_0000, 80, 64);
    let machine = Machine::running(VgicConfig::new(1).with_v2m(vec![frame]));
    machine.enable_spi(80);
    let message = MsiMessage { address: 0x0802_0040, data: 80 };
    machine.gic.signal_msi(NoIdentity, message);
    let interrupt = HwIrq::new(80);
    let obstacle = || machine.gic.explain_message(None, message).obstacle();
    assert_eq!(obstacle(), Some(Obstacle::LevelSensitive { interrupt }));
    machine.make_edge(80);
    assert!(machine.gic.explain_message(None, message).is_idle());
    machine.gic.signal_msi(NoIdentity, message);
    assert_eq!(obstacle(), None);
}

/// <https://github.com/raspberrypi/linux/pull/2267>: a device holds its line high until all causes
/// are handled, but the input is edge-triggered. If the handler misses one cause, no further edge
/// arrives.
#[test]
fn a_line_held_high_on_an_edge_triggered_input_is_named() {
    let mut machine = Machine::running(VgicConfig::new(1));
    machine.make_edge(SPI);
    machine.enable_spi(SPI);
    machine.raise(SPI);
    assert_eq!(machine.acknowledge(0), u64::from(SPI));
    machine.end(0, SPI.into());
    machine.raise(SPI);
    let obstacle = || machine.gic.explain_line(Line::Spi(SPI)).obstacle();
    let interrupt = HwIrq::new(SPI);
    assert_eq!(obstacle(), Some(Obstacle::NoEdge { interrupt }));
    machine.gic.set_line(Line::Spi(SPI), Level::Low);
    assert!(machine.gic.explain_line(Line::Spi(SPI)).is_idle());
}

/// Returns a guest whose ITS has a two-level device table with `pages` first-level pages of 4 KiB.
fn two_levels(pages: u8) -> Guest {
    let its = ItsConfig::new(ITS).with_device_id_bits(20);
    let its = its.with_device_table(TableLevels::FlatOrTwo).with_page_sizes(PageSizes::Any);
    let guest = Guest::new(config().with_its(vec![its]));
    guest.enable_lpis();
    guest.machine.start_its();
    guest.machine.write(ITS, AccessWidth::Word, 0);
    let table = Baser::new()
        .with_page_size(PageSize::Size4K)
        .with_pages_minus_one(pages - 1)
        .with_indirect(true)
        .with_address(RAM + 0x30_0000)
        .with_valid(true);
    write_baser(&guest, 0, table);
    guest.machine.write(ITS, AccessWidth::Word, 1);
    guest
}

fn write_baser(guest: &Guest, index: u32, table: Baser) {
    let register = ITS + u64::from(gits::BASER.get(index).unwrap().offset());
    guest.machine.write(register, AccessWidth::Double, table.into_bits());
}

/// <https://github.com/zephyrproject-rtos/zephyr/pull/119205>: the first level of the device table
/// is half as large as the DeviceIDs need.
#[test]
fn an_undersized_first_level_device_table_is_named() {
    let guest = two_levels(2);
    let device = DeviceId::new(0x8_0000);
    let explanation = guest.machine.gic.explain(0, device, EVENT);
    assert_eq!(explanation.obstacle(), Some(Obstacle::DeviceOutOfRange { device, bits: 19 }));
}

#[test]
fn a_missing_second_level_device_table_is_named() {
    let guest = two_levels(2);
    let (at, level) =
        (RAM + 0x30_0000, Level1Entry::new().with_address_51_12((RAM + 0x38_0000) >> 12));
    let missing = Some(Obstacle::NoSecondLevel { device: DEVICE });
    assert_eq!(guest.obstacle(), missing);
    guest.machine.ram.write(at, &level.into_bits().to_le_bytes()).unwrap();
    guest.machine.queue([mapd(1)]);
    assert_eq!(guest.obstacle(), missing);
    let refused = facts(&guest.explain())
        .into_iter()
        .any(|fact| matches!(fact, Fact::RefusedCommands { count: 1, command: "MAPD", .. }));
    assert!(refused);
    let valid = level.with_valid(true).into_bits().to_le_bytes();
    guest.machine.ram.write(at, &valid).unwrap();
    let unmapped = Obstacle::UnmappedDevice { device: DEVICE, mapped: 0 };
    assert_eq!(guest.obstacle(), Some(unmapped));
}

#[test]
fn a_table_without_its_valid_bit_is_named() {
    for index in [0, 1] {
        let guest = Guest::new(config());
        guest.enable_lpis();
        guest.machine.start_its();
        guest.machine.write(ITS, AccessWidth::Word, 0);
        let register = ITS + u64::from(gits::BASER.get(index).unwrap().offset());
        let right = Baser::from_bits(guest.machine.read(register, AccessWidth::Double));
        write_baser(&guest, index, right.with_valid(false));
        guest.machine.write(ITS, AccessWidth::Word, 1);
        guest.machine.queue([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
        let value = right.with_valid(false).into_bits();
        let register = TableRegister::Baser(u8::try_from(index).unwrap());
        assert_eq!(guest.obstacle(), Some(Obstacle::InvalidTable { register, value }));
    }
}

/// <https://github.com/OP-TEE/optee_os/pull/2816>: the interrupt was put into Group 0, while the
/// kernel enables and acknowledges Group 1.
#[test]
fn an_interrupt_that_was_left_in_group_0_is_named() {
    let machine = Machine::running(VgicConfig::new(1));
    machine.enable_spi(SPI);
    machine.set_field(0, Field::Group, SPI, 0);
    machine.raise(SPI);
    let interrupt = HwIrq::new(SPI);
    let expected = Obstacle::WrongGroup { interrupt, group: Group::Zero };
    assert_eq!(machine.gic.explain_line(Line::Spi(SPI)).obstacle(), Some(expected));
}

/// <https://github.com/ARM-software/tf-issues/issues/645>: the priority is the lowest that the GIC
/// implements, which is no higher than the mask.
#[test]
fn the_lowest_priority_is_reported_as_masked() {
    let mut guest = Guest::working();
    guest.configure(0xf9);
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    guest.send();
    guest.machine.msr(0, icc::PMR.encoding(), 0xf8);
    let expected = Obstacle::PriorityMasked { priority: 0xf8, mask: 0xf8, cpu: CPU };
    assert_eq!(guest.obstacle(), Some(expected));
}

/// <https://github.com/hisilicon/kernel-dev/pull/39>: with `maxcpus=`, the kernel routes an LPI to
/// a CPU that was never brought up.
#[test]
fn a_target_cpu_that_never_enabled_lpis_is_named() {
    let guest = Guest::new(config());
    guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
    guest.machine.write_gicr(0, gicr::PENDBASER, Pendbaser::new().with_address(PENDING));
    guest.set_enable_lpis();
    guest.machine.start_its();
    guest.machine.run([mapc(0, 0), mapc(1, 1), mapd(1), mapti(0, 8192, 1)]);
    guest.send();
    assert_eq!(guest.obstacle(), Some(Obstacle::LpisDisabled { cpu: Cpu::new(1) }));
}

/// An ignored write that names the table already in use has no effect, so the explanation must not
/// report it.
#[test]
fn an_ignored_write_of_the_same_table_is_not_reported() {
    let guest = Guest::working();
    let cached = propbaser().with_inner_cache(Cacheability::ReadWriteAllocateWriteBack);
    guest.machine.write_gicr(0, gicr::PROPBASER, cached);
    let same = Pendbaser::new().with_address(PENDING);
    guest.machine.write_gicr(0, gicr::PENDBASER, same.with_pending_table_zero(true));
    assert!(guest.explain().is_idle());
    guest.configure(0xa0);
    guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
    assert_eq!(guest.obstacle(), Some(Obstacle::Disabled { interrupt: LPI }));
}

#[test]
fn an_ignored_pendbaser_write_without_an_address_is_not_reported() {
    let guest = Guest::new(config());
    guest.machine.write_gicr(0, gicr::PROPBASER, propbaser());
    guest.set_enable_lpis();
    guest.machine.write_gicr(0, gicr::PENDBASER, Pendbaser::new().with_pending_table_zero(true));
    guest.machine.start_its();
    guest.machine.run([mapc(0, 0), mapd(1), mapti(0, 8192, 0)]);
    assert_eq!(guest.obstacle(), Some(Obstacle::NoPendingTable { cpu: CPU, pendbaser: 0 }));
}

/// A function that plants a fault in a guest, and the expected obstacle.
type Planted = (fn(&mut Machine), Obstacle);

/// Returns faults in the order in which they stop an event.
fn on_the_way() -> Vec<Planted> {
    use gic_arch::its::{CollectionId, MapAction, RdBase};
    let (device, event, cpu, interrupt) = (DEVICE, EVENT, CPU, LPI);
    let disabled = Obstacle::InterfaceGroupDisabled { group: Group::One, cpu };
    vec![
        (|machine| machine.write(ITS, AccessWidth::Word, 0), Obstacle::ItsDisabled { its: ITS }),
        (
            |machine| {
                let (device, action) = (DEVICE, MapAction::Unmap);
                machine.run([Command::Mapd { device, itt: 0, event_bits_minus_one: 0, action }]);
            },
            Obstacle::UnmappedDevice { device, mapped: 0 },
        ),
        (
            |machine| machine.run([Command::Discard { device: DEVICE, event: EVENT }]),
            Obstacle::UnmappedEvent { device, event },
        ),
        (
            |machine| {
                let (target, action) = (RdBase::from_processor_number(0), MapAction::Unmap);
                let collection = CollectionId::new(0);
                machine.run([Command::Mapc { collection, target, action }]);
            },
            Obstacle::UnmappedCollection { collection: 0 },
        ),
        (
            |machine| machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new()),
            Obstacle::LpisDisabled { cpu },
        ),
        (
            |machine| {
                machine.ram.write(CONFIGURATION, &[0xa0]).unwrap();
                machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
            },
            Obstacle::Disabled { interrupt },
        ),
        (
            |machine| {
                let asleep = gicr::Waker::new().with_processor_sleep(true);
                machine.write_gicr(0, gicr::WAKER, asleep);
            },
            Obstacle::Asleep { cpu },
        ),
        (|machine| machine.msr(0, icc::IGRPEN1.encoding(), 0), disabled),
        (
            |machine| machine.msr(0, icc::PMR.encoding(), 0),
            Obstacle::PriorityMasked { priority: 0xa0, mask: 0, cpu },
        ),
    ]
}

/// If a guest has two faults, the explanation names both, unless the first one hides the second:
/// what the ITS does not translate, and what its redistributor does not read, has no configuration.
#[test]
fn both_of_two_faults_are_named() {
    let faults = on_the_way();
    for (first, (plant_first, expected)) in faults.iter().enumerate() {
        for (plant_second, second) in &faults[first + 1..] {
            let mut guest = Guest::working_with(config().with_can_clear_enable_lpis(true));
            guest.send();
            plant_second(&mut guest.machine);
            plant_first(&mut guest.machine);
            let found: Vec<_> = guest.explain().obstacles().collect();
            let hides = expected.stage() == explain::Stage::Translation
                || matches!(expected, Obstacle::LpisDisabled { .. });
            let both: &[_] = if hides { &[*expected] } else { &[*expected, *second] };
            assert_eq!(found, both);
        }
    }
}
