//! Locks. An [`IrqLock`] may be taken while a [`TaskLock`] is held, never the other way round.
//!
//! ```text
//! remapping layer's state (TaskLock)
//! └─ vector domain's devices (TaskLock)
//!    └─ vector domain's matrix and hwirqs (IrqLock): allocates nothing; calls Apic alone
//! ```

use msi_types::LocalCpu;

/// Data that tasks and hard-IRQ handlers share: interrupts are saved while it is used.
#[derive(Debug)]
pub(crate) struct IrqLock<T>(spin::Mutex<T>);

impl<T> IrqLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(spin::Mutex::new(data))
    }

    /// Runs `f` on the data. Any; not reentrant.
    pub(crate) fn with<R>(&self, cpu: &dyn LocalCpu, f: impl FnOnce(&mut T) -> R) -> R {
        let state = cpu.irq_save();
        let result = loop {
            if let Some(mut data) = self.0.try_lock() {
                break f(&mut data);
            }
            cpu.relax();
        };
        cpu.irq_restore(state);
        result
    }
}

/// Data that tasks alone use, with interrupts as they are: its holder may wait for hardware
/// or allocate.
#[derive(Debug)]
pub(crate) struct TaskLock<T>(spin::Mutex<T>);

impl<T> TaskLock<T> {
    pub(crate) const fn new(data: T) -> Self {
        Self(spin::Mutex::new(data))
    }

    /// Runs `f` on the data. Task; not reentrant.
    pub(crate) fn with<R>(&self, cpu: &dyn LocalCpu, f: impl FnOnce(&mut T) -> R) -> R {
        loop {
            if let Some(mut data) = self.0.try_lock() {
                return f(&mut data);
            }
            cpu.yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use msi_types::IrqState;
    use std::time::Duration;

    /// A holder that nobody yields to lets go after so many looks.
    const MOST_LOOKS: u32 = 3000;

    /// A CPU whose tasks spin for nobody.
    #[derive(Default)]
    struct TaskCpu {
        yielded: AtomicBool,
    }

    impl LocalCpu for TaskCpu {
        fn irq_save(&self) -> IrqState {
            panic!("a task's lock masks interrupts")
        }

        fn irq_restore(&self, _: IrqState) {}

        fn relax(&self) {
            panic!("a task spins for another")
        }

        fn yield_now(&self) {
            self.yielded.store(true, SeqCst);
        }
    }

    #[test]
    fn a_task_yields_to_a_locks_holder() {
        let (lock, cpu, held) = (TaskLock::new(()), TaskCpu::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lock.with(&cpu, |()| {
                    held.store(true, SeqCst);
                    for _ in (0..MOST_LOOKS).take_while(|_| !cpu.yielded.load(SeqCst)) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                });
            });
            while !held.load(SeqCst) {
                std::thread::yield_now();
            }
            lock.with(&cpu, |()| {});
        });
        assert!(cpu.yielded.load(SeqCst), "the lock was waited for without a yield");
    }
}
