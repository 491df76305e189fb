//! CPUs on and off, and the whole machine off: PSCI.

use crate::cpu;
use aarch64_rt::Stack;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};
use smccc::{Call, Hvc, Smc, psci};

/// The instruction by which firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `HVC`.
    Hvc,
    /// `SMC`.
    Smc,
}

static BY_SMC: AtomicBool = AtomicBool::new(false);

/// The conduit that was chosen.
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

/// Chooses the conduit. Before anything else here.
pub fn set_conduit(conduit: Conduit) {
    BY_SMC.store(conduit == Conduit::Smc, Ordering::Relaxed);
}

/// Pages of a CPU's stack.
const STACK_PAGES: usize = 32;

/// A stack for a CPU, to be used each time that it is started.
#[derive(Clone, Copy)]
pub struct CpuStack(*mut Stack<STACK_PAGES>);

// SAFETY: a pointer to memory that is the started CPU's alone.
unsafe impl Send for CpuStack {}
// SAFETY: as for `Send`; nothing can be done with it by reference.
unsafe impl Sync for CpuStack {}

impl CpuStack {
    /// A new one, which is never freed.
    pub fn new() -> Self {
        Self(Box::into_raw(Box::new(Stack::new())))
    }
}

impl Default for CpuStack {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for CpuStack {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("CpuStack").field(&self.0).finish()
    }
}

/// Starts a CPU, which is off, with this number and `main`, which does not return.
///
/// # Errors
/// What firmware says.
pub fn cpu_on(number: usize, mpidr: u64, stack: CpuStack, main: fn()) -> Result<(), psci::Error> {
    let start = move || {
        cpu::init(number);
        main();
    };
    // SAFETY: the stack is mapped RAM of its own, and its CPU is off, else firmware refuses.
    unsafe { aarch64_rt::start_core::<Chosen, _, STACK_PAGES>(mpidr, stack.0, start) }
}

/// Turns this CPU off. Its interrupts are masked.
pub fn cpu_off() -> ! {
    let answer = psci::cpu_off::<Chosen>();
    panic!("CPU_OFF returned {answer:?}");
}

/// Is the CPU off, as firmware sees it?
pub fn is_off(mpidr: u64) -> bool {
    matches!(
        psci::affinity_info::<Chosen>(mpidr, psci::LowestAffinityLevel::All),
        Ok(psci::AffinityState::Off)
    )
}

/// Turns the machine off.
pub fn system_off() -> ! {
    let answer = psci::system_off::<Chosen>();
    panic!("SYSTEM_OFF returned {answer:?}");
}
