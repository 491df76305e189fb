//! Inspection of a running machine: explanations, views of its state, and its `Debug` summary.

use crate::cpu_interface::{CpuInterface, Features};
use crate::explain::explained;
use crate::frames::its::Its;
use crate::frames::redistributor::{LpiRegisters, RedistributorRegisters};
use crate::lpi;
use crate::monitor::view::{
    CollectionView, CpuView, DeviceView, EventView, InterruptView, ItsView, LpiView, StateView,
};
use crate::vgic::Vgic;
use crate::wired::interrupt::InterruptWord;
use crate::wired::{Bank, Private, participation};
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;
use doorbell_fallible::{OutOfMemory, try_push};
use gic_arch::its::CollectionId;
use gic_arch::{IntId, Lpi};
use msi_types::explain::Explanation;
use msi_types::explain::Group;
use msi_types::{Cpu, DeviceId, EventId, Level, Trigger};

/// Maximum number of vCPUs, and of ITSes, that `Debug` shows.
const SHOWN: usize = 8;

impl Vgic {
    /// Explains why a device's event does not interrupt its vCPU. `its` is the ITS's index in
    /// [`VgicConfig::its`](crate::VgicConfig::its).
    ///
    /// The machine may keep running. A vCPU does not wait longer for an explanation than for
    /// another vCPU's register access.
    ///
    /// ```
    /// # use msi_types::{Cpu, DeviceId, EventId, Kick};
    /// # use std::sync::Arc;
    /// # use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig, its::ItsConfig};
    /// # struct Nothing;
    /// # impl GuestMemory for Nothing {
    /// #     fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
    /// #         Err(MemoryFault { address })
    /// #     }
    /// #     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
    /// #         Err(MemoryFault { address })
    /// #     }
    /// # }
    /// # impl Kick for Nothing {
    /// #     fn kick(&self, _: Cpu) {}
    /// # }
    /// # let its = vec![ItsConfig::new(0x808_0000)];
    /// # let config = VgicConfig::new(1).with_lpi_id_bits(Some(16)).with_its(its);
    /// # let (gic, _vcpus) = Vgic::new(config, Arc::new(Nothing), Arc::new(Nothing))?;
    /// let explanation = gic.explain(0, DeviceId::new(0x10), EventId::new(0));
    /// assert_eq!(
    ///     explanation.to_string(),
    ///     "doorbell: a controller receives messages at 0x8090040\n\
    ///      translation: GITS_CTLR.Enabled is 0 at 0x8080000\n\
    ///      fix: program GITS_BASER<n> and GITS_CBASER, then set GITS_CTLR.Enabled\n"
    /// );
    /// # Ok::<(), vgic::ConfigError>(())
    /// ```
    pub fn explain(&self, its: usize, device: DeviceId, event: EventId) -> Explanation {
        explained(self, |explainer| explainer.explain_its(its, device, event))
    }

    /// Explains why an SGI, PPI, SPI or LPI does not interrupt this vCPU, like
    /// [`explain`](Self::explain). The LPI may become pending through an event or `GICR_SETLPIR`.
    pub fn explain_interrupt(&self, cpu: Cpu, intid: IntId) -> Explanation {
        explained(self, |explainer| explainer.explain_interrupt(cpu, intid))
    }

    /// Returns the state of the machine's interrupts, mappings and counters while the machine runs.
    ///
    /// Locks are held for a few accesses, for an ITS's collections, or for 1024 events at a time.
    /// No vCPU is stopped. Takes time and memory proportional to the number of vCPUs, SPIs and
    /// mappings.
    ///
    /// # Errors
    /// The heap is exhausted.
    pub fn view(&self) -> Result<StateView, OutOfMemory> {
        let (mut cpus, mut its) = (Vec::new(), Vec::new());
        for (number, private) in (0..).zip(self.wired.privates()) {
            try_push(&mut cpus, self.view_cpu(Cpu::new(number), private)?)?;
        }
        for each in &self.its {
            try_push(&mut its, self.view_its(each)?)?;
        }
        let spis = self.view_bank(Bank::Shared)?;
        let (ctlr, faults) = (self.distributor().control(), self.events.total());
        Ok(StateView { ctlr, cpus, spis, its, faults })
    }

    fn view_cpu(&self, cpu: Cpu, private: &Private) -> Result<CpuView, OutOfMemory> {
        let registers = self.redistributors.get(cpu.index()).map(RedistributorRegisters::lpis);
        let mut view = self.view_interface(cpu, private, registers.unwrap_or(LpiRegisters::new()));
        view.interrupts = self.view_bank(Bank::Private(cpu))?;
        if let Some(lpis) = &self.lpis {
            lpi::view_own(lpis, cpu, |lpi| Ok(try_push(&mut view.lpis, lpi)?))?;
        }
        Ok(view)
    }

    /// Returns a vCPU's view without interrupts. Lock-free.
    fn view_interface(&self, cpu: Cpu, private: &Private, lpis: LpiRegisters) -> CpuView {
        let features = Features::of(&self.config);
        let (interface, acknowledged) = CpuInterface::published(features, &private.interface);
        CpuView {
            cpu,
            affinity: self.wired.affinity(cpu).unwrap_or_default(),
            awake: private.participation.load(SeqCst) & participation::AWAKE != 0,
            state: self.wakeup.target_state(cpu),
            priority_mask: interface.mask_view(),
            running_priority: interface.running_view(),
            groups: [Group::Zero, Group::One].map(|group| interface.takes(group)),
            lpis_enabled: lpis.enabled,
            propbaser: lpis.propbaser.into_bits(),
            pendbaser: lpis.pendbaser.into_bits(),
            acknowledged,
            kicks: self.wakeup.words().get(cpu.index()).map_or(0, |word| word.kicks()),
            interrupts: Vec::new(),
            lpis: Vec::new(),
        }
    }

    /// Returns the interrupts of a bank that the guest can see and that are enabled, pending,
    /// active or in a list register.
    fn view_bank(&self, bank: Bank) -> Result<Vec<InterruptView>, OutOfMemory> {
        let mut views = Vec::new();
        self.wired.each_visible(bank, |intid, state| {
            if state.enabled() || state.pending() || state.active() || state.listed() {
                try_push(&mut views, self.view_interrupt(intid, state))?;
            }
            Ok::<(), OutOfMemory>(())
        })?;
        Ok(views)
    }

    fn view_interrupt(&self, intid: IntId, state: InterruptWord) -> InterruptView {
        InterruptView {
            intid,
            enabled: state.enabled(),
            pending: state.pending(),
            active: state.active(),
            listed: state.listed(),
            line: if state.line() { Level::High } else { Level::Low },
            trigger: if state.edge() { Trigger::Edge } else { Trigger::Level },
            group: state.group(),
            priority: CpuInterface::new(Features::of(&self.config)).view(state.priority()),
            target: state.target(),
        }
    }

    fn view_its(&self, its: &Its) -> Result<ItsView, OutOfMemory> {
        let (mut view, index) = (its.lock().view(), its.index());
        let Some(lpis) = &self.lpis else { return Ok(view) };
        lpis.with_kicks_deferred(|control| {
            control.mapped_collections(index).try_for_each(|(collection, target)| {
                let collection = CollectionId::new(collection);
                let target = Cpu::new(target.into());
                try_push(&mut view.collections, CollectionView { collection, target })
            })
        })?;
        let from = |first| lpis.with_kicks_deferred(|control| control.device_from(index, first));
        let mut next = from(0);
        while let Some((device, mapped)) = next {
            let mut events = Vec::new();
            lpi::view_events(lpis, index, device, |event, collection, lpi| {
                let (event, collection) = (EventId::new(event), CollectionId::new(collection));
                let direct = Lpi::try_from(lpi.intid.get()).is_ok_and(|lpi| its.is_direct(lpi));
                let lpi = LpiView { direct, ..lpi };
                Ok(try_push(&mut events, EventView { event, collection, lpi })?)
            })?;
            let (id, event_bits) = (DeviceId::new(device), mapped.event_bits);
            try_push(&mut view.devices, DeviceView { device: id, event_bits, events })?;
            next = device.checked_add(1).and_then(from);
        }
        Ok(view)
    }
}

/// Formats a summary that fits on a screen. Does not wait for locks: omits an ITS or a vCPU if
/// another thread is accessing its registers.
impl fmt::Debug for Vgic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Vgic");
        shown.field("ctlr", &format_args!("{:#x}", self.wired.control()));
        shown.field("faults", &self.events.total());
        for (number, private) in (0..).zip(self.wired.privates()).take(SHOWN) {
            let cpu = Cpu::new(number);
            let frame = self.redistributors.get(cpu.index());
            if let Some(lpis) = frame.and_then(RedistributorRegisters::try_lpis) {
                let view = self.view_interface(cpu, private, lpis);
                shown.field("cpu", &format_args!("{view}"));
            }
        }
        for its in self.its.iter().take(SHOWN).filter_map(|its| its.try_lock()) {
            shown.field("its", &format_args!("{}", its.view()));
        }
        shown.field("cpus", &self.config.cpus.len()).field("its_count", &self.its.len());
        shown.finish_non_exhaustive()
    }
}
