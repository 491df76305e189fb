//! A machine with one vCPU, and a GIC with an ITS and a GICv2m frame. The tests program the GIC and
//! take interrupts on the guest's behalf.

use doorbell_test_support::guest::{self, ITS, RAM, mapc, mapd, mapti};
use irq_routing::Inputs;
use msi_types::{DeviceId, MsiMessage};
use std::ops::{Deref, DerefMut};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, V2mConfig, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x3_0000;
const PENDING: u64 = RAM + 0x5_0000;
const FRAME: u64 = 0x0802_0000;

/// The SPIs of the GICv2m frame.
pub(crate) const FRAME_SPIS: std::ops::Range<u32> = 80..96;
/// The first LPI.
pub(crate) const LPI: u32 = 8192;

pub(crate) struct Machine(guest::Machine);

impl Deref for Machine {
    type Target = guest::Machine;

    fn deref(&self) -> &guest::Machine {
        &self.0
    }
}

impl DerefMut for Machine {
    fn deref_mut(&mut self) -> &mut guest::Machine {
        &mut self.0
    }
}

impl Machine {
    pub(crate) fn new() -> Self {
        let frame = V2mConfig::new(FRAME, FRAME_SPIS.start, 16);
        let config = VgicConfig::new(1)
            .with_lpi_id_bits(Some(16))
            .with_its(vec![ItsConfig::new(ITS)])
            .with_v2m(vec![frame]);
        let machine = guest::Machine::running(config);
        machine.ram.write(CONFIGURATION, &[0xa1; 64]).unwrap();
        machine.enable_lpis(16, CONFIGURATION, PENDING);
        machine.start_its();
        machine.run([mapc(0, 0)]);
        Self(machine)
    }

    /// Maps events 0 to 31 of the device, event n to LPI 8192 + n.
    pub(crate) fn map(&self, device: DeviceId) {
        self.run([mapd(device.get(), 5, RAM + 0x7_0000)]);
        self.run((0..32).map(|event| mapti(device.get(), event, LPI + event, 0)));
    }

    /// Enables an SPI on the guest's behalf, which is level- or edge-triggered.
    pub(crate) fn enable_spi(&self, intid: u32, edge: bool) {
        if edge {
            self.make_edge(intid);
        }
        self.0.enable_spi(intid);
    }

    /// Acknowledges and ends all pending interrupts on the guest's behalf.
    pub(crate) fn take_all(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| Some(self.handle(0)).filter(|intid| *intid != 1023)).collect()
    }

    pub(crate) fn inputs(&self) -> Inputs {
        Inputs::new(self.gic.clone())
            .with_its(self.gic.its(0).unwrap())
            .with_doorbells(self.gic.clone())
            .with_explainer(self.gic.clone())
    }
}

/// Returns a message for the ITS.
pub(crate) fn to_its(event: u32) -> MsiMessage {
    MsiMessage { address: ITS + 0x1_0040, data: event }
}

/// Returns a message for the GICv2m frame.
pub(crate) fn to_frame(spi: u32) -> MsiMessage {
    MsiMessage { address: FRAME + 0x40, data: spi }
}
