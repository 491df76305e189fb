//! Text output of `doorbell live`.

use super::judge::Mode;
use super::report::{DeviceRow, InterruptRow, Report};
use super::root::Root;
use crate::findings;
use crate::print::{Output, wrapped};
use crate::table::Table;
use doorbell_inspection::inspect::yes_no;
use msi_types::explain::Explanation;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

/// Maximum number of CPU lists that are shown for a device.
const MAX_CPUS: usize = 8;

/// Files with the name of the machine, by devicetree or SMBIOS.
const MODELS: [&str; 2] = ["sys/firmware/devicetree/base/model", "sys/class/dmi/id/product_name"];
const RELEASE: &str = "proc/sys/kernel/osrelease";

/// Prints a report.
pub(super) fn print(out: &mut Output, report: &Report) -> io::Result<()> {
    match (&report.gic, &report.firmware) {
        (Some(gic), Some(firmware)) => writeln!(out, "firmware {firmware}: {gic}")?,
        (None, Some(firmware)) => writeln!(out, "firmware {firmware}: describes no GIC")?,
        (_, None) => writeln!(out, "firmware: unknown")?,
    }
    print_controllers(out, report)?;
    print_devices(out, &report.devices)?;
    print_findings(out, &report.devices)?;
    print_notes(out, report)?;
    print_problems(out, report)
}

fn print_notes(out: &mut Output, report: &Report) -> io::Result<()> {
    if report.silent {
        let text = "no message of any function has arrived: firmware may state wrong DeviceIDs, or \
                    ranges that the hardware does not have";
        writeln!(out, "{}", wrapped(text))?;
    }
    for note in &report.notes {
        writeln!(out, "{}", wrapped(&format!("note: {note}")))?;
    }
    Ok(())
}

fn print_controllers(out: &mut Output, report: &Report) -> io::Result<()> {
    if report.controllers.is_empty() {
        return Ok(());
    }
    let mut rows = Table::new(["controller", "kind", "enabled", "used"]).with_identifiers([0, 1]);
    for controller in &report.controllers {
        let enabled = yes_no(controller.enabled);
        let used = controller.used.map_or("unknown", yes_no);
        rows.row([&controller.id, &controller.kind, enabled, used]);
    }
    writeln!(out, "{rows}")
}

fn print_devices(out: &mut Output, devices: &[DeviceRow]) -> io::Result<()> {
    if devices.is_empty() {
        return writeln!(out, "no PCI devices");
    }
    let header =
        ["device", "driver", "controller", "DeviceID", "Linux", "interrupts", "CPUs", "count"];
    let mut rows = Table::new(header).with_identifiers([2]);
    for device in devices {
        let interrupts = &device.linux.interrupts;
        rows.row([
            device.id.clone(),
            device.driver.clone().unwrap_or_else(|| "none".to_owned()),
            controller(device),
            device_id(device),
            mode(device.linux.mode).to_owned(),
            interrupts.len().to_string(),
            cpus(interrupts),
            device.count().to_string(),
        ]);
    }
    writeln!(out, "{rows}")
}

/// Formats the MSI controller that firmware names.
fn controller(device: &DeviceRow) -> String {
    match (&device.firmware.controller, &device.firmware.no_controller) {
        (Some(controller), None) => controller.clone(),
        (Some(controller), Some(_)) => format!("{controller} (unusable)"),
        (None, _) => "none".to_owned(),
    }
}

/// Formats the DeviceID that firmware states, or else, in brackets, the DeviceID that Linux
/// assumes.
fn device_id(device: &DeviceRow) -> String {
    match (device.firmware.device_id, device.linux.assumed_device_id) {
        (Some(id), _) => format!("{id:#x}"),
        (None, Some(id)) => format!("({id:#x})"),
        (None, None) => String::new(),
    }
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Msix => "MSI-X",
        Mode::Msi => "MSI",
        Mode::Intx => "INTx",
        Mode::None => "none",
    }
}

/// Formats the CPUs to which interrupts are routed.
fn cpus(interrupts: &[InterruptRow]) -> String {
    let cpus: BTreeSet<&str> =
        interrupts.iter().filter_map(|one| one.irq.cpus.as_deref()).collect();
    let mut list: Vec<&str> = cpus.iter().copied().take(MAX_CPUS).collect();
    if list.len() < cpus.len() {
        list.push("…");
    }
    list.join(" ")
}

/// Prints each fault with its devices and its fix, and then the differences between firmware and
/// Linux.
fn print_findings(out: &mut Output, devices: &[DeviceRow]) -> io::Result<()> {
    let mut faults = BTreeMap::<_, Vec<&str>>::new();
    for device in devices.iter().filter(|device| device.fault) {
        let lines = findings::lines(&device.explanation, &[]).into_iter();
        let end = lines.skip(device.explanation.facts().count());
        faults.entry(end.collect::<Vec<_>>()).or_default().push(&device.id);
    }
    for (text, devices) in faults {
        writeln!(out, "{}", wrapped(&format!("{}: {}", devices.join(", "), text[..1].concat())))?;
        for line in text.iter().skip(1) {
            writeln!(out, "{}", wrapped(&format!("  {line}")))?;
        }
    }
    for device in devices {
        for difference in &device.differences {
            writeln!(out, "{}", wrapped(&format!("{}: {difference}", device.id)))?;
        }
    }
    Ok(())
}

fn print_problems(out: &mut Output, report: &Report) -> io::Result<()> {
    for problem in &report.problems {
        writeln!(out, "cannot read {}: {}", problem.path, problem.reason)?;
    }
    Ok(())
}

/// Prints the explanation of a device, stage by stage, and a list of the device's interrupts. If no
/// message of the device has arrived, also prints the report's notes.
pub(super) fn explain(out: &mut Output, report: &Report, device: &DeviceRow) -> io::Result<()> {
    let driver = device.driver.as_deref().unwrap_or("none");
    writeln!(out, "{}, driver {driver}, {}", device.id, mode(device.linux.mode))?;
    let firmware = &device.firmware;
    if let Some(controller) = firmware.no_controller.as_ref().or(firmware.controller.as_ref()) {
        writeln!(out, "firmware: requester {:#06x}: {controller}", firmware.requester)?;
    }
    if let (Some(iommu), Some(stream)) = (&firmware.iommu, firmware.stream_id) {
        writeln!(out, "firmware: StreamID {stream:#x} at {iommu}")?;
    }
    print_stages(out, &device.explanation)?;
    if let [line] = &device.linux.interrupts[..]
        && device.linux.mode == Mode::Intx
        && line.explanation != device.explanation
    {
        writeln!(out, "INTx, which Linux uses instead:")?;
        print_stages(out, &line.explanation)?;
    }
    for difference in &device.differences {
        writeln!(out, "{}", wrapped(difference))?;
    }
    if device.messages() == Some(0) {
        print_notes(out, report)?;
    }
    print_interrupts(out, &device.linux.interrupts)
}

/// Prints a line for each silent function.
pub(super) fn print_silent(out: &mut Output, silent: &[&DeviceRow]) -> io::Result<()> {
    for device in silent {
        let reason = match device.explanation.obstacle() {
            Some(obstacle) => format!("{}: {obstacle}", obstacle.stage()),
            None => {
                format!("no obstacle was found; {} interrupts have ever arrived", device.count())
            }
        };
        let driver = device.driver.as_deref().unwrap_or_default();
        writeln!(out, "{}", wrapped(&format!("{} {driver}: {reason}", device.id)))?;
    }
    Ok(())
}

/// Prints a block for a bug report, in Markdown: the machine, the report, and the explanations of
/// its faults.
pub(super) fn paste(out: &mut Output, root: &Root, report: &Report) -> io::Result<()> {
    let model = MODELS.iter().find_map(|file| root.text(file));
    let model = model.as_deref().map_or("an unknown machine", |text| text.trim_end_matches('\0'));
    let linux = root.text(RELEASE).unwrap_or_default();
    writeln!(out, "```text\ndoorbell {}, Linux {linux}, {model}", env!("CARGO_PKG_VERSION"))?;
    print(out, report)?;
    for device in report.devices.iter().filter(|device| device.is_finding()) {
        writeln!(out)?;
        explain(out, report, device)?;
    }
    writeln!(out, "```")
}

fn print_stages(out: &mut Output, explanation: &Explanation) -> io::Result<()> {
    for line in findings::lines(explanation, &[]) {
        writeln!(out, "{}", wrapped(&line))?;
    }
    Ok(())
}

fn print_interrupts(out: &mut Output, interrupts: &[InterruptRow]) -> io::Result<()> {
    if interrupts.is_empty() {
        return Ok(());
    }
    let header = ["IRQ", "chip", "INTID", "CPUs", "count", "stops at", "handlers"];
    let mut rows = Table::new(header).with_identifiers([1]);
    for one in interrupts {
        let stage = one.explanation.obstacle().map(|obstacle| obstacle.stage().to_string());
        rows.row([
            one.number.to_string(),
            one.irq.chip.clone(),
            one.intid.map_or_else(String::new, |intid| intid.to_string()),
            one.irq.cpus.clone().unwrap_or_default(),
            one.irq.count.to_string(),
            stage.unwrap_or_default(),
            one.irq.handlers.join(", "),
        ]);
    }
    writeln!(out, "{rows}")
}
