//! Hooks with which tests observe and end the core's waits.

use super::{Machine, in_hard_irq};
use irq_domain::Dispatched;
use msi_types::{Cpu, HwIrq};
use std::cell::RefCell;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};

/// Number of polls after which a caller is considered to be waiting.
const LOOKS: u32 = 3;
/// Number of polls after which the wait is considered endless.
const MOST_LOOKS: u32 = 1_000_000;

thread_local! {
    static HOOK: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

/// Calls this thread's hook each time the core waits.
pub(super) fn waited() {
    if let Some(mut hook) = HOOK.take() {
        hook();
        HOOK.set(Some(hook));
    }
}

/// Runs `act`, and calls `hook` each time this thread waits in it.
pub(crate) fn on_wait<T>(hook: impl FnMut() + 'static, act: impl FnOnce() -> T) -> T {
    /// Removes the hook even if `act` panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            HOOK.set(None);
        }
    }
    HOOK.set(Some(Box::new(hook)));
    let _reset = Reset;
    act()
}

/// A handler that runs until a task waits for it.
pub(crate) struct LongHandler {
    begun: Receiver<()>,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
    is_passed: AtomicBool,
}

impl Gate {
    fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let closed = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(closed, |is_open| !*is_open).unwrap());
        self.is_passed.store(true, SeqCst);
    }
}

impl LongHandler {
    /// Creates the object that controls a handler, and the function that the handler must call.
    pub(crate) fn new() -> (Self, impl Fn() + Send + Sync + 'static) {
        let (gate, (tell, begun)) = (Arc::new(Gate::default()), channel());
        let inner = gate.clone();
        let run = move || {
            tell.send(()).unwrap();
            inner.pass();
        };
        (Self { begun, gate }, run)
    }

    /// Runs `act` while CPU 1 runs the handler of `hwirq`. Lets the handler return once `act` waits
    /// for it, or after `act` has returned. Returns `true` if `act` returned after the handler.
    pub(crate) fn awaited_by(self, machine: &Machine, hwirq: HwIrq, act: impl FnOnce()) -> bool {
        /// Lets the handler return even if `act` panics.
        struct OpenOnDrop(Arc<Gate>);
        impl Drop for OpenOnDrop {
            fn drop(&mut self) {
                self.0.open();
            }
        }
        std::thread::scope(|scope| {
            let dispatch = || machine.interrupts.dispatch(Cpu::new(1), hwirq);
            let cpu = scope.spawn(move || in_hard_irq(1, dispatch));
            self.begun.recv().unwrap();
            let (opens, gate, mut looks) = (OpenOnDrop(self.gate.clone()), self.gate.clone(), 0);
            let look = move || {
                looks += 1;
                if looks == MOST_LOOKS {
                    // Unwinding would wait for the same handler.
                    let _ = std::io::stderr().write_all(b"the core waits forever\n");
                    std::process::abort();
                }
                if looks == LOOKS {
                    gate.open();
                }
            };
            on_wait(look, act);
            let is_awaited = self.gate.is_passed.load(SeqCst);
            drop(opens);
            assert_eq!(cpu.join().unwrap(), Dispatched::Handled);
            is_awaited
        })
    }
}
