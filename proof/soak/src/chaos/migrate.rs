//! Migration to a new machine, directly or through KVM's format, and rollback of a used machine.

use super::eventfds::Eventfds;
use super::machine::{self, Plan, World};
use super::program;
use super::seat::Running;
use crate::half::Half;
use crate::lifecycle;
use crate::outcome::Outcome;
use fastrand::Rng;
use gic_arch::{gicr, icc};
use std::mem;
use vgic::saved_state::SavedState;

/// Migrates, while devices have signaled through eventfds, and counts the way.
pub(crate) fn migrate(world: &mut World, rng: &mut Rng, outcome: &mut Outcome) {
    let disabled = if rng.bool() { program::leave_work(world, rng) } else { Vec::new() };
    world.unlink();
    let with_messages = disabled.is_empty() && rng.bool();
    let eventfds = Eventfds::signal(world, rng, with_messages);
    eventfds.settle();
    outcome.count("signals in eventfds", eventfds.signals);
    let mut vcpus = Vec::new();
    let mut seats = Vec::new();
    for seat in mem::take(&mut world.seats) {
        let (vcpu, rest) = seat.split();
        vcpus.push(vcpu);
        seats.push(rest);
    }
    let mut saved = lifecycle::save(&world.guest.gic, &mut vcpus);
    let (way, saved) = match world.plan {
        Plan::Kvm if rng.u8(..4) != 0 && has_all_cpus(world, &seats, &mut vcpus, &mut saved) => {
            ("migrations through KVM's format", kvm(world, rng, saved))
        }
        Plan::Linked => ("migrations", saved),
        _ if rng.u8(..3) == 0 => {
            use_up(world, rng, &mut vcpus);
            lifecycle::restore(&world.guest.gic, &mut vcpus, &saved);
            ("rollbacks", saved)
        }
        _ => ("migrations", saved),
    };
    let (gic, mut restored) = machine::make(world.plan, rng, &world.guest.memory, &world.kicks);
    lifecycle::restore(&gic, &mut restored, &saved);
    drop((vcpus, eventfds));
    world.guest.move_to(gic);
    world.seats = seats.into_iter().zip(restored).map(|(rest, vcpu)| rest.join(vcpu)).collect();
    world.link();
    for cpu in disabled {
        world.guest.enable_lpis(cpu, true);
    }
    (0..world.guest.gic.config().its.len()).for_each(|its| world.guest.wait_its(its));
    outcome.count(way, 1);
}

/// Returns `true` if KVM's format contains the CPU at which each SPI is active. If the CPUs' active
/// priorities don't tell, first routes the active SPIs to the CPUs that acknowledged them, because
/// a restore then assumes that they are active at their targets. This doesn't suffice if the guest
/// has changed the priority of an active SPI.
fn has_all_cpus(
    world: &World,
    seats: &[Running],
    vcpus: &mut [Half],
    saved: &mut SavedState,
) -> bool {
    let gic = &world.guest.gic;
    if lifecycle::has_undecidable_spis(gic.config(), saved.clone()) {
        for (running, vcpu) in seats.iter().zip(&*vcpus) {
            running.spis().for_each(|intid| world.guest.route(intid, Some(vcpu.cpu())));
        }
        *saved = lifecycle::save(gic, vcpus);
    }
    !lifecycle::has_undecidable_spis(gic.config(), saved.clone())
}

/// Returns the state that a fresh machine has after KVM's save and restore.
fn kvm(world: &World, rng: &mut Rng, saved: SavedState) -> SavedState {
    let (fresh, mut vcpus) = machine::make(world.plan, rng, &world.guest.memory, &world.kicks);
    let state = lifecycle::save(&fresh, &mut vcpus);
    lifecycle::through_kvm(world.guest.gic.config(), saved, state, &world.guest.memory)
}

/// Uses a machine that will be rolled back. Guest memory must stay unchanged.
fn use_up(world: &World, rng: &mut Rng, vcpus: &mut [Half]) {
    let guest = &world.guest;
    for source in world.ledger.sources.iter().filter(|_| rng.bool()) {
        world.signal(source);
    }
    for (cpu, vcpu) in vcpus.iter_mut().enumerate() {
        if rng.u8(..3) == 0 {
            guest.write_gicr(cpu, gicr::WAKER.offset(), 2);
            let _ = vcpu.read_sysreg(icc::IAR1.encoding());
        }
    }
    if rng.u8(..3) == 0 {
        guest.gic.reset();
        vcpus.iter_mut().for_each(Half::reset);
    }
}
