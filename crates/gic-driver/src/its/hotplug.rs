//! CPU hotplug.
//!
//! # When a CPU goes offline
//! The interrupt core owns affinities, and moves its vectors away from the CPU one by one
//! ([`Its::move_event`]). [`Its::cpu_off`] then moves the remaining events to another CPU, the
//! *heir*, in one batch with a MOVI for each event. Only MOVI moves exactly one event, along with
//! its pending state. The alternative would be to bind the whole collection to the heir's
//! redistributor (MAPC) and to move all pending state (MOVALL), but this has two problems. Once the
//! collection is bound to its own CPU again, interrupts may still be pending at the heir, where
//! neither DISCARD nor MOVI finds them. In addition, MOVALL moves the pending LPIs of other ITSes.

use super::Its;
use super::error::ItsError;
use super::routes::{Binding, EXCLUDED_REASON, EventRoute, EventRoutes};
use crate::platform::GicPlatform;
use crate::redistributor::Redistributor;
use alloc::vec::Vec;
use core::ops::Range;
use gic_arch::Lpi;
use gic_arch::its::{CollectionId, Command, RdBase};
use msi_types::Cpu;

impl<P: GicPlatform> Its<P> {
    /// Maps the CPU's collection to its redistributor and invalidates all configurations cached
    /// there, which may date from before the CPU was turned off.
    /// [`Gic::cpu_on`](crate::Gic::cpu_on) must have been called for the CPU before. May be called
    /// on any CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is not one of the
    /// [targets](super::ItsConfig::with_targets), is off at the GIC, has a redistributor with LPIs
    /// disabled, or is beyond the configuration's number of CPUs.
    /// [`ItsError::Fault`] if a command fails. On error, the state of the CPU does not change.
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
                Ok(()) => {
                    self.queue.set_verified_target(&self.frame, target);
                    self.invalidation.open(cpu);
                }
                Err(_) => self.undo_rebind(collection, old),
            }
            result
        })
    }

    /// Takes a CPU offline. Events that are still mapped to the CPU move to `heir` along with their
    /// pending state. Returns their LPIs. The CPU's redistributor must stay awake until this
    /// returns; afterwards this ITS no longer accesses it. May be called on any CPU.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if either CPU is off, or if they are the same;
    /// [`ItsError::NoMemory`]. After these errors, nothing has changed. [`ItsError::Fault`] if a
    /// command fails; the CPU then still counts as online, but events that have already moved stay
    /// at the heir ([`event_of`](Self::event_of)).
    pub fn cpu_off(&self, cpu: Cpu, heir: Cpu) -> Result<Vec<Lpi>, ItsError> {
        self.state.with(self.platform(), |_| {
            let (leaving, from) = self.collections.of_cpu(cpu)?;
            let (heirs, to) = self.collections.of_cpu(heir)?;
            if leaving == heirs {
                return Err(ItsError::NotReachable(heir, "it is the CPU that goes offline"));
            }
            self.invalidation.close(cpu).map_err(|late| self.still_used(late))?;
            // Change the binding with the queue's lock held: a later move to this CPU is refused,
            // and the event of an earlier one is found in the routes.
            self.queue
                .in_order(&self.frame, || self.collections.set(leaving, Binding::Leaving(from)));
            let Ok(mut left) = self.routes.mapped_to(leaving) else {
                self.queue
                    .in_order(&self.frame, || self.collections.set(leaving, Binding::Mapped(from)));
                self.invalidation.open(cpu);
                return Err(ItsError::NoMemory("a list of a CPU's events"));
            };
            // Don't call `end_move` after a failure, because the ITS may still execute the commands
            // later.
            self.invalidation.begin_move();
            let result = self.run(&mut self.evacuate(&left, (leaving, from), (heirs, to)));
            if let Err(error) = result {
                self.undo_rebind(leaving, Binding::Mapped(from));
                self.invalidation.open(cpu);
                return Err(error);
            }
            self.invalidation.end_move();
            left.retain(|lpi| self.routes.of(*lpi).is_some_and(|route| route.collection == heirs));
            Ok(left)
        })
    }

    /// Moves all pending LPIs from one CPU's redistributor to another's, including those from other
    /// ITSes. The mapping of events is not changed. This is intended for software that retargets
    /// events by other means.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if either CPU is off; [`ItsError::Fault`] if a command fails.
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

    /// Returns a CPU's redistributor if the CPU is on and its LPIs are enabled.
    fn ready_redistributor(&self, cpu: Cpu) -> Result<&Redistributor<P::Mmio>, ItsError> {
        let refused = |reason| Err(ItsError::NotReachable(cpu, reason));
        let Ok(redistributor) = self.gic.redistributor_frames(cpu) else {
            return refused("it has no redistributor");
        };
        if !self.gic.is_on(cpu) {
            return refused("its GIC has not turned it on");
        }
        if !redistributor.lpis_enabled() {
            return refused("LPIs are off at its redistributor");
        }
        Ok(redistributor)
    }

    /// Returns the commands that move these events from one collection to another, and unmap the
    /// old one.
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
        // The heir's redistributor may have old configurations for these LPIs cached.
        let reload = [
            Command::Invall { collection: heirs },
            Command::Sync { target: from },
            Command::Sync { target: to },
        ];
        moves.chain(reload).chain(self.collections.rebind(leaving, Binding::Unmapped))
    }

    /// Restores a collection's binding after commands that change it may have been queued. If its
    /// command was never created because the ring was full, the binding has not changed.
    fn undo_rebind(&self, collection: CollectionId, before: Binding) {
        if self.collections.binding(collection) == before {
            return;
        }
        if let Err(error) = self.run(&mut self.collections.rebind(collection, before)) {
            self.note(error);
        }
    }
}

/// Number of LPIs examined per pass. The limit bounds the time for which a pass holds the queue's
/// lock, and ensures that the commands of a pass fit in the smallest queue.
const LPIS_PER_PASS: u32 = 64;

impl<P: GicPlatform> Its<P> {
    /// Resends every event that is mapped to `cpu` and returns the number of events. Callers must
    /// call this function after [`cpu_on`](Self::cpu_on) or [`resume`](Self::resume) if the
    /// redistributor [lost](crate::lpi::PendingLpis::Lost) its pending LPIs, because the messages
    /// that were pending at the redistributor are not recorded anywhere else. If a device sent no
    /// message, its handler runs once spuriously. A masked event stays pending until it is
    /// unmasked. The CPU must not go offline concurrently, and its events must not move.
    ///
    /// No lock is held throughout: LPIs are examined in passes, and each pass holds the queue's
    /// lock for a bounded number of LPIs.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is off at this ITS. [`ItsError::Fault`] if a command
    /// failed; this is the first failure, but all LPIs were examined. The call may be repeated.
    pub fn resend(&self, cpu: Cpu) -> Result<u32, ItsError> {
        let (collection, target) = self.collections.of_cpu(cpu)?;
        let (mut resent, mut result) = (0, Ok(()));
        for pass in passes(&self.routes) {
            let events = pass.filter_map(|index| self.int(collection, index));
            // Most passes find no events, so check for events before taking the lock.
            if events.clone().next().is_none() {
                continue;
            }
            let counted = events.inspect(|_| resent += 1);
            result = result.and(self.run(&mut counted.chain([Command::Sync { target }])));
        }
        result.map(|()| resent)
    }

    /// Returns the INT command for an LPI's event, if it is mapped to this collection.
    fn int(&self, collection: CollectionId, index: u32) -> Option<Command> {
        let route = self.routes.of(Lpi::from_index(index)?)?;
        let here = route.collection == collection;
        here.then(|| Command::Int { device: route.device, event: route.event_id() })
    }
}

/// Returns the LPIs that may be mapped, split into passes.
fn passes(routes: &EventRoutes) -> impl Iterator<Item = Range<u32>> {
    routes.provided().flat_map(|lpis| {
        let (start, end) = (lpis.start, lpis.end);
        let of = move |first: u32| first..first.saturating_add(LPIS_PER_PASS).min(end);
        (start..end).step_by(LPIS_PER_PASS as usize).map(of)
    })
}
