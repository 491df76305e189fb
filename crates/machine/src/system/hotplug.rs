//! What an administrator does while the machine is busy: moves interrupts, takes CPUs off line, removes devices.

use super::unit::{Departure, Driver, Probe, Unit, UnitVector};
use super::{Cpus, System, call};
use crate::report::DeviceKind;
use doorbell_hardware::platform_device::PlatformStore;
use irq_domain::MoveError;
use msi_types::{Cpu, MsiError, MsiMessage};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What became of an affinity change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moved {
    /// The vector is at the CPU.
    Done,
    /// There was nothing to move, or the CPU is off line.
    NotNow,
    /// The endpoint cannot store the message that names the CPU, or not without sending half of it.
    Refused,
}

/// Does the endpoint's store, rather than a driver, keep the interrupt where it is?
const fn is_endpoints_limit(error: &MoveError) -> bool {
    matches!(error, MoveError::Controller(MsiError::WouldTear | MsiError::AddressTooWide { .. }))
}

impl Unit {
    /// Moves the vector at `index` to `to`.
    ///
    /// # Errors
    /// The drivers' reason, if it is not that the CPU is off line.
    pub(crate) fn move_vector(&self, index: usize, to: Cpu) -> Result<Moved, String> {
        self.with_driver(|driver| {
            let Driver::Active(_, handles) = driver else { return Ok(Moved::NotNow) };
            let (Some(handle), Some(vector)) = (handles.get(index), self.vectors().get(index)) else {
                return Ok(Moved::NotNow);
            };
            // Where a message names the CPU, those that count up from one message move together.
            let is_concerned =
                |other: &UnitVector| self.kind() == DeviceKind::PciMsi || other.slot == vector.slot;
            let all = self.vectors().iter().zip(handles);
            let concerned: Vec<_> = all.filter(|(other, _)| is_concerned(other)).collect();
            for (vector, _) in &concerned {
                vector.ledger.begin_operation();
            }
            let result = handle.set_affinity(to);
            for (vector, _) in concerned {
                vector.ledger.end_operation();
            }
            match result {
                Ok(_) => Ok(Moved::Done),
                Err(MoveError::Offline(_) | MoveError::Controller(MsiError::NotReachable(..))) => {
                    Ok(Moved::NotNow)
                }
                Err(error) if is_endpoints_limit(&error) => Ok(Moved::Refused),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// What a platform device sends on its first vector; `None` for others.
pub(crate) fn first_message(unit: &Unit, system: &System) -> Option<MsiMessage> {
    let Probe::Platform { base } = unit.config.probe else { return None };
    Some(PlatformStore::new(system.platform.cpu_bus(), base).message(0))
}

impl System {
    /// Takes `cpu` off line: its interrupts move away, then it is turned off. It stays if an endpoint cannot be moved.
    ///
    /// # Errors
    /// The drivers' reason.
    pub(crate) fn unplug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<Moved, String> {
        self.begin_everywhere();
        let result = self.try_unplug_cpu(cpus, cpu);
        self.end_everywhere();
        result
    }

    fn try_unplug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<Moved, String> {
        let surprises = self.surprises.load(Ordering::SeqCst);
        let mut stranded = Vec::new();
        let offline = self.interrupts.cpu_offline(cpu, |one| stranded.push(one));
        offline.map_err(|error| error.to_string())?;
        // A device that was pulled out meanwhile takes no message.
        let pulled_out = surprises % 2 == 1 || surprises != self.surprises.load(Ordering::SeqCst);
        let may_stay = |error: &MoveError| {
            is_endpoints_limit(error) || (pulled_out && matches!(error, MoveError::Store(_)))
        };
        if !stranded.is_empty() && stranded.iter().all(|stranded| may_stay(&stranded.error)) {
            self.interrupts.cpu_online(cpu, |_| {}).map_err(|error| error.to_string())?;
            return Ok(Moved::Refused);
        }
        if let Some(stranded) = stranded.first() {
            return Err(format!("IRQ {} stays on CPU {cpu}: {}", stranded.irq, stranded.error));
        }
        for its in self.controllers.itses() {
            its.cpu_off(cpu, Cpu::new(0)).map_err(|error| error.to_string())?;
        }
        let (gic, direct_lpi) = (Arc::clone(&self.gic), self.controllers.direct_lpi().cloned());
        let turned_off = call(cpus, cpu, move |core| core.turn_off(&gic, direct_lpi.as_deref()));
        turned_off.ok_or("the CPU does not answer")??;
        self.books.routes.emptied(cpu);
        Ok(Moved::Done)
    }

    /// Brings `cpu` back.
    ///
    /// # Errors
    /// The drivers' reason.
    pub(crate) fn replug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<(), String> {
        let gic = Arc::clone(&self.gic);
        let turned_on = call(cpus, cpu, move |core| core.turn_on(&gic));
        let attached = turned_on.ok_or("the CPU does not answer")?.map_err(|error| error.to_string())?;
        for its in self.controllers.itses() {
            its.cpu_on(cpu).map_err(|error| error.to_string())?;
        }
        if let Some(direct_lpi) = self.controllers.direct_lpi() {
            let pending = attached.ok_or("its LPIs are off")?.pending;
            direct_lpi.cpu_on(cpu, pending).map_err(|error| error.to_string())?;
        }
        let mut left = None;
        let online = self.interrupts.cpu_online(cpu, |one| left = Some(one));
        online.map_err(|error| error.to_string())?;
        left.map_or(Ok(()), |left| Err(format!("irq {} did not start: {}", left.irq, left.error)))
    }

    /// Removes `unit` and adds it again.
    ///
    /// # Errors
    /// The drivers' reason.
    pub(crate) fn readd_unit(&self, unit: &Unit, departure: Departure) -> Result<(), String> {
        unit.remove(self, departure);
        unit.add(self).map_err(|reason| format!("{}: {reason}", unit.config.name))
    }

    fn begin_everywhere(&self) {
        for vector in self.units.iter().flat_map(Unit::vectors) {
            vector.ledger.begin_operation();
        }
    }

    fn end_everywhere(&self) {
        for vector in self.units.iter().flat_map(Unit::vectors) {
            vector.ledger.end_operation();
        }
    }
}
