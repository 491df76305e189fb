//! Tests for devices that write to doorbells without a DeviceID, and to the registers next to the
//! doorbells.

use doorbell_test_support::guest::{Machine, RAM};
use gic_arch::{IntId, gicd, gicr, gits, v2m};
use msi_types::Delivery::{self, Blocked, NoDoorbell, Pending};
use msi_types::{MsiMessage, NoIdentity, SignalMsi};
use vgic::AccessWidth::{Byte, Double, Half, Word};
use vgic::its::ItsConfig;
use vgic::{
    Block, ConfigError, DeviceWrite, FaultReason, GuestMemory, SecurityView, Sleep, V2mConfig,
    V2mConfigError, Vgic, VgicConfig,
};

const SPURIOUS: u64 = 1023;
const SPI: u32 = 40;
const FRAME: u64 = 0x0802_0000;
const ALIAS: u64 = 0x0801_0000;

fn ring(gic: &Vgic, address: u64, data: u32) -> Delivery {
    gic.signal_msi(NoIdentity, MsiMessage { address, data })
}

/// Returns the configuration for a machine on which messages set and clear SPIs, including extended
/// SPIs, through the distributor's frame and its alias.
fn mbi(security: SecurityView) -> VgicConfig {
    VgicConfig::new(1)
        .with_message_based_spis(true)
        .with_mbi_alias(Some(ALIAS))
        .with_extended_spis(64)
        .with_security(security)
}

const SET: u64 = gicd::SETSPI_NSR.offset() as u64;
const CLEAR: u64 = gicd::CLRSPI_NSR.offset() as u64;

#[test]
fn setspi_in_either_frame_makes_an_edge_spi_pending() {
    for frame in [0x0800_0000, ALIAS] {
        let mut machine = Machine::running(mbi(SecurityView::Single));
        machine.make_edge(SPI);
        machine.enable_spi(SPI);

        assert_eq!(ring(&machine.gic, frame + SET, SPI), Pending);
        assert_eq!(ring(&machine.gic, frame + SET, SPI), Pending, "coalesced");

        assert_eq!([machine.handle(0), machine.acknowledge(0)], [SPI.into(), SPURIOUS]);
    }
}

#[test]
fn setspi_accepts_extended_spi_numbers() {
    let machine = Machine::running(mbi(SecurityView::Single));
    assert_eq!(ring(&machine.gic, ALIAS + SET, 4096 + 63), Pending);
    let register = gicd::ISPENDR_E.locate(IntId::new(4096 + 63)).unwrap().register();
    assert_eq!(machine.read_gicd(register), 1 << 31);
}

#[test]
fn an_unknown_spi_is_ignored_and_counted() {
    let machine = Machine::running(mbi(SecurityView::Single));
    let faults = || machine.gic.events().count(FaultReason::NoSuchInterrupt);
    let before = faults();
    for (count, number) in (1..).zip([0, 27, 31, 32 + 256, 1020, 1023, 1056, 4096 + 64, 8191]) {
        assert_eq!(ring(&machine.gic, ALIAS + SET, number), Blocked, "{number}");
        assert_eq!(faults() - before, count);
    }
}

#[test]
fn messages_do_not_reach_secure_spis() {
    let config = mbi(SecurityView::NonSecure).with_secure_interrupts(vec![IntId::new(SPI)]);
    let machine = Machine::new(config);
    assert_eq!(ring(&machine.gic, ALIAS + SET, SPI), Blocked);
    assert_eq!(ring(&machine.gic, ALIAS + SET, SPI + 1), Pending);
}

#[test]
fn without_mbis_there_are_no_doorbells() {
    let machine = Machine::running(VgicConfig::new(1));
    assert_eq!(ring(&machine.gic, 0x0800_0000 + SET, SPI), NoDoorbell);
    assert_eq!(machine.read_gicd(gicd::TYPER) >> 16 & 1, 0);
    let machine = Machine::running(mbi(SecurityView::Single));
    assert_eq!(machine.read_gicd(gicd::TYPER) >> 16 & 1, 1);
}

#[test]
fn mbi_doorbells_accept_16_and_32_bit_writes() {
    let machine = Machine::running(mbi(SecurityView::Single));
    let register = gicd::ISPENDR.locate(IntId::new(SPI)).unwrap().register();
    let write = |width| {
        ring(&machine.gic, ALIAS + CLEAR, SPI);
        let written = machine.gic.write_from_device(ALIAS + SET, width, SPI.into());
        (written.unwrap(), machine.read_gicd(register) != 0)
    };
    assert_eq!(write(Byte), (DeviceWrite::Register, false));
    assert_eq!([Half, Word].map(write), [(DeviceWrite::Message(Pending), true); 2]);
}

#[test]
fn the_alias_holds_nothing_but_doorbells() {
    let machine = Machine::running(mbi(SecurityView::Single));
    for offset in (0..0x1_0000).step_by(4) {
        machine.gic.write_from_device(ALIAS + offset, Word, u64::from(u32::MAX)).unwrap();
        assert_eq!(machine.read(ALIAS + offset, Word), 0, "{offset:#x}");
    }
    assert_eq!(machine.read_gicd(gicd::CTLR), 0x53);
    assert_eq!(machine.read_gicd(gicd::ISENABLER.registers().get(1).unwrap()), 0);
}

/// Creates a machine with direct LPIs enabled at each redistributor, and with `configuration` as
/// the start of the LPI configuration table.
fn direct(configuration: &[u8]) -> Machine {
    let config = VgicConfig::new(2).with_direct_lpi(true).with_lpi_id_bits(Some(15));
    let machine = Machine::running(config);
    machine.ram.write(RAM, configuration).unwrap();
    machine.enable_lpis(14, RAM, RAM + 0x10_0000);
    machine
}

fn setlpir(machine: &Machine, cpu: usize) -> u64 {
    machine.frame(cpu) + u64::from(gicr::SETLPIR.offset())
}

fn clrlpir(machine: &Machine, cpu: usize) -> u64 {
    machine.frame(cpu) + u64::from(gicr::CLRLPIR.offset())
}

#[test]
fn clrlpir_clears_a_pending_lpi() {
    let mut machine = direct(&[0xa1; 64]);
    ring(&machine.gic, setlpir(&machine, 0), 8200);
    ring(&machine.gic, setlpir(&machine, 0), 8201);

    assert_eq!(ring(&machine.gic, clrlpir(&machine, 0), 8200), Blocked);
    assert_eq!(ring(&machine.gic, clrlpir(&machine, 0), 8200), Blocked, "no longer pending");
    assert_eq!(ring(&machine.gic, clrlpir(&machine, 1), 8201), Blocked, "at another redistributor");

    assert_eq!((machine.acknowledge(0), machine.acknowledge(0)), (8201, SPURIOUS));
}

#[test]
fn the_first_setlpir_kicks_a_sleeping_vcpu_once() {
    let mut machine = direct(&[0xa1; 64]);
    assert_eq!(machine.vcpus[1].prepare_to_sleep(), Sleep::Ready);

    for lpi in [8200, 8232] {
        assert_eq!(ring(&machine.gic, setlpir(&machine, 1), lpi), Pending);
    }

    assert_eq!((machine.kicks.of(0), machine.kicks.of(1)), (0, 1));
    machine.vcpus[1].returned();
    assert_eq!(machine.vcpus[1].prepare_to_sleep(), Sleep::DontSleep);
    assert_eq!((machine.acknowledge(1), machine.acknowledge(0)), (8200, SPURIOUS));
    machine.end(1, 8200);
    assert_eq!(machine.acknowledge(1), 8232);
    machine.end(1, 8232);
    assert_eq!(machine.vcpus[1].prepare_to_sleep(), Sleep::Ready);
    assert_eq!(machine.kicks.of(1), 1);
}

#[test]
fn a_deferred_setlpir_is_saved() {
    let mut machine = direct(&[0xa1; 64]);
    ring(&machine.gic, setlpir(&machine, 1), 8200);

    let saved = machine.save();

    let pending: Vec<_> = saved.cpus.iter().flat_map(|cpu| &cpu.redistributor.lpis).collect();
    assert!(matches!(pending[..], [lpi] if lpi.intid.get() == 8200), "{pending:?}");
    let mut other = direct(&[0xa1; 64]);
    other.restore(&saved);
    assert_eq!(other.acknowledge(1), 8200);
    other.end(1, 8200);
    assert_eq!(ring(&other.gic, setlpir(&other, 1), 8250), Pending, "it can be signaled again");
    assert_eq!(other.acknowledge(1), 8250);
}

#[test]
fn a_deferred_setlpir_is_flushed_or_reset() {
    let mut machine = direct(&[0xa1; 64]);
    ring(&machine.gic, setlpir(&machine, 0), 8200);
    machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new());
    let mut byte = [0];
    machine.ram.read(RAM + 0x10_0000 + 8200 / 8, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    assert_eq!(machine.acknowledge(0), 8200);
    machine.end(0, 8200);

    ring(&machine.gic, setlpir(&machine, 0), 8250);
    machine.gic.reset();
    machine.vcpus[0].reset();
    machine.start();
    machine.ram.write(RAM + 0x10_0000, &[0; 0x800]).unwrap();
    machine.enable_lpis(14, RAM, RAM + 0x10_0000);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
}

#[test]
fn a_setlpir_message_for_an_invalid_lpi_is_ignored() {
    let machine = direct(&[0xa1; 64]);
    let counted = || machine.gic.events().count(FaultReason::NoSuchInterrupt);
    let before = counted();
    // `GICR_PROPBASER` limits LPIs to 14 INTID bits; the distributor supports 15 bits.
    for (data, faults) in
        [(0x3fff, 0), (0x4000, 0), (0x7fff, 0), (0x8000, 1), (8191, 2), (27, 3), (u32::MAX, 4)]
    {
        let expected = if data == 0x3fff { Pending } else { Blocked };
        assert_eq!(ring(&machine.gic, setlpir(&machine, 0), data), expected, "{data:#x}");
        assert_eq!(counted() - before, faults, "{data:#x}");
    }
}

#[test]
fn messages_while_lpis_are_disabled_are_dropped() {
    let mut machine = direct(&[0xa1; 64]);
    ring(&machine.gic, setlpir(&machine, 0), 8200);
    assert_eq!(machine.acknowledge(0), 8200);
    machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new());

    for lpi in [8200, 8300] {
        assert_eq!(ring(&machine.gic, setlpir(&machine, 0), lpi), Blocked);
    }

    machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(ring(&machine.gic, setlpir(&machine, 0), 8200), Pending);
}

#[test]
fn a_configuration_change_takes_effect_after_invalidation() {
    const INVALIDATE: [fn(&Machine); 2] = [
        |machine| machine.write_gicr(0, gicr::INVLPIR, 8200),
        |machine| machine.write_gicr(0, gicr::INVALLR, 0),
    ];
    for invalidate in INVALIDATE {
        let mut machine = direct(&[0xa1; 64]);
        ring(&machine.gic, setlpir(&machine, 0), 8200);
        assert_eq!(machine.acknowledge(0), 8200);
        machine.end(0, 8200);

        machine.ram.write(RAM + 8, &[0xa0]).unwrap();
        ring(&machine.gic, setlpir(&machine, 0), 8200);
        assert_eq!(machine.acknowledge(0), 8200, "the old configuration is cached: enabled");
        machine.end(0, 8200);

        invalidate(&machine);
        ring(&machine.gic, setlpir(&machine, 0), 8200);
        assert_eq!(machine.acknowledge(0), SPURIOUS, "disabled, and pending");

        machine.ram.write(RAM + 8, &[0xa1]).unwrap();
        assert_eq!(machine.acknowledge(0), SPURIOUS, "the old configuration is cached: disabled");
        invalidate(&machine);
        assert_eq!(machine.acknowledge(0), 8200);
    }
}

#[test]
fn setlpir_accepts_32_and_64_bit_writes() {
    let machine = direct(&[0xa1; 64]);
    let write = |width| machine.gic.write_from_device(setlpir(&machine, 0), width, 8200);
    assert_eq!(write(Half), Ok(DeviceWrite::Register));
    assert_eq!([Word, Double].map(write), [Ok(DeviceWrite::Message(Pending)); 2]);
}

#[test]
fn a_device_can_write_redistributor_control_and_table_registers() {
    let machine = direct(&[0xa1; 64]);
    let frame = machine.frame(1);
    let write = |register: u32, width, value| {
        let reached = machine.gic.write_from_device(frame + u64::from(register), width, value);
        assert_eq!(reached, Ok(DeviceWrite::Register));
    };

    write(gicr::CTLR.offset(), Word, 0);
    write(gicr::PROPBASER.offset(), Double, 0x6666_000d);
    write(gicr::PENDBASER.offset(), Double, 0x7777_0000);

    assert_eq!(machine.read_gicr(1, gicr::CTLR) & 1, 0, "the device could not disable LPIs");
    assert_eq!(machine.read_gicr(1, gicr::PROPBASER), 0x6666_000d & !0x60);
    assert_eq!(machine.read_gicr(1, gicr::PENDBASER), 0x7777_0000);
}

#[test]
fn a_message_to_another_register_has_no_effect() {
    let machine = direct(&[0xa1; 64]);
    let control = machine.frame(0) + u64::from(gicr::CTLR.offset());
    for address in
        [control, machine.frame(0) + 0x44, setlpir(&machine, 0) + 0x1_0000, 0x0800_0000, 0]
    {
        assert_eq!(ring(&machine.gic, address, 0), NoDoorbell, "{address:#x}");
    }
    assert_eq!(machine.read_gicr(0, gicr::CTLR) & 1, 1);
    assert!(machine.gic.write_from_device(0, Word, 0).is_err());
}

#[test]
fn a_machine_with_an_its_has_no_setlpir() {
    let its = ItsConfig::new(0x0808_0000);
    let config = VgicConfig::new(2).with_lpi_id_bits(Some(15)).with_its(vec![its]);
    let machine = Machine::running(config);
    assert_eq!(ring(&machine.gic, setlpir(&machine, 0), 8200), NoDoorbell);
    assert_eq!(ring(&machine.gic, its.base + u64::from(gits::TRANSLATER.offset()), 0), Blocked);
    let both = machine.gic.config().clone().with_direct_lpi(true);
    assert_eq!(both.validate(), Err(ConfigError::DirectLpiBesideIts { its: its.base }));
}

/// Returns the configuration for a machine with two GICv2m frames.
fn frames() -> VgicConfig {
    VgicConfig::new(1).with_v2m(vec![
        V2mConfig::new(FRAME, 64, 32).with_iidr(0x1234_5678),
        V2mConfig::new(FRAME + 0x2000, 96, 8),
    ])
}

#[test]
fn a_v2m_frame_signals_exactly_its_own_spis() {
    let machine = Machine::running(frames());
    let frame = machine.gic.config().v2m[0];
    let address = frame.base + u64::from(v2m::SETSPI_NS.offset());
    for spi in 32..160 {
        machine.make_edge(spi);
        let message = MsiMessage { address, data: spi };
        let is_own = (64..96).contains(&spi);
        assert_eq!(frame.message(IntId::new(spi)), is_own.then_some(message));
        let expected = if is_own { Pending } else { Blocked };
        assert_eq!(machine.gic.signal_msi(NoIdentity, message), expected, "{spi}");
    }
    assert_eq!(machine.read_gicd(gicd::ISPENDR.registers().get(2).unwrap()), 0xffff_ffff);
    for register in [1, 3, 4] {
        assert_eq!(machine.read_gicd(gicd::ISPENDR.registers().get(register).unwrap()), 0);
    }
}

#[test]
fn each_v2m_frame_signals_only_its_own_spis() {
    let machine = Machine::running(frames());
    machine.make_edge(96);
    let doorbell = FRAME + u64::from(v2m::SETSPI_NS.offset());
    assert_eq!(ring(&machine.gic, doorbell, 96), Blocked);
    assert_eq!(ring(&machine.gic, doorbell + 0x2000, 96), Pending);
}

#[test]
fn a_v2m_frame_reports_its_spi_range_and_implementer() {
    let machine = Machine::running(frames());
    let read = |register: u32| machine.read(FRAME + u64::from(register), Word);
    assert_eq!(read(v2m::TYPER.offset()), 64 << 16 | 32);
    assert_eq!(read(v2m::IIDR.offset()), 0x1234_5678);
    assert_eq!(read(v2m::PIDR2.offset()) >> 4 & 0xf, 3);
    assert_eq!(read(v2m::SETSPI_NS.offset()), 0);
    assert_eq!(machine.gic.events().count(FaultReason::AccessDirection), 1);
}

#[test]
fn a_cpu_can_signal_a_v2m_frame_with_16_and_32_bit_writes() {
    for width in [Half, Word] {
        let mut machine = Machine::running(frames());
        machine.make_edge(70);
        machine.enable_spi(70);
        machine.write(FRAME + u64::from(v2m::SETSPI_NS.offset()), width, 70);
        assert_eq!(machine.acknowledge(0), 70);
    }
}

#[test]
fn a_v2m_message_leaves_no_level_sensitive_spi_pending() {
    let machine = Machine::running(frames());
    assert_eq!(ring(&machine.gic, FRAME + u64::from(v2m::SETSPI_NS.offset()), 70), Blocked);
}

#[test]
fn the_region_list_contains_every_frame() {
    let config = mbi(SecurityView::Single).with_v2m(frames().v2m);
    let machine = Machine::new(config);
    let regions = machine.gic.regions().iter();
    let found: Vec<_> = regions.map(|region| (region.addresses.clone(), region.block)).collect();
    let expected = [
        (0x0800_0000..0x0801_0000, Block::Distributor),
        (ALIAS..ALIAS + 0x1_0000, Block::MbiAlias),
        (FRAME..FRAME + 0x1000, Block::V2m(0)),
        (FRAME + 0x2000..FRAME + 0x3000, Block::V2m(1)),
        (0x080a_0000..0x080c_0000, Block::Redistributors(0)),
    ];
    assert_eq!(found, expected);
}

#[test]
fn an_invalid_v2m_frame_is_refused_with_its_reason() {
    let refused =
        |frames: &[V2mConfig]| VgicConfig::new(1).with_v2m(frames.to_vec()).validate().unwrap_err();
    let spis =
        |base, first_spi, count| ConfigError::V2m(V2mConfigError::Spis { base, first_spi, count });
    for (first, count) in
        [(31, 2), (32, 0), (256, 33), (1019, 2), (4096, 1), (u32::MAX, 1), (40, u32::MAX)]
    {
        assert_eq!(refused(&[V2mConfig::new(FRAME, first, count)]), spis(FRAME, first, count));
    }
    let misaligned = |base| ConfigError::V2m(V2mConfigError::Misaligned(base));
    assert_eq!(refused(&[V2mConfig::new(FRAME + 0x800, 32, 1)]), misaligned(FRAME + 0x800));
    let (first, second, spi) = (FRAME, FRAME + 0x1000, 40);
    assert_eq!(
        refused(&[V2mConfig::new(first, 32, 9), V2mConfig::new(second, spi, 1)]),
        ConfigError::V2m(V2mConfigError::SharedSpi { first, second, spi })
    );
    let (first, second) = (0x0800_0000, 0x0800_0000);
    assert_eq!(refused(&[V2mConfig::new(first, 32, 8)]), ConfigError::Overlap { first, second });
    let all = VgicConfig::new(1).with_v2m(vec![V2mConfig::new(FRAME, 32, 256)]);
    assert_eq!(all.validate(), Ok(()));
}

#[test]
fn an_mbi_alias_requires_mbis_and_64_kib_alignment() {
    let without = mbi(SecurityView::Single).with_message_based_spis(false);
    assert_eq!(without.validate(), Err(ConfigError::MbiAlias(ALIAS)));
    let misaligned = mbi(SecurityView::Single).with_mbi_alias(Some(ALIAS + 0x1000));
    assert_eq!(misaligned.validate(), Err(ConfigError::Misaligned(ALIAS + 0x1000)));
}
