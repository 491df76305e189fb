//! Disturbances on a busy machine: interrupt moves, CPU hotplug and device removal.

use super::device::{Device, DeviceVector, Driver};
use super::hardware::{DeviceHardware, Removal};
use super::{System, turn_on};
use crate::cpu::{Cpus, call};
use crate::disturbance::Disturbance;
use crate::report::DeviceKind;
use crate::rng::Rng;
use crate::trace::Occurrence;
use gic_bringup::CpuError;
use irq_domain::{Irq, MoveError};
use msi_types::trace::Event;
use msi_types::{Cpu, MsiError, MsiMessage};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// The result of an affinity change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AffinityChange {
    /// The vector now targets the CPU.
    Done,
    /// The vector was not allocated, or the CPU is offline.
    NotNow,
    /// The endpoint cannot store the message that targets the CPU, or cannot store it atomically.
    Refused,
    /// The vector has the target of this line.
    OfLine(Irq),
}

/// Returns `true` if a limit of the endpoint's message store, rather than a driver fault, prevents
/// the move.
const fn is_endpoints_limit(error: &MoveError) -> bool {
    matches!(error, MoveError::Controller(MsiError::WouldTear | MsiError::AddressTooWide { .. }))
}

impl Device {
    /// Moves the vector at `index` to `to`.
    ///
    /// # Errors
    /// Returns an error if a driver fails to move the vector for a reason other than an offline CPU
    /// or a limit of the endpoint.
    pub(crate) fn move_vector(&self, index: usize, to: Cpu) -> Result<AffinityChange, String> {
        self.with_driver(|driver| {
            let Driver::Active(_, handles) = driver else { return Ok(AffinityChange::NotNow) };
            let (Some(handle), Some(vector)) = (handles.get(index), self.vectors().get(index))
            else {
                return Ok(AffinityChange::NotNow);
            };
            // If the message encodes the CPU, all vectors that share the message move together.
            let is_concerned = |other: &DeviceVector| {
                self.kind() == DeviceKind::PciMsi || other.slot == vector.slot
            };
            let all = self.vectors().iter().zip(handles);
            let concerned: Vec<_> = all.filter(|(other, _)| is_concerned(other)).collect();
            for (vector, _) in &concerned {
                vector.record.begin_operation();
            }
            let result = handle.set_affinity(to);
            for (vector, _) in concerned {
                vector.record.end_operation();
            }
            match result {
                Ok(_) => {
                    let moved = Event::Moved { hwirq: handle.hwirq(), to };
                    vector.note(Occurrence::Event(moved));
                    Ok(AffinityChange::Done)
                }
                Err(MoveError::Offline(_) | MoveError::Controller(MsiError::NotReachable(..))) => {
                    Ok(AffinityChange::NotNow)
                }
                Err(MoveError::SharesLine(line)) => Ok(AffinityChange::OfLine(line)),
                Err(error) if is_endpoints_limit(&error) => Ok(AffinityChange::Refused),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// Returns the message of a platform device's first vector; `None` for other devices.
pub(crate) fn first_message(device: &Device) -> Option<MsiMessage> {
    let DeviceHardware::Platform { store, .. } = &device.config.hardware else { return None };
    Some(store.message(0))
}

impl System {
    /// Moves the vector of `device` at `index` to `to`. If the vector has the target of a line,
    /// moves the line, and with it all of its vectors.
    ///
    /// # Errors
    /// Fails if [`Device::move_vector`] does.
    pub(crate) fn move_vector(
        &self,
        device: &Device,
        index: usize,
        to: Cpu,
    ) -> Result<AffinityChange, String> {
        let line = match device.move_vector(index, to)? {
            AffinityChange::OfLine(line) => line,
            change => return Ok(change),
        };
        self.begin_everywhere();
        let routes = &self.records.routes;
        let moved =
            routes.while_lines_move(&self.interrupts, || self.interrupts.set_affinity(line, to));
        self.end_everywhere();
        match moved {
            Ok(_) => Ok(AffinityChange::Done),
            Err(MoveError::Offline(_)) => Ok(AffinityChange::NotNow),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes `cpu` offline: moves its interrupts to other CPUs, then turns it off. The CPU stays
    /// online if an interrupt cannot be moved because of a limit of the endpoint.
    ///
    /// # Errors
    /// Returns an error if a driver fails, or if an interrupt cannot be moved for another reason.
    pub(crate) fn unplug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<AffinityChange, String> {
        self.begin_everywhere();
        let result = self.try_unplug_cpu(cpus, cpu);
        self.end_everywhere();
        result
    }

    pub(super) fn try_unplug_cpu(
        &self,
        cpus: &dyn Cpus,
        cpu: Cpu,
    ) -> Result<AffinityChange, String> {
        let surprises = self.surprises.load(Ordering::SeqCst);
        let mut stranded = Vec::new();
        let offline = self.records.routes.while_lines_move(&self.interrupts, || {
            self.irqchip.cpu_offline(cpu, Cpu::new(0), |one| stranded.push(one))
        });
        // A device that has been unplugged in the meantime does not accept new messages.
        let pulled_out = surprises % 2 == 1 || surprises != self.surprises.load(Ordering::SeqCst);
        let may_stay = |error: &MoveError| {
            is_endpoints_limit(error) || (pulled_out && matches!(error, MoveError::Store(_)))
        };
        match offline {
            Ok(()) => {}
            Err(CpuError::Stranded(_)) => {
                return match stranded.iter().find(|stranded| !may_stay(&stranded.error)) {
                    None => Ok(AffinityChange::Refused),
                    Some(stranded) => {
                        Err(format!("IRQ {} stays on CPU {cpu}: {}", stranded.irq, stranded.error))
                    }
                };
            }
            Err(error) => return Err(error.to_string()),
        }
        let irqchip = Arc::clone(&self.irqchip);
        let turned_off = call(cpus, cpu, move |core| {
            while core.take_one() {}
            core.execute(|cpu, registers| irqchip.cpu_dying(cpu, registers))
        });
        turned_off.ok_or("the CPU does not answer")?.map_err(|error| error.to_string())?;
        self.records.routes.emptied(cpu);
        Ok(AffinityChange::Done)
    }

    /// Performs a disturbance of this kind, unless the machine or an endpoint does not permit it
    /// now. Returns `true` if it took place. Calls `meanwhile` while a CPU is offline.
    ///
    /// # Errors
    /// Returns an error if a driver fails.
    pub(crate) fn disturb(
        &self,
        kind: Disturbance,
        cpus: &dyn Cpus,
        rng: &mut Rng,
        meanwhile: impl FnOnce(&mut Rng),
    ) -> Result<bool, String> {
        if kind == Disturbance::Suspensions {
            return self.suspend_and_resume(cpus);
        }
        // The machine must not suspend while a task uses drivers.
        let _awake = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        match kind {
            Disturbance::Moves => self.draw_move(rng).map_or(Ok(false), |(device, index, to)| {
                Ok(self.move_vector(device, index, to)? == AffinityChange::Done)
            }),
            Disturbance::CpuHotplug => self.replug_any_cpu(cpus, rng, meanwhile),
            Disturbance::DeviceHotplug | Disturbance::Suspensions => self.readd_any_device(rng),
        }
    }

    /// Draws a vector, by its device and its index, and a CPU. Returns `None` if no device has
    /// vectors.
    pub(crate) fn draw_move(&self, rng: &mut Rng) -> Option<(&Device, usize, Cpu)> {
        let device = *rng.pick(&self.active())?;
        Some((device, rng.below(device.vectors().len()), rng.cpu(self.cpus)))
    }

    /// Takes a random CPU other than the boot CPU offline, calls `meanwhile`, and brings the CPU
    /// back online. Returns `false` if the CPU had to stay online.
    ///
    /// # Errors
    /// Returns an error if the CPU should have gone offline, or did not come back.
    fn replug_any_cpu(
        &self,
        cpus: &dyn Cpus,
        rng: &mut Rng,
        meanwhile: impl FnOnce(&mut Rng),
    ) -> Result<bool, String> {
        if self.cpus < 2 {
            return Ok(false);
        }
        let cpu = Cpu::new(1 + rng.cpu(self.cpus - 1).get());
        let gone = self.unplug_cpu(cpus, cpu);
        if gone.map_err(|reason| format!("CPU {cpu} offline: {reason}"))? != AffinityChange::Done {
            return Ok(false);
        }
        meanwhile(rng);
        let back = self.replug_cpu(cpus, cpu);
        back.map_err(|reason| format!("CPU {cpu} online: {reason}")).map(|()| true)
    }

    /// Brings `cpu` back online.
    ///
    /// # Errors
    /// Returns an error if a driver fails to bring the CPU online.
    pub(super) fn replug_cpu(&self, cpus: &dyn Cpus, cpu: Cpu) -> Result<(), String> {
        turn_on(&self.irqchip, cpus, cpu)?;
        self.records.note(Occurrence::Replugged { cpu });
        Ok(())
    }

    /// Removes a random device and adds it again. Returns `false` if the device has no vectors.
    ///
    /// # Errors
    /// Returns an error if the driver cannot set up the device again.
    fn readd_any_device(&self, rng: &mut Rng) -> Result<bool, String> {
        let device = rng.pick(&self.devices).filter(|device| !device.vectors().is_empty());
        let Some(device) = device else { return Ok(false) };
        // A vector whose interrupt has been requested cannot signal before the whole device is set
        // up.
        device.vectors().iter().for_each(|vector| vector.record.begin_operation());
        device.remove(self, if rng.one_in(2) { Removal::Orderly } else { Removal::Surprise });
        let added = device.add(self);
        device.vectors().iter().for_each(|vector| vector.record.end_operation());
        added.map_err(|reason| format!("{}: {reason}", device.config.name))?;
        device.vectors().iter().take(1).for_each(|vector| vector.note(Occurrence::Readded));
        Ok(true)
    }

    pub(super) fn begin_everywhere(&self) {
        for vector in self.devices.iter().flat_map(Device::vectors) {
            vector.record.begin_operation();
        }
    }

    pub(super) fn end_everywhere(&self) {
        for vector in self.devices.iter().flat_map(Device::vectors) {
            vector.record.end_operation();
        }
    }
}
