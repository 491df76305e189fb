//! Text output of a run for people: one screen, followed by the vectors if requested.

use crate::cli::RunArgs;
use crate::print::{Output, duration, emphasized, width, wrapped};
use crate::table::Table;
use crate::wording::counted;
use doorbell_inspection::inspect::{addresses, first_names, yes_no};
use doorbell_machine::{DeviceReport, Isolation, Latency, Omission, Report, Totals, VectorReport};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Minimum width of a device name in characters, when there is also a column per CPU.
const NAME: usize = 24;

/// Prints a report.
pub(super) fn print(
    out: &mut Output,
    machine: &str,
    report: &Report,
    args: &RunArgs,
) -> io::Result<()> {
    write!(out, "{machine}: {}, {}", report.machine, counted(report.cpus, "CPU"))?;
    if args.workload.simulate {
        write!(out, ", simulated with seed {}", args.workload.seed)?;
    }
    writeln!(out, "\n\n{}\n", controllers(report))?;
    let mut reasons = Reasons::default();
    writeln!(out, "{}\n", devices(report, &mut reasons))?;
    for (number, reason) in (1..).zip(&reasons.0) {
        writeln!(out, "{}", wrapped(&format!("[{number}] {reason}")))?;
    }
    if args.vectors {
        writeln!(out, "\n{}\n", interrupts(report, width()))?;
        if report.latency().is_some() {
            writeln!(out, "{}\n", latencies(report))?;
        }
    }
    for note in &report.notes {
        writeln!(out, "{}", wrapped(&format!("note: {note}")))?;
    }
    for omission in omissions(report) {
        writeln!(out, "{}", wrapped(&format!("omitted: {omission}")))?;
    }
    print_totals(out, report)?;
    print_latency(out, report)
}

/// Names the hosts and devices that were left out, with one sentence for each reason.
pub(crate) fn omissions(report: &Report) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Omission { id, reason, .. } in &report.omitted {
        by_reason.entry(reason).or_default().push(id);
    }
    by_reason.iter().map(|(reason, names)| format!("{}: {reason}", first_names(names))).collect()
}

fn controllers(report: &Report) -> Table {
    let header = ["controller", "kind", "doorbell", "isolates", "driven"];
    let mut rows = Table::new(header).with_identifiers([0, 1]);
    for controller in &report.controllers {
        rows.row([
            &controller.id,
            &controller.kind,
            &addresses(&controller.doorbells),
            yes_no(controller.isolates),
            yes_no(controller.driven),
        ]);
    }
    rows
}

fn devices(report: &Report, reasons: &mut Reasons) -> Table {
    let header =
        ["device", "kind", "requester", "DeviceID", "vectors", "isolated", "controller", "verdict"];
    let mut rows = Table::new(header).with_identifiers([0, 6]);
    let mut groups = Groups::default();
    for device in &report.devices {
        let requester = device.requester_id.map_or_else(String::new, |id| id.to_string());
        let isolated = match device.isolation {
            Isolation::Isolated(_) => groups.mark(report, device),
            isolation @ Isolation::NotIsolated(_) => {
                format!("no {}", reasons.mark(&isolation.to_string()))
            }
        };
        rows.row([
            device.id.clone(),
            device.kind.to_string(),
            requester,
            device.device_id.to_string(),
            vectors(device),
            isolated,
            device.controller.clone(),
            verdict(device, reasons),
        ]);
    }
    if !groups.0.is_empty() {
        reasons.0.push(Groups::EXPLANATION.to_owned());
    }
    rows
}

fn vectors(device: &DeviceReport) -> String {
    if device.is_short() {
        return format!("{}, short of {}", device.vectors.len(), device.useful_minimum);
    }
    device.vectors.len().to_string()
}

/// Returns the verdict on a device: the reason why it has no vectors, its faults, or that it is
/// clean.
fn verdict(device: &DeviceReport, reasons: &mut Reasons) -> String {
    match &device.refused {
        Some(reason) => format!("refused {}", reasons.mark(reason)),
        None => outcome(device),
    }
}

/// Returns the verdict on a device that has its vectors: its faults, or that it is clean.
pub(crate) fn outcome(device: &DeviceReport) -> String {
    let mut faults = faults_of(&device.vectors);
    if device.is_short() {
        faults.push("short".to_owned());
    }
    if faults.is_empty() { "clean".to_owned() } else { faults.join(", ") }
}

/// Returns the faults of vectors, each with its number.
fn faults_of(vectors: &[VectorReport]) -> Vec<String> {
    let sum = |count: fn(&VectorReport) -> u64| vectors.iter().map(count).sum();
    let faults: [(u64, &str); 3] = [
        (sum(|vector| u64::from(vector.lost)), "lost"),
        (sum(|vector| vector.spurious), "spurious"),
        (sum(|vector| vector.wrong_cpu), "wrong CPU"),
    ];
    let faults = faults.iter().filter(|(count, _)| *count != 0);
    faults.map(|(count, what)| format!("{what} {count}")).collect()
}

/// The distinct reasons, in order of their first occurrence.
#[derive(Default)]
struct Reasons(Vec<String>);

impl Reasons {
    /// Returns the mark that refers to this reason.
    fn mark(&mut self, reason: &str) -> String {
        format!("[{}]", number_in(&mut self.0, reason.to_owned()))
    }
}

/// Returns the number of an item, counted from 1, in the order of their first occurrence.
fn number_in<T: PartialEq>(items: &mut Vec<T>, item: T) -> usize {
    let known = items.iter().position(|known| *known == item);
    known.unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    }) + 1
}

/// Devices that share a DeviceID, indexed by controller and DeviceID.
#[derive(Default)]
struct Groups<'a>(Vec<(&'a str, u32)>);

impl<'a> Groups<'a> {
    const EXPLANATION: &'static str = "devices of a group share a DeviceID: each is isolated from \
                                       other devices, but not from its group";

    /// Returns an isolated device's group, or `yes` if it is the only member.
    fn mark(&mut self, report: &Report, device: &'a DeviceReport) -> String {
        if report.one_group_with(device).next().is_none() {
            return "yes".to_owned();
        }
        let group = (device.controller.as_str(), device.device_id.get());
        format!("group {}", number_in(&mut self.0, group))
    }
}

/// Renders a table like Linux's `/proc/interrupts`. Omits the columns for CPUs if they don't fit
/// the terminal.
fn interrupts(report: &Report, width: Option<usize>) -> String {
    let by_cpu = interrupt_table(report, PerCpu::Columns);
    if width.is_none_or(|width| by_cpu.fits(width, NAME)) {
        return by_cpu.render(width);
    }
    interrupt_table(report, PerCpu::Summary).render(width)
}

/// Format of a vector's handler runs on each CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PerCpu {
    Columns,
    Summary,
}

fn interrupt_table(report: &Report, form: PerCpu) -> Table {
    let mut header = vec!["IRQ".to_owned()];
    match form {
        PerCpu::Columns => header.extend((0..report.cpus).map(|cpu| format!("CPU{cpu}"))),
        PerCpu::Summary => header.extend(["runs", "on CPUs"].map(str::to_owned)),
    }
    let numbers = header.len();
    header.extend(["INTID", "now at", "device"].map(str::to_owned));
    let mut rows = Table::new(header).with_numbers_first(numbers).with_identifiers([numbers + 2]);
    for device in &report.devices {
        for (index, vector) in device.vectors.iter().enumerate() {
            rows.row(interrupt(device, index, vector, report.cpus, form));
        }
    }
    rows
}

fn interrupt(
    device: &DeviceReport,
    index: usize,
    vector: &VectorReport,
    cpus: usize,
    form: PerCpu,
) -> Vec<String> {
    let runs = |cpu: usize| vector.per_cpu.get(cpu).copied().unwrap_or(0);
    let mut row = vec![format!("{}:", vector.irq)];
    match form {
        PerCpu::Columns => row.extend((0..cpus).map(|cpu| runs(cpu).to_string())),
        PerCpu::Summary => {
            let on = (0..cpus).filter(|&cpu| runs(cpu) != 0).count();
            row.extend([vector.delivered.to_string(), on.to_string()]);
        }
    }
    row.extend([
        vector.hwirq.to_string(),
        format!("CPU{}", vector.cpu),
        format!("{}-{index}", device.id),
    ]);
    row
}

/// Returns the verdict on a run, such as `clean, 2 omitted`.
pub(crate) fn run_verdict(report: &Report) -> String {
    let verdict = if report.totals.is_clean() { "clean" } else { "not clean" };
    match report.omitted.len() {
        0 => verdict.to_owned(),
        count => format!("{verdict}, {count} omitted"),
    }
}

fn print_totals(out: &mut Output, report: &Report) -> io::Result<()> {
    let totals = &report.totals;
    let Totals { vectors, sent, delivered, coalesced, redelivered, moves, .. } = *totals;
    writeln!(out, "verdict: {}", emphasized(&run_verdict(report), totals.is_clean()))?;
    let mut disturbances = vec![counted(vectors, "vector"), counted(moves, "affinity move")];
    let disturbed = self::disturbances(totals).into_iter().filter(|(number, _)| *number > 0);
    disturbances.extend(disturbed.map(|(number, what)| format!("{number} {what}")));
    writeln!(out, "{}", wrapped(&disturbances.join(", ")))?;
    let messages = format!(
        "{} sent: {delivered} delivered (each ran a handler), {coalesced} coalesced (their \
         interrupt was pending already; one run serves both)",
        counted(sent, "message")
    );
    writeln!(out, "{}", wrapped(&messages))?;
    writeln!(out, "{} redelivered (resent by a driver)", counted(redelivered, "interrupt"))?;
    print_faults(out, totals)
}

/// Returns the numbers of disturbances, each with what it counts.
pub(crate) fn disturbances(totals: &Totals) -> [(u64, &'static str); 5] {
    let named = |number: u64, one, several| (number, if number == 1 { one } else { several });
    [
        named(totals.replugged, "CPU replugged", "CPUs replugged"),
        named(totals.readded, "device removed and added again", "devices removed and added again"),
        named(totals.suspended, "suspension", "suspensions"),
        named(totals.migrated, "migration", "migrations"),
        named(
            totals.migrated_in_flight,
            "migration with a request in flight",
            "migrations with a request in flight",
        ),
    ]
}

/// Returns the counts of faults, each with its name and its meaning. If one exceeds 0, the run is
/// not clean.
pub(crate) const fn faults(totals: &Totals) -> [(u64, &'static str, &'static str); 7] {
    [
        (totals.lost, "lost", "vectors whose handler never saw the last message"),
        (totals.spurious, "spurious", "interrupts that no message accounts for"),
        (totals.wrong_cpu, "wrong CPU", "handler runs on a CPU that was not the target"),
        (totals.refused, "refused", "devices without vectors"),
        (totals.short, "short", "devices with fewer vectors than they need"),
        (totals.guest_faults, "guest faults", "mistakes of the drivers that the model noticed"),
        (totals.no_doorbell, "no doorbell", "messages to an address that nothing decodes"),
    ]
}

/// Prints the counts of faults, each with its meaning.
fn print_faults(out: &mut Output, totals: &Totals) -> io::Result<()> {
    let faults = faults(totals);
    let (found, absent): (Vec<_>, Vec<_>) = faults.iter().partition(|(number, ..)| *number > 0);
    for (number, name, meaning) in found {
        let count = emphasized(&format!("{name} {number}"), false);
        writeln!(out, "{count} ({meaning})")?;
    }
    let absent: Vec<_> = absent.iter().map(|(_, name, _)| format!("{name} 0")).collect();
    if absent.is_empty() { Ok(()) } else { writeln!(out, "{}", absent.join(", ")) }
}

/// Renders the times from each device's writes to its handlers.
fn latencies(report: &Report) -> Table {
    let mut rows = Table::new(["device", "handled messages", "p50", "p99"]).with_identifiers([0]);
    for device in &report.devices {
        if let Some(Latency { messages, p50, p99, .. }) = &device.latency {
            let times = [p50, p99].map(|time| duration(*time));
            let [p50, p99] = times;
            rows.row([device.id.clone(), messages.to_string(), p50, p99]);
        }
    }
    rows
}

/// Prints the times from the devices' writes to their handlers, if they were measured.
fn print_latency(out: &mut Output, report: &Report) -> io::Result<()> {
    let Some(all) = report.latency() else { return Ok(()) };
    let (p50, p99) = (duration(all.p50), duration(all.p99));
    writeln!(out, "send to handler: p50 {p50}, p99 {p99}")
}
