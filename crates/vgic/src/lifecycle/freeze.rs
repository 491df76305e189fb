//! Freeze, save, thaw.

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

/// A machine of which no vCPU runs, from [`Vgic::freeze`] until this is dropped: the thaw.
///
/// Devices may continue to signal. **Messages and line changes during a freeze** are accepted
/// without waiting, and make their interrupts pending in the frozen machine. A signal that returned
/// before the call of [`save`](Self::save) is in the saved state. A later one is pending after the
/// thaw, or in the next `save`; it is lost if the machine is dropped instead. So to move a machine,
/// stop its devices, then save (again). Or repeat their later signals at the new place: an
/// interrupt that is pending there already stays one.
///
/// A message that was taken before the freeze and acknowledged is in the active state or, as an
/// LPI, with the guest.
pub struct Frozen<'a> {
    gic: &'a Vgic,
    /// In the order of [`VgicConfig::cpus`](crate::VgicConfig::cpus).
    vcpus: Vec<&'a mut Vcpu>,
}

impl Vgic {
    /// Freezes the machine: `vcpus` are all of its vCPUs, in any order. As long as they are
    /// borrowed, none runs: their threads hand them over, or keep them in locks. A vCPU with list
    /// registers becomes a [`Vcpu`] when it has exited
    /// ([`into_software`](crate::ListRegisterVcpu::into_software)), which takes everything back out
    /// of them. A monitor that accesses registers on its own account, or lets ITSes go on, waits
    /// for the thaw.
    ///
    /// Does not wait, and takes time in proportion to the number of vCPUs. The guest may just have
    /// asked for something about all that is mapped (as INVALL, or clearing
    /// `GICR_CTLR.EnableLPIs`). If it is not done, that is finished here. Disabling LPIs
    /// writes a pending table: dirty pages of the guest's memory must be copied once more after
    /// this.
    ///
    /// # Errors
    /// [`FreezeError`] if `vcpus` are not those of this machine, or if the heap has no memory for
    /// what is finished here. The rest then goes on later.
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
        // There is one value per vCPU, so that none can be here twice.
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
    /// Returns the machine's state. Takes time and memory in proportion to what is mapped or was
    /// changed since reset, and writes nothing to the guest's memory. May be called again.
    /// # Errors
    /// The heap has no memory for it.
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

    /// The ITSes, and by vCPU what is pending at redistributors: all at one moment as far as
    /// commands go.
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

    /// Puts the machine into a saved state, whatever it was in before. `saved` comes from a machine
    /// with the same [`VgicConfig`](crate::VgicConfig). The order of vCPUs and ITSes, budgets, and
    /// the places of frames other than those of ITSes may differ. The guest's memory is as it was
    /// when it was saved.
    ///
    /// Everything is looked at before anything is changed. Lines are as they were saved: devices
    /// that are restored afterwards drive theirs anew. A message that comes while this runs may
    /// find nothing mapped yet and be dropped, as between a reset and its guest's first command.
    /// Who sleeps and has something to do is kicked. Nothing is written to the guest's memory; its
    /// LPI configuration is read where the state does not have it. Takes time in proportion to what
    /// is in the state and to the most that this machine ever had mapped.
    ///
    /// # Errors
    /// [`RestoreError`] names the first object of the state that cannot be of this machine, or says
    /// that the heap has no memory for it. Nothing has changed then.
    pub fn restore(&mut self, saved: &SavedState) -> Result<(), RestoreError> {
        let features = try_collect(self.vcpus.iter().map(|vcpu| vcpu.interface.features()))?;
        let plan = Plan::of(self.gic, features, saved)?;
        plan.carry_out(self.gic, &mut self.vcpus)
    }

    /// The vCPUs may run again. The same as dropping this.
    pub fn thaw(self) {}

    /// The machine.
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
