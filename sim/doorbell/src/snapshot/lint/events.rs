//! Checks of mapped events: their INTIDs, collections and targets.

use super::finding::Report;
use super::rule::Rule;
use crate::snapshot::machine::{Machine, target};
use gic_arch::gicr::{Ctlr, Waker};
use gic_arch::{Affinity, IntId};
use std::collections::BTreeMap;

/// Maximum number of events that the message of a finding names.
const NAMED: usize = 4;

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    check_intids(machine, report);
    let mut by_collection = BTreeMap::<_, (usize, Option<Affinity>)>::new();
    for (its, _, event) in machine.events() {
        let target = target(its, event);
        by_collection.entry((its.base, event.collection)).or_insert((0, target)).0 += 1;
    }
    for ((its, collection), (events, target)) in by_collection {
        let place = format!("its@{its:x}, collection {}", collection.get());
        let many = if events == 1 { "1 event uses".into() } else { format!("{events} events use") };
        match target {
            None => {
                let message = format!("{many} the collection, which is not mapped");
                report(Rule::UnmappedCollection, place, message);
            }
            Some(cpu) => {
                if let Some(why) = idle(machine, cpu) {
                    let number = machine.number(cpu);
                    let message = format!("{many} the collection, and vCPU {number} {why}");
                    report(Rule::IdleTarget, place, message);
                }
            }
        }
    }
}

/// Returns the reason why a vCPU cannot receive LPIs, if any.
fn idle(machine: &Machine, cpu: Affinity) -> Option<&'static str> {
    let state = &machine.cpu(cpu)?.redistributor;
    if machine.stopped.get(&cpu).is_some_and(|stopped| *stopped) {
        Some("is off (KVM_MP_STATE_STOPPED)")
    } else if Waker::from(state.waker).processor_sleep() {
        Some("is asleep (GICR_WAKER.ProcessorSleep)")
    } else if !Ctlr::from(state.ctlr).enable_lpis() {
        Some("has its LPIs disabled (GICR_CTLR.EnableLPIs)")
    } else {
        None
    }
}

/// Finds INTIDs that several events are mapped to.
fn check_intids(machine: &Machine, report: &mut Report<'_>) {
    let mut events = BTreeMap::<IntId, Vec<String>>::new();
    for (its, device, event) in machine.events() {
        let names = events.entry(event.intid).or_default();
        if names.len() <= NAMED {
            let event = event.event.get();
            names.push(format!("its@{:x} device {device:#x} event {event:#x}", its.base));
        }
    }
    for (intid, mut names) in events.into_iter().filter(|(_, names)| names.len() > 1) {
        if names.len() > NAMED {
            names.truncate(NAMED);
            names.push("…".to_owned());
        }
        let message = format!("it is the INTID of {}", names.join(", "));
        report(Rule::IntIdMappedTwice, intid.to_string(), message);
    }
}
