//! Checks the priority rules exhaustively against the wording of the Arm manual.

use super::*;
use alloc::vec::Vec;

const GROUPS: [Group; 2] = [Group::Zero, Group::One];

fn features(priority_bits: u8) -> Features {
    Features {
        security: SecurityView::Single,
        priority_bits,
        id_bits_code: 0,
        extended_range: false,
    }
}

/// Creates an interface with both groups enabled and no priority masked.
fn open(priority_bits: u8) -> CpuInterface {
    CpuInterface {
        mask: Priority::IDLE,
        enabled: [true; 2],
        ..CpuInterface::new(features(priority_bits))
    }
}

/// Returns all priorities that can be expressed in this many bits.
fn priorities(priority_bits: u8) -> Vec<u8> {
    (0..=255u8)
        .filter(|value| u32::from(*value).trailing_zeros() >= u32::from(8 - priority_bits))
        .collect()
}

/// Returns the group priority with the subpriority shifted out. "BPR0 = N: group priority = bits
/// 7:N+1. BPR1 = N: bits 7:N."
fn group_priority(value: u8, group: Group, binary_points: [u8; 2], common: bool) -> u32 {
    let lowest = match (group, common) {
        (Group::One, false) => binary_points[1],
        _ => binary_points[0] + 1,
    };
    u32::from(value) >> lowest
}

#[test]
fn only_a_lower_group_priority_preempts() {
    for bits in 4..=8 {
        for binary_point in 0..=7 {
            for (common, running_group) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
                check_preemption(bits, binary_point, common, GROUPS[running_group]);
            }
        }
    }
}

fn check_preemption(bits: u8, binary_point: u8, common: bool, running_group: Group) {
    let smallest = GROUPS.map(|group| features(bits).smallest_binary_point(group));
    for running in priorities(bits) {
        let mut interface = open(bits);
        interface.activate(Priority::new(running), running_group);
        let runs = interface.running().get();
        interface.binary_point = smallest.map(|smallest| smallest.max(binary_point));
        interface.common_binary_point = common;
        interface.update_group_masks();
        for value in priorities(bits) {
            for group in GROUPS {
                let points = interface.binary_point;
                let expected = group_priority(value, group, points, common)
                    < group_priority(runs, group, points, common);
                let priority = Priority::new(value);
                assert_eq!(
                    [interface.signals(priority, group), priority < interface.limit(group)],
                    [expected; 2],
                    "{bits} bits, BPR {points:?}, CBPR {common}: {value:#x} in {group:?} over \
                     {runs:#x}"
                );
            }
        }
    }
}

#[test]
fn a_disabled_group_signals_nothing() {
    for group in GROUPS {
        let mut interface = open(5);
        interface.enabled[group as usize] = false;
        assert!(!interface.signals(Priority::HIGHEST, group));
        assert_eq!(interface.limit(group), Priority::HIGHEST);
    }
}

#[test]
fn a_priority_drop_restores_the_previous_running_priority() {
    for bits in 4..=8 {
        let levels: Vec<_> = priorities(bits.min(7)).into_iter().rev().collect();
        let mut interface = open(bits);
        for (step, level) in levels.iter().enumerate() {
            interface.activate(Priority::new(*level), GROUPS[step % 2]);
            assert_eq!(interface.running(), Priority::new(*level));
        }
        for step in (0..levels.len()).rev() {
            assert!(!interface.drop_priority(GROUPS[(step + 1) % 2]), "another group runs");
            assert!(interface.drop_priority(GROUPS[step % 2]));
            let next =
                step.checked_sub(1).map_or(Priority::IDLE, |below| Priority::new(levels[below]));
            assert_eq!(interface.running(), next);
        }
        assert!(GROUPS.iter().all(|group| !interface.drop_priority(*group)), "nothing runs");
    }
}

#[test]
fn group_zero_drops_first_at_equal_priorities() {
    let mut interface = open(5);
    interface.activate(Priority::new(0x40), Group::One);
    interface.activate(Priority::new(0x40), Group::Zero);
    assert!(!interface.drop_priority(Group::One));
    assert!(interface.drop_priority(Group::Zero));
    assert!(interface.drop_priority(Group::One));
}

#[test]
fn the_initial_binary_points_use_every_preemption_bit() {
    for (bits, zero, one) in [(4, 3, 4), (5, 2, 3), (6, 1, 2), (7, 0, 1), (8, 0, 1)] {
        assert_eq!(CpuInterface::new(features(bits)).binary_point, [zero, one], "{bits} bits");
    }
}

#[test]
fn preemption_bits_determine_the_number_of_active_priority_registers() {
    for (bits, registers) in [(4, 1), (5, 1), (6, 2), (7, 4), (8, 4)] {
        assert_eq!(features(bits).active_priority_registers(), registers, "{bits} bits");
    }
}

#[test]
fn unimplemented_active_priorities_are_ignored() {
    for (priority_bits, implemented) in [(5, 1), (6, 2), (7, 4), (8, 4)] {
        for index in 0..4 {
            let mut interface = open(priority_bits);
            let mut active = [[0; 4]; 2];
            active[1][index] = 1;
            interface.load(interface.vmcr(), active);
            let is_loaded = interface.running() != Priority::IDLE;
            assert_eq!(is_loaded, index < implemented, "{priority_bits} bits, {index}");
        }
    }
}
