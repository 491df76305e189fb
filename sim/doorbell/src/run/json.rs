//! JSON output of a run, for programs.

use crate::cli::RunArgs;
use doorbell_machine::{DeviceReport, Report};
use gic_firmware::Finding;
use serde_json::{Value, json};

/// Creates the document about `machine`.
pub(super) fn document(
    machine: &str,
    report: &Report,
    args: &RunArgs,
    errors: &[Finding],
) -> Value {
    let mut totals = json!(report.totals);
    totals["omitted"] = json!(report.omitted.len());
    totals["send_to_handler"] = json!(report.latency());
    // A simulation's times differ from those of a real machine.
    let time = report.nanoseconds_per_message().filter(|_| !args.workload.simulate);
    json!({
        "machine": machine,
        "model": report.machine,
        "cpus": report.cpus,
        "seed": args.workload.seed,
        "simulated": args.workload.simulate,
        "controllers": report.controllers,
        "devices": report.devices.iter().map(|one| device(report, one)).collect::<Vec<_>>(),
        "omitted": report.omitted,
        "totals": totals,
        "notes": report.notes,
        "lint_errors": errors.iter().map(lint_error).collect::<Vec<_>>(),
        "nanoseconds_per_message": time,
    })
}

fn device(report: &Report, device: &DeviceReport) -> Value {
    let mut row = json!({
        "id": device.id,
        "kind": device.kind.to_string(),
        "controller": device.controller,
        "requester_id": device.requester_id.map(u32::from),
        "device_id": device.device_id.get(),
        "isolation": device.isolation.to_string(),
        "refused": device.refused,
        "useful_minimum": device.useful_minimum,
        "send_to_handler": device.latency,
        "vectors": device.vectors,
    });
    // Isolated from other devices, but not from these.
    let shares: Vec<_> = report.one_group_with(device).collect();
    if !shares.is_empty() {
        row["shares_device_id_with"] = json!(shares);
    }
    row
}

fn lint_error(finding: &Finding) -> Value {
    json!({
        "rule": finding.rule.name(),
        "code": finding.rule.code().to_string(),
        "where": finding.origin.to_string(),
        "message": finding.message,
    })
}
