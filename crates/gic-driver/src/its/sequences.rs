//! Commands that are made when the queue asks for them.

use super::collections::Collections;
use super::routes::{EventRoute, EventRoutes};
use crate::lpi::LpiRange;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use gic_arch::Lpi;
use gic_arch::its::{CollectionId, Command, RdBase};
use msi_types::DeviceId;

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
