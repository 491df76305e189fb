//! Saves a machine whose vCPUs are paused.

use super::shape;
use crate::config::cpu;
use crate::cpu_interface::CpuInterface;
use crate::lpi::{self, Control, SavedLpi};
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

/// Returns the CPU interfaces if all vCPUs are paused, and completes operations in progress.
pub(super) fn all_paused(gic: &Vgic) -> Result<PausedInterfaces<'_>, SaveError> {
    let paused = gic.paused.lock();
    if let Some(running) = paused.iter().position(Option::is_none) {
        return Err(SaveError::Running(affinity(gic, cpu(running))));
    }
    finish_sweeps(gic)?;
    Ok(paused)
}

pub(super) fn save_paused(
    gic: &Vgic,
    paused: &PausedInterfaces<'_>,
) -> Result<SavedState, OutOfMemory> {
    let (its, lpis) = save_lpis(gic)?;
    let cpus = paused.iter().enumerate().zip(lpis).filter_map(|((index, interface), lpis)| {
        let interface = interface.as_ref()?.save();
        let saved = gic.redistributor_of(cpu(index))?.save();
        let affinity = affinity(gic, cpu(index));
        Some(saved.map(|saved| {
            let (lpis, enabled_lpis) = lpis;
            let redistributor = RedistributorState { lpis, enabled_lpis, ..saved };
            CpuState { affinity, redistributor, interface }
        }))
    });
    let mut cpus = try_collect_results(cpus)?;
    cpus.sort_unstable_by_key(|cpu| cpu.affinity);
    let (distributor, shape) = (gic.distributor().save()?, shape::of(gic.config())?);
    Ok(SavedState { version: VERSION, distributor, cpus, its, shape })
}

/// Saves the ITSes and, for each vCPU, the LPIs of its redistributor. No command can execute in
/// between.
fn save_lpis(gic: &Vgic) -> Result<(Vec<ItsState>, Vec<OwnLpis>), OutOfMemory> {
    let Some(core) = &gic.lpis else {
        let none = gic.config().cpus.iter().map(|_| OwnLpis::default());
        return Ok((Vec::new(), try_collect(none)?));
    };
    let locked = try_collect(gic.its.iter().map(|its| its.lock()))?;
    core.with_kicks_deferred(|control| {
        let its = locked.iter().map(|its| its.save(control, |vcpu| affinity(gic, Cpu::new(vcpu))));
        let mut its = try_collect_results(its)?;
        its.sort_unstable_by_key(|its| its.base);
        let cpus = (0..gic.config().cpus.len()).map(cpu);
        let lpis = cpus.map(|cpu| own_lpis(control, cpu));
        Ok((its, try_collect_results(lpis)?))
    })
}

fn affinity(gic: &Vgic, cpu: Cpu) -> Affinity {
    gic.wired.affinity(cpu).unwrap_or_default()
}

/// Completes all work started by registers and commands. The call may take a long time, and is
/// meant for a stopped machine.
pub(super) fn finish_sweeps(gic: &Vgic) -> Result<(), OutOfMemory> {
    gic.its.iter().for_each(|its| its.finish());
    gic.lpis.as_ref().map_or(Ok(()), |lpis| lpis.finish_sweeps())
}

/// LPIs that are pending at a redistributor without an event, and enabled direct LPIs.
type OwnLpis = (Vec<LpiState>, Vec<EnabledLpis>);

fn own_lpis(control: &Control, cpu: Cpu) -> Result<OwnLpis, OutOfMemory> {
    Ok((pending_by_themselves(control, cpu)?, enabled_lpis(control, cpu)?))
}

fn pending_by_themselves(control: &Control, cpu: Cpu) -> Result<Vec<LpiState>, OutOfMemory> {
    Ok(try_collect(lpi::pending_by_themselves(control, cpu.get()).map(
        |SavedLpi { lpi, configuration, .. }| LpiState {
            intid: lpi.intid(),
            configuration: configuration.map(Config::into_bits),
        },
    ))?)
}

fn enabled_lpis(control: &Control, cpu: Cpu) -> Result<Vec<EnabledLpis>, OutOfMemory> {
    let mut ranges: Vec<EnabledLpis> = Vec::new();
    for (lpi, config) in lpi::enabled_direct_lpis(control, cpu.get()) {
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
