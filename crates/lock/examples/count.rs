//! A counter that tasks and handlers of interrupts share.

use doorbell_lock::IrqLock;
use msi_types::{IrqState, LocalCpu};

/// A kernel whose one thread is the CPU: nothing interrupts it.
struct Kernel;

impl LocalCpu for Kernel {
    /// Reads and masks: on AArch64, DAIF.
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
