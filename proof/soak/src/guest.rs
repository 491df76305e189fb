//! A guest's view of its machine: register frames, command queues and tables in its memory.

use crate::lifecycle::Memory;
use doorbell_test_support::guest::{self, Machine, RAM, ram};
pub(crate) use doorbell_test_support::guest::{mapc, mapti, movall};
use gic_arch::gicr::{Ctlr, Syncr};
use gic_arch::gits::{Baser, PageSize};
use gic_arch::its::Command;
use gic_arch::{IntId, gicd, gicr, gits};
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use vgic::{GuestMemory as _, Vgic, VmMemory};

/// Size of the guest's memory.
const RAM_BYTES: usize = 64 << 20;
/// Address of the LPI configuration table, for INTIDs of up to 16 bits.
const CONFIGURATIONS: u64 = RAM;
/// Address of the first redistributor's pending table, and the distance between two tables.
const PENDING: u64 = RAM + 0x10_0000;
const PENDING_STRIDE: u64 = 0x1_0000;
/// Address of the first ITS's queue, which its tables follow, and of its first interrupt
/// translation table, and the distance to those of the next ITS.
const QUEUE: u64 = RAM + 0x40_0000;
const ITTS: u64 = RAM + 0x80_0000;
const ITS_STRIDE: u64 = 0x100_0000;
/// Number of INTID bits.
const ID_BITS: u8 = 16;
/// First LPI.
pub(crate) const FIRST_LPI: u32 = 8192;
/// Field of `GICD_ICFGR<n>` for an edge-triggered interrupt.
pub(crate) const EDGE: u32 = 2;
/// `GICD_CTLR.RWP`.
const RWP: u64 = 1 << 31;
/// `GITS_CTLR.Quiescent`.
const QUIESCENT: u64 = 1 << 31;

/// Creates a guest's memory, in which every LPI is enabled with the same priority.
pub(crate) fn memory() -> Arc<Memory> {
    let memory = VmMemory(ram(RAM, RAM_BYTES));
    memory.write(CONFIGURATIONS, &vec![0xa1; 1 << ID_BITS]).unwrap();
    Arc::new(memory)
}

/// A guest that programs its interrupt controller: its view of the machine with each of the ITSes,
/// or its only view of a machine without ITSes.
pub(crate) struct Guest(Vec<Machine>);

impl Deref for Guest {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        &self.0[0]
    }
}

impl Guest {
    pub(crate) fn new(gic: &Arc<Vgic>, memory: &Arc<Memory>) -> Self {
        let bases = gic.config().its.iter().map(|its| its.base);
        let bases = bases.chain(gic.config().its.is_empty().then_some(0));
        let view = |(base, queue)| Machine::view(gic.clone(), memory.clone(), base, queue);
        Self(bases.zip((0..).map(|its| QUEUE + ITS_STRIDE * its)).map(view).collect())
    }

    /// Continues the guest on another machine.
    pub(crate) fn move_to(&mut self, gic: &Arc<Vgic>) {
        *self = Self::new(gic, &self.ram);
    }

    pub(crate) fn cpus(&self) -> usize {
        self.gic.config().cpus.len()
    }

    /// Routes an SPI to a CPU, or to any participating CPU.
    pub(crate) fn route(&self, intid: u32, cpu: Option<usize>) {
        let affinity = |cpu: usize| self.gic.config().cpus[cpu].affinity;
        let value = match cpu {
            Some(cpu) => gicd::Irouter::to(affinity(cpu)),
            None => gicd::Irouter::new().with_any_participating(true),
        };
        self.write_gicd(gicd::irouter(IntId::new(intid)).unwrap(), value);
    }

    /// Waits until the distributor's register writes have taken effect.
    pub(crate) fn wait_gicd(&self) {
        wait(|| self.read_gicd(gicd::CTLR) & RWP == 0);
    }

    /// Sets `GICR_CTLR.EnableLPIs`, and waits until the redistributor has applied it.
    pub(crate) fn enable_lpis(&self, cpu: usize, enable: bool) {
        self.write_gicr(cpu, gicr::CTLR, Ctlr::new().with_enable_lpis(enable));
        wait(|| {
            let value = self.read_gicr(cpu, gicr::CTLR);
            let control = Ctlr::from_bits(u32::try_from(value).unwrap());
            !control.rwp() && control.enable_lpis() == enable
        });
    }

    /// Sets `GITS_CTLR.Enabled`. After clearing it, waits until the ITS is quiescent.
    pub(crate) fn enable_its(&self, its: usize, enable: bool) {
        self.0[its].write_gits(gits::CTLR, gits::Ctlr::new().with_enabled(enable));
        wait(|| enable || self.0[its].read_gits(gits::CTLR) & QUIESCENT != 0);
    }

    /// Writes an LPI's configuration byte.
    pub(crate) fn configure(&self, lpi: u32, priority: u8, enable: bool) {
        let byte = priority & 0xfc | u8::from(enable);
        self.ram.write(CONFIGURATIONS + u64::from(lpi - FIRST_LPI), &[byte]).unwrap();
    }

    /// Makes a redistributor read an LPI's configuration again, or that of all LPIs.
    pub(crate) fn invalidate(&self, cpu: usize, lpi: Option<u32>) {
        match lpi {
            Some(lpi) => self.write_gicr(cpu, gicr::INVLPIR, lpi.into()),
            None => self.write_gicr(cpu, gicr::INVALLR, 0),
        }
        wait(|| {
            let value = u32::try_from(self.read_gicr(cpu, gicr::SYNCR)).unwrap();
            !Syncr::from_bits(value).busy()
        });
    }

    /// Programs the LPI tables of a redistributor, and enables its LPIs.
    pub(crate) fn start_lpis(&self, cpu: usize) {
        let pending = PENDING + PENDING_STRIDE * cpu as u64;
        self.provide_lpi_tables(cpu, ID_BITS, CONFIGURATIONS, pending);
        self.enable_lpis(cpu, true);
    }

    /// Programs the tables and the queue of an ITS, and enables it. A two-level device table has
    /// only its first page.
    pub(crate) fn start_its(&self, its: usize, two_levels: bool) {
        let view = &self.0[its];
        let [devices, page, collections] = [1, 2, 3].map(|place| view.queue + 0x1_0000 * place);
        if two_levels {
            self.ram.write_u64(devices, 1 << 63 | page).unwrap();
        }
        let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let devices = table.with_indirect(two_levels).with_address(devices);
        view.start_its_with(devices, table.with_address(collections));
    }

    /// Writes a command, and `GITS_CWRITER`, but does not wait.
    pub(crate) fn post(&self, its: usize, command: Command) {
        self.0[its].queue([command]);
    }

    /// Waits until the ITS has executed all commands.
    pub(crate) fn wait_its(&self, its: usize) {
        wait(|| self.0[its].is_queue_done());
    }

    /// Executes a command.
    pub(crate) fn run(&self, its: usize, command: Command) {
        self.post(its, command);
        self.wait_its(its);
    }
}

/// Number of attempts after which a wait counts as endless.
const ATTEMPTS: u64 = 1 << 28;

fn wait(done: impl Fn() -> bool) {
    for _ in 0..ATTEMPTS {
        if done() {
            return;
        }
        thread::yield_now();
    }
    panic!("the model does not complete an access");
}

pub(crate) fn mapd(its: usize, device: u32, bits: u8) -> Command {
    let itt = ITTS + ITS_STRIDE * its as u64 + 0x1000 * u64::from(device % 64);
    guest::mapd(device, bits, itt)
}
