//! What an administrator does while the machine is busy: moves interrupts, takes CPUs off line, removes devices.

use super::unit::{Departure, Driver, Unit};
use super::{Cpus, System, call};
use irq_domain::{IrqHandle, MoveError};
use msi_types::{Cpu, MsiError};
use std::sync::Arc;

/// What became of an affinity change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moved {
    /// The vector is at the CPU.
    Done,
    /// There was nothing to move, or the CPU is off line.
    NotNow,
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
            vector.ledger.begin_operation(Some(to));
            let result = handle.set_affinity(to);
            vector.ledger.end_operation(|| Some(handle.effective_affinity()));
            match result {
                Ok(_) => Ok(Moved::Done),
                Err(MoveError::Offline(_) | MoveError::Controller(MsiError::NotReachable(..))) => {
                    Ok(Moved::NotNow)
                }
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

impl System {
    /// Takes `cpu` off line: its interrupts move away, then it is turned off.
    ///
    /// # Errors
    /// The drivers' reason.
    pub(crate) fn unplug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<(), String> {
        self.begin_everywhere();
        let result = self.try_unplug_cpu(cpus, cpu);
        self.end_everywhere();
        result
    }

    fn try_unplug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<(), String> {
        let stranded = self.interrupts.cpu_offline(cpu).map_err(|error| error.to_string())?;
        if let Some(stranded) = stranded.first() {
            return Err(format!("IRQ {} stays on CPU {cpu}: {}", stranded.irq, stranded.error));
        }
        for its in self.itses.values() {
            its.cpu_off(cpu, Cpu::new(0)).map_err(|error| error.to_string())?;
        }
        let gic = Arc::clone(&self.gic);
        let turned_off = call(cpus, cpu, move |core| core.turn_off(&gic));
        turned_off.ok_or("the CPU does not answer")?.map_err(|error| error.to_string())
    }

    /// Brings `cpu` back.
    ///
    /// # Errors
    /// The drivers' reason.
    pub(crate) fn replug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<(), String> {
        let gic = Arc::clone(&self.gic);
        let turned_on = call(cpus, cpu, move |core| core.turn_on(&gic));
        turned_on.ok_or("the CPU does not answer")?.map_err(|error| error.to_string())?;
        let redistributor = self.gic.redistributor(cpu).ok_or("the CPU has no redistributor")?;
        for its in self.itses.values() {
            its.cpu_on(&redistributor).map_err(|error| error.to_string())?;
        }
        self.interrupts.cpu_online(cpu).map_err(|error| error.to_string())
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
            vector.ledger.begin_operation(None);
        }
    }

    fn end_everywhere(&self) {
        for unit in &self.units {
            unit.with_driver(|driver| {
                let handles = match driver {
                    Driver::Active(_, handles) => handles.as_slice(),
                    Driver::Refused(_) | Driver::Attached(..) | Driver::Gone => &[],
                };
                for (index, vector) in unit.vectors().iter().enumerate() {
                    let target = || handles.get(index).map(IrqHandle::effective_affinity);
                    vector.ledger.end_operation(target);
                }
            });
        }
    }
}
