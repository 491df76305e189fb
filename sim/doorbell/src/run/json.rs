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
    controllers: &'a [ControllerReport],
    devices: Vec<Device<'a>>,
    /// The enabled hosts and devices whose controller no driver serves.
    omitted: &'a [Omission],
    totals: Sums<'a>,
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
    send_to_handler: Option<&'a Latency>,
    vectors: &'a [VectorReport],
}

#[derive(Serialize)]
struct Sums<'a> {
    #[serde(flatten)]
    totals: &'a Totals,
    /// Number of enabled hosts and devices whose controller no driver serves.
    omitted: usize,
    /// Times from the writes of all devices to their handlers; `null` under the same conditions as
    /// for a device.
    send_to_handler: Option<Latency>,
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
            controllers: &report.controllers,
            devices: report.devices.iter().map(|device| Device::of(report, device)).collect(),
            omitted: &report.omitted,
            totals: Sums {
                totals: &report.totals,
                omitted: report.omitted.len(),
                send_to_handler: report.latency(),
            },
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
            send_to_handler: device.latency.as_ref(),
            vectors: &device.vectors,
        }
    }
}
