//! Checks of registers that are absent or refused, and of active priorities.

use super::finding::Report;
use super::rule::Rule;
use crate::snapshot::kvm::{describe, name};
use crate::snapshot::machine::{Machine, Problem};
use gic_arch::gicd::Irouter;
use gic_arch::icc;
use vgic::saved_state::{CpuState, InterruptState};

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    for problem in &machine.problems {
        match problem {
            Problem::Absent(device, attribute) => {
                let message = "the snapshot contains no value for it".to_owned();
                report(Rule::MissingAttribute, name(*device, *attribute), message);
            }
            Problem::Refused(register, errno) => {
                let place = name(register.device, register.attribute);
                let message = format!(
                    "KVM refuses the value {:#x} with {}",
                    register.value,
                    describe(*errno)
                );
                report(Rule::RefusedAttribute, place, message);
            }
            Problem::NotRestorable(error) => {
                report(Rule::NotRestorable, "the machine".to_owned(), error.clone());
            }
            _ => {}
        }
    }
    for cpu in &machine.state.cpus {
        check_active(machine, cpu, report);
    }
}

/// Finds interrupts that are active at a vCPU whose interface has no active priority. Skips vCPUs
/// that separate priority drop from deactivation (`EOImode` is 1), because their interrupts may
/// remain active after the priority drop.
fn check_active(machine: &Machine, cpu: &CpuState, report: &mut Report<'_>) {
    let interface = &cpu.interface;
    let has_priority = interface.ap0r.iter().chain(&interface.ap1r).any(|bits| *bits != 0);
    if has_priority || icc::Ctlr::from(interface.ctlr).eoi_mode() {
        return;
    }
    let is_here = |spi: &&InterruptState| {
        let route = Irouter::from(spi.route);
        let routed = (!route.any_participating()).then(|| route.affinity());
        spi.active_at.or(spi.chosen).or(routed) == Some(cpu.affinity)
    };
    let shared = machine.state.distributor.interrupts.iter().filter(is_here);
    for interrupt in cpu.redistributor.interrupts.iter().chain(shared) {
        if interrupt.active {
            let number = machine.number(cpu.affinity);
            let message = format!(
                "{} is active at vCPU {number}, but its ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1 are 0",
                interrupt.intid
            );
            report(Rule::ActiveWithoutPriority, format!("vCPU {number}"), message);
        }
    }
}
