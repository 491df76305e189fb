//! Checks of tables in guest memory and of command queues.

use super::rule::{Report, Rule};
use crate::snapshot::kvm::describe;
use crate::snapshot::machine::{Machine, Problem};
use crate::wording::counted;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::gits::{self, Baser, Cbaser, Creadr, Cwriter};
use gic_arch::lpi;
use vgic::saved_state::{CpuState, ItsState};
use vgic_kvm::EntryFault::NoCpu;
use vgic_kvm::RefusedEntry::Collection;
use vgic_kvm::snapshot::{SnapshotTable, TableUse};

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    check_pending_tables(machine, report);
    for table in &machine.tables {
        check_included(machine, table, report);
    }
    for problem in &machine.problems {
        match problem {
            Problem::Tables { its, entry: Some(Collection(_, collection, NoCpu(id))), .. } => {
                let place = format!("its@{its:x}, collection {collection}");
                let cpus = machine.config.cpus.len();
                let message = format!(
                    "its target is the vCPU with vcpu_id {id}, and none of the {cpus} vCPUs has it"
                );
                report(Rule::CollectionTarget, place, message);
            }
            Problem::Tables { its, errno, entry } => {
                let entry = entry.map(|entry| format!(": {entry}")).unwrap_or_default();
                let errno = describe(*errno);
                let message = format!("KVM_DEV_ARM_ITS_RESTORE_TABLES fails with {errno}{entry}");
                report(Rule::TablesRefused, format!("its@{its:x}"), message);
            }
            Problem::NotEnabled { its } => {
                if let Some(its) = machine.state.its.iter().find(|of| of.base == *its) {
                    check_registers(its, report);
                }
            }
            _ => {}
        }
    }
    for its in &machine.state.its {
        if gits::Ctlr::from(its.ctlr).enabled() {
            check_registers(its, report);
            check_queue(its, report);
        }
        check_mappings(machine, its, report);
    }
}

/// Finds disabled ITSes with mappings, and ITSes whose mappings are lost. Skips an ITS if another
/// finding states the reason.
fn check_mappings(machine: &Machine, its: &ItsState, report: &mut Report<'_>) {
    let place = format!("its@{:x}", its.base);
    let is_known = machine.problems.iter().any(|problem| match problem {
        Problem::Tables { its: of, .. } | Problem::NotEnabled { its: of } => *of == its.base,
        _ => false,
    });
    let tables = its.baser.map(Baser::from_bits).into_iter().filter(Baser::valid);
    let mut tables = tables.map(|table| table.address()..table.address() + table.bytes());
    let (read, devices) = (Creadr::from_bits(its.creadr).offset(), its.devices.len());
    if is_known || tables.any(|table| machine.memory.missing(table).is_some()) {
        return;
    }
    if devices > 0 && !gits::Ctlr::from(its.ctlr).enabled() {
        let devices = counted(devices, "mapped device");
        report(Rule::ItsDisabled, place, format!("GITS_CTLR.Enabled is 0, with {devices}"));
    } else if devices == 0 && its.collections.is_empty() && read > 0 {
        let message =
            format!("GITS_CREADR is {read:#x}, but no collection and no device is mapped");
        report(Rule::ItsWithoutMappings, place, message);
    }
}

/// Finds vCPUs whose pending tables overlap.
fn check_pending_tables(machine: &Machine, report: &mut Report<'_>) {
    let table = |cpu: &CpuState| {
        let register = Pendbaser::from(cpu.redistributor.pendbaser);
        let enabled = Ctlr::from(cpu.redistributor.ctlr).enable_lpis();
        let bits = Propbaser::from(cpu.redistributor.propbaser).id_bits();
        let used = enabled || register.address() != 0;
        used.then(|| (register.address(), lpi::pending_table_bytes(bits).max(1), cpu.affinity))
    };
    let mut tables: Vec<_> = machine.cpus().into_iter().filter_map(table).collect();
    tables.sort_by_key(|(address, _, affinity)| (*address, machine.number(*affinity)));
    for overlapping in tables.chunk_by(|(one, bytes, _), (other, ..)| one + bytes > *other) {
        let [(address, ..), _, ..] = overlapping else { continue };
        let numbers = overlapping.iter().map(|(.., cpu)| machine.number(*cpu).to_string());
        let numbers = numbers.collect::<Vec<_>>().join(", ");
        let message = format!(
            "their pending tables overlap, starting at {address:#x}, so pending LPIs of all but \
             one of the vCPUs can be lost"
        );
        report(Rule::SharedPendingTable, format!("vCPUs {numbers}"), message);
    }
}

fn check_included(machine: &Machine, table: &SnapshotTable, report: &mut Report<'_>) {
    let end = table.address.saturating_add(table.bytes);
    let Some(missing) = machine.memory.missing(table.address..end) else { return };
    let base = |index: usize| machine.config.its.get(index).map_or(0, |its| its.base);
    let (place, name) = match table.usage {
        TableUse::Queue(its) => (format!("its@{:x}", base(its)), "the command queue"),
        TableUse::Devices(its) => (format!("its@{:x}", base(its)), "the device table"),
        TableUse::DevicePage(its) => (format!("its@{:x}", base(its)), "a page of the device table"),
        TableUse::Collections(its) => (format!("its@{:x}", base(its)), "the collection table"),
        TableUse::Translations(its, device) => (
            format!("its@{:x}, device {:#x}", base(its), device.get()),
            "the interrupt translation table",
        ),
        TableUse::Configuration => ("the redistributors".to_owned(), "the configuration table"),
        TableUse::Pending(cpu) => (format!("vCPU {}", machine.number(cpu)), "the pending table"),
        _ => ("the machine".to_owned(), "a table"),
    };
    let message = format!(
        "{name} has {:#x} bytes at {:#x}, but memory from {:#x} to {:#x} is not in the snapshot",
        table.bytes, table.address, missing.start, missing.end
    );
    report(Rule::TableNotIncluded, place, message);
}

/// Finds registers whose Valid bit is 0 although an enabled ITS needs their table or queue.
fn check_registers(its: &ItsState, report: &mut Report<'_>) {
    let [devices, collections, ..] = its.baser.map(Baser::from_bits);
    let held = gits::Typer::from(its.typer).hcc() > 0;
    for (register, value, valid) in [
        ("GITS_CBASER", its.cbaser, Cbaser::from_bits(its.cbaser).valid()),
        ("GITS_BASER0", its.baser[0], devices.valid()),
        ("GITS_BASER1", its.baser[1], collections.valid() || held),
    ] {
        if !valid {
            let message =
                format!("GITS_CTLR enables the ITS, but {register} ({value:#x}) is not valid");
            report(Rule::ItsWithoutTable, format!("its@{:x}", its.base), message);
        }
    }
}

fn check_queue(its: &ItsState, report: &mut Report<'_>) {
    let (read, write) = (Creadr::from_bits(its.creadr), Cwriter::from_bits(its.cwriter));
    if !Cbaser::from_bits(its.cbaser).valid() || read.offset() == write.offset() {
        return;
    }
    let stalled = if read.stalled() { ", and the queue is stalled" } else { "" };
    let (read, write) = (read.offset(), write.offset());
    let message = format!("GITS_CREADR is {read:#x} and GITS_CWRITER is {write:#x}{stalled}");
    report(Rule::UnprocessedCommands, format!("its@{:x}", its.base), message);
}
