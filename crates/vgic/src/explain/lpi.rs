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
use msi_types::explain::{Fact, Obstacle, TableRegister, Unexamined};
use msi_types::{Cpu, DeviceId, EventId, HwIrq};

/// Mask of the priority and enable bits in a configuration byte. Bit 1 has no effect.
const CONFIGURATION: u8 = 0xfd;

impl Explainer<'_> {
    /// Follows a message that has reached the ITS's doorbell to the target vCPU.
    pub(super) fn explain_event(&mut self, its: &Its, device: DeviceId, event: EventId) -> Passed {
        let status = its.lock().explain(device, event, &mut self.explanation)?;
        let interrupt = HwIrq::new(status.lpi.get());
        self.note(Fact::Event { device, event, interrupt });
        let passed = self.explain_status(status);
        let mut obstacles = self.explanation.obstacles().chain(passed.err());
        let is_stale = obstacles.any(|it| matches!(it, Obstacle::StaleConfiguration { .. }));
        if is_stale || !status.is_pending {
            // The INV or INT may still be in the command queue.
            its.lock().queued_commands().map_or(passed, Err)
        } else {
            passed
        }
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
        if cached.enable() {
            self.note(Fact::Enabled(cached.priority().get()));
        } else if in_memory.enable() {
            return Err(stale);
        } else {
            let disabled = Obstacle::Disabled { interrupt };
            self.hinder(self.ignored_propbaser(cpu).unwrap_or(disabled));
        }
        if !in_memory.enable() {
            // The redistributor may still use a byte that it has cached.
            self.note_configuration(&status, in_memory);
        }
        let is_pending = status.is_pending;
        if is_pending {
            self.note(Fact::Pending(interrupt));
        } else if self.gic.its.iter().any(|its| its.is_direct(status.lpi)) {
            self.explanation = self.explanation.with_unexamined(Unexamined::PendingState);
        } else if let Some(cause) = self.why_not_pending(&status) {
            self.hinder(cause);
        } else {
            self.note(Fact::NotPending(interrupt));
        }
        let (mut priority, is_listed) = (status.priority_in(cached), status.is_listed);
        // The priority in memory may be sufficient, although the cached one is not.
        let current = status.priority_in(in_memory);
        let hinders = |of| self.interface(cpu).obstacles(cpu, Group::One, of) != [None; 3];
        if hinders(priority) && !hinders(current) {
            self.hinder(stale);
            priority = current;
        }
        let group = Group::One;
        self.explain_arrival(&Arrival { interrupt, is_pending, cpu, group, priority, is_listed })
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

    /// Returns a reason why an LPI may not be pending: its pending state may have been lost if its
    /// redistributor has no pending table of its own.
    fn why_not_pending(&self, status: &LpiStatus) -> Option<Obstacle> {
        let cpu = status.cpu;
        let registers = self.lpi_registers(cpu)?;
        let (used, [_, ignored]) = (registers.pendbaser, registers.ignored);
        let pendbaser = used.into_bits();
        let is_other = |other: &u64| Pendbaser::from_bits(*other).address() != used.address();
        let ignored = ignored.filter(is_other).map(|ignored| Obstacle::WriteIgnored {
            register: TableRegister::Pendbaser(cpu),
            value: pendbaser,
            ignored,
        });
        if !status.has_pending_table {
            return ignored.or(Some(Obstacle::NoPendingTable { cpu, pendbaser }));
        }
        let other = self
            .gic
            .lpis
            .as_ref()
            .and_then(|lpis| lpis.read(cpu.index()).sharer_of_pending_table(cpu.get()));
        let shared =
            |other| Obstacle::SharedPendingTable { cpu, pendbaser, other: Cpu::new(other) };
        other.map(|other| ignored.unwrap_or(shared(other)))
    }
}
