//! Tests for register tables and register values over their whole encoding space.
use gic_arch::{
    Affinity, Iidr, IntId, IntIdClass, IntIdField, IntIdLocation, IntIdRange, Lpi, Pidr2,
    RegisterInfo, gicc, gicd, gicr, gits, icc, ich, its, lpi, v2m,
};
use proptest::prelude::*;

const FRAMES: [(&str, &[RegisterInfo], u64); 5] = [
    ("GICC", gicc::REGISTERS, gicc::FRAME_SIZE),
    ("GICD", gicd::REGISTERS, gicd::FRAME_SIZE),
    ("GICR", gicr::REGISTERS, 2 * gicr::FRAME_SIZE),
    ("GITS", gits::REGISTERS, gits::SIZE),
    ("V2M", v2m::REGISTERS, v2m::FRAME_SIZE),
];

#[test]
fn registers_are_ordered_and_disjoint() {
    for (frame, registers, size) in FRAMES {
        for pair in registers.windows(2) {
            assert!(
                pair[0].end() <= pair[1].offset,
                "{frame}: {} runs into {}",
                pair[0].name,
                pair[1].name
            );
        }
        assert!(
            u64::from(registers.last().unwrap().end()) <= size,
            "{frame} ends beyond its frame"
        );
    }
}

#[test]
fn registers_are_aligned_to_their_width() {
    for (frame, registers, _) in FRAMES {
        for register in registers {
            assert_eq!(register.offset % register.bytes, 0, "{frame}_{}", register.name);
        }
    }
}

#[test]
fn no_register_of_a_64_kib_frame_overlaps_pidr2() {
    for (frame, registers, size) in FRAMES {
        if size < 0x1_0000 {
            continue;
        }
        for register in registers {
            assert!(register.index_of(0xffe8).is_none(), "{frame}_{}", register.name);
        }
    }
}

#[test]
fn system_register_encodings_are_distinct() {
    let mut encodings: Vec<u16> = icc::REGISTERS
        .iter()
        .chain(ich::REGISTERS)
        .map(|(_, encoding)| encoding.packed())
        .collect();
    encodings.extend((0..16).map(|n| ich::lr(n).unwrap().encoding().packed()));
    let count = encodings.len();
    encodings.sort_unstable();
    encodings.dedup();
    assert_eq!(encodings.len(), count);
    assert!(ich::lr(16).is_none());
}

const SPI_FIELDS: [IntIdField; 10] = [
    gicd::IGROUPR,
    gicd::ISENABLER,
    gicd::ICENABLER,
    gicd::ISPENDR,
    gicd::ICPENDR,
    gicd::ISACTIVER,
    gicd::ICACTIVER,
    gicd::IPRIORITYR,
    gicd::ICFGR,
    gicd::IGRPMODR,
];
const ESPI_FIELDS: [IntIdField; 4] =
    [gicd::IGROUPR_E, gicd::ISENABLER_E, gicd::IPRIORITYR_E, gicd::ICFGR_E];
const PRIVATE_FIELDS: [IntIdField; 4] =
    [gicr::IGROUPR, gicr::ISENABLER, gicr::IPRIORITYR, gicr::ICFGR];

#[test]
fn every_interrupt_has_one_field_per_array() {
    for number in 0..9000 {
        let intid = IntId::new(number);
        let located =
            |fields: &[IntIdField]| fields.iter().filter(|f| f.locate(intid).is_some()).count();
        let expected = match intid.class() {
            IntIdClass::Spi => (SPI_FIELDS.len(), 0, 0),
            IntIdClass::ExtendedSpi => (0, ESPI_FIELDS.len(), 0),
            IntIdClass::Sgi | IntIdClass::Ppi | IntIdClass::ExtendedPpi => {
                (0, 0, PRIVATE_FIELDS.len())
            }
            _ => (0, 0, 0),
        };
        assert_eq!(
            (located(&SPI_FIELDS), located(&ESPI_FIELDS), located(&PRIVATE_FIELDS)),
            expected,
            "{intid}"
        );
    }
}

#[test]
fn field_indices_and_intids_round_trip() {
    for range in [IntIdRange::Spi, IntIdRange::Banked, IntIdRange::ExtendedSpi, IntIdRange::Private]
    {
        for index in 0..2000 {
            if let Some(intid) = range.intid_at(index) {
                assert_eq!(range.index_of(intid), Some(index), "{range:?} {index}");
            }
        }
        for number in 0..9000 {
            let intid = IntId::new(number);
            if let Some(index) = range.index_of(intid) {
                assert_eq!(range.intid_at(index), Some(intid));
            }
        }
    }
}

#[test]
fn fields_of_adjacent_spis_are_contiguous() {
    for field in SPI_FIELDS {
        let mut previous_end = None;
        for number in 32..1020 {
            let place = field.locate(IntId::new(number)).unwrap();
            let start = place.register().offset() * 8 + place.shift();
            assert_eq!(start, *previous_end.get_or_insert(start), "INTID {number}");
            previous_end = Some(start + field.bits());
        }
    }
}

/// The expected values are typed from IHI 0048 §4.4, table 4-2, and from the bit assignments of
/// GICC_CTLR, GICC_IAR and GICD_SGIR.
#[test]
fn gicv2_cpu_interface_matches_the_manual() {
    let expected = [
        ("CTLR", 0x00),
        ("PMR", 0x04),
        ("BPR", 0x08),
        ("IAR", 0x0c),
        ("EOIR", 0x10),
        ("RPR", 0x14),
        ("HPPIR", 0x18),
        ("ABPR", 0x1c),
        ("AIAR", 0x20),
        ("AEOIR", 0x24),
        ("AHPPIR", 0x28),
        ("APR", 0xd0),
        ("NSAPR", 0xe0),
        ("IIDR", 0xfc),
        ("DIR", 0x1000),
    ];
    let found: Vec<_> =
        gicc::REGISTERS.iter().map(|register| (register.name, register.offset)).collect();
    assert_eq!(found, expected);
    let control = gicc::Ctlr::new().with_enable_grp0(true).with_fiq_en(true).with_eoi_mode_s(true);
    assert_eq!(u32::from(control), 0x209);
    assert_eq!(u32::from(gicc::Iar::new().with_intid(0x3ff).with_cpu_id(5)), 0x17ff);
    let sgi = gicc::Sgir::new().with_intid(3).with_target_list(0x81).with_target_list_filter(1);
    assert_eq!(u32::from(sgi), 0x0181_0003);
    assert_eq!(u32::from(gicc::Sgir::new().with_nsatt(true)), 0x8000);
}

#[test]
fn banked_arrays_begin_with_private_interrupts() {
    let banked = gicd::IPRIORITYR.of_range(IntIdRange::Banked);
    assert_eq!(banked.locate(IntId::new(27)).map(IntIdLocation::byte_offset), Some(0x41b));
    assert_eq!(banked.locate(IntId::new(32)).map(IntIdLocation::byte_offset), Some(0x420));
    assert!(banked.locate(IntId::new(1056)).is_none() && banked.locate(IntId::new(4096)).is_none());
}

#[test]
fn lpis_are_exactly_the_numbers_from_8192_on() {
    for number in 0..20_000u32 {
        assert_eq!(Lpi::try_from(number).is_ok(), number >= 8192);
    }
    assert_eq!(Lpi::from_index(0), Some(Lpi::FIRST));
    assert_eq!(Lpi::from_index(u32::MAX), None);
}

#[test]
fn the_last_lpi_has_the_last_byte_of_each_lpi_table() {
    for bits in 14..=32u8 {
        let last = Lpi::try_from(u32::try_from((1u64 << bits) - 1).unwrap()).unwrap();
        assert_eq!(lpi::config_offset(last) + 1, lpi::config_table_bytes(bits));
        assert_eq!(lpi::pending_location(last), (lpi::pending_table_bytes(bits) - 1, 7));
    }
    for bits in (0..14).chain(33..=255) {
        assert_eq!((lpi::config_table_bytes(bits), lpi::pending_table_bytes(bits)), (0, 0));
    }
}

#[test]
fn typer_limits_spis_to_1020_and_adds_the_extended_range() {
    for lines in 0..32u8 {
        let typer = gicd::Typer::new().with_it_lines_number(lines);
        assert!(typer.spi_end() <= 1020);
        assert!(!typer.implements(IntId::new(4096)));
        let extended = typer.with_espi(true).with_espi_range(lines);
        assert_eq!(extended.extended_spi_end(), 4096 + 32 * (u32::from(lines) + 1));
    }
}

#[test]
fn lpi_count_depends_on_id_bits_and_num_lpis() {
    let typer = gicd::Typer::new().with_lpis(true).with_id_bits_minus_one(15);
    assert_eq!(typer.lpi_count(), 65536 - 8192);
    assert_eq!(typer.with_num_lpis(9).lpi_count(), 1024);
    assert_eq!(typer.with_num_lpis(31).lpi_count(), 65536 - 8192);
    assert_eq!(typer.with_lpis(false).lpi_count(), 0);
    assert_eq!(typer.with_id_bits_minus_one(9).lpi_count(), 0);
}

/// Checks that every bit pattern is a valid value and is preserved by conversions.
macro_rules! keeps_every_bit {
    ($($name:ident: $raw:ty => $($value:ty),+;)*) => {
        proptest! {
            $( #[test] fn $name(raw in any::<$raw>()) {
                $(
                    let kept = <$raw>::from(<$value>::from(raw));
                    prop_assert_eq!(kept, raw, "{}", stringify!($value));
                )+
            } )*
        }
    };
}
keeps_every_bit! {
    values_of_32_bits_keep_every_bit: u32 =>
        gicd::Ctlr, gicd::CtlrNs, gicd::Typer, gicd::Statusr, gicr::Ctlr, gicr::Waker, gicr::Syncr,
        gits::Ctlr, gits::Statusr, Iidr, Pidr2, v2m::Typer, gicc::Ctlr, gicc::Iar, gicc::Sgir;
    values_of_64_bits_keep_every_bit: u64 =>
        gicd::Irouter, gicr::Typer, gicr::Propbaser, gicr::Pendbaser, gits::Typer, gits::Umsir,
        gits::Cbaser, gits::Cwriter, gits::Creadr, gits::Baser, its::Level1Entry,
        icc::IntIdValue, icc::Ctlr, icc::Sre, icc::Igrpen, icc::Sgi, ich::Hcr, ich::Vtr,
        ich::Misr, ich::Vmcr, ich::ListRegister;
    values_of_8_bits_keep_every_bit: u8 => lpi::Config;
}

proptest! {
    #[test]
    fn fields_decode_and_encode_to_the_same_bits(raw in any::<u64>()) {
        // Decodes and encodes every value of the enum-typed fields. A wrong conversion would merge
        // two values.
        let baser = gits::Baser::from(raw);
        let again = baser
            .with_kind(baser.kind())
            .with_page_size(baser.page_size())
            .with_shareability(baser.shareability())
            .with_inner_cache(baser.inner_cache())
            .with_outer_cache(baser.outer_cache());
        prop_assert_eq!(again, baser);
        let lr = ich::ListRegister::from(raw);
        prop_assert_eq!(lr.with_state(lr.state()), lr);
    }

    #[test]
    fn table_addresses_are_truncated_to_page_and_width(address in any::<u64>(), page in 0u8..4) {
        let size = gits::PageSize::from_bits(page);
        let baser = gits::Baser::new().with_page_size(size).with_address(address);
        let limit = if size.bytes() == 0x1_0000 { 1u64 << 52 } else { 1 << 48 };
        prop_assert_eq!(baser.address(), address & (limit - 1) & !(size.bytes() - 1));
        prop_assert_eq!(baser.entry_bytes_minus_one(), 0);
        prop_assert!(!baser.valid());
    }

    #[test]
    fn with_address_changes_only_its_field(address in any::<u64>(), raw in any::<u64>()) {
        prop_assert_eq!(
            gits::Cbaser::from(raw).with_address(address).address(),
            address & 0xf_ffff_ffff_f000
        );
        prop_assert_eq!(
            gits::Cbaser::from(raw).with_address(0),
            gits::Cbaser::from(raw & !0xf_ffff_ffff_f000)
        );
        prop_assert_eq!(
            gicr::Propbaser::from(raw).with_address(address).address(),
            address & 0xf_ffff_ffff_f000
        );
        prop_assert_eq!(
            gicr::Pendbaser::from(raw).with_address(address).address(),
            address & 0xf_ffff_ffff_0000
        );
        prop_assert_eq!(
            its::Level1Entry::from(raw).with_address(address).address(),
            address & 0xf_ffff_ffff_f000
        );
    }

    #[test]
    fn affinity_round_trips_through_packed_mpidr_and_irouter_forms(packed in any::<u32>()) {
        let affinity = Affinity::from_packed(packed);
        prop_assert_eq!(affinity.packed(), packed);
        prop_assert_eq!(Affinity::from_mpidr(affinity.mpidr()), affinity);
        prop_assert_eq!(gicd::Irouter::to(affinity).affinity(), affinity);
        prop_assert!(!gicd::Irouter::to(affinity).any_participating());
        // The U, MT and RES1 bits of MPIDR_EL1 are not part of the affinity.
        prop_assert_eq!(Affinity::from_mpidr(affinity.mpidr() | 0xc100_0000), affinity);
    }

    #[test]
    fn an_sgi_register_value_selects_only_its_target_cpu(
        packed in any::<u32>(),
        other in any::<u32>(),
        sgi in 0u8..16,
    ) {
        let target = Affinity::from_packed(packed);
        let value = icc::Sgi::to(sgi, target);
        prop_assert!(value.names(target));
        prop_assert_eq!(value.intid(), sgi);
        prop_assert_eq!(value.names(Affinity::from_packed(other)), other == packed);
        prop_assert!(!value.names(Affinity::from_packed(packed ^ 1)));
    }

    #[test]
    fn rdbase_round_trips_addresses_and_processor_numbers(
        address in any::<u64>(),
        number in any::<u16>(),
    ) {
        prop_assert_eq!(its::RdBase::from_address(address).address(), address & 0xf_ffff_ffff_0000);
        prop_assert_eq!(
            its::RdBase::from_processor_number(number).processor_number(),
            Some(number)
        );
    }

    #[test]
    fn inserting_a_field_changes_no_other_bits(
        number in 32u32..1020,
        register in any::<u32>(),
        value in any::<u32>(),
    ) {
        for field in SPI_FIELDS {
            let place = field.locate(IntId::new(number)).unwrap();
            let changed = place.insert(register, value);
            prop_assert_eq!(changed & !place.mask(), register & !place.mask());
            prop_assert_eq!(place.extract(changed), value & (place.mask() >> place.shift()));
        }
    }
}

#[test]
fn constructors_number_intids_from_zero_within_each_class() {
    type Constructor = fn(u32) -> Option<IntId>;
    let classes: [(Constructor, IntIdClass, u32, u32); 5] = [
        (IntId::sgi, IntIdClass::Sgi, 0, 15),
        (IntId::ppi, IntIdClass::Ppi, 16, 31),
        (IntId::spi, IntIdClass::Spi, 32, 1019),
        (IntId::eppi, IntIdClass::ExtendedPpi, 1056, 1119),
        (IntId::espi, IntIdClass::ExtendedSpi, 4096, 5119),
    ];
    for (constructor, class, first, last) in classes {
        assert_eq!(constructor(0), Some(IntId::new(first)));
        assert_eq!(constructor(last - first), Some(IntId::new(last)));
        assert_eq!(constructor(last - first + 1), None, "{class:?}");
        assert_eq!(constructor(u32::MAX), None, "{class:?}");
        assert_eq!((IntId::new(first).class(), IntId::new(last).class()), (class, class));
    }
    assert_eq!(IntId::lpi(0), Some(IntId::new(8192)));
    assert_eq!(IntId::lpi(u32::MAX - 8192), Some(IntId::new(u32::MAX)));
    assert_eq!(IntId::lpi(u32::MAX - 8191), None);
}
