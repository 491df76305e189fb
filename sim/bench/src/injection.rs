//! The path from a device's message to the vCPU that takes the interrupt.

use super::floors::{self, EventFd};
use super::model::{EventMapping, LPIS, MeasuredGic, NOTHING, NoKick, take};
use crate::probe::{Fallible, MeasureError, Probe, each, named};
use msi_types::{Cpu, Delivery, Kick};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vgic::{Sleep, Vcpu};

const REPEATS: u32 = 4096;
/// Name of the case.
pub(crate) const KICK: &str = "kick-asleep";

fn model(mapping: EventMapping) -> Fallible<(MeasuredGic, Vec<Vcpu>)> {
    MeasuredGic::mapped(mapping, 1, Arc::new(NoKick))
}

/// Returns the probe with this name.
type Case = fn(&'static str) -> Fallible<Probe>;

/// Returns all probes that don't need an operating system.
pub(crate) fn probes() -> Result<Vec<Probe>, MeasureError> {
    let cases: [(_, Case); 5] = [
        ("inject-1", inject_one),
        ("inject-1-fresh", inject_fresh),
        ("inject-64k-random", inject_random),
        ("inject-ack-depth-1", |name| depth(name, 1)),
        ("inject-ack-depth-57k", |name| depth(name, LPIS)),
    ];
    cases.into_iter().map(|(name, probe)| named(name, probe(name))).collect()
}

fn timed(operations: u32, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    each(start.elapsed(), operations)
}

fn empty(vcpu: &mut Vcpu) {
    while take(vcpu) != NOTHING {}
}

fn unless_pending(delivered: Delivery) -> Fallible<()> {
    if delivered == Delivery::Pending {
        Ok(())
    } else {
        Err(format!("a message was {delivered:?}").into())
    }
}

fn inject_one(name: &'static str) -> Fallible<Probe> {
    let (model, _vcpus) = model(EventMapping::new(1, 1))?;
    Ok(Probe::new(name, floors::TRANSLATE, move || {
        unless_pending(model.send(0, 0))?;
        Ok(timed(REPEATS, || {
            for _ in 0..REPEATS {
                model.send(0, 0);
            }
        }))
    }))
}

fn inject_fresh(name: &'static str) -> Fallible<Probe> {
    let (model, mut vcpus) = model(EventMapping::new(1, 6))?;
    Ok(Probe::new(name, floors::TRANSLATE_FRESH, move || {
        let vcpu = vcpus.first_mut().ok_or("no vCPU")?;
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
fn inject_random(name: &'static str) -> Fallible<Probe> {
    let mapping = EventMapping::new(2048, 5);
    let (model, mut vcpus) = model(mapping)?;
    let order = floors::random_order(mapping.devices, 1 << mapping.event_bits);
    let count = u32::try_from(order.len()).unwrap_or(u32::MAX);
    Ok(Probe::new(name, floors::TRANSLATE_MANY_FRESH, move || {
        let vcpu = vcpus.first_mut().ok_or("no vCPU")?;
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
fn depth(name: &'static str, pending: u32) -> Fallible<Probe> {
    let mapping = EventMapping::new(LPIS / 32, 5);
    let (model, mut vcpus) = model(mapping)?;
    Ok(Probe::new(name, floors::SEND_TAKE, move || {
        let vcpu = vcpus.first_mut().ok_or("no vCPU")?;
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
pub(crate) fn kick_asleep() -> Fallible<Probe> {
    let kick = Arc::new(EventFdKick(EventFd::new()?));
    let (model, mut vcpus) = MeasuredGic::mapped(EventMapping::new(1, 1), 1, kick)?;
    Ok(Probe::new(KICK, floors::EVENTFD, move || {
        let vcpu = vcpus.first_mut().ok_or("no vCPU")?;
        let (repeats, mut taken) = (256, 0);
        let time = timed(repeats, || {
            for _ in 0..repeats {
                let asleep = vcpu.prepare_to_sleep() == Sleep::Ready;
                model.send(0, 0);
                vcpu.returned();
                taken += u32::from(asleep && take(vcpu) != NOTHING);
            }
        });
        if taken == repeats {
            Ok(time)
        } else {
            Err(format!("{taken} of {repeats} wake-ups").into())
        }
    }))
}
