//! A guest's view of its machine: register frames, command queues and tables in its memory.

use crate::lifecycle::{self, Memory};
use doorbell_test_support::guest::{self, ram};
pub(crate) use doorbell_test_support::guest::{mapc, mapti, movall};
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser, Syncr};
use gic_arch::gits::{Baser, Cbaser, Cwriter, PageSize};
use gic_arch::its::Command;
use gic_arch::{IntId, IntIdClass, IntIdField, gicd, gicr, gits};
use std::sync::{Arc, Mutex};
use std::thread;
use vgic::AccessWidth::{Byte, Double, Word};
use vgic::{GuestMemory as _, Vgic, VmMemory};

/// First address and size of the guest's memory.
const RAM: u64 = 0x4000_0000;
const RAM_BYTES: usize = 64 << 20;
/// Address of the LPI configuration table, for INTIDs of up to 16 bits.
const CONFIGURATIONS: u64 = RAM;
/// Address of the first redistributor's pending table, and the distance between two tables.
const PENDING: u64 = RAM + 0x10_0000;
const PENDING_STRIDE: u64 = 0x1_0000;
/// Addresses of the first ITS's queue and tables, and the distance to those of the next ITS.
const QUEUE: u64 = RAM + 0x40_0000;
pub(crate) const DEVICES: u64 = RAM + 0x50_0000;
const COLLECTIONS: u64 = RAM + 0x60_0000;
const ITTS: u64 = RAM + 0x80_0000;
const ITS_STRIDE: u64 = 0x100_0000;
/// Size of a command queue.
pub(crate) const QUEUE_BYTES: u32 = 0x1000;
/// Number of INTID bits.
const ID_BITS: u8 = 16;
/// First LPI.
pub(crate) const FIRST_LPI: u32 = 8192;
/// Value of `GICD_CTLR` that enables both groups, in either security view.
const BOTH_GROUPS: u64 = 3;
/// Field of `GICD_ICFGR<n>` for an edge-triggered interrupt.
const EDGE: u32 = 2;
/// `GICD_CTLR.RWP`.
const RWP: u64 = 1 << 31;
/// `GITS_CTLR.Quiescent`.
const QUIESCENT: u64 = 1 << 31;

/// Creates a guest's memory, in which every LPI is enabled with the same priority.
pub(crate) fn memory() -> Memory {
    let memory = VmMemory(ram(RAM, RAM_BYTES));
    memory.write(CONFIGURATIONS, &vec![0xa1; 1 << ID_BITS]).unwrap();
    memory
}

/// A guest that programs its interrupt controller.
pub(crate) struct Guest {
    pub(crate) gic: Arc<Vgic>,
    pub(crate) memory: Memory,
    /// Offset in each ITS's queue at which the next command is written.
    written: Mutex<Vec<u32>>,
}

impl Guest {
    pub(crate) fn new(gic: Arc<Vgic>, memory: Memory) -> Self {
        let written = Mutex::new(vec![0; gic.config().its.len()]);
        Self { gic, memory, written }
    }

    /// Continues the guest on another machine.
    pub(crate) fn move_to(&mut self, gic: Arc<Vgic>) {
        self.gic = gic;
    }

    pub(crate) fn cpus(&self) -> usize {
        self.gic.config().cpus.len()
    }

    /// Returns the address of a redistributor's frame.
    pub(crate) fn frame(&self, cpu: usize) -> u64 {
        let region = self.gic.config().redistributors[0];
        region.base + region.stride * cpu as u64
    }

    fn its_frame(&self, its: usize) -> u64 {
        self.gic.config().its[its].base
    }

    pub(crate) fn read_gicr(&self, cpu: usize, offset: u32) -> u64 {
        self.gic.read(self.frame(cpu) + u64::from(offset), Word).unwrap()
    }

    pub(crate) fn write_gicr(&self, cpu: usize, offset: u32, value: u64) {
        lifecycle::write(&self.gic, self.frame(cpu) + u64::from(offset), Word, value);
    }

    pub(crate) fn read_gicd(&self, offset: u32) -> u64 {
        self.gic.read(self.gic.config().distributor + u64::from(offset), Word).unwrap()
    }

    pub(crate) fn write_gicd(&self, offset: u32, value: u64) {
        let address = self.gic.config().distributor + u64::from(offset);
        lifecycle::write(&self.gic, address, Word, value);
    }

    pub(crate) fn read_gits(&self, its: usize, offset: u32) -> u64 {
        self.gic.read(self.its_frame(its) + u64::from(offset), Double).unwrap()
    }

    pub(crate) fn write_gits(&self, its: usize, offset: u32, value: u64) {
        lifecycle::write(&self.gic, self.its_frame(its) + u64::from(offset), Double, value);
    }

    /// Reads or changes the register with an interrupt's field. `fields` has the arrays for SPIs,
    /// extended SPIs and private interrupts; `cpu` is the redistributor of a private interrupt.
    fn field(&self, fields: [IntIdField; 3], cpu: usize, intid: u32, change: Change) -> u32 {
        let id = IntId::new(intid);
        let (field, base) = match id.class() {
            IntIdClass::Spi => (fields[0], self.gic.config().distributor),
            IntIdClass::ExtendedSpi => (fields[1], self.gic.config().distributor),
            _ => (fields[2], self.frame(cpu)),
        };
        let at = field.locate(id).unwrap();
        let address = base + u64::from(at.register().offset());
        let read = || u32::try_from(self.gic.read(address, Word).unwrap()).unwrap();
        let write = |value: u32| lifecycle::write(&self.gic, address, Word, value.into());
        match change {
            Change::Read => at.extract(read()),
            Change::Write(value) => {
                write(at.insert(read(), value));
                value
            }
            Change::One => {
                write(at.mask());
                1
            }
            Change::Priority(value) => {
                let byte = base + u64::from(at.byte_offset());
                lifecycle::write(&self.gic, byte, Byte, value.into());
                value
            }
        }
    }

    pub(crate) fn enable(&self, cpu: usize, intid: u32) {
        let fields = [gicd::ISENABLER, gicd::ISENABLER_E, gicr::ISENABLER];
        self.field(fields, cpu, intid, Change::One);
    }

    pub(crate) fn disable(&self, cpu: usize, intid: u32) {
        let fields = [gicd::ICENABLER, gicd::ICENABLER_E, gicr::ICENABLER];
        self.field(fields, cpu, intid, Change::One);
    }

    pub(crate) fn set_pending(&self, cpu: usize, intid: u32) {
        let fields = [gicd::ISPENDR, gicd::ISPENDR_E, gicr::ISPENDR];
        self.field(fields, cpu, intid, Change::One);
    }

    pub(crate) fn set_priority(&self, cpu: usize, intid: u32, priority: u8) {
        let fields = [gicd::IPRIORITYR, gicd::IPRIORITYR_E, gicr::IPRIORITYR];
        self.field(fields, cpu, intid, Change::Priority(priority.into()));
    }

    pub(crate) fn priority(&self, cpu: usize, intid: u32) -> u32 {
        let fields = [gicd::IPRIORITYR, gicd::IPRIORITYR_E, gicr::IPRIORITYR];
        self.field(fields, cpu, intid, Change::Read)
    }

    /// Moves an interrupt to the other group.
    pub(crate) fn change_group(&self, cpu: usize, intid: u32) {
        let fields = [gicd::IGROUPR, gicd::IGROUPR_E, gicr::IGROUPR];
        let group = self.field(fields, cpu, intid, Change::Read);
        self.field(fields, cpu, intid, Change::Write(group ^ 1));
    }

    pub(crate) fn set_group(&self, cpu: usize, intid: u32, group: u32) {
        let fields = [gicd::IGROUPR, gicd::IGROUPR_E, gicr::IGROUPR];
        self.field(fields, cpu, intid, Change::Write(group));
    }

    pub(crate) fn make_edge(&self, cpu: usize, intid: u32) {
        let fields = [gicd::ICFGR, gicd::ICFGR_E, gicr::ICFGR];
        self.field(fields, cpu, intid, Change::Write(EDGE));
    }

    /// Returns an interrupt's pending and active bits.
    pub(crate) fn state(&self, cpu: usize, intid: u32) -> (u32, u32) {
        let pending = [gicd::ISPENDR, gicd::ISPENDR_E, gicr::ISPENDR];
        let active = [gicd::ISACTIVER, gicd::ISACTIVER_E, gicr::ISACTIVER];
        let read = |fields| self.field(fields, cpu, intid, Change::Read);
        (read(pending), read(active))
    }

    /// Routes an SPI to a CPU, or to any participating CPU.
    pub(crate) fn route(&self, intid: u32, cpu: Option<usize>) {
        let affinity = |cpu: usize| self.gic.config().cpus[cpu].affinity;
        let value = match cpu {
            Some(cpu) => gicd::Irouter::to(affinity(cpu)),
            None => gicd::Irouter::new().with_any_participating(true),
        };
        let register = gicd::irouter(IntId::new(intid)).unwrap();
        let address = self.gic.config().distributor + u64::from(register.offset());
        lifecycle::write(&self.gic, address, Double, value.into_bits());
    }

    /// Waits until the distributor's register writes have taken effect.
    pub(crate) fn wait_gicd(&self) {
        wait(|| self.read_gicd(gicd::CTLR.offset()) & RWP == 0);
    }

    /// Sets `GICR_CTLR.EnableLPIs`, and waits until the redistributor has applied it.
    pub(crate) fn enable_lpis(&self, cpu: usize, enable: bool) {
        let value = Ctlr::new().with_enable_lpis(enable).into_bits();
        self.write_gicr(cpu, gicr::CTLR.offset(), value.into());
        wait(|| {
            let value = self.read_gicr(cpu, gicr::CTLR.offset());
            let control = Ctlr::from_bits(u32::try_from(value).unwrap());
            !control.rwp() && control.enable_lpis() == enable
        });
    }

    /// Sets `GITS_CTLR.Enabled`. After clearing it, waits until the ITS is quiescent.
    pub(crate) fn enable_its(&self, its: usize, enable: bool) {
        let address = self.its_frame(its);
        lifecycle::write(&self.gic, address, Word, enable.into());
        wait(|| enable || self.gic.read(address, Word).unwrap() & QUIESCENT != 0);
    }

    /// Writes an LPI's configuration byte.
    pub(crate) fn configure(&self, lpi: u32, priority: u8, enable: bool) {
        let byte = priority & 0xfc | u8::from(enable);
        self.memory.write(CONFIGURATIONS + u64::from(lpi - FIRST_LPI), &[byte]).unwrap();
    }

    /// Makes a redistributor read an LPI's configuration again, or that of all LPIs.
    pub(crate) fn invalidate(&self, cpu: usize, lpi: Option<u32>) {
        match lpi {
            Some(lpi) => self.write_gicr(cpu, gicr::INVLPIR.offset(), lpi.into()),
            None => self.write_gicr(cpu, gicr::INVALLR.offset(), 0),
        }
        wait(|| {
            let value = u32::try_from(self.read_gicr(cpu, gicr::SYNCR.offset())).unwrap();
            !Syncr::from_bits(value).busy()
        });
    }

    /// Programs the LPI tables of a redistributor, and enables its LPIs.
    pub(crate) fn start_lpis(&self, cpu: usize) {
        let write = |offset: u32, value| {
            lifecycle::write(&self.gic, self.frame(cpu) + u64::from(offset), Double, value);
        };
        let table = Propbaser::new().with_id_bits_minus_one(ID_BITS - 1);
        write(gicr::PROPBASER.offset(), table.with_address(CONFIGURATIONS).into_bits());
        let pending = Pendbaser::new().with_address(PENDING + PENDING_STRIDE * cpu as u64);
        write(gicr::PENDBASER.offset(), pending.with_pending_table_zero(true).into_bits());
        self.enable_lpis(cpu, true);
    }

    /// Programs the tables and the queue of an ITS, and enables it. A two-level device table has
    /// only its first page.
    pub(crate) fn start_its(&self, its: usize, two_levels: bool) {
        let offset = ITS_STRIDE * its as u64;
        let table = Baser::new().with_page_size(PageSize::Size64K).with_valid(true);
        let devices = table.with_indirect(two_levels).with_address(DEVICES + offset);
        if two_levels {
            let page = DEVICES + offset + 0x1_0000;
            self.memory.write_u64(DEVICES + offset, 1 << 63 | page).unwrap();
        }
        let collections = table.with_address(COLLECTIONS + offset);
        self.write_gits(its, gits::BASER.get(0).unwrap().offset(), devices.into_bits());
        self.write_gits(its, gits::BASER.get(1).unwrap().offset(), collections.into_bits());
        let queue = Cbaser::new().with_address(QUEUE + offset).with_valid(true);
        self.write_gits(its, gits::CBASER.offset(), queue.into_bits());
        self.enable_its(its, true);
    }

    /// Writes a command, and `GITS_CWRITER`, but does not wait.
    pub(crate) fn post(&self, its: usize, words: [u64; 4]) {
        let mut written = self.written.lock().unwrap();
        let at = QUEUE + ITS_STRIDE * its as u64 + u64::from(written[its]);
        for (word, address) in words.into_iter().zip((at..).step_by(8)) {
            self.memory.write_u64(address, word).unwrap();
        }
        written[its] = (written[its] + 32) % QUEUE_BYTES;
        self.write_gits(its, gits::CWRITER.offset(), Cwriter::at_offset(written[its]).into_bits());
    }

    /// Returns `true` if the ITS has executed all commands.
    pub(crate) fn is_done(&self, its: usize) -> bool {
        let written = self.written.lock().unwrap()[its];
        self.read_gits(its, gits::CREADR.offset()) == u64::from(written)
    }

    /// Waits until the ITS has executed all commands.
    pub(crate) fn wait_its(&self, its: usize) {
        wait(|| self.is_done(its));
    }

    /// Executes a command.
    pub(crate) fn run(&self, its: usize, command: Command) {
        self.post(its, command.encode());
        self.wait_its(its);
    }
}

/// Access to an interrupt's field.
#[derive(Clone, Copy)]
enum Change {
    Read,
    Write(u32),
    /// Write of the field's bits alone, for registers in which 0 has no effect.
    One,
    /// Byte write.
    Priority(u32),
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

/// Returns the address of a device's interrupt translation table.
pub(crate) fn itt(its: usize, device: u32) -> u64 {
    ITTS + ITS_STRIDE * its as u64 + 0x1000 * u64::from(device % 64)
}

pub(crate) fn mapd(its: usize, device: u32, bits: u8) -> Command {
    guest::mapd(device, bits, itt(its, device))
}

/// Sets up the distributor and the redistributors. Interrupts start in Group 1.
pub(crate) fn start_wired(guest: &Guest) {
    guest.write_gicd(gicd::CTLR.offset(), BOTH_GROUPS);
    for array in [gicd::IGROUPR, gicd::IGROUPR_E] {
        for register in array.registers().iter() {
            guest.write_gicd(register.offset(), u32::MAX.into());
        }
    }
    for cpu in 0..guest.cpus() {
        guest.write_gicr(cpu, gicr::WAKER.offset(), 0);
        for register in gicr::IGROUPR.registers().iter() {
            guest.write_gicr(cpu, register.offset(), u32::MAX.into());
        }
    }
}
