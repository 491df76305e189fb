extern crate alloc;
use alloc::{boxed::Box, sync::Arc};
use core::{error::Error, num::NonZeroU16};
use gic_driver::{Gic, GicConfig, Its, ItsConfig, ItsMsiParent, Platform, SystemRegisters, its::IdMap};
use irq_domain::{Config, Host, Interrupts, IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::{Cpu, MessageStore, RequesterId, Shape};

/// What the kernel keeps for as long as it takes interrupts.
pub struct Kernel<P: Platform> {
    pub gic: Arc<Gic<P>>,
    pub its: Arc<Its<P>>,
    pub interrupts: Arc<Interrupts>,
}

/// What a device's driver keeps: without the handle no handler runs, without the device there is no vector.
pub struct Nvme {
    pub admin: IrqHandle,
    pub device: MsiDevice,
}

impl<P: Platform + 'static> Kernel<P> {
    /// On the boot CPU, which unmasks interrupts afterwards.
    pub fn bring_up(
        platform: Arc<P>,
        host: Arc<dyn Host>,
        registers: &impl SystemRegisters,
        config: GicConfig,
        its: &ItsConfig,
    ) -> Result<Self, Box<dyn Error>> {
        let boot = platform.cpu();
        let cpus = NonZeroU16::new(u16::try_from(config.cpus.len())?).ok_or("no CPUs")?;
        let gic = Arc::new(Gic::new(platform, config)?);
        gic.cpu_on(boot, registers)?;
        let its = Arc::new(Its::new(gic.clone(), its)?);
        its.cpu_on(boot)?;
        let interrupts = Interrupts::new(Config::new(cpus, host).with_wired(gic.clone()))?;
        Ok(Self { gic, its, interrupts: Arc::new(interrupts) })
    }

    /// On every other CPU, once it runs and before it unmasks interrupts.
    pub fn cpu_on(&self, cpu: Cpu, registers: &impl SystemRegisters) -> Result<(), Box<dyn Error>> {
        self.gic.cpu_on(cpu, registers)?;
        self.its.cpu_on(cpu)?;
        self.interrupts.cpu_online(cpu, |_| {})?; // is told which managed vectors could not come back
        Ok(())
    }

    /// The IRQ exception of this CPU: runs the handlers of everything that is pending.
    pub fn take_interrupts(&self, cpu: Cpu, registers: &impl SystemRegisters) {
        let interface = self.gic.cpu_interface(registers);
        while let Some(acknowledged) = interface.acknowledge() {
            self.interrupts.dispatch(cpu, acknowledged.intid().vector());
            interface.end(acknowledged);
        }
    }

    /// A driver takes its PCI function into use, with up to 32 vectors.
    pub fn probe(
        &self,
        function: RequesterId,
        store: Arc<dyn MessageStore>,
        handler: impl Fn(&IrqContext<'_>) + Send + Sync + 'static,
    ) -> Result<Nvme, Box<dyn Error>> {
        let parent = Arc::new(ItsMsiParent::new(self.its.clone(), IdMap::identity()));
        let config = MsiDeviceConfig { name: "nvme0", requester: function, parent, store };
        let device = MsiDevice::attach(&self.interrupts, config)?;
        let vectors = device.allocate(Shape::Independent, 1..=32)?;
        let admin = device.request(vectors[0].slot, "nvme0-admin", handler)?;
        Ok(Nvme { admin, device })
    }
}
