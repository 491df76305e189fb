//! `doorbell snapshot explain`: restores the state into the model, and explains why an interrupt
//! does not arrive.

use super::cli::ExplainArgs;
use super::file;
use super::lint::{self, Rule};
use super::machine::Machine;
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result};
use gic_arch::IntId;
use gic_arch::gicr::Typer;
use msi_types::explain::Explanation;
use msi_types::{Cpu, DeviceId, EventId};
use serde::Serialize;
use std::io::Write as _;
use std::sync::Arc;
use vgic::{Vcpu, Vgic};

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
    /// Parts of the snapshot that could not be restored, and the vCPUs that are powered off.
    pub(super) findings: Vec<String>,
}

/// Explains why an interrupt does not arrive. The exit status is 1 if there is an obstacle.
pub(super) fn explain(args: &ExplainArgs) -> Result<Outcome> {
    let machine = file::read(&args.file)?;
    let question = match (args.device, args.event, args.intid, args.vcpu) {
        (Some(device), Some(event), ..) => {
            Question::Event(args.its, DeviceId::new(device), EventId::new(event))
        }
        (_, _, Some(intid), Some(vcpu)) => Question::Interrupt(vcpu, IntId::new(intid)),
        _ => anyhow::bail!("specify either --device and --event, or --intid and --vcpu"),
    };
    let answer = answer(&machine, question)?;
    if args.json {
        print::json(&answer)?;
    } else {
        print::text(|out| {
            write!(out, "{}", answer.explanation)?;
            let wrapped = |finding| print::wrapped(&format!("snapshot: {finding}"));
            answer.findings.iter().try_for_each(|finding| writeln!(out, "{}", wrapped(finding)))
        })?;
    }
    let is_blocked = answer.explanation.obstacle().is_some();
    Ok(if is_blocked { Outcome::Findings } else { Outcome::Good })
}

/// Restores the state into the model, and explains the interrupt in the restored model.
pub(super) fn answer(machine: &Machine, question: Question) -> Result<Answer> {
    let (gic, mut vcpus) =
        Vgic::new(machine.config.clone(), machine.memory.clone(), Arc::new(|_: Cpu| ()))?;
    let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    gic.restore(&machine.state)?;
    drop(paused);
    let explanation = match question {
        Question::Event(its, device, event) => gic.explain(its, device, event),
        Question::Interrupt(vcpu, intid) => {
            let count = machine.config.cpus.len();
            let cpu = machine.vcpu(vcpu);
            let cpu = cpu
                .with_context(|| format!("vCPU {vcpu} does not exist; the machine has {count}"))?;
            gic.explain_interrupt(cpu, intid)
        }
    };
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
    Ok(Answer { explanation, findings: findings.chain(stopped(machine)).collect() })
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
