//! Concurrent masking of an ITS's LPIs from several CPUs, by commands and by `GICR_INVLPIR`. The
//! hardware is plain memory that completes every request immediately, so the probes measure only
//! the driver, including the time that CPUs wait for each other.

use crate::probe::{MeasureError, Probe, Reference, each};
use gic_driver::gic_arch::icc::SysRegEncoding;
use gic_driver::gic_arch::{Affinity, Lpi, gicd, gicr, gits, id};
use gic_driver::its::EventRequest;
use gic_driver::{
    Coherence, Gic, GicConfig, GicPlatform, IrqState, Its, ItsConfig, LocalCpu, Mmio,
    PhysicalRegion, Platform, RedistributorRegion, SystemRegisters, Table, TableLayout, Wait,
};
use msi_types::{Cpu, DeviceId};
use std::hint::{black_box, spin_loop};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Barrier, OnceLock};
use std::thread;
use std::time::Instant;

/// Numbers of CPUs masking concurrently.
const CPUS: [u32; 3] = [1, 2, 8];
const MOST: u32 = 8;
/// Number of masks and unmasks that each CPU performs per sample.
const OPERATIONS: u32 = 10_000;

const DISTRIBUTOR: u64 = 0x0800_0000;
const ITS: u64 = 0x0808_0000;
const REDISTRIBUTORS: u64 = 0x0900_0000;
const STRIDE: u64 = 0x2_0000;
/// Base addresses of the LPI configuration bytes, and of all other tables.
const BYTES: u64 = 1 << 32;
const WORDS: u64 = 1 << 33;
const TABLES: usize = 1 << 21;

/// Returns probes for the elapsed time per mask or unmask, divided by the number of operations on
/// all CPUs.
pub(crate) fn probes() -> Result<Vec<Probe>, MeasureError> {
    let mut probes = Vec::new();
    for (name, ir) in [("mask-command", false), ("mask-register", true)] {
        let masks = Arc::new(
            Masks::new(Arc::new(Board::new(ir)))
                .map_err(|reason| MeasureError::Machine(name, reason))?,
        );
        for (cpus, floor) in CPUS.into_iter().zip(FLOORS) {
            let masks = masks.clone();
            let sample = move || masks.sample(cpus);
            probes.push(Probe::new(format!("{name}-{cpus}"), Reference::Case(floor), sample));
        }
    }
    for (cpus, name) in CPUS.into_iter().zip(FLOORS) {
        probes.push(Probe::new(name, Reference::FetchOr, move || floor(cpus)));
    }
    Ok(probes)
}

const FLOORS: [&str; 3] = ["floor-mask-1", "floor-mask-2", "floor-mask-8"];

/// Measures the minimum work of masking, which is to change a byte and publish it, to write a
/// register, and to read a register.
fn floor(cpus: u32) -> Result<f64, String> {
    let lines: Vec<[AtomicU64; 16]> = (0..cpus).map(|_| Default::default()).collect();
    let bytes: Vec<AtomicU8> = (0..cpus).map(|_| AtomicU8::new(0)).collect();
    on_each(cpus, |cpu| {
        let (byte, line) = (&bytes[cpu as usize], &lines[cpu as usize]);
        for _ in 0..OPERATIONS {
            byte.fetch_xor(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            line[0].store(u64::from(cpu), Ordering::Relaxed);
            black_box(line[1].load(Ordering::Relaxed));
        }
        Ok(())
    })
}

/// Runs `f` on one thread per CPU. All threads start together.
fn on_each(cpus: u32, f: impl Fn(u32) -> Result<(), String> + Sync) -> Result<f64, String> {
    let start = Barrier::new(cpus as usize + 1);
    let (f, start) = (&f, &start);
    thread::scope(|scope| {
        let threads = (0..cpus).map(|cpu| {
            scope.spawn(move || {
                start.wait();
                f(cpu)
            })
        });
        let threads: Vec<_> = threads.collect();
        start.wait();
        let begin = Instant::now();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked".to_owned())??;
        }
        Ok(each(begin.elapsed(), cpus * OPERATIONS))
    })
}

/// A driver with one LPI per CPU.
struct Masks {
    its: Its<Board>,
    lpis: Vec<Lpi>,
}

impl Masks {
    fn new(board: Arc<Board>) -> Result<Self, String> {
        let text = |error: &dyn ToString| error.to_string();
        let region = PhysicalRegion { base: REDISTRIBUTORS, bytes: u64::from(MOST) * STRIDE };
        let affinities = (0..MOST).map(Affinity::from_packed).collect();
        let regions = vec![RedistributorRegion::new(region)];
        let config = GicConfig::new(DISTRIBUTOR, regions, affinities).with_lpi_id_bits(Some(14));
        let gic = Gic::new(board, config).map_err(|error| text(&error))?;
        let gic = Arc::new(gic);
        let config = ItsConfig::new(ITS, MOST);
        let its = Its::new(gic.clone(), &config).map_err(|error| text(&error))?;
        let device = its.attach(DeviceId::new(0), MOST);
        let device = device.map_err(|error| text(&error))?;
        let mut lpis = Vec::new();
        for cpu in (0..MOST).map(Cpu::new) {
            gic.cpu_on(cpu, &Registers).map_err(|error| text(&error))?;
            its.cpu_on(cpu).map_err(|error| text(&error))?;
            let request = EventRequest::new(NonZeroU16::MIN, cpu);
            let block = its.map_events(&device, request).map_err(|error| text(&error))?;
            lpis.push(Lpi::try_from(block.first().get()).map_err(|error| text(&error))?);
        }
        Ok(Self { its, lpis })
    }

    fn sample(&self, cpus: u32) -> Result<f64, String> {
        on_each(cpus, |cpu| {
            let lpi = self.lpis[cpu as usize];
            for _ in 0..OPERATIONS / 2 {
                self.its.mask(lpi).map_err(|error| error.to_string())?;
                self.its.unmask(lpi).map_err(|error| error.to_string())?;
            }
            Ok(())
        })
    }
}

/// Registers and tables backed by plain memory.
struct Board {
    ir: bool,
    bytes: Vec<AtomicU8>,
    words: Vec<AtomicU64>,
    next: AtomicU64,
    /// The ITS registers.
    its: OnceLock<Arc<[AtomicU32]>>,
}

impl Board {
    fn new(ir: bool) -> Self {
        let bytes = (0..TABLES).map(|_| AtomicU8::new(0)).collect();
        let words = (0..TABLES).map(|_| AtomicU64::new(0)).collect();
        Self { ir, bytes, words, next: AtomicU64::new(0), its: OnceLock::new() }
    }

    fn word(&self, table: &Table, offset: u64) -> &AtomicU64 {
        &self.words[usize::try_from((table.address - WORDS + offset) / 8).unwrap_or(usize::MAX)]
    }

    fn byte(&self, table: &Table, offset: u64) -> &AtomicU8 {
        &self.bytes[usize::try_from(table.address - BYTES + offset).unwrap_or(usize::MAX)]
    }
}

impl LocalCpu for Board {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }

    fn irq_restore(&self, _: IrqState) {}

    fn relax(&self) {
        spin_loop();
    }

    fn yield_now(&self) {
        self.relax();
    }
}

impl Platform for Board {
    type Mmio = Frame;

    fn map(&self, region: PhysicalRegion) -> Option<Frame> {
        let constant = |typer: u64, ir| {
            let words: Arc<[AtomicU32]> = (0..0x4000).map(|_| AtomicU32::new(0)).collect();
            if region.base == ITS {
                self.its.get_or_init(|| words.clone());
            }
            Some(Frame { base: region.base, typer, ir, words })
        };
        match region.base {
            DISTRIBUTOR => {
                let typer = gicd::Typer::new().with_lpis(true).with_id_bits_minus_one(15);
                constant(u32::from(typer).into(), false)
            }
            ITS => {
                let typer = gits::Typer::new().with_physical(true).with_hcc(16);
                let typer = typer.with_itt_entry_bytes_minus_one(7);
                let typer = typer.with_event_id_bits_minus_one(4);
                constant(typer.with_device_id_bits_minus_one(4).into(), false)
            }
            base => {
                let cpu = u16::try_from((base - REDISTRIBUTORS) / STRIDE).ok()?;
                let typer = gicr::Typer::new().with_plpis(true).with_processor_number(cpu);
                let last = u32::from(cpu) + 1 == MOST;
                constant(typer.with_affinity_value(cpu.into()).with_last(last).into(), self.ir)
            }
        }
    }

    fn wait(&self, turn: u32) -> Wait {
        spin_loop();
        if turn < 10_000_000 { Wait::Again } else { Wait::GiveUp }
    }
}

impl GicPlatform for Board {
    fn allocate_table(&self, layout: TableLayout) -> Option<Table> {
        let pool = if layout.bytes == 0x2000 && self.next.load(Ordering::Relaxed) == 0 {
            BYTES
        } else {
            WORDS
        };
        let align = layout.align.max(layout.bytes);
        let place = self.next.load(Ordering::Relaxed).next_multiple_of(align);
        self.next.store(place + layout.bytes, Ordering::Relaxed);
        Some(Table::new(pool + place, layout.bytes, 0))
    }

    fn release_table(&self, _: Table) {}

    fn store8(&self, table: &Table, offset: u64, value: u8) {
        self.byte(table, offset).store(value, Ordering::Relaxed);
    }

    fn store64(&self, table: &Table, offset: u64, value: u64) {
        self.word(table, offset).store(value, Ordering::Relaxed);
    }

    fn load8(&self, table: &Table, offset: u64) -> u8 {
        self.byte(table, offset).load(Ordering::Relaxed)
    }

    fn publish(&self, _: &Table, _: std::ops::Range<u64>, _: Coherence) {
        fence(Ordering::SeqCst);
    }

    fn cpu(&self) -> Cpu {
        Cpu::new(0)
    }
}

/// A register frame that stores written values and completes immediately.
struct Frame {
    base: u64,
    typer: u64,
    ir: bool,
    words: Arc<[AtomicU32]>,
}

impl Frame {
    fn at(&self, offset: u32) -> &AtomicU32 {
        &self.words[offset as usize / 4 % self.words.len()]
    }
}

impl Mmio for Frame {
    fn read32(&self, offset: u32) -> u32 {
        let stored = self.at(offset).load(Ordering::Relaxed);
        match (self.base, offset) {
            (_, offset) if offset == id::PIDR2.offset() => 0x3b,
            (DISTRIBUTOR, offset) if offset == gicd::TYPER.offset() => {
                self.typer.try_into().unwrap_or(0)
            }
            (ITS, offset) if offset == gits::CTLR.offset() => {
                let control = gits::Ctlr::from(stored);
                control.with_quiescent(!control.enabled()).into()
            }
            (DISTRIBUTOR | ITS, _) => stored,
            (_, offset) if offset == gicr::CTLR.offset() => {
                gicr::Ctlr::from(stored).with_ir(self.ir).into()
            }
            (_, offset) if offset == gicr::WAKER.offset() => 0,
            _ => stored,
        }
    }

    fn write32(&self, offset: u32, value: u32) {
        self.at(offset).store(value, Ordering::Relaxed);
    }

    fn write8(&self, _: u32, _: u8) {}

    fn read64(&self, offset: u32) -> u64 {
        if self.base == ITS && offset == gits::CREADR.offset() {
            // Report all commands as executed.
            return self.at(gits::CWRITER.offset()).load(Ordering::Acquire).into();
        }
        if offset == gits::TYPER.offset() {
            return self.typer;
        }
        let half = |offset| u64::from(self.at(offset).load(Ordering::Relaxed));
        let stored = half(offset) | half(offset + 4) << 32;
        if self.base == ITS && gits::BASER.get(0).is_some_and(|table| table.offset() == offset) {
            let table = gits::Baser::from(stored).with_kind(gits::TableKind::Devices);
            return table.with_entry_bytes_minus_one(7).into();
        }
        stored
    }

    fn write64(&self, offset: u32, value: u64) {
        let [low, high] = [value, value >> 32].map(|half| u32::try_from(half & 0xffff_ffff));
        self.at(offset + 4).store(high.unwrap_or(0), Ordering::Relaxed);
        self.at(offset).store(low.unwrap_or(0), Ordering::Release);
    }
}

/// A CPU interface without state.
struct Registers;

impl SystemRegisters for Registers {
    fn read_raw(&self, _: SysRegEncoding) -> u64 {
        // `ICC_SRE_EL1.SRE`.
        1
    }

    fn write_raw(&self, _: SysRegEncoding, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns `GITS_CWRITER` before and after one sample.
    fn posted(ir: bool) -> [u32; 2] {
        let board = Arc::new(Board::new(ir));
        let masks = Masks::new(board.clone()).unwrap();
        let offset = gits::CWRITER.offset() as usize / 4;
        let posted = || board.its.get().unwrap()[offset].load(Ordering::Relaxed);
        [posted(), (masks.sample(2).unwrap(), posted()).1]
    }

    #[test]
    fn masking_by_invlpir_queues_no_its_commands() {
        let [before, after] = posted(true);
        assert_eq!(before, after);
        let [before, after] = posted(false);
        // 20,000 times INV plus SYNC, in a queue of 64 KiB that wraps around.
        assert_eq!((after + 0x1_0000 - before) % 0x1_0000, 20_000 * 64 % 0x1_0000);
    }
}
