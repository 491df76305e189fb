//! QEMU's educational device, with a DMA engine, and a register that raises the device's MSI or
//! INTA.

use crate::driver::Driver;
use crate::report::{Verdict, check};
use core::sync::atomic::{AtomicU64, Ordering};
use image_rt::cpu;
use image_rt::pci::{self, Function, MappedRegion};
use irq_domain::pci::TableMemory;

/// Interrupt status register: 0 while the interrupt is not asserted.
pub(crate) const STATUS: u64 = 0x24;
/// Registers that raise and acknowledge the interrupt.
pub(crate) const RAISE: u64 = 0x60;
pub(crate) const ACKNOWLEDGE: u64 = 0x64;
/// Registers of the DMA engine, of which the lower halves suffice for RAM of `virt`.
pub(crate) const DMA_FROM: u64 = 0x80;
pub(crate) const DMA_TO: u64 = 0x88;
pub(crate) const DMA_BYTES: u64 = 0x90;
pub(crate) const DMA_COMMAND: u64 = 0x98;
pub(crate) const DMA_START_WITH_INTERRUPT: u32 = 0b101;
const DMA_START_TO_RAM: u32 = 0b011;
const DMA_RUNS: u32 = 1;
/// Address of the device's own memory.
pub(crate) const DMA_BUFFER: u32 = 0x4_0000;

/// An `edu` device.
pub(crate) struct Edu(MappedRegion);

impl Edu {
    pub(crate) fn new(function: &Function) -> Self {
        Self(pci::bar(function, 0))
    }
}

impl Driver for Edu {
    fn vectors(&self) -> u16 {
        1
    }

    fn fire(&self, _: u16) -> Result<bool, Verdict> {
        self.0.write32(RAISE, 1);
        Ok(true)
    }

    fn handle(&self, _: u16) {
        self.0.write32(ACKNOWLEDGE, 1);
    }
}

/// Makes the device write a word to RAM. Returns `true` if the word was written.
pub(crate) fn writes(function: &Function) -> Result<bool, Verdict> {
    static WORD: AtomicU64 = AtomicU64::new(0);
    WORD.store(u64::MAX, Ordering::SeqCst);
    let registers = pci::bar(function, 0);
    registers.write32(DMA_FROM, DMA_BUFFER);
    registers.write32(DMA_TO, WORD.as_ptr().expose_provenance() as u32);
    registers.write32(DMA_BYTES, 8);
    registers.write32(DMA_COMMAND, DMA_START_TO_RAM);
    let done = cpu::wait_until(2000, || registers.read32(DMA_COMMAND) & DMA_RUNS == 0);
    check!(done, "the device's DMA engine does not finish");
    Ok(WORD.load(Ordering::SeqCst) != u64::MAX)
}
