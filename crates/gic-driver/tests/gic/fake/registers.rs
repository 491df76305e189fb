//! Handles register accesses to the machine's blocks.

use super::board::{Board, World};
use crate::interleaving;
use gic_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter};
use gic_arch::{id, v2m};
use gic_driver::Mmio;

#[derive(Clone, Copy, Debug)]
pub(crate) enum BoardBlock {
    Distributor,
    /// Alias of the distributor on a chip.
    DistributorAlias(u32),
    Redistributor(usize),
    /// A redistributor's VLPI_base frame.
    Vlpi(usize),
    /// A GICv2m frame.
    V2m(u64),
    Mip,
    Its(usize),
}

/// A mapped frame.
#[derive(Clone, Debug)]
pub(crate) struct BoardFrame {
    pub(crate) board: Board,
    pub(crate) block: BoardBlock,
}

const CTLR: u32 = gits::CTLR.offset();
const TYPER: u32 = gits::TYPER.offset();
const IIDR: u32 = gits::IIDR.offset();
const PIDR2: u32 = id::PIDR2.offset();
const CBASER: u32 = gits::CBASER.offset();
const CWRITER: u32 = gits::CWRITER.offset();
const CREADR: u32 = gits::CREADR.offset();

impl BoardFrame {
    fn read(&self, offset: u32, bytes: u32) -> u64 {
        interleaving::access();
        let world = &mut *self.board.world();
        match self.block {
            BoardBlock::Distributor => world.distributor.read(offset, bytes),
            BoardBlock::DistributorAlias(chip) => world.distributor.read_alias(chip, offset, bytes),
            BoardBlock::Redistributor(cpu) => {
                world.redistributors[cpu].read(&mut world.memory, offset, bytes)
            }
            BoardBlock::Vlpi(cpu) => {
                assert_eq!(bytes, 8, "the registers of virtual LPIs have 64 bits");
                let value = world.redistributors[cpu].vlpi.read(offset);
                world.settle_residency(cpu);
                value
            }
            BoardBlock::V2m(address) => {
                let [typer, iidr] = world.v2m[&address];
                match offset {
                    _ if offset == v2m::TYPER.offset() && bytes == 4 => typer.into(),
                    _ if offset == v2m::IIDR.offset() && bytes == 4 => iidr.into(),
                    _ => panic!("{bytes}-byte read of a v2m frame + {offset:#x}"),
                }
            }
            BoardBlock::Mip => panic!("software reads a MIP + {offset:#x}"),
            BoardBlock::Its(its) => {
                check_its_access(offset, bytes);
                read_its(world, its, offset)
            }
        }
    }

    fn write(&self, offset: u32, bytes: u32, value: u64) {
        interleaving::access();
        let world = &mut *self.board.world();
        match self.block {
            BoardBlock::Distributor => world.distributor.write(offset, bytes, value),
            BoardBlock::DistributorAlias(chip) => {
                panic!("GICD + {offset:#x} is written at chip {chip}")
            }
            BoardBlock::Redistributor(cpu) => {
                world.redistributors[cpu].write(&mut world.memory, offset, bytes, value);
            }
            BoardBlock::Vlpi(cpu) => {
                assert_eq!(bytes, 8, "the registers of virtual LPIs have 64 bits");
                world.redistributors[cpu].vlpi.write(offset, value);
            }
            BoardBlock::Mip => {
                assert_eq!(bytes, 4, "the registers have 32 bits");
                world.mip.insert(offset, u32::try_from(value).unwrap());
            }
            BoardBlock::V2m(_) => panic!("software writes to a v2m frame + {offset:#x}"),
            BoardBlock::Its(its) => {
                check_its_access(offset, bytes);
                write_its(world, its, offset, value);
            }
        }
    }
}

/// Asserts that an ITS access has the register's size. Each register allows only one size.
fn check_its_access(offset: u32, bytes: u32) {
    let expected = if matches!(offset, CTLR | IIDR | PIDR2) { 4 } else { 8 };
    assert_eq!(bytes, expected, "an access of {bytes} bytes to GITS + {offset:#x}");
}

fn read_its(world: &mut World, its: usize, offset: u32) -> u64 {
    let World { its: all, memory, redistributors, .. } = world;
    let its = &mut all[its];
    match offset {
        CTLR => u32::from(its.control()).into(),
        IIDR => its.hardware.iidr.into(),
        PIDR2 => 0x3b,
        TYPER => its.hardware.typer.into(),
        CBASER => its.queue.into(),
        CREADR => its.look(memory, redistributors).into(),
        CWRITER => its.written().into(),
        0x100..0x140 => its.tables[(offset as usize - 0x100) / 8].into(),
        _ => panic!("read of GITS + {offset:#x}"),
    }
}

fn write_its(world: &mut World, its: usize, offset: u32, value: u64) {
    let World { its: all, memory, redistributors, .. } = world;
    let its = &mut all[its];
    match offset {
        CTLR => its.set_control(Ctlr::from(u32::try_from(value).unwrap())),
        CBASER => its.set_queue(Cbaser::from(value)),
        CWRITER => its.post(memory, redistributors, Cwriter::from(value)),
        0x100..0x140 => its.set_table((offset as usize - 0x100) / 8, Baser::from(value)),
        _ => panic!("write of GITS + {offset:#x}"),
    }
}

impl Mmio for BoardFrame {
    fn read32(&self, offset: u32) -> u32 {
        u32::try_from(self.read(offset, 4)).unwrap()
    }
    fn write32(&self, offset: u32, value: u32) {
        self.write(offset, 4, value.into());
    }
    fn read64(&self, offset: u32) -> u64 {
        self.read(offset, 8)
    }
    fn write64(&self, offset: u32, value: u64) {
        self.write(offset, 8, value);
    }
    fn write8(&self, offset: u32, value: u8) {
        self.write(offset, 1, value.into());
    }
}
