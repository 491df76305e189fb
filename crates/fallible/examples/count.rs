//! A counter that tasks and interrupt handlers share.

use doorbell_fallible::lock::IrqLock;
use msi_types::{IrqState, LocalCpu};

/// A kernel with a single thread, which is never interrupted.
struct Kernel;

impl LocalCpu for Kernel {
    /// Returns the interrupt mask and masks interrupts (DAIF on AArch64).
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {
        self.relax(); // A kernel with a scheduler yields.
    }
}

fn main() {
    let count = IrqLock::new(0);
    count.with(&Kernel, |count| *count += 1);
    println!("{}", *count.lock(&Kernel));
    assert_eq!(*count.lock(&Kernel), 1);
}
