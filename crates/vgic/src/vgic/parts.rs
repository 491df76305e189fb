//! Parts of a machine, each created from the configuration.

use crate::config::{ConfigError, ItsConfig, RedistributorNaming, SecurityView, VgicConfig};
use crate::frames::its::{Its, Targets};
use crate::frames::redistributor::RedistributorRegisters;
use crate::lpi::{LpiConfig, LpiCore, LpiFaults, Priorities, PriorityView};
use crate::monitor::GuestMemory;
use crate::monitor::events::EventLog;
use crate::wakeup::VcpuWakeup;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc, try_boxed_slice, try_collect_exact};

pub(super) fn lpi_core(
    config: &VgicConfig,
    memory: Arc<dyn GuestMemory>,
    wakeup: &Arc<VcpuWakeup>,
    events: &Arc<EventLog>,
) -> Result<Option<Arc<LpiCore>>, OutOfMemory> {
    let Ok(vcpus) = u16::try_from(config.cpus.len()) else { return Ok(None) };
    let Some(id_bits) = config.lpi_id_bits else { return Ok(None) };
    let view = match config.security {
        SecurityView::Single => PriorityView::Unshifted,
        SecurityView::NonSecure => PriorityView::NonSecure,
    };
    let sizes = LpiConfig {
        id_bits,
        entries: config.its_events,
        devices: config.its_devices,
        direct: config.direct_lpi,
        work_per_access: config.lpi_work_per_access,
        priorities: Priorities { view, bits: config.priority_bits },
        ..LpiConfig::new(vcpus)
    };
    let frames = try_collect_exact(config.redistributor_frames().map(|frame| frame.base))?;
    let faults = LpiFaults::new(Arc::clone(events), frames.into_boxed_slice());
    LpiCore::new(sizes, memory, Arc::clone(wakeup), faults).map(Some)
}

pub(super) fn translators(
    config: &VgicConfig,
    lpis: Option<&Arc<LpiCore>>,
    events: &Arc<EventLog>,
) -> Result<Box<[Arc<Its>]>, ConfigError> {
    let Some(lpis) = lpis else { return Ok(Box::default()) };
    let mut all = Vec::new();
    all.try_reserve_exact(config.its.len()).map_err(OutOfMemory::from)?;
    for its in &config.its {
        all.push(try_arc(Its::new(
            *its,
            targets(config, its)?,
            Arc::clone(lpis),
            Arc::clone(events),
        )?)?);
    }
    Ok(all.into_boxed_slice())
}

fn targets(config: &VgicConfig, its: &ItsConfig) -> Result<Targets, OutOfMemory> {
    Ok(match its.redistributor_naming {
        RedistributorNaming::ProcessorNumber => Targets::ProcessorNumbers(try_boxed_slice(
            config.cpus.iter().map(|cpu| cpu.processor_number),
        )?),
        RedistributorNaming::Address => {
            let bases = config.redistributor_frames().map(|frame| frame.base);
            Targets::Addresses(try_collect_exact(bases)?.into_boxed_slice())
        }
    })
}

pub(super) fn redistributors(
    config: &VgicConfig,
) -> Result<Box<[RedistributorRegisters]>, OutOfMemory> {
    let frames = config.redistributor_frames();
    Ok(try_collect_exact(frames.map(RedistributorRegisters::new))?.into_boxed_slice())
}
