//! Explanations of how far a message gets through the ITS.

use super::routes::{EventRoute, cpu_of};
use super::{Its, TimedOut};
use crate::mmio::MmioExt;
use crate::platform::{GicPlatform, wait_until};
use gic_arch::{Lpi, gits};
use msi_types::DeviceId;
use msi_types::explain::{Explanation, Fact, Obstacle};

/// Explains how far an LPI's message gets. `sender` is the device's DeviceID, if known. The
/// tables in memory are not examined, because their format is IMPLEMENTATION DEFINED.
///
/// Context: task; may sleep.
pub(super) fn explain<P: GicPlatform>(
    its: &Its<P>,
    lpi: Lpi,
    sender: Option<DeviceId>,
) -> Explanation {
    let Some(route) = its.routes.of(lpi) else {
        let interrupt = lpi.intid().hwirq();
        let obstacle = match its.gic.lpis().config(lpi) {
            Ok(_) => Obstacle::NoEvent { interrupt },
            Err(_) => Obstacle::NoSuchInterrupt { interrupt },
        };
        return Explanation::stopped(obstacle);
    };
    let doorbell = Fact::Doorbell(its.doorbell_of(route.device));
    let delivery = its.gic.explain_lpi(lpi, cpu_of(route.collection)).with_fact(doorbell);
    let obstacles = untranslated(its, route, sender);
    let event = obstacles.iter().all(Option::is_none).then(|| Fact::Event {
        device: route.device,
        event: route.event_id(),
        interrupt: lpi.intid().hwirq(),
    });
    delivery.with_obstacles(&obstacles).with_facts(&[event])
}

/// Returns the obstacles that keep the ITS from translating messages for this event.
fn untranslated<P: GicPlatform>(
    its: &Its<P>,
    route: EventRoute,
    sender: Option<DeviceId>,
) -> [Option<Obstacle>; 3] {
    let is_enabled = its.frame.registers.read(gits::CTLR).enabled();
    let disabled = Obstacle::ItsDisabled { its: its.frame.base };
    let (expected, actual) = (route.device, sender.filter(|actual| *actual != route.device));
    // An ITS that is disabled executes no commands, so don't wait for it.
    let stuck = || is_enabled.then(|| stuck_commands(its)).flatten();
    [
        (!is_enabled).then_some(disabled),
        actual.map(|actual| Obstacle::WrongDevice { expected, actual }),
        foreign_memory(its).or_else(stuck),
    ]
}

/// Returns an obstacle if a register no longer names the driver's table or queue.
fn foreign_memory<P: GicPlatform>(its: &Its<P>) -> Option<Obstacle> {
    let tables = its.state.with(its.platform(), |state| {
        let collections = state.collection_table.as_ref();
        let devices = state.devices.table.obstacle(&its.frame);
        devices.or_else(|| collections.and_then(|table| table.obstacle(&its.frame)))
    });
    tables.or_else(|| its.queue.obstacle(&its.frame))
}

/// Returns an obstacle if the queue is not empty and the ITS makes no progress within the
/// platform's time limit.
fn stuck_commands<P: GicPlatform>(its: &Its<P>) -> Option<Obstacle> {
    let registers = &its.frame.registers;
    let position = || (registers.read(gits::CREADR), registers.read(gits::CWRITER));
    let (first, mut write) = position();
    let mut read = first;
    let progress = wait_until(&**its.gic.platform(), "GITS_CREADR", || {
        (read, write) = position();
        read.slot() == write.slot() || read.slot() != first.slot()
    });
    let Err(TimedOut(_)) = progress else { return None };
    let read = read.offset() | u32::from(read.stalled());
    Some(Obstacle::CommandsQueued { read, write: write.offset() })
}
