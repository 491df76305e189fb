//! Collections: the ITS's name for "delivered at that redistributor". One per CPU, with the CPU's
//! number.

use super::error::ItsError;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::Cpu;

pub(super) const EXCLUDED_REASON: &str = "the ITS does not reach it";

/// The state of all collections. Read in any context; changed under the command queue's lock.
#[derive(Debug)]
pub(crate) struct Collections {
    states: Vec<AtomicU64>,
    /// Collections below this lie in the ITS and are lost with its power.
    in_hardware: u32,
}

/// The state of one collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Binding {
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

    /// Returns the CPUs that are on.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = Cpu> {
        self.ids().filter(|collection| self.target(*collection).is_some()).map(cpu_of)
    }

    /// Number of collections.
    pub(crate) fn count(&self) -> usize {
        self.states.len()
    }

    pub(super) fn id(&self, cpu: Cpu) -> Result<CollectionId, ItsError> {
        match u16::try_from(cpu.get()) {
            Ok(number) if cpu.index() < self.states.len() => Ok(CollectionId::new(number)),
            _ => Err(ItsError::NotReachable(cpu, "it has no collection at this ITS")),
        }
    }

    fn ids(&self) -> impl Iterator<Item = CollectionId> + use<> {
        (0..u16::try_from(self.states.len()).unwrap_or(u16::MAX)).map(CollectionId::new)
    }

    pub(super) fn binding(&self, collection: CollectionId) -> Binding {
        self.states
            .get(usize::from(collection.get()))
            .map_or(Binding::Unmapped, |state| Binding::unpack(state.load(Ordering::Acquire)))
    }

    pub(super) fn set(&self, collection: CollectionId, binding: Binding) {
        if let Some(state) = self.states.get(usize::from(collection.get())) {
            state.store(binding.pack(), Ordering::Release);
        }
    }

    /// The command that binds a collection anew; its state changes as the command enters the queue.
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

    /// Commands that make the ITS as it was before it lost its power. The collections that it held
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

/// Returns the CPU of a collection.
pub(super) fn cpu_of(collection: CollectionId) -> Cpu {
    Cpu::new(collection.get().into())
}
