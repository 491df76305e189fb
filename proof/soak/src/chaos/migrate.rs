//! Migration to a new machine, directly or through KVM's format, and rollback of a used machine.

use super::eventfds::Eventfds;
use super::machine::{self, Counts, Plan, World};
use super::program;
use super::seat::Seat;
use crate::lifecycle;
use doorbell_test_support::guest::{Half, Interface};
use fastrand::Rng;
use gic_arch::{gicr, icc};
use std::mem;
use vgic::saved_state::SavedState;

/// Migrates, while devices have signaled through eventfds, and counts the way.
pub(crate) fn migrate(world: &mut World, rng: &mut Rng, counts: &mut Counts) {
    let disabled = if rng.bool() { program::leave_work(world, rng) } else { Vec::new() };
    world.unlink();
    let with_messages = disabled.is_empty() && rng.bool();
    let eventfds = Eventfds::signal(world, rng, with_messages);
    eventfds.settle();
    *counts.entry("signals in eventfds").or_default() += eventfds.signals;
    let mut seats = mem::take(&mut world.seats);
    let mut saved = lifecycle::save(&world.guest.gic, halves(&mut seats));
    let (way, saved) = match world.plan {
        Plan::Kvm if rng.u8(..4) != 0 && has_all_cpus(world, &mut seats, &mut saved) => {
            ("migrations through KVM's format", kvm(world, rng, saved))
        }
        Plan::Linked => ("migrations", saved),
        _ if rng.u8(..3) == 0 => {
            use_up(world, rng, &mut seats);
            lifecycle::restore(&world.guest.gic, halves(&mut seats), &saved);
            ("rollbacks", saved)
        }
        _ => ("migrations", saved),
    };
    let (gic, mut restored) = machine::make(world.plan, rng, &world.guest.ram, &world.kicks);
    lifecycle::restore(&gic, &mut restored, &saved);
    halves(&mut seats).zip(restored).for_each(|(half, restored)| *half = restored);
    drop(eventfds);
    world.guest.move_to(&gic);
    world.seats = seats;
    world.link();
    for cpu in disabled {
        world.guest.enable_lpis(cpu, true);
    }
    (0..world.guest.gic.config().its.len()).for_each(|its| world.guest.wait_its(its));
    *counts.entry(way).or_default() += 1;
}

/// Returns `true` if KVM's format contains the CPU at which each SPI is active. If the CPUs' active
/// priorities don't tell, first routes the active SPIs to the CPUs that acknowledged them, because
/// a restore then assumes that they are active at their targets. This doesn't suffice if the guest
/// has changed the priority of an active SPI.
fn has_all_cpus(world: &World, seats: &mut [Seat], saved: &mut SavedState) -> bool {
    let gic = &world.guest.gic;
    if lifecycle::has_undecidable_spis(gic.config(), saved.clone()) {
        for seat in &*seats {
            seat.spis().for_each(|intid| world.guest.route(intid, Some(seat.cpu)));
        }
        *saved = lifecycle::save(gic, halves(seats));
    }
    !lifecycle::has_undecidable_spis(gic.config(), saved.clone())
}

/// Returns the state that a fresh machine has after KVM's save and restore.
fn kvm(world: &World, rng: &mut Rng, saved: SavedState) -> SavedState {
    let (fresh, mut vcpus) = machine::make(world.plan, rng, &world.guest.ram, &world.kicks);
    let state = lifecycle::save(&fresh, &mut vcpus);
    lifecycle::through_kvm(world.guest.gic.config(), saved, state, &world.guest.ram)
}

/// Uses a machine that will be rolled back. Guest memory must stay unchanged.
fn use_up(world: &World, rng: &mut Rng, seats: &mut [Seat]) {
    let guest = &world.guest;
    for source in world.ledger.sources.iter().filter(|_| rng.bool()) {
        world.signal(source);
    }
    for (cpu, half) in halves(seats).enumerate() {
        if rng.u8(..3) == 0 {
            guest.write_gicr(cpu, gicr::WAKER, 2.into());
            let _ = half.read_sysreg(icc::IAR1.encoding());
            half.leave_guest();
        }
    }
    if rng.u8(..3) == 0 {
        guest.gic.reset();
        halves(seats).for_each(Half::reset);
    }
}

/// Returns the vCPUs of all seats.
fn halves(seats: &mut [Seat]) -> impl Iterator<Item = &mut Half> {
    seats.iter_mut().map(|seat| &mut seat.vcpu)
}
