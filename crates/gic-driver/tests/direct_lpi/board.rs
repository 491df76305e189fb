//! A machine without ITS whose redistributors have Direct LPIs, as the drivers' platform.

use super::interleaving;
use super::memory::Memory;
use super::redistributor::Redistributor;
use doorbell_test_support::Outside;
use gic_arch::gicd::{self, Ctlr};
use gic_arch::gicr::Typer;
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::{Affinity, id};
use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
use gic_driver::{
    Coherence, CpuInterface, Gic, GicConfig, GicPlatform, Mmio, Observed, PhysicalRegion, Platform,
    RedistributorRegion, SystemRegisters, Table, TableLayout, Wait,
};
use msi_types::{Cpu, IrqState, LocalCpu, MsiMessage};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut, Range};
use std::sync::{Arc, Mutex, MutexGuard};

pub(crate) const DISTRIBUTOR: u64 = 0x800_0000;
/// The address of an ITS that cannot be mapped.
pub(crate) const ITS: u64 = 0x808_0000;
/// RD_base of CPU 0.
pub(crate) const REDISTRIBUTOR: u64 = 0x80a_0000;
/// A second region, above 4 GiB.
pub(crate) const HIGH_REDISTRIBUTOR: u64 = 0x40_0000_0000;
const STRIDE: u64 = 0x2_0000;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) memory: Memory,
    /// With their RD_base, by CPU.
    pub(crate) redistributors: Vec<(u64, Redistributor)>,
    /// INTID bits.
    pub(crate) id_bits: u8,
    num_lpis: u8,
    /// Turns of one wait.
    pub(crate) patience: u32,
    distributor: BTreeMap<u32, u32>,
}

impl World {
    pub(crate) fn rd(&mut self, cpu: u32) -> &mut Redistributor {
        &mut self.redistributors[cpu as usize].1
    }

    /// A device's write.
    ///
    /// # Panics
    /// If there is no doorbell: a torn address is a stray DMA write.
    pub(crate) fn write_message(&mut self, message: MsiMessage) {
        let at = self.redistributors.iter_mut().find(|(base, _)| base + 0x40 == message.address);
        let (_, redistributor) = at.unwrap_or_else(|| panic!("a stray DMA write: {message:x?}"));
        redistributor.set(message.data);
    }

    /// The CPUs at which an LPI is pending.
    pub(crate) fn pending_at(&self, lpi: u32) -> Vec<u32> {
        let at = self.redistributors.iter().zip(0..);
        at.filter(|((_, rd), _)| rd.pending.contains(&lpi)).map(|(_, cpu)| cpu).collect()
    }
}

/// A handle to the world.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    world: Arc<Mutex<World>>,
}

thread_local! {
    static MASKED: Cell<u32> = const { Cell::new(0) };
    static CPU: Cell<u32> = const { Cell::new(0) };
}

/// Runs the following accesses on this CPU.
pub(crate) fn run_on(cpu: u32) {
    CPU.set(cpu);
}

/// The world, whose memory is not the driver's.
#[derive(Debug)]
pub(crate) struct WorldGuard<'a> {
    world: MutexGuard<'a, World>,
    _outside: Outside,
}

impl Deref for WorldGuard<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for WorldGuard<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Board {
    /// CPUs in the low region, then CPUs in the high one.
    pub(crate) fn new(low: u32, high: u32) -> Self {
        let place = |cpu: u32| match cpu.checked_sub(low) {
            Some(index) => HIGH_REDISTRIBUTOR + u64::from(index) * STRIDE,
            None => REDISTRIBUTOR + u64::from(cpu) * STRIDE,
        };
        let redistributors = (0..low + high).map(|cpu| {
            let typer = Typer::new()
                .with_plpis(true)
                .with_direct_lpi(true)
                .with_last(cpu + 1 == low || cpu + 1 == low + high)
                .with_affinity_value(cpu);
            (place(cpu), Redistributor::new(typer))
        });
        let world = World {
            memory: Memory::default(),
            redistributors: redistributors.collect(),
            id_bits: 14,
            num_lpis: 0,
            patience: 40,
            distributor: BTreeMap::new(),
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// With 2^`log2` LPIs.
    pub(crate) fn with_lpis(self, log2: u8) -> Self {
        let world = &mut *self.world();
        world.num_lpis = log2 - 1;
        world.redistributors.iter_mut().for_each(|(_, rd)| rd.lpis = 1 << log2);
        self.clone()
    }

    pub(crate) fn world(&self) -> WorldGuard<'_> {
        WorldGuard { _outside: Outside::new(), world: self.world.lock().unwrap() }
    }

    /// Discovers the GIC.
    pub(crate) fn gic(&self) -> Arc<Gic<Self>> {
        let bases: Vec<u64> = self.world().redistributors.iter().map(|(base, _)| *base).collect();
        let id_bits = self.world().id_bits;
        let region = |base| {
            let count =
                bases.iter().filter(|at| (base..base + 0x100_0000).contains(*at)).count() as u64;
            let region = PhysicalRegion { base, bytes: count * STRIDE };
            RedistributorRegion::new(region)
        };
        let regions = [region(REDISTRIBUTOR), region(HIGH_REDISTRIBUTOR)];
        let regions = regions.into_iter().filter(|region| region.region.bytes != 0).collect();
        let cpus = (0..u32::try_from(bases.len()).unwrap()).map(Affinity::from_packed).collect();
        let config = GicConfig::new(DISTRIBUTOR, regions, cpus).with_lpi_id_bits(Some(id_bits));
        Arc::new(Gic::new(Arc::new(self.clone()), config).unwrap())
    }

    /// With every CPU on.
    pub(crate) fn running_gic(&self) -> Arc<Gic<Self>> {
        let gic = self.gic();
        for cpu in gic.cpus() {
            gic.cpu_on(cpu, &self.registers(cpu)).unwrap();
        }
        gic
    }

    pub(crate) fn direct_lpi(&self) -> Result<DirectLpi<Self>, DirectLpiError> {
        DirectLpi::new(self.running_gic())
    }

    pub(crate) fn registers(&self, cpu: Cpu) -> BoardRegisters {
        BoardRegisters { board: self.clone(), cpu: cpu.get(), values: Arc::default() }
    }

    pub(crate) fn interface(&self, cpu: u32) -> CpuInterface<BoardRegisters> {
        CpuInterface::new(self.registers(Cpu::new(cpu)))
    }
}

impl LocalCpu for Board {
    fn irq_save(&self) -> IrqState {
        interleaving::lock();
        MASKED.set(MASKED.get() + u32::from(interleaving::is_one_cpu()));
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {
        MASKED.set(MASKED.get() - u32::from(interleaving::is_one_cpu()));
    }

    fn relax(&self) {
        interleaving::wait();
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Board {
    type Mmio = BoardFrame;

    fn map(&self, region: PhysicalRegion) -> Option<BoardFrame> {
        must_be_task("map");
        if region.base == DISTRIBUTOR {
            return Some(BoardFrame { board: self.clone(), cpu: None });
        }
        if region.base == ITS {
            return None;
        }
        let cpu = self.world().redistributors.iter().position(|(base, _)| *base == region.base);
        let cpu = cpu.unwrap_or_else(|| panic!("{:#x} is mapped, where nothing is", region.base));
        Some(BoardFrame { board: self.clone(), cpu: Some(cpu.try_into().unwrap()) })
    }

    fn wait(&self, turn: u32) -> Wait {
        assert_eq!(MASKED.get(), 0, "hardware is waited for under a lock");
        interleaving::wait();
        if turn < self.world().patience { Wait::Again } else { Wait::GiveUp }
    }
}

impl GicPlatform for Board {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        must_be_task("allocate_table");
        let address = self.world().memory.allocate(layout)?;
        Some(Table::new(address, layout.bytes, 0))
    }

    fn release_table(&self, _: Table) {}

    fn adopt_table(&self, region: PhysicalRegion) -> Option<Table> {
        let bytes = self.world().memory.bytes_of(region.base)?;
        Some(Table::new(region.base, bytes, 0))
    }

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        interleaving::access();
        self.world().memory.store(table.address + offset, &[value]);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        self.world().memory.store(table.address + offset, &value.to_le_bytes());
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        interleaving::access();
        self.world().memory.load(table.address + offset)
    }

    fn publish(&self, table: &Table, range: Range<u64>, _: Coherence) {
        interleaving::access();
        self.world().memory.publish(table.address, range);
    }

    fn observe(&self, table: &Table, range: Range<u64>, coherence: Coherence) -> Observed {
        must_be_task("observe");
        let possible = self.world().memory.observe(table.address, range, coherence);
        if possible { Observed::Yes } else { Observed::No }
    }

    fn cpu(&self) -> Cpu {
        Cpu::new(CPU.get())
    }
}

fn must_be_task(what: &str) {
    assert_eq!(MASKED.get(), 0, "{what} with interrupts masked");
}

/// The distributor's frame, or a CPU's redistributor's.
#[derive(Clone, Debug)]
pub(crate) struct BoardFrame {
    board: Board,
    cpu: Option<u32>,
}

impl BoardFrame {
    fn read(&self, offset: u32) -> u64 {
        interleaving::access();
        let world = &mut *self.board.world();
        if let Some(cpu) = self.cpu {
            return world.redistributors[cpu as usize].1.read(&mut world.memory, offset);
        }
        let value = match offset {
            _ if offset == id::PIDR2.offset() => 0x3b,
            _ if offset == gicd::TYPER.offset() => gicd::Typer::new()
                .with_lpis(true)
                .with_it_lines_number(1)
                .with_id_bits_minus_one(world.id_bits - 1)
                .with_num_lpis(world.num_lpis)
                .into(),
            _ => world.distributor.get(&offset).copied().unwrap_or(0),
        };
        let single = offset == gicd::CTLR.offset();
        if single { Ctlr::from(value).with_ds(true).into_bits().into() } else { value.into() }
    }

    fn write(&self, offset: u32, value: u64) {
        interleaving::access();
        let world = &mut *self.board.world();
        match self.cpu {
            Some(cpu) => {
                world.redistributors[cpu as usize].1.write(&mut world.memory, offset, value);
            }
            None => {
                _ = world.distributor.insert(offset, u32::try_from(value & 0xffff_ffff).unwrap());
            }
        }
    }
}

impl Mmio for BoardFrame {
    fn read32(&self, offset: u32) -> u32 {
        u32::try_from(self.read(offset)).unwrap()
    }
    fn write32(&self, offset: u32, value: u32) {
        self.write(offset, value.into());
    }
    fn read64(&self, offset: u32) -> u64 {
        self.read(offset)
    }
    fn write64(&self, offset: u32, value: u64) {
        self.write(offset, value);
    }
    fn write8(&self, offset: u32, value: u8) {
        self.write(offset, value.into());
    }
}

/// A CPU interface, at which what its redistributor signals can be acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct BoardRegisters {
    board: Board,
    cpu: u32,
    values: Arc<Mutex<BTreeMap<SysRegEncoding, u64>>>,
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
