//! One wired interrupt (SGI, PPI, SPI): its whole state in one atomic word, so that every decision about it is made
//! on one consistent value, and the pure rules of that state (IHI 0069 §4.1).

use crate::atomic::{AtomicU64, Ordering::SeqCst};
use bitfield_struct::bitfield;
use gic_arch::Priority;
use msi_types::{Cpu, Level};

/// What the distributor or a redistributor knows of one interrupt.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub(crate) struct State {
    /// Pending by an edge, a message or software; cleared by acknowledging.
    pub(crate) latch: bool,
    /// The level of the input.
    pub(crate) line: bool,
    /// The level that messages drive (`GICD_SETSPI_NSR`) where the interrupt is level-sensitive.
    pub(crate) message: bool,
    /// Edge-triggered, else level-sensitive.
    pub(crate) edge: bool,
    pub(crate) enabled: bool,
    pub(crate) active: bool,
    /// Group 1; of two security states, the Non-secure one.
    pub(crate) group1: bool,
    /// Goes to any participating PE (`GICD_IROUTER.IRM`).
    pub(crate) any: bool,
    /// The priority as the hardware has it, whatever the view.
    pub(crate) priority_value: u8,
    /// The vCPU that it goes to, or [`NOWHERE`](State::NOWHERE).
    pub(crate) target_index: u16,
    __: u32,
}

impl State {
    /// The target of an interrupt whose route names no PE.
    pub(crate) const NOWHERE: u16 = u16::MAX;

    pub(crate) const fn priority(self) -> Priority {
        Priority::new(self.priority_value())
    }

    /// The vCPU that it goes to now.
    pub(crate) const fn target(self) -> Option<Cpu> {
        match self.target_index() {
            Self::NOWHERE => None,
            index => Some(Cpu::new(index as u32)),
        }
    }

    /// Pending, as `ISPENDR` reads it.
    pub(crate) const fn pending(self) -> bool {
        self.latch() || (!self.edge() && (self.line() || self.message()))
    }

    /// Pending and to be signalled as far as the interrupt's own state goes. Groups, masks and running priorities
    /// are the target's affair.
    pub(crate) const fn ready(self) -> bool {
        self.pending() && self.enabled() && !self.active()
    }

    /// Ready at this vCPU.
    pub(crate) fn ready_at(self, cpu: Cpu) -> bool {
        self.ready() && self.target() == Some(cpu)
    }

    /// The input changed, or was driven again.
    pub(crate) fn driven(self, level: Level) -> Self {
        let high = level == Level::High;
        let rising = high && !self.line();
        self.with_line(high).with_latch(self.latch() || (self.edge() && rising))
    }

    /// A message asks for it.
    pub(crate) const fn message_set(self) -> Self {
        if self.edge() { self.with_latch(true) } else { self.with_message(true) }
    }

    /// A message takes it back.
    pub(crate) const fn message_cleared(self) -> Self {
        self.with_latch(false).with_message(false)
    }

    /// A pulse on the input.
    pub(crate) const fn pulsed(self) -> Self {
        self.with_latch(self.latch() || self.edge())
    }

    /// A PE acknowledges it.
    pub(crate) const fn acknowledged(self) -> Self {
        self.with_latch(false).with_active(true)
    }
}

/// The word. Every write is a read-modify-write, so that each change is made on the value it was decided on and what
/// a device wrote before its signal is visible to whoever acknowledges it.
#[derive(Debug)]
pub(crate) struct Interrupt(AtomicU64);

impl Interrupt {
    pub(crate) const fn new(state: State) -> Self {
        Self(AtomicU64::new(state.into_bits()))
    }

    pub(crate) fn state(&self) -> State {
        State::from_bits(self.0.load(SeqCst))
    }

    /// Replaces the state by `change` of it: what it was and what it is. Writes even if nothing changes: the sender
    /// of a coalesced signal must not be overtaken by the acknowledgement.
    pub(crate) fn update(&self, change: impl Fn(State) -> State) -> (State, State) {
        let mut old = self.0.load(SeqCst);
        loop {
            let new = change(State::from_bits(old));
            match self.0.compare_exchange_weak(old, new.into_bits(), SeqCst, SeqCst) {
                Ok(_) => return (State::from_bits(old), new),
                Err(seen) => old = seen,
            }
        }
    }

    /// As [`update`](Self::update), unless `change` declines; `None` then.
    pub(crate) fn try_update(&self, change: impl Fn(State) -> Option<State>) -> Option<(State, State)> {
        let mut old = self.0.load(SeqCst);
        loop {
            let new = change(State::from_bits(old))?;
            match self.0.compare_exchange_weak(old, new.into_bits(), SeqCst, SeqCst) {
                Ok(_) => return Some((State::from_bits(old), new)),
                Err(seen) => old = seen,
            }
        }
    }
}
