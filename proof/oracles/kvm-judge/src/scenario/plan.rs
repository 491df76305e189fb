//! Generates plans from seeds.

use gic_arch::its::{CollectionId, Command, MapAction};
use gic_arch::{IntId, Priority, lpi};
use msi_types::{DeviceId, EventId};

/// The guest's mappings, and the messages that the guest will receive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Number of levels in the device tables.
    pub levels: Levels,
    /// The ITSes. The second ITS shares some devices, events and collections with the first, but
    /// maps them to different LPIs and vCPUs.
    pub its: [ItsPlan; 2],
    /// Edge-triggered SPIs.
    pub wired: Vec<WiredPlan>,
    /// A PPI or SGI that every vCPU uses.
    pub private: u32,
    /// Value of `ICC_BPR1_EL1`.
    pub binary_point: u64,
}

/// The plan for an ITS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ItsPlan {
    /// The collections, with the vCPU that each collection targets.
    pub collections: Vec<(u16, u16)>,
    /// The devices, by ascending DeviceID.
    pub devices: Vec<DevicePlan>,
    /// The messages to send, as DeviceID and EventID.
    pub messages: Vec<(u32, u32)>,
    /// Commands that the ITS executes before the messages are sent.
    pub changes_before: Vec<Command>,
    /// Commands that the ITS executes after the messages have been sent.
    pub changes_after: Vec<Command>,
}

/// Number of levels in the device table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Levels {
    /// One level.
    Flat,
    /// Two levels.
    Two,
}

/// The plan for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DevicePlan {
    /// DeviceID.
    pub id: u32,
    /// Number of EventID bits.
    pub event_bits: u8,
    /// The events, by ascending EventID.
    pub events: Vec<EventPlan>,
}

/// The plan for an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventPlan {
    /// EventID.
    pub id: u32,
    /// INTID of the LPI.
    pub intid: u32,
    /// Collection.
    pub collection: u16,
    /// The LPI's configuration.
    pub config: lpi::Config,
}

/// The plan for an SPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WiredPlan {
    /// INTID.
    pub intid: u32,
    /// Priority.
    pub priority: u8,
    /// Target vCPU.
    pub cpu: u16,
}

/// Random numbers generated from a seed (xorshift64).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Creates the sequence for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number less than `bound`. `bound` must not be zero.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let [.., a, b, c, d] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d]) % bound
    }

    /// Returns `true` with probability 1/`count`.
    pub fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    /// Returns distinct numbers less than `bound`, in ascending order.
    fn ascending(&mut self, count: u32, bound: u32) -> Vec<u32> {
        let mut numbers: Vec<_> = (0..count).map(|_| self.below(bound)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// Number of devices per page.
const PAGE: u32 = 0x2000;
/// Maximum number of events per device. The limit is small enough that enough distinct priorities
/// exist for four devices, two of which are also at the other ITS.
const MOST_EVENTS: u32 = 4;
/// Number of devices that exist at both ITSes.
const TWINS: usize = 2;
/// Maximum number of EventID bits for which a device's table fits into 4 KiB.
const MOST_EVENT_BITS: u32 = 9;

impl Plan {
    /// Generates the plan for a seed. All LPIs are distinct, and no two enabled LPIs of one vCPU
    /// have the same priority.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let levels = if seed.is_multiple_of(2) { Levels::Flat } else { Levels::Two };
        let collections: Vec<_> = dice
            .ascending(3, 64)
            .into_iter()
            .zip([1, 0, 1])
            .map(|(id, cpu)| (low(id), cpu))
            .collect();
        let mut numbers = Numbers::new(&mut dice);
        let ids = match levels {
            Levels::Flat => dice.ascending(4, PAGE),
            // Use two second-level pages that are far apart.
            Levels::Two => [dice.ascending(2, PAGE), far(dice.ascending(2, PAGE))].concat(),
        };
        let devices: Vec<_> =
            ids.into_iter().map(|id| device(&mut dice, &mut numbers, id, &collections)).collect();
        let twins = devices
            .iter()
            .take(TWINS)
            .map(|device| twin(device, &mut dice, &mut numbers))
            .collect();
        let elsewhere =
            collections.iter().map(|(collection, cpu)| (*collection, 1 - cpu)).collect();
        Self {
            levels,
            its: [
                ItsPlan::of(collections, devices, &mut dice),
                ItsPlan::of(elsewhere, twins, &mut dice),
            ],
            wired: wired(&mut dice),
            private: if dice.one_in(2) { 9 } else { 27 },
            binary_point: dice.below(4).into(),
        }
    }
}

impl ItsPlan {
    fn of(collections: Vec<(u16, u16)>, devices: Vec<DevicePlan>, dice: &mut Dice) -> Self {
        let mut plan = Self {
            collections,
            devices,
            messages: Vec::new(),
            changes_before: Vec::new(),
            changes_after: Vec::new(),
        };
        plan.messages = plan.some_messages(dice);
        plan.changes_before = plan.some_changes_before(dice);
        plan.changes_after = plan.some_changes_after(dice);
        plan
    }

    /// Returns messages for about half of the events. A few messages are repeated, and one is for
    /// an unmapped event.
    fn some_messages(&self, dice: &mut Dice) -> Vec<(u32, u32)> {
        let events = self.events().map(|(device, event)| (device.get(), event.get()));
        let mut messages: Vec<_> = events.filter(|_| dice.one_in(2)).collect();
        messages.extend(messages.clone().into_iter().filter(|_| dice.one_in(4)));
        let unmapped = |device: &DevicePlan| (device.id, (1 << device.event_bits) + 1);
        messages.extend(self.devices.first().map(unmapped));
        messages
    }

    /// Returns commands for the ITS to execute before messages are sent. The commands discard or
    /// move a few events, and occasionally unmap a device.
    ///
    /// These commands must not be executed later: if an LPI is pending when its event is discarded,
    /// KVM still delivers the LPI but doesn't save it.
    fn some_changes_before(&self, dice: &mut Dice) -> Vec<Command> {
        let mut changes = Vec::new();
        for (device, event) in self.events() {
            match dice.below(6) {
                0 => changes.push(Command::Discard { device, event }),
                1 => changes.push(self.moved(device, event, dice)),
                _ => {}
            }
        }
        // Unmap the first device, which leaves a gap at the start of the table.
        let first = self.devices.first().filter(|_| self.devices.len() > 1 && dice.one_in(3));
        changes.extend(first.map(|plan| Command::Mapd {
            device: DeviceId::new(plan.id),
            itt: 0,
            event_bits_minus_one: 0,
            action: MapAction::Unmap,
        }));
        changes
    }

    /// Returns commands that move a few events, make them pending, or clear their pending bits.
    fn some_changes_after(&self, dice: &mut Dice) -> Vec<Command> {
        let mut changes = Vec::new();
        for (device, event) in self.events() {
            match dice.below(6) {
                0 => changes.push(Command::Clear { device, event }),
                1 => changes.push(Command::Int { device, event }),
                2 => changes.push(self.moved(device, event, dice)),
                _ => {}
            }
        }
        changes
    }

    fn moved(&self, device: DeviceId, event: EventId, dice: &mut Dice) -> Command {
        let which = dice.below(3) as usize % self.collections.len().max(1);
        let collection = self.collections.get(which).map_or(0, |(id, _)| *id);
        Command::Movi { device, event, collection: CollectionId::new(collection) }
    }

    /// Returns all events.
    pub fn events(&self) -> impl Iterator<Item = (DeviceId, EventId)> {
        self.devices.iter().flat_map(|plan| {
            plan.events.iter().map(|event| (DeviceId::new(plan.id), EventId::new(event.id)))
        })
    }
}

fn device(
    dice: &mut Dice,
    numbers: &mut Numbers,
    id: u32,
    collections: &[(u16, u16)],
) -> DevicePlan {
    let event_bits = 1 + dice.below(MOST_EVENT_BITS);
    let count = 1 + dice.below(MOST_EVENTS);
    let events = dice.ascending(count, 1 << event_bits).into_iter().map(|id| {
        let which = dice.below(u32::try_from(collections.len()).unwrap_or(1));
        EventPlan {
            id,
            intid: numbers.next_lpi(dice),
            collection: collections.get(which as usize).map_or(0, |(collection, _)| *collection),
            config: lpi::Config::new()
                .with_enable(!dice.one_in(5))
                .with_priority(Priority::new(numbers.next_priority())),
        }
    });
    DevicePlan { id, event_bits: u8::try_from(event_bits).unwrap_or(1), events: events.collect() }
}

/// Returns a device with the same events for the other ITS, but with different LPIs.
fn twin(device: &DevicePlan, dice: &mut Dice, numbers: &mut Numbers) -> DevicePlan {
    let events = device.events.iter().map(|event| EventPlan {
        intid: numbers.next_lpi(dice),
        config: event.config.with_priority(Priority::new(numbers.next_priority())),
        ..*event
    });
    DevicePlan { events: events.collect(), ..device.clone() }
}

fn wired(dice: &mut Dice) -> Vec<WiredPlan> {
    let intids = dice.ascending(4, 64).into_iter();
    // Use only one interrupt per priority register, because the guest writes whole registers.
    let mut intids: Vec<_> = intids.map(|number| 32 + number / 16 * 16).collect();
    intids.dedup();
    (8..)
        .step_by(8)
        .zip(intids)
        .map(|(priority, intid)| WiredPlan { intid, priority, cpu: low(dice.below(2)) })
        .collect()
}

fn far(ids: Vec<u32>) -> Vec<u32> {
    ids.into_iter().map(|id| id + 5 * PAGE).collect()
}

fn low(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

/// The LPIs and priorities that aren't in use yet.
struct Numbers {
    lpi: u32,
    priority: u8,
}

impl Numbers {
    fn new(dice: &mut Dice) -> Self {
        Self { lpi: IntId::LPI_BASE + dice.below(100), priority: 0x20 }
    }

    fn next_lpi(&mut self, dice: &mut Dice) -> u32 {
        self.lpi += 1 + dice.below(200);
        self.lpi
    }

    /// Returns the next unused priority. Priorities that differ by 8 are distinct even if only 5
    /// priority bits are implemented.
    fn next_priority(&mut self) -> u8 {
        self.priority = if self.priority >= 0xf0 { 0x28 } else { self.priority + 8 };
        self.priority
    }
}
