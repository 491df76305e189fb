//! Turns a guest's vCPUs on and off, and ends its machine.

use alloc::boxed::Box;
use el2_cpu::Start;
use image_rt::lock::IrqMutex;
use msi_types::Cpu;

/// Reason why a machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// The guest called SYSTEM_OFF.
    Off,
    /// The guest called SYSTEM_RESET.
    Reset,
    /// An SError occurred. No device that the guest can access should raise an SError.
    SystemError,
}

/// Next step of a vCPU after an exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// The guest continues.
    Resume,
    /// The vCPU waits for an interrupt first.
    Wait,
    /// The vCPU is turned off, and then starts if stated.
    Off(Option<Start>),
    /// The machine ends.
    End(End),
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
    /// The vCPU is on from the guest's perspective, and has been queued. The scheduler decides how
    /// long a vCPU waits for a CPU.
    Requested(Start),
    On,
}

/// Power states of a guest's vCPUs.
#[derive(Debug)]
pub(crate) struct Power(Box<[IrqMutex<State>]>);

impl Power {
    /// Creates the states of vCPUs that are all off.
    pub(crate) fn new(cpus: usize) -> Self {
        Self((0..cpus).map(|_| IrqMutex::new(State::Off)).collect())
    }

    /// Requests the start of a vCPU. Returns `false` if the vCPU is already on; otherwise the
    /// caller must kick it.
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

    /// Returns `true` if this vCPU is on.
    pub(crate) fn is_on(&self, cpu: Cpu) -> bool {
        let state = self.0.get(cpu.index());
        state.is_some_and(|state| state.with(|state| !matches!(state, State::Off)))
    }

    /// Turns a vCPU on if its start was requested. Returns its start state.
    pub(crate) fn take_request(&self, cpu: Cpu) -> Option<Start> {
        self.0.get(cpu.index())?.with(|state| match *state {
            State::Requested(start) => {
                *state = State::On;
                Some(start)
            }
            State::Off | State::On => None,
        })
    }

    /// Marks a vCPU as off.
    pub(crate) fn turn_off(&self, cpu: Cpu) {
        if let Some(state) = self.0.get(cpu.index()) {
            state.with(|state| *state = State::Off);
        }
    }
}
