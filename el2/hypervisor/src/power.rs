//! Power states of a guest's vCPUs, and the end of its machine.

use alloc::boxed::Box;
use image_rt::lock::IrqMutex;
use msi_types::Cpu;

/// The beginning of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Start {
    /// Guest physical address of its first instruction.
    pub(crate) entry: u64,
    /// x0.
    pub(crate) argument: u64,
}

/// End of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// SYSTEM_OFF.
    Off,
    /// SYSTEM_RESET.
    Reset,
    /// No call: an SError, which no device that the guest reaches should cause.
    SystemError,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    /// On as its guest sees it, and queued: the scheduler decides how long a vCPU waits for a CPU.
    Requested(Start),
    On,
}

/// The power of a guest's vCPUs.
#[derive(Debug)]
pub(crate) struct Power(Box<[IrqMutex<State>]>);

impl Power {
    /// All are off.
    pub(crate) fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| IrqMutex::new(State::Off)).collect())
    }

    /// Requests the start of a vCPU. Returns false if it is on already; otherwise the caller must
    /// kick it.
    pub(crate) fn request(&self, cpu: Cpu, start: Start) -> bool {
        let Some(state) = self.0.get(cpu.index()) else { return false };
        state.with(|state| {
            let is_off = matches!(state, State::Off);
            if is_off {
                *state = State::Requested(start);
            }
            is_off
        })
    }

    /// Returns true if this vCPU is on.
    pub(crate) fn is_on(&self, cpu: Cpu) -> bool {
        let state = self.0.get(cpu.index());
        state.is_some_and(|state| state.with(|state| !matches!(state, State::Off)))
    }

    /// Turns a vCPU on, if that was asked for.
    pub(crate) fn take_request(&self, cpu: Cpu) -> Option<Start> {
        self.0.get(cpu.index())?.with(|state| match *state {
            State::Requested(start) => {
                *state = State::On;
                Some(start)
            }
            State::Off | State::On => None,
        })
    }

    /// A vCPU is off.
    pub(crate) fn turn_off(&self, cpu: Cpu) {
        if let Some(state) = self.0.get(cpu.index()) {
            state.with(|state| *state = State::Off);
        }
    }
}
