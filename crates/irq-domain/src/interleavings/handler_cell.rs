//! Checks a handler cell while CPUs take its interrupt, tasks disable it, and its handle is
//! dropped.

use super::explore;
use crate::irq::handler_cell::{HandlerCell, InstallError, NotEntered, Running, WhenBusy};
use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use shuttle::thread;
use std::boxed::Box;
use std::vec::Vec;

/// A controller with a single interrupt: a pending bit, and a device that numbers its messages.
struct InstalledHandler {
    cell: HandlerCell<Handler>,
    pending: AtomicBool,
    sent: AtomicU32,
    seen: AtomicU32,
}

/// A handler that must not run concurrently with itself or after it was freed.
struct Handler {
    running: AtomicBool,
    freed: Arc<AtomicBool>,
}

impl Drop for Handler {
    fn drop(&mut self) {
        assert!(!self.freed.swap(true, SeqCst), "freed twice");
    }
}

impl InstalledHandler {
    /// Creates a machine with an enabled handler, and a flag that is set when the handler is freed.
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

    /// Acknowledges an interrupt on a CPU. Returns `true` if one was pending.
    fn acknowledge(&self) -> bool {
        let acknowledged = self.pending.swap(false, SeqCst);
        if acknowledged && let Ok(running) = self.cell.enter() {
            self.handle(running);
        }
        acknowledged
    }

    fn handle(&self, running: Running<'_, Handler>) {
        let beside_itself = running.running.swap(true, SeqCst);
        assert!(!beside_itself, "ran concurrently with itself");
        self.seen.store(self.sent.load(SeqCst), SeqCst);
        assert!(!running.freed.load(SeqCst), "freed while it ran");
        running.running.store(false, SeqCst);
        if let Some(pinned) = running.leave() {
            self.pending.store(true, SeqCst);
            assert!(!pinned.freed.load(SeqCst), "freed while it was sent again");
        }
    }

    /// Closes the cell and frees the handler, as a task does when it drops a handle.
    fn close_and_free(&self) {
        assert!(self.cell.close());
        assert!(
            matches!(self.cell.enter(), Err(NotEntered::Absent(_))),
            "entered after it was closed"
        );
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

/// Runs each body on its own thread; all of them share one machine.
macro_rules! threads {
    ($($machine:ident: $body:expr),* $(,)?) => {
        run(std::vec![$({ let $machine = $machine.clone(); Box::new(move || { $body; }) }),*])
    };
}

/// Two CPUs acknowledge a device's three messages while the interrupt moves between them.
fn two_cpus_share_an_interrupt() {
    let (machine, _) = InstalledHandler::new();
    threads! {
        machine: for _ in 0..3 { machine.send() },
        machine: for _ in 0..2 { machine.acknowledge(); },
        machine: for _ in 0..2 { machine.acknowledge(); },
    }
    machine.drain();
}

/// A task disables the interrupt while messages arrive, checks that the handler doesn't run, and
/// enables it again.
fn an_interrupt_is_disabled_under_load() {
    let (machine, _) = InstalledHandler::new();
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

/// A task drops a handle while two CPUs handle and resend messages.
fn a_handle_is_dropped_under_load() {
    let (machine, freed) = InstalledHandler::new();
    machine.send();
    threads! {
        machine: { machine.acknowledge(); machine.acknowledge() },
        machine: { machine.send(); machine.acknowledge() },
        machine: machine.close_and_free(),
    }
    assert!(freed.load(SeqCst), "never freed");
}

/// A handler closes its own cell and a task frees the handler, while another message arrives on
/// another CPU.
fn a_handler_drops_its_own_handle() {
    let (machine, freed) = InstalledHandler::new();
    threads! {
        machine: if let Ok(running) = machine.cell.enter() {
            machine.cell.close();
            machine.handle(running);
        },
        machine: { machine.send(); machine.acknowledge() },
        machine: {
            if machine.cell.close() {
                assert!(matches!(machine.cell.enter(), Err(NotEntered::Absent(_))));
            }
            while machine.cell.take().is_none() { thread::yield_now() }
        },
    }
    assert!(freed.load(SeqCst), "never freed");
}

/// A task replaces a handler while messages arrive and another task tries to install one.
fn a_handler_is_replaced_under_load() {
    fn install(machine: &InstalledHandler) {
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
    let (machine, freed) = InstalledHandler::new();
    threads! {
        machine: { machine.close_and_free(); install(&machine) },
        machine: install(&machine),
        machine: { machine.send(); machine.acknowledge() },
    }
    assert!(freed.load(SeqCst), "the first handler was not freed");
    assert!(machine.cell.is_enabled(), "no handler is left");
}

/// A device sends messages before its handler is installed and while it is being installed.
fn a_handler_is_installed_under_load() {
    let (machine, freed) = InstalledHandler::new();
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

#[test]
fn no_message_is_lost_and_no_two_handler_runs_overlap() {
    explore(two_cpus_share_an_interrupt);
}

#[test]
fn a_disabled_handler_does_not_run_and_loses_no_message() {
    explore(an_interrupt_is_disabled_under_load);
}

#[test]
fn dropping_a_handle_waits_for_runs_and_redeliveries() {
    explore(a_handle_is_dropped_under_load);
}

#[test]
fn a_self_dropping_handler_is_freed_after_return() {
    explore(a_handler_drops_its_own_handle);
}

#[test]
fn replacing_a_handler_under_load_leaves_exactly_one() {
    explore(a_handler_is_replaced_under_load);
}

#[test]
fn messages_before_install_are_delivered_to_the_new_handler() {
    explore(a_handler_is_installed_under_load);
}
