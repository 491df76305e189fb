//! Tests the judge with correct histories, and with one example of each fault that it must report.

mod either_bit;
mod hardware;
mod pending_bit;

use super::*;
use doorbell_hardware::ram::Caches;
use gic_driver::direct_lpi::{Resend, ResendObserver, ResendReason};
use gic_firmware::Region;
use irq_domain::{Deferral, Dispatched};
use msi_types::HwIrq;

const CPUS: usize = 3;

/// A vector that targets CPU 0, as seen by its device, its driver and the CPUs.
struct Rig {
    record: VectorRecord,
    routes: RouteTable,
}

const VECTOR: HwIrq = HwIrq::new(8192);

impl Rig {
    fn new(pending: Pending) -> Self {
        let ram = Arc::new(Ram::new(&[Region::new(0, 0x1_0000).unwrap()], Caches::Snooped));
        let clock = Arc::<Clock>::default();
        let record = VectorRecord::new(Arc::clone(&clock), ram, 0, CPUS);
        let rig = Self { record, routes: RouteTable::new(clock, CPUS) };
        rig.allocate(pending);
        rig
    }

    fn allocate(&self, pending: Pending) {
        self.record.begin_operation();
        self.routes.add(VECTOR, pending, Cpu::new(0));
        self.record.follow(self.route());
        self.record.end_operation();
        // A message that arrived during the allocation has been acknowledged.
        self.acknowledge_at(0);
        self.end(Dispatched::Handled);
        assert!(self.route().run().is_some());
    }

    fn route(&self) -> Arc<Route> {
        self.routes.get(VECTOR).unwrap()
    }

    fn send(&self) {
        assert!(self.record.send(|| SendOutcome::Sent));
    }

    fn move_to(&self, cpu: u32) {
        self.route().open(Cpu::new(cpu));
        self.route().settle(Cpu::new(cpu));
    }

    fn now(&self) -> u64 {
        self.record.clock.now()
    }

    fn run_at(&self, cpu: u32) {
        self.run_late(cpu, self.now());
    }

    /// Runs the handler on a CPU that started to look for interrupts at `looked_at` and was then
    /// descheduled for a long time.
    fn run_late(&self, cpu: u32, looked_at: u64) {
        self.route().acknowledged(Cpu::new(cpu), looked_at);
        self.record.handle(Cpu::new(cpu), looked_at);
        self.end(Dispatched::Handled);
    }

    fn acknowledge_at(&self, cpu: u32) {
        self.route().acknowledged(Cpu::new(cpu), self.now());
    }

    fn end(&self, outcome: Dispatched) {
        self.route().dispatched(outcome);
    }

    /// Acknowledges the vector at `cpu` while its handler runs on another CPU, then resends the
    /// interrupt.
    fn defer_at(&self, cpu: u32, redelivered_to: u32) {
        self.acknowledge_at(cpu);
        self.redeliver_to(redelivered_to);
        self.end(Dispatched::Deferred(Deferral::Running));
    }

    /// Resends the vector on behalf of the interrupt core.
    fn redeliver_to(&self, cpu: u32) {
        self.resend_to(cpu, ResendReason::Requested);
    }

    fn resend_to(&self, cpu: u32, reason: ResendReason) {
        let resend = Resend { hwirq: VECTOR, cpu: Cpu::new(cpu), reason };
        self.routes.resending(resend);
        self.routes.resent(resend);
    }

    /// Returns the numbers of runs on wrong CPUs and of spurious runs.
    fn faults(&self) -> (u64, u64) {
        let counts = self.record.counts();
        (counts.wrong_cpu, counts.spurious)
    }
}
