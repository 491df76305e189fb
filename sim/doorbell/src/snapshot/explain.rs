//! `doorbell snapshot explain`: restores the state into the model, and explains why an interrupt
//! does not arrive.

use super::cli::SnapshotExplainArgs;
use super::file;
use super::lint::{self, Rule};
use super::machine::{Machine, target_in};
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result};
use gic_arch::IntId;
use gic_arch::gicr::Typer;
use msi_types::explain::{Explanation, Obstacle, Stage};
use msi_types::{DeviceId, EventId};
use serde::Serialize;
use std::io::Write as _;
use vgic::saved_state::SavedState;

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
    /// Parts of the snapshot that could not be restored, and the vCPUs that are powered off.
    pub(super) findings: Vec<String>,
}

/// Explains why an interrupt does not arrive. The exit status is 1 if there is an obstacle.
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
    print::object(args.json, &answer, |out| {
        if answer.assumed_pending {
            writeln!(out, "the interrupt is not pending in the snapshot; if it were:")?;
        }
        write!(out, "{}", answer.explanation)?;
        let wrapped = |finding| print::wrapped(&format!("snapshot: {finding}"));
        answer.findings.iter().try_for_each(|finding| writeln!(out, "{}", wrapped(finding)))
    })?;
    let is_blocked = answer.explanation.obstacle().is_some();
    Ok(if is_blocked { Outcome::Findings } else { Outcome::Good })
}

/// Restores the state into the model, and explains the interrupt in the restored model. With
/// `as_if_pending`, makes an interrupt pending that is not.
pub(super) fn answer(machine: &Machine, question: Question, as_if_pending: bool) -> Result<Answer> {
    let mut explanation = explained(machine, &machine.state, question)?;
    let is_idle = |obstacle: Obstacle| {
        matches!(obstacle, Obstacle::LineLow) || obstacle.stage() == Stage::Pending
    };
    let assumed_pending = as_if_pending && explanation.obstacle().is_some_and(is_idle);
    if assumed_pending {
        let state = with_pending(machine, question);
        explanation = explained(machine, &state, question)?;
    }
    let lost = [
        Rule::MissingAttribute,
        Rule::RefusedAttribute,
        Rule::SharedPendingTable,
        Rule::TableNotIncluded,
        Rule::TablesRefused,
        Rule::ItsWithoutTable,
        Rule::CollectionTarget,
    ];
    let found = lint::check(machine).into_iter().filter(|finding| lost.contains(&finding.rule));
    let findings = found
        .map(|finding| format!("{} [{}]: {}", finding.place, finding.rule.name(), finding.message));
    let findings = findings.chain(stopped(machine)).collect();
    Ok(Answer { explanation, assumed_pending, findings })
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

/// Lists the vCPUs that are powered off. The model does not know the power state of vCPUs.
fn stopped(machine: &Machine) -> Option<String> {
    let off =
        machine.cpus().into_iter().filter(|cpu| machine.stopped.get(&cpu.affinity) == Some(&true));
    let numbers =
        off.map(|cpu| Typer::from(cpu.redistributor.typer).processor_number().to_string());
    let numbers = numbers.collect::<Vec<_>>();
    (!numbers.is_empty()).then(|| format!("vCPUs that are off: {}", numbers.join(", ")))
}
