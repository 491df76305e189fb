//! From the books to the report.

use super::Counts;
use crate::report::{ControllerReport, DeviceReport, Report, Totals, VectorReport};
use crate::system::{Driver, System, Unit};
use gic_firmware::{Controller, ControllerIndex, ControllerKind};
use irq_domain::IrqHandle;
use msi_types::{Isolation, NotIsolated};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Sums everything up. All is quiet.
pub(crate) fn verdict(system: &System, counts: Counts, elapsed: Duration) -> Report {
    let mut totals = Totals {
        spurious: system.books.unclaimed.spurious.load(Ordering::Relaxed),
        late: system.books.unclaimed.late.load(Ordering::Relaxed),
        moves: counts.moves,
        readded: counts.readded,
        replugged: counts.replugged,
        migrated: counts.migrated,
        guest_faults: system.model.guest_faults(),
        no_doorbell: system.doorbells.unanswered(),
        blocked: system.doorbells.blocked(),
        ..Totals::default()
    };
    let devices = system.units.iter().map(|unit| device(system, unit, &mut totals)).collect();
    Report {
        machine: system.name.clone(),
        cpus: system.cpus,
        controllers: controllers(system),
        devices,
        totals,
        notes: system.notes.clone(),
        elapsed,
    }
}

fn controllers(system: &System) -> Vec<ControllerReport> {
    let enabled = system.description.indexed_controllers().filter(|(_, it)| it.status.is_enabled());
    let report = |(index, controller): (ControllerIndex, &Controller)| ControllerReport {
        id: controller.id.to_string(),
        kind: controller.kind.to_string(),
        doorbells: system.description.doorbells(controller),
        isolates: controller.kind == ControllerKind::Its,
        driven: system.controllers.drives(index),
    };
    enabled.map(report).collect()
}

fn device(system: &System, unit: &Unit, totals: &mut Totals) -> DeviceReport {
    let places = unit.with_driver(|driver| match driver {
        Driver::Active(_, handles) => handles.iter().map(Place::of).collect(),
        Driver::Refused(_) | Driver::Attached(..) | Driver::Gone => Vec::new(),
    });
    let vectors = places.into_iter().enumerate();
    let vectors = vectors.filter_map(|(index, place)| vector(unit, index, place, totals)).collect();
    let config = &unit.config;
    let controller = system.description.controller(config.controller);
    let nobody = Isolation::NotIsolated(NotIsolated::NoController);
    let never_able = || unit.is_off().then(|| "never able to send: its messages stay off".to_owned());
    let report = DeviceReport {
        id: config.name.clone(),
        kind: unit.kind(),
        controller: controller.map(|controller| controller.id.to_string()).unwrap_or_default(),
        requester_id: unit.is_pci().then_some(config.requester),
        device_id: config.device_id,
        isolation: unit.isolation().unwrap_or(nobody),
        vectors,
        useful_minimum: unit.useful_minimum(),
        refused: unit.refused().or_else(never_able),
    };
    totals.refused += u64::from(report.refused.is_some());
    totals.short += u64::from(report.is_short());
    report
}

/// Where a vector is at the end.
#[derive(Clone, Copy)]
struct Place {
    irq: u32,
    hwirq: msi_types::Vector,
    cpu: msi_types::Cpu,
}

impl Place {
    fn of(handle: &IrqHandle) -> Self {
        Self { irq: handle.irq().get(), hwirq: handle.vector(), cpu: handle.effective_affinity() }
    }
}

fn vector(unit: &Unit, index: usize, place: Place, totals: &mut Totals) -> Option<VectorReport> {
    let ledger = &unit.vectors().get(index)?.ledger;
    let sums = ledger.sums();
    // What the interrupt core sent again had been taken without a run: it excuses none.
    let redelivered = unit.redelivered(index) + sums.unknowable;
    let delivered = sums.runs.min(sums.sent);
    totals.vectors += 1;
    totals.sent += sums.sent;
    totals.delivered += delivered;
    totals.coalesced += sums.sent - delivered;
    totals.redelivered += redelivered;
    totals.lost += u64::from(!ledger.is_settled());
    totals.spurious += sums.spurious;
    totals.wrong_cpu += sums.wrong_cpu;
    totals.late += sums.late;
    Some(VectorReport {
        irq: place.irq,
        hwirq: place.hwirq,
        cpu: place.cpu,
        sent: sums.sent,
        delivered,
        coalesced: sums.sent - delivered,
        redelivered,
        per_cpu: sums.per_cpu,
    })
}
