//! Prints the contents of `doorbell inspect` for people.

use crate::findings;
use crate::print::{Output, wrapped};
use crate::table::Table;
use crate::wording::counted;
use doorbell_inspection::coherence;
use doorbell_inspection::inspect::{Inspection, Rows, first_names};
use gic_firmware::Coherence;
use std::io::{self, Write};

/// Prints an inspection.
pub(crate) fn print(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    writeln!(out, "{}", inspection.source)?;
    if let Some(model) = &inspection.model {
        writeln!(out, "model {model}")?;
    }
    if let Some(name) = &inspection.hypervisor {
        writeln!(out, "guest of a hypervisor: {name}")?;
    }
    if inspection.psci.as_deref() == Some("hvc") {
        writeln!(out, "PSCI by hvc: EL2 belongs to firmware or a hypervisor")?;
    }
    print_cpus(out, inspection)?;
    print_gic(out, inspection)?;
    print_rows(out, inspection.secondary_gic_rows())?;
    if inspection.controllers.is_empty() {
        writeln!(out, "no MSI controllers")?;
    }
    print_rows(out, inspection.controller_rows())?;
    print_coherence(out, inspection)?;
    print_rows(out, inspection.capacity_rows())?;
    if inspection.devices.is_empty() {
        writeln!(out, "no device names an MSI controller")?;
    }
    // The controllers' table tells which of them isolate.
    print_rows(out, inspection.device_rows().without("isolation"))?;
    print_rows(out, inspection.stream_rows())?;
    for sentence in inspection.omitted.sentences() {
        writeln!(out, "{sentence}")?;
    }
    let findings = inspection.findings.iter().flat_map(findings::sentences);
    findings.into_iter().try_for_each(|line| writeln!(out, "{}", wrapped(&line)))
}

fn print_cpus(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let Inspection { cpus, omitted, enabled_cpus, .. } = inspection;
    writeln!(out, "{}, {enabled_cpus} enabled", counted(cpus.len() + omitted.cpus.omitted(), "CPU"))
}

fn print_gic(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let Some(gic) = &inspection.gic else {
        return writeln!(out, "no GIC");
    };
    writeln!(out, "GICv{} {}: distributor at {:#x}", gic.version, gic.id, gic.distributor)?;
    for region in &gic.redistributors {
        let stride =
            region.stride.map_or_else(String::new, |stride| format!(", stride {stride:#x}"));
        writeln!(out, "  redistributors at {:#x}, {:#x} bytes{stride}", region.base, region.size)?;
    }
    Ok(())
}

/// Prints a table, unless it is empty.
fn print_rows(out: &mut Output, rows: Rows) -> io::Result<()> {
    if rows.rows.is_empty() { Ok(()) } else { writeln!(out, "{}", Table::from(rows)) }
}

/// Names the controllers whose memory accesses firmware states to be not coherent, whatever their
/// registers say.
fn print_coherence(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let gic = inspection.gic.iter().map(|gic| (&gic.id, gic.coherence));
    let controllers = inspection.controllers.iter().map(|one| (&one.id, one.coherence));
    let stated = gic.chain(controllers).filter(|(_, of)| *of == coherence(Coherence::NonCoherent));
    let names: Vec<_> = stated.map(|(id, _)| id).collect();
    if names.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", wrapped(&format!("not coherent with the caches: {}", first_names(&names))))
}
