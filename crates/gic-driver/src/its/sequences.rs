//! Commands that are made when the queue asks for them.

use super::collections::Collections;
use super::limbo::Holds;
use super::routes::Routes;
use crate::lpi::LpiRange;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use gic_arch::Lpi;
use gic_arch::its::{Command, RdBase};
use msi_types::DeviceId;

/// A block of a device's events on its way in or out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) device: DeviceId,
    pub(crate) first_event: u16,
    pub(crate) first_lpi: Lpi,
    pub(crate) count: NonZeroU16,
}

impl Block {
    pub(crate) fn lpis(self) -> impl ExactSizeIterator<Item = (u16, Lpi)> + use<> {
        // The allocators handed out both ranges, so that neither wraps.
        let lpi = move |index: u16| {
            Lpi::from_index(self.first_lpi.index() + u32::from(index)).unwrap_or(self.first_lpi)
        };
        (0..self.count.get()).map(move |index| (self.first_event + index, lpi(index)))
    }

    fn range(self) -> LpiRange {
        LpiRange::from_parts(self.first_lpi, self.count.into())
    }

    pub(crate) fn holds(self) -> Holds {
        let Self { device, first_event: first, count, .. } = self;
        Holds::Events { device, first, count, lpis: self.range() }
    }
}

/// A command that is made when the queue asks for it, and the SYNC behind it.
#[derive(Default)]
pub(crate) enum Steps {
    #[default]
    First,
    Sync(RdBase),
    Done,
}

impl Steps {
    pub(crate) fn next(&mut self, first: impl FnOnce() -> Option<(Command, RdBase)>) -> Option<Command> {
        match core::mem::replace(self, Self::Done) {
            Self::First => {
                let (command, target) = first()?;
                *self = Self::Sync(target);
                Some(command)
            }
            Self::Sync(target) => Some(Command::Sync { target }),
            Self::Done => None,
        }
    }
}

/// DISCARD for each event that has a route, then SYNC for each redistributor where one of them was.
pub(crate) struct Discards<'a, I> {
    routes: &'a Routes,
    collections: &'a Collections,
    lpis: I,
    /// With room for all, so that nothing is allocated under the queue's lock.
    targets: Vec<RdBase>,
}

impl<'a> Discards<'a, ()> {
    pub(crate) fn new(
        routes: &'a Routes,
        collections: &'a Collections,
        block: Block,
    ) -> Discards<'a, impl Iterator<Item = Lpi> + use<>> {
        let most = usize::from(block.count.get()).min(collections.count());
        Discards {
            routes,
            collections,
            lpis: block.lpis().map(|(_, lpi)| lpi),
            targets: Vec::with_capacity(most),
        }
    }
}

impl<I: Iterator<Item = Lpi>> Iterator for Discards<'_, I> {
    type Item = Command;

    fn next(&mut self) -> Option<Command> {
        let Self { routes, collections, lpis, targets } = self;
        let next = lpis.find_map(|lpi| routes.of(lpi).map(|route| (lpi, route)));
        let Some((lpi, route)) = next else {
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
        (self.targets.len(), None)
    }
}
