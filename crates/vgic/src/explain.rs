//! Explanations of why an interrupt does not arrive, read while the machine runs.
//!
//! An explanation reads the guest's registers and tables, the interrupt's state, and the state that
//! the target vCPU published of its CPU interface. It has no side effects, and holds each lock only
//! for a few accesses. Its parts may have been read at different times.

mod input;
mod lpi;
mod wired;

use crate::cpu_interface::{CpuInterface, Features};
use crate::vgic::Vgic;
use crate::wired::Group;
use gic_arch::{IntId, Lpi, Priority};
use msi_types::explain::{Explanation, Fact, Obstacle, Unexamined};
use msi_types::{Cpu, DeviceId, EventId, HwIrq};

/// Result of following an interrupt: `Ok` if it passes, or its first obstacle.
type Passed = Result<(), Obstacle>;

/// An interrupt that is pending at a vCPU.
struct Arrival {
    interrupt: HwIrq,
    cpu: Cpu,
    group: Group,
    /// Priority in the view of the CPU interface.
    priority: Priority,
    /// `true` if the pending state was moved to a list register.
    is_listed: bool,
}

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
        explained(|explanation| match self.its.get(its) {
            Some(its) => {
                note(explanation, Fact::Doorbell(its.doorbell()));
                self.explain_event(its, device, event, explanation)
            }
            None => {
                Err(Obstacle::NoIts { index: truncated(its), count: truncated(self.its.len()) })
            }
        })
    }

    /// Explains why an SGI, PPI, SPI or LPI does not interrupt this vCPU, like
    /// [`explain`](Self::explain). The LPI may become pending through an event or `GICR_SETLPIR`.
    pub fn explain_interrupt(&self, cpu: Cpu, intid: IntId) -> Explanation {
        explained(|explanation| {
            let interrupt = HwIrq::new(intid.get());
            if cpu.index() >= self.config.cpus.len() {
                return Err(Obstacle::NoSuchInterrupt { interrupt });
            }
            match Lpi::try_from(intid) {
                Ok(lpi) => self.explain_lpi(cpu, lpi, explanation),
                Err(_) => self.explain_wired(Some(cpu), intid, explanation),
            }
        })
    }

    /// Follows a pending interrupt through its target's redistributor and CPU interface.
    fn explain_arrival(&self, arrival: &Arrival, explanation: &mut Explanation) -> Passed {
        let Arrival { interrupt, cpu, group, .. } = *arrival;
        let private = self.wired.private(cpu).ok_or(Obstacle::NoSuchInterrupt { interrupt })?;
        if !private.is_awake() {
            note(explanation, Fact::Routed(cpu));
            return Err(Obstacle::Asleep { cpu });
        }
        note(explanation, Fact::Target(cpu, self.target_state(cpu)));
        if !self.wired.forwards(group) {
            let ctlr = self.distributor().control();
            return Err(Obstacle::GroupDisabled { group: group.into(), ctlr });
        }
        let interface = self.interface(cpu);
        if let Some(obstacle) = interface.obstacle(cpu, group, arrival.priority) {
            let grouping = interface.grouping(group, arrival.priority);
            let blocks = matches!(obstacle, Obstacle::PriorityNotHigher { .. });
            note_all(explanation, grouping.filter(|_| blocks));
            return Err(obstacle);
        }
        if arrival.is_listed {
            return Err(Obstacle::Listed { interrupt, cpu });
        }
        note(explanation, Fact::Signaled(cpu));
        *explanation = explanation.with_unexamined(Unexamined::ExceptionMask);
        Ok(())
    }

    /// Returns a vCPU's CPU interface as the vCPU last published it.
    fn interface(&self, cpu: Cpu) -> CpuInterface {
        let features = Features::of(&self.config);
        self.wired.private(cpu).map_or_else(
            || CpuInterface::new(features),
            |private| CpuInterface::published(features, &private.interface).0,
        )
    }
}

/// Returns the explanation with the facts that `follow` adds and the obstacle that it returns.
fn explained(follow: impl FnOnce(&mut Explanation) -> Passed) -> Explanation {
    let mut explanation = Explanation::new();
    match follow(&mut explanation) {
        Ok(()) => explanation,
        Err(obstacle) => explanation.with_obstacle(obstacle),
    }
}

fn note(explanation: &mut Explanation, fact: Fact) {
    *explanation = explanation.with_fact(fact);
}

fn note_all(explanation: &mut Explanation, facts: impl IntoIterator<Item = Fact>) {
    facts.into_iter().for_each(|fact| note(explanation, fact));
}

fn truncated(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
