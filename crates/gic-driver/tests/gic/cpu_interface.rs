//! CPU interface tests: setting it up, acknowledging and ending interrupts, priority masks and
//! SGIs.

use crate::fake::FakeRegisters;
use gic_arch::icc::{Sgi, SreEl2};
use gic_arch::{Affinity, IntId, Priority, SgiId, gicd, icc};
use gic_driver::cpu_interface::{PriorityScale, SplitEoi, SynchronizedAcknowledge};
use gic_driver::{
    CpuInterface, CpuInterfaceConfig, GicCpuInterface, GicError, SecurityView, SystemRegisters,
};
use proptest::prelude::*;

fn combined(registers: &FakeRegisters) -> CpuInterface<&FakeRegisters> {
    CpuInterface::enable(registers, CpuInterfaceConfig::default()).unwrap()
}

fn split(registers: &FakeRegisters) -> CpuInterface<&FakeRegisters, SplitEoi> {
    CpuInterface::enable(registers, CpuInterfaceConfig::default()).unwrap()
}

fn sgi(number: u8) -> SgiId {
    SgiId::new(number).unwrap()
}

#[test]
fn an_unsynchronized_acknowledge_returns_none() {
    let registers = FakeRegisters::default();
    let safe = SynchronizedAcknowledge::new(&registers);
    let interface: CpuInterface<_> =
        CpuInterface::enable(safe, CpuInterfaceConfig::default()).unwrap();
    registers.raise(40);
    registers.lose_synchronization();
    assert_eq!(interface.acknowledge(), None);
    let taken = interface.acknowledge().unwrap();
    assert_eq!(taken.intid(), IntId::new(40));
    interface.end(taken);
    assert_eq!(interface.acknowledge(), None);
}

#[test]
fn enabling_at_el2_enables_system_registers_at_el1_and_el2() {
    let registers = FakeRegisters::at_el2();
    combined(&registers);
    let sre = SreEl2::from(registers.get(icc::SRE_EL2.encoding()));
    assert!(sre.sre() && sre.enable());
    assert_eq!(registers.get(icc::SRE.encoding()) & 1, 1);
    assert_eq!(registers.get(icc::IGRPEN1.encoding()), 1);
}

#[test]
fn enable_clears_stale_group_1_active_priorities() {
    let registers = FakeRegisters::default();
    registers.set(icc::AP1R0.encoding(), 1 << 20);
    combined(&registers);
    assert_eq!(registers.get(icc::AP1R0.encoding()), 0);
}

#[test]
fn enable_clears_group_0_active_priorities_only_if_accessible() {
    let registers = FakeRegisters::default();
    registers.set(icc::AP0R0.encoding(), 1 << 3);
    combined(&registers);
    assert_eq!(registers.get(icc::AP0R0.encoding()), 0);
    // The fake panics if the driver accesses a Group 0 register.
    let interface = combined(&FakeRegisters::with_shifted_mask()).mask();
    assert_eq!(interface, Priority::new(0xf0));
}

#[test]
fn highest_pending_does_not_acknowledge() {
    let registers = FakeRegisters::default();
    let interface = combined(&registers);
    assert_eq!(interface.highest_pending(), None);
    registers.raise(42);
    assert_eq!(interface.highest_pending(), Some(IntId::new(42)));
    assert!(registers.running().is_empty());
}

#[test]
fn nested_mask_below_calls_keep_the_stricter_mask() {
    let registers = FakeRegisters::default();
    let interface = combined(&registers);
    let outer = interface.mask_below(Priority::new(0x40));
    let inner = interface.mask_below(Priority::new(0x80));
    assert_eq!(interface.mask(), Priority::new(0x40), "the stricter mask stays in place");
    interface.restore_mask(inner);
    assert_eq!(interface.mask(), Priority::new(0x40));
    interface.restore_mask(outer);
    assert_eq!(interface.mask(), Priority::new(0xf0));
}

#[test]
fn the_priority_scale_is_detected_from_the_non_secure_mask() {
    for (registers, scale) in [
        (FakeRegisters::with_shifted_mask(), PriorityScale::Same),
        (FakeRegisters::default(), PriorityScale::Unshifted),
    ] {
        let interface = combined(&registers);
        assert_eq!(interface.priority_scale(SecurityView::NonSecure), scale);
        assert_eq!(interface.mask(), Priority::new(0xf0), "the mask is restored");
        assert_eq!(interface.priority_scale(SecurityView::Single), PriorityScale::Same);
    }
}

#[test]
fn an_unshifted_priority_mask_maps_to_the_upper_half() {
    let mask_for = |scale: PriorityScale| scale.mask_for(Priority::new(0xa0)).get();
    assert_eq!((mask_for(PriorityScale::Same), mask_for(PriorityScale::Unshifted)), (0xa0, 0xd0));
}

#[test]
fn priority_bits_are_read_from_the_control_register() {
    let registers = FakeRegisters::default();
    let interface = combined(&registers);
    assert_eq!((interface.priority_bits(), interface.binary_point()), (5, 3));
}

mod sgis {
    use super::*;

    #[test]
    fn an_sgi_target_is_encoded_as_the_manual_specifies() {
        let registers = FakeRegisters::default();
        combined(&registers).send(sgi(5), Affinity::new(4, 3, 2, 0x21)).unwrap();
        // Expected value: Aff3 << 48 | RS << 44 | Aff2 << 32 | INTID << 24 | Aff1 << 16 |
        // 1 << (Aff0 % 16).
        assert_eq!(
            registers.sgis().into_iter().map(u64::from).collect::<Vec<_>>(),
            [4 << 48 | 2 << 44 | 3 << 32 | 5 << 24 | 2 << 16 | 1 << 1]
        );
    }

    #[test]
    fn send_to_others_writes_the_sgi_register_once() {
        let registers = FakeRegisters::default();
        combined(&registers).send_to_others(sgi(15));
        assert_eq!(
            registers.sgis().into_iter().map(u64::from).collect::<Vec<_>>(),
            [1 << 40 | 15 << 24]
        );
    }

    #[test]
    fn unreachable_sgi_targets_are_refused() {
        let registers = FakeRegisters::default();
        let all = gicd::Typer::new().with_rss(true).with_a3v(true);
        for (typer, target, reachable) in [
            (all, Affinity::new(1, 0, 0, 16), true),
            (all.with_rss(false), Affinity::new(0, 0, 0, 16), false),
            (all.with_rss(false), Affinity::new(0, 0, 0, 15), true),
            (all.with_a3v(false), Affinity::new(1, 0, 0, 0), false),
        ] {
            let sent = combined(&registers).limited_by(typer).send(sgi(0), target);
            assert_eq!(sent.is_ok(), reachable, "{target}");
        }
        registers.set(icc::CTLR.encoding(), 4 << 8);
        let far = CpuInterface::<_>::new(&registers).send(sgi(0), Affinity::new(0, 0, 0, 16));
        assert!(matches!(far, Err(GicError::SgiOutOfReach(..))));
    }

    /// System registers that panic when read. Copies access the same CPU's registers.
    #[derive(Clone, Copy)]
    struct WriteOnlyRegisters<'a>(&'a FakeRegisters);

    impl SystemRegisters for WriteOnlyRegisters<'_> {
        fn read_raw(&self, register: icc::SysRegEncoding) -> u64 {
            panic!("{register:?} is read");
        }
        fn write_raw(&self, register: icc::SysRegEncoding, value: u64) {
            self.0.write_raw(register, value);
        }
    }

    #[test]
    fn a_copied_handle_sends_sgis_without_reading_a_register() {
        let registers = FakeRegisters::default();
        combined(&registers);
        let handle =
            CpuInterface::<_>::new(WriteOnlyRegisters(&registers)).limited_by(gicd::Typer::new());
        let copy = handle;
        handle.send(sgi(1), Affinity::new(0, 2, 1, 15)).unwrap();
        copy.send_to(sgi(1), [Affinity::new(0, 0, 0, 3)]).unwrap();
        assert_eq!(registers.sgis().len(), 2);
    }

    #[test]
    fn an_unreachable_sgi_target_prevents_the_whole_send() {
        let registers = FakeRegisters::default();
        let interface = combined(&registers).limited_by(gicd::Typer::new());
        let targets = [Affinity::new(0, 0, 0, 1), Affinity::new(0, 0, 0, 17)];
        assert!(interface.send_to(sgi(0), targets).is_err());
        assert!(registers.sgis().is_empty());
    }

    #[test]
    fn sgi_ids_above_15_are_refused() {
        assert_eq!((SgiId::new(15).map(SgiId::get), SgiId::new(16)), (Some(15), None));
    }

    proptest! {
        #[test]
        fn an_sgi_to_a_set_reaches_exactly_its_members(
            // Keep the value ranges small so that several targets share a cluster or a range.
            targets in prop::collection::vec((0u8..2, 0u8..2, 0u8..2, 0u8..40), 0..40)
        ) {
            let targets: Vec<_> =
                targets.into_iter().map(|(a3, a2, a1, a0)| Affinity::new(a3, a2, a1, a0)).collect();
            let registers = FakeRegisters::default();
            combined(&registers).send_to(sgi(7), targets.iter().copied()).unwrap();
            let sent: Vec<Sgi> = registers.sgis();
            prop_assert!(sent.iter().all(|write| write.intid() == 7 && !write.all_but_self()));
            for a3 in 0..2 {
                for a2 in 0..2 {
                    for a1 in 0..2 {
                        for a0 in 0..48 {
                            let pe = Affinity::new(a3, a2, a1, a0);
                            let reached = sent.iter().any(|write| write.names(pe));
                            prop_assert_eq!(reached, targets.contains(&pe), "{}", pe);
                        }
                    }
                }
            }
        }
    }
}

/// Handles one interrupt, in a trap loop generic over the GIC architecture and the EOI mode.
fn take(interface: &impl GicCpuInterface) -> Option<IntId> {
    let interrupt = interface.acknowledge()?;
    let intid = interrupt.intid();
    interface.deactivate(interface.end(interrupt));
    Some(intid)
}

#[test]
fn a_trap_handler_deactivates_an_interrupt_once_in_either_eoi_mode() {
    let registers = FakeRegisters::default();
    registers.raise(42);
    assert_eq!(take(&combined(&registers)), Some(IntId::new(42)));
    registers.raise(43);
    assert_eq!(take(&split(&registers)), Some(IntId::new(43)));
    assert_eq!(take(&split(&registers)), None);
    assert_eq!((registers.running(), registers.deactivated()), (vec![], vec![42, 43]));
}
