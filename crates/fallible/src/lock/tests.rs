use super::*;
use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use core::time::Duration;
use std::{thread, thread_local};

/// Number of polls, a millisecond apart, after which a thread stops waiting for the other one.
const MOST_LOOKS: u32 = 3000;

/// A kernel that checks in which context its callers wait.
#[derive(Default)]
struct Kernel {
    relaxed: AtomicBool,
    yielded: AtomicBool,
    irq_data: IrqLock<u32>,
}

impl Kernel {
    /// Returns `false` if the calling thread holds the lock. If another thread holds it, waits
    /// until it is free.
    fn is_irq_data_released(&self) -> bool {
        (0..MOST_LOOKS).any(|_| {
            let is_free = self.irq_data.0.try_lock().is_some();
            if !is_free {
                thread::sleep(Duration::from_millis(1));
            }
            is_free
        })
    }
}

thread_local! {
    static MASKED: Cell<usize> = const { Cell::new(0) };
}

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(MASKED.replace(MASKED.get() + 1))
    }

    fn irq_restore(&self, state: IrqState) {
        assert!(
            thread::panicking() || self.is_irq_data_released(),
            "an interrupt handler would find the lock held"
        );
        MASKED.set(state.get());
    }

    fn relax(&self) {
        assert_ne!(MASKED.get(), 0, "a task spins");
        self.relaxed.store(true, SeqCst);
        thread::yield_now();
    }

    fn yield_now(&self) {
        assert_eq!(MASKED.get(), 0, "a task waits with interrupts masked");
        self.yielded.store(true, SeqCst);
        thread::yield_now();
    }
}

/// Runs `holder` and `other` on two threads; the holder keeps its lock until the other thread has
/// waited for it.
fn contend(
    waited: &AtomicBool,
    holder: impl FnOnce(&dyn Fn()) + Send,
    other: impl FnOnce() + Send,
) {
    let held = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            holder(&|| {
                held.store(true, SeqCst);
                for _ in (0..MOST_LOOKS).take_while(|_| !waited.load(SeqCst)) {
                    thread::sleep(Duration::from_millis(1));
                }
            });
        });
        while !held.load(SeqCst) {
            thread::yield_now();
        }
        other();
    });
    assert!(waited.load(SeqCst), "no thread waited for the lock");
}

#[test]
fn a_task_yields_to_a_locks_holder() {
    let (lock, cpu) = (TaskLock::new(()), Kernel::default());
    contend(
        &cpu.yielded,
        |until_waited| lock.with(&cpu, |()| until_waited()),
        || lock.with(&cpu, |()| {}),
    );
}

#[test]
fn a_writer_yields_to_a_reader() {
    let (lock, cpu) = (TaskRwLock::new(0), Kernel::default());
    contend(
        &cpu.yielded,
        |until_waited| {
            let data = lock.read(&cpu);
            until_waited();
            assert_eq!(*data, 0, "written while it is read");
        },
        || *lock.write(&cpu) += 1,
    );
    assert_eq!(*lock.read(&cpu), 1);
}

#[test]
fn a_reader_yields_to_a_writer_and_not_to_readers() {
    let (lock, cpu) = (TaskRwLock::new(0), Kernel::default());
    drop((lock.read(&cpu), lock.read(&cpu)));
    assert!(!cpu.yielded.load(SeqCst));
    contend(
        &cpu.yielded,
        |until_waited| {
            let mut data = lock.write(&cpu);
            until_waited();
            *data += 1;
        },
        || assert_eq!(*lock.read(&cpu), 1, "read while it is written"),
    );
}

#[test]
fn waiting_for_an_irq_lock_keeps_interrupts_masked() {
    let cpu = Kernel::default();
    contend(
        &cpu.relaxed,
        |until_waited| cpu.irq_data.with(&cpu, |_| until_waited()),
        || cpu.irq_data.with(&cpu, |data| *data += 1),
    );
    assert_eq!(*cpu.irq_data.lock(&cpu), 1);
}

#[test]
fn an_irq_lock_masks_interrupts_until_it_is_unlocked() {
    let cpu = Kernel::default();
    let outer = cpu.irq_save();
    let guard = cpu.irq_data.lock(&cpu);
    assert_eq!(MASKED.get(), 2);
    drop(guard);
    assert_eq!(MASKED.get(), 1);
    cpu.irq_data.with(&cpu, |_| assert_eq!(MASKED.get(), 2));
    assert_eq!(MASKED.get(), 1);
    cpu.irq_restore(outer);
}

#[test]
fn a_task_lock_leaves_interrupts_as_they_are() {
    let (mut lock, cpu) = (TaskLock::new(1), Kernel::default());
    lock.with(&cpu, |data| {
        assert_eq!(MASKED.get(), 0);
        *data += 1;
    });
    assert_eq!(*lock.lock(&cpu), 2);
    assert_eq!(*lock.get_mut(), 2);
}
