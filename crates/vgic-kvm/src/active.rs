//! CPUs at which SPIs are active. KVM's format doesn't contain them, but it contains the active
//! priorities of each CPU: from the acknowledgment to the end of an interrupt, the bit of its group
//! priority is set at the CPU, and no other interrupt of that group priority can be acknowledged
//! there.

use gic_arch::gicd::Irouter;
use gic_arch::icc::Ctlr;
use gic_arch::{Affinity, Priority};
use vgic::saved_state::{CpuState, InterfaceState, InterruptState};

/// Number of priority bits. Each group priority has a bit in an active priority register.
const PRIORITY_BITS: u32 = 5;

/// Sets `active_at` of active SPIs that are not active at their target.
pub(super) fn place(spis: &mut [InterruptState], cpus: &[CpuState]) {
    for index in 0..spis.len() {
        let spi = spis[index];
        if spi.active && spi.active_at.is_none() {
            let cpu = acknowledged_by(&spi, spis, cpus);
            spis[index].active_at = (cpu != target(&spi)).then_some(cpu);
        }
    }
}

/// Returns the number of active SPIs that were acknowledged by a CPU other than the one that
/// [`place`] finds.
pub(super) fn misplaced(spis: &[InterruptState], cpus: &[CpuState]) -> usize {
    let is_misplaced = |spi: &&InterruptState| {
        spi.active && spi.active_at.is_some_and(|cpu| cpu != acknowledged_by(spi, spis, cpus))
    };
    spis.iter().filter(is_misplaced).count()
}

/// Returns the CPU that acknowledged an active SPI: its target, unless the target does not run the
/// SPI's priority and exactly one other CPU does.
fn acknowledged_by(spi: &InterruptState, spis: &[InterruptState], cpus: &[CpuState]) -> Affinity {
    let target = target(spi);
    let mut running = cpus.iter().filter(|cpu| runs(cpu, spi));
    if running.clone().any(|cpu| cpu.affinity == target) {
        return target;
    }
    let mut unexplained = running.by_ref().filter(|cpu| !is_explained(cpu, spi, spis));
    match (unexplained.next(), unexplained.next()) {
        (Some(only), None) => only.affinity,
        _ => target,
    }
}

/// Returns `true` if the CPU's active priorities contain the SPI's, and no active private interrupt
/// explains it.
fn runs(cpu: &CpuState, spi: &InterruptState) -> bool {
    let interface = &cpu.interface;
    let active = if spi.group1 { interface.ap1r[0] } else { interface.ap0r[0] };
    let mut private = cpu.redistributor.interrupts.iter();
    active >> group_priority(spi, interface) & 1 != 0
        && !private.any(|other| other.active && shares_priority(spi, other, interface))
}

/// Returns `true` if another active SPI of the same priority has the CPU as its target.
fn is_explained(cpu: &CpuState, spi: &InterruptState, spis: &[InterruptState]) -> bool {
    spis.iter().any(|other| {
        let is_other = other.active && other.intid != spi.intid && target(other) == cpu.affinity;
        is_other && shares_priority(spi, other, &cpu.interface)
    })
}

fn target(spi: &InterruptState) -> Affinity {
    Irouter::from(spi.route).affinity()
}

fn shares_priority(a: &InterruptState, b: &InterruptState, interface: &InterfaceState) -> bool {
    a.group1 == b.group1 && group_priority(a, interface) == group_priority(b, interface)
}

/// Returns the number of an interrupt's group priority, as a bit in an active priority register. A
/// binary point of N selects bits 7:N+1 for Group 0, and bits 7:N for Group 1 unless Group 0's
/// binary point is used for both (IHI 0069, `ICC_BPR0_EL1`, `ICC_BPR1_EL1`).
fn group_priority(interrupt: &InterruptState, interface: &InterfaceState) -> u8 {
    let is_common = Ctlr::from(interface.ctlr).cbpr();
    let point = if interrupt.group1 && !is_common {
        interface.bpr1
    } else {
        interface.bpr0.saturating_add(1)
    };
    let group = Priority::new(interrupt.priority).truncated(8 - u32::from(point.min(8)));
    group.get() >> (8 - PRIORITY_BITS)
}
