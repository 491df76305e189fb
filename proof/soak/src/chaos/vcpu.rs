//! A vCPU's thread: a guest that takes interrupts, in software or with list registers.

use super::machine::{CPUS, Plan, World};
use super::seat::Seat;
use crate::half::Half;
use crate::hardware::Hardware;
use fastrand::Rng;
use gic_arch::icc::{self, Sgi, SysRegEncoding};
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use vgic::Sleep;

/// Largest number of nested interrupts.
const DEPTH: usize = 4;

fn iar(group: usize) -> SysRegEncoding {
    [icc::IAR0.encoding(), icc::IAR1.encoding()][group]
}

/// Runs a vCPU until `stop` is set.
pub(crate) fn run(seat: Seat, world: &World, rng: &mut Rng, stop: &AtomicBool) -> Seat {
    seat.run(world, rng, stop)
}

impl Seat {
    fn run(mut self, world: &World, rng: &mut Rng, stop: &AtomicBool) -> Self {
        if matches!(self.vcpu, Half::Lists(..)) {
            self.run_lists(world, rng, stop);
            return self;
        }
        while !stop.load(SeqCst) {
            for _ in 0..rng.usize(1..200) {
                if !self.take_one(world, rng) {
                    break;
                }
            }
            let sgi = rng.u8(..30) == 0;
            if sgi {
                send_sgi(world, rng, |value| {
                    self.vcpu.write_sysreg(icc::SGI1R.encoding(), value);
                });
            }
            if rng.u8(..50) == 0 {
                self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 0);
                self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1);
            }
            self.end_all();
            self.rest(world, rng, stop);
        }
        // Some machines are saved with active interrupts.
        while rng.bool() && self.take_one(world, rng) {}
        if world.plan == Plan::Linked {
            self.end_all();
        }
        self
    }

    /// Acknowledges an interrupt, if one is signaled, and may end it. Returns `true` if one was
    /// acknowledged.
    pub(super) fn take_one(&mut self, world: &World, rng: &mut Rng) -> bool {
        let inputs = self.vcpu.inputs();
        let group = usize::from(inputs.irq);
        if !inputs.any() {
            return false;
        }
        let value = self.vcpu.read_sysreg(iar(group));
        let intid = u32::try_from(value).unwrap();
        if (1020..1024).contains(&intid) {
            return true;
        }
        world.handle(self.cpu(), intid);
        self.running.push((group, intid));
        if self.running.len() >= DEPTH || rng.u8(..8) != 0 {
            self.end_all();
        }
        true
    }

    /// Waits for an interrupt, in WFI or in guest code.
    fn rest(&mut self, world: &World, rng: &mut Rng, stop: &AtomicBool) {
        world.fire();
        let cpu = self.cpu();
        match &mut self.vcpu {
            Half::Software(vcpu) if rng.bool() => {
                if !vcpu.enter_guest().any() {
                    (0..rng.u32(..50)).for_each(|_| hint::spin_loop());
                    world.kicks.sleep(cpu, stop);
                }
                vcpu.returned();
            }
            vcpu => {
                if vcpu.prepare_to_sleep() == Sleep::Ready {
                    world.kicks.sleep(cpu, stop);
                    vcpu.returned();
                }
            }
        }
    }

    fn run_lists(&mut self, world: &World, rng: &mut Rng, stop: &AtomicBool) {
        let cpu = self.cpu();
        let Self { vcpu: Half::Lists(vcpu, vtr), running } = self else { return };
        let ends_all = world.plan == Plan::Linked;
        while !stop.load(SeqCst) || (ends_all && !running.is_empty()) {
            let inside = vcpu.enter();
            let mut hardware = Hardware::new(*inside.interface(), *vtr);
            let idle = Lists { cpu, world, rng, running }.run(&mut hardware);
            inside.exit(&hardware.registers);
            world.fire();
            if rng.u8(..40) == 0 {
                send_sgi(world, rng, |value| {
                    vcpu.write_sysreg(icc::SGI1R.encoding(), value).unwrap();
                });
            }
            if rng.u8(..60) == 0 {
                vcpu.write_sysreg(icc::IGRPEN1.encoding(), 0).unwrap();
                vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
            }
            if rng.u8(..5) == 0 {
                vcpu.returned();
            }
            if idle && vcpu.prepare_to_sleep() == Sleep::Ready {
                world.kicks.sleep(cpu, stop);
                vcpu.returned();
            }
        }
    }
}

/// The guest of a vCPU with list registers, between an entry and an exit.
struct Lists<'a> {
    cpu: usize,
    world: &'a World,
    rng: &'a mut Rng,
    running: &'a mut Vec<(usize, u32)>,
}

impl Lists<'_> {
    /// Runs the guest until it exits. Returns `true` if the guest waits for an interrupt.
    fn run(&mut self, hardware: &mut Hardware) -> bool {
        for _ in 0..self.rng.usize(1..200) {
            if hardware.asks_for_maintenance() || self.world.kicks.take(self.cpu) {
                return false;
            }
            match (self.rng.u8(..4), self.running.is_empty()) {
                (0, false) => return false,
                (1 | 2, false) => self.end(hardware),
                _ => {
                    if let Some(group) = hardware.signalled() {
                        let intid = hardware.acknowledge(group);
                        self.world.handle(self.cpu, intid);
                        self.running.push((group, intid));
                    } else if self.running.is_empty() {
                        return true;
                    } else {
                        self.end(hardware);
                    }
                }
            }
        }
        false
    }

    fn end(&mut self, hardware: &mut Hardware) {
        if let Some((group, intid)) = self.running.pop() {
            hardware.end(group, intid);
            for intid in hardware.deactivated.drain(..) {
                self.world.physical.end(self.cpu, intid);
            }
        }
    }
}

/// Sends an SGI with a source to a random CPU.
fn send_sgi(world: &World, rng: &mut Rng, write: impl FnOnce(u64)) {
    let source = &world.ledger.sgis[rng.usize(..world.ledger.sgis.len())];
    let target = world.guest.gic.config().cpus[source.cpu.unwrap_or(0) % CPUS].affinity;
    let intid = u8::try_from(source.intid).unwrap();
    source.raise(|| write(Sgi::to(intid, target).into_bits()));
}
