//! Offsets and fields typed by hand from the register summaries of IHI 0069 (chapter 12) and the
//! Arm register pages.

use gic_arch::{RegisterInfo, gicd, gicr, gits, icc, ich, v2m};

/// Columns of a row: name, offset of the first register, bytes per register, number of registers.
type Row = (&'static str, u32, u32, u32);

fn compare(frame: &str, ours: &[RegisterInfo], typed: &[Row]) {
    for row in typed {
        let found = ours.iter().find(|register| register.name == row.0);
        let found = found.unwrap_or_else(|| panic!("{frame}_{} is not defined", row.0));
        assert_eq!(
            (found.offset, found.bytes, found.count),
            (row.1, row.2, row.3),
            "{frame}_{}",
            row.0
        );
    }
    for register in ours {
        assert!(
            typed.iter().any(|row| row.0 == register.name),
            "{frame}_{} was not typed here",
            register.name
        );
    }
}

#[test]
fn distributor_offsets_match_the_specification() {
    compare(
        "GICD",
        gicd::REGISTERS,
        &[
            ("CTLR", 0x0000, 4, 1),
            ("TYPER", 0x0004, 4, 1),
            ("IIDR", 0x0008, 4, 1),
            ("TYPER2", 0x000C, 4, 1),
            ("STATUSR", 0x0010, 4, 1),
            ("SETSPI_NSR", 0x0040, 4, 1),
            ("CLRSPI_NSR", 0x0048, 4, 1),
            ("SETSPI_SR", 0x0050, 4, 1),
            ("CLRSPI_SR", 0x0058, 4, 1),
            ("IGROUPR", 0x0080, 4, 32),
            ("ISENABLER", 0x0100, 4, 32),
            ("ICENABLER", 0x0180, 4, 32),
            ("ISPENDR", 0x0200, 4, 32),
            ("ICPENDR", 0x0280, 4, 32),
            ("ISACTIVER", 0x0300, 4, 32),
            ("ICACTIVER", 0x0380, 4, 32),
            ("IPRIORITYR", 0x0400, 4, 256),
            ("ITARGETSR", 0x0800, 4, 256),
            ("ICFGR", 0x0C00, 4, 64),
            ("IGRPMODR", 0x0D00, 4, 32),
            ("NSACR", 0x0E00, 4, 64),
            ("SGIR", 0x0F00, 4, 1),
            ("CPENDSGIR", 0x0F10, 4, 4),
            ("SPENDSGIR", 0x0F20, 4, 4),
            ("IGROUPR_E", 0x1000, 4, 32),
            ("ISENABLER_E", 0x1200, 4, 32),
            ("ICENABLER_E", 0x1400, 4, 32),
            ("ISPENDR_E", 0x1600, 4, 32),
            ("ICPENDR_E", 0x1800, 4, 32),
            ("ISACTIVER_E", 0x1A00, 4, 32),
            ("ICACTIVER_E", 0x1C00, 4, 32),
            ("IPRIORITYR_E", 0x2000, 4, 256),
            ("ICFGR_E", 0x3000, 4, 64),
            ("IGRPMODR_E", 0x3400, 4, 32),
            ("NSACR_E", 0x3600, 4, 64),
            ("IROUTER", 0x6000, 8, 1020),
            ("IROUTER_E", 0x8000, 8, 1024),
        ],
    );
}

#[test]
fn redistributor_offsets_match_the_specification() {
    compare(
        "GICR",
        gicr::REGISTERS,
        &[
            ("CTLR", 0x0000, 4, 1),
            ("IIDR", 0x0004, 4, 1),
            ("TYPER", 0x0008, 8, 1),
            ("STATUSR", 0x0010, 4, 1),
            ("WAKER", 0x0014, 4, 1),
            ("MPAMIDR", 0x0018, 4, 1),
            ("PARTIDR", 0x001C, 4, 1),
            ("SETLPIR", 0x0040, 8, 1),
            ("CLRLPIR", 0x0048, 8, 1),
            ("PROPBASER", 0x0070, 8, 1),
            ("PENDBASER", 0x0078, 8, 1),
            ("INVLPIR", 0x00A0, 8, 1),
            ("INVALLR", 0x00B0, 8, 1),
            ("SYNCR", 0x00C0, 4, 1),
            ("IGROUPR", 0x10080, 4, 3),
            ("ISENABLER", 0x10100, 4, 3),
            ("ICENABLER", 0x10180, 4, 3),
            ("ISPENDR", 0x10200, 4, 3),
            ("ICPENDR", 0x10280, 4, 3),
            ("ISACTIVER", 0x10300, 4, 3),
            ("ICACTIVER", 0x10380, 4, 3),
            ("IPRIORITYR", 0x10400, 4, 24),
            ("ICFGR", 0x10C00, 4, 6),
            ("IGRPMODR", 0x10D00, 4, 3),
            ("NSACR", 0x10E00, 4, 1),
        ],
    );
    compare(
        "GICR, VLPI_base",
        gicr::vlpi::REGISTERS,
        &[("VPROPBASER", 0x0070, 8, 1), ("VPENDBASER", 0x0078, 8, 1)],
    );
    assert_eq!(gicr::VLPI_BASE, 0x2_0000);
}

#[test]
fn its_offsets_match_the_specification() {
    compare(
        "GITS",
        gits::REGISTERS,
        &[
            ("CTLR", 0x0000, 4, 1),
            ("IIDR", 0x0004, 4, 1),
            ("TYPER", 0x0008, 8, 1),
            ("MPAMIDR", 0x0010, 4, 1),
            ("PARTIDR", 0x0014, 4, 1),
            ("MPIDR", 0x0018, 4, 1),
            ("STATUSR", 0x0040, 4, 1),
            ("UMSIR", 0x0048, 8, 1),
            ("CBASER", 0x0080, 8, 1),
            ("CWRITER", 0x0088, 8, 1),
            ("CREADR", 0x0090, 8, 1),
            ("BASER", 0x0100, 8, 8),
            ("TRANSLATER", 0x10040, 4, 1),
        ],
    );
}

#[test]
fn v2m_offsets_match_the_specification() {
    compare(
        "V2M",
        v2m::REGISTERS,
        &[("TYPER", 0x008, 4, 1), ("SETSPI_NS", 0x040, 4, 1), ("IIDR", 0xFCC, 4, 1)],
    );
}

#[test]
fn pidr2_decodes_the_architecture_revision() {
    assert_eq!(gic_arch::id::PIDR2.offset(), 0xFFE8);
    assert_eq!(gic_arch::Pidr2::from(0x3B).revision(), gic_arch::ArchRevision::V3);
    assert_eq!(gic_arch::Pidr2::from(0x4B).revision(), gic_arch::ArchRevision::V4);
}

/// Columns of a row: name, op0, op1, CRn, CRm and op2, as in the headings of the register pages.
type SystemRow = (&'static str, u16, u16, u16, u16, u16);

fn compare_system(prefix: &str, ours: &[(&str, icc::SysRegEncoding)], typed: &[SystemRow]) {
    for (name, op0, op1, crn, crm, op2) in typed {
        let found = ours.iter().find(|(ours, _)| ours == name);
        let found = found.unwrap_or_else(|| panic!("{prefix}_{name} is not defined")).1;
        let packed = op0 * 0x4000 + op1 * 0x800 + crn * 0x80 + crm * 8 + op2;
        assert_eq!(found.packed(), packed, "{prefix}_{name}");
    }
    for (name, _) in ours {
        assert!(typed.iter().any(|row| row.0 == *name), "{prefix}_{name} was not typed here");
    }
}

#[test]
fn cpu_interface_encodings_match_the_specification() {
    compare_system(
        "ICC",
        icc::REGISTERS,
        &[
            ("PMR", 3, 0, 4, 6, 0),
            ("IAR0", 3, 0, 12, 8, 0),
            ("EOIR0", 3, 0, 12, 8, 1),
            ("HPPIR0", 3, 0, 12, 8, 2),
            ("BPR0", 3, 0, 12, 8, 3),
            ("AP0R0", 3, 0, 12, 8, 4),
            ("AP0R1", 3, 0, 12, 8, 5),
            ("AP0R2", 3, 0, 12, 8, 6),
            ("AP0R3", 3, 0, 12, 8, 7),
            ("AP1R0", 3, 0, 12, 9, 0),
            ("AP1R1", 3, 0, 12, 9, 1),
            ("AP1R2", 3, 0, 12, 9, 2),
            ("AP1R3", 3, 0, 12, 9, 3),
            ("DIR", 3, 0, 12, 11, 1),
            ("RPR", 3, 0, 12, 11, 3),
            ("SGI1R", 3, 0, 12, 11, 5),
            ("ASGI1R", 3, 0, 12, 11, 6),
            ("SGI0R", 3, 0, 12, 11, 7),
            ("IAR1", 3, 0, 12, 12, 0),
            ("EOIR1", 3, 0, 12, 12, 1),
            ("HPPIR1", 3, 0, 12, 12, 2),
            ("BPR1", 3, 0, 12, 12, 3),
            ("CTLR", 3, 0, 12, 12, 4),
            ("SRE", 3, 0, 12, 12, 5),
            ("IGRPEN0", 3, 0, 12, 12, 6),
            ("IGRPEN1", 3, 0, 12, 12, 7),
        ],
    );
    // ICC_SRE_EL2 = S3_4_C12_C9_5.
    assert_eq!(icc::SRE_EL2.encoding().packed(), 0xE64D);
}

#[test]
fn ich_register_encodings_match_the_specification() {
    compare_system(
        "ICH",
        ich::REGISTERS,
        &[
            ("AP0R0", 3, 4, 12, 8, 0),
            ("AP1R0", 3, 4, 12, 9, 0),
            ("HCR", 3, 4, 12, 11, 0),
            ("VTR", 3, 4, 12, 11, 1),
            ("MISR", 3, 4, 12, 11, 2),
            ("EISR", 3, 4, 12, 11, 3),
            ("ELRSR", 3, 4, 12, 11, 5),
            ("VMCR", 3, 4, 12, 11, 7),
        ],
    );
    // LR0 = S3_4_C12_C12_0, LR7 = S3_4_C12_C12_7, LR8 = S3_4_C12_C13_0, LR15 = S3_4_C12_C13_7.
    for (index, packed) in [(0, 0xE660), (7, 0xE667), (8, 0xE668), (15, 0xE66F)] {
        assert_eq!(ich::lr(index).unwrap().encoding().packed(), packed, "LR{index}");
    }
}

#[test]
fn gicd_ctlr_bits_depend_on_the_security_view() {
    let single = gicd::Ctlr::new().with_enable_grp1(true).with_are(true).with_ds(true);
    assert_eq!(u32::from(single), 0x52);
    let secure = gicd::Ctlr::new().with_enable_grp1_s(true).with_are(true).with_are_ns(true);
    assert_eq!(u32::from(secure), 0x34);
    let non_secure = gicd::CtlrNs::new().with_enable_grp1a(true).with_are_ns(true);
    assert_eq!(u32::from(non_secure), 0x12);
    assert!(gicd::Ctlr::from(1 << 31).rwp() && gicd::CtlrNs::from(1 << 31).rwp());
    assert!(gicd::Ctlr::from(1 << 7).e1nwf());
}

/// Values from QEMU's `virt` machine (gic-version=3), read while it was stopped.
#[test]
fn type_registers_of_qemu_are_decoded() {
    let distributor = gicd::Typer::from(0x037A_0007);
    assert_eq!(
        (distributor.spi_end(), distributor.id_bits(), distributor.lpis(), distributor.mbis()),
        (256, 16, true, false)
    );
    assert!(
        distributor.a3v()
            && distributor.no_1_of_n()
            && !distributor.espi()
            && !distributor.security_extn()
    );
    let redistributor = gicr::Typer::from(0x0100_0001);
    assert!(
        redistributor.plpis()
            && !redistributor.direct_lpi()
            && !redistributor.vlpis()
            && !redistributor.last()
    );
    assert_eq!(redistributor.common_lpi_aff(), 1);
    let its = gits::Typer::from(0x001F_0001_EFB1);
    assert_eq!((its.event_id_bits(), its.device_id_bits(), its.collection_id_bits()), (16, 16, 16));
    assert_eq!((its.itt_entry_bytes(), its.hcc()), (12, 0));
    assert!(its.physical() && !its.pta() && !its.seis() && !its.virtual_lpis());
}

#[test]
fn gicr_typer_fields_match_the_specification() {
    // Aff3.2.1.0 = 1.2.3.4, processor 5, DirectLPI (bit 3), Last (bit 4), PPInum 2 (bits 31:27).
    let typer = gicr::Typer::from(0x0102_0304_1000_0518);
    assert!(typer.direct_lpi() && typer.last() && !typer.plpis());
    assert_eq!(typer.processor_number(), 5);
    assert_eq!(typer.affinity().levels(), [1, 2, 3, 4]);
    assert_eq!(typer.extended_ppi_count(), 64);
    assert!(gicr::Typer::from(1 << 1).vlpis() && gicr::Typer::from(1).plpis());
}

#[test]
fn gicr_ctlr_and_waker_bits_match_the_specification() {
    assert!(
        gicr::Ctlr::from(1).enable_lpis() && gicr::Ctlr::from(2).ces() && gicr::Ctlr::from(4).ir()
    );
    assert!(gicr::Ctlr::from(8).rwp() && gicr::Ctlr::from(1 << 31).uwp());
    assert!(gicr::Ctlr::from(1 << 24).dpg0() && gicr::Ctlr::from(1 << 25).dpg1_ns());
    assert!(gicr::Waker::from(2).processor_sleep() && gicr::Waker::from(4).children_asleep());
}

#[test]
fn propbaser_and_pendbaser_fields_match_the_specification() {
    // Inner and outer write-back, inner shareable, table at 0x12345000, 16 INTID bits.
    let propbaser = gicr::Propbaser::from(0x0700_0000_1234_578F);
    assert_eq!((propbaser.address(), propbaser.id_bits()), (0x1234_5000, 16));
    assert_eq!(propbaser.inner_cache(), gic_arch::Cacheability::ReadWriteAllocateWriteBack);
    assert_eq!(propbaser.shareability(), gic_arch::Shareability::Inner);
    let pendbaser = gicr::Pendbaser::from(0x4000_0000_1235_0000);
    assert_eq!(pendbaser.address(), 0x1235_0000);
    assert!(pendbaser.pending_table_zero());
}

/// Bits in `GICR_VPENDBASER` and `GICR_VPROPBASER` (IHI 0069 §12.11). Linux's `arm-gic-v3.h`
/// defines the same bits.
#[test]
fn vpropbaser_and_vpendbaser_fields_match_the_specification() {
    assert!(gicr::vlpi::Vpendbaser::from(1 << 63).valid());
    assert!(gicr::vlpi::Vpendbaser::from(1 << 61).pending_last());
    assert!(gicr::vlpi::Vpendbaser::from(1 << 60).dirty());
    assert!(gicr::vlpi::Vpropbaser::from(1 << 63).valid());
    let vpendbaser = gicr::vlpi::Vpendbaser::new().with_address(0x1235_0000).with_valid(true);
    assert_eq!((vpendbaser.address(), u64::from(vpendbaser)), (0x1235_0000, 0x8000_0000_1235_0000));
    let vpropbaser = gicr::vlpi::Vpropbaser::new().with_address(0x1234_5000);
    let vpropbaser = vpropbaser.with_id_bits_minus_one(15);
    assert_eq!((vpropbaser.address(), u64::from(vpropbaser)), (0x1234_5000, 0x1234_500F));
}

#[test]
fn its_control_and_queue_fields_match_the_specification() {
    assert!(gits::Ctlr::from(1).enabled() && gits::Ctlr::from(1 << 31).quiescent());
    let cbaser = gits::Cbaser::from(0xB800_0000_4321_040F);
    assert!(cbaser.valid());
    assert_eq!((cbaser.address(), cbaser.bytes()), (0x4321_0000, 0x1_0000));
    assert_eq!(cbaser.inner_cache(), gic_arch::Cacheability::ReadWriteAllocateWriteBack);
    assert_eq!(gits::Cwriter::from(0xF_FFE1).offset(), 0xF_FFE0);
    assert!(gits::Cwriter::from(1).retry() && gits::Creadr::from(1).stalled());
}

#[test]
fn gits_baser_fields_match_the_specification() {
    // Valid, indirect, devices, 8-byte entries, 64 KiB pages, PA 0x5_1234_5678_0000, two pages.
    let baser = gits::Baser::from(0xC107_1234_5678_5601);
    assert!(baser.valid() && baser.indirect());
    assert_eq!(baser.kind(), gits::TableKind::Devices);
    assert_eq!(baser.entry_bytes(), 8);
    assert_eq!(baser.page_size(), gits::PageSize::Size64K);
    assert_eq!(baser.address(), 0x0005_1234_5678_0000);
    assert_eq!(baser.bytes(), 0x2_0000);
    assert_eq!(gits::Baser::from(0x0400_0000_0000_0000).kind(), gits::TableKind::Collections);
}
