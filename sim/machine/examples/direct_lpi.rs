//! Uses `gic-driver` without an ITS: a device writes its LPI to a redistributor.

#[path = "hardware/board.rs"]
mod board;

use board::{Board, DISTRIBUTOR};
use gic_arch::Affinity;
use gic_driver::{DirectLpi, Gic, GicConfig, GicCpuInterface};
use msi_types::{BlockRequest, Cpu, DeviceId, Fit, MsiParent, RequesterId, Rewrite, SignalMsi};
use std::{error::Error, num::NonZeroU16, sync::Arc};
use vgic::VgicConfig;

fn main() -> Result<(), Box<dyn Error>> {
    let board = Board::new(VgicConfig::new(1).with_direct_lpi(true).with_lpi_id_bits(Some(14)))?;
    let (cpu, this) = (Cpu::new(0), Affinity::new(0, 0, 0, 0));

    // The boot CPU, with the addresses that firmware describes:
    let config = GicConfig::new(DISTRIBUTOR, vec![board.redistributors], vec![this]);
    let gic = Arc::new(Gic::new(board.platform.clone(), config)?);
    board.execute(cpu, |registers| gic.cpu_on(cpu, registers))?;
    let parent = DirectLpi::new(gic.clone())?;

    // The device's driver. Note that the doorbell can't tell who wrote to it, so any device can
    // send any LPI.
    let function = RequesterId::pci(1, 0, 0);
    println!("isolation: {:?}", parent.isolation(function));
    let device = parent.attach(function, 1)?;
    let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), cpu);
    let block = parent.allocate(&device, &request)?;
    let message = parent.compose(&block, 0)?;
    println!("its vector: {:#x} to {:#x}", message.data, message.address);

    // The device sends its message, and the CPU takes the interrupt:
    println!("{:?}", board.signal_msi(DeviceId::default(), message));
    let mut taken = Vec::new();
    board.execute(cpu, |registers| {
        gic.cpu_interface(registers).handle_pending(|intid| taken.push(intid.get()));
    });
    println!("taken: LPIs {taken:?}");
    assert_eq!(taken, [block.first().get()]);

    parent.free(&device, block);
    parent.detach(device);
    Ok(())
}
