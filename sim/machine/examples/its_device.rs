//! Brings up an ITS with `gic-driver`, allocates two vectors for a device and sends a message on
//! one.

#[path = "hardware/board.rs"]
mod board;

use board::{Board, DISTRIBUTOR};
use gic_arch::Affinity;
use gic_driver::its::IdMap;
use gic_driver::{Gic, GicConfig, GicCpuInterface, Its, ItsConfig, ItsMsiParent};
use msi_types::{BlockRequest, Cpu, DeviceId, Fit, MsiParent, RequesterId, Rewrite, SignalMsi};
use std::{error::Error, num::NonZeroU16, sync::Arc};
use vgic::VgicConfig;

const ITS: u64 = 0x0808_0000;

fn main() -> Result<(), Box<dyn Error>> {
    let config = VgicConfig::new(1).with_lpi_id_bits(Some(16));
    let board = Board::new(config.with_its(vec![vgic::its::ItsConfig::new(ITS)]))?;
    let (cpu, this) = (Cpu::new(0), Affinity::new(0, 0, 0, 0));

    // The boot CPU, with the addresses that firmware describes:
    let config = GicConfig::new(DISTRIBUTOR, vec![board.redistributors], vec![this]);
    let gic = Arc::new(Gic::new(board.platform.clone(), config)?);
    board.execute(cpu, |registers| gic.cpu_on(cpu, registers))?;
    let its = Arc::new(Its::new(gic.clone(), &ItsConfig::new(ITS, 1))?);
    its.cpu_on(cpu)?;
    // On this board, a device's DeviceID equals its requester ID.
    let parent = ItsMsiParent::new(its, IdMap::identity());

    // A device's driver:
    let function = RequesterId::pci(1, 0, 0);
    let device = parent.attach(function, 2)?;
    let two = NonZeroU16::new(2).ok_or("two")?;
    let block =
        parent.allocate(&device, &BlockRequest::new(two, Fit::new(Rewrite::Masked), cpu))?;
    let message = parent.compose(&block, 1)?;
    println!("its second vector: {:#x} to {:#x}", message.data, message.address);

    // The device sends its message, and the CPU takes the interrupt:
    println!("{:?}", board.signal_msi(DeviceId::new(function.into()), message));
    let mut taken = Vec::new();
    board.execute(cpu, |registers| {
        gic.cpu_interface(registers).handle_pending(|intid| taken.push(intid.get()));
    });
    println!("taken: LPIs {taken:?}");
    assert_eq!(taken, [block.hwirq(1).ok_or("two vectors")?.get()]);

    parent.free(&device, block);
    parent.detach(device);
    Ok(())
}
