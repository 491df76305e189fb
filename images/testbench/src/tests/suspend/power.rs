//! Simulates a power-down by writing the reset values of the registers that a power-down loses.
//! Uses only offsets from the specifications (IHI 0069 §12, IHI 0048 §4; PCI Express §7.5, §7.7),
//! so that the test does not depend on the drivers' definitions.

use crate::controller::registers;
use crate::machine::Machine;
use gic_arch::icc;
use gic_bringup::{MsiController, RootGic};
use gic_driver::{GicPlatform, Mmio, PhysicalRegion, Platform, SystemRegisters, Table};
use image_rt::pci::{self, Function};
use image_rt::platform::Kernel;
use irq_domain::pci::TableMemory;
use msi_types::{Cpu, Region};

const ENABLE_LPIS: u32 = 1;

type Frame = <Kernel as Platform>::Mmio;

/// Location of an ITS's mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::tests) enum Tables {
    /// The ITS keeps its mappings in the tables to which `GITS_BASER<n>` points.
    InMemory,
    /// The ITS model keeps its mappings itself, as in KVM, and drops them if `GITS_BASER<n>` is
    /// cleared.
    Inside,
}

/// Resets all registers whose contents the interrupt controllers lose at power-down. RAM is not
/// changed.
pub(super) fn lose_at_controllers(machine: &Machine, tables: Tables) {
    if let Some(its) = &machine.its {
        let frame = map(PhysicalRegion { base: its.base(), bytes: 0x2_0000 });
        frame.write32(0, 0);
        let table_registers = if tables == Tables::InMemory { 0x100..0x140 } else { 0..0 };
        for offset in [0x80, 0x88].into_iter().chain(table_registers.step_by(8)) {
            frame.write64(offset, 0);
        }
    }
    for (index, driver) in machine.irqchip.controllers() {
        let controller = machine.description.controller(index);
        let registers = controller.and_then(|one| one.registers.as_ref());
        if let (MsiController::BridgeMsi(_), Some(registers)) = (driver, registers) {
            lose_bridge(&map_described(registers.value));
        }
    }
    let gic = machine.description.gic.as_ref().expect("the GIC was brought up");
    let distributor = map_described(gic.distributor.value);
    match machine.gic() {
        RootGic::V3(gic) => {
            for register in [icc::IGRPEN1.encoding(), icc::PMR.encoding(), icc::BPR1.encoding()] {
                registers().write_raw(register, 0);
            }
            lose_distributor(&distributor, 1);
            for spi in 32..32 * blocks(&distributor) {
                distributor.write64(0x6000 + 8 * spi, 0);
            }
            let redistributor = gic
                .redistributor_frames(Cpu::new(0))
                .expect("the boot CPU's redistributor was found before");
            lose_redistributor(redistributor.mmio());
        }
        RootGic::V2(_) => {
            let interface = gic.cpu_interface.as_ref().expect("a GICv2 has the region");
            let interface = map_described(interface.value);
            for offset in [0, 4, 8] {
                interface.write32(offset, 0);
            }
            lose_distributor(&distributor, 0);
            (0xf10..0xf20).step_by(4).for_each(|offset| distributor.write32(offset, u32::MAX));
            for spis in (0x820..0x800 + 32 * blocks(&distributor)).step_by(4) {
                distributor.write32(spis, 0);
            }
        }
    }
}

/// Resets the MSI registers of a DesignWare host bridge, so that arrived messages are lost (i.MX 8M
/// Plus Reference Manual, "PCIe port logic").
fn lose_bridge(frame: &Frame) {
    for offset in [0x828, 0x82c, 0x820, 0x824] {
        frame.write32(offset, 0);
    }
    frame.write32(0x830, frame.read32(0x830));
}

/// Resets the distributor's registers for blocks of 32 interrupts, starting with block `first`.
fn lose_distributor(frame: &Frame, first: u32) {
    frame.write32(0, 0);
    for block in first..blocks(frame) {
        lose_block(frame, 0, block);
        frame.write32(0xc00 + 8 * block, 0);
        frame.write32(0xc04 + 8 * block, 0);
    }
}

fn blocks(distributor: &Frame) -> u32 {
    (distributor.read32(4) & 0x1f) + 1
}

/// Resets the registers that a distributor and a redistributor have at the same offsets.
fn lose_block(frame: &Frame, base: u32, block: u32) {
    for clearing in [0x180, 0x280, 0x380] {
        frame.write32(base + clearing + 4 * block, u32::MAX);
    }
    frame.write32(base + 0x80 + 4 * block, 0);
    for priorities in 0..8 {
        frame.write32(base + 0x400 + 32 * block + 4 * priorities, 0);
    }
}

/// Resets a redistributor. If LPIs were not disabled before, pending LPIs are lost, because a
/// pending table that was not written back is undefined.
fn lose_redistributor(frame: &Frame) {
    lose_block(frame, 0x1_0000, 0);
    frame.write32(0x1_0c04, 0);
    let (pending, properties) = (frame.read64(0x78), frame.read64(0x70));
    let was_flushed = frame.read32(0) & ENABLE_LPIS == 0;
    frame.write32(0, 0);
    let bytes = (1 << ((properties & 0x1f) + 1)) / 8;
    let table = Table::new(pending & 0xf_ffff_ffff_0000, bytes, 0);
    if table.address != 0 && !was_flushed {
        (0..bytes).step_by(8).for_each(|offset| Kernel.store64(&table, offset, 0));
    }
    frame.write64(0x70, 0);
    frame.write64(0x78, 0);
    frame.write32(0x14, 0b10);
}

/// Registers of a function's header that its bus driver saves: the command register and the BARs.
pub(super) struct Header([u32; 7]);

const HEADER: [u16; 7] = [0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];

/// Resets a function's header, and its MSI or MSI-X capability.
pub(super) fn lose_at_endpoint(function: &Function) -> Header {
    if let Some(msi) = pci::capability(function, 0x05) {
        function.config().write16(msi + 2, 0);
        function.config().write32(msi + 4, 0);
        function.config().write32(msi + 8, 0);
    }
    if let Some(msix) = pci::capability(function, 0x11) {
        let control = function.config().read16(msix + 2);
        let table = function.config().read32(msix + 4);
        let bar = pci::bar(function, (table & 7) as u8);
        for entry in 0..=u64::from(control & 0x7ff) {
            let first = u64::from(table & !7) + 16 * entry;
            for (offset, value) in [(0, 0), (4, 0), (8, 0), (12, 1)] {
                bar.write32(first + offset, value);
            }
        }
        function.config().write16(msix + 2, 0);
    }
    let header = Header(HEADER.map(|register| function.config().read32(register)));
    for register in HEADER {
        function.config().write32(register, 0);
    }
    header
}

/// Restores a function's header as its bus driver must do before
/// [`MsiDevice::restore`](irq_domain::MsiDevice::restore).
pub(super) fn restore_header(function: &Function, Header(values): &Header) {
    for (register, value) in HEADER.into_iter().zip(values).rev() {
        function.config().write32(register, *value);
    }
}

fn map_described(region: Region) -> Frame {
    map(PhysicalRegion { base: region.base(), bytes: region.size() })
}

fn map(region: PhysicalRegion) -> Frame {
    Kernel.map(region).expect("the region is mapped as device memory")
}
