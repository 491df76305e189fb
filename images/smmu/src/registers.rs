//! Registers (IHI 0070, chapter 6): features, locations of tables, and enables.

use crate::platform::{Ring, SmmuError, wait_for};
use crate::stream_table::StreamTable;
use gic_driver::{Mmio, Platform};
use image_rt::platform::Kernel;

const IDR0: u32 = 0x00;
const IDR1: u32 = 0x04;
const IDR5: u32 = 0x14;
const CR0: u32 = 0x20;
const CR0ACK: u32 = 0x24;
const CR1: u32 = 0x28;
const CR2: u32 = 0x2c;
const GBPA: u32 = 0x44;
const IRQ_CTRL: u32 = 0x50;
const IRQ_CTRLACK: u32 = 0x54;
const STRTAB_BASE: u32 = 0x80;
const STRTAB_BASE_CFG: u32 = 0x88;
const CMDQ_BASE: u32 = 0x90;
const CMDQ_PROD: u32 = 0x98;
const CMDQ_CONS: u32 = 0x9c;
const EVENTQ_BASE: u32 = 0xa0;
// The registers of the event queue's indices are on the second page.
const EVENTQ_PROD: u32 = 0x1_00a8;
const EVENTQ_CONS: u32 = 0x1_00ac;

/// Bits of CR0 and of its acknowledgment.
const SMMUEN: u32 = 1 << 0;
const EVENTQEN: u32 = 1 << 2;
const CMDQEN: u32 = 1 << 3;
/// Value of CR1: tables and queues are read as inner shareable, write-back cacheable memory.
const CACHED: u32 = 0b11_01_01_11_01_01;
/// Bit of CR2: report accesses from out-of-range streams as events.
const RECINVSID: u32 = 1 << 1;
/// Bit of GBPA: accesses are aborted while translation is off.
const ABORT: u32 = 1 << 20;
const UPDATE: u32 = 1 << 31;
/// Bit of IRQ_CTRL.
const EVENTQ_IRQEN: u32 = 1 << 2;
/// Bit of the base registers: allocate in caches.
const ALLOCATE: u64 = 1 << 62;

/// Features that this driver uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Features {
    /// Stage 2 translation is supported.
    pub(crate) stage_2: bool,
    /// Number of bits of a StreamID.
    pub(crate) streams: u32,
    /// Maximum number of index bits for the command queue and the event queue.
    pub(crate) commands: u32,
    pub(crate) events: u32,
}

impl Features {
    pub(crate) fn read(registers: &Registers) -> Result<Self, SmmuError> {
        let [idr0, idr1, idr5] = [IDR0, IDR1, IDR5].map(|offset| registers.0.read32(offset));
        let needs = [
            (idr0 & 0b11 != 0, "a translation stage"),
            (idr0 >> 3 & 1 == 1, "AArch64 translation tables"),
            (idr0 >> 4 & 1 == 1, "coherent table walks"),
            (idr5 >> 4 & 1 == 1, "pages of 4 KiB"),
            (idr1 & 3 << 29 == 0, "tables that may lie anywhere"),
        ];
        match needs.iter().find(|(met, _)| !met) {
            Some((_, what)) => Err(SmmuError::Lacks(what)),
            None => Ok(Self {
                stage_2: idr0 & 1 == 1,
                streams: idr1 & 0x3f,
                commands: idr1 >> 21 & 0x1f,
                events: idr1 >> 16 & 0x1f,
            }),
        }
    }
}

type Frame = <Kernel as Platform>::Mmio;

/// The register frame. The SMMU has two pages of registers.
pub(crate) struct Registers(Frame);

impl Registers {
    pub(crate) fn new(frame: Frame) -> Self {
        Self(frame)
    }

    /// Disables everything. All accesses are aborted until translation is enabled.
    pub(crate) fn disable(&self) -> Result<(), SmmuError> {
        self.0.write32(GBPA, UPDATE | ABORT);
        wait_for("GBPA", || self.0.read32(GBPA) & UPDATE == 0)?;
        self.control(0)?;
        self.0.write32(IRQ_CTRL, 0);
        wait_for("IRQ_CTRL", || self.0.read32(IRQ_CTRLACK) == 0)
    }

    /// Sets the addresses of tables and queues, without enabling them.
    pub(crate) fn place_tables(&self, streams: &StreamTable, commands: &Ring, events: &Ring) {
        self.0.write32(CR1, CACHED);
        self.0.write32(CR2, RECINVSID);
        self.0.write64(STRTAB_BASE, streams.address() | ALLOCATE);
        self.0.write32(STRTAB_BASE_CFG, streams.bits);
        self.0.write64(CMDQ_BASE, commands.address() | u64::from(commands.bits) | ALLOCATE);
        self.0.write32(CMDQ_PROD, 0);
        self.0.write32(CMDQ_CONS, 0);
        self.0.write64(EVENTQ_BASE, events.address() | u64::from(events.bits) | ALLOCATE);
        self.0.write32(EVENTQ_PROD, 0);
        self.0.write32(EVENTQ_CONS, 0);
    }

    pub(crate) fn enable_commands(&self) -> Result<(), SmmuError> {
        self.control(CMDQEN)
    }

    /// Enables the event queue and its interrupt.
    pub(crate) fn enable_events(&self) -> Result<(), SmmuError> {
        self.control(CMDQEN | EVENTQEN)?;
        self.0.write32(IRQ_CTRL, EVENTQ_IRQEN);
        wait_for("IRQ_CTRL", || self.0.read32(IRQ_CTRLACK) == EVENTQ_IRQEN)
    }

    pub(crate) fn enable_translation(&self) -> Result<(), SmmuError> {
        self.control(CMDQEN | EVENTQEN | SMMUEN)
    }

    /// Posts commands up to an index.
    pub(crate) fn set_commands_end(&self, index: u32) {
        self.0.write32(CMDQ_PROD, index);
    }

    /// Returns the index up to which the SMMU has read commands, and its error code if it stopped
    /// there.
    pub(crate) fn commands_read(&self) -> (u32, u32) {
        let value = self.0.read32(CMDQ_CONS);
        (value & 0xf_ffff, value >> 24 & 0x7f)
    }

    /// Returns the index up to which the SMMU has written events.
    pub(crate) fn events_end(&self) -> u32 {
        self.0.read32(EVENTQ_PROD) & 0xf_ffff
    }

    /// Releases event records up to an index.
    pub(crate) fn set_events_read(&self, index: u32) {
        self.0.write32(EVENTQ_CONS, index);
    }

    fn control(&self, value: u32) -> Result<(), SmmuError> {
        self.0.write32(CR0, value);
        wait_for("CR0", || self.0.read32(CR0ACK) == value)
    }
}
