//! Checks of mapped events: their INTIDs, configuration, collections and targets.

use super::rule::{Report, Rule};
use crate::snapshot::machine::{Machine, target};
use gic_arch::gicr::{Ctlr, Propbaser};
use gic_arch::lpi::Config;
use gic_arch::{Affinity, IntId};
use std::collections::BTreeMap;
use vgic::saved_state::CpuState;

/// Maximum number of events that the message of a finding names.
const NAMED: usize = 4;

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    check_intids(machine, report);
    let mut by_collection = BTreeMap::<_, (usize, Option<Affinity>, IntId)>::new();
    for (its, device, event) in machine.events() {
        let target = target(its, event);
        let new = (0, target, event.intid);
        let of = by_collection.entry((its.base, event.collection)).or_insert(new);
        *of = (of.0 + 1, target, of.2.max(event.intid));
        let byte = machine.configuration(its, event).filter(|_| event.pending);
        if let Some((rule, why)) = byte.and_then(disabled) {
            let event_id = event.event.get();
            let place = format!("its@{:x}, device {device:#x} event {event_id:#x}", its.base);
            report(rule, place, format!("{} is pending, but {why}", event.intid));
        }
    }
    for ((its, collection), (events, target, highest)) in by_collection {
        let place = || format!("its@{its:x}, collection {}", collection.get());
        let many = if events == 1 { "1 event uses".into() } else { format!("{events} events use") };
        let Some(cpu) = target else {
            let message = format!("{many} the collection, which is not mapped");
            report(Rule::UnmappedCollection, place(), message);
            continue;
        };
        let Some(state) = machine.cpu(cpu) else { continue };
        let number = machine.number(cpu);
        let idle = idle(machine, state);
        if let Some(why) = idle {
            let message = format!("{many} the collection, and vCPU {number} {why}");
            report(Rule::IdleTarget, place(), message);
        }
        if let Some(bits) = exceeded(state, highest).filter(|_| idle.is_none()) {
            let message = format!(
                "{many} the collection, one of them {highest}: it exceeds the {bits} bits of \
                 GICR_PROPBASER.IDbits"
            );
            report(Rule::LpiBeyondTable, place(), message);
        }
    }
}

/// Returns the reason why a vCPU cannot receive LPIs, if any.
pub(super) fn idle(machine: &Machine, cpu: &CpuState) -> Option<&'static str> {
    let enabled = Ctlr::from(cpu.redistributor.ctlr).enable_lpis();
    let disabled = (!enabled).then_some("has its LPIs disabled (GICR_CTLR.EnableLPIs)");
    machine.why_off(cpu).or(disabled)
}

/// Returns the number of INTID bits of a vCPU's LPI tables if an LPI exceeds it.
pub(super) fn exceeded(cpu: &CpuState, lpi: IntId) -> Option<u8> {
    let bits = Propbaser::from(cpu.redistributor.propbaser).id_bits();
    (u64::from(lpi.get()) >> bits.min(63) != 0).then_some(bits)
}

/// Returns a finding if a configuration byte disables a pending LPI. Software sets bit 1, which is
/// RES1, so a byte of 0 was probably lost.
pub(super) fn disabled(byte: u8) -> Option<(Rule, String)> {
    let rule = if byte == 0 { Rule::ConfigurationLost } else { Rule::PendingLpiDisabled };
    let why = || format!("its configuration byte is {byte:#04x}: disabled");
    (!Config::from_bits(byte).enable()).then(|| (rule, why()))
}

/// Finds INTIDs that several events are mapped to.
fn check_intids(machine: &Machine, report: &mut Report<'_>) {
    let events = machine.events();
    let mut events: Vec<_> =
        events.map(|(its, device, event)| (event.intid, its.base, device, event.event)).collect();
    events.sort_unstable();
    for same in events.chunk_by(|one, other| one.0 == other.0).filter(|same| same.len() > 1) {
        let events = same.iter().take(NAMED).map(|(_, its, device, event)| {
            format!("its@{its:x} device {device:#x} event {:#x}", event.get())
        });
        let mut names = events.collect::<Vec<_>>().join(", ");
        names.push_str(if same.len() > NAMED { ", …" } else { "" });
        let message = format!("it is the INTID of {names}");
        report(Rule::IntIdMappedTwice, same[0].0.to_string(), message);
    }
}
