//! Power cycles that preserve guest memory.

use crate::config::cpu;
use crate::cpu_interface::{CpuInterface, Features};
use crate::saved_state::{EventState, ItsState, RestoreError, SavedState};
use crate::vgic::Vgic;
use crate::wired::participation;
use gic_arch::{Affinity, gicr};

impl Vgic {
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
    /// A vCPU is not paused, or the heap is exhausted.
    pub fn lose_power(&self) -> Result<(), RestoreError> {
        let mut paused = self.all_paused()?;
        let before = self.save_paused(&paused)?;
        self.reset();
        for (index, interface) in paused.iter_mut().enumerate() {
            *interface = Some(CpuInterface::new(Features::of(self.config())));
            if self.config().resets_awake() {
                self.wired.set_participation(cpu(index), participation::AWAKE, 0);
            }
        }
        let mut after = self.save_paused(&paused)?;
        for (its, old) in after.its.iter_mut().zip(&before.its) {
            let held = self.config().its.iter().find(|config| config.base == old.base);
            keep_tables(its, old, held.map_or(0, |config| config.held_collections), &before);
        }
        for (cpu, old) in after.cpus.iter_mut().zip(&before.cpus) {
            if is_flushed(&before, old.affinity) {
                cpu.redistributor.lpis.clone_from(&old.redistributor.lpis);
            }
        }
        self.restore_paused(&mut paused, &after)
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
