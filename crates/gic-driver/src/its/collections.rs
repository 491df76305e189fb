//! Collections: the ITS's name for "delivered at that redistributor". One per CPU, with the CPU's number.
//!
//! # When a CPU leaves
//! The interrupt core owns affinities: it moves each vector that it knows by itself ([`Its::move_event`], one MOVI each,
//! which takes the pending state along). What nobody moved is still mapped to the leaving CPU's collection, and
//! [`Its::cpu_off`] sees to it that nothing is lost: it ties the whole collection to another redistributor (MAPC) and
//! moves what is pending (MOVALL). The collection stays *parked* there until the CPU is back, and takes no new events
//! meanwhile.

use super::Its;
use super::error::ItsError;
use crate::gic::RedistributorInfo;
use crate::platform::Platform;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use gic_arch::its::{CollectionId, Command, MapAction, RdBase};
use msi_types::Cpu;

/// The state of all collections. Read in any context; changed under the command queue's lock.
#[derive(Debug)]
pub(crate) struct Collections {
    states: Box<[AtomicU64]>,
    /// Collections below this lie in the ITS and are lost with its power.
    in_hardware: u32,
}

/// The state of one collection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tie {
    /// Its CPU was never on.
    Unmapped,
    /// To its own CPU.
    Home(RdBase),
    /// Its CPU is off: to somebody else's.
    Parked(RdBase),
}

const HOME: u64 = 1 << 62;
const PARKED: u64 = 1 << 63;

impl Tie {
    fn pack(self) -> u64 {
        match self {
            Self::Unmapped => 0,
            Self::Home(target) => HOME | target.field(),
            Self::Parked(target) => PARKED | target.field(),
        }
    }

    fn unpack(word: u64) -> Self {
        let target = RdBase::from_field(word);
        match (word & HOME != 0, word & PARKED != 0) {
            (true, _) => Self::Home(target),
            (false, true) => Self::Parked(target),
            (false, false) => Self::Unmapped,
        }
    }

    fn target(self) -> Option<RdBase> {
        match self {
            Self::Unmapped => None,
            Self::Home(target) | Self::Parked(target) => Some(target),
        }
    }
}

impl Collections {
    /// For CPUs below `cpus`, which is at most 0xffff.
    pub(crate) fn new(cpus: u32, in_hardware: u32) -> Self {
        let states = (0..cpus).map(|_| AtomicU64::new(Tie::Unmapped.pack())).collect();
        Self { states, in_hardware }
    }

    /// The collection of a CPU that is on.
    pub(crate) fn home(&self, cpu: Cpu) -> Result<(CollectionId, RdBase), ItsError> {
        let collection = self.id(cpu)?;
        match self.tie(collection) {
            Tie::Home(target) => Ok((collection, target)),
            Tie::Unmapped => Err(ItsError::NotReachable(cpu, "it was not brought up at this ITS")),
            Tie::Parked(_) => Err(ItsError::NotReachable(cpu, "it is off")),
        }
    }

    /// Where a collection's interrupts are delivered now.
    pub(crate) fn target(&self, collection: CollectionId) -> Option<RdBase> {
        self.tie(collection).target()
    }

    /// Some redistributor that is in use.
    pub(crate) fn any_target(&self) -> Option<RdBase> {
        self.ids().find_map(|collection| self.target(collection))
    }

    /// How many there are.
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

    fn tie(&self, collection: CollectionId) -> Tie {
        self.states
            .get(usize::from(collection.get()))
            .map_or(Tie::Unmapped, |state| Tie::unpack(state.load(Ordering::Acquire)))
    }

    fn set(&self, collection: CollectionId, tie: Tie) {
        if let Some(state) = self.states.get(usize::from(collection.get())) {
            state.store(tie.pack(), Ordering::Release);
        }
    }

    /// Commands that tie each of `changes` anew; the states change as the commands enter the queue.
    fn retie(&self, changes: Vec<(CollectionId, Tie)>) -> impl Iterator<Item = Command> {
        changes.into_iter().map(|(collection, tie)| {
            self.set(collection, tie);
            let (target, action) = match tie.target() {
                Some(target) => (target, MapAction::Map),
                None => (RdBase::from_field(0), MapAction::Unmap),
            };
            Command::Mapc { collection, target, action }
        })
    }

    /// Commands that make the ITS as it was before it lost its power: the collections that it held itself are mapped
    /// again, and every redistributor reads the LPIs' configuration anew.
    pub(crate) fn recover(&self) -> impl Iterator<Item = Command> {
        let tied = || self.ids().filter_map(|id| self.target(id).map(|target| (id, target)));
        let lost = tied().filter(|(id, _)| u32::from(id.get()) < self.in_hardware);
        let map =
            lost.map(|(collection, target)| Command::Mapc { collection, target, action: MapAction::Map });
        let home = tied().filter(|(id, _)| matches!(self.tie(*id), Tie::Home(_)));
        let reload =
            home.flat_map(|(collection, target)| [Command::Invall { collection }, Command::Sync { target }]);
        map.chain(reload)
    }
}

impl<P: Platform> Its<P> {
    /// Ties the CPU's collection to its redistributor, whose LPIs are enabled, and makes it read the configuration of
    /// all LPIs anew: it may remember what was true before it was off. Task, on any CPU.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is beyond [`ItsConfig::cpus`](super::ItsConfig::cpus), or
    /// [`ItsError::Fault`]: the CPU then counts as off.
    pub fn cpu_on(&self, redistributor: &RedistributorInfo) -> Result<(), ItsError> {
        let target = self.rd_base(redistributor);
        self.state.with(self.platform(), |_| {
            let collection = self.collections.id(redistributor.cpu)?;
            let old = self.collections.tie(collection);
            let reload = [Command::Invall { collection }, Command::Sync { target }];
            // Where it was parked, nothing new becomes pending.
            let away = old.target().filter(|away| *away != target);
            let tail = reload.into_iter().chain(away.map(|target| Command::Sync { target }));
            let changes = alloc::vec![(collection, Tie::Home(target))];
            let result = self.run(&mut self.collections.retie(changes).chain(tail));
            match result {
                Ok(()) => self.queue.trust(&self.frame, target),
                Err(_) => self.retie_back(alloc::vec![(collection, old)]),
            }
            result
        })
    }

    /// The CPU leaves: whatever is still mapped to it is delivered at `heir` from now on, and what is pending moves
    /// there. The CPU's redistributor is still awake. On return it gets nothing from this ITS any more. Task, on any
    /// CPU.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if `heir` is off itself or is the leaving CPU.
    pub fn cpu_off(&self, cpu: Cpu, heir: Cpu) -> Result<(), ItsError> {
        self.state.with(self.platform(), |_| {
            let (_, from) = self.collections.home(cpu)?;
            let (heirs, to) = self.collections.home(heir)?;
            if from == to {
                return Err(ItsError::NotReachable(heir, "it is the CPU that leaves"));
            }
            let all = || self.collections.ids().map(|id| (id, self.collections.tie(id)));
            // Others may be parked at the leaving CPU.
            let changes = all().filter(|(_, tie)| tie.target() == Some(from));
            let changes: Vec<_> = changes.map(|(id, _)| (id, Tie::Parked(to))).collect();
            let before: Vec<_> = all().filter(|(_, tie)| tie.target() == Some(from)).collect();
            // The heir may remember old configurations of the LPIs that it inherits.
            let tail = [
                Command::Invall { collection: heirs },
                Command::Movall { from, to },
                Command::Sync { target: from },
                Command::Sync { target: to },
            ];
            let result = self.run(&mut self.collections.retie(changes).chain(tail));
            if result.is_err() {
                self.retie_back(before);
            }
            result
        })
    }

    /// Undoes what may have been done. Commands that find no room change nothing, neither here nor there.
    fn retie_back(&self, before: Vec<(CollectionId, Tie)>) {
        if let Err(error) = self.run(&mut self.collections.retie(before)) {
            self.note(error);
        }
    }
}
