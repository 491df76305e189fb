//! Well-behaved software around a case's commands. It obeys the rules whose violation is
//! UNPREDICTABLE, because two implementations may differ there.
//! [`NOT_SENT`](super::NOT_SENT) lists them.

use super::address_map::{CPUS, translation_table};
use super::command::Command;
use std::collections::{BTreeMap, BTreeSet};

/// Size of an interrupt translation table entry in bytes (the larger of the two machines').
const ENTRY: u64 = 12;
/// Largest size field that either machine accepts in a MAPD.
const LARGEST: u8 = 15;

/// The mappings that software has created.
#[derive(Debug, Default)]
pub(super) struct Software {
    /// All events that may be mapped (including those whose commands failed), with the collections
    /// that they may be in.
    events: BTreeMap<(u32, u32), BTreeSet<u16>>,
    /// The mapped collections, including those beyond the table, which can never be mapped.
    collections: BTreeSet<u16>,
}

/// How to prepare a command: first execute these commands, then zero these ranges.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) commands: Vec<Command>,
    /// The ranges, as addresses and sizes.
    pub(super) zeroed: Vec<(u64, u64)>,
}

impl Before {
    pub(super) fn is_nothing(&self) -> bool {
        self.zeroed.is_empty() && self.commands.is_empty()
    }
}

impl Software {
    /// Returns the preparation that makes `command` obey the rules.
    pub(super) fn prepare(&mut self, command: Command) -> Before {
        let mut before = Before::default();
        match command {
            Command::Mapd { device, size } => {
                self.empty(device, &mut before);
                if size <= LARGEST {
                    before.zeroed.push((translation_table(device), ENTRY << (size + 1)));
                }
            }
            Command::Unmapd { device } => self.empty(device, &mut before),
            Command::Mapc { collection, target } => {
                self.quiet(collection, &mut before);
                if target < CPUS {
                    self.collections.insert(collection);
                }
            }
            Command::Unmapc { collection } => {
                self.quiet(collection, &mut before);
                self.collections.remove(&collection);
            }
            Command::Mapti { device, event, collection, .. }
            | Command::Mapi { device, event, collection } => {
                if self.forget((device, event), &mut before) {
                    before.commands.push(Command::Discard { device, event });
                }
                self.events.insert((device, event), BTreeSet::from([collection]));
            }
            Command::Movi { device, event, collection } => {
                if let Some(possible) = self.events.get_mut(&(device, event)) {
                    possible.insert(collection);
                }
            }
            Command::Discard { device, event } => drop(self.forget((device, event), &mut before)),
            _ => {}
        }
        before
    }

    /// Returns the preparation for LPIs that become pending other than through their events: all
    /// events must be in mapped collections.
    pub(super) fn prepare_pending(&mut self) -> Before {
        let mut before = Before::default();
        for collection in self.events.values().flatten() {
            map(*collection, &mut self.collections, &mut before);
        }
        before
    }

    /// Discards a device's events before its table is unmapped.
    fn empty(&mut self, device: u32, before: &mut Before) {
        let of_device = self.events.range((device, 0)..=(device, u32::MAX));
        let events: Vec<u32> = of_device.map(|((_, event), _)| *event).collect();
        for event in events {
            self.forget((device, event), before);
            before.commands.push(Command::Discard { device, event });
        }
    }

    /// Maps the collections of an event before it is discarded. Returns `true` if the event may be
    /// mapped.
    fn forget(&mut self, event: (u32, u32), before: &mut Before) -> bool {
        let Some(possible) = self.events.remove(&event) else { return false };
        for collection in possible {
            map(collection, &mut self.collections, before);
        }
        true
    }

    /// Clears the pending state of a collection's events before the collection is mapped to a
    /// different target.
    fn quiet(&self, collection: u16, before: &mut Before) {
        if self.collections.contains(&collection) {
            let clear =
                |(device, event): &(u32, u32)| Command::Clear { device: *device, event: *event };
            before.commands.extend(self.events.keys().map(clear));
        }
    }
}

/// Maps a collection unless it already is.
fn map(collection: u16, mapped: &mut BTreeSet<u16>, before: &mut Before) {
    if mapped.insert(collection) {
        before.commands.push(Command::Mapc { collection, target: 0 });
    }
}
