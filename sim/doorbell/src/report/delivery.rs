//! A run's result, as shown on the page.

use super::heat_map::HeatMap;
use super::latency_plot::{LatencyPlot, TimeScale};
use crate::run::{device_outcome, disturbances, faults, omissions, run_verdict};
use doorbell_machine::{Report, Totals};

/// The result of a run.
#[derive(Debug)]
pub(super) struct Delivery<'r> {
    pub(super) is_clean: bool,
    pub(super) verdict: String,
    /// Hosts and devices that were left out, with one sentence for each reason.
    pub(super) omitted: Vec<String>,
    pub(super) cpus: usize,
    /// Counts of faults. If a count exceeds 0, the run is not clean.
    pub(super) faults: Vec<Count>,
    pub(super) counts: Vec<Count>,
    pub(super) devices: Vec<DeviceLine<'r>>,
    /// `true` if the run measured latencies.
    pub(super) is_timed: bool,
    pub(super) notes: &'r [String],
    pub(super) heat_map: HeatMap,
}

/// A number with its label.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) number: u64,
    pub(super) what: &'static str,
}

/// A device that took part in the run.
#[derive(Debug)]
pub(super) struct DeviceLine<'r> {
    pub(super) id: &'r str,
    pub(super) kind: String,
    pub(super) device_id: String,
    pub(super) vectors: usize,
    pub(super) isolation: String,
    /// Plot of the times from the device's writes to its handlers, if they were measured.
    pub(super) latency: Option<LatencyPlot>,
    pub(super) verdict: String,
}

impl<'r> Delivery<'r> {
    /// Extracts the result from `report`.
    pub(super) fn of(report: &'r Report) -> Self {
        let Totals { vectors, sent, delivered, coalesced, redelivered, moves, .. } = report.totals;
        let scale = TimeScale::of(report);
        Self {
            is_clean: report.totals.is_clean(),
            verdict: run_verdict(report),
            omitted: omissions(report),
            cpus: report.cpus,
            faults: counts(&faults(&report.totals).map(|(number, what, _)| (number, what))),
            counts: counts(&[
                (vectors, "vectors"),
                (sent, "messages sent"),
                (delivered, "delivered"),
                (coalesced, "coalesced"),
                (redelivered, "redelivered"),
                (moves, "affinity moves"),
            ])
            .into_iter()
            .chain(
                counts(&disturbances(&report.totals)).into_iter().filter(|count| count.number > 0),
            )
            .collect(),
            devices: report.devices.iter().map(|it| DeviceLine::of(it, scale)).collect(),
            is_timed: scale.is_some(),
            notes: &report.notes,
            heat_map: HeatMap::of(report),
        }
    }
}

impl<'r> DeviceLine<'r> {
    fn of(device: &'r doorbell_machine::DeviceReport, scale: Option<TimeScale>) -> Self {
        let latency = device.latency.as_ref().zip(scale);
        Self {
            id: &device.id,
            kind: device.kind.to_string(),
            device_id: device.device_id.to_string(),
            vectors: device.vectors.len(),
            isolation: device.isolation.to_string(),
            latency: latency.map(|(latency, scale)| LatencyPlot::of(latency, scale)),
            verdict: match &device.refused {
                Some(reason) => format!("refused: {reason}"),
                None => device_outcome(device),
            },
        }
    }
}

fn counts(of: &[(u64, &'static str)]) -> Vec<Count> {
    of.iter().map(|&(number, what)| Count { number, what }).collect()
}
