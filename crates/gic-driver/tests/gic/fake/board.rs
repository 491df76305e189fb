//! The fake machine as the drivers' platform.

mod platform;

pub(crate) use platform::{interrupt_at, run_on, while_allocating};

use super::cpu_interface::{FakeRegisters, RegisterState};
use super::distributor::{FakeDistributor, Security};
use super::effect::Effect;
use super::interpreter::{Hardware, Interpreter};
use super::memory::Memory;
use super::redistributor::FakeRedistributor;
use super::registers::{BoardBlock, BoardFrame};
use crate::interleaving;
use doorbell_test_support::Outside;
use gic_arch::Affinity;
use gic_arch::gicr::{FRAME_SIZE, STRIDE_V3, STRIDE_V4, Typer, VLPI_BASE};
use gic_arch::its::RdBase;
use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
use gic_driver::{
    Coherence, CpuInterface, Gic, GicConfig, PhysicalRegion, RedistributorRegion, TableLayout,
};
use msi_types::{Cpu, MsiMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

pub(crate) const DISTRIBUTOR: u64 = 0x800_0000;
pub(crate) const MIP: u64 = 0x804_0000;
/// Address of the distributor's alias on chip 0, and the stride to the next chip's.
const CHIP_ALIAS: u64 = DISTRIBUTOR + 0x158_0000;
const CHIP_STRIDE: u64 = 1 << 44;
pub(crate) const ITS: u64 = 0x808_0000;
pub(crate) const ITS_STRIDE: u64 = 0x2_0000;
/// CPU 0's RD_base, and the stride to the next CPU's.
pub(crate) const REDISTRIBUTOR: u64 = 0x900_0000;
pub(crate) const REDISTRIBUTOR_STRIDE: u64 = 0x2_0000;
/// First RD_base in a second region above 4 GiB.
pub(crate) const HIGH_REDISTRIBUTOR: u64 = 0x40_0000_0000;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) memory: Memory,
    pub(crate) its: Vec<Interpreter>,
    /// Redistributors, indexed by CPU.
    pub(crate) redistributors: Vec<FakeRedistributor>,
    pub(crate) distributor: FakeDistributor,
    /// `MSI_TYPER` and `MSI_IIDR` of each GICv2m frame, by address.
    pub(crate) v2m: BTreeMap<u64, [u32; 2]>,
    /// Registers of the MIP that were written, by offset.
    pub(crate) mip: BTreeMap<u32, u32>,
    /// Addresses that the platform refuses to map. Mapping any other address without a device
    /// panics.
    pub(crate) unmapped: BTreeSet<u64>,
    /// Number of turns after which a wait times out.
    pub(crate) patience: u32,
    /// Total number of turns over all waits.
    pub(crate) turns: u32,
    /// Number of calls of `yield_now`, by which a waiting task lets other threads run.
    pub(crate) yields: u32,
    /// Message that its device sends immediately before or after the next vPE leaves.
    pub(crate) around_a_put: Option<(Moment, u32, u32)>,
}

/// Moment of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    Before,
    After,
}

impl World {
    pub(crate) fn rd(&mut self, cpu: u32) -> &mut FakeRedistributor {
        &mut self.redistributors[cpu as usize]
    }

    /// Returns the frame at `region`: a redistributor's, or an alias of the distributor.
    fn redistributor_block(&self, region: PhysicalRegion) -> Option<BoardBlock> {
        let PhysicalRegion { base, bytes } = region;
        let find = |at: u64| self.redistributors.iter().position(|rd| rd.base == at);
        if let Some(cpu) = find(base) {
            assert_eq!(bytes, STRIDE_V3, "RD_base and SGI_base");
            return Some(BoardBlock::Redistributor(cpu));
        }
        let vlpi = find(base - u64::from(VLPI_BASE));
        if let Some(cpu) = vlpi.filter(|cpu| self.redistributors[*cpu].typer.vlpis()) {
            assert_eq!(bytes, FRAME_SIZE, "VLPI_base");
            return Some(BoardBlock::Vlpi(cpu));
        }
        (base % CHIP_STRIDE == CHIP_ALIAS)
            .then(|| BoardBlock::DistributorAlias(u32::try_from(base / CHIP_STRIDE).unwrap()))
    }

    /// Sends a device's message to an ITS. Returns the redistributor and the LPI that became
    /// pending. If that is a vPE that is not resident, rings the doorbell.
    pub(crate) fn message(&mut self, its: usize, device: u32, event: u32) -> Option<(usize, u32)> {
        let (lpi, target) = self.its[its].translate(&mut self.memory, device, event)?;
        let vpe = self.memory.vpes.iter().find(|vpe| vpe.lpis.target == target);
        if let Some(home) = vpe.filter(|vpe| !vpe.lpis.lpis_enabled()).map(|vpe| vpe.home) {
            let entry = self.its[its].event_entry(&mut self.memory, device, event)?;
            let doorbell = self.its[its].doorbells.get(&entry).copied();
            let at = self.redistributors.iter_mut().find(|rd| rd.target == home).unwrap();
            at.pending.extend(doorbell);
        }
        let vpes = self.memory.vpes.iter_mut().map(|vpe| &mut vpe.lpis);
        let mut all = self.redistributors.iter_mut().chain(vpes).enumerate();
        let (at, there) = all.find(|(_, rd)| rd.target == target).unwrap();
        there.pending.insert(lpi);
        Some((at, lpi))
    }

    /// Carries out the last change of `GICR_VPENDBASER.Valid` once `Dirty` is 0.
    pub(crate) fn settle_residency(&mut self, cpu: usize) {
        let FakeRedistributor { vlpi, .. } = &mut self.redistributors[cpu];
        let is_resident = vlpi.vpendbaser.valid();
        if vlpi.stuck || vlpi.lag != 0 || vlpi.is_resident == is_resident {
            return;
        }
        vlpi.is_resident = is_resident;
        let table = vlpi.vpendbaser.address();
        let around = if is_resident { None } else { self.around_a_put.take() };
        if let Some((Moment::Before, device, event)) = around {
            self.message(0, device, event);
        }
        let FakeRedistributor { vlpi, target: home, .. } = &mut self.redistributors[cpu];
        let mut vpes = std::mem::take(&mut self.memory.vpes);
        let vpe = vpes.iter_mut().find(|vpe| vpe.lpis.pendbaser.address() == table);
        // A previous hypervisor's vPE is unknown.
        let mut message = None;
        if let Some(vpe) = vpe {
            message = vlpi.change_residency(vpe, *home, &mut self.memory).and(around);
        }
        self.memory.vpes = vpes;
        if let Some((Moment::After, device, event)) = message {
            self.message(0, device, event);
        }
    }

    /// Sends a device's message to a redistributor.
    ///
    /// # Panics
    /// Panics if the address is not a doorbell: a write to a partially updated address is a stray
    /// DMA write.
    pub(crate) fn write_message(&mut self, message: MsiMessage) {
        let at = self.redistributors.iter_mut().find(|rd| rd.base + 0x40 == message.address);
        at.unwrap_or_else(|| panic!("a stray DMA write: {message:x?}")).set(message.data);
    }

    /// Returns the CPUs at which an LPI is pending.
    pub(crate) fn pending_at(&self, lpi: u32) -> Vec<u32> {
        let at = self.redistributors.iter().zip(0..);
        at.filter(|(rd, _)| rd.pending.contains(&lpi)).map(|(_, cpu)| cpu).collect()
    }

    /// Returns the number of redistributors at which an LPI is pending, plus the number of deferred
    /// ITS effects that could make it pending.
    pub(crate) fn traces_of(&self, lpi: u32) -> usize {
        let deferred = self.its.iter().flat_map(|its| &its.deferred).filter(
            |(_, effect)| matches!(effect, Effect::Set(it) | Effect::MoveTo(it, _) if *it == lpi),
        );
        self.pending_at(lpi).len() + deferred.count()
    }

    /// Makes the first ITS hang, or lets it continue.
    pub(crate) fn set_stuck(&mut self, stuck: bool) {
        self.its[0].set_stuck(stuck, &mut self.memory, &mut self.redistributors);
    }

    /// Puts the redistributors of these CPUs into the state in which a previous kernel left them:
    /// LPIs enabled, with reserved tables in which all LPIs are configured and the first 64 are
    /// pending.
    pub(crate) fn leave_lpis(&mut self, cpus: &[usize]) {
        let table = |bytes| TableLayout::new(bytes, 0x1_0000);
        let config = self.memory.allocate(table(0x2000)).unwrap();
        self.memory.store(config, &[0xa3; 0x2000]);
        self.memory.publish(config, 0..0x2000, Coherence::NonCoherent);
        for cpu in cpus {
            let pending = self.memory.allocate(table(0x800)).unwrap();
            self.redistributors[*cpu].leave_enabled(config, pending, 8192..8256);
        }
    }
}

/// Shared handle to the machine.
#[derive(Clone, Debug)]
pub(crate) struct Board(Arc<Machine>);

#[derive(Debug)]
struct Machine {
    world: Mutex<World>,
    /// CPU interfaces, indexed by CPU.
    interfaces: Vec<Arc<Mutex<RegisterState>>>,
    creator: ThreadId,
    /// Set once a second thread uses the machine.
    shared: AtomicBool,
}

/// Lock guard for the machine's state. Heap allocations made while the guard is held are not
/// attributed to the driver.
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
    /// Creates a board with these ITSes. Commands address redistributors as the first ITS's
    /// `GITS_TYPER.PTA` specifies. The redistributors' table accesses are not coherent with caches.
    pub(crate) fn with_its(its: Vec<Hardware>, cpus: u32) -> Self {
        let by_address = its[0].typer.pta();
        let redistributors = (0..cpus).map(|cpu| {
            let base = low_base(cpu);
            let number = u16::try_from(cpu).unwrap();
            let target = if by_address {
                RdBase::from_address(base)
            } else {
                RdBase::from_processor_number(number)
            };
            let typer = typer(cpu).with_processor_number(number).with_last(cpu + 1 == cpus);
            FakeRedistributor::at(base, target.field(), typer)
        });
        let redistributors = redistributors.collect();
        let its = its.into_iter().map(Interpreter::new).collect();
        Self::of(lpi_distributor(), its, redistributors)
    }

    /// Creates a board with direct LPIs, with `low` CPUs in the low region and `high` CPUs in the
    /// high one. When LPIs are enabled, the redistributors immediately cache every configuration.
    pub(crate) fn new(low: u32, high: u32) -> Self {
        let redistributors = (0..low + high).map(|cpu| {
            let base = match cpu.checked_sub(low) {
                Some(index) => HIGH_REDISTRIBUTOR + u64::from(index) * REDISTRIBUTOR_STRIDE,
                None => low_base(cpu),
            };
            let last = cpu + 1 == low || cpu + 1 == low + high;
            let typer = typer(cpu).with_direct_lpi(true).with_last(last);
            let mut new = FakeRedistributor::at(base, cpu.into(), typer);
            (new.coherent, new.caches_at_enable) = (true, true);
            new
        });
        Self::with(lpi_distributor(), redistributors.collect())
    }

    /// Creates a board with this distributor and these redistributors, placed in the low region
    /// unless their base addresses are in the high one.
    pub(crate) fn with(
        distributor: FakeDistributor,
        redistributors: Vec<FakeRedistributor>,
    ) -> Self {
        Self::of(distributor, Vec::new(), redistributors)
    }

    /// Creates a board with one security state and `cpus` redistributors in one region.
    pub(crate) fn with_cpus(cpus: u8) -> Self {
        let redistributors = (0..cpus).map(|cpu| FakeRedistributor::new(cpu, cpu + 1 == cpus));
        Self::with(FakeDistributor::new(Security::Single), redistributors.collect())
    }

    fn of(
        distributor: FakeDistributor,
        its: Vec<Interpreter>,
        redistributors: Vec<FakeRedistributor>,
    ) -> Self {
        run_on(0);
        let interfaces = redistributors.iter().map(|_| Arc::default()).collect();
        let world = Mutex::new(World {
            memory: Memory::new(),
            its,
            redistributors,
            distributor,
            v2m: BTreeMap::new(),
            mip: BTreeMap::new(),
            unmapped: BTreeSet::new(),
            patience: 40,
            turns: 0,
            yields: 0,
            around_a_put: None,
        });
        let (creator, shared) = (thread::current().id(), AtomicBool::new(false));
        Self(Arc::new(Machine { world, interfaces, creator, shared }))
    }

    /// Adds VLPI_base frames to the redistributors, with `GICR_TYPER.Dirty`.
    pub(crate) fn with_vlpi_frames(self) -> Self {
        for (rd, number) in self.world().redistributors.iter_mut().zip(0..) {
            rd.base = REDISTRIBUTOR + number * STRIDE_V4;
            rd.typer = rd.typer.with_vlpis(true).with_dirty(true);
        }
        self
    }

    /// Limits the board to 2^`log2` LPIs.
    pub(crate) fn with_lpis(self, log2: u8) -> Self {
        let world = &mut *self.world();
        world.distributor.typer.set_num_lpis(log2 - 1);
        world.redistributors.iter_mut().for_each(|rd| rd.lpis = 1 << log2);
        self.clone()
    }

    pub(crate) fn world(&self) -> WorldGuard<'_> {
        self.note_thread();
        // After a failed test, the driver's `drop` must still be able to run.
        let world = self.0.world.lock().unwrap_or_else(PoisonError::into_inner);
        WorldGuard { _outside: Outside::new(), world }
    }

    pub(crate) fn at_distributor<R>(&self, f: impl FnOnce(&mut FakeDistributor) -> R) -> R {
        f(&mut self.world().distributor)
    }

    pub(crate) fn at_redistributor<R>(
        &self,
        index: usize,
        f: impl FnOnce(&mut FakeRedistributor) -> R,
    ) -> R {
        f(&mut self.world().redistributors[index])
    }

    pub(crate) fn in_memory<R>(&self, f: impl FnOnce(&mut Memory) -> R) -> R {
        f(&mut self.world().memory)
    }

    pub(crate) fn distributor_frame(&self) -> BoardFrame {
        BoardFrame { board: self.clone(), block: BoardBlock::Distributor }
    }

    pub(crate) fn redistributor_frame(&self, index: usize) -> BoardFrame {
        BoardFrame { board: self.clone(), block: BoardBlock::Redistributor(index) }
    }

    fn note_thread(&self) {
        if thread::current().id() != self.0.creator {
            self.0.shared.store(true, Ordering::SeqCst);
        }
    }

    /// Asserts that another thread may hold the lock that this thread waits for.
    fn check_shared(&self) {
        // The thread that holds the lock may not have accessed the board yet.
        self.note_thread();
        let shared = self.0.shared.load(Ordering::SeqCst) || !interleaving::is_one_cpu();
        assert!(shared, "a thread waits for a lock that it already holds");
    }

    /// Probes the GIC.
    pub(crate) fn gic(&self) -> Arc<Gic<Self>> {
        let id_bits = self.world().distributor.typer.id_bits_minus_one() + 1;
        let bases: Vec<u64> = self.world().redistributors.iter().map(|rd| rd.base).collect();
        let has_vlpis = self.world().redistributors.iter().all(|rd| rd.typer.vlpis());
        let stride = if has_vlpis { STRIDE_V4 } else { REDISTRIBUTOR_STRIDE };
        let region = |base| {
            let here = bases.iter().filter(|at| (base..base + 0x100_0000).contains(*at));
            let bytes = here.count() as u64 * stride;
            (bytes != 0).then(|| RedistributorRegion::new(PhysicalRegion { base, bytes }))
        };
        let regions = [REDISTRIBUTOR, HIGH_REDISTRIBUTOR].into_iter().filter_map(region).collect();
        let cpus = (0..u32::try_from(bases.len()).unwrap()).map(Affinity::from_packed).collect();
        let config = GicConfig::new(DISTRIBUTOR, regions, cpus).with_lpi_id_bits(Some(id_bits));
        Arc::new(Gic::new(Arc::new(self.clone()), config).unwrap())
    }

    /// Probes the GIC and turns on every CPU.
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

    pub(crate) fn registers(&self, cpu: Cpu) -> FakeRegisters {
        FakeRegisters::of(self.0.interfaces[cpu.index()].clone(), self.clone(), cpu.get())
    }

    pub(crate) fn interface(&self, cpu: u32) -> CpuInterface<FakeRegisters> {
        CpuInterface::new(self.registers(Cpu::new(cpu)))
    }
}

fn low_base(cpu: u32) -> u64 {
    REDISTRIBUTOR + u64::from(cpu) * REDISTRIBUTOR_STRIDE
}

/// Returns a distributor with 14 INTID bits.
fn lpi_distributor() -> FakeDistributor {
    let mut new = FakeDistributor::new(Security::Single);
    new.typer.set_id_bits_minus_one(13);
    new
}

fn typer(cpu: u32) -> Typer {
    Typer::new().with_plpis(true).with_affinity_value(cpu)
}
