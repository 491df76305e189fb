//! The path from a device's message to the vCPU that takes the interrupt.

use super::floors::{self, EventFd};
use super::model::{EventMapping, LPIS, MeasuredGic, NOTHING, NoKick, take};
use crate::probe::{MeasureError, Probe, Reference, each};
use msi_types::{Cpu, Delivery, Kick};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vgic::{Sleep, Vcpu};

const REPEATS: u32 = 4096;
const KICK: &str = "kick-asleep";

type GicWithCpus = (Arc<MeasuredGic>, Vec<Vcpu>);

fn model(name: &str, mapping: EventMapping, targets: u16) -> Result<GicWithCpus, MeasureError> {
    made(name, MeasuredGic::mapped(mapping, targets, Arc::new(NoKick)))
}

fn made(
    name: &str,
    model: Result<(MeasuredGic, Vec<Vcpu>), String>,
) -> Result<GicWithCpus, MeasureError> {
    let (model, vcpus) = model.map_err(|reason| MeasureError::Case(name.to_owned(), reason))?;
    Ok((Arc::new(model), vcpus))
}

/// Returns all probes that don't need an operating system.
pub(crate) fn probes() -> Result<Vec<Probe>, MeasureError> {
    Ok(vec![
        inject_one()?,
        inject_fresh()?,
        inject_random()?,
        depth("inject-ack-depth-1", 1)?,
        depth("inject-ack-depth-57k", LPIS)?,
    ])
}

fn timed(operations: u32, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    each(start.elapsed(), operations)
}

fn empty(vcpu: &mut Vcpu) {
    while take(vcpu) != NOTHING {}
}

fn unless_pending(delivered: Delivery) -> Result<(), String> {
    if delivered == Delivery::Pending {
        Ok(())
    } else {
        Err(format!("a message was {delivered:?}"))
    }
}

fn inject_one() -> Result<Probe, MeasureError> {
    let name = "inject-1";
    let (model, _vcpus) = model(name, EventMapping::new(1, 1), 1)?;
    Ok(Probe::new(name, Reference::Case(floors::TRANSLATE), move || {
        unless_pending(model.send(0, 0))?;
        Ok(timed(REPEATS, || {
            for _ in 0..REPEATS {
                model.send(0, 0);
            }
        }))
    }))
}

fn inject_fresh() -> Result<Probe, MeasureError> {
    let name = "inject-1-fresh";
    let (model, mut vcpus) = model(name, EventMapping::new(1, 6), 1)?;
    Ok(Probe::new(name, Reference::Case(floors::TRANSLATE_FRESH), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        let (rounds, events) = (REPEATS / 64, 64);
        let mut spent = Duration::ZERO;
        for _ in 0..rounds {
            empty(vcpu);
            let start = Instant::now();
            for event in 0..events {
                model.send(0, event);
            }
            spent += start.elapsed();
        }
        Ok(each(spent, rounds * events))
    }))
}

/// Measures messages to one of 2048 devices with 32 events each, in random order. None is pending.
fn inject_random() -> Result<Probe, MeasureError> {
    let (name, mapping) = ("inject-64k-random", EventMapping::new(2048, 5));
    let (model, mut vcpus) = model(name, mapping, 1)?;
    let order = floors::random_order(mapping.devices, 1 << mapping.event_bits);
    let count = u32::try_from(order.len()).unwrap_or(u32::MAX);
    Ok(Probe::new(name, Reference::Case(floors::TRANSLATE_MANY_FRESH), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        empty(vcpu);
        Ok(timed(count, || {
            for (device, event) in &order {
                model.send(*device, *event);
            }
        }))
    }))
}

/// Measures acknowledging the highest-priority LPI while `pending` LPIs are pending, and sending
/// its event's message again.
fn depth(name: &'static str, pending: u32) -> Result<Probe, MeasureError> {
    let mapping = EventMapping::new(LPIS / 32, 5);
    let (model, mut vcpus) = model(name, mapping, 1)?;
    Ok(Probe::new(name, Reference::Case(floors::SEND_TAKE), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        (0..pending).try_for_each(|at| unless_pending(model.send(at / 32, at % 32)))?;
        Ok(timed(REPEATS, || {
            for _ in 0..REPEATS {
                let (device, event) = mapping.event_of(take(vcpu));
                model.send(device, event);
            }
        }))
    }))
}

struct EventFdKick(EventFd);

impl Kick for EventFdKick {
    fn kick(&self, _: Cpu) {
        self.0.signal();
    }
}

/// Measures a kick, including the time that the vCPU needs to fall asleep and to take the
/// interrupt.
pub(crate) fn kick_asleep() -> Result<Probe, (&'static str, String)> {
    let file = EventFd::new().map_err(|reason| (KICK, reason))?;
    let model = MeasuredGic::mapped(EventMapping::new(1, 1), 1, Arc::new(EventFdKick(file)));
    let (model, mut vcpus) = model.map_err(|reason| (KICK, reason))?;
    Ok(Probe::new(KICK, Reference::Case(floors::EVENTFD), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        let (repeats, mut taken) = (256, 0);
        let time = timed(repeats, || {
            for _ in 0..repeats {
                let asleep = vcpu.prepare_to_sleep() == Sleep::Ready;
                model.send(0, 0);
                vcpu.returned();
                taken += u32::from(asleep && take(vcpu) != NOTHING);
            }
        });
        if taken == repeats { Ok(time) } else { Err(format!("{taken} of {repeats} wake-ups")) }
    }))
}
