//! Saves a machine whose vCPUs are paused.

use crate::config::cpu;
use crate::cpu_interface::CpuInterface;
use crate::lpi::{Control, SavedLpi};
use crate::saved_state::{
    CpuState, EnabledLpis, ItsState, LpiState, RedistributorState, SaveError, SavedState, VERSION,
};
use crate::sync::lock::MutexGuard;
use crate::vgic::Vgic;
use alloc::boxed::Box;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_collect, try_collect_results, try_push};
use gic_arch::Affinity;
use gic_arch::lpi::Config;
use msi_types::Cpu;

/// CPU interfaces of a machine's vCPUs, indexed by vCPU. All vCPUs are paused, and cannot resume as
/// long as this value exists.
pub(super) type PausedInterfaces<'a> = MutexGuard<'a, Box<[Option<CpuInterface>]>>;

impl Vgic {
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
        let paused = self.all_paused()?;
        Ok(self.save_paused(&paused)?)
    }

    /// Returns the CPU interfaces if all vCPUs are paused, and completes operations in progress.
    pub(super) fn all_paused(&self) -> Result<PausedInterfaces<'_>, SaveError> {
        let paused = self.paused.lock();
        if let Some(running) = paused.iter().position(Option::is_none) {
            return Err(SaveError::Running(self.affinity(cpu(running))));
        }
        self.finish_sweeps()?;
        Ok(paused)
    }

    pub(super) fn save_paused(
        &self,
        paused: &PausedInterfaces<'_>,
    ) -> Result<SavedState, OutOfMemory> {
        let (its, lpis) = self.save_lpis()?;
        let cpus = paused.iter().enumerate().zip(lpis).filter_map(|((index, interface), lpis)| {
            let interface = interface.as_ref()?.save();
            let saved = self.redistributor_of(cpu(index))?.save();
            let affinity = self.affinity(cpu(index));
            Some(saved.map(|saved| {
                let (lpis, enabled_lpis) = lpis;
                let redistributor = RedistributorState { lpis, enabled_lpis, ..saved };
                CpuState { affinity, redistributor, interface }
            }))
        });
        let mut cpus = try_collect_results(cpus)?;
        cpus.sort_unstable_by_key(|cpu| cpu.affinity);
        Ok(SavedState { version: VERSION, distributor: self.distributor().save()?, cpus, its })
    }

    /// Saves the ITSes and, for each vCPU, the LPIs of its redistributor. No command can execute in
    /// between.
    fn save_lpis(&self) -> Result<(Vec<ItsState>, Vec<OwnLpis>), OutOfMemory> {
        let Some(core) = &self.lpis else {
            let none = self.config().cpus.iter().map(|_| OwnLpis::default());
            return Ok((Vec::new(), try_collect(none)?));
        };
        let locked = try_collect(self.its.iter().map(|its| its.lock()))?;
        core.with_kicks_deferred(|control| {
            let its =
                locked.iter().map(|its| its.save(control, |vcpu| self.affinity(Cpu::new(vcpu))));
            let mut its = try_collect_results(its)?;
            its.sort_unstable_by_key(|its| its.base);
            let cpus = (0..self.config().cpus.len()).map(cpu);
            let lpis = cpus.map(|cpu| own_lpis(control, cpu));
            Ok((its, try_collect_results(lpis)?))
        })
    }

    fn affinity(&self, cpu: Cpu) -> Affinity {
        self.wired.affinity(cpu).unwrap_or_default()
    }
}

/// LPIs that are pending at a redistributor without an event, and enabled direct LPIs.
type OwnLpis = (Vec<LpiState>, Vec<EnabledLpis>);

fn own_lpis(control: &Control, cpu: Cpu) -> Result<OwnLpis, OutOfMemory> {
    Ok((pending_by_themselves(control, cpu)?, enabled_lpis(control, cpu)?))
}

fn pending_by_themselves(control: &Control, cpu: Cpu) -> Result<Vec<LpiState>, OutOfMemory> {
    Ok(try_collect(control.pending_by_themselves(cpu.get()).map(
        |SavedLpi { lpi, configuration, .. }| LpiState {
            intid: lpi.intid(),
            configuration: configuration.map(Config::into_bits),
        },
    ))?)
}

fn enabled_lpis(control: &Control, cpu: Cpu) -> Result<Vec<EnabledLpis>, OutOfMemory> {
    let mut ranges: Vec<EnabledLpis> = Vec::new();
    for (lpi, config) in control.enabled_direct_lpis(cpu.get()) {
        let (first, configuration) = (lpi.intid(), config.into_bits());
        match ranges.last_mut() {
            Some(last)
                if last.configuration == configuration
                    && last.first.get() + last.count == first.get() =>
            {
                last.count += 1;
            }
            _ => try_push(&mut ranges, EnabledLpis { first, count: 1, configuration })?,
        }
    }
    Ok(ranges)
}
