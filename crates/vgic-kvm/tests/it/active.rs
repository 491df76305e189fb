//! Tests for the CPU of an active SPI, which KVM's format contains only as active priorities.

use crate::board::{config, fresh, ram};
use crate::limits::interrupt;
use gic_arch::icc;
use vgic::saved_state::{InterruptState, SavedState};
use vgic_kvm::KvmView;

/// Returns an interrupt in Group 1, which is active at this CPU or, for `None`, at its target.
fn active(intid: u32, priority: u8, at: Option<usize>, target: usize) -> InterruptState {
    let affinity = |cpu: usize| config().cpus[cpu].affinity;
    let mut state = interrupt(intid);
    (state.priority, state.active, state.active_at) = (priority, true, at.map(affinity));
    state.route = affinity(target).mpidr();
    state
}

/// Returns a state with these SPIs and with bits in `ICC_AP1R0_EL1` of each CPU.
fn state(spis: &[InterruptState], active_priorities: [u32; 3]) -> SavedState {
    let mut state = fresh();
    state.distributor.interrupts = spis.to_vec();
    for (cpu, bits) in state.cpus.iter_mut().zip(active_priorities) {
        (cpu.interface.ap1r[0], cpu.redistributor.waker) = (bits, 0);
    }
    state
}

/// Moves a state through KVM's format. Returns the number of SPIs whose CPU the save could not
/// represent.
fn moved(state: &SavedState) -> (u32, SavedState) {
    let (config, memory) = (config(), ram());
    let mut view = KvmView::new(&config, state.clone(), &memory).unwrap();
    let (registers, left_out) = (view.save().unwrap(), view.left_out());
    let mut view = KvmView::new(&config, fresh(), &memory).unwrap();
    view.load(&registers).unwrap();
    (left_out.active_spis, view.into_state())
}

#[test]
fn active_priorities_identify_the_cpu_of_an_active_spi() {
    let (low, high) = (1 << (0xa0 >> 3), 1 << (0x80 >> 3));
    let rerouted = active(40, 0xa0, Some(1), 0);
    let nested = active(41, 0x80, Some(1), 2);
    let other = active(42, 0xa0, None, 2);
    for (spis, bits, unknown) in [
        (&[rerouted][..], [0, low, 0], 0),
        (&[rerouted], [0, low, low], 1),
        (&[rerouted, nested], [0, low | high, 0], 0),
        (&[rerouted, nested], [high, low | high, 0], 1),
        (&[rerouted, nested, other], [0, low | high, low], 0),
        (&[active(40, 0xa0, None, 0)], [low, low, 0], 0),
        (&[active(40, 0xa0, None, 0)], [0, high, high], 0),
    ] {
        let state = state(spis, bits);
        let (counted, moved) = moved(&state);
        assert_eq!((counted, moved == state), (unknown, unknown == 0), "{bits:x?}");
    }
}

#[test]
fn group_priorities_depend_on_the_binary_points() {
    // With a binary point of 6 for Group 1, only bits 7:6 of 0xb8 count; 5 for Group 0, too.
    let mut both = state(&[active(40, 0xb8, Some(1), 0)], [0, 1 << (0x80 >> 3), 0]);
    (both.cpus[1].interface.bpr0, both.cpus[1].interface.bpr1) = (5, 6);
    assert_eq!(moved(&both), (0, both.clone()));
    both.cpus[1].interface.bpr1 = 3;
    assert_eq!(moved(&both).0, 1);
    let common = icc::Ctlr::from(both.cpus[1].interface.ctlr).with_cbpr(true);
    both.cpus[1].interface.ctlr = common.into_bits();
    assert_eq!(moved(&both).0, 0);
    both.distributor.interrupts[0].group1 = false;
    both.cpus[1].interface.ap1r[0] = 0;
    assert_eq!(moved(&both).0, 1);
    both.cpus[1].interface.ap0r[0] = 1 << (0x80 >> 3);
    assert_eq!(moved(&both).0, 0);
}

#[test]
fn an_active_ppi_accounts_for_an_active_priority() {
    let bit = 1 << (0xa0 >> 3);
    let mut state = state(&[active(40, 0xa0, Some(2), 0)], [0, bit, bit]);
    assert_eq!(moved(&state).0, 1);
    let mut ppi = active(27, 0xa0, None, 0);
    ppi.route = 0;
    state.cpus[1].redistributor.interrupts = vec![ppi];
    assert_eq!(moved(&state), (0, state.clone()));
}
