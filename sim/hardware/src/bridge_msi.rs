//! MSI controllers inside host bridges, as strict as hardware may be: DesignWare's iMSI-RX and
//! MediaTek's of the third generation.
//!
//! - A written 1 clears a status bit; no write sets one.
//! - A message is lost if its vector is not enabled, if its data names no vector, or if it goes to
//!   another address.
//! - A masked vector keeps its status, and raises the line when it is unmasked.
//! - A line is a level: it is high while one of its blocks has a status bit that is enabled and not
//!   masked.
//! - While the [gate](MsiGate) is closed, as after each loss of power, a root port loses messages,
//!   and a register keeps the line low.
//! - Registers are 32 bits wide. Other accesses, and accesses to other registers, are counted as
//!   mistakes of the driver.
//!
//! iMSI-RX has the registers of the i.MX 8M Plus Reference Manual ("PCIe port logic"). QEMU's model
//! of it (`hw/pci-host/designware.c`) is more lenient: it has one block, a write to a status
//! register inverts bits, and unmasking raises nothing. No other model of MediaTek's controller
//! exists, and no public document states whether its hardware loses the messages of vectors that
//! are not enabled, or how its [`Summary`] behaves.

use crate::bus::{AccessWidth, MmioDevice};
use crate::lock::lock;
use msi_types::pci::MsiGate;
use msi_types::{Delivery, Level, Line, MsiMessage, RequesterId, SetLine, SignalMsi};
use std::sync::{Arc, Mutex};

/// Number of blocks, each of which has 32 vectors.
const BLOCKS: usize = 8;
/// Offset of the pointer to the root port's first capability.
const POINTER: u64 = 0x34;
/// Offset of the first capability, for power management.
const POWER: u64 = 0x40;
/// Offset of the MSI capability.
const MSI: u64 = 0x50;
/// MSI Enable, in the upper half of the capability's first word.
const ENABLE: u32 = 1 << 16;

/// The kind of a controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BridgeMsiKind {
    /// iMSI-RX: the data's bits 5 to 7 select the block.
    ImsiRx,
    /// MediaTek's: each block has an address of its own, and its vectors raise the line through a
    /// summary.
    MediatekGen3,
}

/// The behavior of the bits of `PCIE_INT_STATUS_REG`, which show the blocks that raise the line of
/// MediaTek's controller. Linux clears a bit after it has handled the block; no public document
/// states why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Summary {
    /// A bit is set when its block begins to raise the line, until software clears it.
    #[default]
    LatchesEdges,
    /// A bit is set while its block raises the line, and then until software clears it.
    LatchesLevels,
    /// A bit is set while its block raises the line. Clearing has no effect.
    Follows,
}

impl Summary {
    /// All behaviors that are compatible with Linux's driver.
    pub const ALL: [Self; 3] = [Self::LatchesEdges, Self::LatchesLevels, Self::Follows];
}

/// A controller inside a host bridge, with its registers and its lines.
pub struct BridgeMsi {
    kind: BridgeMsiKind,
    summary: Summary,
    gate: Option<MsiGate>,
    lines: Vec<Line>,
    wires: Arc<dyn SetLine>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    blocks: [Block; BLOCKS],
    /// The blocks that capture messages, and those that may raise the line. iMSI-RX has no such
    /// registers.
    capturing: u32,
    summarized: u32,
    /// The blocks that raise their lines, and the summary of them.
    raising: u32,
    summary: u32,
    /// The register with the gate.
    gate: u32,
    lost: u64,
    mistakes: u64,
}

#[derive(Clone, Copy, Default)]
struct Block {
    address: u64,
    status: u32,
    enable: u32,
    mask: u32,
}

/// A register of a block.
#[derive(Clone, Copy)]
enum Field {
    AddressLow,
    AddressHigh,
    Status,
    Enable,
    Mask,
}

#[derive(Clone, Copy)]
enum Register {
    Block(usize, Field),
    /// The blocks that may raise the line, from bit 8 on.
    SummaryEnable,
    /// The blocks that raise the line, from bit 8 on.
    Summary,
    /// The blocks that capture messages, from bit 0 on.
    Capture,
}

impl BridgeMsiKind {
    fn register(self, offset: u64) -> Option<Register> {
        let at = |base: u64, distance: u64| {
            let block = usize::try_from(offset.checked_sub(base)? / distance).ok()?;
            let within = (offset - base) % distance;
            (block < BLOCKS).then_some((block, within))
        };
        match (self, offset) {
            (Self::ImsiRx, 0x820) => Some(Register::Block(0, Field::AddressLow)),
            (Self::ImsiRx, 0x824) => Some(Register::Block(0, Field::AddressHigh)),
            (Self::ImsiRx, _) => match at(0x828, 12)? {
                (block, 0) => Some(Register::Block(block, Field::Enable)),
                (block, 4) => Some(Register::Block(block, Field::Mask)),
                (block, 8) => Some(Register::Block(block, Field::Status)),
                _ => None,
            },
            (Self::MediatekGen3, 0x180) => Some(Register::SummaryEnable),
            (Self::MediatekGen3, 0x184) => Some(Register::Summary),
            (Self::MediatekGen3, 0x190) => Some(Register::Capture),
            (Self::MediatekGen3, 0xc80..) => match at(0xc80, 4)? {
                (block, 0) => Some(Register::Block(block, Field::AddressHigh)),
                _ => None,
            },
            (Self::MediatekGen3, _) => match at(0xc00, 0x10)? {
                (block, 0) => Some(Register::Block(block, Field::AddressLow)),
                (block, 4) => Some(Register::Block(block, Field::Status)),
                (block, 8) => Some(Register::Block(block, Field::Enable)),
                _ => None,
            },
        }
    }
}

impl Block {
    fn raises(&self) -> bool {
        self.status & self.enable & !self.mask != 0
    }
}

impl State {
    /// Returns the block and the bit of the vector that a message makes pending.
    fn vector(&self, kind: BridgeMsiKind, message: MsiMessage) -> Option<(usize, u32)> {
        let data = usize::try_from(message.data).ok()?;
        let block = match kind {
            BridgeMsiKind::ImsiRx => data / 32,
            BridgeMsiKind::MediatekGen3 if data < 32 => {
                self.blocks.iter().position(|block| block.address == message.address)?
            }
            BridgeMsiKind::MediatekGen3 => return None,
        };
        let bit = 1 << (data % 32);
        let captures = kind == BridgeMsiKind::ImsiRx || self.capturing & 1 << block != 0;
        (captures && self.blocks.get(block)?.enable & bit != 0).then_some((block, bit))
    }

    fn takes(&self, kind: BridgeMsiKind, address: u64) -> bool {
        match kind {
            BridgeMsiKind::ImsiRx => {
                let [first, ..] = &self.blocks;
                first.address == address && self.blocks.iter().any(|block| block.enable != 0)
            }
            BridgeMsiKind::MediatekGen3 => {
                let capturing =
                    (0..).zip(&self.blocks).filter(|(block, _)| self.capturing & 1 << block != 0);
                capturing.into_iter().any(|(_, block)| block.address == address)
            }
        }
    }

    /// Returns the blocks with a vector that raises the line, from bit 0 on.
    fn raising(&self) -> u32 {
        let raising = (0..).zip(&self.blocks).filter(|(_, block)| block.raises());
        raising.fold(0, |blocks, (number, _)| blocks | 1_u32 << number)
    }
}

impl BridgeMsi {
    /// Creates a controller that raises `lines` of `wires`. Block n raises line n, and the last
    /// line if it has fewer lines.
    pub fn new(kind: BridgeMsiKind, lines: Vec<Line>, wires: Arc<dyn SetLine>) -> Self {
        let (state, summary, gate) = Default::default();
        Self { kind, summary, gate, lines, wires, state }
    }

    /// Sets what software must open before messages interrupt.
    #[must_use]
    pub fn with_gate(self, gate: Option<MsiGate>) -> Self {
        Self { gate, ..self }
    }

    /// Sets the behavior of the summary.
    #[must_use]
    pub fn with_summary(self, summary: Summary) -> Self {
        Self { summary, ..self }
    }

    /// Returns the number of messages that were lost at the controller.
    pub fn lost(&self) -> u64 {
        lock(&self.state).lost
    }

    /// Returns the number of accesses that no driver should make.
    pub fn mistakes(&self) -> u64 {
        lock(&self.state).mistakes
    }

    /// Loses the contents of all registers.
    pub fn lose_power(&self) {
        let state = &mut *lock(&self.state);
        *state = State { lost: state.lost, mistakes: state.mistakes, ..State::default() };
        self.drive(state);
    }

    /// Takes a message from a function behind the bridge. Returns `None` if the message is for
    /// another address.
    pub fn take(&self, message: MsiMessage) -> Option<Delivery> {
        let state = &mut *lock(&self.state);
        if !state.takes(self.kind, message.address) {
            return None;
        }
        let is_lost = self.gate == Some(MsiGate::RootPort) && !is_gate_open(self.gate, state.gate);
        let Some((block, bit)) = state.vector(self.kind, message).filter(|_| !is_lost) else {
            state.lost += 1;
            return Some(Delivery::Blocked);
        };
        if let Some(block) = state.blocks.get_mut(block) {
            block.status |= bit;
        }
        self.drive(state);
        Some(Delivery::Pending)
    }

    /// Drives all lines to the levels of their blocks.
    fn drive(&self, state: &mut State) {
        let raising = state.raising();
        let before = core::mem::replace(&mut state.raising, raising);
        state.summary = match self.summary {
            Summary::LatchesEdges => state.summary | state.raising & !before,
            Summary::LatchesLevels => state.summary | state.raising,
            Summary::Follows => state.raising,
        };
        let raising = match self.kind {
            BridgeMsiKind::ImsiRx => state.raising,
            BridgeMsiKind::MediatekGen3 => state.summary & state.summarized,
        };
        let raising = if is_gate_open(self.gate, state.gate) { raising } else { 0 };
        let last = self.lines.len().saturating_sub(1);
        for (number, line) in self.lines.iter().enumerate() {
            let blocks = if number == last { u32::MAX << number } else { 1 << number };
            let level = if raising & blocks == 0 { Level::Low } else { Level::High };
            self.wires.set_line(*line, level);
        }
    }
}

impl MmioDevice for BridgeMsi {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        let state = &mut *lock(&self.state);
        let root_port = read_root_port(self.gate, state.gate, offset);
        if let Some(value) = root_port.filter(|_| width == AccessWidth::Word) {
            return value.into();
        }
        let register = self.kind.register(offset).filter(|_| width == AccessWidth::Word);
        let Some(register) = register else {
            state.mistakes += 1;
            return width.mask();
        };
        match register {
            Register::Block(number, field) => {
                let block = state.blocks.get(number).copied().unwrap_or_default();
                match field {
                    Field::AddressLow => block.address & 0xffff_ffff,
                    Field::AddressHigh => block.address >> 32,
                    Field::Status => block.status.into(),
                    Field::Enable => block.enable.into(),
                    Field::Mask => block.mask.into(),
                }
            }
            Register::SummaryEnable => u64::from(state.summarized) << 8,
            Register::Summary => u64::from(state.summary) << 8,
            Register::Capture => state.capturing.into(),
        }
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let state = &mut *lock(&self.state);
        if self.gate == Some(MsiGate::RootPort) && offset == MSI {
            state.gate = u32::try_from(value).unwrap_or(0);
            return;
        }
        let register = self.kind.register(offset).filter(|_| width == AccessWidth::Word);
        let Some((register, value)) = register.zip(u32::try_from(value).ok()) else {
            state.mistakes += 1;
            return;
        };
        let wide = u64::from(value);
        match register {
            Register::SummaryEnable => state.summarized = value >> 8 & 0xff,
            Register::Summary => state.summary &= !(value >> 8),
            Register::Capture => state.capturing = value & 0xff,
            Register::Block(number, field) => {
                let Some(block) = state.blocks.get_mut(number) else { return };
                match field {
                    Field::AddressLow => block.address = block.address >> 32 << 32 | wide,
                    Field::AddressHigh => {
                        block.address = block.address & 0xffff_ffff | wide << 32;
                    }
                    Field::Status => block.status &= !value,
                    Field::Enable => block.enable = value,
                    Field::Mask => block.mask = value,
                }
            }
        }
        self.drive(state);
    }
}

msi_types::debug_by!(BridgeMsi as "BridgeMsi", |it| {kind: it.kind});

/// Returns `true` if the register with the gate has this value once software has opened the gate.
fn is_gate_open(gate: Option<MsiGate>, value: u32) -> bool {
    let bits = match gate {
        None => 0,
        Some(MsiGate::RootPort) => ENABLE,
        Some(MsiGate::Register { bits, .. }) => bits,
    };
    value & bits == bits
}

/// Reads a register of the root port that a driver needs to find the gate, whose register has this
/// value.
fn read_root_port(gate: Option<MsiGate>, value: u32, offset: u64) -> Option<u32> {
    match offset {
        _ if gate != Some(MsiGate::RootPort) => None,
        POINTER => Some(0x40),
        POWER => Some(0x5001),
        MSI => Some(0x05 | value & ENABLE),
        _ => None,
    }
}

/// The path of messages from the functions behind a bridge: first to the controller inside the
/// bridge, then to the bus beyond.
pub struct InBridge {
    controller: Arc<BridgeMsi>,
    beyond: Arc<dyn SignalMsi<RequesterId>>,
}

impl InBridge {
    /// Creates the path through `controller`. Writes to other addresses go `beyond`.
    pub fn new(controller: Arc<BridgeMsi>, beyond: Arc<dyn SignalMsi<RequesterId>>) -> Self {
        Self { controller, beyond }
    }
}

impl SignalMsi<RequesterId> for InBridge {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        let taken = self.controller.take(message);
        taken.unwrap_or_else(|| self.beyond.signal_msi(from, message))
    }
}

msi_types::debug_by!(InBridge as "InBridge", |it| {controller: it.controller});

/// The page with the register that is the gate of a controller.
pub struct GlueRegister(pub Arc<BridgeMsi>);

impl GlueRegister {
    fn is_gate(&self, offset: u64) -> bool {
        matches!(self.0.gate, Some(MsiGate::Register { address, .. }) if address % 0x1000 == offset)
    }
}

impl MmioDevice for GlueRegister {
    fn read(&self, offset: u64, _: AccessWidth) -> u64 {
        if self.is_gate(offset) { lock(&self.0.state).gate.into() } else { 0 }
    }

    fn write(&self, offset: u64, _: AccessWidth, value: u64) {
        let state = &mut *lock(&self.0.state);
        if self.is_gate(offset) {
            state.gate = u32::try_from(value).unwrap_or(0);
            self.0.drive(state);
        }
    }
}

msi_types::debug_by!(GlueRegister as "GlueRegister", |it| {controller: it.0});
