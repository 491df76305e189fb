//! Routes of mapped LPIs. A route consists of the LPI's event and its collection. Masking an LPI
//! requires its event, and may happen in a hard-IRQ handler. A collection selects the redistributor
//! to which the ITS delivers an LPI. Each CPU has one collection, with the same number as the CPU.
//!
//! A cached LPI configuration is invalidated through `GICR_INVLPIR`, if the redistributor has it.
//! Otherwise, the caller must use the ITS's INV command. The register needs neither the command
//! queue nor its lock, so CPUs don't contend when they mask LPIs at different redistributors.
//!
//! Invariant: on return, the LPI's redistributor uses the configuration that was stored before the
//! call. A move that is posted later posts its own INV after its MOVI. A move in progress has
//! already changed the route, but its INV may have read the old configuration, and the route's
//! redistributor may not have the LPI yet. The driver therefore reads the route first, and then the
//! number of moves in progress. Unless this number is 0, the driver uses INV, which the queue
//! orders after the commands for these moves.

use super::error::ItsError;
use crate::gic::GicWithLpis;
use crate::platform::{GicPlatform, TimedOut, wait_until};
use crate::redistributor::Invalidation;
use crate::register_access::RegisterAccess;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use doorbell_fallible::{LazyTable, try_collect};
use gic_arch::Lpi;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::{Cpu, DeviceId, EventId};

/// LPIs per chunk.
const CHUNK: usize = 1024;
/// Route word of an unmapped LPI. It can't be a valid route, because collection 0xffff is never
/// used.
const NONE: u64 = u64::MAX;

/// The event that maps to an LPI, and its collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EventRoute {
    pub(crate) device: DeviceId,
    pub(crate) event: u16,
    pub(crate) collection: CollectionId,
}

impl EventRoute {
    /// Creates a route. EventIDs have at most 16 bits ([`super::devices::MAX_EVENT_BITS`]).
    pub(crate) fn new(device: DeviceId, event: u16, collection: CollectionId) -> Self {
        Self { device, event, collection }
    }

    pub(crate) fn event_id(self) -> EventId {
        EventId::new(self.event.into())
    }

    fn pack(self) -> u64 {
        u64::from(self.device.get()) << 32
            | u64::from(self.event) << 16
            | u64::from(self.collection.get())
    }

    fn unpack(word: u64) -> Option<Self> {
        let [c0, c1, e0, e1, d0, d1, d2, d3] = word.to_le_bytes();
        (word != NONE).then(|| Self {
            device: DeviceId::new(u32::from_le_bytes([d0, d1, d2, d3])),
            event: u16::from_le_bytes([e0, e1]),
            collection: CollectionId::new(u16::from_le_bytes([c0, c1])),
        })
    }
}

/// The routes of all LPIs. Each route is an atomic word and can be read without a lock. Memory is
/// allocated in chunks as LPIs are first mapped.
pub(crate) struct EventRoutes(LazyTable<AtomicU64, CHUNK>);

impl EventRoutes {
    /// Creates routes for LPIs with `id_bits`-bit INTIDs.
    pub(crate) fn new(id_bits: u8) -> Result<Self, TryReserveError> {
        let lpis = (1_usize << id_bits.min(31)).saturating_sub(Lpi::FIRST.intid().hwirq().index());
        LazyTable::try_new(lpis).map(Self)
    }

    /// Allocates memory for `count` LPIs starting at `first`.
    ///
    /// Context: task; may sleep.
    pub(crate) fn reserve(&self, first: Lpi, count: u16) -> Result<(), TryReserveError> {
        let first = first.index() as usize;
        self.0.reserve(first..first + usize::from(count), || AtomicU64::new(NONE))
    }

    /// Returns the route of this LPI, or `None` if it is not mapped at this ITS.
    ///
    /// Context: any.
    pub(crate) fn of(&self, lpi: Lpi) -> Option<EventRoute> {
        EventRoute::unpack(self.word(lpi)?.load(Ordering::SeqCst))
    }

    /// Changes a route. The memory for the route must have been [reserved](Self::reserve). Must be
    /// called with the command queue's lock held.
    pub(crate) fn set(&self, lpi: Lpi, route: Option<EventRoute>) {
        if let Some(word) = self.word(lpi) {
            word.store(route.map_or(NONE, EventRoute::pack), Ordering::SeqCst);
        }
    }

    /// Returns the LPIs that are mapped to a collection.
    ///
    /// Context: task; may sleep.
    pub(crate) fn mapped_to(&self, collection: CollectionId) -> Result<Vec<Lpi>, TryReserveError> {
        let here = self.mapped().filter(|(_, route)| route.collection == collection);
        try_collect(here.map(|(lpi, _)| lpi))
    }

    /// Returns the mapped LPIs in ascending order.
    ///
    /// Context: any.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = (Lpi, EventRoute)> {
        self.provided().flatten().filter_map(|index| {
            let lpi = Lpi::from_index(index)?;
            Some((lpi, self.of(lpi)?))
        })
    }

    /// Returns the ranges of LPI indices for which memory has been allocated. LPIs outside these
    /// ranges are not mapped.
    ///
    /// Context: any.
    pub(crate) fn provided(&self) -> impl Iterator<Item = Range<u32>> {
        self.0.reserved().filter_map(|indices| {
            Some(u32::try_from(indices.start).ok()?..u32::try_from(indices.end).ok()?)
        })
    }

    fn word(&self, lpi: Lpi) -> Option<&AtomicU64> {
        self.0.get(lpi.index() as usize)
    }
}

pub(super) const EXCLUDED_REASON: &str = "the ITS does not reach it";

/// State of all collections. May be read in any context. Must only be changed with the command
/// queue's lock held.
#[derive(Debug)]
pub(crate) struct Collections {
    states: Vec<AtomicU64>,
    /// Collections below this number are held in the ITS itself and lost on power-down.
    in_hardware: u32,
}

/// A collection's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Binding {
    /// The collection's CPU is not a target of the ITS, and can't become one.
    Excluded,
    /// The collection's CPU is off.
    Unmapped,
    /// The collection maps to its CPU's redistributor.
    Mapped(RdBase),
    /// The collection still maps to the redistributor, but no more events may be moved to it.
    Leaving(RdBase),
}

const MAPPED: u64 = 1 << 62;
const LEAVING: u64 = 1 << 63;
const EXCLUDED: u64 = MAPPED | LEAVING;

impl Binding {
    fn pack(self) -> u64 {
        match self {
            Self::Excluded => EXCLUDED,
            Self::Unmapped => 0,
            Self::Mapped(target) => MAPPED | target.field(),
            Self::Leaving(target) => LEAVING | target.field(),
        }
    }

    fn unpack(word: u64) -> Self {
        let target = RdBase::from_field(word);
        match (word & MAPPED != 0, word & LEAVING != 0) {
            (true, true) => Self::Excluded,
            (true, false) => Self::Mapped(target),
            (false, true) => Self::Leaving(target),
            (false, false) => Self::Unmapped,
        }
    }

    fn target(self) -> Option<RdBase> {
        match self {
            Self::Excluded | Self::Unmapped => None,
            Self::Mapped(target) | Self::Leaving(target) => Some(target),
        }
    }
}

impl Collections {
    /// Creates the collections of CPUs below `cpus`, which must be at most 0xffff. If `targets` is
    /// given, only those CPUs can be mapped.
    pub(crate) fn new(
        cpus: u32,
        in_hardware: u32,
        targets: Option<&[Cpu]>,
    ) -> Result<Self, TryReserveError> {
        let states = try_collect((0..cpus).map(|cpu| {
            let reached = targets.is_none_or(|targets| targets.contains(&Cpu::new(cpu)));
            let binding = if reached { Binding::Unmapped } else { Binding::Excluded };
            AtomicU64::new(binding.pack())
        }))?;
        Ok(Self { states, in_hardware })
    }

    /// Returns an online CPU's collection and redistributor.
    pub(crate) fn of_cpu(&self, cpu: Cpu) -> Result<(CollectionId, RdBase), ItsError> {
        let collection = self.id(cpu)?;
        match self.binding(collection) {
            Binding::Mapped(target) => Ok((collection, target)),
            Binding::Excluded => Err(ItsError::NotReachable(cpu, EXCLUDED_REASON)),
            Binding::Unmapped => Err(ItsError::NotReachable(cpu, "it is off")),
            Binding::Leaving(_) => Err(ItsError::NotReachable(cpu, "it is going offline")),
        }
    }

    /// Returns the redistributor that a collection is mapped to.
    pub(crate) fn target(&self, collection: CollectionId) -> Option<RdBase> {
        self.binding(collection).target()
    }

    /// Returns the collection for the CPU with this redistributor, if the CPU is online.
    pub(crate) fn of_target(&self, target: RdBase) -> Option<CollectionId> {
        self.ids().find(|collection| self.binding(*collection) == Binding::Mapped(target))
    }

    /// Returns an arbitrary redistributor to which a collection is mapped.
    pub(crate) fn any_target(&self) -> Option<RdBase> {
        self.ids().find_map(|collection| self.target(collection))
    }

    /// Returns the online CPUs.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = Cpu> + Clone {
        self.ids().filter(|collection| self.target(*collection).is_some()).map(cpu_of)
    }

    /// Returns the number of collections.
    pub(crate) fn count(&self) -> usize {
        self.states.len()
    }

    pub(super) fn id(&self, cpu: Cpu) -> Result<CollectionId, ItsError> {
        match u16::try_from(cpu.get()) {
            Ok(number) if cpu.index() < self.states.len() => Ok(CollectionId::new(number)),
            _ => Err(ItsError::NotReachable(cpu, "it has no collection at this ITS")),
        }
    }

    fn ids(&self) -> impl Iterator<Item = CollectionId> + Clone + use<> {
        (0..u16::try_from(self.states.len()).unwrap_or(u16::MAX)).map(CollectionId::new)
    }

    pub(super) fn binding(&self, collection: CollectionId) -> Binding {
        self.states
            .get(usize::from(collection.get()))
            .map_or(Binding::Unmapped, |state| Binding::unpack(state.load(Ordering::SeqCst)))
    }

    pub(super) fn set(&self, collection: CollectionId, binding: Binding) {
        if let Some(state) = self.states.get(usize::from(collection.get())) {
            state.store(binding.pack(), Ordering::SeqCst);
        }
    }

    /// Returns the command that changes a collection's binding. The recorded state changes when the
    /// command enters the queue.
    pub(super) fn rebind(
        &self,
        collection: CollectionId,
        binding: Binding,
    ) -> impl Iterator<Item = Command> {
        core::iter::once_with(move || {
            self.set(collection, binding);
            let (target, action) = match binding.target() {
                Some(target) => (target, MapAction::Map),
                None => (RdBase::from_field(0), MapAction::Unmap),
            };
            Command::Mapc { collection, target, action }
        })
    }

    /// Returns the commands that restore the ITS after power loss: they map the collections that
    /// the ITS itself held, and invalidate all configurations cached by redistributors.
    pub(crate) fn recover(&self) -> impl Iterator<Item = Command> {
        let bound = || self.ids().filter_map(|id| self.target(id).map(|target| (id, target)));
        let lost = bound().filter(|(id, _)| u32::from(id.get()) < self.in_hardware);
        let map = lost.map(|(collection, target)| Command::Mapc {
            collection,
            target,
            action: MapAction::Map,
        });
        let reload = bound().flat_map(|(collection, target)| {
            [Command::Invall { collection }, Command::Sync { target }]
        });
        map.chain(reload)
    }
}

/// Returns a collection's CPU.
pub(super) fn cpu_of(collection: CollectionId) -> Cpu {
    Cpu::new(collection.get().into())
}

/// Permissions to use redistributor registers, indexed by CPU, and the number of moves in progress.
#[derive(Debug)]
pub(crate) struct RegisterInvalidation<P: GicPlatform> {
    gic: GicWithLpis<P>,
    access: Vec<RegisterAccess>,
    /// Number of moves whose commands the ITS may still execute.
    moves: AtomicU32,
}

impl<P: GicPlatform> RegisterInvalidation<P> {
    /// Creates the state for `cpus` CPUs, with all registers closed.
    pub(super) fn new(gic: GicWithLpis<P>, cpus: usize) -> Result<Self, TryReserveError> {
        let access = try_collect((0..cpus).map(|_| RegisterAccess::default()))?;
        Ok(Self { gic, access, moves: AtomicU32::new(0) })
    }

    /// Begins a move. Must be called before the route of an event changes. Invalidations use the
    /// queue until the move has [ended](Self::end_move).
    pub(super) fn begin_move(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends a move. The ITS must have executed either all commands of the move or none of them, and
    /// must not be able to execute any of them later.
    pub(super) fn end_move(&self) {
        self.moves.fetch_sub(1, Ordering::SeqCst);
    }

    /// Invalidates an LPI through its redistributor's register. Returns `None` if the register
    /// can't be used, or if a move is in progress, so that the caller must use INV.
    ///
    /// Context: any.
    pub(super) fn invalidate(&self, lpi: Lpi, routes: &EventRoutes) -> Option<()> {
        // A move that the count below does not include is posted after the new configuration was
        // stored.
        fence(Ordering::SeqCst);
        let cpu = cpu_of(routes.of(lpi)?.collection);
        if self.moves.load(Ordering::SeqCst) != 0 {
            return None;
        }
        let _user = self.access.get(cpu.index())?.enter()?;
        let redistributor = self.gic.redistributor_frames(cpu).ok()?;
        let one = core::iter::once(Invalidation::One(lpi));
        redistributor.invalidate(&**self.gic.platform(), one).ok()
    }

    /// Lets invalidations use the registers of an online CPU's redistributor, if it has the
    /// invalidation registers.
    pub(super) fn open(&self, cpu: Cpu) {
        let Some(access) = self.access.get(cpu.index()) else { return };
        let redistributor = self.gic.redistributor_frames(cpu);
        if redistributor.is_ok_and(crate::Redistributor::can_invalidate) {
            access.open();
        }
    }

    /// Calls [`open`](Self::open) for each of these CPUs.
    pub(super) fn open_all(&self, cpus: impl Iterator<Item = Cpu>) {
        cpus.for_each(|cpu| self.open(cpu));
    }

    /// Ends all use of a CPU's registers. The CPU's redistributor may then be put to sleep.
    ///
    /// # Errors
    /// [`TimedOut`] if a user does not finish. After this error, the registers are open again.
    pub(super) fn close(&self, cpu: Cpu) -> Result<(), TimedOut> {
        let Some(access) = self.access.get(cpu.index()) else { return Ok(()) };
        if !access.is_open() {
            return Ok(());
        }
        access.close();
        let unused = || !access.is_used();
        wait_until(&**self.gic.platform(), "the last user of its registers", unused)
            .inspect_err(|_| access.open())
    }

    /// Calls [`close`](Self::close) for each of these CPUs. On error, none of the CPUs' registers
    /// are closed.
    pub(super) fn close_all(
        &self,
        cpus: impl Iterator<Item = Cpu> + Clone,
    ) -> Result<(), TimedOut> {
        let closed = cpus.clone().try_for_each(|cpu| self.close(cpu));
        closed.inspect_err(|_| self.open_all(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packed_routes_round_trip(device: u32, event: u16, collection in 0..u16::MAX) {
            let route =
                EventRoute::new(DeviceId::new(device), event, CollectionId::new(collection));
            prop_assert_eq!(EventRoute::unpack(route.pack()), Some(route));
        }

        #[test]
        fn a_route_is_found_at_its_own_lpi_alone(index in 0..57_344_u32, other in 0..57_344_u32) {
            prop_assume!(index != other);
            let routes = EventRoutes::new(16).unwrap();
            let (lpi, other) = (Lpi::from_index(index).unwrap(), Lpi::from_index(other).unwrap());
            routes.reserve(lpi, 1).unwrap();
            routes.reserve(other, 1).unwrap();
            let route = EventRoute::new(DeviceId::new(1), 2, CollectionId::new(3));
            routes.set(lpi, Some(route));
            prop_assert_eq!((routes.of(lpi), routes.of(other)), (Some(route), None));
        }
    }

    #[test]
    fn reserve_covers_blocks_across_chunks() {
        let routes = EventRoutes::new(16).unwrap();
        let first = Lpi::from_index(1000).unwrap();
        routes.reserve(first, 2048).unwrap();
        let last = Lpi::from_index(1000 + 2047).unwrap();
        let route = EventRoute::new(DeviceId::new(1), 2, CollectionId::new(3));
        routes.set(last, Some(route));
        assert_eq!(routes.of(last), Some(route));
    }

    #[test]
    fn an_lpi_beyond_the_tables_has_no_route() {
        let routes = EventRoutes::new(14).unwrap();
        let beyond = Lpi::from_index(57_000).unwrap();
        routes.reserve(beyond, 1).unwrap();
        assert_eq!(routes.of(beyond), None);
    }
}
