//! The result of a run, for people.

use crate::print::{Output, table};
use comfy_table::{CellAlignment, Table};
use doorbell_machine::{DeviceReport, Report, Totals, VectorReport};
use std::io::{self, Write};

/// Beyond this many CPUs a column for each no longer fits a screen.
const MAX_CPU_COLUMNS: usize = 16;

/// Prints a report.
pub(super) fn print(out: &mut Output, machine: &str, report: &Report) -> io::Result<()> {
    writeln!(out, "{machine}: {}, {} CPUs", report.machine, report.cpus)?;
    writeln!(out)?;
    print_controllers(out, report)?;
    writeln!(out)?;
    print_devices(out, report)?;
    writeln!(out)?;
    writeln!(out, "{}", interrupts(report))?;
    writeln!(out)?;
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    print_totals(out, report)
}

fn print_controllers(out: &mut Output, report: &Report) -> io::Result<()> {
    let mut rows = table(["controller", "kind", "doorbell", "isolates", "driven"]);
    for controller in &report.controllers {
        let doorbells: Vec<String> =
            controller.doorbells.iter().map(|address| format!("{address:#x}")).collect();
        rows.add_row([
            controller.id.as_str(),
            &controller.kind,
            &doorbells.join(" "),
            if controller.isolates { "yes" } else { "no" },
            if controller.driven { "yes" } else { "no" },
        ]);
    }
    writeln!(out, "{rows}")
}

fn print_devices(out: &mut Output, report: &Report) -> io::Result<()> {
    let mut rows =
        table(["device", "kind", "requester", "DeviceID", "vectors", "isolation", "controller"]);
    for device in &report.devices {
        let requester = device.requester_id.map_or_else(String::new, |id| id.to_string());
        let vectors = match &device.refused {
            Some(reason) => format!("refused: {reason}"),
            None if device.is_short() => {
                format!("{}, short of {}", device.vectors.len(), device.useful_minimum)
            }
            None => device.vectors.len().to_string(),
        };
        rows.add_row([
            device.id.as_str(),
            &device.kind.to_string(),
            &requester,
            &device.device_id.to_string(),
            &vectors,
            &isolation(report, device),
            &device.controller,
        ]);
    }
    writeln!(out, "{rows}")
}

/// Says if the device is isolated, and which devices share its DeviceID.
fn isolation(report: &Report, device: &DeviceReport) -> String {
    let others: Vec<&str> = report.one_group_with(device).collect();
    if others.is_empty() {
        return device.isolation.to_string();
    }
    format!("{}, as one group with {}", device.isolation, others.join(", "))
}

/// The table that Linux shows as `/proc/interrupts`.
fn interrupts(report: &Report) -> Table {
    let per_cpu = report.cpus <= MAX_CPU_COLUMNS;
    let mut header = vec!["IRQ".to_owned()];
    if per_cpu {
        header.extend((0..report.cpus).map(|cpu| format!("CPU{cpu}")));
    } else {
        header.extend(["runs".to_owned(), "on CPUs".to_owned()]);
    }
    let numbers = header.len();
    header.extend(["INTID", "now at", "device"].map(str::to_owned));
    let mut rows = table([]);
    rows.set_header(header);
    for device in &report.devices {
        for (index, vector) in device.vectors.iter().enumerate() {
            rows.add_row(interrupt(device, index, vector, report.cpus, per_cpu));
        }
    }
    for column in rows.column_iter_mut().take(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    rows
}

fn interrupt(
    device: &DeviceReport,
    index: usize,
    vector: &VectorReport,
    cpus: usize,
    per_cpu: bool,
) -> Vec<String> {
    let runs = |cpu: usize| vector.per_cpu.get(cpu).copied().unwrap_or(0);
    let mut row = vec![format!("{}:", vector.irq)];
    if per_cpu {
        row.extend((0..cpus).map(|cpu| runs(cpu).to_string()));
    } else {
        let on = (0..cpus).filter(|&cpu| runs(cpu) != 0).count();
        row.extend([vector.delivered.to_string(), on.to_string()]);
    }
    row.extend([
        vector.hwirq.to_string(),
        format!("CPU{}", vector.cpu),
        format!("{}-{index}", device.id),
    ]);
    row
}

fn print_totals(out: &mut Output, report: &Report) -> io::Result<()> {
    let Totals { vectors, sent, delivered, coalesced, redelivered, moves, .. } = report.totals;
    let Totals { lost, spurious, wrong_cpu, refused, short, guest_faults, no_doorbell, .. } =
        report.totals;
    writeln!(out, "{vectors} vectors, {moves} affinity moves")?;
    writeln!(
        out,
        "{sent} messages sent, {delivered} delivered, {coalesced} coalesced, {redelivered} \
         redelivered"
    )?;
    writeln!(out, "lost {lost}, spurious {spurious}, wrong CPU {wrong_cpu}")?;
    writeln!(
        out,
        "refused {refused}, short {short}, guest faults {guest_faults}, no doorbell {no_doorbell}"
    )?;
    if let Some(each) = report.nanoseconds_per_message() {
        writeln!(out, "{each:.0} ns per message, {:.2} s", report.elapsed.as_secs_f64())?;
    }
    Ok(())
}
