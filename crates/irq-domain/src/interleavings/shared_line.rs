//! Checks a shared line that CPUs acknowledge while tasks add and remove handlers.

use super::explore;
use crate::irq::control::{Control, HandlerPhase};
use crate::irq::handler::{Dispatch, Dispatched, Handler, IrqContext, IrqReturn, Unhandled};
use crate::irq::handler_cell::{HandlerCell, WhenBusy};
use crate::irq::shared_line::{MemberIndex, Remaining, SharedLine};
use crate::name::Irq;
use crate::runtime::Host;
use msi_types::{Cpu, HwIrq, IrqState, LocalCpu, TaskContext};
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::sync::atomic::{AtomicBool, AtomicU32};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

/// A kernel stub. The checks only need it to lock the names of handlers, so its methods do nothing.
struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}

    fn yield_now(&self) {
        self.relax();
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        None
    }
}

impl Dispatch for Kernel {
    fn dispatch_chained(&self, _: Cpu, _: HwIrq) -> Dispatched {
        Dispatched::Unhandled(Unhandled::Unknown)
    }
}

/// A line with its handler cell, control state and request lock.
struct RequestedLine {
    cell: HandlerCell<()>,
    line: SharedLine,
    control: Mutex<Control>,
    requests: Mutex<()>,
    is_freed: AtomicBool,
}

/// A device's handler, which must not run concurrently with itself or after it was freed.
struct Device {
    running: AtomicBool,
    freed: AtomicBool,
    runs: AtomicU32,
}

/// A value owned by a handler, which records on drop that the handler was freed.
struct Freed(Arc<Device>);

impl Drop for Freed {
    fn drop(&mut self) {
        assert!(!self.0.running.load(SeqCst), "freed while it ran");
        assert!(!self.0.freed.swap(true, SeqCst), "freed twice");
    }
}

impl Device {
    fn new() -> (Arc<Self>, Handler) {
        let flag = || AtomicBool::new(false);
        let device = Self { running: flag(), freed: flag(), runs: AtomicU32::new(0) };
        let device = Arc::new(device);
        let owned = Freed(device.clone());
        let run = move |_: &IrqContext<'_>| {
            assert!(!owned.0.running.swap(true, SeqCst), "ran concurrently with itself");
            assert!(!owned.0.freed.load(SeqCst), "ran after it was freed");
            owned.0.runs.fetch_add(1, SeqCst);
            owned.0.running.store(false, SeqCst);
        };
        (device, Handler::try_new(run).unwrap())
    }
}

impl RequestedLine {
    /// Creates an enabled line with one handler.
    fn new() -> (Arc<Self>, Arc<Device>) {
        let (device, handler) = Device::new();
        let machine = Self {
            cell: HandlerCell::new(),
            line: SharedLine::new(handler),
            control: Mutex::new(Control::new(false)),
            requests: Mutex::new(()),
            is_freed: AtomicBool::new(false),
        };
        assert!(machine.cell.install((), WhenBusy::Ignore).is_ok());
        machine.control.lock().unwrap().install();
        machine.cell.enable();
        (Arc::new(machine), device)
    }

    /// Acknowledges the line on a CPU. Returns `true` if the handlers ran.
    fn arrive(&self) -> bool {
        let Ok(running) = self.cell.enter() else { return false };
        let (irq, hwirq, cpu) = (Irq::new(0), HwIrq::new(40), Cpu::new(0));
        let verdict = self.line.run(&IrqContext { irq, hwirq, cpu, dispatcher: &Kernel });
        assert!(running.leave().is_none(), "a level was marked");
        verdict == IrqReturn::Handled
    }

    /// Adds a handler from a task. Returns `None` if the line is being removed.
    fn join(&self) -> Option<(MemberIndex, Arc<Device>)> {
        let (device, handler) = Device::new();
        let _one_at_a_time = self.requests.lock().unwrap();
        let index = self.line.vacant().unwrap();
        let joined = self.line.join(&mut self.control.lock().unwrap(), index, handler.clone());
        joined.then_some((index, device))
    }

    /// Drops a handle from a task.
    fn leave(&self, index: MemberIndex, device: &Device) {
        let remaining = {
            let mut control = self.control.lock().unwrap();
            let remaining = self.line.leave(&mut control, index);
            if remaining == Remaining::None {
                control.remove(HandlerPhase::Vacant);
                assert!(self.cell.close(), "closed twice");
            }
            remaining
        };
        if remaining == Remaining::None {
            while self.cell.take().is_none() {
                thread::yield_now();
            }
            assert!(!self.is_freed.swap(true, SeqCst), "the line was freed twice");
        }
        while self.line.take(&Kernel, index).is_none() {
            thread::yield_now();
        }
        let runs = device.runs.load(SeqCst);
        assert!(device.freed.load(SeqCst), "not freed");
        assert_eq!(device.runs.load(SeqCst), runs, "ran after its handle was dropped");
    }
}

/// Two tasks add and remove handlers, and one reuses the other's member, while a CPU acknowledges
/// the line.
fn handlers_come_and_go() {
    let (machine, first) = RequestedLine::new();
    let visit = |machine: Arc<RequestedLine>| {
        move || {
            let (index, device) = machine.join().unwrap();
            machine.leave(index, &device);
        }
    };
    let cpu = machine.clone();
    let threads = [
        thread::spawn(visit(machine.clone())),
        thread::spawn(visit(machine.clone())),
        thread::spawn(move || {
            for _ in 0..2 {
                assert!(cpu.arrive(), "the first handler did not run");
            }
        }),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(first.runs.load(SeqCst), 2);
    assert!(!machine.is_freed.load(SeqCst), "freed with a handler left");
    machine.leave(MemberIndex::FIRST, &first);
    assert!(machine.is_freed.load(SeqCst), "never freed");
}

/// The first handler is removed while another one is added. Either the new handler is refused, or
/// it keeps the line from being removed.
fn the_last_handler_goes_while_another_comes() {
    let (machine, first) = RequestedLine::new();
    let (leaving, cpu) = (machine.clone(), machine.clone());
    let threads = [
        thread::spawn(move || leaving.leave(MemberIndex::FIRST, &first)),
        thread::spawn(move || {
            cpu.arrive();
        }),
    ];
    let joined = machine.join();
    for thread in threads {
        thread.join().unwrap();
    }
    if let Some((index, device)) = joined {
        let runs = device.runs.load(SeqCst);
        assert!(machine.arrive(), "the line was freed with a handler on it");
        assert_eq!(device.runs.load(SeqCst), runs + 1, "a handler was lost");
        machine.leave(index, &device);
    }
    assert!(machine.is_freed.load(SeqCst), "never freed");
}

#[test]
fn a_line_member_never_runs_after_it_is_freed() {
    explore(handlers_come_and_go);
}

#[test]
fn joining_a_line_being_freed_keeps_it_or_is_refused() {
    explore(the_last_handler_goes_while_another_comes);
}
