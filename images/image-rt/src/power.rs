//! Turns CPUs and the machine on and off, using PSCI.

#[cfg(feature = "heap")]
mod secondary;

#[cfg(feature = "heap")]
pub use secondary::{CpuStack, cpu_on};

use core::sync::atomic::{AtomicBool, Ordering};
use smccc::{Call, Hvc, Smc, psci};

/// Instruction that calls firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `HVC`.
    Hvc,
    /// `SMC`.
    Smc,
}

static BY_SMC: AtomicBool = AtomicBool::new(false);

/// The conduit that was set by [`set_conduit`].
#[derive(Debug)]
struct Chosen;

impl Call for Chosen {
    fn call32(function: u32, arguments: [u32; 7]) -> [u32; 8] {
        if BY_SMC.load(Ordering::Relaxed) {
            Smc::call32(function, arguments)
        } else {
            Hvc::call32(function, arguments)
        }
    }

    fn call64(function: u32, arguments: [u64; 17]) -> [u64; 18] {
        if BY_SMC.load(Ordering::Relaxed) {
            Smc::call64(function, arguments)
        } else {
            Hvc::call64(function, arguments)
        }
    }
}

/// Sets the conduit. Must be called before any other function of this module.
pub fn set_conduit(conduit: Conduit) {
    BY_SMC.store(conduit == Conduit::Smc, Ordering::Relaxed);
}

/// Turns this CPU off. Interrupts must be masked.
pub fn cpu_off() -> ! {
    let answer = psci::cpu_off::<Chosen>();
    panic!("CPU_OFF returned {answer:?}");
}

/// Returns `true` if firmware reports the CPU as off.
pub fn is_off(mpidr: u64) -> bool {
    state(mpidr) == Ok(psci::AffinityState::Off)
}

/// Returns `true` if firmware reports the CPU as on. A CPU that firmware is about to turn on does
/// not count as on.
pub fn is_on(mpidr: u64) -> bool {
    state(mpidr) == Ok(psci::AffinityState::On)
}

fn state(mpidr: u64) -> Result<psci::AffinityState, psci::Error> {
    psci::affinity_info::<Chosen>(mpidr, psci::LowestAffinityLevel::All)
}

/// Turns the machine off.
pub fn system_off() -> ! {
    let answer = psci::system_off::<Chosen>();
    panic!("SYSTEM_OFF returned {answer:?}");
}
