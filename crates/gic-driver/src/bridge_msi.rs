//! MSI controllers inside PCI host bridges: DesignWare's iMSI-RX and MediaTek's. Such a bridge
//! takes the writes of its functions to one address, notes each vector in a status word of 32 bits,
//! and raises wired interrupts of the GIC, its *lines*.
//!
//! The controller is chained: the GIC acknowledges a line, whose handler calls
//! [`BridgeMsi::handle`] to find out which vectors arrived. This has consequences:
//!
//! - All vectors of a line have the line's target CPU, so a single vector cannot be moved; the core
//!   names the line, and the kernel may move that instead. Vectors cannot be
//!   [managed](msi_types::MsiParent::allocate_managed).
//! - Vectors have numbers of their own, from [`FIRST_VECTOR`] on, which no GIC acknowledges.
//! - The bridge takes the writes before an IOMMU translates them, so the address needs no mapping,
//!   but functions can no longer reach memory at this address.
//! - A message carries no DeviceID. Any function behind the bridge can make any of its vectors
//!   pending, so functions are not isolated from each other.
//!
//! A vector that is masked or disabled keeps its arrival: the driver acknowledges every status bit
//! that it reads, and notes those that are masked.
//!
//! `gic-bringup` creates the drivers that a description calls for and requests their lines.

mod arrivals;
mod layout;
mod msi_parent;

pub(crate) use arrivals::Block;
pub use layout::{BLOCK_VECTORS, BridgeKind};

use crate::block_allocator::BlockAllocator;
use crate::sync::{AtomicU32, SeqCst};
use crate::{BlockError, Mmio, PhysicalRegion, Platform};
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::lock::IrqLock;
use doorbell_fallible::try_collect;
use gic_arch::IntId;
use layout::Layout;
use msi_types::pci::MsiGate;
use msi_types::{HwIrq, MsiMessage, Pending, WiredParent};

/// Number of the first vector that controllers inside bridges may use. The architecture reserves
/// INTIDs 5120 to 8191 (IHI 0069H, table 2-1), so no GIC acknowledges them.
pub const FIRST_VECTOR: u32 = IntId::EXTENDED_SPI_BASE + IntId::EXTENDED_SPI_COUNT;

/// Maximum number of passes over the status words in one run of a line's handler.
const PASSES: usize = 8;

/// A controller inside a host bridge, as firmware describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BridgeMsiConfig {
    pub(crate) kind: BridgeKind,
    pub(crate) registers: u64,
    pub(crate) lines: Vec<HwIrq>,
    pub(crate) first: HwIrq,
    pub(crate) doorbell: u64,
    pub(crate) is_shared: bool,
    pub(crate) gate: Option<MsiGate>,
}

impl BridgeMsiConfig {
    /// Creates the configuration for a controller whose bridge has its registers at the physical
    /// address `registers`, and which raises `lines`, wired interrupts of the GIC.
    ///
    /// The controller's vectors have the numbers from [`FIRST_VECTOR`] on, and functions write to
    /// the address of the registers, where they have no memory to reach.
    pub const fn new(kind: BridgeKind, registers: u64, lines: Vec<HwIrq>) -> Self {
        let first = HwIrq::new(FIRST_VECTOR);
        let doorbell = kind.layout().doorbell(registers);
        Self { kind, registers, lines, first, doorbell, is_shared: false, gate: None }
    }

    msi_types::setters! {
        /// Sets the number of the controller's first vector, a multiple of [`BLOCK_VECTORS`]. The
        /// vectors of two controllers must differ.
        with_first: first: HwIrq,
        /// Sets the PCI address that the bridge takes for messages. It must not be one that
        /// functions need for memory, nor one inside the bridge's windows. MediaTek's bridges use
        /// the 128 bytes from this address on.
        with_doorbell: doorbell: u64,
        /// Selects whether all blocks of iMSI-RX raise its line, if it has only one.
        with_shared_line: is_shared: bool,
        /// Sets the bits that let messages interrupt, beside the controller's own registers. The
        /// driver sets them, and refuses a controller whose bits do not read as set.
        with_gate: gate: Option<MsiGate>,
    }

    /// Returns the PCI address that the bridge takes for messages.
    pub const fn doorbell(&self) -> u64 {
        self.doorbell
    }

    /// Returns the number of the controller's vectors.
    pub fn vectors(&self) -> u32 {
        BLOCK_VECTORS * self.kind.layout().blocks(self.lines.len(), self.is_shared)
    }
}

/// Error in firmware's description of a controller inside a bridge, or in setting it up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeMsiError {
    /// Firmware names no line, or more lines than a controller of this kind has blocks.
    #[error("{kind}@{registers:x}: firmware names {lines} lines, but the controller has 1 to 8")]
    Lines {
        /// Kind of the controller.
        kind: BridgeKind,
        /// Physical address of the registers.
        registers: u64,
        /// Number of lines.
        lines: usize,
    },
    /// The first vector's number is not a multiple of 32, or a vector's number is outside of the
    /// range that the architecture reserves.
    #[error("vectors from {0} on are not blocks of 32 between 5120 and 8191")]
    Vectors(HwIrq),
    /// The platform can't map the registers.
    #[error("{kind}@{registers:x}: the platform cannot map the registers")]
    NotMapped {
        /// Kind of the controller.
        kind: BridgeKind,
        /// Physical address of the registers.
        registers: u64,
    },
    /// Messages cannot interrupt: bits outside of the controller cannot be set.
    #[error("{gate} cannot be set, without which the host bridge raises no interrupt for messages")]
    Closed {
        /// The bits.
        gate: MsiGate,
    },
    /// The kernel's heap is exhausted.
    #[error("the kernel has no memory for the vectors of a host bridge")]
    NoMemory,
}

impl From<TryReserveError> for BridgeMsiError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl From<BlockError> for BridgeMsiError {
    fn from(_: BlockError) -> Self {
        Self::NoMemory
    }
}

/// A controller inside a host bridge, and the [`MsiParent`](msi_types::MsiParent) of the functions
/// behind that bridge. Shared in an [`Arc`]; locking is internal. See the [module](self).
pub struct BridgeMsi<P: Platform> {
    platform: Arc<P>,
    wired: Arc<dyn WiredParent>,
    config: BridgeMsiConfig,
    frame: P::Mmio,
    gate: Option<Gate<P::Mmio>>,
    blocks: Vec<StatusWord>,
    /// Blocks that may raise the line without a bit in the summary, bit n for block n.
    left: AtomicU32,
    state: IrqLock<State>,
}

/// A block's status word, and software's view of it.
struct StatusWord {
    block: Block,
    /// Offset of the register.
    register: u32,
    /// The vector of bit 0.
    first: HwIrq,
}

struct State {
    allocator: BlockAllocator,
    /// Allocated vectors of each block, as in its enable register.
    enabled: Vec<u32>,
}

/// A vector of the controller.
#[derive(Clone, Copy)]
struct Place<'a> {
    block: &'a Block,
    number: u32,
    bit: u32,
}

impl<P: Platform> BridgeMsi<P> {
    /// Takes over a controller, with all vectors disabled. The caller must then request each of the
    /// [lines](Self::lines) with a handler that calls [`handle`](Self::handle).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any [`BridgeMsiError`].
    pub fn new(
        platform: Arc<P>,
        wired: Arc<dyn WiredParent>,
        config: BridgeMsiConfig,
    ) -> Result<Self, BridgeMsiError> {
        let BridgeMsiConfig { kind, registers, first, .. } = config;
        let (layout, lines) = (kind.layout(), config.lines.len());
        if lines == 0 || lines > layout.most_lines() {
            return Err(BridgeMsiError::Lines { kind, registers, lines });
        }
        let count = config.vectors();
        let end = first.get().checked_add(count).filter(|end| *end <= IntId::LPI_BASE);
        if end.is_none() || first.get() < FIRST_VECTOR || !first.get().is_multiple_of(BLOCK_VECTORS)
        {
            return Err(BridgeMsiError::Vectors(first));
        }
        let region = PhysicalRegion { base: registers, bytes: layout::BYTES };
        let frame = platform.map(region).ok_or(BridgeMsiError::NotMapped { kind, registers })?;
        let gate = config.gate.map(|gate| Gate::new(gate, &*platform));
        let numbers = 0..layout.blocks(lines, config.is_shared);
        let blocks = try_collect(numbers.clone().map(|number| StatusWord {
            block: Block::default(),
            register: layout.status(number),
            first: HwIrq::new(first.get() + number * BLOCK_VECTORS),
        }))?;
        let enabled = try_collect(numbers.map(|_| 0))?;
        let allocator = BlockAllocator::new(first.get(), count)?;
        let state = IrqLock::new(State { allocator, enabled });
        let left = AtomicU32::default();
        let new = Self { platform, wired, config, frame, gate, blocks, left, state };
        new.restore();
        match new.closed_gate() {
            None => Ok(new),
            Some(gate) => Err(BridgeMsiError::Closed { gate }),
        }
    }

    /// Notes the messages that have arrived, before the bridge loses its power and with it the
    /// status words. They are dispatched after [`restore`](Self::restore), which must follow.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn suspend(&self) {
        self.state.with(&*self.platform, |state| self.note_arrivals(state));
    }

    /// Writes all registers again, whether or not the bridge lost its power. Raises the lines of
    /// vectors that [`suspend`](Self::suspend) noted.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn restore(&self) {
        let (layout, frame) = (self.layout(), &self.frame);
        self.state.with(&*self.platform, |state| {
            for ((number, StatusWord { block, .. }), enabled) in
                (0..).zip(&self.blocks).zip(&state.enabled)
            {
                layout.set_address(frame, number, self.config.doorbell);
                if let Some(mask) = layout.mask(number) {
                    frame.write32(mask, block.masked_vectors());
                }
                frame.write32(layout.enable(number), *enabled);
            }
            // A bit that is cleared after its block was read may belong to a later message.
            layout.clear(frame, layout::ALL_BLOCKS);
            self.note_arrivals(state);
            // A message that arrived before its block was acknowledged does not set the bit again.
            self.left.store(layout::ALL_BLOCKS, SeqCst);
            layout.turn_on(frame);
        });
        self.open();
        for (number, StatusWord { block, .. }) in (0..).zip(&self.blocks) {
            if block.is_noted(!block.masked_vectors())
                && let Some(line) = self.lines().get(self.line_index(number))
            {
                // The vectors may be masked before the line's handler runs.
                block.excuse();
                self.wired.set_pending(*line, Pending::Set);
            }
        }
    }

    /// Opens the [gate](BridgeMsiConfig::with_gate) again. A kernel that enumerates a bus clears
    /// MSI Enable of its root port.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    pub fn open(&self) {
        self.state.with(&*self.platform, |_| {
            self.gate.iter().for_each(|gate| gate.open(&self.frame));
        });
    }

    /// Returns the gate if it is closed: no message interrupts.
    pub(crate) fn closed_gate(&self) -> Option<MsiGate> {
        let closed = self.gate.as_ref().filter(|gate| !gate.is_open(&self.frame));
        closed.map(|gate| gate.gate)
    }

    /// Moves arrivals from the status words to the notes. Bits of vectors that are not enabled are
    /// stale ones of an earlier driver, and are dropped.
    fn note_arrivals(&self, state: &State) {
        for (word, enabled) in self.blocks.iter().zip(&state.enabled) {
            let arrived = self.frame.read32(word.register);
            self.frame.write32(word.register, arrived);
            let _ = word.block.note(arrived & enabled);
        }
    }

    /// Returns the wired interrupts that the controller raises, in the order of its blocks.
    pub fn lines(&self) -> &[HwIrq] {
        &self.config.lines
    }

    /// Returns the controller's first vector.
    pub fn first(&self) -> HwIrq {
        self.config.first
    }

    /// Returns the kind of the controller.
    pub fn kind(&self) -> BridgeKind {
        self.config.kind
    }

    /// Returns the number of the controller's vectors.
    pub fn vectors(&self) -> u32 {
        self.config.vectors()
    }

    /// Acknowledges the vectors that arrived at the line with this index, and calls `arrived` for
    /// each. Returns `true` if there was one, or if the line may have interrupted for one that was
    /// dropped or taken before. Acquires no lock and allocates nothing.
    ///
    /// Continues until the line was low: firmware may describe it as edge-triggered, and then a
    /// message that arrived meanwhile would not raise it again. A device that keeps it high does
    /// not keep the CPU: after some passes, the line is made pending instead.
    ///
    /// Context: hard IRQ.
    #[inline]
    pub fn handle(&self, line: usize, mut arrived: impl FnMut(HwIrq)) -> bool {
        let word = self.blocks.get(line).filter(|_| self.has_line_per_block());
        let Some(word) = word else { return self.drain(line, false, &mut arrived) };
        let (found, is_high) = self.serve(word, true, &mut arrived);
        if is_high {
            return self.drain(line, found, &mut arrived);
        }
        found || self.is_excused(line)
    }

    /// Acknowledges and dispatches the vectors of a line's blocks until the line is low. `found`
    /// says whether the run has already found one.
    #[inline(never)]
    fn drain(&self, line: usize, mut found: bool, arrived: &mut dyn FnMut(HwIrq)) -> bool {
        let (layout, frame) = (self.layout(), &self.frame);
        let blocks = self.blocks_of(line);
        let raising = layout.raising(frame).filter(|blocks| *blocks != 0);
        // A bit of the summary may outlive the message that set it, or be cleared before the last
        // message of its block is read.
        found |= raising.is_some();
        let mut due = raising.unwrap_or(layout::ALL_BLOCKS) | self.take_left();
        for _ in 0..PASSES {
            let (mut left, mut took_any) = (0, false);
            layout.clear(frame, due);
            for (bit, word) in (0..).zip(blocks) {
                let is_due = due & 1 << bit != 0;
                let (took, is_high) = self.serve(word, is_due, &mut *arrived);
                left |= u32::from(is_high) << bit;
                took_any |= took;
            }
            found |= took_any;
            // The line is low only at a time at which no block raises it. A message whose block was
            // not empty in between may not set the summary again.
            due = match layout.raising(frame) {
                Some(raising) => raising | left,
                // A block may have raised the line after it was read, and before another one fell.
                None if took_any && blocks.len() > 1 => layout::ALL_BLOCKS,
                None => left,
            };
            if due == 0 {
                return found || self.is_excused(line);
            }
        }
        if let Some((line, word)) = self.lines().get(line).zip(blocks.first()) {
            // The last pass may have found the last message.
            word.block.excuse();
            self.left.store(due, SeqCst);
            self.wired.set_pending(*line, Pending::Set);
        }
        found
    }

    /// Returns the blocks that were left. The line's handler runs on one CPU at a time.
    #[inline]
    fn take_left(&self) -> u32 {
        let left = self.left.load(SeqCst);
        if left != 0 {
            self.left.store(0, SeqCst);
        }
        left
    }

    /// Acknowledges and dispatches a block's vectors: those in its status word, if it is due, and
    /// those that were noted. Returns whether there was one, and whether the status word had
    /// another one when it was acknowledged.
    #[inline]
    fn serve(
        &self,
        &StatusWord { ref block, register, first }: &StatusWord,
        is_due: bool,
        mut arrived: impl FnMut(HwIrq),
    ) -> (bool, bool) {
        let (status, is_high) =
            if is_due { acknowledge(&self.frame, register) } else { Default::default() };
        let vectors = block.take(status);
        let mut left = vectors;
        while left != 0 {
            arrived(HwIrq::new(first.get() + left.trailing_zeros()));
            left &= left - 1;
        }
        (vectors != 0, is_high)
    }

    /// Returns the blocks that raise the line with this index.
    fn blocks_of(&self, line: usize) -> &[StatusWord] {
        if self.has_line_per_block() {
            self.blocks.get(line..=line).unwrap_or_default()
        } else {
            &self.blocks
        }
    }

    /// Returns `true` if an empty run of the line's handler is excused.
    #[cold]
    fn is_excused(&self, line: usize) -> bool {
        self.blocks_of(line).iter().any(|word| word.block.is_excused())
    }

    #[inline]
    fn layout(&self) -> &'static Layout {
        self.config.kind.layout()
    }

    fn place(&self, hwirq: HwIrq) -> Option<Place<'_>> {
        let index = hwirq.get().checked_sub(self.config.first.get())?;
        let number = index / BLOCK_VECTORS;
        let StatusWord { block, .. } = self.blocks.get(usize::try_from(number).ok()?)?;
        Some(Place { block, number, bit: 1 << (index % BLOCK_VECTORS) })
    }

    /// Returns `true` if each block raises a line of its own.
    #[inline]
    fn has_line_per_block(&self) -> bool {
        self.blocks.len() == self.config.lines.len()
    }

    /// Returns the index of the line that a block raises.
    fn line_index(&self, block: u32) -> usize {
        if self.has_line_per_block() { block as usize } else { 0 }
    }

    /// Returns the line that signals a vector.
    fn line_of(&self, place: Place<'_>) -> HwIrq {
        let line = self.line_index(place.number);
        self.lines().get(line).copied().unwrap_or_default()
    }

    /// Makes a vector's line pending. The line's handler may already have taken the arrival, so one
    /// run that finds nothing is excused.
    fn raise_line(&self, place: Place<'_>) {
        place.block.excuse();
        self.wired.set_pending(self.line_of(place), Pending::Set);
    }

    fn message(&self, hwirq: HwIrq) -> Option<MsiMessage> {
        let index = hwirq.get().checked_sub(self.config.first.get())?;
        Some(self.layout().message(self.config.doorbell, index))
    }

    fn set_mask(&self, place: Place<'_>, is_masked: bool) {
        let Place { block, number, bit } = place;
        self.state.with(&*self.platform, |_| {
            let masked = if is_masked { block.mask(bit) } else { block.unmask(bit) };
            if let Some(mask) = self.layout().mask(number) {
                self.frame.write32(mask, masked);
            }
        });
        // Where a status bit alone does not raise the line, neither does its unmasking.
        if !is_masked && self.is_waiting(place) {
            self.raise_line(place);
        }
    }

    fn set_enabled(&self, Place { number, bit, .. }: Place<'_>, is_enabled: bool) {
        self.state.with(&*self.platform, |state| {
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            let Some(enabled) = state.enabled.get_mut(index) else { return };
            *enabled = if is_enabled { *enabled | bit } else { *enabled & !bit };
            self.frame.write32(self.layout().enable(number), *enabled);
        });
    }

    fn is_enabled(&self, Place { number, bit, .. }: Place<'_>) -> bool {
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        self.state.with(&*self.platform, |state| {
            state.enabled.get(index).is_some_and(|enabled| enabled & bit != 0)
        })
    }

    fn reads(&self, register: u32, bit: u32) -> bool {
        self.frame.read32(register) & bit != 0
    }

    fn is_waiting(&self, Place { block, number, bit }: Place<'_>) -> bool {
        block.is_noted(bit) || self.reads(self.layout().status(number), bit)
    }

    /// Drops an arrival that has not been dispatched.
    fn forget(&self, Place { block, number, bit }: Place<'_>) {
        block.forget(bit);
        let status = self.layout().status(number);
        let stale = self.frame.read32(status) & bit;
        if stale != 0 {
            self.frame.write32(status, stale);
        }
    }
}

/// Acknowledges the vectors in a status word. Returns them, and whether there was another one
/// afterwards.
#[inline(never)]
fn acknowledge(frame: &impl Mmio, register: u32) -> (u32, bool) {
    let status = frame.read32(register);
    if status == 0 {
        return (0, false);
    }
    frame.write32(register, status);
    // The read returns after the write took effect. A message that arrives while its vector's
    // handler runs must find the bit clear, or it would be lost.
    let is_high = frame.read32(register) != 0;
    frame.read_barrier();
    (status, is_high)
}

msi_types::debug_by!([P: Platform] BridgeMsi<P> as "BridgeMsi", |it| {config: it.config});

/// Size of the page that is mapped for a register.
const PAGE: u64 = 0x1000;
/// Offset of the pointer to a function's first capability.
const CAPABILITIES: u32 = 0x34;
/// Offset of the first possible capability.
const FIRST: u32 = 0x40;
/// Maximum number of capabilities in the 192 bytes that remain.
const MOST: usize = 48;
/// Identifier of the MSI capability.
const MSI: u32 = 0x05;
/// MSI Enable in the first word of the capability.
const ENABLE: u32 = 1 << 16;

/// A gate, and the page of its register if that is outside of the controller's registers.
struct Gate<M> {
    gate: MsiGate,
    page: Option<M>,
}

impl<M: Mmio> Gate<M> {
    fn new(gate: MsiGate, platform: &impl Platform<Mmio = M>) -> Self {
        let page = match gate {
            MsiGate::RootPort => None,
            MsiGate::Register { address, .. } => {
                platform.map(PhysicalRegion { base: address / PAGE * PAGE, bytes: PAGE })
            }
        };
        Self { gate, page }
    }

    /// Opens the gate of the controller whose registers are `frame`, if its register can be found.
    fn open(&self, frame: &M) {
        if let Some((registers, register, bits)) = self.register(frame) {
            registers.write32(register, registers.read32(register) | bits);
        }
    }

    fn is_open(&self, frame: &M) -> bool {
        let is_set =
            |(registers, register, bits): (&M, _, _)| registers.read32(register) & bits == bits;
        self.register(frame).is_some_and(is_set)
    }

    fn register<'m>(&'m self, frame: &'m M) -> Option<(&'m M, u32, u32)> {
        match self.gate {
            MsiGate::RootPort => Some((frame, msi_capability(frame)?, ENABLE)),
            MsiGate::Register { address, bits } => {
                Some((self.page.as_ref()?, u32::try_from(address % PAGE).ok()?, bits))
            }
        }
    }
}

/// Returns the offset of the MSI capability in the root port's configuration space, with which the
/// registers begin.
fn msi_capability(frame: &impl Mmio) -> Option<u32> {
    let next = |at: &u32| (*at >= FIRST).then(|| frame.read32(*at) >> 8 & 0xfc);
    let first = frame.read32(CAPABILITIES) & 0xfc;
    let mut places = core::iter::successors(Some(first), next).take(MOST);
    places.find(|at| *at >= FIRST && frame.read32(*at) & 0xff == MSI)
}
