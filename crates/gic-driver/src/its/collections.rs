//! Collections: the ITS's name for "delivered at that redistributor". One per CPU, with the CPU's
//! number.
//!
//! # When a CPU leaves
//! The interrupt core owns affinities: it moves each vector that it knows by itself
//! ([`Its::move_event`]). [`Its::cpu_off`] moves the remaining events to an heir, with one MOVI
//! each in one batch. MOVI alone moves exactly one event with its pending state. The alternative,
//! to bind the whole collection to the heir's redistributor (MAPC) and sweep the pending states
//! (MOVALL), has two faults. When the collection goes back to its CPU, interrupts stay pending at
//! the heir, where neither DISCARD nor MOVI finds them any more. It also sweeps those of other
//! ITSes.

use super::Its;
use super::error::ItsError;
use super::routes::EventRoute;
use crate::platform::GicPlatform;
use crate::redistributor::Redistributor;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use gic_arch::Lpi;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::Cpu;

const EXCLUDED_REASON: &str = "the ITS does not reach it";

/// The state of all collections. Read in any context; changed under the command queue's lock.
#[derive(Debug)]
pub(crate) struct Collections {
    states: Vec<AtomicU64>,
    /// Collections below this lie in the ITS and are lost with its power.
    in_hardware: u32,
}

/// The state of one collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Binding {
    /// Its CPU is none of the ITS's targets, and never will be.
    Excluded,
    /// Its CPU is off.
    Unmapped,
    /// Maps to the redistributor of its CPU.
    Mapped(RdBase),
    /// Maps to it still; no further event is moved here.
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
    /// For CPUs below `cpus`, which is at most 0xffff; those of `targets` alone, where that is
    /// stated.
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

    /// The collection of a CPU that is on.
    pub(crate) fn of_cpu(&self, cpu: Cpu) -> Result<(CollectionId, RdBase), ItsError> {
        let collection = self.id(cpu)?;
        match self.binding(collection) {
            Binding::Mapped(target) => Ok((collection, target)),
            Binding::Excluded => Err(ItsError::NotReachable(cpu, EXCLUDED_REASON)),
            Binding::Unmapped => Err(ItsError::NotReachable(cpu, "it is off")),
            Binding::Leaving(_) => Err(ItsError::NotReachable(cpu, "it is leaving")),
        }
    }

    /// The redistributor that a collection is mapped to.
    pub(crate) fn target(&self, collection: CollectionId) -> Option<RdBase> {
        self.binding(collection).target()
    }

    /// The collection of the CPU that has this redistributor, if it is on.
    pub(crate) fn of_target(&self, target: RdBase) -> Option<CollectionId> {
        self.ids().find(|collection| self.binding(*collection) == Binding::Mapped(target))
    }

    /// Any redistributor that a collection is mapped to.
    pub(crate) fn any_target(&self) -> Option<RdBase> {
        self.ids().find_map(|collection| self.target(collection))
    }

    /// Number of collections.
    pub(crate) fn count(&self) -> usize {
        self.states.len()
    }

    fn id(&self, cpu: Cpu) -> Result<CollectionId, ItsError> {
        match u16::try_from(cpu.get()) {
            Ok(number) if cpu.index() < self.states.len() => Ok(CollectionId::new(number)),
            _ => Err(ItsError::NotReachable(cpu, "it has no collection at this ITS")),
        }
    }

    fn ids(&self) -> impl Iterator<Item = CollectionId> + use<> {
        (0..u16::try_from(self.states.len()).unwrap_or(u16::MAX)).map(CollectionId::new)
    }

    fn binding(&self, collection: CollectionId) -> Binding {
        self.states
            .get(usize::from(collection.get()))
            .map_or(Binding::Unmapped, |state| Binding::unpack(state.load(Ordering::Acquire)))
    }

    fn set(&self, collection: CollectionId, binding: Binding) {
        if let Some(state) = self.states.get(usize::from(collection.get())) {
            state.store(binding.pack(), Ordering::Release);
        }
    }

    /// The command that binds a collection anew; its state changes as the command enters the queue.
    fn rebind(&self, collection: CollectionId, binding: Binding) -> impl Iterator<Item = Command> {
        core::iter::once_with(move || {
            self.set(collection, binding);
            let (target, action) = match binding.target() {
                Some(target) => (target, MapAction::Map),
                None => (RdBase::from_field(0), MapAction::Unmap),
            };
            Command::Mapc { collection, target, action }
        })
    }

    /// Commands that make the ITS as it was before it lost its power: the collections that it held
    /// itself are mapped again, and every redistributor reads the LPIs' configuration anew.
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

impl<P: GicPlatform> Its<P> {
    /// Maps the CPU's collection to its redistributor, and makes that read the configuration of all
    /// LPIs anew: it may have cached configurations of before it was off.
    /// [`Gic::cpu_on`](crate::Gic::cpu_on) came first. Task, on any CPU.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is none of
    /// [`ItsConfig::targets`](super::ItsConfig::targets), not on at the GIC, its redistributor
    /// takes no LPIs, or it is beyond [`ItsConfig::cpus`](super::ItsConfig::cpus).
    /// [`ItsError::Fault`]: the CPU then counts as it did before.
    pub fn cpu_on(&self, cpu: Cpu) -> Result<(), ItsError> {
        let target = self.rd_base(self.ready_redistributor(cpu)?);
        self.state.with(self.platform(), |_| {
            let collection = self.collections.id(cpu)?;
            let old = self.collections.binding(collection);
            if old == Binding::Excluded {
                return Err(ItsError::NotReachable(cpu, EXCLUDED_REASON));
            }
            let reload = [Command::Invall { collection }, Command::Sync { target }];
            let result = self.run(
                &mut self.collections.rebind(collection, Binding::Mapped(target)).chain(reload),
            );
            match result {
                Ok(()) => self.queue.set_verified_target(&self.frame, target),
                Err(_) => self.undo_rebind(collection, old),
            }
            result
        })
    }

    /// Takes a CPU offline: events that are still mapped to it move to `heir`, with their pending
    /// states, and are returned. On return this ITS sends nothing more to its redistributor, which
    /// must be awake until then. Task, on any CPU.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if either CPU is off, or they are the same;
    /// [`ItsError::NoMemory`]: nothing is done.
    /// [`ItsError::Fault`]: the CPU counts as on then; events that moved already stay at the heir
    /// ([`event_of`](Self::event_of)).
    pub fn cpu_off(&self, cpu: Cpu, heir: Cpu) -> Result<Vec<Lpi>, ItsError> {
        self.state.with(self.platform(), |_| {
            let (leaving, from) = self.collections.of_cpu(cpu)?;
            let (heirs, to) = self.collections.of_cpu(heir)?;
            if leaving == heirs {
                return Err(ItsError::NotReachable(heir, "it is the CPU that leaves"));
            }
            // In the queue's order: a later move to this CPU is refused, an earlier one is found in
            // the routes.
            self.queue
                .in_order(&self.frame, || self.collections.set(leaving, Binding::Leaving(from)));
            let Ok(mut left) = self.routes.mapped_to(leaving) else {
                self.queue
                    .in_order(&self.frame, || self.collections.set(leaving, Binding::Mapped(from)));
                return Err(ItsError::NoMemory("a list of a CPU's events"));
            };
            let result = self.run(&mut self.evacuate(&left, (leaving, from), (heirs, to)));
            if let Err(error) = result {
                self.undo_rebind(leaving, Binding::Mapped(from));
                return Err(error);
            }
            left.retain(|lpi| self.routes.of(*lpi).is_some_and(|route| route.collection == heirs));
            Ok(left)
        })
    }

    /// Moves all pending LPIs of one CPU's redistributor to another's, those of other ITSes too,
    /// and changes no event. For software that retargets events by other means. Task.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`], [`ItsError::Fault`].
    pub fn move_all_pending(&self, from: Cpu, to: Cpu) -> Result<(), ItsError> {
        self.state.with(self.platform(), |_| {
            let ((_, from), (collection, to)) =
                (self.collections.of_cpu(from)?, self.collections.of_cpu(to)?);
            let sync = |target| Command::Sync { target };
            let moved = [
                Command::Movall { from, to },
                Command::Invall { collection },
                sync(from),
                sync(to),
            ];
            self.run(&mut moved.into_iter())
        })
    }

    /// The redistributor of a CPU that takes LPIs.
    fn ready_redistributor(&self, cpu: Cpu) -> Result<&Redistributor<P::Mmio>, ItsError> {
        let refused = |reason| Err(ItsError::NotReachable(cpu, reason));
        let Ok(redistributor) = self.gic.redistributor_frames(cpu) else {
            return refused("it has no redistributor");
        };
        if !self.gic.is_on(cpu) {
            return refused("its GIC has not turned it on");
        }
        if !redistributor.lpis_enabled() {
            return refused("its redistributor takes no LPIs");
        }
        Ok(redistributor)
    }

    /// Commands that move these events from one collection to another, and unmap the former.
    fn evacuate(
        &self,
        events: &[Lpi],
        (leaving, from): (CollectionId, RdBase),
        (heirs, to): (CollectionId, RdBase),
    ) -> impl Iterator<Item = Command> {
        let moves = events.iter().filter_map(move |lpi| {
            let route = self.routes.of(*lpi).filter(|route| route.collection == leaving)?;
            self.routes.set(*lpi, Some(EventRoute { collection: heirs, ..route }));
            Some(Command::Movi { device: route.device, event: route.event_id(), collection: heirs })
        });
        // The heir may have cached old configurations of the LPIs that it gets.
        let reload = [
            Command::Invall { collection: heirs },
            Command::Sync { target: from },
            Command::Sync { target: to },
        ];
        moves.chain(reload).chain(self.collections.rebind(leaving, Binding::Unmapped))
    }

    /// Undoes a rebinding that may have been queued. A command that found no room has changed
    /// nothing.
    fn undo_rebind(&self, collection: CollectionId, before: Binding) {
        if self.collections.binding(collection) == before {
            return;
        }
        if let Err(error) = self.run(&mut self.collections.rebind(collection, before)) {
            self.note(error);
        }
    }
}
