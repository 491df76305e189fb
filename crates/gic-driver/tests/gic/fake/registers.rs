//! Registers of the machine's blocks and of its CPUs.

use super::board::{Board, World};
use crate::interleaving;
use doorbell_test_support::Outside;
use gic_arch::gits::{self, Baser, Cbaser, Ctlr, Cwriter};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{gicd, id};
use gic_driver::{Mmio, SystemRegisters};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug)]
pub(crate) enum BoardBlock {
    Distributor,
    Redistributor(usize),
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
const DISTRIBUTOR_TYPER: u32 = gicd::TYPER.offset();

impl BoardFrame {
    fn read(&self, offset: u32) -> u64 {
        interleaving::access();
        let world = &mut *self.board.world();
        match self.block {
            BoardBlock::Redistributor(cpu) => {
                world.redistributors[cpu].read(&mut world.memory, offset)
            }
            BoardBlock::Distributor => read_distributor(world, offset).into(),
            BoardBlock::Its(its) => read_its(world, its, offset),
        }
    }

    fn write(&self, offset: u32, value: u64) {
        interleaving::access();
        let world = &mut *self.board.world();
        let low = u32::try_from(value & 0xffff_ffff).unwrap();
        match self.block {
            BoardBlock::Redistributor(cpu) => {
                world.redistributors[cpu].write(&mut world.memory, offset, value);
            }
            BoardBlock::Distributor => _ = world.distributor.insert(offset, low),
            BoardBlock::Its(its) => write_its(world, its, offset, value),
        }
    }

    /// Checks the size of an access to an ITS, whose registers have one size each.
    fn check_size(&self, offset: u32, bytes: u32) {
        if matches!(self.block, BoardBlock::Its(_)) {
            let expected = if matches!(offset, CTLR | IIDR | PIDR2) { 4 } else { 8 };
            assert_eq!(bytes, expected, "an access of {bytes} bytes to GITS + {offset:#x}");
        }
    }
}

fn read_distributor(world: &World, offset: u32) -> u32 {
    let value = world.distributor.get(&offset).copied().unwrap_or(0);
    match offset {
        PIDR2 => 0x3b,
        DISTRIBUTOR_TYPER => gicd::Typer::new()
            .with_lpis(true)
            .with_it_lines_number(1)
            .with_id_bits_minus_one(world.id_bits - 1)
            .with_num_lpis(world.num_lpis)
            .into(),
        CTLR => gicd::Ctlr::from(value).with_ds(true).into_bits(),
        _ => value,
    }
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
        self.check_size(offset, 4);
        u32::try_from(self.read(offset)).unwrap()
    }
    fn write32(&self, offset: u32, value: u32) {
        self.check_size(offset, 4);
        self.write(offset, value.into());
    }
    fn read64(&self, offset: u32) -> u64 {
        self.check_size(offset, 8);
        self.read(offset)
    }
    fn write64(&self, offset: u32, value: u64) {
        self.check_size(offset, 8);
        self.write(offset, value);
    }
    fn write8(&self, offset: u32, value: u8) {
        self.check_size(offset, 1);
        self.write(offset, value.into());
    }
}

/// A CPU interface, at which what its redistributor signals can be acknowledged. What was written
/// to other registers reads back.
#[derive(Clone, Debug)]
pub(crate) struct BoardRegisters {
    board: Board,
    cpu: u32,
    values: Arc<Mutex<BTreeMap<SysRegEncoding, u64>>>,
}

impl BoardRegisters {
    pub(crate) fn new(board: Board, cpu: u32) -> Self {
        Self { board, cpu, values: Arc::default() }
    }
}

impl SystemRegisters for BoardRegisters {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        if register == icc::IAR1.encoding() || register == icc::HPPIR1.encoding() {
            interleaving::access();
            let mut world = self.board.world();
            let redistributor = world.rd(self.cpu);
            let Some(intid) = redistributor.signalled() else { return 1023 };
            if register == icc::IAR1.encoding() {
                redistributor.pending.remove(&intid);
            }
            return intid.into();
        }
        self.values.lock().unwrap().get(&register).copied().unwrap_or(0)
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        let _outside = Outside::new();
        self.values.lock().unwrap().insert(register, value);
    }
}
