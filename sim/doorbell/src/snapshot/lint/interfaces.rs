//! Checks of routes, groups, priority masks and active priorities.

use super::rule::{Report, Rule};
use crate::snapshot::machine::{Machine, Origin, target};
use gic_arch::gicd::Irouter;
use gic_arch::gicr::Typer;
use gic_arch::lpi::Config;
use gic_arch::{Affinity, IntId, IntIdClass, Priority, icc};
use std::collections::{BTreeMap, BTreeSet};
use vgic::SecurityView;
use vgic::saved_state::{CpuState, InterruptState};

/// Enabled interrupts of one group that target a vCPU: the highest priority with its first
/// interrupt, and a pending interrupt.
type Enabled = ((Priority, IntId), Option<IntId>);

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    for (cpu, spi) in wired(machine).filter(|(_, wired)| wired.enabled && wired.intid.is_shared()) {
        let Some(affinity) = cpu else { continue };
        let why = machine.cpu(affinity).map_or(Some("does not exist"), |cpu| machine.why_off(cpu));
        if let Some(why) = why {
            let message = format!("it is enabled, and its target with affinity {affinity} {why}");
            report(Rule::RouteToNobody, spi.intid.to_string(), message);
        }
    }
    for ((cpu, group), enabled) in enabled(machine) {
        if let Some(cpu) = machine.cpu(cpu).filter(|cpu| machine.why_off(cpu).is_none()) {
            check_group(machine, cpu, group, enabled, report);
        }
    }
    check_active(machine, report);
}

/// Iterates over the wired interrupts, with the vCPU that each targets.
fn wired(machine: &Machine) -> impl Iterator<Item = (Option<Affinity>, &InterruptState)> {
    let privates = machine.state.cpus.iter().flat_map(|cpu| {
        cpu.redistributor.interrupts.iter().map(move |own| (Some(cpu.affinity), own))
    });
    privates.chain(machine.state.distributor.interrupts.iter().map(|spi| {
        let route = Irouter::from(spi.route);
        let routed = (!route.any_participating()).then(|| route.affinity());
        (spi.chosen.or(routed), spi)
    }))
}

/// Summarizes the enabled interrupts of each vCPU and group. Omits SGIs, which KVM enables at
/// reset.
fn enabled(machine: &Machine) -> BTreeMap<(Affinity, usize), Enabled> {
    let mut enabled = BTreeMap::<_, Enabled>::new();
    let mut add = |cpu: Affinity, group: usize, priority: Priority, intid: IntId, pending: bool| {
        let of = enabled.entry((cpu, group)).or_insert(((priority, intid), None));
        *of = (of.0.min((priority, intid)), of.1.or_else(|| pending.then_some(intid)));
    };
    for (cpu, wired) in wired(machine).filter(|(_, wired)| wired.enabled) {
        if let Some(cpu) = cpu.filter(|_| wired.intid.class() != IntIdClass::Sgi) {
            let pending = wired.latch || wired.message || (wired.line && !wired.edge);
            let priority = Priority::new(wired.priority);
            add(cpu, wired.group1.into(), priority, wired.intid, pending);
        }
    }
    for (its, _, event) in machine.events() {
        let byte = machine.configuration(its, event);
        let byte = byte.filter(|byte| Config::from_bits(*byte).enable());
        if let (Some(byte), Some(cpu)) = (byte, target(its, event)) {
            add(cpu, 1, lpi_priority(machine, byte), event.intid, event.pending);
        }
    }
    enabled
}

/// Returns the hardware's priority for an LPI's configuration byte.
fn lpi_priority(machine: &Machine, byte: u8) -> Priority {
    let priority = Config::from_bits(byte).priority();
    match machine.config.security {
        SecurityView::Single => priority,
        SecurityView::NonSecure => Priority::from_non_secure_view(priority.get()),
    }
}

/// Checks that a vCPU receives interrupts of a group that has enabled interrupts.
fn check_group(
    machine: &Machine,
    cpu: &CpuState,
    group: usize,
    ((priority, intid), pending): Enabled,
    report: &mut Report<'_>,
) {
    let (interface, place) = (&cpu.interface, || format!("vCPU {}", machine.number(cpu.affinity)));
    // KVM has one enable bit, for both groups.
    let bit = if machine.origin == Origin::Kvm { 1 } else { group };
    let forwarded = machine.state.distributor.ctlr & 1 << bit != 0;
    let disabled = match (forwarded, [interface.igrpen0, interface.igrpen1][group]) {
        (false, _) => Some(format!("GICD_CTLR.EnableGrp{group}")),
        (_, false) => Some(format!("ICC_IGRPEN{group}_EL1.Enable")),
        _ => None,
    };
    if let Some(register) = disabled {
        report(Rule::GroupDisabled, place(), format!("{intid} is enabled, but {register} is 0"));
    }
    if priority.is_more_urgent_than(Priority::new(interface.pmr)) {
        return;
    }
    let mask = format!("ICC_PMR_EL1 is {:#04x}", interface.pmr);
    // The guest's value 0 is 0x80 in the Non-secure view.
    if interface.pmr <= lpi_priority(machine, 0).get() {
        report(Rule::InterfaceMasked, place(), format!("{mask}, and {intid} is enabled"));
    } else if let Some(pending) = pending {
        report(Rule::PendingMasked, place(), format!("{mask}, and {pending} is pending"));
    }
}

/// Compares active interrupts with active priorities. An active SPI explains the priority of one
/// vCPU, and LPIs, which have no active state, those of any vCPU. Does not require priorities of
/// vCPUs that separate priority drop from deactivation (`EOImode` is 1).
fn check_active(machine: &Machine, report: &mut Report<'_>) {
    let mut left: BTreeSet<_> = machine.state.cpus.iter().flat_map(active_bits).collect();
    for (cpu, interrupt) in wired(machine).filter(|(_, wired)| wired.active) {
        let home = interrupt.active_at.or(cpu).and_then(|cpu| machine.cpu(cpu));
        let splits = |cpu: &&CpuState| icc::Ctlr::from(cpu.interface.ctlr).eoi_mode();
        if let Some(cpu) = home.filter(|cpu| !splits(cpu) && active_bits(cpu).next().is_none()) {
            let number = machine.number(cpu.affinity);
            let message = format!(
                "{} is active at vCPU {number}, but its ICC_AP0R<n>_EL1 and ICC_AP1R<n>_EL1 are 0",
                interrupt.intid
            );
            report(Rule::ActiveWithoutPriority, format!("vCPU {number}"), message);
        }
        let is_anywhere = interrupt.intid.is_shared() && interrupt.active_at.is_none();
        let others = machine.state.cpus.iter().filter(|_| is_anywhere);
        let (group, priority) = (interrupt.group1.into(), Priority::new(interrupt.priority));
        home.into_iter().chain(others).any(|cpu| {
            left.remove(&(cpu.affinity, group, active_bit(machine, cpu, group, priority)))
        });
    }
    let bytes = || machine.events().map(|(its, _, event)| machine.configuration(its, event));
    let bytes: BTreeSet<_> = if left.is_empty() { BTreeSet::new() } else { bytes().collect() };
    for (affinity, group, bit) in left {
        let Some(cpu) = machine.cpu(affinity) else { continue };
        // A byte that is not known may contain any priority.
        let is_of_lpi = |byte: &Option<u8>| {
            let priority = byte.map(|byte| lpi_priority(machine, byte));
            priority.is_none_or(|priority| active_bit(machine, cpu, 1, priority) == bit)
        };
        let direct = Typer::from(cpu.redistributor.typer).direct_lpi();
        let explained = group == 1 && (direct || bytes.iter().any(is_of_lpi));
        let rule = if explained { Rule::PriorityOfLpi } else { Rule::StaleActivePriority };
        let message = format!("ICC_AP{group}R{}_EL1 has bit {}", bit / 32, bit % 32);
        report(rule, format!("vCPU {}", machine.number(affinity)), message);
    }
}

/// Iterates over a vCPU's active priorities: its affinity, the group and the bit.
fn active_bits(cpu: &CpuState) -> impl Iterator<Item = (Affinity, usize, u16)> + use<> {
    let (affinity, words) = (cpu.affinity, [cpu.interface.ap0r, cpu.interface.ap1r]);
    let bits = (0..256).map(move |bit| (affinity, usize::from(bit / 128), bit % 128));
    bits.filter(move |(_, group, bit)| words[*group][usize::from(bit / 32)] & 1 << (bit % 32) != 0)
}

/// Returns the bit that an acknowledgment sets in the active priorities.
fn active_bit(machine: &Machine, cpu: &CpuState, group: usize, priority: Priority) -> u16 {
    let interface = &cpu.interface;
    let point = match group {
        1 if !icc::Ctlr::from(interface.ctlr).cbpr() => interface.bpr1,
        _ => interface.bpr0 + 1,
    };
    let group_priority = priority.truncated(8 - u32::from(point.min(8)));
    u16::from(group_priority.get() >> (8 - machine.config.priority_bits.min(7)))
}
