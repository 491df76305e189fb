//! Tests for the register frames as a guest sees them, including invalid accesses.

use doorbell_test_support::guest::Machine;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::{Iidr, IntId, gicd, gicr};
use vgic::its::{Coherence, ItsConfig};
use vgic::{AccessWidth, FaultDetail, FaultReason, RedistributorRegion, SecurityView, VgicConfig};

const WIDTHS: [AccessWidth; 4] =
    [AccessWidth::Byte, AccessWidth::Half, AccessWidth::Word, AccessWidth::Double];

/// Returns the configuration for a machine with every option.
fn everything(security: SecurityView) -> VgicConfig {
    VgicConfig::new(2)
        .with_spis(988)
        .with_extended_spis(1024)
        .with_extended_ppis(64)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(0x0808_0000)])
        .with_security(security)
        .with_redistributor_invalidation(true)
        .with_one_of_n(true)
        .with_message_based_spis(true)
        .with_redistributors(vec![RedistributorRegion::new(0x080a_0000, 3).with_stride(0x4_0000)])
}

#[test]
fn no_offset_panics_on_any_access_width() {
    for security in [SecurityView::Single, SecurityView::NonSecure] {
        let machine = Machine::new(everything(security));
        for region in machine.gic.regions() {
            for address in region.addresses.clone() {
                for width in WIDTHS {
                    machine.write(address, width, u64::MAX);
                    let value = machine.read(address, width);
                    assert_eq!(value & !width.mask(), 0, "{address:#x} {width:?}");
                }
            }
        }
    }
}

#[test]
fn an_unknown_register_reports_its_address() {
    let machine = Machine::new(VgicConfig::new(1));

    machine.write(0x0800_0020, AccessWidth::Word, 0x77);

    let mut faults = Vec::new();
    machine.gic.events().drain(|fault| faults.push((fault.reason, fault.address, fault.detail)));
    assert_eq!(faults, [(FaultReason::UnknownRegister, 0x0800_0020, FaultDetail::Value(0x77))]);
}

#[test]
fn a_byte_write_changes_ipriorityr_but_not_isenabler() {
    let machine = Machine::new(VgicConfig::new(1));
    let priority = 0x0800_0000 + u64::from(gicd::IPRIORITYR.offset()) + 33;
    let enable = 0x0800_0000 + u64::from(gicd::ISENABLER.offset()) + 5;

    machine.write(priority, AccessWidth::Byte, 0xa8);
    machine.write(enable, AccessWidth::Byte, 0xff);

    assert_eq!(machine.read(priority - 1, AccessWidth::Word), 0xa800);
    assert_eq!(machine.read(enable & !3, AccessWidth::Word), 0);
    assert_eq!(machine.gic.events().count(FaultReason::AccessWidth), 1);
}

#[test]
fn gicd_typer_reports_the_configured_features() {
    let machine = Machine::new(everything(SecurityView::Single));
    let typer = gicd::Typer::from(u32::try_from(machine.read_gicd(gicd::TYPER)).unwrap());

    assert_eq!((typer.spi_end(), typer.extended_spi_end(), typer.id_bits()), (1020, 5120, 16));
    assert!(typer.lpis() && typer.mbis() && !typer.no_1_of_n() && !typer.security_extn());
}

#[test]
fn each_gicr_typer_reports_its_cpu_and_whether_it_is_last() {
    let machine = Machine::new(everything(SecurityView::Single));
    for (cpu, of) in machine.gic.config().cpus.clone().into_iter().enumerate() {
        let typer = gicr::Typer::from(machine.read_gicr(cpu, gicr::TYPER));
        assert_eq!(
            (typer.affinity(), typer.processor_number()),
            (of.affinity, of.processor_number)
        );
        assert_eq!(typer.last(), cpu == 1);
        assert_eq!(typer.extended_ppi_count(), 64);
    }
}

#[test]
fn all_frames_have_the_configured_iidr() {
    let iidr = Iidr::new().with_implementer(0x123).with_product_id(7);
    let machine = Machine::new(VgicConfig::new(1).with_iidr(iidr));

    assert_eq!(machine.read_gicd(gicd::IIDR), u64::from(iidr.into_bits()));
    assert_eq!(machine.read_gicr(0, gicr::IIDR), u64::from(iidr.into_bits()));
    assert_eq!(machine.read_gicd(gic_arch::id::PIDR2) >> 4 & 0xf, 3);
    assert_eq!(machine.read_gicr(0, gic_arch::id::PIDR2) >> 4 & 0xf, 3);
}

#[test]
fn ctlr_are_and_ds_cannot_be_cleared() {
    let machine = Machine::new(VgicConfig::new(1));

    machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
    assert_eq!(machine.read_gicd(gicd::CTLR), 0x50);

    machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(0xffff_ffff));
    assert_eq!(machine.read_gicd(gicd::CTLR), 0xd3);
}

#[test]
fn a_route_can_be_written_in_halves() {
    let machine = Machine::new(VgicConfig::new(1));
    let address = 0x0800_0000 + u64::from(gicd::irouter(IntId::new(40)).unwrap().offset());

    machine.write(address, AccessWidth::Word, 0x8001_0203);
    machine.write(address + 4, AccessWidth::Word, 0x7f);

    assert_eq!(
        machine.read(address, AccessWidth::Double),
        0x7f_0001_0203,
        "this machine does not support 1-of-N routing"
    );
    assert_eq!(machine.read(address + 4, AccessWidth::Word), 0x7f);
}

#[test]
fn a_propbaser_write_is_ignored_while_lpis_are_enabled() {
    let machine = Machine::new(everything(SecurityView::Single));
    let tables = Propbaser::new().with_id_bits_minus_one(15).with_address(0x4000_0000);
    machine.write_gicr(0, gicr::PROPBASER, tables);
    machine.write_gicr(0, gicr::PENDBASER, Pendbaser::new().with_address(0x4001_0000));
    machine.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(true));

    machine.write_gicr(0, gicr::PROPBASER, Propbaser::new());

    assert_eq!(machine.read_gicr(0, gicr::PROPBASER), tables.into_bits());
    assert_eq!(machine.gic.events().count(FaultReason::LpiTablesInUse), 1);
}

#[test]
fn lpis_can_be_disabled_only_with_ces() {
    for can_clear_enable_lpis in [false, true] {
        let machine = Machine::new(
            everything(SecurityView::Single).with_can_clear_enable_lpis(can_clear_enable_lpis),
        );
        machine.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(true));

        machine.write_gicr(0, gicr::CTLR, Ctlr::new());

        let control = Ctlr::from(u32::try_from(machine.read_gicr(0, gicr::CTLR)).unwrap());
        assert_eq!(
            (control.ces(), control.enable_lpis()),
            (can_clear_enable_lpis, !can_clear_enable_lpis)
        );
    }
}

#[test]
fn shareability_reads_as_zero_on_a_non_coherent_machine() {
    let machine =
        Machine::new(everything(SecurityView::Single).with_coherence(Coherence::NonCoherent));

    machine.write_gicr(0, gicr::PROPBASER, Propbaser::from(u64::MAX));
    machine.write_gicr(0, gicr::PENDBASER, Pendbaser::from(u64::MAX));

    assert_eq!(machine.read_gicr(0, gicr::PROPBASER) >> 10 & 3, 0);
    assert_eq!(machine.read_gicr(0, gicr::PENDBASER) >> 10 & 3, 0);
}

#[test]
fn a_machine_without_lpis_has_no_lpi_registers() {
    let machine = Machine::new(VgicConfig::new(1));
    machine.write_gicr(0, gicr::PROPBASER, Propbaser::from(u64::MAX));
    machine.write_gicr(0, gicr::CTLR, Ctlr::from(u32::MAX));
    assert_eq!(machine.read_gicr(0, gicr::PROPBASER), 0);
    assert_eq!(machine.read_gicr(0, gicr::CTLR), 0);
}
