//! Costs of injection and acknowledgement, beside an uncontended `fetch_or`. Not a test: it
//! prints.

use super::rig::*;
use super::std::time::Instant;
use super::std::{hint::black_box, println, thread};
use crate::AccessWidth::Word;
use crate::frames::its::ItsConfig;
use crate::lpi::{LpiConfig, PendingLpis};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use gic_arch::gits;
use msi_types::Delivery;

const ROUNDS: usize = 201;

/// Nanoseconds an operation.
#[derive(Clone, Copy)]
struct Cost {
    least: f64,
    median: f64,
}

/// The cost of an operation, over several rounds of `each` operations; `before` is not measured.
fn measure(each: u32, mut before: impl FnMut(), mut run: impl FnMut(u32)) -> Cost {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            before();
            let start = Instant::now();
            run(each);
            start.elapsed().as_secs_f64() * 1e9 / f64::from(each)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    Cost { least: rounds[0], median: rounds[ROUNDS / 2] }
}

fn send(rig: &Rig, device: u32, event: u32) {
    assert_eq!(rig.send(device, event), Delivery::Pending);
}

/// `devices` of 2^bits events each, all mapped to vCPU 0, LPIs counted through.
fn mapped(devices: u32, bits: u8, collection_of: impl Fn(u32) -> u16) -> Rig {
    let rig = Rig::running(2);
    for lpi in 8192..0x1_0000 {
        rig.configure(lpi, true, 0xa0);
    }
    for device in 0..devices {
        rig.run([mapd(device, bits)]);
        let lpi = |event| 8192 + ((device << bits) + event) % 57_344;
        for events in (0..1u32 << bits).collect::<Vec<_>>().chunks(1024) {
            rig.run(
                events
                    .iter()
                    .map(|event| mapti(device, *event, lpi(*event), collection_of(device))),
            );
        }
    }
    assert_eq!(rig.its.command_faults().count, 0);
    rig
}

fn shuffled(count: u32, spread: impl Fn(u32) -> (u32, u32)) -> Vec<(u32, u32)> {
    let mut state = 1u64;
    let mut order: Vec<_> = (0..count).map(spread).collect();
    for at in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, usize::try_from(state >> 33).unwrap_or(0) % (at + 1));
    }
    order
}

fn empty(queue: &mut PendingLpis) {
    while take(queue).is_some() {}
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn costs_as_multiples_of_a_fetch_or() {
    let word = Box::new(AtomicU64::new(0));
    let floor = measure(
        1 << 12,
        || (),
        |each| {
            for bit in 0..each {
                word.fetch_or(1 << (bit % 64), SeqCst);
            }
        },
    );
    let show = |name: &str, cost: Cost| {
        let Cost { least, median } = cost;
        let (least_ratio, ratio) = (least / floor.least, median / floor.median);
        println!(
            "{name:42} {least:7.2} ns {least_ratio:6.2} x   median {median:7.2} ns {ratio:6.2} x"
        );
    };
    show("fetch_or", floor);
    one_mapping(&show);
    for (name, devices, bits) in [("2048 x 32", 2048, 5), ("32 x 2048", 32, 11)] {
        many_mappings(&show, name, devices, bits);
    }
    depth_and_priorities(&show);
    two_threads(&show);
}

fn one_mapping(show: &impl Fn(&str, Cost)) {
    let rig = mapped(1, 5, |_| 0);
    let mut queue = rig.vcpu(0);
    send(&rig, 0, 0);
    show(
        "inject, pending",
        measure(1 << 12, || (), |each| (0..each).for_each(|_| send(&rig, 0, 0))),
    );
    empty(&mut queue);
    let pair = measure(
        1 << 12,
        || (),
        |each| {
            for _ in 0..each {
                send(&rig, 0, 0);
                black_box(take(&mut queue));
            }
        },
    );
    show("inject + acknowledge, depth 1", pair);
    let fresh =
        measure(32, || empty(&mut queue), |each| (0..each).for_each(|event| send(&rig, 0, event)));
    show("inject, fresh, 32 events (timer noise)", fresh);
}

fn many_mappings(show: &impl Fn(&str, Cost), name: &str, devices: u32, bits: u8) {
    let rig = mapped(devices, bits, |_| 0);
    let mut queue = rig.vcpu(0);
    let order = shuffled(devices << bits, |at| (at >> bits, at & ((1 << bits) - 1)));
    let all = devices << bits;
    let send_all = || order.iter().for_each(|(device, event)| send(&rig, *device, *event));
    let fresh = measure(all, || empty(&mut queue), |_| send_all());
    show(&alloc::format!("inject, 64k random, fresh, {name}"), fresh);
    show(
        &alloc::format!("inject, 64k random, pending, {name}"),
        measure(all, send_all, |_| send_all()),
    );
    let pop = measure(all, send_all, |_| empty(&mut queue));
    show(&alloc::format!("acknowledge, 64k pending, {name}"), pop);
}

fn depth_and_priorities(show: &impl Fn(&str, Cost)) {
    let rig = mapped(1793, 5, |_| 0);
    let mut queue = rig.vcpu(0);
    for device in 1..1793 {
        (0..32).for_each(|event| send(&rig, device, event));
    }
    let pair = measure(
        1 << 12,
        || (),
        |each| {
            for _ in 0..each {
                send(&rig, 0, 0);
                black_box(take(&mut queue));
            }
        },
    );
    show("inject + acknowledge, depth 57k", pair);
    let rig = mapped(1, 5, |_| 0);
    for (event, priority) in (0u8..32).map(|level| (u32::from(level), level * 8)) {
        rig.configure(8192 + event, true, priority);
        rig.run([inv(0, event)]);
    }
    let mut queue = rig.vcpu(0);
    let pair = measure(
        1 << 12,
        || (),
        |each| {
            for at in 0..each / 32 {
                (0..32).for_each(|event| send(&rig, 0, (event * 5 + at) % 32));
                empty(&mut queue);
            }
        },
    );
    show("inject + acknowledge, 32 priorities", pair);
}

fn two_threads(show: &impl Fn(&str, Cost)) {
    let rig = mapped(2, 5, |device| u16::try_from(device).unwrap_or(0));
    let pairs = |device: u16| {
        let mut queue = rig.vcpu(device);
        measure(
            1 << 12,
            || (),
            |each| {
                for _ in 0..each {
                    send(&rig, device.into(), 0);
                    black_box(take(&mut queue));
                }
            },
        )
    };
    let alone = pairs(0);
    let both = thread::scope(|scope| {
        let other = scope.spawn(|| pairs(1));
        let one = pairs(0);
        let two = other.join().unwrap();
        if one.median > two.median { one } else { two }
    });
    show("pair, one thread", alone);
    show("pair, two threads, distinct vCPUs", both);
}

#[test]
#[ignore = "a measurement: run it alone, in release"]
fn what_the_write_that_enables_an_its_costs() {
    for bits in [17, 20] {
        let size = LpiConfig { entries: 1 << (bits + 1), ..LpiConfig::new(2) };
        let rig = Rig::sized(size, ItsConfig::new(BASE));
        rig.enable_lpis(0);
        rig.provide_tables();
        rig.set_enabled(true);
        rig.run([mapc(0, 0)]);
        for device in 0..1u32 << (bits - 16) {
            rig.run([mapd(device, 16)]);
            for events in (0..1u32 << 16).collect::<Vec<_>>().chunks(1024) {
                rig.run(events.iter().map(|event| mapti(device, *event, 8192 + event % 57_344, 0)));
            }
        }
        let disable = || {
            rig.set_enabled(false);
            while rig.its.read(gits::CTLR.offset(), Word) >> 31 == 0 {}
        };
        let rounds = core::iter::repeat_with(|| {
            disable();
            let start = Instant::now();
            rig.set_enabled(true);
            start.elapsed()
        });
        println!("2^{bits} events mapped: {:?}", rounds.take(10).min().unwrap());
    }
}
