//! A machine with one vCPU, and a GIC with an ITS and a GICv2m frame. The tests program the GIC and
//! take interrupts on the guest's behalf.

use doorbell_test_support::guest::{ITS, Machine, RAM, mapc, mapd, mapti};
use irq_routing::Inputs;
use msi_types::{DeviceId, MsiMessage};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, V2mConfig, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x3_0000;
const PENDING: u64 = RAM + 0x5_0000;
const FRAME: u64 = 0x0802_0000;
/// The first LPI.
pub(crate) const LPI: u32 = 8192;

/// Creates the machine. The GICv2m frame has SPIs 80 to 95.
pub(crate) fn machine() -> Machine {
    let config = VgicConfig::new(1)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(ITS)])
        .with_v2m(vec![V2mConfig::new(FRAME, 80, 16)]);
    let machine = Machine::running(config);
    machine.ram.write(CONFIGURATION, &[0xa1; 64]).unwrap();
    machine.enable_lpis(16, CONFIGURATION, PENDING);
    machine.start_its();
    machine.run([mapc(0, 0)]);
    machine
}

/// Maps events 0 to 31 of the device, event n to LPI 8192 + n.
pub(crate) fn map(machine: &Machine, device: DeviceId) {
    machine.run([mapd(device.get(), 5, RAM + 0x7_0000)]);
    machine.run((0..32).map(|event| mapti(device.get(), event, LPI + event, 0)));
}

/// Acknowledges and ends all pending interrupts on the guest's behalf.
pub(crate) fn take_all(machine: &mut Machine) -> Vec<u64> {
    std::iter::from_fn(|| Some(machine.handle(0)).filter(|intid| *intid != 1023)).collect()
}

pub(crate) fn inputs(machine: &Machine) -> Inputs {
    Inputs::new(machine.gic.clone())
        .with_its(machine.gic.its(0).unwrap())
        .with_doorbells(machine.gic.clone())
        .with_explainer(machine.gic.clone())
}

/// Returns a message for the ITS.
pub(crate) fn to_its(event: u32) -> MsiMessage {
    MsiMessage { address: ITS + 0x1_0040, data: event }
}
