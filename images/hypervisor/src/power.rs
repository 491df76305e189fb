//! vCPUs that are off and on.

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

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    /// On for its guest, and queued: how long a vCPU waits for a CPU is the scheduler's matter.
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

    /// Asks for a vCPU's start. Returns false if it is on already, else the caller kicks it.
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

    /// Is this vCPU on?
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
