//! The cell under a model checker, with a mutant for each safeguard that it must catch.
//!
//! A mutant is a word that forgets: certain bits of whatever is swapped in, or that a swap is one
//! step.

use super::{
    AWAITED, CHANGING, CLOSING, DISABLED, Entry, HandlerCell, InstallError, PINS, RESEND, RUNNING,
    Running, WhenBusy, Word,
};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use shuttle::thread;
use std::boxed::Box;
use std::panic::catch_unwind;
use std::vec::Vec;

/// The word under the checker; with `FORGOTTEN` bits, or `SPLIT` swaps, a mutant.
struct Checked<const FORGOTTEN: u32, const SPLIT: bool>(AtomicU32);

type Sound = Checked<0, false>;
type SplitSwap = Checked<0, true>;
type Without<const BITS: u32> = Checked<BITS, false>;

impl<const FORGOTTEN: u32, const SPLIT: bool> Word for Checked<FORGOTTEN, SPLIT> {
    fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    fn load(&self) -> u32 {
        self.0.load(SeqCst)
    }

    fn store(&self, value: u32) {
        self.0.store(value & !FORGOTTEN, SeqCst);
    }

    fn swap_if(&self, current: u32, new: u32) -> Result<u32, u32> {
        if !SPLIT {
            return self.0.compare_exchange(current, new & !FORGOTTEN, SeqCst, SeqCst);
        }
        let now = self.0.load(SeqCst);
        if now != current {
            return Err(now);
        }
        self.0.store(new, SeqCst);
        Ok(now)
    }

    fn subtract(&self, value: u32) {
        self.0.fetch_sub(value & !FORGOTTEN, SeqCst);
    }
}

/// A controller with one interrupt: a pending bit, and a device that numbers its messages.
struct Machine<W: Word> {
    cell: HandlerCell<Handler, W>,
    pending: AtomicBool,
    sent: AtomicU32,
    seen: AtomicU32,
}

/// Checks that it never runs beside itself, nor after it was freed.
struct Handler {
    running: AtomicBool,
    freed: Arc<AtomicBool>,
}

impl Drop for Handler {
    fn drop(&mut self) {
        assert!(!self.freed.swap(true, SeqCst), "freed twice");
    }
}

impl<W: Word + 'static> Machine<W> {
    /// With an enabled handler; the flag tells that it was freed.
    fn new() -> (Arc<Self>, Arc<AtomicBool>) {
        let freed = Arc::new(AtomicBool::new(false));
        let cell = HandlerCell::new();
        let handler = Handler { running: AtomicBool::new(false), freed: freed.clone() };
        assert!(cell.install(handler, WhenBusy::Mark).is_ok());
        assert!(!cell.enable());
        let machine = Self {
            cell,
            pending: AtomicBool::new(false),
            sent: AtomicU32::new(0),
            seen: AtomicU32::new(0),
        };
        (Arc::new(machine), freed)
    }

    fn send(&self) {
        self.sent.fetch_add(1, SeqCst);
        self.pending.store(true, SeqCst);
    }

    /// A CPU acknowledges what is pending. True if something was.
    fn acknowledge(&self) -> bool {
        let acknowledged = self.pending.swap(false, SeqCst);
        if acknowledged && let Entry::Entered(running) = self.cell.enter() {
            self.handle(running);
        }
        acknowledged
    }

    fn handle(&self, running: Running<'_, Handler, W>) {
        let beside_itself = running.running.swap(true, SeqCst);
        assert!(!beside_itself, "ran beside itself");
        self.seen.store(self.sent.load(SeqCst), SeqCst);
        assert!(!running.freed.load(SeqCst), "freed while it ran");
        running.running.store(false, SeqCst);
        if let Some(pinned) = running.leave() {
            self.pending.store(true, SeqCst);
            assert!(!pinned.freed.load(SeqCst), "freed while it was sent again");
        }
    }

    /// The steps of a handle's drop in a task.
    fn close_and_free(&self) {
        assert!(self.cell.close());
        assert!(matches!(self.cell.enter(), Entry::Absent(_)), "entered after it was closed");
        while self.cell.take().is_none() {
            thread::yield_now();
        }
    }

    fn drain(&self) {
        while self.acknowledge() {}
        assert_eq!(self.seen.load(SeqCst), self.sent.load(SeqCst), "a message was lost");
    }
}

fn run(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = threads.into_iter().map(thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Runs `scenario` on several threads with one machine.
macro_rules! threads {
    ($($machine:ident: $body:expr),* $(,)?) => {
        run(std::vec![$({ let $machine = $machine.clone(); Box::new(move || { $body; }) }),*])
    };
}

/// Two CPUs acknowledge three messages of a device whose affinity moves between them.
fn two_cpus_share_an_interrupt<W: Word + 'static>() {
    let (machine, _) = Machine::<W>::new();
    threads! {
        machine: for _ in 0..3 { machine.send() },
        machine: for _ in 0..2 { machine.acknowledge(); },
        machine: for _ in 0..2 { machine.acknowledge(); },
    }
    machine.drain();
}

/// A task disables, sees that nothing runs, and enables; messages arrive meanwhile.
fn an_interrupt_is_disabled_under_load<W: Word + 'static>() {
    let (machine, _) = Machine::<W>::new();
    threads! {
        machine: { machine.send(); machine.acknowledge(); machine.send(); machine.acknowledge() },
        machine: machine.acknowledge(),
        machine: {
            machine.cell.disable();
            while machine.cell.is_busy() { thread::yield_now() }
            let seen = machine.seen.load(SeqCst);
            assert_eq!(machine.seen.load(SeqCst), seen, "ran while disabled");
            if machine.cell.enable() {
                machine.pending.store(true, SeqCst);
            }
        },
    }
    machine.drain();
}

/// A handle is dropped by a task while two CPUs handle messages and send one again.
fn a_handle_is_dropped_under_load<W: Word + 'static>() {
    let (machine, freed) = Machine::<W>::new();
    machine.send();
    threads! {
        machine: { machine.acknowledge(); machine.acknowledge() },
        machine: { machine.send(); machine.acknowledge() },
        machine: machine.close_and_free(),
    }
    assert!(freed.load(SeqCst), "never freed");
}

/// A handler closes its own cell; a task frees it, while another message arrives elsewhere.
fn a_handler_drops_its_own_handle<W: Word + 'static>() {
    let (machine, freed) = Machine::<W>::new();
    threads! {
        machine: if let Entry::Entered(running) = machine.cell.enter() {
            machine.cell.close();
            machine.handle(running);
        },
        machine: { machine.send(); machine.acknowledge() },
        machine: {
            if machine.cell.close() { assert!(matches!(machine.cell.enter(), Entry::Absent(_))) }
            while machine.cell.take().is_none() { thread::yield_now() }
        },
    }
    assert!(freed.load(SeqCst), "never freed");
}

/// A handler is replaced while messages arrive and another task tries to install as well.
fn a_handler_is_replaced_under_load<W: Word + 'static>() {
    fn install<W: Word + 'static>(machine: &Machine<W>) {
        let freed = Arc::new(AtomicBool::new(false));
        let mut handler = Handler { running: AtomicBool::new(false), freed };
        loop {
            match machine.cell.install(handler, WhenBusy::Mark) {
                Ok(()) => {
                    machine.cell.enable();
                    break;
                }
                Err(InstallError::Occupied(_)) => break,
                Err(InstallError::Closing(back)) => handler = back,
            }
            thread::yield_now();
        }
    }
    let (machine, freed) = Machine::<W>::new();
    threads! {
        machine: { machine.close_and_free(); install(&machine) },
        machine: install(&machine),
        machine: { machine.send(); machine.acknowledge() },
    }
    assert!(freed.load(SeqCst), "the first handler was not freed");
    assert!(machine.cell.is_enabled(), "no handler is left");
}

/// A device sends before its handler is installed, and while it is.
fn a_handler_is_installed_under_load<W: Word + 'static>() {
    let (machine, freed) = Machine::<W>::new();
    machine.close_and_free();
    assert!(freed.load(SeqCst), "never freed");
    machine.cell.await_value();
    threads! {
        machine: for _ in 0..2 { machine.send(); machine.acknowledge(); },
        machine: {
            let freed = Arc::new(AtomicBool::new(false));
            let handler = Handler { running: AtomicBool::new(false), freed };
            assert!(machine.cell.install(handler, WhenBusy::Mark).is_ok());
            if machine.cell.enable() {
                machine.pending.store(true, SeqCst);
            }
        },
        machine: machine.acknowledge(),
    }
    machine.drain();
}

/// Schedules tried at random; the sound cell has to survive all of them.
const SCHEDULES: usize = 10_000;

/// The checker finds a schedule in which the mutant breaks a promise. It stops there, so that more
/// schedules cost nothing but certainty.
fn is_caught(scenario: fn()) -> bool {
    catch_unwind(move || shuttle::check_random(scenario, 20 * SCHEDULES)).is_err()
}

#[test]
fn no_message_is_lost_and_no_run_overlaps() {
    shuttle::check_random(two_cpus_share_an_interrupt::<Sound>, SCHEDULES);
}

#[test]
fn disabling_holds_back_and_loses_nothing() {
    shuttle::check_random(an_interrupt_is_disabled_under_load::<Sound>, SCHEDULES);
}

#[test]
fn dropping_waits_for_runs_and_redeliveries() {
    shuttle::check_random(a_handle_is_dropped_under_load::<Sound>, SCHEDULES);
}

#[test]
fn a_self_dropping_handler_is_freed_after_return() {
    shuttle::check_random(a_handler_drops_its_own_handle::<Sound>, SCHEDULES);
}

#[test]
fn replacing_a_handler_never_leaves_two_or_none() {
    shuttle::check_random(a_handler_is_replaced_under_load::<Sound>, SCHEDULES);
}

#[test]
fn early_arrivals_wait_for_an_awaited_handler() {
    shuttle::check_random(a_handler_is_installed_under_load::<Sound>, SCHEDULES);
}

#[test]
fn without_awaited_early_messages_are_lost() {
    assert!(is_caught(a_handler_is_installed_under_load::<Without<AWAITED>>));
    assert!(is_caught(a_handler_is_installed_under_load::<Without<RESEND>>));
}

#[test]
fn without_running_a_handler_overlaps_itself() {
    assert!(is_caught(two_cpus_share_an_interrupt::<Without<RUNNING>>));
    assert!(is_caught(a_handle_is_dropped_under_load::<Without<RUNNING>>));
}

#[test]
fn without_the_resend_mark_messages_are_lost() {
    assert!(is_caught(two_cpus_share_an_interrupt::<Without<RESEND>>));
    assert!(is_caught(an_interrupt_is_disabled_under_load::<Without<RESEND>>));
}

#[test]
fn without_disabled_it_runs_while_disabled() {
    assert!(is_caught(an_interrupt_is_disabled_under_load::<Without<DISABLED>>));
}

#[test]
fn without_pins_redelivery_uses_a_freed_handler() {
    assert!(is_caught(a_handle_is_dropped_under_load::<Without<PINS>>));
}

#[test]
fn without_closing_a_closed_gate_is_entered() {
    assert!(is_caught(a_handle_is_dropped_under_load::<Without<CLOSING>>));
}

#[test]
fn without_changing_two_writers_meet() {
    assert!(is_caught(a_handler_is_replaced_under_load::<Without<CHANGING>>));
}

#[test]
fn with_swaps_in_two_steps_nothing_holds() {
    assert!(is_caught(two_cpus_share_an_interrupt::<SplitSwap>));
    assert!(is_caught(an_interrupt_is_disabled_under_load::<SplitSwap>));
    assert!(is_caught(a_handle_is_dropped_under_load::<SplitSwap>));
}
