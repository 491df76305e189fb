//! A machine of a given size, and the cost of operations on it.

use super::size::Size;
use crate::model::{
    EventMapping, GicSize, MeasuredGic, NOTHING, NoKick, map_device, map_event, take,
};
use crate::probe::each;
use gic_arch::its::{Command, MapAction};
use msi_types::{Delivery, DeviceId, EventId};
use std::sync::Arc;
use std::time::Instant;
use vgic::{Vcpu, Vgic, VgicConfig};

/// Maximum number of devices per ITS. The devices of an ITS with more than 65,536 events have more
/// than 32 events each.
const MOST_DEVICES: u32 = 2048;
/// Number of repetitions. The repetition with the lowest cost is reported, because it was disturbed
/// least.
const TURNS: u32 = 9;
/// Number of operations timed together.
const REPEATS: u32 = 4096;
/// First DeviceID after the machine's own devices. Each additional device has 32 events, which fill
/// one chunk of entries in the model.
const FURTHER_DEVICE: u32 = 4096;
const FURTHER_DEVICES: u32 = 64;
const FURTHER_EVENTS: u32 = 32;
const FIRST_LPI: u32 = 8192;

/// Costs by operation, in nanoseconds.
type Costs = Vec<(&'static str, f64)>;

/// A machine with all events mapped.
pub(super) struct GrownGic {
    gic: MeasuredGic,
    vcpus: Vec<Vcpu>,
    size: GicSize,
    its: usize,
    mapping: EventMapping,
    targets: u16,
}

fn gic_size(size: Size) -> Result<GicSize, String> {
    let small = |number: u32| u16::try_from(number).map_err(|error| error.to_string());
    // The budget must include the events of the additional devices.
    let budget = (size.events * 2).max(1 << 17);
    // The number of INTID bits must be large enough for a separate LPI per event.
    let bits = (size.events + FIRST_LPI - 1).ilog2() + 1;
    let lpi_id_bits = u8::try_from(bits.max(16)).map_err(|error| error.to_string())?;
    Ok(GicSize { vcpus: small(size.vcpus)?, its: small(size.its)?, budget, lpi_id_bits })
}

/// Returns the event mapping of each ITS.
fn mapping(size: Size) -> EventMapping {
    let events = size.events / size.its;
    let event_bits = events.div_ceil(MOST_DEVICES).next_power_of_two().ilog2().max(5);
    EventMapping::new(events >> event_bits, u8::try_from(event_bits).unwrap_or(5))
}

impl GrownGic {
    pub(super) fn new(size: Size) -> Result<Self, String> {
        let gic_size = gic_size(size)?;
        let (mut gic, vcpus) = MeasuredGic::booted(gic_size, Arc::new(NoKick))?;
        let (its, mapping, targets) = (usize::from(gic_size.its), mapping(size), gic_size.vcpus);
        gic.configure(mapping, size.events)?;
        for number in 0..its {
            gic.map(number, mapping, targets)?;
        }
        Ok(Self { gic, vcpus, size: gic_size, its, mapping, targets })
    }

    /// Measures the cost of every operation.
    pub(super) fn costs(mut self) -> Result<Costs, String> {
        let mut costs = self.messages()?;
        costs.extend(least(|| self.commands())?);
        costs.extend(least(|| self.invalidations())?);
        costs.extend(least(|| self.save_and_restore())?);
        costs.extend(least(|| first_use(self.size))?);
        Ok(costs)
    }

    /// Measures messages to random events that aren't pending, together with their acknowledgment.
    fn messages(&mut self) -> Result<Costs, String> {
        let mut rng = fastrand::Rng::with_seed(1);
        let events = 1 << self.mapping.event_bits;
        let its = 0..self.its;
        let order: Vec<_> = (0..REPEATS)
            .map(|_| (rng.usize(its.clone()), rng.u32(0..self.mapping.devices), rng.u32(0..events)))
            .collect();
        least(|| {
            let start = Instant::now();
            let delivered = order
                .iter()
                .filter(|(its, device, event)| {
                    self.gic.send_to(*its, *device, *event) == Delivery::Pending
                })
                .count();
            let sent = each(start.elapsed(), REPEATS);
            if delivered != order.len() {
                return Err("a message was not delivered".to_owned());
            }
            let start = Instant::now();
            let mut acknowledged = 0;
            for vcpu in &mut self.vcpus {
                while take(vcpu) != NOTHING {
                    acknowledged += 1;
                }
            }
            let taken = each(start.elapsed(), acknowledged);
            Ok(vec![("message", sent), ("acknowledgment", taken)])
        })
    }

    /// Measures commands for additional devices on the last ITS.
    fn commands(&mut self) -> Result<Costs, String> {
        let devices = || FURTHER_DEVICE..FURTHER_DEVICE + FURTHER_DEVICES;
        let events =
            || devices().flat_map(|device| (0..FURTHER_EVENTS).map(move |event| (device, event)));
        let target = self.targets - 1;
        let map = |device| map_device(device, 5, MapAction::Map);
        let unmap = |device| map_device(device, 5, MapAction::Unmap);
        let map_events = |(device, event)| map_event(device, event, FIRST_LPI + event, target);
        let discard = |(device, event)| Command::Discard {
            device: DeviceId::new(device),
            event: EventId::new(event),
        };
        let costs = vec![
            ("MAPD", self.execute(devices().map(map))?),
            ("MAPTI", self.execute(events().map(map_events))?),
            ("DISCARD", self.execute(events().map(discard))?),
        ];
        self.execute(devices().map(unmap))?;
        let faults = self.gic.gic.command_faults(self.its - 1).ok_or("no ITS")?;
        if faults.count == 0 { Ok(costs) } else { Err(faults.to_string()) }
    }

    fn execute(&mut self, commands: impl Iterator<Item = Command>) -> Result<f64, String> {
        let (its, mut count) = (self.its - 1, 0);
        let start = Instant::now();
        for command in commands {
            self.gic.command(its, command)?;
            count += 1;
        }
        Ok(each(start.elapsed(), count))
    }

    /// Measures LPI invalidations. The invalidated LPIs are those of the first device whose
    /// messages target the last vCPU.
    fn invalidations(&self) -> Result<Costs, String> {
        let (count, events) = (256, 1 << self.mapping.event_bits);
        let vcpu = self.targets - 1;
        let first = FIRST_LPI + u32::from(vcpu) * events;
        let start = Instant::now();
        for at in 0..count {
            self.gic.invalidate(vcpu, first + at % events)?;
        }
        Ok(vec![("INVLPIR", each(start.elapsed(), count))])
    }

    fn save_and_restore(&mut self) -> Result<Costs, String> {
        let start = Instant::now();
        let paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        let saved = self.gic.gic.save().map_err(|error| error.to_string())?;
        let save = each(start.elapsed(), 1);
        drop(paused);
        let (gic, mut vcpus) = self.gic.successor()?;
        let start = Instant::now();
        let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        gic.restore(&saved).map_err(|error| error.to_string())?;
        drop(paused);
        Ok(vec![("save", save), ("restore", each(start.elapsed(), 1))])
    }
}

/// Measures how long it takes to create a machine of this size and bring it up, including the
/// delivery of its first message.
fn first_use(size: GicSize) -> Result<Costs, String> {
    let start = Instant::now();
    let (mut gic, mut vcpus) = MeasuredGic::booted(size, Arc::new(NoKick))?;
    let first = EventMapping::new(1, 1);
    gic.configure(first, 1)?;
    gic.map(0, first, 1)?;
    let delivered = gic.send(0, 0);
    let taken = vcpus.first_mut().map(take);
    let time = each(start.elapsed(), 1);
    if (delivered, taken) == (Delivery::Pending, Some(FIRST_LPI.into())) {
        Ok(vec![("first use", time)])
    } else {
        Err("the first message was not delivered".to_owned())
    }
}

/// Returns each operation's minimum cost over several repetitions. The first repetition warms the
/// tables.
fn least(mut measure: impl FnMut() -> Result<Costs, String>) -> Result<Costs, String> {
    let mut least = measure()?;
    for _ in 1..TURNS {
        for ((_, least), (_, now)) in least.iter_mut().zip(measure()?) {
            *least = least.min(now);
        }
    }
    Ok(least)
}

/// Returns the heap memory, in bytes, that a machine of this size uses with all events mapped.
/// Guest memory isn't counted.
pub(super) fn bytes(size: Size, heap: &dyn Fn() -> usize) -> Result<usize, String> {
    let before = heap();
    let grown = GrownGic::new(size)?;
    let bytes = heap().saturating_sub(before).saturating_sub(gic_size(size)?.ram_bytes());
    drop(grown);
    Ok(bytes)
}

/// Returns the heap memory, in bytes, that a machine without LPIs uses.
pub(super) fn bytes_without_lpis(vcpus: u16, heap: &dyn Fn() -> usize) -> Result<usize, String> {
    let memory = Arc::new(NoMemory);
    let before = heap();
    let made = Vgic::new(VgicConfig::new(vcpus), memory, Arc::new(NoKick));
    let made = made.map_err(|error| error.to_string())?;
    let bytes = heap().saturating_sub(before);
    drop(made);
    Ok(bytes)
}

/// Empty guest memory, for a guest that never accesses memory.
struct NoMemory;

impl vgic::GuestMemory for NoMemory {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), vgic::MemoryFault> {
        Err(vgic::MemoryFault { address })
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), vgic::MemoryFault> {
        Err(vgic::MemoryFault { address })
    }
}
