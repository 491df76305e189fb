//! Migration to a new machine, directly or through KVM's format, and rollback of a used machine.

use super::machine::{self, Plan, World};
use super::program;
use crate::guest::FIRST_LPI;
use crate::half::Half;
use crate::lifecycle;
use fastrand::Rng;
use gic_arch::{gicr, icc};
use std::mem;
use vgic::saved_state::SavedState;

/// INTID of the first SPI.
const FIRST_SPI: u32 = 32;

/// Migrates, and returns the name of the way.
pub(crate) fn migrate(world: &mut World, rng: &mut Rng) -> &'static str {
    let disabled = if rng.bool() { program::leave_work(world, rng) } else { Vec::new() };
    if world.plan == Plan::Kvm {
        route_active(world);
    }
    world.unlink();
    let mut vcpus = Vec::new();
    let mut seats = Vec::new();
    for seat in mem::take(&mut world.seats) {
        let (vcpu, rest) = seat.split();
        vcpus.push(vcpu);
        seats.push(rest);
    }
    let saved = lifecycle::save(&world.guest.gic, &mut vcpus);
    let (way, saved) = match world.plan {
        Plan::Kvm if rng.u8(..4) != 0 => {
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
    drop(vcpus);
    world.guest.move_to(gic);
    world.seats = seats.into_iter().zip(restored).map(|(rest, vcpu)| rest.join(vcpu)).collect();
    world.link();
    for cpu in disabled {
        world.guest.enable_lpis(cpu, true);
    }
    (0..world.guest.gic.config().its.len()).for_each(|its| world.guest.wait_its(its));
    way
}

/// Routes each active SPI to the CPU that acknowledged it. KVM's format does not contain that CPU,
/// so a restore assumes that an SPI is active at its target.
fn route_active(world: &World) {
    for seat in &world.seats {
        let spis = seat.running.iter().filter(|(_, intid)| (FIRST_SPI..FIRST_LPI).contains(intid));
        for (_, intid) in spis {
            world.guest.route(*intid, Some(seat.cpu()));
        }
    }
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
