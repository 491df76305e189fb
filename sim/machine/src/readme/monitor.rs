use std::{error::Error, sync::Arc};
use vgic_monitor::irq_routing::{GsiSpace, Inputs, Router};
use vgic_monitor::msi_types::Kick;
use vgic_monitor::vgic::{GuestMemory, Vcpu, Vgic, VgicConfig, its::ItsConfig};

/// A guest's interrupt controller.
pub struct Guest {
    /// Answers accesses to the GIC's frames: `gic.read`, `gic.write`.
    pub gic: Arc<Vgic>,
    /// One for each vCPU thread; answers accesses to the CPU interface's system registers.
    pub vcpus: Vec<Vcpu>,
    /// Routes GSIs, eventfds and MSI-X tables to SPIs and LPIs.
    pub router: Arc<Router>,
}

pub fn create(memory: Arc<dyn GuestMemory>, kick: Arc<dyn Kick>) -> Result<Guest, Box<dyn Error>> {
    let config = VgicConfig::new(4) // vCPUs
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(0x0808_0000)]);
    let (gic, vcpus) = Vgic::new(config, memory, kick)?;
    let its = gic.its(0).ok_or("one ITS was configured")?;
    let inputs = Inputs::new(gic.clone()).with_its(its).with_explainer(gic.clone());
    let router = Router::new(GsiSpace::default(), inputs)?;
    Ok(Guest { gic, vcpus, router: Arc::new(router) })
}
