//! Threads under a scheduler that explores interleavings, and on real threads. A board calls
//! [`access`], [`lock`] and [`wait`] where another thread may run.

use std::cell::Cell;
use std::panic::{UnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// Hooks for a scheduler that switches threads.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// Before each access to registers and tables.
    pub(crate) access: fn(),
    /// Before each lock.
    pub(crate) lock: fn(),
    /// Called while another thread has to act.
    pub(crate) wait: fn(),
}

/// Setting up is the same in every schedule.
const SET_UP: Schedule = Schedule { access: || (), lock: || (), wait: || () };
/// Every lock and every access.
const FINE: Schedule = Schedule { access: switch, lock: switch, wait: shuttle::thread::yield_now };
/// Accesses alone: a tenth of the steps, so that what takes several switches in the right places is
/// found.
const COARSE: Schedule = Schedule { lock: || (), ..FINE };

thread_local! {
    static HOOKS: Cell<Schedule> =
        const { Cell::new(Schedule { wait: std::thread::yield_now, ..SET_UP }) };
    /// Counting masked interrupts needs a thread for each CPU.
    static COUNTS: Cell<bool> = const { Cell::new(true) };
    /// The schedule of the threads that are started next.
    static CHOSEN: Cell<Schedule> = const { Cell::new(FINE) };
}

/// From now on, this thread is under that scheduler.
fn schedule_by(schedule: Schedule) {
    HOOKS.set(schedule);
    COUNTS.set(false);
}

/// Before an access to a register or a table.
pub(crate) fn access() {
    (HOOKS.get().access)();
}

/// Before a lock is taken.
pub(crate) fn lock() {
    (HOOKS.get().lock)();
}

/// While another thread has to act.
pub(crate) fn wait() {
    (HOOKS.get().wait)();
}

/// Returns true if each thread stands for one CPU, so that the board can check in which context it
/// is called.
pub(crate) fn is_one_cpu() -> bool {
    COUNTS.get()
}

pub(crate) type Thread = Box<dyn FnOnce() + Send>;

/// The way threads run, and the point at which others may run.
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

/// Runs bodies on several threads with one machine.
macro_rules! threads {
    ($world:ident, $machine:ident: $($body:expr),* $(,)?) => {
        ($world.run)(vec![$({
            let $machine = $machine.clone();
            Box::new(move || { $body; })
        }),*])
    };
}
pub(crate) use threads;

/// Runs a scenario by `schedules` schedules of each kind: threads that take turns at random, and
/// threads of which one runs far ahead of the others, with at most `depth` switches in the right
/// places.
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

/// Returns true if a check finds a schedule in which a promise is broken.
pub(crate) fn is_caught(check: impl FnOnce() + UnwindSafe) -> bool {
    catch_unwind(check).is_err()
}

/// A point at which the scheduler may switch, without the hint of a wait.
fn switch() {
    shuttle::sync::atomic::AtomicBool::new(false).load(SeqCst);
}
