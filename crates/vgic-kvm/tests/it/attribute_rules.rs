//! Tests for attributes with special rules, as implemented by KVM (6.1 and 6.12).

use crate::board::{CPUS, DEVICES, Levels, QUEUE, SPIS, config, fresh, ram, with_tables};
use gic_arch::{Affinity, gicd, gicr, gits, icc};
use vgic_kvm::abi::{Attribute, Errno, control, frame};
use vgic_kvm::{KvmDevice, KvmView};

const CPU: Affinity = Affinity::from_packed(1);
const GIC: KvmDevice = KvmDevice::Gic;
const ITS: KvmDevice = KvmDevice::Its(0);

fn its(register: u32) -> Attribute {
    Attribute::Its { offset: register.into() }
}

fn redistributor(offset: u32) -> Attribute {
    Attribute::Redistributor { cpu: CPU, offset }
}

fn interface(register: icc::SysRegEncoding) -> Attribute {
    Attribute::SystemRegister { cpu: CPU, register }
}

/// Calls `test` with the view of a machine after reset.
fn with_view(test: impl FnOnce(&mut KvmView<'_>)) {
    let (config, memory) = (config(), ram());
    test(&mut KvmView::new(&config, fresh(), &memory).unwrap());
}

/// Calls `test` with the view of a machine whose ITS is enabled.
fn with_enabled_its(test: impl FnOnce(&mut KvmView<'_>)) {
    let (config, memory) = (config(), ram());
    let state = with_tables(Levels::Flat, &memory);
    test(&mut KvmView::new(&config, state, &memory).unwrap());
}

#[test]
fn writing_ispendr_replaces_the_latch_and_keeps_the_line_level() {
    with_view(|view| {
        let pending = Attribute::Distributor { offset: gicd::ISPENDR.offset() + 4 };
        let levels = Attribute::Levels { cpu: CPU, info: 0, first: 32 };
        view.set(GIC, levels, 0xf0).unwrap();
        view.set(GIC, pending, 0b11).unwrap();
        view.set(GIC, pending, 0b10).unwrap();
        assert_eq!((view.get(GIC, pending), view.get(GIC, levels)), (Ok(0b10), Ok(0xf0)));
        let clear = Attribute::Distributor { offset: gicd::ICPENDR.offset() + 4 };
        view.set(GIC, clear, 0b10).unwrap();
        assert_eq!((view.get(GIC, clear), view.get(GIC, pending)), (Ok(0), Ok(0b10)));
    });
}

#[test]
fn absent_registers_read_zero_and_ignore_writes() {
    with_view(|view| {
        for offset in [0x30, 0x2, 0x84 + 0x70, 0x6000, 0xfffc, 0x4_0000] {
            for attribute in [Attribute::Distributor { offset }, redistributor(offset)] {
                assert_eq!(view.set(GIC, attribute, u64::MAX), Ok(()), "{attribute:x?}");
                assert_eq!(view.get(GIC, attribute), Ok(0), "{attribute:x?}");
            }
        }
    });
}

#[test]
fn iidr_refuses_another_implementer_or_revision() {
    with_view(|view| {
        let iidr = Attribute::Distributor { offset: gicd::IIDR.offset() };
        let ours = view.get(GIC, iidr).unwrap();
        assert_eq!(ours, 0x4b00_343b);
        assert_eq!(view.set(GIC, iidr, ours), Ok(()));
        for other in [0x4b00_243b, 0x4b00_143b, 0x4b00_443b, 0x4c00_343b] {
            assert_eq!(view.set(GIC, iidr, other), Err(Errno::Invalid), "{other:#x}");
        }
    });
}

#[test]
fn group_0_is_not_enabled_without_group_1() {
    with_view(|view| {
        let control = Attribute::Distributor { offset: gicd::CTLR.offset() };
        for (written, kept) in [(1, 0), (2, 2), (3, 3), (0, 0)] {
            view.set(GIC, control, written).unwrap();
            assert_eq!(view.get(GIC, control).unwrap() & 3, kept);
        }
    });
}

#[test]
fn all_redistributors_share_one_propbaser() {
    with_view(|view| {
        let low = |cpu| Attribute::Redistributor {
            cpu: Affinity::from_packed(cpu),
            offset: gicr::PROPBASER.offset(),
        };
        view.set(GIC, low(0), 0x4004_078f).unwrap();
        for cpu in 0..u32::from(CPUS) {
            assert_eq!(view.get(GIC, low(cpu)), Ok(0x4004_078f));
        }
    });
}

#[test]
fn lpi_tables_are_fixed_once_lpis_are_enabled() {
    with_view(|view| {
        let pending = redistributor(gicr::PENDBASER.offset());
        view.set(GIC, pending, 0x4005_0000).unwrap();
        view.set(GIC, redistributor(gicr::CTLR.offset()), 1).unwrap();
        view.set(GIC, pending, 0x4006_0000).unwrap();
        assert_eq!(view.get(GIC, pending), Ok(0x4005_0000));
        assert_eq!(view.get(GIC, redistributor(gicr::CTLR.offset())), Ok(7));
    });
}

#[test]
fn invalid_cpu_interface_accesses_return_kvms_errors() {
    with_view(|view| {
        let outcome = |view: &mut KvmView<'_>, register: icc::SysRegEncoding, value| {
            view.set(GIC, interface(register), value)
        };
        assert_eq!(outcome(view, icc::SRE.encoding(), 0), Err(Errno::Invalid));
        assert_eq!(outcome(view, icc::AP1R1.encoding(), 0), Err(Errno::Invalid));
        assert_eq!(outcome(view, icc::IAR1.encoding(), 0), Err(Errno::NoEntry));
        // As in KVM, a value with the host's 24 INTID bits is accepted. A value without A3V or with
        // more priority bits is refused.
        assert_eq!(outcome(view, icc::CTLR.encoding(), 0x8c00), Ok(()));
        assert_eq!(outcome(view, icc::CTLR.encoding(), 0x0400), Err(Errno::Invalid));
        assert_eq!(outcome(view, icc::CTLR.encoding(), 0x8500), Err(Errno::Invalid));
        let stranger = Attribute::SystemRegister {
            cpu: Affinity::from_packed(99),
            register: icc::PMR.encoding(),
        };
        assert_eq!(view.get(GIC, stranger), Err(Errno::Invalid));
    });
}

#[test]
fn line_levels_require_an_aligned_first_intid() {
    with_view(|view| {
        let levels = |info, first| Attribute::Levels { cpu: CPU, info, first };
        for (attribute, outcome) in [
            (levels(0, 0), Ok(0)),
            (levels(0, 992), Ok(0)),
            (levels(0, 33), Err(Errno::Invalid)),
            (levels(1, 32), Err(Errno::Invalid)),
        ] {
            assert_eq!(view.get(GIC, attribute), outcome, "{attribute:?}");
        }
    });
}

#[test]
fn misaligned_its_registers_return_einval() {
    with_view(|view| {
        for (offset, outcome) in [
            (0x2, Err(Errno::Invalid)),
            (0x4, Ok(0x4b00_043b)),
            (0xc, Err(Errno::Invalid)),
            (0x10, Err(Errno::NoRegister)),
            (0x84, Err(Errno::Invalid)),
            (0xffe8, Ok(0x3b)),
            (0xffea, Err(Errno::Invalid)),
            (0x1_0040, Err(Errno::NoRegister)),
            (1 << 40, Err(Errno::NoRegister)),
        ] {
            assert_eq!(view.get(ITS, Attribute::Its { offset }), outcome, "{offset:#x}");
        }
    });
}

#[test]
fn an_its_is_enabled_only_with_tables() {
    with_view(|view| {
        let (base, write, read) =
            (its(gits::CBASER.offset()), its(gits::CWRITER.offset()), its(gits::CREADR.offset()));
        let enable = its(gits::CTLR.offset());
        view.set(ITS, base, 1 << 63 | QUEUE).unwrap();
        view.set(ITS, write, 0x40).unwrap();
        view.set(ITS, write, 0x1000).unwrap();
        assert_eq!(view.get(ITS, write), Ok(0x40), "an offset beyond the queue is ignored");
        assert_eq!(view.set(ITS, read, 0x1000), Err(Errno::Invalid));
        view.set(ITS, enable, 1).unwrap();
        assert_eq!(view.get(ITS, enable), Ok(0), "without tables");
        view.set(ITS, read, 0x40).unwrap();
        assert_eq!(view.get(ITS, enable), Ok(1 << 31), "quiescent");
        view.set(ITS, base, 1 << 63 | QUEUE).unwrap();
        assert_eq!((view.get(ITS, write), view.get(ITS, read)), (Ok(0), Ok(0)));
        for table in [0x100, 0x108] {
            view.set(ITS, its(table), 1 << 63 | DEVICES).unwrap();
        }
        view.set(ITS, enable, 1).unwrap();
        assert_eq!(view.get(ITS, enable), Ok(1 << 31 | 1));
    });
}

#[test]
fn the_queue_and_tables_of_an_enabled_its_do_not_change() {
    with_enabled_its(|view| {
        assert_eq!(view.set(ITS, its(gits::CREADR.offset()), 0), Err(Errno::Busy));
        assert_eq!(view.set(ITS, its(gits::IIDR.offset()), 0x4b00_143b), Err(Errno::Invalid));
        for register in [gits::CBASER.offset(), 0x100, 0x108] {
            let before = view.get(ITS, its(register)).unwrap();
            view.set(ITS, its(register), 0).unwrap();
            assert_eq!(view.get(ITS, its(register)), Ok(before));
        }
    });
}

#[test]
fn a_reset_its_keeps_its_table_attributes() {
    with_enabled_its(|view| {
        let table = view.get(ITS, its(0x100)).unwrap();
        view.set(ITS, Attribute::Control(control::ITS_RESET), 0).unwrap();
        assert_eq!(view.get(ITS, its(gits::CTLR.offset())), Ok(1 << 31));
        assert_eq!(view.get(ITS, its(0x100)), Ok(table & !(1 << 63)));
        assert_eq!(view.get(ITS, its(gits::CBASER.offset())), Ok(0));
    });
}

#[test]
fn creation_attributes_read_back_and_are_fixed() {
    with_view(|view| {
        let address = Attribute::Address;
        assert_eq!(view.get(GIC, address(frame::DISTRIBUTOR)), Ok(0x0800_0000));
        assert_eq!(view.get(ITS, address(frame::ITS)), Ok(0x0808_0000));
        assert_eq!(view.get(GIC, Attribute::InterruptCount), Ok((32 + SPIS).into()));
        for (device, attribute, errno) in [
            (GIC, address(frame::DISTRIBUTOR), Errno::Exists),
            (GIC, address(frame::REDISTRIBUTOR_REGION), Errno::Invalid),
            (GIC, address(frame::ITS), Errno::NoRegister),
            (GIC, Attribute::InterruptCount, Errno::Busy),
            (GIC, Attribute::Control(control::ITS_SAVE_TABLES), Errno::NoRegister),
            (ITS, address(frame::ITS), Errno::Exists),
            (ITS, address(frame::DISTRIBUTOR), Errno::NoDevice),
            (ITS, Attribute::Distributor { offset: 0 }, Errno::NoRegister),
            (KvmDevice::Its(1), address(frame::ITS), Errno::NoDevice),
        ] {
            assert_eq!(view.set(device, attribute, 0), Err(errno), "{device:?} {attribute:?}");
        }
    });
}
