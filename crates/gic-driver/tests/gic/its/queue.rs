//! Command queue tests: batches, wrap-around and waiting tasks.
//!
//! Generates random steps and random hardware for the ITS tests.

use super::setup::{Setup, lpi};
use crate::fake::{Hardware, Traffic, while_allocating};
use gic_arch::gits::PageSize;
use msi_types::{Cpu, Initially, Pending};
use proptest::prelude::*;
use proptest::sample::Index;

pub(super) fn opcodes(traffic: &Traffic) -> Vec<&'static str> {
    traffic.executed.iter().map(|command| command.opcode().name()).collect()
}

#[test]
fn a_device_is_set_up_by_one_write_and_one_read() {
    let setup = Setup::new(Hardware::default());
    let traffic = setup.traffic(|| {
        let device = setup.attach(5, 3);
        let _block = setup.map(&device, 3, 1);
    });
    assert_eq!(opcodes(&traffic), ["MAPD", "MAPTI", "MAPTI", "MAPTI", "INVALL", "SYNC"]);
    assert_eq!((traffic.writes, traffic.reads), (1, 1));
}

#[test]
fn setup_takes_one_write_per_cpu_and_device() {
    // Set up an NVMe disk, a network card, an entropy source and an edu device on two CPUs. With
    // separate mappings and invalidations, this would take 66 commands, 37 writes and 138 reads.
    let setup = Setup::new(Hardware::default());
    let traffic = setup.traffic(|| {
        setup.cpu_on(0).unwrap();
        setup.cpu_on(1).unwrap();
        for (device, vectors) in [(0x08, 3), (0x10, 4), (0x18, 2), (0x20, 1)] {
            let attachment = setup.attach(device, vectors.into());
            let _block = setup.map(&attachment, vectors, u32::from(device > 0x10));
        }
    });
    assert_eq!((traffic.executed.len(), traffic.writes, traffic.reads), (28, 6, 6));
}

#[test]
fn mapping_a_single_event_uses_inv_instead_of_invall() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let traffic = setup.traffic(|| {
        let _block = setup.map(&device, 1, 1);
    });
    assert_eq!(opcodes(&traffic), ["MAPD", "MAPTI", "INV", "SYNC"]);
}

#[test]
fn a_device_is_torn_down_by_one_write() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 5);
    let blocks = [setup.map(&device, 2, 1), setup.map(&device, 1, 2), setup.map(&device, 2, 1)];
    setup.its.move_event(lpi(&blocks[0], 1), Cpu::new(3)).unwrap();
    let traffic = setup.traffic(|| setup.its.release(device, &mut blocks.into_iter()));
    let mut expected = vec!["DISCARD"; 5];
    expected.extend(["MAPD", "SYNC", "SYNC", "SYNC"]);
    assert_eq!((opcodes(&traffic), traffic.writes, traffic.reads), (expected, 1, 1));
}

#[test]
fn release_of_a_large_device_fits_the_ring() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1000);
    let block = setup.map(&device, 1000, 1);
    let before = setup.its.lpis().available();
    let traffic = setup.traffic(|| setup.its.release(device, &mut [block].into_iter()));
    assert_eq!(traffic.executed.len(), 1002);
    assert!(traffic.writes <= 1 + 1002_u32.div_ceil(63), "{} writes", traffic.writes);
    assert_eq!(
        (setup.its.lpis().available(), setup.board.world().its[0].mapped.len()),
        (before + 1000, 0)
    );
}

#[test]
fn unmapping_and_detaching_separately_cost_one_write_each() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 3);
    let block = setup.map(&device, 3, 1);
    setup.its.move_event(lpi(&block, 1), Cpu::new(2)).unwrap();
    let traffic = setup.traffic(|| {
        setup.its.unmap_events(&device, block);
        setup.its.detach(device);
    });
    let expected = ["DISCARD", "DISCARD", "DISCARD", "SYNC", "SYNC", "MAPD", "SYNC"];
    assert_eq!((opcodes(&traffic), traffic.writes, traffic.reads), (expected.to_vec(), 2, 2));
}

#[test]
fn move_and_mask_cost_one_write_and_read() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    let traffic = setup.traffic(|| {
        setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap();
        setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap();
        setup.its.mask(lpi(&block, 0)).unwrap();
    });
    // INV is needed because the new redistributor may have an old configuration cached.
    let expected = ["MOVI", "INV", "SYNC", "SYNC", "INV", "SYNC"];
    assert_eq!((opcodes(&traffic), traffic.writes, traffic.reads), (expected.to_vec(), 2, 2));
}

#[test]
fn device_without_events_sends_no_command() {
    let setup = Setup::new(Hardware::default());
    let traffic = setup.traffic(|| setup.its.detach(setup.attach(5, 3)));
    assert_eq!(traffic, Traffic::default());
}

#[test]
fn batch_larger_than_the_ring_completes() {
    for pace in [None, Some(1), Some(7), Some(1000)] {
        let setup = Setup::new(Hardware { pace, ..Hardware::default() });
        setup.board.world().patience = 3;
        let device = setup.attach(5, 1000);
        let traffic = setup.traffic(|| {
            let block = setup.map(&device, 1000, 1);
            assert_eq!(setup.send(lpi(&block, 999)), Some((1, lpi(&block, 999).get())));
        });
        assert_eq!(traffic.executed.len(), 1 + 1000 + 2);
        // The ring holds 127 commands, and the driver refills it when half of it is free.
        assert!(traffic.writes <= 1 + 1003_u32.div_ceil(63), "{} writes", traffic.writes);
    }
}

#[test]
fn ring_wraps_at_any_pace() {
    for pace in [None, Some(1), Some(2), Some(5)] {
        let setup = Setup::new(Hardware { pace, ..Hardware::default() });
        let device = setup.attach(5, 1);
        let block = setup.map(&device, 1, 0);
        for turn in 0..400 {
            setup.its.move_event(lpi(&block, 0), Cpu::new(turn % 4)).unwrap();
            assert_eq!(setup.send(lpi(&block, 0)).unwrap().0, turn as usize % 4);
        }
    }
}

#[test]
fn concurrent_callers_return_after_their_own_commands_execute() {
    let setup = Setup::new(Hardware { pace: Some(1), ..Hardware::default() });
    setup.board.world().patience = 100_000;
    std::thread::scope(|scope| {
        for thread in 0..4_u32 {
            let setup = &setup;
            scope.spawn(move || {
                let device = setup.attach(thread, 4);
                for round in 0..50 {
                    let block = setup.map(&device, 4, round % 4);
                    let target: usize = [1, 2, 3, 0][round as usize % 4];
                    for index in 0..4 {
                        let lpi = lpi(&block, index);
                        setup.its.move_event(lpi, Cpu::new((round + 1) % 4)).unwrap();
                        assert_eq!(setup.send(lpi).unwrap().0, target);
                        setup.its.mask(lpi).unwrap();
                        assert!(!setup.board.world().redistributors[target].is_enabled(lpi.get()));
                    }
                    setup.its.unmap_events(&device, block);
                }
                setup.its.detach(device);
            });
        }
    });
    assert_eq!(setup.its.faults(), (0, None));
}

#[test]
fn a_task_that_waits_lets_the_holder_run() {
    let setup = Setup::new(Hardware::default());
    let board = setup.board.clone();
    let (holds, held) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            // A task of strictly higher priority preempts the lock holder.
            while_allocating(move || {
                holds.send(()).unwrap();
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                while board.world().yields == 0 {
                    assert!(
                        std::time::Instant::now() < deadline,
                        "the waiting task does not let the holder run"
                    );
                    std::thread::yield_now();
                }
            });
            setup.attach(5, 1)
        });
        held.recv().unwrap();
        let attachments = [setup.attach(6, 1), holder.join().unwrap()];
        for attachment in attachments {
            setup.its.detach(attachment);
        }
    });
}

pub(crate) const CPUS: u32 = 4;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Attach {
        device: u32,
        max: u32,
    },
    Detach(Index),
    /// Releases the attachment with all its blocks.
    Release(Index),
    Map {
        attachment: Index,
        count: u16,
        cpu: u32,
        initially: Initially,
    },
    Unmap(Index),
    Move {
        event: Index,
        cpu: u32,
    },
    Mask(Index),
    Unmask(Index),
    Pend(Index, Pending),
    Send(Index),
    Take(u32),
    CpuOff {
        cpu: u32,
        heir: u32,
    },
    CpuOn(u32),
    Suspend,
    /// Makes the platform's allocations fail from now on (`false`) or succeed again (`true`).
    Memory(bool),
    /// Makes the ITS hang (`true`) or continue (`false`).
    Stuck(bool),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let initially = prop_oneof![Just(Initially::Unmasked), Just(Initially::Masked)];
    let pending = prop_oneof![Just(Pending::Set), Just(Pending::Clear)];
    prop_oneof![
        3 => (prop_oneof![0_u32..3, Just(0x8000), Just(0xffff)], 1_u32..12)
            .prop_map(|(device, max)| Step::Attach { device, max }),
        1 => any::<Index>().prop_map(Step::Detach),
        2 => any::<Index>().prop_map(Step::Release),
        4 => (any::<Index>(), 1_u16..6, 0..CPUS, initially).prop_map(
            |(attachment, count, cpu, initially)| Step::Map { attachment, count, cpu, initially },
        ),
        2 => any::<Index>().prop_map(Step::Unmap),
        4 => (any::<Index>(), 0..CPUS).prop_map(|(event, cpu)| Step::Move { event, cpu }),
        1 => any::<Index>().prop_map(Step::Mask),
        1 => any::<Index>().prop_map(Step::Unmask),
        1 => (any::<Index>(), pending).prop_map(|(event, pending)| Step::Pend(event, pending)),
        5 => any::<Index>().prop_map(Step::Send),
        2 => (0..CPUS).prop_map(Step::Take),
        1 => (0..CPUS, 0..CPUS).prop_map(|(cpu, heir)| Step::CpuOff { cpu, heir }),
        1 => (0..CPUS).prop_map(Step::CpuOn),
        1 => Just(Step::Suspend),
        1 => any::<bool>().prop_map(Step::Memory),
        1 => any::<bool>().prop_map(Step::Stuck),
    ]
}

pub(crate) fn hardware() -> impl Strategy<Value = Hardware> {
    let speed = prop_oneof![Just(None), Just(Some(1)), Just(Some(5))];
    let page =
        prop_oneof![Just(PageSize::Size4K), Just(PageSize::Size16K), Just(PageSize::Size64K)];
    let hcc = prop_oneof![Just(0_u8), Just(2), Just(4)];
    (speed, page, hcc, any::<[bool; 4]>()).prop_map(
        |(pace, page, hcc, [indirect, looks_into_caches, stalls, pta])| {
            let typer = Hardware::default().typer.with_hcc(hcc).with_pta(pta);
            Hardware {
                typer,
                pages: vec![page],
                indirect,
                looks_into_caches,
                stalls,
                pace,
                ..Hardware::default()
            }
        },
    )
}
