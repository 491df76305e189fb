//! Requirements on a guest that were raised in reviews of Hyper-V's vPCI support for arm64.

use crate::board::{ADDRESS, BUS, Board, CPUS, OTHER, SLOT, refusal, request};
use crate::gic::Gic;
use hyperv_vpci::channel::Idle;
use hyperv_vpci::guest::{LAST_SPI, SpiDomain};
use hyperv_vpci::protocol::{Delivery as Mode, InterruptForm, Request, Version};
use msi_types::{
    Cpu, Delivery, Fit, HwIrq, MoveOutcome, MsiError, MsiMessage, MsiParent, Pending, Rewrite,
    Shape, WiredParent,
};
use std::num::NonZeroU16;
use std::sync::Arc;

fn created(requests: &[Request]) -> hyperv_vpci::protocol::InterruptDescriptor {
    match requests {
        [Request::CreateInterrupt { interrupt, form: InterruptForm::V3, .. }] => *interrupt,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_vector_is_the_parents_hwirq() {
    let (board, _device, block, message) = Board::with_vector();
    assert_eq!(created(&board.requests()).vector, block.first().get());
    assert_eq!(board.send(message), Delivery::Pending);
    assert_eq!(board.gic.acknowledge(0), Some(block.first().get()));
}

#[test]
fn effective_affinity_is_one_cpu() {
    let (board, device) = Board::with_device();
    for cpu in 0..u32::from(CPUS) {
        let wanted = request(1, Shape::Independent).with_cpu(Cpu::new(cpu));
        let block = board.bus.allocate(&device, &wanted).unwrap();
        board.bus.compose(&block, 0).unwrap();
        let index = u16::try_from(cpu).unwrap();
        assert_eq!(created(&board.requests()).processors.indices(), [index]);
        assert_eq!(board.gic.spi(block.first().get()).target, Some(Cpu::new(cpu)));
    }
}

#[test]
fn an_allocation_for_an_unreachable_cpu_is_refused() {
    let board = Board::with(Version::V1_4, Arc::new(Gic::new(1020, 2)));
    let device = board.attach(SLOT);
    for cpu in [2, u32::from(CPUS)] {
        let wanted = request(1, Shape::Independent).with_cpu(Cpu::new(cpu));
        let refused = board.bus.allocate(&device, &wanted);
        assert!(matches!(refused, Err(MsiError::NotReachable(..))), "{refused:?}");
    }
    assert!(board.gic.claimed().is_empty());
}

#[test]
fn a_move_retargets_the_spi_without_a_request() {
    let (board, _device, block, message) = Board::with_vector();
    board.tamper.heard();
    let moved = board.bus.begin_move(&block, 0, Cpu::new(3)).unwrap();
    assert_eq!((moved.from, moved.to, moved.message), (Cpu::new(0), Cpu::new(3), None));
    board.bus.end_move(moved, MoveOutcome::Written).unwrap();
    assert_eq!(board.bus.compose(&block, 0), Ok(message));
    assert_eq!(board.requests(), []);
    board.send(message);
    assert_eq!(board.gic.acknowledge(0), None);
    assert_eq!(board.gic.acknowledge(3), Some(block.first().get()));
}

#[test]
fn acknowledge_and_eoi_send_no_request() {
    let (board, _device, block, message) = Board::with_vector();
    board.tamper.heard();
    let spi = block.first().get();
    board.send(message);
    assert_eq!(board.gic.acknowledge(0), Some(spi));
    board.send(message);
    assert_eq!(board.gic.acknowledge(0), None);
    board.gic.end(spi);
    assert_eq!(board.gic.acknowledge(0), Some(spi));
    assert_eq!(board.requests(), []);
}

#[test]
fn mask_and_pending_operate_on_the_parent_spi() {
    let (board, _device, block, message) = Board::with_vector();
    let first = block.first();
    board.bus.mask(first);
    board.send(message);
    assert_eq!((board.gic.acknowledge(0), board.bus.is_pending(first)), (None, Some(true)));
    board.bus.unmask(first);
    assert_eq!(board.gic.acknowledge(0), Some(first.get()));
    board.gic.end(first.get());
    board.bus.set_pending(first, Pending::Set);
    assert_eq!(board.gic.acknowledge(0), Some(first.get()));
    // A vector of another owner must be left alone; the test's GIC panics if it is touched.
    board.bus.mask(HwIrq::new(40));
    board.bus.unmask(HwIrq::new(900));
    assert_eq!(board.bus.is_pending(HwIrq::new(900)), None);
}

#[test]
fn an_spi_domain_serves_a_second_bus_after_the_first_is_dropped() {
    let gic = Arc::new(Gic::new(1020, CPUS.into()));
    let board = Board::with(Version::V1_4, gic.clone());
    let domain = board.domain.clone();
    let device = board.attach(SLOT);
    let (block, message) = board.vector(&device);
    board.bus.close().unwrap();
    // The vector was never freed, so it stays claimed and masked.
    drop(board);
    let spi = gic.spi(block.first().get());
    assert!(spi.claimed && !spi.enabled);
    let again = Board::under(Version::V1_4, gic.clone(), domain);
    let device = again.attach(SLOT);
    let (second, other) = again.vector(&device);
    assert_ne!(second.first(), block.first());
    assert_ne!(other, message);
    again.send(other);
    assert_eq!(gic.acknowledge(0), Some(second.first().get()));
}

#[test]
fn teardown_does_not_affect_other_users_of_the_gic() {
    let gic = Arc::new(Gic::new(1020, CPUS.into()));
    // Another user claims an SPI of the same GIC.
    let other = HwIrq::new(500);
    gic.claim(other, NonZeroU16::MIN).unwrap();
    gic.set_trigger(other, msi_types::Trigger::Edge).unwrap();
    gic.set_target(other, Cpu::new(1)).unwrap();
    gic.unmask(other);
    let board = Board::with(Version::V1_4, gic.clone());
    let device = board.attach(SLOT);
    let (block, _) = board.vector(&device);
    board.bus.free(&device, block);
    board.bus.detach(device);
    board.bus.close().unwrap();
    drop(board);
    msi_types::SetLine::pulse(&*gic, msi_types::Line::Spi(500));
    assert_eq!(gic.acknowledge(1), Some(500));
    assert_eq!(gic.claimed(), [500]);
}

#[test]
fn requests_for_spis_state_the_fixed_delivery_mode() {
    let (board, device) = Board::with_device();
    let _held = board.vector(&device);
    assert_eq!(created(&board.requests()).delivery, Mode::Fixed);
}

#[test]
fn spis_above_255_need_protocol_1_4() {
    for (highest, last) in [(Version::V1_2, 255), (Version::V1_3, 255), (Version::V1_4, 1019)] {
        let gic = Arc::new(Gic::new(1020, CPUS.into()));
        // Other users have claimed all SPIs below 254.
        gic.claim(HwIrq::new(32), NonZeroU16::new(222).unwrap()).unwrap();
        let board = Board::with(highest, gic);
        let device = board.attach(SLOT);
        for spi in [254, 255] {
            assert_eq!(board.vector(&device).0.first().get(), spi);
        }
        let third = board.bus.allocate(&device, &request(1, Shape::Independent));
        match last {
            255 => assert_eq!(third, Err(MsiError::NoVectors { wanted: 1 })),
            _ => assert_eq!(third.map(|block| block.first().get()), Ok(256)),
        }
        let group = board.bus.allocate(&device, &request(8, Shape::AlignedGroup));
        assert_eq!(group.is_ok(), last > 255);
    }
}

#[test]
fn compose_returns_and_caches_the_hosts_answer() {
    let (board, _device, block) = Board::with_block();
    assert_eq!(board.asked(), 0);
    let message = board.bus.compose(&block, 0).unwrap();
    assert_eq!(message, MsiMessage { address: ADDRESS, data: block.first().get() });
    assert_eq!(board.asked(), 1);
    // A second call returns the stored answer.
    assert_eq!(board.bus.compose(&block, 0), Ok(message));
    assert_eq!(board.asked(), 0);
}

#[test]
fn spis_are_taken_from_64_upwards() {
    let board = Board::new();
    let (one, other) = (board.attach(SLOT), board.attach(OTHER));
    assert_eq!(board.vector(&one).0.first().get(), 64);
    assert_eq!(board.vector(&other).0.first().get(), 65);
    let (third, _) = board.vector(&one);
    assert_eq!(third.first().get(), 66);
    board.bus.free(&one, third);
    assert_eq!(board.domain.target(HwIrq::new(66)), None);
    assert_eq!(board.vector(&other).0.first().get(), 66);
}

#[test]
fn spi_allocation_skips_spis_of_other_owners() {
    let gic = Arc::new(Gic::new(1020, CPUS.into()));
    // Claim GICv2m frames, which a host places from the top down, and a device in the middle.
    gic.claim(HwIrq::new(956), NonZeroU16::new(64).unwrap()).unwrap();
    gic.claim(HwIrq::new(66), NonZeroU16::MIN).unwrap();
    let board = Board::with(Version::V1_4, gic.clone());
    let device = board.attach(SLOT);
    let taken: Vec<u32> = (0..3).map(|_| board.vector(&device).0.first().get()).collect();
    assert_eq!(taken, [64, 65, 67]);
    let group = board.bus.allocate(&device, &request(32, Shape::AlignedGroup)).unwrap();
    assert_eq!(group.first().get(), 96);
    assert!(gic.claimed().iter().filter(|intid| **intid >= 956).count() == 64);
}

#[test]
fn spi_allocation_ends_at_1019() {
    let gic = Arc::new(Gic::new(1020, CPUS.into()));
    gic.claim(HwIrq::new(64), NonZeroU16::new(954).unwrap()).unwrap();
    let board = Board::with(Version::V1_4, gic);
    let device = board.attach(SLOT);
    assert_eq!(board.vector(&device).0.first().get(), LAST_SPI - 1);
    assert_eq!(board.vector(&device).0.first().get(), LAST_SPI);
    let none = board.bus.allocate(&device, &request(1, Shape::Independent));
    assert_eq!(none, Err(MsiError::NoVectors { wanted: 1 }));
}

#[test]
fn groups_are_aligned_and_requested_by_their_first_spi() {
    let (board, device) = Board::with_device();
    let _held = board.vector(&device);
    board.tamper.heard();
    let block = board.bus.allocate(&device, &request(8, Shape::AlignedGroup)).unwrap();
    assert_eq!(block.first().get(), 72);
    let message = board.bus.compose(&block, 0).unwrap();
    let asked = created(&board.requests());
    assert_eq!((asked.vector, asked.count), (72, 8));
    for index in 0..8 {
        board.send(MsiMessage { data: message.data | index, ..message });
        assert_eq!(board.gic.acknowledge(0), Some(72 + index));
    }
    assert!(board.bus.compose(&block, 1).is_err());
    let odd = board.bus.allocate(&device, &request(3, Shape::AlignedGroup));
    assert_eq!(odd, Err(MsiError::NoGroups));
}

#[test]
fn a_vector_of_a_group_moves_while_its_neighbor_stays() {
    let (board, device) = Board::with_device();
    let block = board.bus.allocate(&device, &request(4, Shape::AlignedGroup)).unwrap();
    let message = board.bus.compose(&block, 0).unwrap();
    let moved = board.bus.begin_move(&block, 2, Cpu::new(1)).unwrap();
    assert_eq!((moved.first, moved.count.get()), (block.hwirq(2).unwrap(), 1));
    board.bus.end_move(moved, MoveOutcome::Written).unwrap();
    board.send(MsiMessage { data: message.data | 2, ..message });
    board.send(MsiMessage { data: message.data | 3, ..message });
    assert_eq!(board.gic.acknowledge(1), Some(block.first().get() + 2));
    assert_eq!(board.gic.acknowledge(0), Some(block.first().get() + 3));
}

#[test]
fn interrupts_are_never_composed_in_atomic_context() {
    let (board, _device, block) = Board::with_block();
    board.kernel.may_wait.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(refusal(&board.bus, &block), "the caller must not wait");
    // The operations for interrupt handlers do not wait.
    board.bus.mask(block.first());
    board.bus.unmask(block.first());
    assert_eq!(board.asked(), 0);
    board.kernel.may_wait.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(board.bus.compose(&block, 0).is_ok());
}

#[test]
fn endpoints_that_cannot_store_the_hosts_message_are_refused() {
    let (board, device) = Board::with_device();
    let narrow = Fit::new(Rewrite::Never).with_address_bits(24).with_data_bits(16);
    let wanted = request(1, Shape::Independent).with_fit(narrow);
    let block = board.bus.allocate(&device, &wanted).unwrap();
    let refused = board.bus.compose(&block, 0);
    assert_eq!(refused, Err(MsiError::AddressTooWide { address: ADDRESS, bits: 24 }));
    assert_eq!(board.bus.poll(), Ok(Idle::Sleep));
    board.kernel.side.lock().unwrap().serve().unwrap();
    assert_eq!(board.mapped(), 0);
}

#[test]
fn attach_refuses_absent_functions() {
    let board = Board::new();
    for stray in [SLOT.requester(BUS + 1), hyperv_vpci::protocol::Slot::new(7, 0).requester(BUS)] {
        assert_eq!(board.bus.attach(stray, 1).err(), Some(MsiError::NoRoute(stray)));
    }
    let device = board.bus.attach(SLOT.requester(BUS), 2).unwrap();
    let full = board.bus.allocate(&device, &request(3, Shape::Independent));
    assert_eq!(full, Err(MsiError::DeviceFull { wanted: 3, limit: 2 }));
}

#[test]
fn allocation_and_release_clear_an_spis_pending_state() {
    let (board, device) = Board::with_device();
    msi_types::SetLine::pulse(&*board.gic, msi_types::Line::Spi(64));
    let (block, message) = board.vector(&device);
    assert_eq!((block.first().get(), board.gic.acknowledge(0)), (64, None));
    // The test's GIC panics if a pending SPI is released.
    board.send(message);
    board.bus.free(&device, block);
}

#[test]
fn an_spi_that_is_not_allocated_has_no_target() {
    let gic = Arc::new(Gic::new(1020, CPUS.into()));
    let domain = SpiDomain::new(gic.clone(), Arc::new(crate::board::Idle)).unwrap();
    assert_eq!(domain.target(HwIrq::new(64)), None);
    assert!(gic.claimed().is_empty());
}
