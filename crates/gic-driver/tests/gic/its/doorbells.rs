//! Tests for the doorbells of vPEs. The fake rings the doorbell of a vPE that is not resident, at
//! the redistributor to which the vPE is mapped.

use super::direct::{Direct, VPES, hardware, setup, virtual_lpi, vpes};
use crate::fake::Moment;
use gic_arch::Lpi;
use gic_driver::ItsError;
use gic_driver::its::DirectEvent;
use msi_types::{Cpu, DeviceId};

/// DeviceID that no device has.
const PROXY: DeviceId = DeviceId::new(0xff);

/// Creates the machine with resident vPEs that have doorbells, and hands over event 0 of device 5
/// to vPE 0.
fn machine() -> (Direct, DirectEvent) {
    let Direct { setup, vpes } = Direct::new();
    let direct = Direct { setup, vpes: vpes.with_doorbells(PROXY).unwrap() };
    let block = direct.map();
    let event = direct.hand_over(&block, 0, virtual_lpi(0, 3));
    (direct, event)
}

/// Takes a CPU's LPIs, which must be doorbells, and returns the vPEs to wake.
fn rung(direct: &Direct, cpu: usize) -> Vec<u16> {
    let taken = direct.setup.take(cpu).into_iter();
    taken.filter_map(|lpi| direct.vpes.ring(Lpi::try_from(lpi).unwrap())).collect()
}

#[test]
fn a_message_rings_the_doorbell_of_a_waiting_vcpu() {
    let (direct, _event) = machine();
    direct.vpes.put_to_wait(0).unwrap();
    assert!(!direct.vpes.may_be_pending(0));
    direct.send(0);
    assert_eq!(rung(&direct, 1), [0]);
    assert!(direct.vpes.may_be_pending(0));
    direct.load(0);
    assert_eq!(direct.take(0), [8195]);
}

#[test]
fn a_message_racing_put_rings_the_doorbell_or_is_reported_pending() {
    for moment in [Moment::Before, Moment::After] {
        let (direct, _event) = machine();
        direct.setup.board.world().around_a_put = Some((moment, 5, 0));
        direct.vpes.put_to_wait(0).unwrap();
        let was_pending = direct.vpes.may_be_pending(0);
        assert_eq!(was_pending, moment == Moment::Before);
        assert_eq!(rung(&direct, 1).is_empty(), was_pending);
    }
}

#[test]
fn a_message_rings_no_doorbell_if_the_vcpu_does_not_wait() {
    let (direct, _event) = machine();
    direct.vpes.put(0).unwrap();
    direct.send(0);
    assert_eq!(rung(&direct, 1), [0; 0], "the vCPU does not wait");
    direct.load(0);
    assert_eq!(direct.take(0), [8195]);
    direct.vpes.put_to_wait(0).unwrap();
    direct.load(0);
    direct.vpes.put(0).unwrap();
    direct.send(0);
    assert_eq!(rung(&direct, 1), [0; 0], "the vCPU no longer waits");
}

#[test]
fn an_earlier_doorbell_ends_a_wait() {
    let (direct, _event) = machine();
    direct.vpes.put(0).unwrap();
    direct.send(0);
    direct.load(0);
    assert_eq!(direct.take(0), [8195]);
    direct.vpes.put_to_wait(0).unwrap();
    assert_eq!(rung(&direct, 1), [0]);
    assert!(direct.vpes.may_be_pending(0));
}

#[test]
fn a_doorbell_arrives_at_the_cpu_where_its_vpe_was_last_resident() {
    let (direct, _event) = machine();
    for cpu in [3, 0, 1, 1, 2] {
        direct.vpes.put_to_wait(0).unwrap();
        direct.vpes.put(1).unwrap();
        direct.vpes.load(0, Cpu::new(cpu)).unwrap();
        direct.vpes.put_to_wait(0).unwrap();
        direct.send(0);
        for other in 0..4 {
            let expected: &[u16] = if other == cpu { &[0] } else { &[] };
            assert_eq!(rung(&direct, other as usize), expected);
        }
        direct.vpes.load(0, Cpu::new(cpu)).unwrap();
        assert_eq!(direct.take(0), [8195]);
    }
}

#[test]
fn a_moved_event_rings_the_doorbell_of_its_new_vcpu() {
    let (direct, mut event) = machine();
    direct.vpes.move_event(&mut event, 1).unwrap();
    (0..VPES).for_each(|vpe| direct.vpes.put_to_wait(vpe).unwrap());
    direct.send(0);
    assert_eq!((rung(&direct, 1), rung(&direct, 2)), (vec![], vec![1]));
}

#[test]
fn only_a_waiting_vcpu_is_woken() {
    let (direct, _event) = machine();
    assert!(!direct.vpes.wake(0) && !direct.vpes.wake(VPES));
    direct.vpes.put_to_wait(0).unwrap();
    assert!(!direct.vpes.may_be_pending(0));
    assert!(direct.vpes.wake(0) && direct.vpes.may_be_pending(0));
    direct.load(0);
    assert!(!direct.vpes.wake(0));
    direct.vpes.put_to_wait(0).unwrap();
    assert!(!direct.vpes.may_be_pending(0), "the earlier wake-up has ended the earlier wait");
}

#[test]
fn a_vcpu_without_a_doorbell_does_not_wait() {
    let direct = Direct::new();
    assert!(matches!(direct.vpes.put_to_wait(0), Err(ItsError::Fault(_))));
    assert!(direct.vpes.may_be_pending(0));
}

#[test]
fn vpe_sets_share_one_proxy_device_for_doorbells() {
    let setup = setup(hardware(), 2 * VPES);
    let before = setup.board.in_memory(|memory| memory.live_regions());
    let sets = [(); 2].map(|()| vpes(&setup).unwrap().with_doorbells(PROXY).unwrap());
    let beyond = vpes(&setup).map(|_| ());
    assert!(beyond.is_err(), "the table has four entries");
    drop(sets);
    assert_eq!(setup.board.in_memory(|memory| memory.live_regions()), before);
    assert_eq!(setup.its.faults().0, 0);
}

#[test]
fn doorbells_of_a_proxy_device_beyond_the_range_are_refused() {
    let setup = setup(hardware(), VPES);
    let proxy = DeviceId::new(u32::MAX);
    let refused = vpes(&setup).unwrap().with_doorbells(proxy).map(|_| ());
    assert!(matches!(refused, Err(ItsError::DeviceIdOutOfRange { .. })));
    assert!(vpes(&setup).is_ok(), "the vPEs have been unmapped");
}
