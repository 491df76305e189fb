//! Explanations of LPIs, both those to which events are mapped and those that are pending at a
//! redistributor independently of events.

use super::{Arrival, Explainer, Passed};
use crate::frames::its::Its;
use crate::frames::redistributor::{LpiRegisters, RedistributorRegisters};
use crate::lpi::{LpiStatus, LpiTarget, lpi_target};
use core::num::NonZeroU32;
use gic_arch::Lpi;
use gic_arch::gicr::{Pendbaser, Propbaser};
use gic_arch::lpi::{self, Config};
use msi_types::explain::Group;
use msi_types::explain::{Fact, Obstacle, TableRegister};
use msi_types::{Cpu, DeviceId, EventId, HwIrq};

/// Mask of the priority and enable bits in a configuration byte. Bit 1 has no effect.
const CONFIGURATION: u8 = 0xfd;

impl Explainer<'_> {
    /// Follows a message that has reached the ITS's doorbell to the target vCPU.
    pub(super) fn explain_event(&mut self, its: &Its, device: DeviceId, event: EventId) -> Passed {
        let status = its.lock().explain(device, event, &mut self.explanation)?;
        let interrupt = HwIrq::new(status.lpi.get());
        self.note(Fact::Event { device, event, interrupt });
        self.explain_status(status).map_err(|obstacle| match obstacle {
            // The INV or INT may still be in the command queue.
            Obstacle::StaleConfiguration { .. } | Obstacle::NotPending { .. } => {
                its.lock().queued_commands().unwrap_or(obstacle)
            }
            _ => obstacle,
        })
    }

    /// Follows an LPI at a redistributor.
    pub(super) fn explain_lpi(&mut self, cpu: Cpu, lpi: Lpi) -> Passed {
        let interrupt = HwIrq::new(lpi.get());
        let Some(lpis) = &self.gic.lpis else {
            return Err(Obstacle::NoSuchInterrupt { interrupt });
        };
        let found = lpis.with_kicks_deferred(|control| {
            control.implements(lpi).then(|| lpi_target(control, cpu, lpi))
        });
        match found.ok_or(Obstacle::NoSuchInterrupt { interrupt })? {
            LpiTarget::Queried(status) => self.explain_status(status),
            LpiTarget::Other(target) => Err(Obstacle::OtherTarget { interrupt, cpu, target }),
            LpiTarget::None => Err(Obstacle::NoEvent { interrupt }),
        }
    }

    fn explain_status(&mut self, status: LpiStatus) -> Passed {
        let (interrupt, cpu) = (HwIrq::new(status.lpi.get()), status.cpu);
        if let Some(events) = NonZeroU32::new(status.sharers) {
            let (other, events) = (status.sharer, events.get());
            self.note(Fact::SharedInterrupt { interrupt, other, events });
        }
        let in_memory = self.explain_tables(&status)?;
        let cached = status.cached();
        let stale = Obstacle::StaleConfiguration {
            interrupt,
            memory: in_memory.into_bits() & CONFIGURATION,
            cached: cached.into_bits() & CONFIGURATION,
        };
        if !cached.enable() {
            if in_memory.enable() {
                return Err(stale);
            }
            self.note_configuration(&status, in_memory);
            let disabled = Obstacle::Disabled { interrupt };
            return Err(self.ignored_propbaser(cpu).unwrap_or(disabled));
        }
        self.note(Fact::Enabled(cached.priority().get()));
        if !in_memory.enable() {
            // The redistributor still uses the byte that it has cached.
            self.note_configuration(&status, in_memory);
        }
        if !status.is_pending {
            let is_direct = self.gic.its.iter().any(|its| its.is_direct(status.lpi));
            let unknown = Obstacle::PendingUnknown { interrupt };
            return Err(if is_direct { unknown } else { self.why_not_pending(&status) });
        }
        self.note(Fact::Pending(interrupt));
        let (priority, is_listed) = (status.priority_in(cached), status.is_listed);
        let arrival = Arrival { interrupt, cpu, group: Group::One, priority, is_listed };
        self.explain_arrival(&arrival).map_err(|obstacle| match obstacle {
            Obstacle::PriorityMasked { .. } | Obstacle::PriorityNotHigher { .. } => {
                // The priority in memory may be sufficient, although the cached one is not.
                let current = status.priority_in(in_memory);
                let hinders = self.interface(cpu).obstacle(cpu, Group::One, current).is_some();
                if hinders { obstacle } else { stale }
            }
            _ => obstacle,
        })
    }

    /// Checks an LPI against its target's LPI tables. Returns the configuration byte in memory.
    fn explain_tables(&self, status: &LpiStatus) -> Result<Config, Obstacle> {
        let (interrupt, cpu) = (HwIrq::new(status.lpi.get()), status.cpu);
        let Some(registers) = self.lpi_registers(cpu) else {
            return Err(Obstacle::NoSuchInterrupt { interrupt });
        };
        if !registers.enabled || !status.is_enabled_there {
            return Err(Obstacle::LpisDisabled { cpu });
        }
        let propbaser = registers.propbaser.into_bits();
        let obstacle = match status.in_memory {
            Some(byte) => return Ok(byte),
            None if propbaser != 0 && !status.is_covered => {
                let bits = registers.propbaser.id_bits();
                Obstacle::BeyondTable { interrupt, bits }
            }
            _ => Obstacle::NoConfigurationTable { cpu, propbaser },
        };
        Err(self.ignored_propbaser(cpu).unwrap_or(obstacle))
    }

    /// Records the address from which the redistributor reads an LPI's configuration byte. The
    /// address may be in a table that the guest no longer uses.
    fn note_configuration(&mut self, status: &LpiStatus, in_memory: Config) {
        if let Some(LpiRegisters { propbaser, .. }) = self.lpi_registers(status.cpu) {
            let address = propbaser.address() + lpi::config_offset(status.lpi);
            self.note(Fact::ConfigurationByte { address, byte: in_memory.into_bits() });
        }
    }

    /// Returns an obstacle if the redistributor ignored a write of another table's address to
    /// `GICR_PROPBASER`. The guest then configures its LPIs in a table that the redistributor does
    /// not read.
    fn ignored_propbaser(&self, cpu: Cpu) -> Option<Obstacle> {
        let LpiRegisters { propbaser: used, ignored: [ignored, _], .. } =
            self.lpi_registers(cpu)?;
        let table = |of: Propbaser| (of.address(), of.id_bits());
        let ignored = ignored.filter(|other| table(Propbaser::from_bits(*other)) != table(used))?;
        let (register, value) = (TableRegister::Propbaser(cpu), used.into_bits());
        Some(Obstacle::WriteIgnored { register, value, ignored })
    }

    fn lpi_registers(&self, cpu: Cpu) -> Option<LpiRegisters> {
        self.gic.redistributors.get(cpu.index()).map(RedistributorRegisters::lpis)
    }

    /// Returns the reason why an LPI is not pending. Its pending state may have been lost if its
    /// redistributor has no pending table of its own.
    fn why_not_pending(&self, status: &LpiStatus) -> Obstacle {
        let (interrupt, cpu) = (HwIrq::new(status.lpi.get()), status.cpu);
        let Some(registers) = self.lpi_registers(cpu) else {
            return Obstacle::NotPending { interrupt };
        };
        let (used, [_, ignored]) = (registers.pendbaser, registers.ignored);
        let pendbaser = used.into_bits();
        let is_other = |other: &u64| Pendbaser::from_bits(*other).address() != used.address();
        let ignored = ignored.filter(is_other).map(|ignored| Obstacle::WriteIgnored {
            register: TableRegister::Pendbaser(cpu),
            value: pendbaser,
            ignored,
        });
        if !status.has_pending_table {
            return ignored.unwrap_or(Obstacle::NoPendingTable { cpu, pendbaser });
        }
        let other = self
            .gic
            .lpis
            .as_ref()
            .and_then(|lpis| lpis.read(cpu.index()).sharer_of_pending_table(cpu.get()));
        other.map_or(Obstacle::NotPending { interrupt }, |other| {
            let shared = Obstacle::SharedPendingTable { cpu, pendbaser, other: Cpu::new(other) };
            ignored.unwrap_or(shared)
        })
    }
}
