//! The command side of the LPI core: what the guest's commands and registers say, and how it is written into the slot
//! words. All of it under one lock.
//!
//! Every word is made from this state by [`Control::refresh`]; a command changes the state and refreshes the slots
//! that it concerns. Refreshing twice does no harm.

use super::config::LpiConfig;
use super::directory::Place;
use super::mappings::{ItsIndex, MappedDevice};
use super::pool::{Cold, Owner, Pool};
use super::senders::{Growth, Senders};
use super::shared::{Injection, Shared};
use super::slots::{Position, Slot};
use super::sweeps::{Cause, Sweep};
use super::tables::LpiTables;
use super::word::{Gate, Level, Word};
use crate::atomic::AtomicU64;
use crate::attention::{Attention, Recalls};
use crate::events::{Events, FaultReason, GuestFault};
use crate::memory::GuestMemory;
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use gic_arch::Lpi;
use msi_types::Cpu;

/// The state under the command lock.
pub(crate) struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) memory: Arc<dyn GuestMemory>,
    pub(super) events: Arc<Events>,
    attention: Arc<Attention>,
    pub(super) config: LpiConfig,
    pub(super) pool: Pool,
    /// By vCPU: the tables, while its LPIs are enabled.
    pub(super) redistributors: Vec<Option<LpiTables>>,
    pub(super) translators: Vec<Translator>,
    /// By vCPU: chunks that its redistributor holds by itself.
    pub(super) own_chunks: Vec<u32>,
    owed: Owed,
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
    /// From the word.
    Given,
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
            redistributors: core::iter::repeat_n(None, usize::from(config.vcpus)).collect(),
            translators: Vec::new(),
            own_chunks: core::iter::repeat_n(0, usize::from(config.vcpus)).collect(),
            owed: Owed::new(config.vcpus),
            sweeps: BTreeMap::new(),
            work: 0,
        }
    }

    /// A vCPU is to be notified once the lock is released.
    pub(super) fn owe_notification(&mut self, vcpu: u32) {
        self.owed.insert(vcpu);
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
    pub(super) fn sweep(&mut self, mut each: impl FnMut(&mut Self, Slot, Cold)) {
        for chunk in 0..self.pool.chunk_count() {
            for (slot, cold) in self.pool.owned_slots(chunk) {
                self.work += 1;
                each(self, slot, cold);
            }
        }
    }

    /// Writes what the state says of a slot into its word.
    pub(super) fn refresh(&mut self, slot: Slot, settings: Settings) {
        let position = slot.position();
        let cold = self.pool.cold(slot);
        let now = self.shared.slots.load(position);
        let Some((target, gate)) = self.target_of(cold.owner, now) else {
            return;
        };
        let covering = self.tables(target).filter(|tables| tables.covers(now.lpi()));
        let gate = if gate == Gate::Open && covering.is_none() { Gate::Closed } else { gate };
        let reload = match settings {
            Settings::Keep => gate == Gate::Open && !now.is_deliverable(),
            Settings::Reload => true,
            Settings::Given => false,
        };
        let (enabled, level) = match covering {
            Some(tables) if reload => self.settings(&tables, now.lpi()),
            _ => (now.is_enabled(), now.level()),
        };
        self.shared.ensure_hints(target, level, position);
        let (old, new) = self.shared.slots.update(position, |word| {
            let kept = word
                .with_target(target)
                .with_level(level)
                .with_enabled(enabled)
                .with_gate(gate)
                .with_pending(covering.is_some() && (word.is_pending() || cold.held));
            if covering.is_some() { kept } else { kept.cleared() }
        });
        let held = covering.is_none() && (old.is_pending_anywhere() || cold.held);
        self.pool.set_cold(slot, Cold { held, ..cold });
        if old != new {
            self.recall(old);
        }
        if (old != new || settings == Settings::Reload) && Safeguard::Owing.stands() {
            self.owe(new, position);
        }
    }

    /// Which vCPU a slot is for, and what the ITS says of its messages; `None` if it maps nothing. An event whose
    /// collection is not mapped stays with the vCPU where it may be pending.
    fn target_of(&self, owner: Owner, now: Word) -> Option<(u32, Gate)> {
        match owner {
            Owner::Nobody => None,
            Owner::Redistributor(vcpu) => Some((u32::from(vcpu), Gate::Open)),
            Owner::Event { its, collection } => {
                let translator = self.translators.get(usize::from(its))?;
                let vcpu = translator.collections.get(&collection).copied();
                let gate = match vcpu {
                    _ if self.is_sweeping(Cause::Teardown(ItsIndex::new(its))) => Gate::NoEvent,
                    None => Gate::NoCollection,
                    Some(_) if translator.enabled => Gate::Open,
                    Some(_) => Gate::Closed,
                };
                Some((vcpu.map_or(now.target(), u32::from), gate))
            }
        }
    }

    /// Enable and level, from the configuration table. An LPI whose byte cannot be read is disabled.
    pub(super) fn settings(&self, tables: &LpiTables, lpi: Lpi) -> (bool, Level) {
        match tables.config(lpi, &*self.memory) {
            Ok(config) => (config.enable(), self.config.priorities.level(config.priority())),
            Err(fault) => {
                self.record(FaultReason::LpiTable, fault.address, u64::from(lpi.get()));
                (false, self.config.priorities.level(gic_arch::Priority::IDLE))
            }
        }
    }

    /// Removes the pending state of a slot.
    pub(super) fn clear_slot(&mut self, slot: Slot) -> bool {
        let cold = self.pool.cold(slot);
        self.pool.set_cold(slot, Cold { held: false, ..cold });
        let (old, _) = self.shared.slots.update(slot.position(), Word::cleared);
        self.recall(old);
        old.is_pending_anywhere() || cold.held
    }

    /// Makes a slot pending, or holds it until its target's LPIs are enabled.
    pub(super) fn pend_slot(&mut self, slot: Slot) {
        let cold = self.pool.cold(slot);
        self.pool.set_cold(slot, Cold { held: true, ..cold });
        self.refresh(slot, Settings::Keep);
    }

    pub(super) fn find(&self, sender: &AtomicU64, event: u32) -> Option<Place> {
        self.shared.nodes.translate(sender, event)
    }
}
