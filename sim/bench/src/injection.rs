//! The path from a device's message to the vCPU that takes the interrupt.

use super::floors::{self, EventFd};
use super::model::{EventMapping, LPIS, MeasuredGic, NOTHING, NoKick, take};
use crate::probe::{MeasureError, Probe, Reference, across, each};
use msi_types::{Cpu, Delivery, Kick};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use vgic::{Sleep, Vcpu};

const REPEATS: u32 = 4096;
const KICK: &str = "kick-asleep";
/// Name of the case that other cases are compared with.
pub(crate) const INJECT: &str = "inject-1";
/// Devices with 32 events each, which have no nodes in the model, and devices with 2048 events
/// each.
const NARROW: EventMapping = EventMapping::new(2048, 5);
const WIDE: EventMapping = EventMapping::new(32, 11);

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
        inject_random("inject-64k-random", NARROW, InitialState::Idle)?,
        inject_random("inject-64k-random-pending", NARROW, InitialState::Pending)?,
        inject_random("inject-64k-random-wide", WIDE, InitialState::Idle)?,
        two_threads()?,
        another_thread()?,
        priorities()?,
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
    let (model, _vcpus) = model(INJECT, EventMapping::new(1, 1), 1)?;
    Ok(Probe::new(INJECT, Reference::Case(floors::TRANSLATE), move || {
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

/// The state of an event before its message arrives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InitialState {
    Idle,
    Pending,
}

fn inject_random(
    name: &'static str,
    mapping: EventMapping,
    found: InitialState,
) -> Result<Probe, MeasureError> {
    let (model, mut vcpus) = model(name, mapping, 1)?;
    let events = 1u32 << mapping.event_bits;
    let order = floors::random_order(mapping.devices, events);
    let count = mapping.devices * events;
    let of = match found {
        InitialState::Idle => floors::TRANSLATE_MANY_FRESH,
        InitialState::Pending => floors::TRANSLATE_MANY,
    };
    Ok(Probe::new(name, Reference::Case(of), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        match found {
            InitialState::Idle => empty(vcpu),
            InitialState::Pending => {
                order
                    .iter()
                    .try_for_each(|(device, event)| unless_pending(model.send(*device, *event)))?;
            }
        }
        Ok(timed(count, || {
            for (device, event) in &order {
                model.send(*device, *event);
            }
        }))
    }))
}

/// Measures two threads that send messages concurrently. Reports the cost on this thread, whose
/// core has no other active hardware thread.
fn two_threads() -> Result<Probe, MeasureError> {
    let name = "inject-2-threads";
    let (model, _vcpus) = model(name, EventMapping::new(2, 1), 2)?;
    Ok(Probe::new(name, Reference::Case(INJECT), move || {
        let gate = AtomicU32::new(0);
        let run = |device| {
            unless_pending(model.send(device, 0))?;
            gate.fetch_add(1, Ordering::SeqCst);
            while gate.load(Ordering::SeqCst) < 2 {
                std::hint::spin_loop();
            }
            Ok(timed(REPEATS * 4, || {
                for _ in 0..REPEATS * 4 {
                    model.send(device, 0);
                }
            }))
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| run(1));
            let one: Result<f64, String> = run(0);
            other.join().map_err(|_| "the other thread panicked".to_owned())??;
            one
        })
    }))
}

/// Measures messages that a vCPU takes on another thread, which answers each by a flag.
fn another_thread() -> Result<Probe, MeasureError> {
    let name = "send-take-2-threads";
    let (model, mut vcpus) = model(name, EventMapping::new(1, 1), 1)?;
    Ok(Probe::new(name, Reference::Case(floors::SEND_TAKE_ACROSS), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        across(|| _ = model.send(0, 0), || take(vcpu) != NOTHING)
    }))
}

fn priorities() -> Result<Probe, MeasureError> {
    let name = "ack-32-priorities";
    let priority = |event| u8::try_from(event * 8).unwrap_or(0);
    let (model, mut vcpus) = model(name, EventMapping { priority, ..EventMapping::new(1, 5) }, 1)?;
    Ok(Probe::new(name, Reference::Case(floors::SEND_TAKE), move || {
        let Some(vcpu) = vcpus.first_mut() else { return Err("no vCPU".to_owned()) };
        empty(vcpu);
        let (rounds, mut taken) = (REPEATS / 32, 0);
        let time = timed(REPEATS, || {
            for round in 0..rounds {
                for at in 0..32 {
                    model.send(0, (at * 5 + round) % 32);
                }
                while take(vcpu) != NOTHING {
                    taken += 1;
                }
            }
        });
        if taken == REPEATS {
            Ok(time)
        } else {
            Err(format!("{taken} of {REPEATS} interrupts came"))
        }
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
