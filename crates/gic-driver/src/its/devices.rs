//! Devices: their interrupt translation tables, the quotas that their attachments have of the
//! events, and blocks of events with the commands that map and discard them.
//!
//! Commands are made when the queue asks for them, under its lock.

use super::command_queue::CommandSpan;
use super::error::ItsError;
use super::routes::{Collections, EventRoute, EventRoutes};
use super::tables::TableConstraints;
use crate::lpi::LpiRange;
use crate::platform::{ADDRESS_BITS, GicPlatform, Table};
use crate::{Alignment, BlockAllocator};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use gic_arch::Lpi;
use gic_arch::gits::Typer;
use gic_arch::its::{CollectionId, Command, ITT_ALIGNMENT, MapAction, RdBase};
use msi_types::{DeviceId, Shape};

/// EventIDs travel in the 16 data bits of PCI's MSI.
pub(crate) const MAX_EVENT_BITS: u8 = 16;
/// MAPD cannot express fewer.
const MIN_EVENT_BITS: u8 = 1;

/// A device as the ITS knows it: all requesters with the same DeviceID are one.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) itt: Table,
    event_bits: u8,
    pub(crate) mapping: Mapping,
    /// Attachments.
    pub(crate) users: u32,
    /// Events that all attachments together may have.
    reserved: u32,
    events: BlockAllocator,
}

/// Does the ITS know the device? It is told with the first event, in the same batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mapping {
    /// No.
    Unmapped,
    /// MAPD was executed, or is in the queue.
    Mapped,
}

/// One requester's limit of a device's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventQuota {
    pub(crate) device: DeviceId,
    /// Events that it may have.
    pub(crate) limit: u32,
    /// Events that it has.
    pub(crate) used: u32,
}

impl Device {
    /// Provides a table for `events` events, without quotas.
    pub(crate) fn provision<P: GicPlatform>(
        platform: &P,
        typer: Typer,
        events: u32,
        constraints: TableConstraints,
    ) -> Result<Self, ItsError> {
        const NAME: &str = "an interrupt translation table";
        let event_bits = event_bits(typer, events)?;
        let bytes = u64::from(typer.itt_entry_bytes()) << event_bits;
        let events =
            BlockAllocator::new(0, 1 << event_bits).map_err(|_| ItsError::NoMemory(NAME))?;
        let itt = constraints
            .allocate(platform, bytes.max(ITT_ALIGNMENT), ITT_ALIGNMENT, ADDRESS_BITS)
            .map_err(|error| ItsError::no_table(NAME, error))?;
        Ok(Self { itt, event_bits, mapping: Mapping::Unmapped, users: 0, reserved: 0, events })
    }

    /// Takes another attachment in, for `events` more events; `false` if the table is too small for
    /// all.
    pub(crate) fn add_quota(&mut self, events: u32) -> bool {
        let reserved = self.reserved.saturating_add(events);
        let fits = reserved <= 1 << self.event_bits;
        if fits {
            self.reserved = reserved;
            self.users += 1;
        }
        fits
    }

    /// Lets an attachment go.
    pub(crate) fn remove_quota(&mut self, quota: &EventQuota) {
        self.users = self.users.saturating_sub(1);
        self.reserved = self.reserved.saturating_sub(quota.limit);
    }

    /// Takes over the attachments of the device that this one replaces.
    pub(crate) fn inherit(&mut self, old: &Self) {
        self.users = old.users;
        self.reserved = old.reserved;
    }

    /// Events that the attachments may have, taken together.
    pub(crate) fn reserved(&self) -> u32 {
        self.reserved
    }

    /// The lowest free block of events: contiguous; an aligned group at a multiple of its size.
    pub(crate) fn allocate_events(&mut self, count: NonZeroU16, shape: Shape) -> Option<u16> {
        let align = match shape {
            Shape::Independent => Some(Alignment::ONE),
            Shape::AlignedGroup => Alignment::of_group(count.into()),
        };
        let first = self.events.allocate(count.into(), align?).ok()?;
        u16::try_from(first).ok()
    }

    /// Frees an allocated block.
    pub(crate) fn free_events(&mut self, first: u16, count: NonZeroU16) {
        let result = self.events.free(first.into(), count.into());
        debug_assert!(result.is_ok(), "a block that was taken: {result:?}");
    }

    /// Has it no events?
    pub(crate) fn is_idle(&self) -> bool {
        self.allocated_events() == 0
    }

    /// Number of allocated events.
    pub(crate) fn allocated_events(&self) -> u32 {
        self.events.capacity() - self.events.available()
    }

    /// MAPD for this device.
    pub(crate) fn mapd(&self, device: DeviceId, action: MapAction) -> Command {
        Command::Mapd {
            device,
            itt: self.itt.address,
            event_bits_minus_one: self.event_bits - 1,
            action,
        }
    }
}

/// Returns the size of a table for at least `events` events. A table occupies its alignment in any
/// case, so that events which fit there cost nothing; the functions behind a conventional PCI
/// bridge, which share one DeviceID, need them.
fn event_bits(typer: Typer, events: u32) -> Result<u8, ItsError> {
    let limit = max_event_bits(typer);
    let fills_alignment =
        |bits: &u8| u64::from(typer.itt_entry_bytes()) << bits >= ITT_ALIGNMENT || *bits == limit;
    (MIN_EVENT_BITS..=limit)
        .find(|bits| events <= 1 << bits && fills_alignment(bits))
        .ok_or(ItsError::TooManyEvents { wanted: events, limit: 1 << limit })
}

/// Returns the number of events that a device can have at this ITS.
pub(crate) fn max_events(typer: Typer) -> u32 {
    1 << max_event_bits(typer)
}

fn max_event_bits(typer: Typer) -> u8 {
    typer.event_id_bits().min(MAX_EVENT_BITS)
}

/// A block of a device's events on its way in or out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventBlock {
    pub(crate) device: DeviceId,
    pub(crate) first_event: u16,
    pub(crate) first_lpi: Lpi,
    pub(crate) count: NonZeroU16,
}

/// Blocks of one device that are unmapped together; a single one takes no memory.
#[derive(Debug)]
pub(crate) enum EventBlocks {
    None,
    One(EventBlock),
    Many(Vec<EventBlock>),
}

impl EventBlocks {
    pub(crate) fn as_slice(&self) -> &[EventBlock] {
        match self {
            Self::None => &[],
            Self::One(block) => core::slice::from_ref(block),
            Self::Many(blocks) => blocks,
        }
    }
}

impl EventBlock {
    pub(crate) fn lpis(self) -> impl ExactSizeIterator<Item = (u16, Lpi)> + use<> {
        // Both ranges were allocated, so neither wraps.
        let lpi = move |index: u16| {
            Lpi::from_index(self.first_lpi.index() + u32::from(index)).unwrap_or(self.first_lpi)
        };
        (0..self.count.get()).map(move |index| (self.first_event + index, lpi(index)))
    }

    pub(crate) fn range(self) -> LpiRange {
        LpiRange::from_parts(self.first_lpi, self.count.into())
    }
}

/// Commands that are all made when the queue asks for the first: none, if `make` finds that there
/// is nothing to do.
pub(crate) fn made_in_order<const N: usize>(
    make: impl FnOnce() -> Option<[Command; N]>,
) -> impl Iterator<Item = Command> {
    core::iter::once_with(make).flatten().flatten()
}

/// MAPTI for an event. If its LPI is `stale`, the event goes from one of these collections to the
/// next and is cleared at each. Then it goes to its route's.
pub(crate) fn map_event<'a>(
    routes: &'a EventRoutes,
    lpi: Lpi,
    route: EventRoute,
    stale: &'a [CollectionId],
) -> impl Iterator<Item = Command> + 'a {
    let (device, event) = (route.device, route.event_id());
    let last = (stale.last() != Some(&route.collection)).then_some(route.collection);
    let collections = stale.iter().copied().chain(last).enumerate();
    collections.flat_map(move |(index, collection)| {
        let map = if index == 0 {
            routes.set(lpi, Some(route));
            Command::Mapti { device, event, intid: lpi.get(), collection }
        } else {
            Command::Movi { device, event, collection }
        };
        let clear = (index < stale.len()).then_some(Command::Clear { device, event });
        [Some(map), clear].into_iter().flatten()
    })
}

/// DISCARD for each event that has a route, and the device's unmapping if it goes with them. Then
/// SYNC for each redistributor where one of them was. With no event, SYNC for any redistributor, so
/// that a device is never unmapped without one.
pub(crate) struct DiscardCommands<'a, I> {
    routes: &'a EventRoutes,
    collections: &'a Collections,
    lpis: I,
    unmap: Option<Command>,
    targets: &'a mut Vec<RdBase>,
}

impl<'a> DiscardCommands<'a, ()> {
    /// `unmap`: MAPD with V=0, if the device goes. `targets`: empty, with room for all
    /// redistributors.
    pub(crate) fn new(
        routes: &'a EventRoutes,
        collections: &'a Collections,
        blocks: &'a [EventBlock],
        unmap: Option<Command>,
        targets: &'a mut Vec<RdBase>,
    ) -> DiscardCommands<'a, impl Iterator<Item = Lpi>> {
        let lpis = blocks.iter().flat_map(|block| block.lpis().map(|(_, lpi)| lpi));
        DiscardCommands { routes, collections, lpis, unmap, targets }
    }
}

impl<I: Iterator<Item = Lpi>> Iterator for DiscardCommands<'_, I> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let Self { routes, collections, lpis, unmap, targets } = self;
        let next = lpis.find_map(|lpi| routes.of(lpi).map(|route| (lpi, route)));
        let Some((lpi, route)) = next else {
            if let Some(unmap) = unmap.take() {
                if targets.is_empty() {
                    targets.extend(collections.any_target());
                }
                return Some(unmap);
            }
            return targets.pop().map(|target| Command::Sync { target });
        };
        routes.set(lpi, None);
        if let Some(target) = collections.target(route.collection)
            && !targets.contains(&target)
        {
            targets.push(target);
        }
        Some(Command::Discard { device: route.device, event: route.event_id() })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.targets.len() + usize::from(self.unmap.is_some()), None)
    }
}

/// Resources that wait for commands.
#[derive(Debug)]
pub(crate) struct DeferredUnmap {
    pub(super) posted: CommandSpan,
    pub(super) rest: VecDeque<Command>,
    pub(super) resources: Resources,
}

/// Resources that are freed once the ITS cannot use them any more.
#[derive(Debug)]
pub(crate) enum Resources {
    /// Events of a device that stays, and their LPIs.
    Events(EventBlocks),
    /// A device's table, and the LPIs of the events that it had to the end.
    Device {
        /// MAPD with V=0.
        unmap: Command,
        itt: Table,
        blocks: EventBlocks,
    },
}

impl Resources {
    pub(super) fn blocks(&self) -> &EventBlocks {
        match self {
            Self::Events(blocks) | Self::Device { blocks, .. } => blocks,
        }
    }

    pub(super) fn unmap(&self) -> Option<Command> {
        match self {
            Self::Events(_) => None,
            Self::Device { unmap, .. } => Some(*unmap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_table_has_room_for_what_it_was_made_for(events in 1_u32..=65_536) {
            let typer = Typer::new().with_event_id_bits_minus_one(31);
            let bits = event_bits(typer, events).unwrap();
            prop_assert!(events <= 1 << bits);
            let half = bits - 1;
            let half_is_free = u64::from(typer.itt_entry_bytes()) << half >= ITT_ALIGNMENT;
            prop_assert!(!half_is_free || events > 1 << half);
        }
    }

    #[test]
    fn a_small_table_fills_its_alignment() {
        let typer = Typer::new().with_event_id_bits_minus_one(15).with_itt_entry_bytes_minus_one(7);
        assert_eq!(event_bits(typer, 1), Ok(5), "32 entries of 8 bytes");
        assert_eq!(event_bits(typer.with_event_id_bits_minus_one(2), 1), Ok(3));
    }

    #[test]
    fn events_are_limited_by_message_bits() {
        let typer = Typer::new().with_event_id_bits_minus_one(31);
        let error = ItsError::TooManyEvents { wanted: 65_537, limit: 65_536 };
        assert_eq!(event_bits(typer, 65_537), Err(error));
    }

    #[test]
    fn events_are_limited_by_its_bits() {
        let typer = Typer::new().with_event_id_bits_minus_one(4);
        assert_eq!(event_bits(typer, 33), Err(ItsError::TooManyEvents { wanted: 33, limit: 32 }));
    }
}
