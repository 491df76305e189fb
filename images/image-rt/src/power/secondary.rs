//! Further CPUs, with stacks from the heap.

use super::Chosen;
use crate::cpu;
use aarch64_rt::Stack;
use alloc::boxed::Box;
use smccc::psci;

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
