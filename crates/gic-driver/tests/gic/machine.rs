//! Strict hardware for the tests. What the architecture calls UNPREDICTABLE panics, writes take
//! effect late, and memory shows a non-coherent controller only what was cleaned.

mod bank;
mod distributor;
mod memory;
mod redistributor;
mod registers;
mod vlpi;

pub(crate) use bank::{Bank, InterruptState};
pub(crate) use distributor::{FakeDistributor, Security};
pub(crate) use memory::Memory;
pub(crate) use redistributor::FakeRedistributor;
pub(crate) use registers::FakeRegisters;
pub(crate) use vlpi::FakeVlpiFrame;

use doorbell_test_support::Outside;
use gic_arch::gicr::{FRAME_SIZE, STRIDE_V3, VLPI_BASE};
use gic_arch::v2m;
use gic_driver::{
    Coherence, GicPlatform, Mmio, PhysicalRegion, Platform, Table, TableLayout, Wait,
};
use msi_types::{Cpu, IrqState, LocalCpu};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;

/// Reads that still show the old state of a slow register.
pub(crate) const LAG: u32 = 3;
/// Turns after which the platform's clock gives up.
const PATIENCE: u32 = 50;

pub(crate) const DISTRIBUTOR: u64 = 0x800_0000;
pub(crate) const REDISTRIBUTORS: u64 = 0x80a_0000;

/// Actions of another CPU during a wait for hardware.
#[derive(Default)]
pub(crate) struct Meanwhile(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl std::fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meanwhile")
    }
}

/// A machine with one GIC, and the kernel on it.
#[derive(Debug)]
pub(crate) struct FakeMachine {
    pub(crate) distributor: Mutex<FakeDistributor>,
    pub(crate) redistributors: Mutex<Vec<FakeRedistributor>>,
    pub(crate) memory: Mutex<Memory>,
    pub(crate) masked: Mutex<usize>,
    /// The CPU that executes.
    pub(crate) executing: Mutex<Cpu>,
    /// GICv2m frames by address: `MSI_TYPER` and `MSI_IIDR`.
    pub(crate) v2m: Mutex<BTreeMap<u64, [u32; 2]>>,
    meanwhile: Meanwhile,
}

/// A handle to the machine: platform and registers alike.
#[derive(Clone, Debug)]
pub(crate) struct Fake(pub(crate) Arc<FakeMachine>);

impl Fake {
    pub(crate) fn new(
        distributor: FakeDistributor,
        redistributors: Vec<FakeRedistributor>,
    ) -> Self {
        Self(Arc::new(FakeMachine {
            distributor: Mutex::new(distributor),
            redistributors: Mutex::new(redistributors),
            memory: Mutex::default(),
            masked: Mutex::default(),
            executing: Mutex::default(),
            v2m: Mutex::default(),
            meanwhile: Meanwhile::default(),
        }))
    }

    /// A machine of one security state with `cpus` redistributors in one region.
    pub(crate) fn with_cpus(cpus: u8) -> Self {
        let redistributors =
            (0..cpus).map(|cpu| FakeRedistributor::new(cpu, cpu + 1 == cpus)).collect();
        Self::new(FakeDistributor::new(Security::Single), redistributors)
    }

    /// Runs once, during the next wait for hardware.
    pub(crate) fn meanwhile(&self, act: impl FnOnce() + Send + 'static) {
        *self.0.meanwhile.0.lock().unwrap() = Some(Box::new(act));
    }

    /// Runs the following accesses on this CPU.
    pub(crate) fn run_on(&self, cpu: u32) {
        *self.0.executing.lock().unwrap() = Cpu::new(cpu);
    }

    pub(crate) fn distributor_frame(&self) -> FakeMmio {
        FakeMmio { machine: self.clone(), frame: FakeFrame::Distributor }
    }

    pub(crate) fn redistributor_frame(&self, index: usize) -> FakeMmio {
        FakeMmio { machine: self.clone(), frame: FakeFrame::Redistributor(index) }
    }

    pub(crate) fn at_distributor<R>(&self, f: impl FnOnce(&mut FakeDistributor) -> R) -> R {
        let _outside = Outside::new();
        f(&mut self.0.distributor.lock().unwrap())
    }

    pub(crate) fn at_redistributor<R>(
        &self,
        index: usize,
        f: impl FnOnce(&mut FakeRedistributor) -> R,
    ) -> R {
        let _outside = Outside::new();
        f(&mut self.0.redistributors.lock().unwrap()[index])
    }

    pub(crate) fn in_memory<R>(&self, f: impl FnOnce(&mut Memory) -> R) -> R {
        let _outside = Outside::new();
        f(&mut self.0.memory.lock().unwrap())
    }
}

#[derive(Clone, Copy, Debug)]
enum FakeFrame {
    Distributor,
    DistributorAlias(u32),
    Redistributor(usize),
    Vlpi(usize),
    V2m(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct FakeMmio {
    machine: Fake,
    frame: FakeFrame,
}

impl FakeMmio {
    fn read(&self, offset: u32, bytes: u32) -> u64 {
        match self.frame {
            FakeFrame::Distributor => {
                self.machine.at_distributor(|frame| frame.read(offset, bytes))
            }
            FakeFrame::DistributorAlias(chip) => {
                self.machine.at_distributor(|frame| frame.read_alias(chip, offset, bytes))
            }
            FakeFrame::Redistributor(index) => {
                self.machine.at_redistributor(index, |frame| frame.read(offset, bytes))
            }
            FakeFrame::Vlpi(index) => {
                assert_eq!(bytes, 8, "the registers of virtual LPIs have 64 bits");
                self.machine.at_redistributor(index, |frame| frame.vlpi.read(offset))
            }
            FakeFrame::V2m(address) => {
                let [typer, iidr] = self.machine.0.v2m.lock().unwrap()[&address];
                match offset {
                    _ if offset == v2m::TYPER.offset() && bytes == 4 => typer.into(),
                    _ if offset == v2m::IIDR.offset() && bytes == 4 => iidr.into(),
                    _ => panic!("{bytes}-byte read of a v2m frame + {offset:#x}"),
                }
            }
        }
    }

    fn write(&self, offset: u32, bytes: u32, value: u64) {
        match self.frame {
            FakeFrame::Distributor => {
                self.machine.at_distributor(|frame| frame.write(offset, bytes, value));
            }
            FakeFrame::Redistributor(index) => {
                self.machine.at_redistributor(index, |frame| frame.write(offset, bytes, value));
            }
            FakeFrame::Vlpi(index) => {
                assert_eq!(bytes, 8, "the registers of virtual LPIs have 64 bits");
                self.machine.at_redistributor(index, |frame| frame.vlpi.write(offset, value));
            }
            FakeFrame::DistributorAlias(chip) => {
                panic!("GICD + {offset:#x} is written at chip {chip}")
            }
            FakeFrame::V2m(_) => panic!("software writes to a v2m frame + {offset:#x}"),
        }
    }
}

impl Mmio for FakeMmio {
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

impl LocalCpu for Fake {
    fn irq_save(&self) -> IrqState {
        let mut masked = self.0.masked.lock().unwrap();
        *masked += 1;
        IrqState::new(*masked - 1)
    }

    fn irq_restore(&self, state: IrqState) {
        let mut masked = self.0.masked.lock().unwrap();
        *masked -= 1;
        assert_eq!(*masked, state.get(), "interrupt states are restored in reverse order");
    }

    fn relax(&self) {
        panic!("a lock is taken by its holder");
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Fake {
    type Mmio = FakeMmio;

    fn map(&self, region: PhysicalRegion) -> Option<FakeMmio> {
        if region.base == DISTRIBUTOR {
            return Some(self.distributor_frame());
        }
        if region.base & ((1 << 44) - 1) == DISTRIBUTOR + 0x158_0000 {
            let chip = u32::try_from(region.base >> 44).unwrap();
            return Some(FakeMmio {
                machine: self.clone(),
                frame: FakeFrame::DistributorAlias(chip),
            });
        }
        if self.0.v2m.lock().unwrap().contains_key(&region.base) {
            assert_eq!(region.bytes, v2m::FRAME_SIZE);
            return Some(FakeMmio { machine: self.clone(), frame: FakeFrame::V2m(region.base) });
        }
        let offset = region.base.checked_sub(REDISTRIBUTORS)?;
        if region.bytes == FRAME_SIZE {
            let redistributors = self.0.redistributors.lock().unwrap();
            let index = redistributors.iter().position(|frame| {
                frame.typer.vlpis() && frame.offset + u64::from(VLPI_BASE) == offset
            })?;
            return Some(FakeMmio { machine: self.clone(), frame: FakeFrame::Vlpi(index) });
        }
        assert_eq!(region.bytes, STRIDE_V3, "RD_base and SGI_base");
        let redistributors = self.0.redistributors.lock().unwrap();
        let index = redistributors.iter().position(|frame| frame.offset == offset)?;
        Some(self.redistributor_frame(index))
    }
    fn wait(&self, turn: u32) -> Wait {
        assert_eq!(*self.0.masked.lock().unwrap(), 0, "hardware is waited for under a lock");
        let meanwhile = self.0.meanwhile.0.lock().unwrap().take();
        if let Some(act) = meanwhile {
            act();
        }
        if turn < PATIENCE { Wait::Again } else { Wait::GiveUp }
    }
}

impl GicPlatform for Fake {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        self.in_memory(|memory| memory.allocate(layout))
    }
    fn release_table(&self, table: Table) {
        self.in_memory(|memory| memory.release(&table));
    }
    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        self.in_memory(|memory| memory.adopt(region))
    }
    fn store8(&self, table: &Table, offset: u64, value: u8) {
        self.in_memory(|memory| memory.store(table, offset, &[value]));
    }
    fn store64(&self, table: &Table, offset: u64, value: u64) {
        self.in_memory(|memory| memory.store(table, offset, &value.to_le_bytes()));
    }
    fn load8(&self, table: &Table, offset: u64) -> u8 {
        self.in_memory(|memory| memory.load(table, offset))
    }
    fn publish(&self, table: &Table, range: Range<u64>, coherence: Coherence) {
        self.in_memory(|memory| memory.publish(table, range, coherence));
    }

    fn cpu(&self) -> Cpu {
        *self.0.executing.lock().unwrap()
    }
}
