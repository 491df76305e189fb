//! Priorities: with all threads stopped, one CPU drains interrupts in order of their priorities.

use super::ledger::{Signal, Source};
use super::machine::World;
use super::program::event;
use super::seat::Seat;
use crate::guest::FIRST_LPI;
use doorbell_test_support::guest::{Half, Interface};
use fastrand::Rng;
use gic_arch::icc;
use gic_arch::its::{CollectionId, Command};
use std::mem;
use vgic::{Progress, SecurityView, VgicConfig};

/// The CPU that drains.
const CPU: usize = 0;

/// Returns the priority that the guest reads after it has written `value` (IHI 0069 §4.8.6). In the
/// Non-secure view, a priority is shifted into the lower half of the range, and shifted back when
/// it is read.
fn as_read(config: &VgicConfig, value: u8) -> u8 {
    let implemented = !(0xff_u16 >> config.priority_bits).to_le_bytes()[0];
    match config.security {
        SecurityView::Single => value & implemented,
        SecurityView::NonSecure => ((value >> 1 | 0x80) & implemented) << 1,
    }
}

/// Returns the group priority with the smallest binary point: at most 7 bits of priority preempt.
/// In the Non-secure view, one bit fewer is visible.
fn group_priority(config: &VgicConfig, priority: u8) -> u8 {
    match config.security {
        SecurityView::Single => priority & 0xfe,
        SecurityView::NonSecure => priority & 0xfc,
    }
}

/// Signals interrupts with random priorities to a CPU, and checks the order in which the CPU
/// acknowledges them, the running priority, and the effect of the priority mask.
pub(crate) fn drain(world: &mut World, rng: &mut Rng) {
    let mut seats = mem::take(&mut world.seats);
    for seat in &mut seats {
        take_all(world, seat, rng);
    }
    let seat = &mut seats[CPU];
    let is_used = |source: &&Source| match source.signal {
        Signal::Pulse(_) | Signal::Spi | Signal::Level(_) | Signal::Lpi => {
            source.cpu.is_none_or(|cpu| cpu == CPU)
        }
        Signal::Event { .. } => true,
        Signal::Linked(_) | Signal::Sgi => false,
    };
    let mut sources: Vec<_> = world.ledger.sources.iter().filter(is_used).collect();
    rng.shuffle(&mut sources);
    sources.truncate(12);
    let config = world.guest.gic.config().clone();
    let mut expected = Vec::new();
    for source in sources {
        let written = rng.u8(..);
        expected.push((program(world, source, written), source.intid));
        world.send(source);
    }
    let (vcpu, limit) = (&mut seat.vcpu, as_read(&config, rng.u8(0x40..)));
    vcpu.write_sysreg(icc::PMR.encoding(), limit.into()).unwrap();
    expected.sort_unstable();
    let (before, after): (Vec<_>, Vec<_>) =
        expected.into_iter().partition(|(priority, _)| *priority < limit);
    acknowledge(world, vcpu, &before);
    let (lowest, all) = (as_read(&config, 0xff), 0xff);
    vcpu.write_sysreg(icc::PMR.encoding(), all).unwrap();
    // No mask lets the lowest priority pass.
    let (idle, after): (Vec<_>, Vec<_>) =
        after.into_iter().partition(|(priority, _)| *priority >= lowest);
    acknowledge(world, vcpu, &after);
    for (_, intid) in idle {
        let find = |source: &&Source| source.intid == intid;
        let source = world.ledger.sources.iter().find(find).unwrap();
        program(world, source, 0);
        acknowledge(world, vcpu, &[(0, intid)]);
    }
    world.seats = seats;
}

/// Handles and ends all interrupts of a vCPU, whether or not it drains: an active interrupt is not
/// signaled to another CPU, and a pending LPI may follow its collection.
///
/// Interrupts may be pending although all signals have been handled: a handling also counts for a
/// signal that arrives between the acknowledgment and the handler's start, and a vCPU may send an
/// SGI after the last check.
fn take_all(world: &World, seat: &mut Seat, rng: &mut Rng) {
    while world.guest.gic.poll() == Progress::Unfinished {}
    seat.end_all(world);
    while seat.take_one(world, rng) {
        seat.end_all(world);
    }
    seat.vcpu.leave_guest();
}

/// Sets an interrupt's priority and target, and returns the priority as the guest reads it.
fn program(world: &World, source: &Source, written: u8) -> u8 {
    let (guest, config) = (&world.guest, world.guest.gic.config());
    if source.intid >= FIRST_LPI {
        // Bits 7 to 2 of the configuration are the priority.
        let written = written & 0xfc;
        guest.configure(source.intid, written, true);
        match event(source) {
            Some((its, device, event)) => {
                guest.run(its, crate::guest::mapc(0, 0));
                let collection = CollectionId::new(0);
                guest.run(its, Command::Movi { device, event, collection });
                guest.run(its, Command::Inv { device, event });
            }
            None => guest.invalidate(source.cpu.unwrap_or(CPU), Some(source.intid)),
        }
        return as_read(config, written);
    }
    let cpu = source.cpu.unwrap_or(CPU);
    if source.cpu.is_none() {
        guest.route(source.intid, Some(CPU));
    }
    if config.security == SecurityView::Single {
        guest.set_group(cpu, source.intid, 1);
    }
    guest.set_priority(cpu, source.intid, written);
    let read = guest.priority(cpu, source.intid);
    assert_eq!(
        read,
        u32::from(as_read(config, written)),
        "priority {written:#x} of {}",
        source.intid
    );
    as_read(config, written)
}

/// Acknowledges and ends interrupts, and checks that they are the `expected` ones.
fn acknowledge(world: &World, vcpu: &mut Half, expected: &[(u8, u32)]) {
    let config = world.guest.gic.config().clone();
    let mut left = expected.to_vec();
    let mut last = 0;
    loop {
        while world.guest.gic.poll() == Progress::Unfinished {
            vcpu.attend();
        }
        let intid = u32::try_from(vcpu.read_sysreg(icc::IAR1.encoding()).unwrap()).unwrap();
        if intid == 1023 {
            break;
        }
        let found = left.iter().position(|(_, other)| *other == intid);
        let Some(found) = found else { panic!("{intid} is not among {expected:?}") };
        let (priority, _) = left.remove(found);
        assert!(last <= priority, "{intid} with priority {priority:#x} after {last:#x}");
        last = priority;
        let running = vcpu.read_sysreg(icc::RPR.encoding()).unwrap();
        let wanted = group_priority(&config, priority);
        assert_eq!(running, u64::from(wanted), "running priority of {intid}, {priority:#x}");
        world.handle(CPU, intid);
        vcpu.write_sysreg(icc::EOIR1.encoding(), intid.into()).unwrap();
    }
    vcpu.leave_guest();
    assert!(left.is_empty(), "not signaled: {left:?} of {expected:?}");
}
