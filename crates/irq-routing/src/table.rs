//! Table of all routes. Its memory is proportional to the number of GSIs that were ever routed.

use crate::route::{Pin, Route};
use crate::route_latch::RouteLatch;
use crate::sync::{AtomicBool, SeqCst};
use alloc::boxed::Box;
use alloc::vec::Vec;
use msi_types::Gsi;
use once_cell::race::OnceBox;

/// Number of latches that are allocated together.
const CHUNK: usize = 64;

type Chunk = [RouteLatch; CHUNK];

/// Routes of all GSIs. A latch is never moved or freed while the table exists, so readers need no
/// lock to reach it.
#[derive(Debug)]
pub(crate) struct Table {
    chunks: Box<[OnceBox<Chunk>]>,
    gsis: u32,
    /// Number of pins to which GSIs are mapped before the first table is set.
    pins: u32,
    /// `true` until the first table is set: each GSI is mapped to the pin of the same number.
    identity: AtomicBool,
}

impl Table {
    /// Creates a table for the GSIs below `gsis`. GSIs below `pins` are initially mapped to the
    /// pins with the same numbers.
    pub(crate) fn new(gsis: u32, pins: u32) -> Self {
        let chunks: Vec<_> = (0..(gsis as usize).div_ceil(CHUNK)).map(|_| OnceBox::new()).collect();
        Self { chunks: chunks.into(), gsis, pins: pins.min(gsis), identity: AtomicBool::new(true) }
    }

    /// Sets routes like [`set`](Self::set), then ends the identity mapping. The order matters: a
    /// reader that finds the identity mapping ended reads the route again and must find the new
    /// one.
    pub(crate) fn set_table(
        &self,
        routes: impl Iterator<Item = (Gsi, Option<Route>)>,
    ) -> ChangeCount {
        let changes = self.set(routes);
        if self.identity.load(SeqCst) {
            self.identity.store(false, SeqCst);
        }
        changes
    }

    /// Sets routes one by one. Skips redundant routes and GSIs that do not exist. Callers must
    /// ensure that only one thread sets routes at a time.
    pub(crate) fn set(&self, routes: impl Iterator<Item = (Gsi, Option<Route>)>) -> ChangeCount {
        let mut changes = ChangeCount::default();
        for (gsi, route) in routes {
            if self.look(gsi) == route {
                changes.redundant += 1;
            } else {
                self.make(gsi, route);
                changes.made += 1;
            }
        }
        changes
    }

    fn make(&self, gsi: Gsi, route: Option<Route>) {
        let Some(chunk) = self.chunks.get(gsi.index() / CHUNK) else { return };
        let chunk = chunk.get_or_init(|| Box::new(core::array::from_fn(|_| RouteLatch::new())));
        if let Some(latch) = chunk.get(gsi.index() % CHUNK) {
            latch.store(route);
        }
    }

    /// Returns the number of GSIs.
    pub(crate) fn gsis(&self) -> u32 {
        self.gsis
    }

    /// Returns the route of a GSI. Acquires no lock and does not allocate.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn route(&self, gsi: Gsi) -> Option<Route> {
        self.look(gsi).or_else(|| self.unrouted(gsi))
    }

    fn unrouted(&self, gsi: Gsi) -> Option<Route> {
        if self.identity.load(SeqCst) {
            return Pin::new(gsi.get()).ok().filter(|_| gsi.get() < self.pins).map(Route::Pin);
        }
        // The identity mapping may have ended after the first look-up: read the new route.
        self.look(gsi)
    }

    /// Returns the route that was set for a GSI, ignoring the identity mapping.
    #[inline]
    pub(crate) fn look(&self, gsi: Gsi) -> Option<Route> {
        self.chunks.get(gsi.index() / CHUNK)?.get()?.get(gsi.index() % CHUNK)?.load()
    }

    /// Returns all GSIs that have a route, ignoring the identity mapping.
    pub(crate) fn routed(&self) -> impl Iterator<Item = (Gsi, Route)> + '_ {
        let chunks =
            self.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.get()?)));
        let latches = chunks.flat_map(|(at, chunk)| (at * CHUNK..).zip(chunk));
        latches.filter_map(|(index, latch)| {
            Some((Gsi::new(u32::try_from(index).ok()?), latch.load()?))
        })
    }
}

/// Result of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChangeCount {
    /// Number of routes that changed.
    pub made: u32,
    /// Number of redundant changes, which were skipped.
    pub redundant: u32,
}
