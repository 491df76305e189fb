//! Test devices with various kinds of message stores, all updated through one code path.

use crate::fake::Board;
use msi_types::pci::msi::vector_data;
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, HwIrqBlock, MoveOutcome, MsiError, MsiMessage, MsiParent,
    RequesterId, Rewrite, Shape,
};
use std::num::NonZeroU16;
use std::sync::Mutex;

/// Kinds of message stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StoreKind {
    /// A maskable store: MSI-X, or MSI with mask bits.
    Masked,
    /// A store that accepts writes of 64 bits or more.
    Atomic64,
    /// An unmaskable MSI store that is written in 32-bit words.
    Words,
    /// A store whose message can't be changed.
    Fixed,
}

/// A device with one message for a single vector or a group.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) kind: StoreKind,
    pub(crate) block: HwIrqBlock,
    state: Mutex<EndpointState>,
}

#[derive(Debug)]
struct EndpointState {
    /// The message's low address word, high address word and data.
    words: [u32; 3],
    /// `true` while the device is masked; `waiting` lists the vectors that fired in this state.
    masked: bool,
    waiting: Vec<u16>,
    sent: Vec<u64>,
}

pub(crate) fn fit(kind: StoreKind) -> Fit {
    let rewrite = match kind {
        StoreKind::Masked => Rewrite::Masked,
        StoreKind::Atomic64 => Rewrite::Atomic64,
        StoreKind::Words => Rewrite::LowWordOnly,
        StoreKind::Fixed => Rewrite::Never,
    };
    Fit::new(rewrite)
}

pub(crate) fn request(fit: Fit, count: u16, cpu: u32) -> BlockRequest {
    let shape = if count == 1 { Shape::Independent } else { Shape::AlignedGroup };
    let count = NonZeroU16::new(count).unwrap();
    BlockRequest::new(count, fit, Cpu::new(cpu)).with_shape(shape)
}

pub(crate) fn attach(parent: &dyn MsiParent) -> Attachment {
    parent.attach(RequesterId::pci(1, 0, 0), 1).unwrap()
}

impl Endpoint {
    /// Creates a device: allocates its vectors and stores its message.
    pub(crate) fn new(
        parent: &dyn MsiParent,
        kind: StoreKind,
        count: u16,
        cpu: u32,
    ) -> Result<Self, MsiError> {
        let block = parent.allocate(&attach(parent), &request(fit(kind), count, cpu))?;
        let message = parent.compose(&block, 0)?;
        let words = [message.address_low(), message.address_high(), message.data];
        let state = EndpointState {
            words,
            masked: false,
            waiting: Vec::new(),
            sent: vec![0; count.into()],
        };
        Ok(Self { kind, block, state: Mutex::new(state) })
    }

    pub(crate) fn lpi(&self, index: u16) -> u32 {
        self.block.hwirq(index).unwrap().get()
    }

    /// Returns how many messages a vector sent.
    pub(crate) fn sent(&self, index: u16) -> u64 {
        self.state.lock().unwrap().sent[usize::from(index)]
    }

    /// Returns the stored message.
    pub(crate) fn message(&self) -> MsiMessage {
        self.state.lock().unwrap().message()
    }

    /// Makes the device send a vector's message.
    pub(crate) fn fire(&self, board: &Board, index: u16) {
        let mut state = self.state.lock().unwrap();
        state.sent[usize::from(index)] += 1;
        if state.masked {
            state.waiting.push(index);
        } else {
            state.send(board, index);
        }
    }

    /// Changes the affinity as an interrupt core would: begins the move, rewrites the message and
    /// ends the move. `between` is called at each point where the device could see a partially
    /// written message.
    pub(crate) fn relocate(
        &self,
        board: &Board,
        parent: &dyn MsiParent,
        index: u16,
        to: u32,
        between: &dyn Fn(),
    ) -> Result<NonZeroU16, MsiError> {
        let moved = parent.begin_move(&self.block, index, Cpu::new(to))?;
        between();
        let count = moved.count;
        if let Some(message) = moved.message {
            self.rewrite(board, message, between);
            assert_eq!(self.message(), message, "message read back");
        }
        between();
        parent.end_move(moved, MoveOutcome::Written)?;
        Ok(count)
    }

    /// Begins a move that fails: the store briefly holds the new message before it is rolled back.
    pub(crate) fn fail_to_relocate(
        &self,
        board: &Board,
        parent: &dyn MsiParent,
        to: u32,
        between: &dyn Fn(),
    ) -> Result<(), MsiError> {
        let moved = parent.begin_move(&self.block, 0, Cpu::new(to))?;
        if let Some(message) = moved.message {
            let old = self.message();
            self.rewrite(board, message, between);
            between();
            self.rewrite(board, old, between);
        }
        parent.end_move(moved, MoveOutcome::RolledBack)
    }

    fn rewrite(&self, board: &Board, message: MsiMessage, between: &dyn Fn()) {
        let [low, high, data] = [message.address_low(), message.address_high(), message.data];
        let set = |change: &dyn Fn(&mut EndpointState)| change(&mut self.state.lock().unwrap());
        match self.kind {
            StoreKind::Atomic64 => set(&|state| state.words[..2].copy_from_slice(&[low, high])),
            StoreKind::Fixed => {
                assert_eq!(self.message(), message, "a fixed store must not be changed");
            }
            StoreKind::Masked | StoreKind::Words => {
                if self.kind == StoreKind::Masked {
                    set(&|state| state.masked = true);
                }
                for (index, word) in [low, high, data].into_iter().enumerate() {
                    between();
                    set(&|state| state.words[index] = word);
                }
                set(&|state| {
                    state.masked = false;
                    for index in std::mem::take(&mut state.waiting) {
                        state.send(board, index);
                    }
                });
            }
        }
    }
}

impl EndpointState {
    fn message(&self) -> MsiMessage {
        let [low, high, data] = self.words;
        MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }

    fn send(&self, board: &Board, index: u16) {
        let MsiMessage { address, data } = self.message();
        let log2 = u8::try_from(self.sent.len().ilog2()).unwrap();
        board.world().write_message(MsiMessage { address, data: vector_data(data, log2, index) });
    }
}

/// Takes all of a CPU's pending LPIs and returns them in order.
pub(crate) fn taken(board: &Board, cpu: u32) -> Vec<u32> {
    let interface = board.interface(cpu);
    std::iter::from_fn(|| {
        let interrupt = interface.acknowledge()?;
        let lpi = interrupt.intid().get();
        interface.end(interrupt);
        Some(lpi)
    })
    .collect()
}
