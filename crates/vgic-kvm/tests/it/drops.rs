//! Tests for what a load counts: attributes that the machine doesn't have, and tables that are not
//! in the memory that came with them.

use crate::board::{Levels, config, fresh, ram, with_tables};
use gic_arch::gicd::{self, Irouter};
use gic_arch::its::CollectionId;
use gic_arch::{IntId, gicr, icc};
use vgic::saved_state::CollectionState;
use vgic_kvm::abi::{Attribute, LINE_LEVEL};
use vgic_kvm::{KvmDevice, KvmRegister, KvmView};

#[test]
fn attribute_bits_that_a_load_drops_are_counted() {
    let (config, memory, cpu) = (config(), ram(), config().cpus[1].affinity);
    let dropped = |attribute, more: u64| {
        let mut view = KvmView::new(&config, fresh(), &memory).unwrap();
        let device = KvmDevice::Gic;
        let value = view.get(device, attribute).unwrap() | more;
        view.load(&[KvmRegister { device, attribute, value }]).unwrap();
        assert_eq!(view.left_out().is_empty(), view.left_out().attribute_bits == 0);
        view.left_out().attribute_bits
    };
    let shared = |offset| Attribute::Distributor { offset };
    let private = |offset| Attribute::Redistributor { cpu, offset };
    let interface = |register: icc::SysRegEncoding| Attribute::SystemRegister { cpu, register };
    let n_assgi_req = 1 << 8;
    assert_eq!(dropped(shared(gicd::CTLR.offset()), 0), 0);
    assert_eq!(dropped(shared(gicd::CTLR.offset()), n_assgi_req), 1);
    assert_eq!(dropped(private(gicr::CTLR.offset()), 7 << 24), 3);
    assert_eq!(dropped(private(gicr::ICFGR.offset() + 4), 2 << 22), 1);
    assert_eq!(dropped(private(gicr::PENDBASER.offset() + 4), 1 << 30), 0);
    assert_eq!(dropped(interface(icc::CTLR.encoding()), 0x3800), 0);
    assert_eq!(dropped(interface(icc::CTLR.encoding()), 1 << 6), 1);
    assert_eq!(dropped(interface(icc::AP1R0.encoding()), 1 << 32), 1);
    let route = gicd::irouter(IntId::new(40)).unwrap().offset();
    assert_eq!(dropped(shared(route), Irouter::new().with_any_participating(true).into_bits()), 1);
    assert_eq!(dropped(shared(route + 4), 1), 1);
    // The machine has the SPIs 32 to 95.
    for field in [gicd::IGROUPR, gicd::ISENABLER, gicd::ISPENDR, gicd::ISACTIVER] {
        assert_eq!(dropped(shared(field.offset() + 8), 0xf), 0);
        assert_eq!(dropped(shared(field.offset() + 12), 0xf), 4);
    }
    assert_eq!(dropped(shared(gicd::IPRIORITYR.offset() + 200), 0xf8), 5);
    assert_eq!(dropped(shared(gicd::ICFGR.offset() + 24), 2), 1);
    let route = gicd::irouter(IntId::new(200)).unwrap().offset();
    assert_eq!(dropped(shared(route), 1), 1);
    let lines = |first| Attribute::Levels { cpu, info: LINE_LEVEL, first };
    assert_eq!([dropped(lines(64), 5), dropped(lines(96), 5)], [0, 2]);
}

#[test]
fn an_its_loaded_from_memory_without_tables_is_counted() {
    let (config, early, late) = (config(), ram(), ram());
    let mut state = with_tables(Levels::Flat, &late);
    let (collection, target) = (CollectionId::new(0), state.cpus[0].affinity);
    state.its[0].collections = vec![CollectionState::new(collection, target)];
    (state.its[0].creadr, state.its[0].cwriter) = (0x40, 0x40);
    let registers = KvmView::new(&config, state, &late).unwrap().save().unwrap();
    for (memory, empty) in [(&late, 0), (&early, 1)] {
        let mut view = KvmView::new(&config, fresh(), memory).unwrap();
        view.load(&registers).unwrap();
        assert_eq!(view.left_out().empty_its, empty);
        assert_eq!(view.left_out().is_empty(), empty == 0);
    }
}
