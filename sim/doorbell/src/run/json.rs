//! JSON output of a run, for programs.

use super::faults::Faults;
use crate::cli::RunArgs;
use doorbell_machine::{
    ControllerReport, DeviceReport, Latency, Omission, Report, Totals, VectorReport,
};
use gic_firmware::Finding;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Document<'a> {
    machine: &'a str,
    model: &'a str,
    cpus: usize,
    seed: u64,
    /// `true` if the run used a single thread and a seeded order.
    simulated: bool,
    controllers: Vec<Controller<'a>>,
    devices: Vec<Device<'a>>,
    /// The enabled hosts and devices whose controller no driver serves.
    omitted: Vec<Omitted<'a>>,
    totals: Sums,
    notes: &'a [String],
    /// Errors that `doorbell lint` finds in the description.
    lint_errors: Vec<LintError<'a>>,
    /// `null` if no message was sent. Also `null` for a simulation, whose times differ from those
    /// of a real machine.
    nanoseconds_per_message: Option<f64>,
}

#[derive(Serialize)]
struct LintError<'a> {
    rule: &'static str,
    #[serde(rename = "where")]
    place: String,
    message: &'a str,
}

#[derive(Serialize)]
struct Omitted<'a> {
    id: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Controller<'a> {
    id: &'a str,
    kind: &'a str,
    doorbells: &'a [u64],
    isolates: bool,
    driven: bool,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "`device_id` is the name in the contract")]
struct Device<'a> {
    id: &'a str,
    kind: String,
    controller: &'a str,
    requester_id: Option<u32>,
    device_id: u32,
    isolation: String,
    /// Devices that share a DeviceID. The devices are isolated from other devices, but not from
    /// each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shares_device_id_with: Vec<&'a str>,
    /// The reason why the device sends no messages; `null` if it sends messages.
    refused: Option<&'a str>,
    /// Minimum number of vectors that the device needs to be useful.
    useful_minimum: u16,
    /// Times from the device's writes to its handlers; `null` if no handler found a message, or if
    /// the run was a simulation.
    send_to_handler: Option<Percentiles>,
    vectors: Vec<Vector>,
}

/// Percentiles, in nanoseconds, over all messages that handlers found.
#[derive(Serialize)]
struct Percentiles {
    messages: u64,
    p50: u64,
    p99: u64,
}

#[derive(Serialize)]
struct Vector {
    irq: u32,
    hwirq: u32,
    cpu: u32,
    sent: u64,
    delivered: u64,
    coalesced: u64,
    /// `true` if the handler did not run for the last message.
    lost: bool,
    spurious: u64,
    wrong_cpu: u64,
}

#[derive(Serialize)]
struct Sums {
    vectors: u64,
    sent: u64,
    delivered: u64,
    coalesced: u64,
    redelivered: u64,
    lost: u64,
    spurious: u64,
    wrong_cpu: u64,
    refused: u64,
    short: u64,
    guest_faults: u64,
    no_doorbell: u64,
    /// Number of enabled hosts and devices whose controller no driver serves.
    omitted: usize,
    moves: u64,
    replugged: u64,
    readded: u64,
    suspended: u64,
    migrated: u64,
    migrated_in_flight: u64,
    /// Times from the writes of all devices to their handlers; `null` under the same conditions as
    /// for a device.
    send_to_handler: Option<Percentiles>,
}

impl<'a> Document<'a> {
    /// Creates the document for `machine` from `report`.
    pub(super) fn of(
        machine: &'a str,
        report: &'a Report,
        args: &RunArgs,
        faults: &'a Faults<'_>,
    ) -> Self {
        let lint_errors = faults.findings.iter().map(LintError::of).collect();
        Self {
            lint_errors,
            machine,
            model: &report.machine,
            cpus: report.cpus,
            seed: args.workload.seed,
            simulated: args.workload.simulate,
            controllers: report.controllers.iter().map(Controller::of).collect(),
            devices: report.devices.iter().map(|device| Device::of(report, device)).collect(),
            omitted: report.omitted.iter().map(Omitted::of).collect(),
            totals: Sums::of(report),
            notes: &report.notes,
            nanoseconds_per_message: report
                .nanoseconds_per_message()
                .filter(|_| !args.workload.simulate),
        }
    }
}

impl<'a> LintError<'a> {
    fn of(finding: &'a Finding) -> Self {
        let place = finding.origin.to_string();
        Self { rule: finding.rule.name(), place, message: &finding.message }
    }
}

impl<'a> Omitted<'a> {
    fn of(omission: &'a Omission) -> Self {
        Self { id: &omission.id, reason: &omission.reason }
    }
}

impl<'a> Controller<'a> {
    fn of(controller: &'a ControllerReport) -> Self {
        Self {
            id: &controller.id,
            kind: &controller.kind,
            doorbells: &controller.doorbells,
            isolates: controller.isolates,
            driven: controller.driven,
        }
    }
}

impl<'a> Device<'a> {
    fn of(report: &'a Report, device: &'a DeviceReport) -> Self {
        Self {
            id: &device.id,
            kind: device.kind.to_string(),
            controller: &device.controller,
            requester_id: device.requester_id.map(u32::from),
            device_id: device.device_id.get(),
            isolation: device.isolation.to_string(),
            shares_device_id_with: report.one_group_with(device).collect(),
            refused: device.refused.as_deref(),
            useful_minimum: device.useful_minimum,
            send_to_handler: device.latency.as_ref().map(Percentiles::of),
            vectors: device.vectors.iter().map(Vector::of).collect(),
        }
    }
}

impl Percentiles {
    fn of(latency: &Latency) -> Self {
        Self { messages: latency.messages, p50: latency.p50, p99: latency.p99 }
    }
}

impl Vector {
    fn of(vector: &VectorReport) -> Self {
        Self {
            irq: vector.irq,
            hwirq: vector.hwirq.get(),
            cpu: vector.cpu.get(),
            sent: vector.sent,
            delivered: vector.delivered,
            coalesced: vector.coalesced,
            lost: vector.lost,
            spurious: vector.spurious,
            wrong_cpu: vector.wrong_cpu,
        }
    }
}

impl Sums {
    fn of(report: &Report) -> Self {
        let totals: &Totals = &report.totals;
        Self {
            vectors: totals.vectors,
            sent: totals.sent,
            delivered: totals.delivered,
            coalesced: totals.coalesced,
            redelivered: totals.redelivered,
            lost: totals.lost,
            spurious: totals.spurious,
            wrong_cpu: totals.wrong_cpu,
            refused: totals.refused,
            short: totals.short,
            guest_faults: totals.guest_faults,
            no_doorbell: totals.no_doorbell,
            omitted: report.omitted.len(),
            moves: totals.moves,
            replugged: totals.replugged,
            readded: totals.readded,
            suspended: totals.suspended,
            migrated: totals.migrated,
            migrated_in_flight: totals.migrated_in_flight,
            send_to_handler: report.latency().as_ref().map(Percentiles::of),
        }
    }
}
