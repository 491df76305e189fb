//! Suspends the whole machine to RAM, so that its registers are lost, and resumes it.

use super::boot::wake_redistributors;
use super::{AffinityChange, Device, System};
use crate::cpu::{CpuCore, Cpus, call};
use crate::model::GicModel;
use crate::trace::Occurrence;
use doorbell_hardware::bridge_msi::BridgeMsi;
use doorbell_hardware::platform::MachinePlatform;
use gic_bringup::{Irqchip, Options};
use gic_firmware::Description;
use msi_types::Cpu;
use std::sync::{Arc, PoisonError};
use vgic::Vcpu;

/// The CPU that performs the suspend.
const BOOT: Cpu = Cpu::new(0);

/// The parts of the machine that the last running CPU needs.
struct Sleeper {
    irqchip: Arc<Irqchip<MachinePlatform>>,
    platform: Arc<MachinePlatform>,
    description: Arc<Description>,
    model: Arc<GicModel>,
    bridges: Vec<Arc<BridgeMsi>>,
    cores: Vec<Arc<CpuCore>>,
}

impl System {
    /// Suspends the machine to RAM and resumes it, in the order that a kernel uses: freeze tasks,
    /// stop devices, take the other CPUs offline, and suspend the interrupt controllers from the
    /// boot CPU. The machine resumes in the reverse order. Returns `false` if the machine stayed
    /// awake because a CPU could not go offline.
    ///
    /// # Errors
    /// Returns an error if a driver fails to suspend or resume.
    pub(super) fn suspend_and_resume(&self, cpus: &dyn Cpus) -> Result<bool, String> {
        let _frozen = self.tasks.write().unwrap_or_else(PoisonError::into_inner);
        self.begin_everywhere();
        self.devices.iter().for_each(|device| device.set_asleep(true));
        let result = self.sleep_on_last_cpu(cpus);
        self.devices.iter().for_each(|device| device.set_asleep(false));
        self.end_everywhere();
        if result == Ok(true) {
            self.records.note(Occurrence::Suspended);
        }
        result
    }

    fn sleep_on_last_cpu(&self, cpus: &dyn Cpus) -> Result<bool, String> {
        let mut off = Vec::new();
        let mut result = Ok(true);
        for cpu in self.irqchip.cpus().filter(|cpu| *cpu != BOOT) {
            match self.try_unplug_cpu(cpus, cpu) {
                Ok(AffinityChange::Done) => off.push(cpu),
                Ok(_) => result = Ok(false),
                Err(reason) => result = Err(reason),
            }
            if result != Ok(true) {
                break;
            }
        }
        if result == Ok(true) {
            let sleeper = Sleeper {
                irqchip: Arc::clone(&self.irqchip),
                platform: Arc::clone(&self.platform),
                description: Arc::clone(&self.description),
                model: Arc::clone(&self.model),
                bridges: self.bridges.clone(),
                cores: self.cores.clone(),
            };
            let slept = call(cpus, BOOT, move |core| sleeper.sleep(core));
            slept.ok_or("the boot CPU does not answer")??;
            self.devices.iter().try_for_each(Device::lose_power_and_restore)?;
        }
        off.into_iter().try_for_each(|cpu| self.replug_cpu(cpus, cpu))?;
        result
    }
}

impl Sleeper {
    fn sleep(&self, core: &CpuCore) -> Result<(), String> {
        core.execute(|cpu, registers| {
            let suspended =
                self.irqchip.suspend(cpu, registers).map_err(|error| error.to_string())?;
            self.lose_power()?;
            self.irqchip.resume(suspended, registers).map_err(|error| error.to_string())
        })
    }

    fn lose_power(&self) -> Result<(), String> {
        {
            let mut halves: Vec<_> = self.cores.iter().map(|core| core.vcpu()).collect();
            let mut vcpus: Vec<&mut Vcpu> = halves.iter_mut().map(|half| &mut **half).collect();
            self.model.lose_power(&mut vcpus)?;
            self.bridges.iter().for_each(|bridge| bridge.lose_power());
        }
        // If the kernel must not wake the redistributors, firmware wakes them.
        wake_redistributors(&self.platform, &self.description, &Options::default())
            .map_err(|error| error.to_string())
    }
}
