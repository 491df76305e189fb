use irq_routing::msix::{BadTableSize, MsixTable};
use irq_routing::{GsiSpace, Inputs, Router, Sender};
use msi_types::{DeviceId, Kick};
use std::{error::Error, sync::Arc};
use vgic::{GuestMemory, Vcpu, Vgic, VgicConfig, its::ItsConfig};

/// A monitor's parts of its guest's interrupt controller.
pub struct Guest {
    /// The bus forwards the guest's accesses to its frames: `gic.read`, `gic.write`.
    pub gic: Arc<Vgic>,
    /// Leads GSIs to SPIs and LPIs. Eventfds are bound to it.
    pub router: Arc<Router>,
    /// Each goes to its vCPU's thread, and answers the guest's accesses to system registers there.
    pub vcpus: Vec<Vcpu>,
}

impl Guest {
    pub fn new(memory: Arc<dyn GuestMemory>, kick: Arc<dyn Kick>) -> Result<Self, Box<dyn Error>> {
        let mut config = VgicConfig::new(4);
        config.lpi_id_bits = Some(16);
        config.its = vec![ItsConfig::new(0x0808_0000)];
        let (gic, vcpus) = Vgic::new(config, memory, kick)?;
        let its = gic.its(0).ok_or("one ITS was configured")?;
        let router = Router::new(GsiSpace::default(), Inputs::new(gic.clone()).with_its(its))?;
        Ok(Self { gic, router: Arc::new(router), vcpus })
    }

    /// A PCI function's MSI-X table: the guest writes to it, and `signal` sends a vector's message.
    pub fn function(&self, device: DeviceId, vectors: u16) -> Result<MsixTable, BadTableSize> {
        MsixTable::new(vectors, Sender::Device(device), self.router.clone())
    }
}
