//! Checks of LPIs that are pending at a vCPU without an event that targets it.

use super::events::{disabled, exceeded, idle};
use super::rule::{Report, Rule};
use crate::snapshot::machine::{Machine, Problem, target};
use crate::wording::counted;
use gic_arch::gicr::Typer;
use gic_arch::{Affinity, IntId};
use std::collections::{BTreeMap, BTreeSet};

/// Checks pending LPIs. `changed` are the LPIs whose mappings differ from the command queue, and
/// need no further finding.
pub(super) fn check(machine: &Machine, changed: &BTreeSet<IntId>, report: &mut Report<'_>) {
    check_without_events(machine, report);
    // If an ITS's tables are refused, pending LPIs of its events would all seem to have no event.
    let is_refused = |problem: &Problem| matches!(problem, Problem::Tables { .. });
    if !machine.problems.iter().any(is_refused) {
        check_bits(machine, changed, report);
    }
}

/// Checks LPIs that are pending at a vCPU independently of events. This is normal if the
/// redistributors support direct LPIs.
fn check_without_events(machine: &Machine, report: &mut Report<'_>) {
    let mapped: BTreeSet<_> = machine.events().map(|(.., event)| event.intid).collect();
    for cpu in machine.cpus() {
        let direct = Typer::from(cpu.redistributor.typer).direct_lpi();
        for own in &cpu.redistributor.lpis {
            let byte = own.configuration.or_else(|| machine.byte_in_memory(cpu, own.intid));
            let found = if !direct && !mapped.contains(&own.intid) {
                Some((Rule::PendingWithoutEvent, "no event is mapped to it".to_owned()))
            } else if let Some(why) = idle(machine, cpu) {
                Some((Rule::IdleTarget, format!("the vCPU {why}")))
            } else if let Some(bits) = exceeded(cpu, own.intid) {
                let why = format!("it exceeds the {bits} bits of GICR_PROPBASER.IDbits");
                Some((Rule::LpiBeyondTable, why))
            } else {
                byte.and_then(disabled)
            };
            if let Some((rule, why)) = found {
                let place = format!("vCPU {}", machine.number(cpu.affinity));
                report(rule, place, format!("{} is pending, but {why}", own.intid));
            }
        }
    }
}

/// Checks bits that are set in pending tables although no event with their INTID targets the vCPU.
/// If all bits of a vCPU belong to events that target one other vCPU, and that vCPU has no pending
/// events of its own, the two have each other's tables.
fn check_bits(machine: &Machine, changed: &BTreeSet<IntId>, report: &mut Report<'_>) {
    let mut bits = BTreeMap::<Affinity, BTreeMap<IntId, Option<Affinity>>>::new();
    for problem in &machine.problems {
        if let Problem::PendingBit { cpu, intid } = problem {
            bits.entry(*cpu).or_default().insert(*intid, None);
        }
    }
    let mut right = BTreeSet::new();
    for (its, _, event) in machine.events() {
        let target = target(its, event);
        right.extend(target.filter(|_| event.pending));
        bits.values_mut().filter_map(|bits| bits.get_mut(&event.intid)).for_each(|of| *of = target);
    }
    for (cpu, bits) in bits {
        let place = || format!("vCPU {}", machine.number(cpu));
        let owners: BTreeSet<_> = bits.values().copied().collect();
        let owner = owners.first().copied().flatten().filter(|_| owners.len() == 1);
        let is_changed = bits.keys().any(|intid| changed.contains(intid));
        if let Some(owner) = owner
            && ![cpu, owner].iter().any(|of| right.contains(of))
            && !is_changed
        {
            let (count, owner) = (counted(bits.len(), "pending LPI"), machine.number(owner));
            let message = format!("its pending table has {count}, only of vCPU {owner}");
            report(Rule::SwappedVcpus, place(), message);
            continue;
        }
        for (intid, owner) in bits.into_iter().filter(|(intid, _)| !changed.contains(intid)) {
            let (rule, event) = match owner {
                Some(cpu) => {
                    let number = machine.number(cpu);
                    (Rule::SavedWhileRunning, format!("its event targets vCPU {number}"))
                }
                None => (Rule::PendingWithoutEvent, "no event of it has a target".to_owned()),
            };
            report(rule, place(), format!("the pending table has the bit of {intid}, but {event}"));
        }
    }
}
