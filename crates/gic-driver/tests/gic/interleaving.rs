//! Runs scenarios under a scheduler that explores interleavings, and on real threads. A board must
//! call [`access`], [`lock`] and [`wait`] wherever another thread may run.

use std::cell::Cell;
use std::panic::{UnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Hooks for a scheduler that switches threads.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// Hook that is called before each access to registers and tables.
    pub(crate) access: fn(),
    /// Hook that is called before each lock is acquired.
    pub(crate) lock: fn(),
    /// Hook that is called while the thread is waiting for another one.
    pub(crate) wait: fn(),
}

/// Schedule for the setup, which is the same in every run.
const SET_UP: Schedule = Schedule { access: || (), lock: || (), wait: || () };
/// Schedule that may switch threads at every lock and every access.
const FINE: Schedule = Schedule { access: switch, lock: switch, wait: shuttle::thread::yield_now };
/// Schedule that may switch threads only at accesses. A run has a tenth of the steps, so bugs that
/// need several switches in specific places are more likely to be found.
const COARSE: Schedule = Schedule { lock: || (), ..FINE };

thread_local! {
    static HOOKS: Cell<Schedule> =
        const { Cell::new(Schedule { wait: std::thread::yield_now, ..SET_UP }) };
    /// `true` if each thread simulates one CPU. Only then can the board count how often a CPU has
    /// masked its interrupts.
    static COUNTS: Cell<bool> = const { Cell::new(true) };
    /// Schedule for threads that are spawned later.
    static CHOSEN: Cell<Schedule> = const { Cell::new(FINE) };
}

/// Sets the schedule of this thread.
fn schedule_by(schedule: Schedule) {
    HOOKS.set(schedule);
    COUNTS.set(false);
}

/// Lets other threads run before an access. Must be called before each access to a register or a
/// table.
pub(crate) fn access() {
    (HOOKS.get().access)();
}

/// Lets other threads run before a lock is acquired. Must be called before each lock is acquired.
pub(crate) fn lock() {
    (HOOKS.get().lock)();
}

/// Lets other threads run during a wait. Must be called while the thread waits for another one.
pub(crate) fn wait() {
    (HOOKS.get().wait)();
}

/// Returns `true` if each thread simulates one CPU, so that the board can check the context in
/// which the driver calls it.
pub(crate) fn is_one_cpu() -> bool {
    COUNTS.get()
}

pub(crate) type Thread = Box<dyn FnOnce() + Send>;

/// Functions that spawn threads and let other threads run.
#[derive(Clone, Copy)]
pub(crate) struct World {
    pub(crate) run: fn(Vec<Thread>),
    pub(crate) between: fn(),
}

pub(crate) const CHECKED: World = World {
    run: |threads| {
        schedule_by(CHOSEN.get());
        let threads: Vec<_> = threads.into_iter().map(shuttle::thread::spawn).collect();
        for thread in threads {
            thread.join().unwrap();
        }
        schedule_by(SET_UP);
    },
    between: switch,
};

pub(crate) const REAL: World = World {
    run: |threads| {
        let threads: Vec<_> = threads.into_iter().map(std::thread::spawn).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    },
    between: std::thread::yield_now,
};

/// Runs several closures on separate threads with one machine.
macro_rules! threads {
    ($world:ident, $machine:ident: $($body:expr),* $(,)?) => {
        ($world.run)(vec![$({
            let $machine = $machine.clone();
            Box::new(move || { $body; })
        }),*])
    };
}
pub(crate) use threads;

/// Runs a scenario under `schedules` schedules of each kind: with random thread switches, and with
/// at most `depth` switches, so that one thread may run far ahead of the others.
pub(crate) fn check(schedules: usize, depth: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let scenario = Arc::new(scenario);
    for schedule in [FINE, COARSE] {
        schedule_by(SET_UP);
        CHOSEN.set(schedule);
        let (first, second) = (scenario.clone(), scenario.clone());
        shuttle::check_random(move || first(), schedules);
        shuttle::check_pct(move || second(), schedules, depth);
    }
}

/// Returns `true` if a check finds a schedule in which an assertion fails.
pub(crate) fn is_caught(check: impl FnOnce() + UnwindSafe) -> bool {
    catch_unwind(check).is_err()
}

/// Lets the scheduler switch threads without hinting that this thread waits.
fn switch() {
    shuttle::sync::atomic::AtomicBool::new(false).load(SeqCst);
}
