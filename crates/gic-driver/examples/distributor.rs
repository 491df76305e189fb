//! The driver initializes a distributor and enables an SPI. The registers are plain memory, so the
//! example prints the writes that a GIC would receive, apart from zeros.

use gic_arch::{Affinity, IntId, Priority, gicd, id};
use gic_driver::{Distributor, DistributorConfig, Mmio, PhysicalRegion, Platform, Wait};
use msi_types::{IrqState, LocalCpu};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

/// Registers by offset. A register that was never written reads as zero.
#[derive(Clone, Default)]
struct Registers(Arc<Mutex<BTreeMap<u32, u64>>>);

impl Registers {
    fn set(&self, offset: u32, value: u64) {
        self.0.lock().expect("no panic").insert(offset, value);
    }
    fn write(&self, offset: u32, value: u64) {
        if value != 0 {
            println!("GICD + {offset:#06x} = {value:#x}");
        }
        self.set(offset, value);
    }
}

impl Mmio for Registers {
    fn read32(&self, offset: u32) -> u32 {
        (self.read64(offset) & 0xffff_ffff) as u32
    }
    fn write32(&self, offset: u32, value: u32) {
        self.write(offset, value.into());
    }
    fn read64(&self, offset: u32) -> u64 {
        self.0.lock().expect("no panic").get(&offset).copied().unwrap_or_default()
    }
    fn write64(&self, offset: u32, value: u64) {
        self.write(offset, value);
    }
    fn write8(&self, offset: u32, value: u8) {
        self.write(offset, value.into());
    }
}

impl LocalCpu for Registers {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Registers {
    type Mmio = Self;

    fn map(&self, _: PhysicalRegion) -> Option<Self> {
        Some(self.clone())
    }
    fn wait(&self, turn: u32) -> Wait {
        if turn < 1000 { Wait::Again } else { Wait::GiveUp }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let board = Registers::default();
    board.set(id::PIDR2.offset(), 0x3b); // a GICv3
    board.set(gicd::TYPER.offset(), 9 << 19 | 1); // 10 bits per INTID, 32 SPIs
    let distributor = Distributor::map(&board, 0x0800_0000)?;
    distributor
        .init(&board, DistributorConfig::new(Priority::new(0xa0), Affinity::new(0, 0, 0, 0)))?;
    let uart = IntId::spi(1).ok_or("SPIs exist")?;
    println!("the UART's SPI:");
    distributor.interrupt(uart)?.enable();
    let bit = gicd::ISENABLER.locate(uart).ok_or("an SPI is at the distributor")?;
    assert_eq!(board.read32(bit.register().offset()), bit.mask());
    Ok(())
}
