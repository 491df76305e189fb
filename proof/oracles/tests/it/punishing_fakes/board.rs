//! Places the fakes at their addresses, and implements the platform that the drivers use.

use super::distributor::Distributor;
use super::its::Its;
use super::redistributor::Redistributor;
use gic_arch::icc::SysRegEncoding;
use gic_driver::{
    Coherence, GicPlatform, Mmio, PhysicalRegion, Platform, SystemRegisters, Table, TableLayout,
    Wait,
};
use msi_types::{Cpu, IrqState, LocalCpu};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) const DISTRIBUTOR: u64 = 0x0800_0000;
pub(crate) const ITS: u64 = 0x0808_0000;
pub(crate) const REDISTRIBUTORS: u64 = 0x080A_0000;

/// The machine's memory. The drivers on the CPUs write this memory, and the fakes read it when they
/// execute commands.
pub(crate) type Memory = Arc<Mutex<HashMap<u64, u8>>>;

pub(crate) fn load64(memory: &Memory, address: u64) -> u64 {
    let memory = memory.lock().unwrap();
    u64::from_le_bytes(std::array::from_fn(|byte| {
        memory.get(&(address + byte as u64)).copied().unwrap_or(0)
    }))
}

/// The fake machine.
#[derive(Clone)]
pub(crate) struct Board {
    memory: Memory,
    next_table: Arc<Mutex<u64>>,
    distributor: Arc<Mutex<Distributor>>,
    redistributors: Arc<Mutex<Vec<Redistributor>>>,
    its: Arc<Mutex<Its>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        let memory = Memory::default();
        Self {
            next_table: Arc::new(Mutex::new(0x4000_0000)),
            distributor: Arc::default(),
            redistributors: Arc::new(Mutex::new(vec![
                Redistributor::new(0),
                Redistributor::new(1),
            ])),
            its: Arc::new(Mutex::new(Its::new(memory.clone()))),
            memory,
        }
    }

    pub(crate) fn distributor(&self) -> MutexGuard<'_, Distributor> {
        self.distributor.lock().unwrap()
    }

    pub(crate) fn redistributors(&self) -> MutexGuard<'_, Vec<Redistributor>> {
        self.redistributors.lock().unwrap()
    }

    pub(crate) fn its(&self) -> MutexGuard<'_, Its> {
        self.its.lock().unwrap()
    }

    fn read(&self, address: u64, bytes: u32) -> u64 {
        match address {
            0x0800_0000..0x0801_0000 => self.distributor().read(address - DISTRIBUTOR),
            0x0808_0000..0x080A_0000 => self.its().read(address - ITS, bytes),
            _ => {
                let (index, offset) = redistributor_at(address);
                self.redistributors()[index].read(offset)
            }
        }
    }

    fn write(&self, address: u64, bytes: u32, value: u64) {
        match address {
            0x0800_0000..0x0801_0000 => {
                self.distributor().write(address - DISTRIBUTOR, bytes, value);
            }
            0x0808_0000..0x080A_0000 => self.its().write(address - ITS, bytes, value),
            _ => {
                let (index, offset) = redistributor_at(address);
                self.redistributors()[index].write(offset, value);
            }
        }
    }
}

fn redistributor_at(address: u64) -> (usize, u64) {
    let offset = address - REDISTRIBUTORS;
    (usize::try_from(offset / 0x2_0000).unwrap(), offset % 0x2_0000)
}

/// A mapped region.
pub(crate) struct Frame {
    board: Board,
    base: u64,
}

impl Mmio for Frame {
    fn read32(&self, offset: u32) -> u32 {
        u32::try_from(self.board.read(self.base + u64::from(offset), 4) & 0xFFFF_FFFF).unwrap()
    }
    fn write32(&self, offset: u32, value: u32) {
        self.board.write(self.base + u64::from(offset), 4, value.into());
    }
    fn read64(&self, offset: u32) -> u64 {
        self.board.read(self.base + u64::from(offset), 8)
    }
    fn write64(&self, offset: u32, value: u64) {
        self.board.write(self.base + u64::from(offset), 8, value);
    }
    fn write8(&self, offset: u32, value: u8) {
        self.board.write(self.base + u64::from(offset), 1, value.into());
    }
}

impl LocalCpu for Board {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Board {
    type Mmio = Frame;

    fn map(&self, region: PhysicalRegion) -> Option<Frame> {
        Some(Frame { board: self.clone(), base: region.base })
    }

    fn wait(&self, turn: u32) -> Wait {
        if turn < 10_000 { Wait::Again } else { Wait::GiveUp }
    }
}

impl GicPlatform for Board {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        let mut next = self.next_table.lock().unwrap();
        let address = next.next_multiple_of(layout.align);
        let end = address + layout.bytes;
        if end > 1 << layout.address_bits {
            return None;
        }
        *next = end;
        Some(Table::new(address, layout.bytes, 0))
    }

    fn release_table(&self, _: Table) {}

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        assert!(offset < table.bytes);
        self.memory.lock().unwrap().insert(table.address + offset, value);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        for (at, byte) in (offset..).zip(value.to_le_bytes()) {
            self.store8(table, at, byte);
        }
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        self.memory.lock().unwrap().get(&(table.address + offset)).copied().unwrap_or(0)
    }

    fn publish(&self, _: &Table, _: Range<u64>, _: Coherence) {}

    fn cpu(&self) -> Cpu {
        Cpu::new(0)
    }
}

/// A CPU's system registers. The registers return the values that were written, with 5 priority
/// bits.
#[derive(Default)]
pub(crate) struct CpuRegisters(RefCell<HashMap<u16, u64>>);

impl SystemRegisters for CpuRegisters {
    fn read_raw(&self, register: SysRegEncoding) -> u64 {
        let written = self.0.borrow().get(&register.packed()).copied();
        match register.packed() {
            // ICC_SRE_EL1 and ICC_CTLR_EL1.
            0xC665 => written.unwrap_or(7),
            0xC664 => written.unwrap_or(0) | 4 << 8,
            _ => written.unwrap_or(0),
        }
    }

    fn write_raw(&self, register: SysRegEncoding, value: u64) {
        // ICC_PMR_EL1 stores only the implemented bits.
        let value = if register.packed() == 0xC230 { value & 0xF8 } else { value };
        self.0.borrow_mut().insert(register.packed(), value);
    }
}
