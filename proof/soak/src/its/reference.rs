//! An ITS with its redistributors, written from IHI 0069 §5.3: pending LPIs are a set for each
//! redistributor. Where the architecture leaves the pending state open, the LPI becomes *unknown*
//! and is no longer compared.

use gic_arch::its::{Command, MapAction, RdBase};
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

pub(super) const CPUS: usize = 3;
/// Number of entries in the device table, and in the collection table.
const TABLE: u32 = 8192;
/// Number of EventID bits.
const EVENT_BITS: u8 = 16;
/// The implemented LPIs.
const LPIS: std::ops::Range<u32> = 8192..65536;

#[derive(Clone, Copy, Debug)]
struct Translation {
    lpi: u32,
    collection: u16,
}

#[derive(Clone, Default, Debug)]
struct Device {
    event_bits: u8,
    events: BTreeMap<u32, Translation>,
}

/// The state of the ITS and the redistributors.
#[derive(Clone, Default, Debug)]
pub(super) struct Reference {
    pub(super) its_enabled: bool,
    /// `GICR_CTLR.EnableLPIs`.
    pub(super) enabled: [bool; CPUS],
    devices: BTreeMap<u32, Device>,
    collections: BTreeMap<u16, usize>,
    pending: [BTreeSet<u32>; CPUS],
    unknown: BTreeSet<u32>,
    /// LPIs whose configuration disables them.
    pub(super) masked: BTreeSet<u32>,
    /// Number of commands that failed.
    pub(super) faults: u64,
}

fn cpu(target: RdBase) -> Option<usize> {
    target.processor_number().map(usize::from).filter(|cpu| *cpu < CPUS)
}

impl Reference {
    /// Creates an enabled ITS without mappings, and redistributors with enabled LPIs.
    pub(super) fn enabled() -> Self {
        Self { its_enabled: true, enabled: [true; CPUS], ..Self::default() }
    }

    fn translation(&self, device: u32, event: u32) -> Option<Translation> {
        self.devices.get(&device)?.events.get(&event).copied()
    }

    /// Returns the LPI of an event, and the target of its collection.
    fn route(&self, device: u32, event: u32) -> Option<(u32, usize)> {
        let Translation { lpi, collection } = self.translation(device, event)?;
        Some((lpi, *self.collections.get(&collection)?))
    }

    /// Returns `true` if a collection is mapped to the CPU.
    pub(super) fn is_target(&self, cpu: usize) -> bool {
        self.collections.values().any(|target| *target == cpu)
    }

    /// A message from a device. Returns `true` if the interrupt is pending afterwards.
    pub(super) fn send(&mut self, device: u32, event: u32) -> bool {
        let route = self.route(device, event);
        let Some((lpi, at)) = route.filter(|(_, at)| self.its_enabled && self.enabled[*at]) else {
            return false;
        };
        self.pending[at].insert(lpi);
        true
    }

    /// Executes a command, and counts a fault if it fails.
    pub(super) fn execute(&mut self, command: Command) {
        let done = match command {
            Command::Mapd { device, event_bits_minus_one, action, .. } => {
                self.map_device(device.get(), event_bits_minus_one + 1, action)
            }
            Command::Mapc { collection, target, action } => {
                self.map_collection(collection.get(), target, action)
            }
            Command::Mapti { device, event, intid, collection } => {
                let translation = Translation { lpi: intid, collection: collection.get() };
                self.map_event(device.get(), event.get(), translation)
            }
            Command::Movi { device, event, collection } => {
                self.move_event(device.get(), event.get(), collection.get())
            }
            Command::Discard { device, event } => self.discard(device.get(), event.get()),
            Command::Clear { device, event } => {
                self.route(device.get(), event.get()).map(|(lpi, at)| self.clear(lpi, at))
            }
            Command::Int { device, event } => self.route(device.get(), event.get()).map(|_| {
                let _ = self.send(device.get(), event.get());
            }),
            Command::Inv { device, event } => self.route(device.get(), event.get()).map(|_| ()),
            Command::Invall { collection } => self.collections.get(&collection.get()).map(|_| ()),
            Command::Movall { from, to } => cpu(from).zip(cpu(to)).map(|(from, to)| {
                if from != to {
                    self.move_all(from, to);
                }
            }),
            Command::Sync { target } => cpu(target).map(|_| ()),
            Command::Mapi { device, event, collection } => {
                let translation = Translation { lpi: event.get(), collection: collection.get() };
                self.map_event(device.get(), event.get(), translation)
            }
        };
        self.faults += u64::from(done.is_none());
    }

    fn map_device(&mut self, device: u32, event_bits: u8, action: MapAction) -> Option<()> {
        if device >= TABLE {
            return None;
        }
        let old = match action {
            MapAction::Map if event_bits > EVENT_BITS => return None,
            MapAction::Map => {
                let new = Device { event_bits, events: BTreeMap::new() };
                self.devices.insert(device, new)
            }
            MapAction::Unmap => self.devices.remove(&device),
        };
        let lost = old.into_iter().flat_map(|device| device.events.into_values());
        self.unknown.extend(lost.map(|translation| translation.lpi));
        Some(())
    }

    fn map_collection(&mut self, collection: u16, target: RdBase, action: MapAction) -> Option<()> {
        if u32::from(collection) >= TABLE {
            return None;
        }
        let of_collection = |device: &Device| {
            let events = device.events.values();
            let found = events.filter(|it| it.collection == collection).map(|it| it.lpi);
            found.collect::<Vec<_>>()
        };
        let lpis: Vec<_> = self.devices.values().flat_map(of_collection).collect();
        match action {
            MapAction::Unmap => {
                self.collections.remove(&collection);
                self.unknown.extend(lpis);
            }
            MapAction::Map => {
                let to = cpu(target)?;
                match self.collections.insert(collection, to) {
                    Some(from) => lpis.into_iter().for_each(|lpi| self.carry(lpi, from, to)),
                    None => self.unknown.extend(lpis),
                }
            }
        }
        Some(())
    }

    fn map_event(&mut self, device: u32, event: u32, new: Translation) -> Option<()> {
        let mapped = self.devices.get_mut(&device)?;
        let fits = event >> mapped.event_bits == 0
            && u32::from(new.collection) < TABLE
            && LPIS.contains(&new.lpi);
        if !fits {
            return None;
        }
        let old = mapped.events.insert(event, new);
        self.unknown.extend(old.map(|it| it.lpi));
        if self.pending.iter().any(|pending| pending.contains(&new.lpi)) {
            self.unknown.insert(new.lpi);
        }
        Some(())
    }

    fn move_event(&mut self, device: u32, event: u32, collection: u16) -> Option<()> {
        let to = *self.collections.get(&collection)?;
        let (lpi, from) = self.route(device, event)?;
        let translation = self.devices.get_mut(&device)?.events.get_mut(&event)?;
        translation.collection = collection;
        self.carry(lpi, from, to);
        Some(())
    }

    /// Moves an LPI's pending state. While LPIs are disabled at the old redistributor, the pending
    /// state is in a table in memory, which commands need not move.
    fn carry(&mut self, lpi: u32, from: usize, to: usize) {
        if from == to {
            return;
        }
        if self.pending[from].remove(&lpi) {
            if !self.enabled[from] {
                self.unknown.insert(lpi);
            }
            self.pending[to].insert(lpi);
        }
    }

    fn discard(&mut self, device: u32, event: u32) -> Option<()> {
        let Translation { lpi, .. } = self.translation(device, event)?;
        match self.route(device, event) {
            Some((lpi, at)) => self.clear(lpi, at),
            None => {
                self.unknown.insert(lpi);
            }
        }
        self.devices.get_mut(&device)?.events.remove(&event);
        Some(())
    }

    fn clear(&mut self, lpi: u32, at: usize) {
        if self.pending[at].remove(&lpi) && !self.enabled[at] {
            self.unknown.insert(lpi);
        }
    }

    fn move_all(&mut self, from: usize, to: usize) {
        let moved = mem::take(&mut self.pending[from]);
        if !self.enabled[from] {
            self.unknown.extend(&moved);
        }
        self.pending[to].extend(moved);
    }

    /// Compares the LPIs that a CPU has acknowledged with those that it should have, and removes
    /// them. Returns the LPIs that differ.
    pub(super) fn drained(&mut self, at: usize, drained: &BTreeSet<u32>) -> Vec<u32> {
        let mut expected = BTreeSet::new();
        if self.enabled[at] {
            expected = self.pending[at].difference(&self.masked).copied().collect();
            self.pending[at].retain(|lpi| !expected.contains(lpi));
        }
        let differing = drained.symmetric_difference(&expected);
        differing.copied().filter(|lpi| !self.unknown.contains(lpi)).collect()
    }
}
