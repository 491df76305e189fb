//! vCPUs that are off, about to be on, and on.

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

/// State of a vCPU, as PSCI's AFFINITY_INFO tells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Affinity {
    On,
    Off,
    OnPending,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Off,
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

    /// Asks for a vCPU's start, if it is off. Says what it was. The caller then kicks it.
    pub(crate) fn request(&self, cpu: Cpu, start: Start) -> Affinity {
        let Some(state) = self.0.get(cpu.index()) else { return Affinity::On };
        state.with(|state| {
            let before = affinity(*state);
            if before == Affinity::Off {
                *state = State::Requested(start);
            }
            before
        })
    }

    /// The state of a vCPU.
    pub(crate) fn of(&self, cpu: Cpu) -> Affinity {
        self.0.get(cpu.index()).map_or(Affinity::Off, |state| state.with(|state| affinity(*state)))
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

fn affinity(state: State) -> Affinity {
    match state {
        State::Off => Affinity::Off,
        State::Requested(_) => Affinity::OnPending,
        State::On => Affinity::On,
    }
}
