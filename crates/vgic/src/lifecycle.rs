//! Machine life cycle: create, reset, save, restore, and lose power.

mod restore;
mod save;
mod shape;

use self::save::{PausedInterfaces, all_paused, save_paused};
use crate::config::{ConfigError, VgicConfig, cpu};
use crate::cpu::vcpu::{OwnParts, Vcpu};
use crate::cpu_interface::{CpuInterface, Features};
use crate::frames::redistributor::RedistributorRegisters;
use crate::monitor::GuestMemory;
use crate::saved_state::{EventState, ItsState, RestoreError, SaveError, SavedState};
use crate::vgic::Vgic;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::OutOfMemory;
use gic_arch::{Affinity, gicr};
use msi_types::Kick;

impl Vgic {
    /// Creates a virtual GIC, i.e. its shared part and one [`Vcpu`] per vCPU, in
    /// [`VgicConfig::cpus`] order.
    ///
    /// Allocates all memory for operations that can't report a failure later. (A few values are
    /// reference-counted, and stable Rust has no fallible allocation for such values. This function
    /// probes the heap first, but two threads that create machines from its last few hundred bytes
    /// may still invoke the allocator's own error handler.)
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration is invalid or the heap is exhausted.
    pub fn new(
        config: VgicConfig,
        memory: Arc<dyn GuestMemory>,
        kick: Arc<dyn Kick>,
    ) -> Result<(Arc<Self>, Vec<Vcpu>), ConfigError> {
        let gic = Self::shared(config, memory, kick)?;
        let mut vcpus = Vec::new();
        let words = gic.wakeup.words();
        vcpus.try_reserve_exact(words.len()).map_err(OutOfMemory::from)?;
        for (index, (wakeup, private)) in words.iter().zip(gic.wired.privates()).enumerate() {
            let own = OwnParts { wakeup: Arc::clone(wakeup), private: Arc::clone(private) };
            let lpis = gic.lpis.as_ref().map_or(Ok(None), |lpis| lpis.pending_lpis(cpu(index)))?;
            let interface = CpuInterface::new(Features::of(&gic.config));
            vcpus.push(Vcpu::new(cpu(index), Arc::clone(&gic), own, interface, lpis));
        }
        Ok((gic, vcpus))
    }

    /// Performs a system reset: registers, interrupts and LPIs are as after power-on, but lines
    /// keep their driven levels.
    ///
    /// The vCPUs must not run during the reset. Afterwards, the owner of each vCPU must call
    /// [`Vcpu::reset`](crate::Vcpu::reset).
    pub fn reset(&self) {
        self.its.iter().for_each(|its| its.reset());
        self.wired.reset(&self.config);
        self.redistributors.iter().for_each(RedistributorRegisters::reset);
        if let Some(lpis) = &self.lpis {
            lpis.reset_lpis();
        }
    }

    /// Returns the machine's state. All vCPUs must be [paused](crate::Paused), each by the thread
    /// that owns it, and none can resume until this call returns.
    ///
    /// Takes time and memory proportional to the number of mappings, and of interrupts changed
    /// since reset. May be called repeatedly. If the guest has requested an operation on all
    /// mappings (e.g. INVALL, or clearing `GICR_CTLR.EnableLPIs`) that is still in progress, the
    /// call completes it. Disabling LPIs writes a pending table, so a VMM that copies dirty pages
    /// must do so again after the save. Otherwise, guest memory isn't written. Concurrently, the
    /// VMM itself must not access registers or continue ITS work.
    ///
    /// Devices may continue to signal. **Messages and line changes while vCPUs are paused** are
    /// accepted without waiting, and make their interrupts pending in the paused machine. A signal
    /// that returned before the call is in the returned state. A later signal is pending after the
    /// vCPUs resume, or in the state returned by the next `save`; it is lost if the machine is
    /// dropped instead. To migrate a machine, either stop its devices before the last save, or
    /// repeat signals sent after the save at the destination; signaling an interrupt that is
    /// already pending has no further effect.
    ///
    /// A message that was accepted and acknowledged before the pause is in the saved active state
    /// or, if it signaled an LPI, has already been delivered to the guest.
    ///
    /// # Errors
    /// A vCPU is not paused, or the heap is exhausted. An operation that could not be completed
    /// continues later.
    pub fn save(&self) -> Result<SavedState, SaveError> {
        let paused = all_paused(self)?;
        Ok(save_paused(self, &paused)?)
    }

    /// Restores a saved state, regardless of the machine's previous state. All vCPUs must be
    /// [paused](crate::Paused), each by the thread that owns it, and resume with the restored
    /// state. None can resume until this call returns.
    ///
    /// `saved` must come from a machine with the same [`VgicConfig`], except for the order of vCPUs
    /// and ITSes, and the budgets: the machine must have enough for the state's mappings. Guest
    /// memory must have the contents that it had when the state was saved.
    ///
    /// Lines have their saved levels, so devices that are restored afterwards must drive their
    /// lines again. A message that arrives during the restore may be dropped because its event is
    /// not mapped yet, just as between a reset and the guest's first command. Sleeping vCPUs with
    /// pending interrupts are kicked. The restore doesn't write to guest memory, and reads LPI
    /// configurations that the state does not contain from it. Takes time proportional to the size
    /// of the state and to the largest number of mappings that this machine has ever had.
    /// Concurrently, the VMM itself must not access registers or continue ITS work.
    ///
    /// # Errors
    /// [`RestoreError`] identifies the first object in the state that is invalid on this machine.
    /// The machine is then as after a [`reset`](Self::reset) with all lines low, and so are its
    /// vCPUs. To learn whether a state is valid while the machine keeps its own, call
    /// [`VgicConfig::check_restorable`] first. If a vCPU is running, or the heap is exhausted
    /// before the restore begins, the machine is unchanged.
    pub fn restore(&self, saved: &SavedState) -> Result<(), RestoreError> {
        restore::restore(self, saved, &mut all_paused(self)?)
    }

    /// Resets the machine, including the CPU interfaces of its paused vCPUs.
    fn power_on(&self, paused: &mut PausedInterfaces<'_>) {
        self.reset();
        for interface in paused.iter_mut() {
            *interface = Some(CpuInterface::new(Features::of(self.config())));
        }
    }

    /// Turns the machine's power off and on again, as a guest's suspend to RAM does: all registers
    /// have their reset values, and lines keep the levels to which they are driven. Guest memory
    /// survives, and with it the state that the architecture keeps there: the mappings of an ITS,
    /// except collections that it holds internally, and LPIs that are pending at a redistributor
    /// whose LPIs are disabled, because disabling LPIs writes the pending table (IHI 0069 §5.1.2).
    /// Pending LPIs are lost if LPIs are still enabled at their redistributor.
    ///
    /// `GITS_BASER<n>` keep their values, because the contents of these tables are in host memory.
    /// A guest may write the same values again without any effect.
    ///
    /// All vCPUs must be [paused](crate::Paused).
    ///
    /// # Errors
    /// A vCPU is not paused, or the heap is exhausted. If memory was lacking for what survives, the
    /// machine is as after a failed [`restore`](Self::restore): reset, with all lines low, so that
    /// devices must drive them again.
    pub fn lose_power(&self) -> Result<(), RestoreError> {
        let mut paused = all_paused(self)?;
        let before = save_paused(self, &paused)?;
        self.power_on(&mut paused);
        let mut after = save_paused(self, &paused)?;
        for (its, old) in after.its.iter_mut().zip(&before.its) {
            let held = self.config().its.iter().find(|config| config.base == old.base);
            keep_tables(its, old, held.map_or(0, |config| config.held_collections), &before);
        }
        for (cpu, old) in after.cpus.iter_mut().zip(&before.cpus) {
            if is_flushed(&before, old.affinity) {
                cpu.redistributor.lpis.clone_from(&old.redistributor.lpis);
            }
        }
        restore::restore(self, &after, &mut paused)
    }
}

/// Carries over the state that the architecture keeps in guest memory.
fn keep_tables(its: &mut ItsState, old: &ItsState, held: u8, before: &SavedState) {
    its.baser = old.baser;
    let in_memory = |number: u16| number >= u16::from(held);
    let kept = old.collections.iter().filter(|each| in_memory(each.collection.get()));
    its.collections = kept.copied().collect();
    its.devices.clone_from(&old.devices);
    for event in its.devices.iter_mut().flat_map(|device| &mut device.events) {
        let at = old.collections.iter().find(|each| each.collection == event.collection);
        let place = at.map(|at| at.target).or(event.stays_at);
        let pending = event.pending && place.is_none_or(|at| is_flushed(before, at));
        *event = EventState { pending, configuration: None, ..*event };
    }
}

/// Returns `true` if LPIs are disabled at this redistributor, i.e. its pending LPIs are in its
/// pending table.
fn is_flushed(before: &SavedState, at: Affinity) -> bool {
    let cpu = before.cpus.iter().find(|cpu| cpu.affinity == at);
    cpu.is_some_and(|cpu| !gicr::Ctlr::from_bits(cpu.redistributor.ctlr).enable_lpis())
}
