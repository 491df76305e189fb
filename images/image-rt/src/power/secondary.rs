//! Secondary CPUs, with stacks from the heap.

use super::Chosen;
use crate::cpu;
use aarch64_rt::Stack;
use alloc::boxed::Box;
use smccc::psci;

/// Number of pages of a CPU's stack.
const STACK_PAGES: usize = 32;

/// A CPU's stack, which is reused each time the CPU starts.
#[derive(Clone, Copy)]
pub struct CpuStack(*mut Stack<STACK_PAGES>);

// SAFETY: the pointer is to memory that only the started CPU uses.
unsafe impl Send for CpuStack {}
// SAFETY: as for `Send`; shared references allow no access to the memory.
unsafe impl Sync for CpuStack {}

impl CpuStack {
    /// Allocates a stack. Stacks are never freed.
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

/// Starts a CPU that is off, and assigns it this number. `main` must not return.
///
/// # Errors
/// Returns the error of the firmware call.
pub fn cpu_on(number: usize, mpidr: u64, stack: CpuStack, main: fn()) -> Result<(), psci::Error> {
    let start = move || {
        cpu::init(number);
        main();
    };
    // SAFETY: the stack is mapped RAM that only this CPU uses, and firmware refuses unless the CPU
    // is off.
    unsafe { aarch64_rt::start_core::<Chosen, _, STACK_PAGES>(mpidr, stack.0, start) }
}
