//! Converts the records of a run into its report.

use crate::disturbance::DisturbanceCounts;
use crate::error::RunError;
use crate::migration::Migrator;
use crate::report::{ControllerReport, DeviceReport, Report, Totals, VectorReport};
use crate::system::{Device, Driver, System};
use doorbell_hardware::hyperv::MESSAGE_ADDRESS;
use gic_firmware::{Controller, ControllerIndex, ControllerKind};
use irq_domain::Irq;
use msi_types::{Cpu, HwIrq, Isolation, NotIsolated};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Counts the migrations and returns the verdict, unless a migration or a driver failed silently.
/// Must only be called while no messages are in flight.
pub(crate) fn concluded(
    system: &System,
    mut counts: DisturbanceCounts,
    migrator: Option<&Migrator>,
    elapsed: Duration,
) -> Result<Report, RunError> {
    counts.migrated = migrator.map_or(Ok(0), Migrator::moved).map_err(RunError::NotMoved)?;
    match system.silent_fault() {
        Some(reason) => {
            Err(RunError::Driver { operation: "an unanswered operation".to_owned(), reason })
        }
        None => Ok(verdict(system, counts, elapsed)),
    }
}

/// Ends the trace and adds up the records.
pub(super) fn verdict(system: &System, counts: DisturbanceCounts, elapsed: Duration) -> Report {
    system.records.recorder.iter().for_each(|recorder| recorder.end());
    let mut totals = Totals {
        spurious: system.records.unhandled.spurious.load(Ordering::Relaxed),
        late: system.records.unhandled.late.load(Ordering::Relaxed),
        moves: counts.moves,
        readded: counts.readded,
        replugged: counts.replugged,
        suspended: counts.suspended,
        migrated: counts.migrated,
        migrated_in_flight: system.virtual_bus.as_ref().map_or(0, |bus| bus.migrated_in_flight()),
        guest_faults: system.model.guest_faults(),
        no_doorbell: system.doorbells.unanswered(),
        blocked: system.doorbells.blocked(),
        ..Totals::default()
    };
    let devices =
        system.devices.iter().map(|device| device_report(system, device, &mut totals)).collect();
    Report {
        machine: system.name.clone(),
        cpus: system.cpus,
        controllers: controllers(system),
        devices,
        totals,
        omitted: system.omitted.clone(),
        notes: system.notes.clone(),
        elapsed,
    }
}

fn controllers(system: &System) -> Vec<ControllerReport> {
    let enabled = system.description.indexed_controllers().filter(|(_, it)| it.status.is_enabled());
    let is_on = |index| system.virtual_bus.as_ref().is_some_and(|bus| bus.controller == index);
    let report = |(index, controller): (ControllerIndex, &Controller)| ControllerReport {
        id: controller.id.to_string(),
        kind: controller.kind.to_string(),
        doorbells: if is_on(index) {
            vec![MESSAGE_ADDRESS]
        } else {
            system.description.doorbells(controller)
        },
        isolates: controller.kind == ControllerKind::Its,
        driven: system.irqchip.controller(index).is_ok() || is_on(index),
    };
    enabled.map(report).collect()
}

fn device_report(system: &System, device: &Device, totals: &mut Totals) -> DeviceReport {
    let places: Vec<_> = device.with_driver(|driver| match driver {
        Driver::Active(_, handles) => {
            handles.iter().map(|it| (it.irq(), it.hwirq(), it.effective_affinity())).collect()
        }
        Driver::Refused(_) | Driver::Attached(..) | Driver::Gone => Vec::new(),
    });
    let vectors = places.into_iter().enumerate();
    let vectors =
        vectors.filter_map(|(index, place)| vector_report(device, index, place, totals)).collect();
    let config = &device.config;
    let controller = system.description.controller(config.controller);
    let nobody = Isolation::NotIsolated(NotIsolated::NoController);
    let never_able =
        || device.is_off().then(|| "never able to send: its messages stay disabled".to_owned());
    let report = DeviceReport {
        id: config.name.clone(),
        kind: device.kind(),
        controller: controller.map(|controller| controller.id.to_string()).unwrap_or_default(),
        requester_id: device.is_pci().then_some(config.requester),
        device_id: config.device_id,
        isolation: device.isolation().unwrap_or(nobody),
        vectors,
        latency: device.latency(),
        useful_minimum: device.useful_minimum(),
        refused: device.refused().or_else(never_able),
    };
    totals.refused += u64::from(report.refused.is_some());
    totals.short += u64::from(report.is_short());
    report
}

fn vector_report(
    device: &Device,
    index: usize,
    (irq, hwirq, cpu): (Irq, HwIrq, Cpu),
    totals: &mut Totals,
) -> Option<VectorReport> {
    let record = &device.vectors().get(index)?.record;
    let counts = record.counts();
    // Resends by the interrupt core need no excuse, because the acknowledgments that they repeat
    // did not lead to a handler run.
    let redelivered = device.redelivered(index) + counts.unknowable;
    let delivered = counts.runs.min(counts.sent);
    totals.vectors += 1;
    totals.sent += counts.sent;
    totals.delivered += delivered;
    totals.coalesced += counts.sent - delivered;
    totals.redelivered += redelivered;
    totals.lost += u64::from(!record.is_settled());
    totals.spurious += counts.spurious;
    totals.wrong_cpu += counts.wrong_cpu;
    totals.late += counts.late;
    Some(VectorReport {
        irq: irq.get(),
        hwirq,
        cpu,
        sent: counts.sent,
        delivered,
        coalesced: counts.sent - delivered,
        redelivered,
        per_cpu: counts.per_cpu,
        lost: !record.is_settled(),
        spurious: counts.spurious,
        wrong_cpu: counts.wrong_cpu,
    })
}
