//! Asks why an interrupt does not arrive: a device raises its line, but no guest has enabled the
//! SPI yet.

use std::{error::Error, sync::Arc};
use vgic_monitor::irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing};
use vgic_monitor::msi_types::Level;
use vgic_monitor::vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};

/// A machine without memory, which only LPIs need.
struct NoMemory;

impl GuestMemory for NoMemory {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (gic, _vcpus) = Vgic::new(VgicConfig::new(1), Arc::new(NoMemory), Arc::new(|_| ()))?;
    let inputs = Inputs::new(gic.clone()).with_explainer(gic);
    let router = Router::new(GsiSpace::default(), inputs)?;
    let uart = router.allocate()?;
    router.commit(&[Change::Set(uart, Route::Pin(Pin::of_spi(33)?))])?;
    router.set_level(uart, Level::High)?;

    let explanation = router.explain(uart);
    println!("{explanation}");
    assert!(explanation.obstacle().is_some(), "the guest has not enabled the SPI");
    Ok(())
}
