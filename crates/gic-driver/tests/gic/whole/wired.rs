//! Tests for SPIs, SGIs and PPIs as wired interrupts.

use super::*;
use crate::fake::run_on;

#[test]
fn an_interrupt_has_one_owner() {
    let (_, gic, _) = running();
    gic.claim(hwirq(40), count(4)).unwrap();
    assert_eq!(gic.claim(hwirq(43), count(2)), Err(MsiError::InUse(hwirq(43))));
    // The refused claim must not leave an interrupt claimed.
    assert_eq!(gic.claim(hwirq(44), count(1)), Ok(()));
    gic.release(hwirq(40), count(4));
    assert_eq!(gic.claim(hwirq(40), count(4)), Ok(()));
}

#[test]
fn colliding_claim_keeps_nothing() {
    let (_, gic, _) = running();
    gic.claim(hwirq(43), count(1)).unwrap();
    assert!(gic.claim(hwirq(40), count(4)).is_err());
    assert_eq!(gic.claim(hwirq(40), count(3)), Ok(()));
}

#[test]
fn only_implemented_wired_interrupts_can_be_claimed() {
    let (_, gic, _) = running();
    let none = [(95, 2), (1019, 1), (1023, 1), (1087, 2), (4127, 2), (8192, 1), (u32::MAX, 1)];
    for (first, many) in none {
        assert!(gic.claim(hwirq(first), count(many)).is_err(), "{first}");
    }
    assert_eq!(gic.claim(hwirq(4096), count(32)), Ok(()));
}

#[test]
fn extended_intids_are_refused_without_extended_range() {
    let fake = Board::with_cpus(CPUS);
    let gic = discovered(&fake).unwrap();
    gic.cpu_on(cpu(0), &FakeRegisters::without_extended_range()).unwrap();
    for intid in [1060, 4096] {
        assert_eq!(gic.claim(hwirq(intid), count(1)), Err(MsiError::UnknownVector(hwirq(intid))));
    }
    assert_eq!(gic.claim(hwirq(40), count(1)), Ok(()));
}

#[test]
fn a_private_vector_changes_only_on_the_calling_cpu() {
    let (fake, gic, _) = running();
    for intid in [5, 27, 1060] {
        let states = || {
            let state =
                |index| fake.at_redistributor(index, |frame| *frame.bank.state(IntId::new(intid)));
            [0, 1].map(|index| (state(index).forwarded, state(index).pending))
        };
        gic.mask(hwirq(intid));
        run_on(1);
        gic.mask(hwirq(intid));
        gic.unmask(hwirq(intid));
        gic.set_pending(hwirq(intid), Pending::Set);
        assert!(gic.is_pending(hwirq(intid)));
        assert_eq!(states(), [(false, false), (true, true)], "{intid}");
        gic.mask(hwirq(intid));
        gic.set_pending(hwirq(intid), Pending::Clear);
        run_on(0);
        gic.unmask(hwirq(intid));
        assert_eq!(states(), [(true, false), (false, false)], "{intid}");
    }
}

#[test]
fn a_private_vector_can_be_claimed_and_configured() {
    let (fake, gic, _) = running();
    gic.claim(hwirq(27), count(1)).unwrap();
    assert_eq!(gic.claim(hwirq(27), count(1)), Err(MsiError::InUse(hwirq(27))));
    gic.set_trigger(hwirq(27), Trigger::Edge).unwrap();
    assert!(fake.at_redistributor(0, |frame| frame.bank.state(IntId::new(27)).edge));
    let refused = gic.set_target(hwirq(27), cpu(1));
    assert!(matches!(refused, Err(MsiError::NotReachable(_, _))));
    gic.unmask(hwirq(27));
    gic.release(hwirq(27), count(1));
    assert!(!fake.at_redistributor(0, |frame| frame.bank.state(IntId::new(27)).forwarded));
    assert_eq!(gic.claim(hwirq(27), count(1)), Ok(()));
}

#[test]
fn secure_interrupt_cannot_be_claimed() {
    let fake = Board::with(
        FakeDistributor::new(Security::NonSecure),
        vec![FakeRedistributor::new(0, true)],
    );
    let gic = Gic::new(Arc::new(fake), config()).unwrap();
    assert_eq!(gic.claim(hwirq(32), count(2)), Err(MsiError::UnknownVector(hwirq(33))));
    assert_eq!(gic.claim(hwirq(32), count(1)), Ok(()));
}

#[test]
fn released_interrupts_are_disabled_and_idle() {
    let (fake, gic, _) = running();
    gic.claim(hwirq(40), count(1)).unwrap();
    gic.unmask(hwirq(40));
    gic.set_pending(hwirq(40), Pending::Set);
    assert!(gic.is_pending(hwirq(40)));
    gic.release(hwirq(40), count(1));
    let state = fake.at_distributor(|frame| *frame.spis.state(IntId::new(40)));
    assert!(!state.enabled && !state.forwarded && !state.pending);
}

#[test]
fn changing_the_trigger_of_an_unmasked_interrupt_is_refused() {
    let (_, gic, _) = running();
    assert_eq!(gic.set_trigger(hwirq(40), Trigger::Edge), Ok(()));
    gic.unmask(hwirq(40));
    let refused = gic.set_trigger(hwirq(40), Trigger::Level).unwrap_err();
    assert_eq!(refused.to_string(), "gicv3@8000000, set trigger: the interrupt is enabled");
}

#[test]
fn a_cpu_that_is_off_or_unknown_is_no_target() {
    let (_, gic, registers) = running();
    gic.cpu_off(cpu(1), &registers[1]).unwrap();
    for number in [1, 9] {
        let refused = gic.set_target(hwirq(40), cpu(number));
        assert!(matches!(refused, Err(MsiError::NotReachable(..))), "{number}");
    }
}
