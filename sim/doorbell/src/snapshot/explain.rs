//! `doorbell snapshot explain`: restores the state into the model, and explains why an interrupt
//! does not arrive.

use super::cli::SnapshotExplainArgs;
use super::file;
use super::lint;
use super::machine::{Machine, target_in};
use crate::exit::Outcome;
use crate::{findings, print};
use anyhow::{Context, Result};
use doorbell_inspection::lint::Row;
use gic_arch::IntId;
use msi_types::explain::{Explanation, Fact, Obstacle, Stage};
use msi_types::{Cpu, DeviceId, EventId};
use serde::Serialize;
use std::io::Write as _;
use vgic::saved_state::{EventState, ItsState, SavedState};

/// Interrupt that the user asks about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Question {
    /// An event, by the index of its ITS, its DeviceID and its EventID.
    Event(usize, DeviceId, EventId),
    /// An interrupt, by the number of its vCPU and its INTID.
    Interrupt(u32, IntId),
}

/// Explanation of an interrupt, and findings that may be the cause of its obstacle.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) explanation: Explanation,
    /// `true` if the interrupt is not pending in the snapshot, and the explanation assumes that it
    /// is.
    pub(super) assumed_pending: bool,
    /// Findings of `snapshot lint` about the objects on the way, and the vCPUs that are powered
    /// off.
    pub(super) findings: Vec<String>,
    /// The same findings with their codes and advice.
    pub(super) rows: Vec<Row>,
}

/// Explains why an interrupt does not arrive. The exit status is 1 if there is an obstacle, or an
/// error or a warning on the interrupt's way.
pub(super) fn explain(args: &SnapshotExplainArgs) -> Result<Outcome> {
    let machine = file::read(&args.file)?;
    let question = match (args.device, args.event, args.intid, args.vcpu) {
        (Some(device), Some(event), ..) => {
            Question::Event(args.its, DeviceId::new(device), EventId::new(event))
        }
        (_, _, Some(intid), Some(vcpu)) => Question::Interrupt(vcpu, IntId::new(intid)),
        _ => anyhow::bail!("specify either --device and --event, or --intid and --vcpu"),
    };
    let answer = answer(&machine, question, args.as_if_pending)?;
    print::object(args.output.json, &answer, |out| {
        if answer.assumed_pending {
            writeln!(out, "the interrupt is not pending in the snapshot; if it were:")?;
        }
        let lines = findings::lines(&answer.explanation, &answer.rows).into_iter();
        let off = stopped(&machine).map(|off| format!("snapshot: {off}"));
        lines.chain(off).try_for_each(|line| writeln!(out, "{}", print::wrapped(&line)))
    })?;
    Ok(match answer.explanation.obstacle() {
        Some(_) => Outcome::Findings,
        None => findings::outcome(answer.rows.iter()),
    })
}

/// Restores the state into the model, and explains the interrupt in the restored model. With
/// `as_if_pending`, makes an interrupt pending that is not.
pub(super) fn answer(machine: &Machine, question: Question, as_if_pending: bool) -> Result<Answer> {
    let mut explanation = explained(machine, &machine.state, question)?;
    let lacks_pending = explanation.facts().any(|fact| matches!(fact, Fact::NotPending(_)))
        || explanation.obstacles().any(|obstacle| obstacle.stage() == Stage::Pending);
    let assumed_pending = as_if_pending && lacks_pending;
    if assumed_pending {
        let state = with_pending(machine, question);
        explanation = explained(machine, &state, question)?;
    }
    let target = explanation.facts().find_map(|fact| match fact {
        Fact::Target(cpu, _) | Fact::Routed(cpu) => Some(cpu),
        _ => None,
    });
    // The model does not know the power state of vCPUs.
    if let Some(cpu) = target.filter(|cpu| machine.is_off(*cpu)) {
        explanation = explanation.merge(Explanation::stopped(Obstacle::Offline { cpu }));
    }
    let way = way(machine, question, target);
    let found = lint::check(machine).into_iter().filter(|finding| is_on(&way, &finding.place));
    let rows: Vec<Row> = found.map(|finding| finding.row(&machine.name)).collect();
    let word = |row: &Row| format!("{} [{}]: {}", row.origin, row.rule.name, row.message);
    let findings = rows.iter().map(word).chain(stopped(machine)).collect();
    Ok(Answer { explanation, assumed_pending, findings, rows })
}

/// Returns the names of the objects on the way of an interrupt, as findings state them. If the ITS
/// does not know an event, its collections are all on the way.
fn way(machine: &Machine, question: Question, target: Option<Cpu>) -> Vec<String> {
    let mut names = vec!["the machine".to_owned(), "the redistributors".to_owned()];
    names.extend(target.map(|cpu| format!("vCPU {cpu}")));
    let its = match question {
        Question::Event(index, ..) => machine.config.its.get(index).map(|its| its.base),
        Question::Interrupt(..) => None,
    };
    let is_asked = |(of, device, event): &(&ItsState, u32, &EventState)| match question {
        Question::Event(_, id, asked) => {
            (Some(of.base), *device, event.event) == (its, id.get(), asked)
        }
        Question::Interrupt(_, intid) => intid == event.intid,
    };
    let event = machine.events().find(is_asked);
    match question {
        Question::Event(_, device, _) => {
            let its = its.unwrap_or_default();
            names.extend([format!("its@{its:x}"), format!("its@{its:x}, device {device}")]);
            let all = machine.state.its.iter().find(|of| of.base == its && event.is_none());
            let all = all.into_iter().flat_map(|of| &of.collections);
            names.extend(all.map(|of| format!("its@{its:x}, collection {}", of.collection)));
        }
        Question::Interrupt(vcpu, intid) => {
            names.extend([format!("vCPU {vcpu}"), intid.to_string()]);
        }
    }
    if let Some((ItsState { base, .. }, device, event)) = event {
        let (id, collection) = (event.event.get(), event.collection.get());
        names.extend([
            format!("its@{base:x}"),
            format!("its@{base:x}, device {device:#x}"),
            format!("its@{base:x}, device {device:#x} event {id:#x}"),
            format!("its@{base:x}, collection {collection}"),
            event.intid.to_string(),
        ]);
    }
    names
}

/// Returns `true` if a finding at a place concerns an interrupt on this way. Registers, which are
/// named after their device of KVM, concern all interrupts.
fn is_on(way: &[String], place: &str) -> bool {
    let vcpus = place.strip_prefix("vCPUs ").into_iter().flat_map(|list| list.split(", "));
    let mut names = vcpus.map(|number| format!("vCPU {number}")).chain([place.to_owned()]);
    place.contains(": ") || names.any(|name| way.contains(&name))
}

fn explained(machine: &Machine, state: &SavedState, question: Question) -> Result<Explanation> {
    let (gic, _vcpus) = machine.restored(state)?;
    Ok(match question {
        Question::Event(its, device, event) => gic.explain(its, device, event),
        Question::Interrupt(vcpu, intid) => {
            let count = machine.config.cpus.len();
            let cpu = machine.vcpu(vcpu);
            let cpu = cpu
                .with_context(|| format!("vCPU {vcpu} does not exist; the machine has {count}"))?;
            gic.explain_interrupt(cpu, intid)
        }
    })
}

/// Returns the state with the interrupt pending.
fn with_pending(machine: &Machine, question: Question) -> SavedState {
    let mut state = machine.state.clone();
    let (base, cpu) = match question {
        Question::Event(its, ..) => (machine.config.its.get(its).map(|its| its.base), None),
        Question::Interrupt(cpu, _) => (None, machine.config.cpus.get(cpu as usize)),
    };
    let cpu = cpu.map(|cpu| cpu.affinity);
    for its in &mut state.its {
        for device in &mut its.devices {
            for event in &mut device.events {
                event.pending |= match question {
                    Question::Event(_, of, id) => {
                        (Some(its.base), device.device, event.event) == (base, of, id)
                    }
                    Question::Interrupt(_, intid) => {
                        event.intid == intid && target_in(&its.collections, event) == cpu
                    }
                };
            }
        }
    }
    let privates = state.cpus.iter_mut().filter(|of| Some(of.affinity) == cpu);
    let privates = privates.flat_map(|cpu| &mut cpu.redistributor.interrupts);
    for wired in privates.chain(&mut state.distributor.interrupts) {
        wired.latch |= matches!(question, Question::Interrupt(_, intid) if intid == wired.intid);
    }
    state
}

/// Lists the vCPUs that are powered off.
fn stopped(machine: &Machine) -> Option<String> {
    let numbers = (0..machine.config.cpus.len()).filter(|number| {
        u32::try_from(*number).is_ok_and(|number| machine.is_off(Cpu::new(number)))
    });
    let numbers: Vec<_> = numbers.map(|number| number.to_string()).collect();
    (!numbers.is_empty()).then(|| format!("vCPUs that are off: {}", numbers.join(", ")))
}
