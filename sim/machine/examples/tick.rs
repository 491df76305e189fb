//! Uses `gic-driver` without a heap: a timer ticks, and the CPU sends an SGI to itself.

#[path = "hardware/board.rs"]
mod board;

use board::{Board, DISTRIBUTOR};
use doorbell_machine::sequential::CpuRegisters;
use gic_arch::{Affinity, IntId, Priority, SgiId};
use gic_driver::{CpuInterface, CpuInterfaceConfig, Distributor, DistributorConfig, GicError};
use gic_driver::{GicCpuInterface, Platform, PrivateConfig, RedistributorRegion};
use gic_driver::{SystemRegisters, find_redistributor};
use msi_types::{Cpu, Level, Line, SetLine};
use std::error::Error;
use vgic::VgicConfig;

const THIS: Affinity = Affinity::new(0, 0, 0, 0); // MPIDR_EL1

/// Enables the interrupts, without allocating. `gic` has the addresses that firmware reports for
/// the distributor and the redistributors.
fn enable<P: Platform>(
    platform: &P,
    gic: (u64, RedistributorRegion),
    registers: &impl SystemRegisters,
    interrupts: [IntId; 2],
) -> Result<(), GicError> {
    let priority = Priority::new(0xa0);
    let distributor = Distributor::map(platform, gic.0)?;
    distributor.init(platform, DistributorConfig::new(priority, THIS))?;
    let redistributor = find_redistributor(platform, &[gic.1], THIS)?;
    redistributor.wake(platform)?;
    redistributor.init(platform, PrivateConfig::new(priority, distributor.view()))?;
    <CpuInterface<_>>::enable(registers, CpuInterfaceConfig::default())?;
    redistributor.interrupt(interrupts[0])?.enable();
    redistributor.interrupt(interrupts[1])?.enable();
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let board = Board::new(VgicConfig::new(1))?;
    let timer = IntId::ppi(11).ok_or("PPIs are numbered 0 to 15")?;
    let sgi = SgiId::new(3).ok_or("SGIs are numbered 0 to 15")?;
    let tick = |level| board.set_line(Line::Ppi { cpu: Cpu::new(0), intid: timer.get() }, level);

    let gic = (DISTRIBUTOR, board.redistributors);
    board.execute(Cpu::new(0), |registers| {
        enable(&*board.platform, gic, registers, [timer, sgi.intid()])?;
        <CpuInterface<&CpuRegisters<'_>>>::new(registers).send(sgi, THIS)
    })?;
    let mut taken = Vec::new();
    // The IRQ exception:
    board.execute(Cpu::new(0), |registers| {
        <CpuInterface<&CpuRegisters<'_>>>::new(registers).handle_pending(|intid| {
            taken.push(intid.get());
            // Once the SGI has been taken, the timer fires until its handler rearms it.
            tick(if intid == timer { Level::Low } else { Level::High });
        });
    });
    println!("taken: {taken:?}");
    assert_eq!(taken, [3, 27]);
    Ok(())
}
