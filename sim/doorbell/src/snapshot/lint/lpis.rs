//! Checks of pending LPIs.

use super::finding::Report;
use super::rule::Rule;
use crate::snapshot::machine::{Machine, Origin, Problem, target};
use gic_arch::gicr::{Ctlr, Propbaser, Typer};
use gic_arch::lpi::{self, Config};
use gic_arch::{Affinity, IntId, Lpi};
use std::collections::BTreeSet;
use vgic::GuestMemory as _;
use vgic::saved_state::CpuState;

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    for (its, device, event) in machine.events().filter(|(.., event)| event.pending) {
        let place =
            format!("its@{:x}, device {device:#x} event {:#x}", its.base, event.event.get());
        let intid = event.intid;
        let why = match target(its, event) {
            Some(cpu) => reason(machine, cpu, intid, event.configuration),
            None => Some(format!("its collection {} has no target", event.collection.get())),
        };
        if let Some(why) = why {
            report(Rule::UndeliverableLpi, place, format!("{intid} is pending, but {why}"));
        }
    }
    check_without_events(machine, report);
    for problem in &machine.problems {
        if let Problem::PendingBit { cpu, intid } = problem {
            let message = format!(
                "the pending table has the bit of {intid}, but no event that targets the vCPU is \
                 mapped to it"
            );
            let place = format!("vCPU {}", machine.number(*cpu));
            report(Rule::UndeliverableLpi, place, message);
        }
    }
}

/// Checks LPIs that are pending at a vCPU independently of events. This is normal if the
/// redistributors support direct LPIs.
fn check_without_events(machine: &Machine, report: &mut Report<'_>) {
    let mapped: BTreeSet<_> = machine.events().map(|(.., event)| event.intid).collect();
    for cpu in machine.cpus() {
        let direct = Typer::from(cpu.redistributor.typer).direct_lpi();
        for own in &cpu.redistributor.lpis {
            let why = if direct || mapped.contains(&own.intid) {
                reason(machine, cpu.affinity, own.intid, own.configuration)
            } else {
                Some("no event is mapped to it".to_owned())
            };
            if let Some(why) = why {
                let place = format!("vCPU {}", machine.number(cpu.affinity));
                let message = format!("{} is pending, but {why}", own.intid);
                report(Rule::UndeliverableLpi, place, message);
            }
        }
    }
}

/// Returns the reason why an LPI that is pending at a vCPU cannot be delivered, if any.
fn reason(
    machine: &Machine,
    cpu: Affinity,
    intid: IntId,
    configuration: Option<u8>,
) -> Option<String> {
    let number = machine.number(cpu);
    let Some(state) = machine.cpu(cpu) else {
        return Some(format!("its target with affinity {cpu} does not exist"));
    };
    if !Ctlr::from(state.redistributor.ctlr).enable_lpis() {
        return Some(format!("GICR_CTLR.EnableLPIs is 0 at vCPU {number}"));
    }
    let bits = Propbaser::from(state.redistributor.propbaser).id_bits();
    if u64::from(intid.get()) >> bits.min(63) != 0 {
        return Some(format!("it exceeds the {bits} bits of GICR_PROPBASER.IDbits"));
    }
    let byte = configuration.or_else(|| in_memory(machine, state, intid))?;
    (!Config::from_bits(byte).enable())
        .then(|| format!("its configuration byte is {byte:#04x}: disabled"))
}

/// Reads an LPI's configuration byte from the guest memory in a KVM snapshot. Returns `None` for a
/// state of the model, which contains no guest memory.
fn in_memory(machine: &Machine, cpu: &CpuState, intid: IntId) -> Option<u8> {
    if machine.origin == Origin::Model {
        return None;
    }
    let register = Propbaser::from(cpu.redistributor.propbaser);
    let offset = lpi::config_offset(Lpi::try_from(intid).ok()?);
    let mut byte = [0];
    machine.memory.read(register.address() + offset, &mut byte).ok()?;
    Some(byte[0])
}
