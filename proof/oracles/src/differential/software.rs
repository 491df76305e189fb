//! Well-behaved software that sends additional commands around those of a case. The software obeys
//! the rules whose violation is UNPREDICTABLE, because two implementations may differ in their
//! response. `docs/differential.md` lists them.

use super::address_map::{CPUS, translation_table};
use super::command::Command;
use std::collections::{BTreeMap, BTreeSet};

/// Size in bytes of an entry in an interrupt translation table, which is the larger of the two
/// machines' sizes.
const ENTRY: u64 = 12;
/// Largest size field that either machine accepts in a MAPD command.
const LARGEST: u8 = 15;

/// The mappings that software has created.
#[derive(Debug, Default)]
pub(super) struct Software {
    /// All events that may be mapped (including those whose commands failed), with the collections
    /// to which they may be mapped.
    events: BTreeMap<(u32, u32), BTreeSet<u16>>,
    /// The collections that software has mapped, including numbers beyond the table, which the ITS
    /// can never map.
    collections: BTreeSet<u16>,
}

/// The preparation for a command: the commands to execute first, and the memory ranges to zero
/// after them.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) commands: Vec<Command>,
    /// The ranges, given by address and size.
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

    /// Returns the preparation for LPIs that become pending without a message for their events: all
    /// mapped events must be in mapped collections.
    pub(super) fn prepare_pending(&mut self) -> Before {
        let mut before = Before::default();
        for collection in self.events.values().flatten() {
            map(*collection, &mut self.collections, &mut before);
        }
        before
    }

    /// Discards a device's events before the device's table is unmapped.
    fn empty(&mut self, device: u32, before: &mut Before) {
        let of_device = self.events.range((device, 0)..=(device, u32::MAX));
        let events: Vec<u32> = of_device.map(|((_, event), _)| *event).collect();
        for event in events {
            self.forget((device, event), before);
            before.commands.push(Command::Discard { device, event });
        }
    }

    /// Maps the collections of an event before the event is discarded. Returns `true` if the event
    /// may be mapped.
    fn forget(&mut self, event: (u32, u32), before: &mut Before) -> bool {
        let Some(possible) = self.events.remove(&event) else { return false };
        for collection in possible {
            map(collection, &mut self.collections, before);
        }
        true
    }

    /// Clears the pending state of a collection's events before the collection is mapped to another
    /// target.
    fn quiet(&self, collection: u16, before: &mut Before) {
        if self.collections.contains(&collection) {
            let clear =
                |(device, event): &(u32, u32)| Command::Clear { device: *device, event: *event };
            before.commands.extend(self.events.keys().map(clear));
        }
    }
}

/// Maps a collection unless software has already mapped it.
fn map(collection: u16, mapped: &mut BTreeSet<u16>, before: &mut Before) {
    if mapped.insert(collection) {
        before.commands.push(Command::Mapc { collection, target: 0 });
    }
}
