//! The judge's machine on Doorbell's GIC instead of KVM's.

use crate::layout::{CPUS, DISTRIBUTOR, INTERRUPTS, ITS, LEVEL_LINE, REDISTRIBUTORS, SPECIAL};
use crate::machine::{NEWEST, iidr};
use crate::memory::{self, Ram};
use crate::{Failure, Machine, Operation};
use gic_arch::icc;
use msi_types::{Cpu, Delivery, DeviceId, EventId, Kick, Level, Line, MsiMessage, SetLine};
use std::sync::Arc;
use vgic::saved_state::SavedState;
use vgic::{RedistributorRegion, Vcpu, Vgic, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::{KvmDevice, KvmView, at_revision, kvm_config, kvm_its_config};

/// A machine with Doorbell's GIC.
#[derive(Debug)]
pub struct ModelMachine {
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    ram: Ram,
    config: VgicConfig,
    /// State that was written through attributes. The state takes effect when the guest runs again.
    staged: Option<SavedState>,
}

/// Returns the configuration of the machine that the address map describes.
fn config(revision: u8) -> Result<VgicConfig, Errno> {
    let redistributors = RedistributorRegion::new(REDISTRIBUTORS, CPUS.into());
    let config = kvm_config(CPUS, INTERRUPTS)
        .with_distributor(DISTRIBUTOR)
        .with_redistributors(vec![redistributors])
        .with_its(ITS.map(kvm_its_config).into());
    at_revision(config, iidr(revision))
}

/// Does nothing: the guest polls, so its vCPUs never sleep.
struct NoKick;

impl Kick for NoKick {
    fn kick(&self, _: Cpu) {}
}

impl ModelMachine {
    /// Creates a machine whose GIC and ITSes are in their power-on state.
    pub fn new() -> Result<Self, Failure> {
        Self::at_revision(NEWEST)
    }

    /// Creates a machine whose GIC has this revision.
    pub fn at_revision(revision: u8) -> Result<Self, Failure> {
        let config = config(revision)?;
        let ram = memory::ram()?;
        let (gic, vcpus) = Vgic::new(config.clone(), Arc::new(ram.clone()), Arc::new(NoKick))?;
        Ok(Self { gic, vcpus, ram, config, staged: None })
    }

    /// Returns the machine's configuration.
    pub fn config(&self) -> &VgicConfig {
        &self.config
    }

    /// Returns the machine's state.
    pub fn state(&mut self) -> Result<SavedState, Failure> {
        if let Some(staged) = &self.staged {
            return Ok(staged.clone());
        }
        let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
        Ok(self.gic.save()?)
    }

    /// Replaces the machine's state.
    pub fn put(&mut self, state: SavedState) {
        self.staged = Some(state);
    }

    /// Restores the state that has been written through attributes.
    fn settle(&mut self) -> Result<(), Failure> {
        if let Some(staged) = self.staged.take() {
            let _paused: Vec<_> = self.vcpus.iter_mut().map(Vcpu::pause).collect();
            self.gic.restore(&staged)?;
        }
        Ok(())
    }

    fn vcpu(&mut self, cpu: u16) -> Result<&mut Vcpu, Failure> {
        self.vcpus
            .get_mut(usize::from(cpu))
            .ok_or_else(|| format!("vCPU {cpu} does not exist").into())
    }

    fn operate(&self, operation: Operation) -> Result<Option<u64>, Failure> {
        let Operation { address, width, written } = operation;
        let Some(value) = written else { return Ok(Some(self.gic.read(address, width)?)) };
        self.gic.write_until_done(address, width, value)?;
        Ok(None)
    }

    /// Returns the view of the machine through KVM's attributes.
    fn view(&mut self) -> Result<KvmView<'_>, Errno> {
        let state = self.state().map_err(|_| Errno::Busy)?;
        KvmView::new(&self.config, state, &self.ram).map_err(|_| Errno::NoAccess)
    }
}

impl Machine for ModelMachine {
    fn ram(&self) -> &Ram {
        &self.ram
    }

    fn run(&mut self, _: u16, operations: &[Operation]) -> Result<Vec<u64>, Failure> {
        self.settle()?;
        let read = operations.iter().map(|operation| self.operate(*operation));
        read.filter_map(Result::transpose).collect()
    }

    fn configure(&mut self, cpu: u16, mask: u64, binary_point: u64) -> Result<(), Failure> {
        self.settle()?;
        let vcpu = self.vcpu(cpu)?;
        for (register, value) in [
            (icc::PMR.encoding(), mask),
            (icc::BPR1.encoding(), binary_point),
            (icc::IGRPEN1.encoding(), 1),
        ] {
            vcpu.write_sysreg(register, value)?;
        }
        Ok(())
    }

    fn signal(
        &mut self,
        its: usize,
        device: DeviceId,
        event: EventId,
    ) -> Result<Delivery, Failure> {
        self.settle()?;
        let address = kvm_its_config(*ITS.get(its).ok_or("the ITS does not exist")?).doorbell();
        let its = self.gic.its(its).ok_or("the machine does not have this ITS")?;
        Ok(its.signal_msi(device, MsiMessage { address, data: event.get() }))
    }

    fn drive(&mut self, spi: u32, level: Level) -> Result<(), Failure> {
        self.settle()?;
        self.gic.set_line(Line::Spi(spi), level);
        Ok(())
    }

    fn take(&mut self, cpu: u16) -> Result<u32, Failure> {
        self.settle()?;
        Ok(u32::try_from(self.vcpu(cpu)?.read_sysreg(icc::IAR1.encoding())?)?)
    }

    fn end(&mut self, cpu: u16, intid: u32) -> Result<(), Failure> {
        self.settle()?;
        Ok(self.vcpu(cpu)?.write_sysreg(icc::EOIR1.encoding(), intid.into())?)
    }

    fn acknowledge(&mut self, cpu: u16) -> Result<Vec<u32>, Failure> {
        self.settle()?;
        let vcpu = self.vcpus.get_mut(usize::from(cpu)).ok_or("the vCPU does not exist")?;
        let mut intids = Vec::new();
        loop {
            let intid = vcpu.read_sysreg(icc::IAR1.encoding())?;
            if (u64::from(SPECIAL)..1024).contains(&intid) {
                return Ok(intids);
            }
            intids.push(u32::try_from(intid)?);
            if intid == u64::from(LEVEL_LINE) {
                self.gic.set_line(Line::Spi(LEVEL_LINE), Level::Low);
            }
            vcpu.write_sysreg(icc::EOIR1.encoding(), intid)?;
        }
    }

    fn stopped(&self, _: u16) -> Result<Option<bool>, Failure> {
        Ok(None)
    }

    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        self.view()?.get(device, attribute)
    }

    fn has(&mut self, device: KvmDevice, attribute: Attribute) -> Result<(), Errno> {
        self.view()?.has(device, attribute)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        let mut view = self.view()?;
        view.set(device, attribute, value)?;
        self.staged = Some(view.into_state());
        Ok(())
    }
}
