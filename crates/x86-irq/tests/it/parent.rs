//! Contracts of the vector domain as an MSI parent.

use crate::board::{ApicBank, Board, Device, id_of, relocate, request};
use msi_types::{
    Capabilities, Capability, Cpu, HwIrq, Isolation, MoveOutcome, MsiError, MsiParent, NotIsolated,
    Pending, Properties, RequesterId, Rewrite, Shape, Surroundings, negotiate,
};
use std::num::NonZeroU16;
use std::sync::Arc;
use x86_irq::message::DestinationFormat;
use x86_irq::{
    ApicId, ApicVector, Arrival, CpuError, FIRST_HWIRQ, VectorDomain, VectorDomainConfig,
};

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);

fn device(board: &Board, rewrite: Rewrite) -> Device {
    Device::new(&*board.domain, 1, rewrite, CPU0).unwrap()
}

/// Creates a board with a device at CPU 0.
fn one_device(cpus: u16, rewrite: Rewrite) -> (Board, Device) {
    let board = Board::new(cpus);
    let device = device(&board, rewrite);
    (board, device)
}

#[test]
fn groups_are_refused_without_remapping() {
    let board = Board::new(1);
    let attachment = board.domain.attach(RequesterId::new(1), 4).unwrap();
    let group = request(4, Shape::AlignedGroup, Rewrite::Masked, CPU0);
    assert_eq!(board.domain.allocate(&attachment, &group), Err(MsiError::NoGroups));
    let mut offers = None;
    board.domain.tiers(&mut |tier| offers = Some(tier.provides.contains(Capability::Groups)));
    assert_eq!(offers, Some(false));
}

#[test]
fn a_device_gets_no_more_than_its_limit() {
    let board = Board::new(1);
    let attachment = board.domain.attach(RequesterId::new(1), 2).unwrap();
    let two = request(2, Shape::Independent, Rewrite::Masked, CPU0);
    let block = board.domain.allocate(&attachment, &two).unwrap();
    let one = request(1, Shape::Independent, Rewrite::Masked, CPU0);
    let full = MsiError::DeviceFull { wanted: 1, limit: 2 };
    assert_eq!(board.domain.allocate(&attachment, &one), Err(full));
    board.domain.free(&attachment, block);
    assert!(board.domain.allocate(&attachment, &two).is_ok());
}

#[test]
fn a_full_cpu_and_a_full_machine_return_different_errors() {
    let board = Board::new(2);
    let attachment = board.domain.attach(RequesterId::new(1), 100).unwrap();
    let all = |cpu| request(9, Shape::Independent, Rewrite::Masked, cpu);
    let _first = board.domain.allocate(&attachment, &all(CPU0)).unwrap();
    let again = board.domain.allocate(&attachment, &all(CPU0));
    assert_eq!(again, Err(MsiError::NotReachable(CPU0, "its vectors are taken")));
    let _second = board.domain.allocate(&attachment, &all(CPU1)).unwrap();
    let third = board.domain.allocate(&attachment, &all(CPU1));
    assert_eq!(third, Err(MsiError::NoVectors { wanted: 9 }));
    assert_eq!(board.domain.available_on(CPU1), 3);
}

#[test]
fn the_old_vector_is_kept_until_the_new_one_fires() {
    let (board, mut device) = one_device(2, Rewrite::Masked);
    let free = board.domain.available_on(CPU0);
    relocate(&board, &mut device, CPU1).unwrap();
    assert!(!board.cleanup_is_due(CPU0));
    assert_eq!(board.domain.available_on(CPU0), free);
    board.write(device.message, device.serial);
    board.run(CPU1);
    assert!(board.cleanup_is_due(CPU0));
    board.clean_up(CPU0);
    assert_eq!(board.domain.available_on(CPU0), free + 1);
}

#[test]
fn an_old_vector_pending_in_the_irr_is_not_cleaned_up() {
    let (board, mut device) = one_device(2, Rewrite::Masked);
    let old = (device.message, board.domain.cpu_vector(device.vector()).unwrap());
    relocate(&board, &mut device, CPU1).unwrap();
    board.write(old.0, device.serial);
    board.write(device.message, device.serial);
    board.run(CPU1);
    board.clean_up(CPU0);
    assert!(board.cleanup_is_due(CPU0));
    assert_eq!(board.run(CPU0)[0].arrival, Arrival::Deliver(device.vector()));
    board.clean_up(CPU0);
    assert_eq!(board.domain.arrive(CPU0, old.1.vector), Arrival::Unknown);
}

#[test]
fn clean_up_keeps_old_vectors_of_unfinished_moves() {
    let board = Board::new(2);
    let mut waiting = device(&board, Rewrite::Masked);
    let mut arrived = Device::new(&*board.domain, 2, Rewrite::Masked, CPU0).unwrap();
    relocate(&board, &mut waiting, CPU1).unwrap();
    relocate(&board, &mut arrived, CPU1).unwrap();
    board.write(arrived.message, arrived.serial);
    board.run(CPU1);
    board.clean_up(CPU0);
    assert_eq!(board.domain.available_on(CPU0), 11);
}

#[test]
fn freed_vectors_drain_before_reuse() {
    let (board, device) = one_device(1, Rewrite::Masked);
    let place = board.domain.cpu_vector(device.vector()).unwrap();
    board.write(device.message, device.serial);
    device.free(&*board.domain);
    board.clean_up(CPU0);
    let next = Device::new(&*board.domain, 2, Rewrite::Masked, CPU0).unwrap();
    assert_ne!(board.domain.cpu_vector(next.vector()), Some(place));
    assert_eq!(board.run(CPU0)[0].arrival, Arrival::Released);
    board.clean_up(CPU0);
    assert_eq!(board.domain.hwirqs_in_use(), 1);
}

#[test]
fn a_low_word_endpoint_gets_a_vector_free_at_both_cpus() {
    let board = Board::new(2);
    let others = board.domain.attach(RequesterId::new(2), 100).unwrap();
    let half = request(6, Shape::Independent, Rewrite::Masked, CPU1);
    let _block = board.domain.allocate(&others, &half).unwrap();
    let mut device = device(&board, Rewrite::LowWordOnly);
    assert_eq!(relocate(&board, &mut device, CPU1), Ok(()));
}

#[test]
fn a_low_word_endpoint_cannot_change_the_upper_address_word() {
    let board = Board::off_line(2, DestinationFormat::Kvm32);
    board.online(CPU0);
    board.online_as(CPU1, ApicId::new(0x101));
    let attachment = board.domain.attach(RequesterId::new(1), 1).unwrap();
    let mut wide = request(1, Shape::Independent, Rewrite::LowWordOnly, CPU0);
    wide.fit.address_bits = 64;
    let block = board.domain.allocate(&attachment, &wide).unwrap();
    assert!(matches!(board.domain.begin_move(&block, 0, CPU1), Err(MsiError::WouldTear)));
}

#[test]
fn a_32_bit_endpoint_cannot_get_a_64_bit_address() {
    let board = Board::off_line(2, DestinationFormat::Kvm32);
    board.online(CPU0);
    board.online_as(CPU1, ApicId::new(0x101));
    let too_wide = MsiError::AddressTooWide { address: 0x100_fee0_1000, bits: 32 };
    assert_eq!(Device::new(&*board.domain, 1, Rewrite::Masked, CPU1).unwrap_err(), too_wide);
    let mut narrow = device(&board, Rewrite::Masked);
    assert_eq!(relocate(&board, &mut narrow, CPU1), Err(too_wide));
    assert_eq!(board.domain.available_on(CPU1), 12);
}

#[test]
fn moves_to_an_offline_cpu_are_refused_as_offline() {
    let (board, mut device) = one_device(2, Rewrite::Masked);
    board.offline(CPU1);
    let refused = Err(MsiError::NotReachable(CPU1, "it is offline"));
    assert_eq!(relocate(&board, &mut device, CPU1), refused);
    assert!(relocate(&board, &mut device, Cpu::new(9)).is_err());
}

#[test]
fn an_endpoint_that_cannot_be_rewritten_is_not_moved() {
    let (board, mut device) = one_device(2, Rewrite::Never);
    assert_eq!(relocate(&board, &mut device, CPU1), Err(MsiError::WouldTear));
    assert_eq!(relocate(&board, &mut device, CPU0), Ok(()));
}

#[test]
fn a_rolled_back_move_drains_its_new_vector() {
    let (board, device) = one_device(2, Rewrite::Masked);
    let place = board.domain.cpu_vector(device.vector());
    let moved = board.domain.begin_move(&device.block, 0, CPU1).unwrap();
    board.domain.end_move(moved, MoveOutcome::RolledBack).unwrap();
    assert_eq!(board.domain.cpu_vector(device.vector()), place);
    assert_eq!(board.domain.available_on(CPU1), 11);
    board.write(device.message, device.serial);
    board.run(CPU0);
    board.clean_up(CPU1);
    assert_eq!(board.domain.available_on(CPU1), 12);
}

#[test]
fn two_moves_of_one_interrupt_do_not_overlap() {
    let (board, device) = one_device(3, Rewrite::Masked);
    let moved = board.domain.begin_move(&device.block, 0, CPU1).unwrap();
    let other = board.domain.begin_move(&device.block, 0, Cpu::new(2));
    assert!(matches!(other, Err(MsiError::NotReachable(..))));
    board.domain.end_move(moved, MoveOutcome::Written).unwrap();
}

#[test]
fn an_interrupt_that_never_fires_moves_back_to_its_old_vector() {
    let (board, mut device) = one_device(2, Rewrite::Masked);
    for turn in 0..20 {
        relocate(&board, &mut device, [CPU1, CPU0][turn % 2]).unwrap();
    }
    assert_eq!([CPU0, CPU1].map(|cpu| board.domain.available_on(cpu)), [11; 2]);
}

#[test]
fn moves_are_refused_until_old_vectors_are_cleaned_up() {
    let (board, mut device) = one_device(6, Rewrite::Masked);
    (1..5).for_each(|cpu| relocate(&board, &mut device, Cpu::new(cpu)).unwrap());
    let refused = relocate(&board, &mut device, Cpu::new(5));
    assert!(matches!(refused, Err(MsiError::NotReachable(..))));
    board.cpus().for_each(|cpu| board.clean_up(cpu));
    assert_eq!(relocate(&board, &mut device, Cpu::new(5)), Ok(()));
}

#[test]
fn a_message_held_while_masked_is_resent_once() {
    let (board, device) = one_device(1, Rewrite::Masked);
    board.domain.mask(device.vector());
    for _ in 0..3 {
        board.write(device.message, device.serial);
        assert_eq!(board.run(CPU0)[0].arrival, Arrival::Held);
    }
    assert_eq!(board.domain.is_pending(device.vector()), Some(true));
    board.domain.unmask(device.vector());
    assert_eq!(board.resent(), 1);
    assert_eq!(board.run(CPU0)[0].arrival, Arrival::Deliver(device.vector()));
    board.domain.unmask(device.vector());
    assert_eq!(board.resent(), 1);
}

#[test]
fn is_pending_is_unknown_when_called_on_another_cpu() {
    let (board, device) = one_device(1, Rewrite::Masked);
    board.write(device.message, device.serial);
    assert_eq!(board.domain.is_pending(device.vector()), None);
}

#[test]
fn requests_of_an_offline_cpu_are_sent_once_moved() {
    for moves_first in [true, false] {
        let (board, mut device) = one_device(2, Rewrite::Masked);
        board.write(device.message, device.serial);
        if moves_first {
            relocate(&board, &mut device, CPU1).unwrap();
        }
        let offline = board.offline(CPU0);
        let moved = u32::from(moves_first);
        assert_eq!((offline.resent, offline.stranded), (moved, 1 - moved));
        if !moves_first {
            relocate(&board, &mut device, CPU1).unwrap();
        }
        assert_eq!(board.run(CPU1)[0].arrival, Arrival::Deliver(device.vector()), "{moves_first}");
        board.online(CPU0);
        assert_eq!(board.domain.available_on(CPU0), 12, "{moves_first}");
    }
}

#[test]
fn a_stranded_request_is_sent_when_its_cpu_returns() {
    let (board, device) = one_device(1, Rewrite::Masked);
    board.write(device.message, device.serial);
    board.offline(CPU0);
    board.online(CPU0);
    assert_eq!(board.run(CPU0)[0].arrival, Arrival::Deliver(device.vector()));
}

#[test]
fn an_apic_id_that_cannot_be_encoded_is_refused() {
    let board = Board::new(2);
    board.offline(CPU1);
    board.domain.online(CPU1, ApicId::new(0xff)).unwrap();
    let refused = Device::new(&*board.domain, 1, Rewrite::Masked, CPU1).unwrap_err();
    assert!(matches!(refused, MsiError::NotReachable(CPU1, _)));
}

#[test]
fn a_duplicate_apic_id_is_refused() {
    let board = Board::new(2);
    let same = board.domain.online(CPU1, id_of(CPU0));
    assert_eq!(same, Err(CpuError::DuplicateId { id: id_of(CPU0), of: CPU0 }));
    let stranger = Cpu::new(2);
    assert_eq!(board.domain.online(stranger, ApicId::new(9)), Err(CpuError::Unknown(stranger)));
}

#[test]
fn unknown_hwirqs_have_no_effect() {
    let board = Board::new(1);
    for raw in [0, FIRST_HWIRQ - 1, FIRST_HWIRQ, FIRST_HWIRQ + 19, FIRST_HWIRQ + 20, u32::MAX] {
        let vector = HwIrq::new(raw);
        board.domain.mask(vector);
        board.domain.unmask(vector);
        board.domain.set_pending(vector, Pending::Set);
        assert_eq!(board.domain.cpu_vector(vector), None);
        assert_eq!(board.domain.message(vector), Err(MsiError::UnknownVector(vector)));
    }
    assert_eq!(board.resent(), 0);
    assert_eq!(board.domain.arrive(Cpu::new(7), ApicVector::MAX), Arrival::Unknown);
}

#[test]
fn another_devices_vectors_are_not_freed() {
    let (board, device) = one_device(1, Rewrite::Masked);
    let thief = board.domain.attach(RequesterId::new(2), 1).unwrap();
    let (vector, place) = (device.vector(), board.domain.cpu_vector(device.vector()));
    board.domain.free(&thief, device.block);
    assert_eq!(board.domain.cpu_vector(vector), place);
}

#[test]
fn the_vector_domain_reports_no_isolation() {
    let board = Board::new(1);
    let answer = board.domain.isolation(RequesterId::new(1));
    assert!(matches!(answer, Isolation::NotIsolated(NotIsolated::SharedDoorbell(_))));
}

#[test]
fn cpuids_hypervisor_bit_overrules_stated_bare_metal() {
    let real = Capabilities::NONE.with(Capability::MessageRemapping);
    let is_real = |change: fn(VectorDomainConfig<'_>) -> VectorDomainConfig<'_>| {
        let config = VectorDomainConfig::new(NonZeroU16::MIN, Arc::new(ApicBank::default()));
        let domain = VectorDomain::new(change(config)).unwrap();
        negotiate(real, Properties::ALL, &|visit| domain.tiers(visit)).is_ok()
    };
    assert!(!is_real(|config| config), "the default is a guest");
    assert!(is_real(|config| config.with_surroundings(Surroundings::BareMetal, !(1 << 31))));
    assert!(!is_real(|config| config.with_surroundings(Surroundings::BareMetal, 1 << 31)));
}

#[test]
fn a_description_names_vector_cpu_and_apic() {
    let board = Board::new(2);
    let device = Device::new(&*board.domain, 1, Rewrite::Masked, CPU1).unwrap();
    let mut text = String::new();
    board.domain.describe(device.vector(), &mut text).unwrap();
    assert_eq!(text, "x86: vector 0x20 at CPU 1 (APIC 3)\n");
}
