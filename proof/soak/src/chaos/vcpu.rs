//! A vCPU's thread: a guest that takes interrupts, in software or with list registers.

use super::machine::{CPUS, Plan, World};
use super::seat::Seat;
use doorbell_test_support::guest::{Half, Interface};
use fastrand::Rng;
use gic_arch::icc::{self, Sgi};
use std::hint;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use vgic::Sleep;

/// Largest number of nested interrupts.
const DEPTH: usize = 4;

impl Seat {
    /// Runs the vCPU until `stop` is set.
    pub(super) fn run(mut self, world: &World, rng: &mut Rng, stop: &AtomicBool) -> Self {
        while !stop.load(SeqCst) {
            for _ in 0..rng.usize(1..200) {
                if !self.take_one(world, rng) {
                    break;
                }
            }
            if rng.u8(..30) == 0 {
                self.send_sgi(world, rng);
            }
            if rng.u8(..50) == 0 {
                self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 0).unwrap();
                self.vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
            }
            self.end_all(world);
            self.rest(world, rng, stop);
        }
        // Some machines are saved with active interrupts.
        while rng.bool() && self.take_one(world, rng) {}
        if world.plan == Plan::Linked {
            self.end_all(world);
        }
        self.vcpu.leave_guest();
        self
    }

    /// Acknowledges an interrupt, if one is signaled, and may leave the guest and end the
    /// interrupt. Returns `true` if one was acknowledged.
    pub(super) fn take_one(&mut self, world: &World, rng: &mut Rng) -> bool {
        let inputs = self.vcpu.inputs();
        let group = usize::from(inputs.irq);
        if !inputs.any() {
            return false;
        }
        let register = [icc::IAR0.encoding(), icc::IAR1.encoding()][group];
        let intid = u32::try_from(self.vcpu.read_sysreg(register).unwrap()).unwrap();
        if (1020..1024).contains(&intid) {
            return true;
        }
        world.handle(self.cpu, intid);
        self.running.push((group, intid));
        if rng.u8(..4) == 0 {
            self.vcpu.leave_guest();
        }
        if self.running.len() >= DEPTH || rng.u8(..8) != 0 {
            self.end_all(world);
        }
        true
    }

    /// Ends all interrupts.
    pub(super) fn end_all(&mut self, world: &World) {
        while let Some((group, intid)) = self.running.pop() {
            let register = [icc::EOIR0.encoding(), icc::EOIR1.encoding()][group];
            self.vcpu.write_sysreg(register, intid.into()).unwrap();
            for intid in self.vcpu.take_deactivated() {
                world.physical.end(self.cpu, intid);
            }
        }
    }

    /// Waits for an interrupt, in WFI or in guest code.
    fn rest(&mut self, world: &World, rng: &mut Rng, stop: &AtomicBool) {
        world.fire();
        match &mut self.vcpu {
            Half::Software(vcpu) if rng.bool() => {
                if !vcpu.enter_guest().any() {
                    (0..rng.u32(..50)).for_each(|_| hint::spin_loop());
                    world.kicks.sleep(self.cpu, stop);
                }
                vcpu.returned();
            }
            vcpu => {
                if rng.u8(..5) == 0 {
                    vcpu.returned();
                }
                if vcpu.prepare_to_sleep() == Sleep::Ready {
                    world.kicks.sleep(self.cpu, stop);
                    vcpu.returned();
                }
            }
        }
    }

    /// Sends an SGI with a source to a random CPU.
    fn send_sgi(&mut self, world: &World, rng: &mut Rng) {
        let source = &world.ledger.sgis[rng.usize(..world.ledger.sgis.len())];
        let target = world.guest.gic.config().cpus[source.cpu.unwrap_or(0) % CPUS].affinity;
        let value = Sgi::to(u8::try_from(source.intid).unwrap(), target).into_bits();
        source.raise(|| self.vcpu.write_sysreg(icc::SGI1R.encoding(), value).unwrap());
    }
}
