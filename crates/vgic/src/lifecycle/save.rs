//! Freezes, saves and thaws a machine.

mod power;
mod restore;

use crate::config::cpu;
use crate::cpu::vcpu::Vcpu;
use crate::lpi::{Control, SavedLpi};
use crate::saved_state::{
    CpuState, FreezeError, ItsState, LpiState, RedistributorState, RestoreError, SavedState,
    VERSION,
};
use crate::vgic::Vgic;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use doorbell_fallible::{OutOfMemory, try_collect, try_collect_results};
use gic_arch::Affinity;
use gic_arch::lpi::Config;
use msi_types::Cpu;
use restore::Plan;

/// A frozen machine, in which no vCPU runs. [`Vgic::freeze`] returns this value, and dropping the
/// value thaws the machine.
///
/// Devices may continue to signal. **Messages and line changes during a freeze** are accepted
/// without waiting, and make their interrupts pending in the frozen machine. A signal that returned
/// before the call of [`save`](Self::save) is in the saved state. A later signal is pending after
/// the thaw, or in the state returned by the next `save`; it is lost if the machine is dropped
/// instead. To migrate a machine, either stop its devices before the last save, or repeat signals
/// sent after the save at the destination; signaling an interrupt that is already pending has no
/// further effect.
///
/// A message that was accepted and acknowledged before the freeze is in the saved active state or,
/// if it signaled an LPI, has already been delivered to the guest.
pub struct Frozen<'a> {
    gic: &'a Vgic,
    /// vCPUs in [`VgicConfig::cpus`](crate::VgicConfig::cpus) order.
    vcpus: Vec<&'a mut Vcpu>,
}

impl Vgic {
    /// Freezes the machine. `vcpus` must contain all vCPUs of the machine, in any order.
    ///
    /// A borrowed vCPU can't run, so the vCPU threads must hand over their vCPUs, or keep them in
    /// locks. A vCPU with list registers must exit, and then be converted to a [`Vcpu`]
    /// ([`into_software`](crate::ListRegisterVcpu::into_software)). The exit moves all interrupts
    /// out of the list registers. Before the thaw, the VMM itself must not access registers or
    /// continue ITS work.
    ///
    /// Does not wait, and takes time proportional to the number of vCPUs. If the guest has
    /// requested an operation on all mappings (e.g. INVALL, or clearing `GICR_CTLR.EnableLPIs`)
    /// that is still in progress, the freeze completes it. Disabling LPIs writes a pending table,
    /// so a VMM that copies dirty pages must do so again after the freeze.
    ///
    /// # Errors
    /// [`FreezeError`] if `vcpus` aren't this machine's vCPUs, or if there is not enough memory to
    /// complete an operation that is still in progress. In the latter case, the operation continues
    /// later.
    pub fn freeze<'a>(
        &'a self,
        vcpus: impl IntoIterator<Item = &'a mut Vcpu>,
    ) -> Result<Frozen<'a>, FreezeError> {
        let mut vcpus = try_collect(vcpus.into_iter())?;
        if let Some(foreign) =
            vcpus.iter().find(|vcpu| !core::ptr::eq(Arc::as_ptr(vcpu.vgic()), self))
        {
            let affinity = foreign.vgic().wired.affinity(foreign.cpu());
            return Err(FreezeError::Foreign(affinity.unwrap_or_default()));
        }
        vcpus.sort_unstable_by_key(|vcpu| vcpu.cpu());
        // Each vCPU is a unique value, so none can occur twice in the list.
        let missing = self
            .config()
            .cpus
            .iter()
            .enumerate()
            .find(|(index, _)| vcpus.get(*index).is_none_or(|vcpu| vcpu.cpu() != cpu(*index)));
        if let Some((_, missing)) = missing {
            return Err(FreezeError::Missing(missing.affinity));
        }
        self.finish_sweeps()?;
        Ok(Frozen { gic: self, vcpus })
    }

    fn affinity(&self, vcpu: u32) -> Affinity {
        self.wired.affinity(Cpu::new(vcpu)).unwrap_or_default()
    }
}

impl Frozen<'_> {
    /// Restores a saved state, regardless of the machine's previous state.
    ///
    /// `saved` must come from a machine with the same [`VgicConfig`](crate::VgicConfig), except for
    /// the order of vCPUs and ITSes, the budgets, and the addresses of frames other than ITS
    /// frames. Guest memory must have the contents that it had when the state was saved.
    ///
    /// The whole state is validated before anything changes. Lines have their saved levels, so
    /// devices that are restored afterwards must drive their lines again. A message that arrives
    /// during the restore may be dropped because its event is not mapped yet, just as between a
    /// reset and the guest's first command. Sleeping vCPUs with pending interrupts are kicked. The
    /// restore doesn't write to guest memory, and reads LPI configurations that the state does not
    /// contain from it. Takes time proportional to the size of the state and to the largest number
    /// of mappings that this machine has ever had.
    ///
    /// # Errors
    /// [`RestoreError`] identifies the first object in the state that is invalid on this machine,
    /// or reports that the heap is exhausted. Either way, the machine is unchanged.
    pub fn restore(&mut self, saved: &SavedState) -> Result<(), RestoreError> {
        let features = try_collect(self.vcpus.iter().map(|vcpu| vcpu.interface.features()))?;
        let plan = Plan::of(self.gic, features, saved)?;
        plan.carry_out(self.gic, &mut self.vcpus)
    }

    /// Returns the machine's state. Takes time and memory proportional to the number of mappings,
    /// and of interrupts changed since reset. Guest memory isn't written. May be called repeatedly.
    ///
    /// # Errors
    /// The heap is exhausted.
    pub fn save(&self) -> Result<SavedState, OutOfMemory> {
        let gic = self.gic;
        let (its, lpis) = self.save_lpis()?;
        let cpus = self.vcpus.iter().zip(lpis).filter_map(|(vcpu, lpis)| {
            let saved = gic.redistributor_of(vcpu.cpu())?.save();
            let affinity = gic.affinity(vcpu.cpu().get());
            let interface = vcpu.interface.save();
            Some(saved.map(|saved| {
                let redistributor = RedistributorState { lpis, ..saved };
                CpuState { affinity, redistributor, interface }
            }))
        });
        let mut cpus = try_collect_results(cpus)?;
        cpus.sort_unstable_by_key(|cpu| cpu.affinity);
        Ok(SavedState { version: VERSION, distributor: gic.distributor().save()?, cpus, its })
    }

    /// Saves the ITSes and, for each vCPU, the LPIs that are pending at its redistributor without
    /// an event. No command can execute in between.
    fn save_lpis(&self) -> Result<(Vec<ItsState>, Vec<Vec<LpiState>>), OutOfMemory> {
        let gic = self.gic;
        let Some(core) = &gic.lpis else {
            return Ok((Vec::new(), try_collect(self.vcpus.iter().map(|_| Vec::new()))?));
        };
        let locked = try_collect(gic.its.iter().map(|its| its.lock()))?;
        core.with_kicks_deferred(|control| {
            let its = locked.iter().map(|its| its.save(control, |vcpu| gic.affinity(vcpu)));
            let mut its = try_collect_results(its)?;
            its.sort_unstable_by_key(|its| its.base);
            let lpis = self.vcpus.iter().map(|vcpu| pending_by_themselves(control, vcpu.cpu()));
            Ok((its, try_collect_results(lpis)?))
        })
    }

    /// Thaws the machine: the vCPUs may run again. Equivalent to dropping this value.
    pub fn thaw(self) {}

    /// Returns the machine.
    pub fn vgic(&self) -> &Vgic {
        self.gic
    }
}

fn pending_by_themselves(control: &Control, cpu: Cpu) -> Result<Vec<LpiState>, OutOfMemory> {
    Ok(try_collect(control.pending_by_themselves(cpu.get()).map(
        |SavedLpi { lpi, configuration, .. }| LpiState {
            intid: lpi.intid(),
            configuration: configuration.map(Config::into_bits),
        },
    ))?)
}

impl fmt::Debug for Frozen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frozen").field("gic", self.gic).finish_non_exhaustive()
    }
}
