//! Saves and restores wired interrupts as plain data.

use super::Wired;
use super::index::WiredIndex;
use super::interrupt::InterruptWord;
use super::interrupt_table::{Bank, reset_state};
use super::routes::route_of;
use crate::config::{SecurityView, VgicConfig};
use crate::saved_state::{InterruptState, Problem};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use doorbell_fallible::{OutOfMemory, try_collect};
use gic_arch::gicd::Irouter;
use gic_arch::{Affinity, IntIdClass, Priority};
use msi_types::Cpu;

impl Wired {
    /// Returns the interrupts in a bank that aren't in their reset state, in INTID order. Reads
    /// each interrupt once, so that its saved state is consistent.
    pub(crate) fn save(
        &self,
        config: &VgicConfig,
        bank: Bank,
    ) -> Result<Vec<InterruptState>, OutOfMemory> {
        let routes = self.routes.lock();
        let target = bank.target_after_reset(self.affinities.resolve(Irouter::new()));
        let indices = self.interrupts.indices(bank).filter_map(|index| {
            let unrouted = Irouter::new().affinity();
            let state = self.state(bank.owner(), index);
            let saved = self.record(index, state, routes.get(index).unwrap_or(unrouted));
            let untouched = reset_state(config, index, InterruptWord::new(), target);
            let untouched = self.record(index, untouched, unrouted);
            (saved != untouched).then_some(saved)
        });
        Ok(try_collect(indices)?)
    }

    fn record(&self, index: WiredIndex, state: InterruptWord, route: Affinity) -> InterruptState {
        InterruptState {
            intid: index.intid(),
            group1: state.group1(),
            enabled: state.enabled(),
            priority: state.priority_value(),
            edge: state.edge(),
            latch: state.latch(),
            line: state.line(),
            message: state.message(),
            active: state.active(),
            active_at: state.taker().filter(|_| state.active()).and_then(|cpu| self.affinity(cpu)),
            route: route_of(route, state).into_bits(),
            chosen: state.target().filter(|_| state.any()).and_then(|cpu| self.affinity(cpu)),
        }
    }

    /// Returns a vCPU's affinity.
    pub(crate) fn affinity(&self, cpu: Cpu) -> Option<Affinity> {
        self.private(cpu).map(|private| private.affinity)
    }

    /// Returns the vCPU with this affinity.
    pub(crate) fn cpu_at(&self, affinity: Affinity) -> Option<Cpu> {
        self.affinities.cpu_at(affinity)
    }

    /// Looks up the vCPU for an affinity in a saved field.
    pub(crate) fn named_cpu(
        &self,
        field: &'static str,
        affinity: Affinity,
    ) -> Result<Cpu, Problem> {
        self.cpu_at(affinity).ok_or(Problem::NoSuchCpu { field, cpu: affinity })
    }

    /// Lowers all lines in a bank without notifying anybody.
    pub(crate) fn lower_lines(&self, bank: Bank) {
        for index in self.interrupts.indices(bank) {
            if let Some(interrupt) = self.interrupts.get(bank.owner(), index) {
                interrupt.update(|state| state.with_line(false));
            }
        }
    }

    /// Restores an interrupt that was just reset. Doesn't notify its target yet.
    pub(crate) fn restore(
        &self,
        config: &VgicConfig,
        bank: Bank,
        saved: &InterruptState,
    ) -> Result<(), Problem> {
        let index = self.interrupts.index(saved.intid).ok_or(Problem::Unknown)?;
        let right_bank = match bank {
            Bank::Shared => saved.intid.is_shared(),
            Bank::Private(_) => saved.intid.is_private(),
        };
        if !right_bank {
            return Err(Problem::Unknown);
        }
        let priority = Priority::new(saved.priority).truncated(config.priority_bits.into());
        Problem::unless(priority.get() == saved.priority, "priority", saved.priority)?;
        let is_sgi = saved.intid.class() == IntIdClass::Sgi;
        let trigger = config.allows_trigger(saved.intid, saved.edge);
        Problem::unless(trigger, "trigger", saved.edge)?;
        Problem::unless(!saved.line || !is_sgi, "line", saved.line)?;
        let messages = bank == Bank::Shared && config.message_based_spis;
        Problem::unless(!saved.message || messages, "message level", saved.message)?;
        let state = self.aimed(bank, saved)?;
        self.check_security(config, bank, index, state)?;
        if let Some(interrupt) = self.interrupts.get(bank.owner(), index) {
            interrupt.update(|before| state.linked_as(before));
        }
        self.routes.lock().set(index, Irouter::from(saved.route).affinity());
        Ok(())
    }

    /// Builds the interrupt's word. All fields except references to vCPUs must have been validated.
    fn aimed(&self, bank: Bank, saved: &InterruptState) -> Result<InterruptWord, Problem> {
        let route = Irouter::from(saved.route);
        let valid = match bank {
            Bank::Shared => self.routes.valid(route).into_bits() == saved.route,
            Bank::Private(_) => saved.route == 0,
        };
        Problem::unless(valid, "route", saved.route)?;
        let target = match (bank, saved.chosen) {
            (Bank::Shared, Some(cpu)) if route.any_participating() => {
                InterruptWord::index_of(self.named_cpu("chosen CPU", cpu)?)
            }
            (_, Some(cpu)) => return Err(Problem::NoSuchCpu { field: "chosen CPU", cpu }),
            (_, None) => bank.target_after_reset(self.affinities.resolve(route)),
        };
        let state = InterruptWord::new()
            .with_latch(saved.latch)
            .with_line(saved.line)
            .with_message(saved.message)
            .with_edge(saved.edge)
            .with_enabled(saved.enabled)
            .with_active(saved.active)
            .with_group1(saved.group1)
            .with_any(route.any_participating())
            .with_priority_value(saved.priority)
            .with_target_index(target);
        let Some(affinity) = saved.active_at else { return Ok(state) };
        let taker = self.named_cpu("active CPU", affinity)?;
        let possible = saved.active && (bank == Bank::Shared || bank.owner() == taker);
        if possible {
            // The running priority isn't saved, so use the interrupt's priority instead.
            Ok(state.with_taker(taker).running_at(saved.priority))
        } else {
            Err(Problem::NoSuchCpu { field: "active CPU", cpu: affinity })
        }
    }

    /// Validates the group and the priority of an interrupt in the Non-secure view: firmware has
    /// assigned the groups, and the guest can only use its own half of the priorities.
    fn check_security(
        &self,
        config: &VgicConfig,
        bank: Bank,
        index: WiredIndex,
        state: InterruptWord,
    ) -> Result<(), Problem> {
        if config.security == SecurityView::Single {
            return Ok(());
        }
        let secure = config.secure_interrupts.contains(&index.intid());
        Problem::unless(state.group1() != secure, "group", state.group1())?;
        let own_half = secure || Priority::from_non_secure_view(0) <= state.priority();
        Problem::unless(own_half, "priority", state.priority_value())?;
        let untouched = reset_state(
            config,
            index,
            state,
            bank.target_after_reset(self.affinities.resolve(Irouter::new())),
        );
        Problem::unless(!secure || state.with_latch(false) == untouched, "state", state.into_bits())
    }

    /// Restores the stored bits of `GICD_CTLR`.
    pub(crate) fn restore_control(&self, control: u32) {
        self.control.store(control, SeqCst);
    }

    /// Restores a PE's [`participation`](super::participation). Must be called before
    /// the restored interrupts are settled.
    pub(crate) fn restore_participation(&self, cpu: Cpu, bits: u32) {
        if let Some(private) = self.private(cpu) {
            private.participation.store(bits, SeqCst);
        }
    }

    /// Notifies the targets of ready interrupts. Must be called after the whole state is restored.
    pub(crate) fn settle_restored(&self, bank: Bank, interrupts: &[InterruptState]) {
        for index in interrupts.iter().filter_map(|saved| self.interrupts.index(saved.intid)) {
            self.settle(index, self.state(bank.owner(), index));
        }
    }

    /// Returns the wired interrupts that are active at `cpu`.
    pub(crate) fn active_indices(&self, cpu: Cpu) -> impl Iterator<Item = WiredIndex> {
        let indices = self
            .interrupts
            .indices(Bank::Private(cpu))
            .chain(self.interrupts.indices(Bank::Shared));
        indices.filter(move |index| self.state(cpu, *index).active_at(cpu))
    }
}
