//! Creates a machine's shared half and its vCPUs from a configuration.

use crate::config::{ConfigError, ItsConfig, RedistributorNaming, SecurityView, VgicConfig, cpu};
use crate::cpu::vcpu::{OwnParts, Vcpu};
use crate::cpu_interface::{CpuInterface, Features};
use crate::frames::its::{Its, Targets};
use crate::frames::redistributor::RedistributorRegisters;
use crate::lpi::{LpiConfig, LpiCore, LpiFaults, Priorities, PriorityView};
use crate::monitor::events::{EventLog, FaultReason};
use crate::monitor::memory::GuestMemory;
use crate::sync::lock::Mutex;
use crate::vgic::{AddressMap, Vgic};
use crate::wakeup::VcpuWakeup;
use crate::wired::Wired;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc, try_boxed_slice, try_collect_exact};
use msi_types::{Cpu, Kick};

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
        config.validate()?;
        let wakeup = try_arc(VcpuWakeup::new(config.cpus.len(), kick)?)?;
        let kinds: &[FaultReason] = match config.lpi_id_bits {
            Some(_) => &FaultReason::ALL,
            None => &FaultReason::WITHOUT_LPIS,
        };
        let events = try_arc(EventLog::new(kinds)?)?;
        let lpis = lpi_core(&config, memory, &wakeup, &events)?;
        let its = translators(&config, lpis.as_ref(), &events)?;
        let paused = Mutex::new(try_boxed_slice(config.cpus.iter().map(|_| None))?);
        let gic = try_arc(Self {
            redistributors: redistributors(&config)?,
            addresses: AddressMap::new(&config)?,
            wired: Wired::new(&config, Arc::clone(&wakeup))?,
            config,
            events,
            wakeup,
            lpis,
            its,
            paused,
        })?;
        let mut vcpus = Vec::new();
        let words = gic.wakeup.words();
        vcpus.try_reserve_exact(words.len()).map_err(OutOfMemory::from)?;
        for (index, (wakeup, private)) in words.iter().zip(gic.wired.privates()).enumerate() {
            let own = OwnParts { wakeup: Arc::clone(wakeup), private: Arc::clone(private) };
            vcpus.push(gic.vcpu(cpu(index), own)?);
        }
        Ok((gic, vcpus))
    }

    fn vcpu(self: &Arc<Self>, cpu: Cpu, own: OwnParts) -> Result<Vcpu, OutOfMemory> {
        let lpis = match &self.lpis {
            Some(lpis) => lpis.pending_lpis(cpu)?,
            None => None,
        };
        let interface = CpuInterface::new(Features::of(&self.config));
        Ok(Vcpu::new(cpu, Arc::clone(self), own, interface, lpis))
    }
}

fn lpi_core(
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

fn translators(
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

fn redistributors(config: &VgicConfig) -> Result<Box<[RedistributorRegisters]>, OutOfMemory> {
    let frames = config.redistributor_frames();
    Ok(try_collect_exact(frames.map(RedistributorRegisters::new))?.into_boxed_slice())
}
