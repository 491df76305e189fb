//! The eight demands of the review, each by name.

use super::board::{Board, HIGH_REDISTRIBUTOR, ITS, REDISTRIBUTOR};
use super::endpoint::{Endpoint, Kind, attach, fit, request};
use gic_arch::Priority;
use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
use gic_driver::its::ProbeError;
use gic_driver::lpi::LpiMessages;
use gic_driver::{Its, ItsConfig, LpiError};
use msi_types::{
    BlockRequest, Cpu, DoorbellPage, Fit, Granule, Initially, InterruptIsolated, Isolation, MoveOutcome,
    MsiError, MsiMessage, MsiParent, NotIsolated, Pending, Property, RequesterId, Rewrite, Shape, Vector,
};

const ANY: Fit = Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::Masked };
use std::num::NonZeroU16;

/// The LPIs that a CPU takes now, in order.
pub(crate) fn taken(board: &Board, cpu: u32) -> Vec<u32> {
    let interface = board.interface(cpu);
    std::iter::from_fn(|| {
        let interrupt = interface.acknowledge()?;
        let lpi = interrupt.intid().get();
        interface.end(interrupt);
        Some(lpi)
    })
    .collect()
}

#[test]
fn review_demand_1_one_flat_namespace_without_anything_per_device() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let free = direct.gic().lpis().unwrap().available();
    board.world().memory.allowance = Some(0);
    let attachments: Vec<_> =
        (0..1000).map(|device| direct.attach(RequesterId::new(device), 2048).unwrap()).collect();
    assert_eq!(direct.gic().lpis().unwrap().available(), free, "attaching takes no LPI");
    let lpis = |device: usize| direct.allocate(&attachments[device], &request(ANY, 1, 0)).unwrap();
    let blocks = [lpis(7), lpis(999), lpis(7)];
    assert_eq!(blocks.each_ref().map(|block| block.first().get()), [8192, 8193, 8194], "one namespace");
    // Nothing ties an LPI to the device that asked for it.
    for block in blocks {
        direct.free(&attachments[0], block);
    }
    assert_eq!(direct.gic().lpis().unwrap().available(), free);
    for attachment in attachments {
        direct.detach(attachment);
    }
}

#[test]
fn review_demand_2_nothing_but_tables_and_allocator_is_shared_with_the_its() {
    let sources = [
        include_str!("../../src/direct_lpi.rs"),
        include_str!("../../src/direct_lpi/blocks.rs"),
        include_str!("../../src/direct_lpi/cached_at.rs"),
        include_str!("../../src/direct_lpi/cpu_set.rs"),
        include_str!("../../src/direct_lpi/error.rs"),
        include_str!("../../src/direct_lpi/gate.rs"),
        include_str!("../../src/direct_lpi/hotplug.rs"),
        include_str!("../../src/direct_lpi/invalidation.rs"),
        include_str!("../../src/direct_lpi/moves.rs"),
        include_str!("../../src/direct_lpi/msi_parent.rs"),
        include_str!("../../src/direct_lpi/records.rs"),
        include_str!("../../src/direct_lpi/registers.rs"),
        include_str!("../../src/direct_lpi/resend.rs"),
        include_str!("../../src/direct_lpi/syncr.rs"),
    ];
    for line in sources.iter().flat_map(|source| source.lines()) {
        let code = line.split("//").next().unwrap();
        let code: String = code.split('"').step_by(2).collect();
        let words: Vec<_> = code.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
        for name in ["its", "Its", "gits", "EventId", "DeviceId", "Collection", "CollectionId"] {
            assert!(!words.contains(&name), "{name} in {line}");
        }
    }
    // The board maps no ITS: it panics if one is looked for.
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    device.fire(&board, 0);
    assert_eq!(taken(&board, 0), [device.lpi(0)]);
}

#[test]
fn review_demand_2_with_an_its_the_registers_are_not_touched() {
    let board = Board::new(3, 0);
    let typer = board.world().rd(1).typer;
    board.world().rd(1).typer = typer.with_direct_lpi(false);
    let refused = board.direct_lpi().unwrap_err();
    assert_eq!(refused, DirectLpiError::NotDirect { address: REDISTRIBUTOR + 0x2_0000 });
    assert!((0..3).all(|cpu| board.world().rd(cpu).direct_writes == 0));
    assert!(refused.to_string().contains("GICR_TYPER.DirectLPI"), "{refused}");
}

#[test]
fn an_its_beside_direct_lpis_is_refused() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let its = |direct: &DirectLpi<Board>| {
        let lpis = direct.gic().lpis().unwrap().clone();
        Its::new(direct.gic().platform().clone(), lpis, &ItsConfig::new(ITS, 1)).map(|_| ())
    };
    let reason = LpiError::Claimed { by: LpiMessages::Direct };
    assert_eq!(its(&direct), Err(ProbeError::Lpis { base: ITS, reason }));
    let refused = DirectLpi::new(direct.gic().clone()).unwrap_err();
    assert_eq!(refused, DirectLpiError::Lpi(reason), "nor two of them");
}

#[test]
fn direct_lpis_beside_an_its_are_refused_untouched() {
    let board = Board::new(2, 0);
    let gic = board.running_gic();
    // The ITS does not work, but it is there.
    let probed = Its::new(gic.platform().clone(), gic.lpis().unwrap().clone(), &ItsConfig::new(ITS, 2));
    assert_eq!(probed.unwrap_err(), ProbeError::Unmappable(ITS));
    let refused = DirectLpi::new(gic).unwrap_err();
    assert_eq!(refused, DirectLpiError::Lpi(LpiError::Claimed { by: LpiMessages::Translated }));
    assert!((0..2).all(|cpu| board.world().rd(cpu).direct_writes == 0));
}

#[test]
fn direct_lpis_that_failed_can_be_tried_again() {
    let board = Board::new(1, 0);
    let gic = board.running_gic();
    board.world().rd(0).stuck = true;
    assert!(matches!(DirectLpi::new(gic.clone()), Err(DirectLpiError::Fault(_))));
    board.world().rd(0).stuck = false;
    assert!(DirectLpi::new(gic).is_ok());
}

#[test]
fn review_demand_3_the_message_is_the_targets_physical_setlpir_and_the_intid() {
    let board = Board::new(2, 1);
    let direct = board.direct_lpi().unwrap();
    for (cpu, base) in [(0, REDISTRIBUTOR), (1, REDISTRIBUTOR + 0x2_0000), (2, HIGH_REDISTRIBUTOR)] {
        let device = Endpoint::new(&direct, Kind::Masked, 1, cpu).unwrap();
        assert_eq!(device.message(), MsiMessage { address: base + 0x40, data: device.lpi(0) });
        device.fire(&board, 0);
        assert_eq!(taken(&board, cpu), [device.lpi(0)]);
    }
    assert_eq!(direct.doorbells().count(), 3);
}

#[test]
fn review_demand_3_endpoints_with_16_data_bits_get_low_lpis_and_others_leave_them() {
    let board = Board::new(1, 0);
    board.world().id_bits = 17;
    let direct = board.direct_lpi().unwrap();
    let short = Fit { data_bits: 16, ..ANY };
    let allocate = |fit| direct.allocate(&attach(&direct), &request(fit, 1, 0)).unwrap().first().get();
    assert_eq!((allocate(ANY), allocate(short)), (65536, 8192));
    // All the low ones go.
    let low = 65536 - 8193;
    for _ in 0..low {
        allocate(short);
    }
    let refused = direct.allocate(&attach(&direct), &request(short, 1, 0));
    assert_eq!(refused, Err(MsiError::DataTooWide { data: 65536, bits: 16 }));
    assert_eq!(allocate(ANY), 65537);
}

#[test]
fn review_demand_3_an_endpoint_with_32_address_bits_cannot_ring_above_4_gib() {
    let board = Board::new(1, 1);
    let direct = board.direct_lpi().unwrap();
    let narrow = Fit { address_bits: 32, ..ANY };
    let too_wide = MsiError::AddressTooWide { address: HIGH_REDISTRIBUTOR + 0x40, bits: 32 };
    let free = direct.gic().lpis().unwrap().available();
    assert_eq!(direct.allocate(&attach(&direct), &request(narrow, 1, 1)), Err(too_wide));
    assert_eq!(direct.gic().lpis().unwrap().available(), free);
    let block = direct.allocate(&attach(&direct), &request(narrow, 1, 0)).unwrap();
    assert_eq!(direct.begin_move(&block, 0, Cpu::new(1)).unwrap_err(), too_wide);
}

#[test]
fn review_demand_3_endpoints_that_reach_no_redistributor_at_all_learn_it_at_once() {
    for (low, high, required) in [(1, 1, false), (0, 2, true), (2, 0, false)] {
        let direct = Board::new(low, high).direct_lpi().unwrap();
        let mut found = None;
        direct.tiers(&mut |tier| found = Some(tier.requires.contains(Property::WideAddress)));
        assert_eq!(found, Some(required));
    }
}

#[test]
fn review_demand_3_the_new_redistributor_forgets_a_stale_configuration_before_the_endpoint_is_rewritten() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    // Both redistributors remember it disabled; enabling it tells only its target.
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    let lpi = device.lpi(0);
    assert_eq!(board.world().rd(1).remembered[&lpi] & 1, 0);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    device.fire(&board, 0);
    assert_eq!(taken(&board, 1), [lpi]);
}

#[test]
fn review_demand_3_what_is_pending_at_the_old_redistributor_is_delivered_there() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    device.fire(&board, 0);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    device.fire(&board, 0);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![device.lpi(0)], vec![device.lpi(0)]));
}

#[test]
fn masking_holds_back_at_both_redistributors() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    let vector = device.block.first();
    device.fire(&board, 0);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    device.fire(&board, 0);
    direct.mask(vector);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![], vec![]));
    direct.unmask(vector);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![vector.get()], vec![vector.get()]));
}

#[test]
fn masking_invalidates_at_four_redistributors_at_most() {
    let board = Board::new(8, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    let mask = || {
        let count = |cpu| board.world().rd(cpu).invalidations;
        let before = [0, 1, 2, 3, 4, 5, 6, 7].map(count);
        direct.mask(device.block.first());
        direct.unmask(device.block.first());
        (0..8).filter(|cpu| count(*cpu) != before[*cpu as usize]).collect::<Vec<_>>()
    };
    assert_eq!(mask(), [0]);
    let moves: [(u32, &[u32]); 9] = [
        (1, &[0, 1]),
        (2, &[0, 1, 2]),
        (3, &[0, 1, 2, 3]),
        (0, &[0, 1, 2, 3]),
        (4, &[0, 4]),
        (5, &[0, 4, 5]),
        (6, &[0, 4, 5, 6]),
        (7, &[6, 7]),
        (6, &[6, 7]),
    ];
    for (to, expected) in moves {
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
        assert_eq!(mask(), expected);
    }
}

#[test]
fn what_is_pending_at_many_cpus_is_sent_again_at_its_target() {
    let board = Board::new(5, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    direct.mask(device.block.first());
    for to in 1..4 {
        device.fire(&board, 0);
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
    }
    assert_eq!(board.world().pending_at(device.lpi(0)), [0, 1, 2]);
    device.relocate(&board, &direct, 0, 4, &|| ()).unwrap();
    assert_eq!(board.world().pending_at(device.lpi(0)), [3], "its target, until it moved");
    direct.unmask(device.block.first());
    assert_eq!(taken(&board, 3), [device.lpi(0)]);
}

#[test]
fn two_cpus_invalidate_at_one_redistributor_one_after_the_other() {
    let board = Board::new(1, 0);
    board.world().patience = 10_000_000;
    let direct = board.direct_lpi().unwrap();
    let devices: Vec<_> = (0..4).map(|_| Endpoint::new(&direct, Kind::Fixed, 8, 0).unwrap()).collect();
    std::thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| {
                for index in (0..8).cycle().take(400) {
                    let vector = device.block.vector(index).unwrap();
                    direct.mask(vector);
                    let enabled = board.world().rd(0).remembered[&vector.get()] & 1;
                    assert_eq!(enabled, 0, "masked on return");
                    direct.unmask(vector);
                }
            });
        }
    });
    assert_eq!(direct.take_fault(), None);
    for device in &devices {
        (0..8).for_each(|index| device.fire(&board, index));
    }
    assert_eq!(taken(&board, 0).len(), 32);
}

#[test]
fn a_redistributor_that_does_not_answer_costs_one_wait() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Fixed, 8, 0).unwrap();
    board.world().rd(0).stuck = true;
    let reads = |index| {
        let before = board.world().rd(0).direct_writes;
        direct.mask(device.block.vector(index).unwrap());
        assert!(matches!(direct.take_fault(), Some(MsiError::Controller(_))));
        board.world().rd(0).direct_writes - before
    };
    assert!(reads(0) > 40, "as long as the clock lets it");
    assert_eq!((reads(1), reads(2)), (1, 1));
    board.world().rd(0).stuck = false;
    for index in 0..8 {
        direct.mask(device.block.vector(index).unwrap());
        direct.unmask(device.block.vector(index).unwrap());
        device.fire(&board, index);
    }
    assert_eq!((taken(&board, 0).len(), direct.take_fault()), (8, None));
}

#[test]
fn a_changed_priority_is_invalidated_at_both_redistributors() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    direct.set_priority(device.block.first(), Priority::new(0x43)).unwrap();
    let lpi = device.lpi(0);
    let cached = [0, 1].map(|cpu| board.world().rd(cpu).remembered[&lpi]);
    assert_eq!(cached, [0x43; 2], "0x40, RES1, enabled");
    let foreign = Vector::new(8195);
    let refused = direct.set_priority(foreign, Priority::new(0));
    assert_eq!(refused, Err(MsiError::UnknownVector(foreign)));
}

#[test]
fn review_demand_3_unmaskable_endpoints_move_only_by_one_store() {
    let board = Board::new(2, 1);
    let direct = board.direct_lpi().unwrap();
    for (kind, low, high) in [
        (Kind::Words, true, false),
        (Kind::Atomic64, true, true),
        (Kind::Masked, true, true),
        (Kind::Fixed, false, false),
    ] {
        for (to, possible) in [(1, low), (2, high)] {
            let device = Endpoint::new(&direct, kind, 1, 0).unwrap();
            // The device fires at each point where it could see half a message: the bus panics if it does.
            let result = device.relocate(&board, &direct, 0, to, &|| device.fire(&board, 0));
            let expected = if possible { Ok(1) } else { Err(MsiError::WouldTear) };
            assert_eq!(result.map(NonZeroU16::get), expected, "{kind:?} to {to}");
            if !possible {
                // Nothing has begun: it can be moved elsewhere, or nowhere, and works where it is.
                device.fire(&board, 0);
                assert!(taken(&board, 0).contains(&device.lpi(0)));
            }
        }
    }
}

#[test]
fn review_demand_4_a_group_is_aligned_contiguous_at_one_address_and_moves_together() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let _odd = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    for count in [2, 8, 32] {
        let device = Endpoint::new(&direct, Kind::Masked, count, 0).unwrap();
        assert!(device.lpi(0).is_multiple_of(count.into()));
        let moved = direct.begin_move(&device.block, count - 1, Cpu::new(1)).unwrap();
        assert_eq!((moved.first.get(), moved.count.get()), (device.lpi(0), count), "reported for all");
        direct.end_move(moved, MoveOutcome::RolledBack).unwrap();
        device.relocate(&board, &direct, count / 2, 1, &|| ()).unwrap();
        (0..count).for_each(|index| device.fire(&board, index));
        assert_eq!(taken(&board, 1), (0..count).map(|index| device.lpi(index)).collect::<Vec<_>>());
    }
}

#[test]
fn review_demand_4_independent_vectors_move_one_by_one() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let request = BlockRequest { shape: Shape::Independent, ..request(ANY, 4, 0) };
    let block = direct.allocate(&attach(&direct), &request).unwrap();
    let moved = direct.begin_move(&block, 2, Cpu::new(1)).unwrap();
    assert_eq!((moved.first, moved.count.get()), (block.vector(2).unwrap(), 1));
    direct.end_move(moved, MoveOutcome::Written).unwrap();
    let bases: Vec<_> = (0..4).map(|index| direct.compose(&block, index).unwrap().address).collect();
    let [here, there] = [REDISTRIBUTOR + 0x40, REDISTRIBUTOR + 0x2_0040];
    assert_eq!(bases, [here, here, there, here]);
}

#[test]
fn review_demand_5_setting_and_clearing_pending_are_real_and_reading_is_not_knowable() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 1).unwrap();
    let vector = device.block.first();
    direct.set_pending(vector, Pending::Set);
    assert_eq!(direct.is_pending(vector), None);
    assert_eq!(taken(&board, 1), [vector.get()]);
    device.fire(&board, 0);
    direct.set_pending(vector, Pending::Clear);
    assert_eq!((direct.is_pending(vector), taken(&board, 1)), (None, vec![]));
}

#[test]
fn review_demand_5_clearing_clears_wherever_it_may_be_pending() {
    let board = Board::new(3, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    for to in [1, 2] {
        device.fire(&board, 0);
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
    }
    device.fire(&board, 0);
    assert_eq!(board.world().pending_at(device.lpi(0)), [0, 1, 2]);
    direct.set_pending(device.block.first(), Pending::Clear);
    assert_eq!(board.world().pending_at(device.lpi(0)), []);
}

#[test]
fn review_demand_5_masking_has_taken_effect_on_return() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Fixed, 1, 0).unwrap();
    for _ in 0..3 {
        direct.mask(device.block.first());
        device.fire(&board, 0);
        assert_eq!(taken(&board, 0), []);
        direct.unmask(device.block.first());
        assert_eq!(taken(&board, 0), [device.lpi(0)]);
    }
    assert_eq!(direct.take_fault(), None);
}

#[test]
fn review_demand_6_no_requester_is_ever_isolated_and_the_reason_can_be_printed() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    for requester in [0, 1, 0x100, 0xffff, u32::MAX] {
        let answer = direct.isolation(RequesterId::new(requester));
        assert!(matches!(answer, Isolation::NotIsolated(NotIsolated::DoorbellPageHoldsControls(_))));
        assert!(InterruptIsolated::prove(&direct, RequesterId::new(requester)).is_err());
        for register in ["GICR_SETLPIR", "GICR_CTLR", "GICR_PROPBASER", "GICR_PENDBASER"] {
            assert!(answer.to_string().contains(register), "{answer}");
        }
    }
    for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
        assert!(matches!(direct.doorbell_page(granule), DoorbellPage::HoldsControls(_)));
    }
    // The hole is real: one device rings another's interrupt.
    let victim = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    let rogue = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    board.world().write_message(MsiMessage { data: victim.lpi(0), ..rogue.message() });
    assert_eq!(taken(&board, 0), [victim.lpi(0)]);
}

#[test]
fn review_demand_7_a_gic_that_could_is_not_taken_for_one_that_is_meant_to() {
    let board = Board::new(2, 0);
    let gic = board.running_gic();
    assert!(gic.lpis().is_ok());
    assert!((0..2).all(|cpu| board.world().rd(cpu).direct_writes == 0), "nobody asked for it");
    assert!(DirectLpi::new(gic).is_ok());
}

#[test]
fn review_demand_7_every_redistributor_is_reachable_for_every_device() {
    let board = Board::new(3, 2);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
    for cpu in [4, 1, 3, 0, 2] {
        device.relocate(&board, &direct, 0, cpu, &|| ()).unwrap();
        device.fire(&board, 0);
        assert_eq!(taken(&board, cpu), [device.lpi(0)]);
    }
}

#[test]
fn review_demand_8_the_caller_places_and_nobody_balances() {
    let board = Board::new(4, 0);
    let direct = board.direct_lpi().unwrap();
    let devices: Vec<_> = (0..300).map(|_| Endpoint::new(&direct, Kind::Masked, 1, 2).unwrap()).collect();
    assert!(devices.iter().all(|device| device.message().address == REDISTRIBUTOR + 0x4_0040));
}

mod refusals {
    use super::*;

    #[test]
    fn foreign_vectors_change_nothing_and_are_noted() {
        let board = Board::new(1, 0);
        let direct = board.direct_lpi().unwrap();
        for vector in [0, 42, 8192, 16384, u32::MAX].map(Vector::new) {
            direct.mask(vector);
            assert_eq!(direct.take_fault(), Some(MsiError::UnknownVector(vector)));
            direct.set_pending(vector, Pending::Set);
        }
        assert!(board.world().rd(0).pending.is_empty());
    }

    #[test]
    fn a_cpu_that_is_off_or_unknown_gets_nothing() {
        let board = Board::new(2, 0);
        let gic = board.gic();
        gic.cpu_on(Cpu::new(0), &board.registers(Cpu::new(0))).unwrap();
        let direct = DirectLpi::new(gic).unwrap();
        let free = direct.gic().lpis().unwrap().available();
        for cpu in [1, 2, 77] {
            let refused = direct.allocate(&attach(&direct), &request(ANY, 1, cpu)).unwrap_err();
            assert!(matches!(refused, MsiError::NotReachable(..)), "{refused}");
        }
        assert_eq!(direct.gic().lpis().unwrap().available(), free);
    }

    #[test]
    fn more_than_there_are_is_refused_and_a_smaller_block_is_not() {
        let board = Board::new(1, 0);
        let direct = board.direct_lpi().unwrap();
        let count = u16::try_from(direct.gic().lpis().unwrap().count()).unwrap();
        let refused = direct.allocate(&attach(&direct), &request(fit(Kind::Masked), count + 1, 0));
        assert_eq!(refused, Err(MsiError::NoVectors { wanted: count + 1 }));
        assert!(direct.allocate(&attach(&direct), &request(fit(Kind::Masked), count, 0)).is_ok());
        let refused = direct.allocate(&attach(&direct), &request(Fit { data_bits: 16, ..ANY }, 1, 0));
        assert_eq!(refused, Err(MsiError::NoVectors { wanted: 1 }));
    }

    #[test]
    fn fewer_data_bits_than_any_lpi_needs_are_refused_with_the_data() {
        let board = Board::new(1, 0);
        let direct = board.direct_lpi().unwrap();
        let refused = direct.allocate(&attach(&direct), &request(Fit { data_bits: 13, ..ANY }, 1, 0));
        assert_eq!(refused, Err(MsiError::DataTooWide { data: 8192, bits: 13 }));
    }

    #[test]
    fn a_second_move_waits_for_the_first() {
        let board = Board::new(3, 0);
        let direct = board.direct_lpi().unwrap();
        let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
        let first = direct.begin_move(&device.block, 0, Cpu::new(1)).unwrap();
        assert!(matches!(direct.begin_move(&device.block, 0, Cpu::new(2)), Err(MsiError::Controller(_))));
        direct.end_move(first, MoveOutcome::RolledBack).unwrap();
        assert!(direct.begin_move(&device.block, 0, Cpu::new(2)).is_ok());
    }

    #[test]
    fn a_redistributor_that_does_not_answer_leaves_everything_as_it_was() {
        let board = Board::new(2, 0);
        let direct = board.direct_lpi().unwrap();
        let device = Endpoint::new(&direct, Kind::Masked, 1, 0).unwrap();
        let free = direct.gic().lpis().unwrap().available();
        board.world().rd(1).stuck = true;
        assert!(matches!(direct.begin_move(&device.block, 0, Cpu::new(1)), Err(MsiError::Controller(_))));
        let refused = direct.allocate(&attach(&direct), &request(ANY, 4, 1));
        assert!(matches!(refused, Err(MsiError::Controller(_))));
        // What a redistributor that does not answer may remember is nobody's.
        assert_eq!(direct.gic().lpis().unwrap().available(), free - 4);
        board.world().rd(1).stuck = false;
        device.fire(&board, 0);
        assert_eq!(taken(&board, 0), [device.lpi(0)]);
        device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
        device.fire(&board, 0);
        assert_eq!(taken(&board, 1), [device.lpi(0)]);
    }

    #[test]
    fn what_is_freed_is_pending_nowhere_and_disabled_everywhere() {
        let board = Board::new(2, 0);
        let direct = board.direct_lpi().unwrap();
        let Endpoint { block, .. } = {
            let device = Endpoint::new(&direct, Kind::Masked, 4, 0).unwrap();
            (0..4).for_each(|index| device.fire(&board, index));
            device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
            (0..4).for_each(|index| device.fire(&board, index));
            device
        };
        let lpis: Vec<_> = (0..4).map(|index| block.vector(index).unwrap().get()).collect();
        direct.free(&attach(&direct), block);
        for lpi in lpis {
            assert_eq!(board.world().pending_at(lpi), []);
            assert!((0..2).all(|cpu| board.world().rd(cpu).remembered[&lpi] & 1 == 0));
        }
        assert_eq!(direct.take_fault(), None);
    }

    #[test]
    fn vectors_that_are_asked_for_masked_are() {
        let board = Board::new(1, 0);
        let direct = board.direct_lpi().unwrap();
        let request = BlockRequest { initially: Initially::Masked, ..request(ANY, 32, 0) };
        let block = direct.allocate(&attach(&direct), &request).unwrap();
        direct.set_pending(block.first(), Pending::Set);
        assert_eq!(taken(&board, 0), []);
        direct.unmask(block.first());
        assert_eq!(taken(&board, 0), [block.first().get()]);
    }

    #[test]
    fn a_rolled_back_move_delivers_what_reached_the_new_place() {
        let board = Board::new(2, 0);
        let direct = board.direct_lpi().unwrap();
        let device = Endpoint::new(&direct, Kind::Atomic64, 1, 0).unwrap();
        device.fail_to_relocate(&board, &direct, 1, &|| device.fire(&board, 0)).unwrap();
        direct.mask(device.block.first());
        assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![], vec![]), "held back there, too");
        direct.unmask(device.block.first());
        assert_eq!(taken(&board, 1), [device.lpi(0)]);
    }
}
