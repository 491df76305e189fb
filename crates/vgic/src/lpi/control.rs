//! The command side of the LPI core: what the guest's commands and registers say, and how it is written into the slot
//! words. All of it under one lock.
//!
//! Every word is made from this state by [`Control::refresh`]; a command changes the state and refreshes the slots
//! that it concerns. Refreshing twice does no harm.

use super::by_lpi::SlotsByLpi;
use super::config::LpiConfig;
use super::directory::Place;
use super::mappings::{ItsIndex, MappedDevice};
use super::pool::{Owner, Pool};
use super::senders::{Growth, Senders};
use super::shared::{Injection, Location, Shared};
use super::slots::{Position, Slot};
use super::sweeps::{Cause, Sweep};
use super::tables::LpiTables;
use super::word::{Level, Word};
use crate::atomic::AtomicU64;
use crate::attention::{Attention, Recalls};
use crate::events::{Events, FaultReason, GuestFault};
use crate::memory::GuestMemory;
use crate::progress::Progress;
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use gic_arch::Lpi;
use gic_arch::lpi::Config;
use msi_types::Cpu;

/// The state under the command lock.
pub(crate) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<dyn GuestMemory>,
    pub(super) events: Arc<Events>,
    attention: Arc<Attention>,
    pub(super) config: LpiConfig,
    pub(super) pool: Pool,
    pub(super) by_lpi: SlotsByLpi,
    /// By vCPU: the tables, while its LPIs are enabled.
    pub(super) redistributors: Vec<Option<LpiTables>>,
    pub(super) translators: Vec<Translator>,
    owed: Owed,
    /// Do registers' sweeps go on?
    left: bool,
    /// Work in progress.
    pub(super) sweeps: BTreeMap<Cause, Sweep>,
    work: u64,
}

/// What one ITS's commands said.
pub(super) struct Translator {
    pub(super) enabled: bool,
    pub(super) senders: Arc<Senders>,
    pub(super) growth: Growth,
    /// Mapped devices.
    pub(super) devices: BTreeMap<u32, MappedDevice>,
    /// vCPUs of mapped collections.
    pub(super) collections: BTreeMap<u16, u16>,
}

/// Where a refresh takes enable and priority from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settings {
    /// From the word, unless it becomes deliverable: then from memory.
    Keep,
    /// From memory.
    Reload,
    /// These, from memory.
    Read(Config),
    /// From the word.
    Given,
}

/// Where an interrupt goes.
struct Route {
    /// To which vCPU.
    target: u32,
    /// Are the event and its collection mapped?
    is_mapped: bool,
    /// May messages pass, as far as the ITS is concerned?
    is_open: bool,
}

/// vCPUs to notify once the lock is released.
struct Owed(Box<[u64]>);

impl Owed {
    fn new(vcpus: u16) -> Self {
        Self(core::iter::repeat_n(0, usize::from(vcpus).div_ceil(64)).collect())
    }

    fn insert(&mut self, vcpu: u32) {
        if let Some(word) = self.0.get_mut((vcpu / 64) as usize) {
            *word |= 1 << (vcpu % 64);
        }
    }

    fn pop(&mut self) -> Option<u32> {
        let (word, base) = self.0.iter_mut().zip((0..).step_by(64)).find(|(word, _)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        Some(base + bit)
    }
}

impl Control {
    pub(super) fn new(
        config: LpiConfig,
        shared: Arc<Shared>,
        memory: Arc<dyn GuestMemory>,
        events: Arc<Events>,
        attention: Arc<Attention>,
    ) -> Self {
        Self {
            shared,
            memory,
            events,
            attention,
            config,
            pool: Pool::new(config.chunks(), config.nodes()),
            by_lpi: SlotsByLpi::new(config.lpis()),
            redistributors: core::iter::repeat_n(None, usize::from(config.vcpus)).collect(),
            translators: Vec::new(),
            owed: Owed::new(config.vcpus),
            left: false,
            sweeps: BTreeMap::new(),
            work: 0,
        }
    }

    /// Takes one vCPU that is to be notified.
    pub(super) fn pop_owed(&mut self) -> Option<u32> {
        self.owed.pop()
    }

    /// Slots visited so far: what a budget of work is measured by.
    pub(crate) const fn work(&self) -> u64 {
        self.work
    }

    /// Counts slots as visited.
    pub(super) fn count_work(&mut self, slots: u32) {
        self.work += u64::from(slots);
    }

    /// The memory that tables and commands lie in.
    pub(crate) fn memory(&self) -> &dyn GuestMemory {
        &*self.memory
    }

    /// Is this an LPI that the distributor implements?
    pub(crate) fn implements(&self, lpi: Lpi) -> bool {
        u64::from(lpi.get()) < 1 << self.config.id_bits
    }

    pub(super) fn owe(&mut self, written: Word, position: Position) {
        if let Some(vcpu) = self.shared.owe(written, position) {
            self.owed.insert(vcpu);
        }
    }

    /// A word was changed: if its LPI is in a list register, it is recalled.
    pub(super) fn recall(&mut self, old: Word) {
        let listed = old.is_listed() && Safeguard::Recall.stands();
        if listed && self.attention.recall(Cpu::new(old.target())) {
            self.owed.insert(old.target());
        }
    }

    /// Notes whether registers' sweeps go on.
    pub(super) fn note_registers(&mut self) {
        let progress = Progress::done(!self.sweeps.keys().any(|cause| !cause.is_commands()));
        self.attention.note_work(&mut self.left, progress);
    }

    /// The recalls so far.
    pub(crate) fn recalls(&self) -> Recalls {
        self.attention.recalls()
    }

    /// Is something that one of these recalled perhaps still in a list register?
    pub(crate) fn awaits(&self, recalls: Recalls) -> bool {
        self.attention.awaits(recalls)
    }

    pub(super) fn record(&self, reason: FaultReason, address: u64, detail: u64) {
        self.events.record(GuestFault { reason, address, detail });
    }

    /// A message, sent by a command.
    pub(super) fn inject(&mut self, sender: &AtomicU64, event: u32) -> Injection {
        let (injection, vcpu) = self.shared.inject(sender, event);
        if let Some(vcpu) = vcpu {
            self.owed.insert(vcpu);
        }
        injection
    }

    pub(super) fn tables(&self, vcpu: u32) -> Option<LpiTables> {
        self.redistributors.get(vcpu as usize).copied().flatten()
    }

    /// Visits every slot that somebody owns, in one go.
    pub(super) fn sweep(&mut self, mut each: impl FnMut(&mut Self, Slot)) {
        for chunk in 0..self.pool.chunk_count() {
            for (slot, _) in self.pool.owned_slots(chunk) {
                self.work += 1;
                each(self, slot);
            }
        }
    }

    /// Writes what the state says of a word's place into the word.
    pub(super) fn refresh(&mut self, location: Location, settings: Settings) {
        let position = self.shared.position(location);
        let now = self.shared.load(location);
        let Some(Route { target, is_mapped, is_open }) = self.route_of(location, now) else {
            return;
        };
        let covering = self.tables(target).filter(|tables| tables.covers(now.lpi()));
        let deliverable = is_open && covering.is_some();
        let (enabled, level) = match (covering, settings) {
            (Some(tables), Settings::Reload) => self.settings(&tables, now.lpi()),
            (Some(tables), Settings::Keep) if deliverable && !now.is_deliverable() => {
                self.settings(&tables, now.lpi())
            }
            (Some(_), Settings::Read(config)) => self.settings_of(config),
            _ => (now.is_enabled(), now.level()),
        };
        if enabled {
            self.shared.ensure_hints(target, level, position);
        }
        let is_event = matches!(location, Location::Slot(_));
        let brought = is_event && self.take_own(target, now.lpi_index());
        let (old, new) = self.shared.update(location, |word| {
            let kept = word
                .with_target(target)
                .with_level(level)
                .with_enabled(enabled)
                .with_mapped(is_mapped)
                .with_deliverable(deliverable);
            if covering.is_some() {
                kept.with_pending(word.is_pending() || word.is_held() || brought).with_held(false)
            } else {
                kept.cleared().with_held(word.is_pending_or_held() || brought)
            }
        });
        if old != new {
            self.recall(old);
        }
        let reloads = matches!(settings, Settings::Reload | Settings::Read(_));
        if (old != new || reloads) && Safeguard::Owing.stands() {
            self.owe(new, position);
        }
    }

    /// Where the state sends a word's interrupt; `None` if it maps nothing. An event whose collection
    /// is not mapped stays with the vCPU where it may be pending.
    fn route_of(&self, location: Location, now: Word) -> Option<Route> {
        let slot = match location {
            Location::Own { vcpu, index } => {
                let has_word = self.shared.own(vcpu)?.has(index);
                return has_word.then_some(Route { target: vcpu, is_mapped: true, is_open: true });
            }
            Location::Slot(slot) => slot,
        };
        let Owner::Event { its, collection } = self.pool.owner(slot) else { return None };
        let translator = self.translators.get(usize::from(its))?;
        let vcpu = translator.collections.get(&collection).copied();
        let is_going = self.is_sweeping(Cause::Teardown(ItsIndex::new(its)));
        let is_mapped = vcpu.is_some() && !is_going;
        Some(Route {
            target: vcpu.map_or(now.target(), u32::from),
            is_mapped,
            is_open: is_mapped && translator.enabled,
        })
    }

    /// Enable and level, from the configuration table. An LPI whose byte cannot be read is disabled.
    pub(super) fn settings(&self, tables: &LpiTables, lpi: Lpi) -> (bool, Level) {
        match tables.config(lpi, &*self.memory) {
            Ok(config) => self.settings_of(config),
            Err(fault) => {
                self.record(FaultReason::LpiTable, fault.address, u64::from(lpi.get()));
                (false, self.config.priorities.level(gic_arch::Priority::IDLE))
            }
        }
    }

    /// Enable and level, of a configuration byte.
    fn settings_of(&self, config: Config) -> (bool, Level) {
        (config.enable(), self.config.priorities.level(config.priority()))
    }

    /// Removes what is pending at a word's place. Was something?
    pub(super) fn clear(&mut self, location: Location) -> bool {
        let (old, _) = self.shared.update(location, Word::emptied);
        self.recall(old);
        old.is_pending_or_held()
    }

    /// Makes a word pending, or holds it until its target's LPIs are enabled.
    pub(super) fn pend(&mut self, location: Location) {
        self.shared.update(location, |word| word.with_held(true));
        self.refresh(location, Settings::Keep);
    }

    pub(super) fn find(&self, sender: &AtomicU64, event: u32) -> Option<Place> {
        self.shared.nodes.translate(sender, event)
    }
}
