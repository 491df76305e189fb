//! Fakes, each of which panics where its real counterpart would hang, write to a stray address or
//! lose an interrupt.

mod controller;
mod root;
mod store;
mod wait;

use doorbell_test_support::Outside;
use irq_domain::{
    Config, Dispatched, Host, Interrupts, Irq, IrqHandle, IrqState, LocalCpu, MsiDevice,
    MsiDeviceConfig, MsiDeviceError, Stranded, TaskContext, UnknownCpu,
};
use msi_types::{Cpu, HwIrq, MsiError, RequesterId};
use std::cell::Cell;
use std::fmt;
use std::num::NonZeroU16;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use controller::{Addressing, Controller, FAULT, FIRST};
pub(crate) use root::Root;
pub(crate) use store::{Bus, Hook, Store, StoreKind, take_copies};
pub(crate) use wait::{LongHandler, on_wait};

thread_local! {
    static CPU: Cell<Option<u32>> = const { Cell::new(None) };
    static SAVED: Cell<usize> = const { Cell::new(0) };
    static HARD_IRQ: Cell<bool> = const { Cell::new(false) };
    static SPURIOUS: Cell<Option<Irq>> = const { Cell::new(None) };
}

/// Returns the interrupt that this thread's dispatch shut off last, and clears the record.
pub(crate) fn take_spurious() -> Option<Irq> {
    SPURIOUS.take()
}

/// Makes this thread a CPU in hard-IRQ context while `act` runs, as in its trap loop or in an
/// interrupt that the kernel handles itself.
pub(crate) fn in_hard_irq<T>(cpu: u32, act: impl FnOnce() -> T) -> T {
    in_context(Some(cpu), true, act)
}

/// Runs `act` in a task that is bound to a CPU.
pub(crate) fn on_cpu<T>(cpu: u32, act: impl FnOnce() -> T) -> T {
    in_context(Some(cpu), false, act)
}

/// Runs `act` in task context, as if a task on another CPU ran it in the middle of a handler.
pub(crate) fn in_task<T>(act: impl FnOnce() -> T) -> T {
    in_context(None, false, act)
}

fn in_context<T>(cpu: Option<u32>, hard_irq: bool, act: impl FnOnce() -> T) -> T {
    /// Restores the state even if `act` panics.
    struct Restore(Option<u32>, bool, usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            CPU.set(self.0);
            HARD_IRQ.set(self.1);
            SAVED.set(self.2);
        }
    }
    let _restore = Restore(CPU.replace(cpu), HARD_IRQ.replace(hard_irq), SAVED.replace(0));
    act()
}

fn is_task() -> bool {
    SAVED.get() == 0 && !HARD_IRQ.get()
}

/// A kernel that checks that interrupt states are saved and restored in order.
#[derive(Debug)]
pub(crate) struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(SAVED.replace(SAVED.get() + 1))
    }

    fn irq_restore(&self, state: IrqState) {
        judge(state.get() + 1 == SAVED.get(), "restored out of order");
        SAVED.set(state.get());
    }

    fn relax(&self) {
        wait::waited();
        std::thread::yield_now();
    }

    fn yield_now(&self) {
        assert_task();
        wait::waited();
        std::thread::yield_now();
    }
}

impl TaskContext for Kernel {
    fn may_wait(&self) -> bool {
        is_task()
    }
}

impl Host for Kernel {
    fn current_cpu(&self) -> Option<Cpu> {
        judge(SAVED.get() > 0, "asked for the CPU while the task may migrate");
        CPU.get().map(Cpu::new)
    }

    fn disabled_as_spurious(&self, irq: Irq) {
        assert!(
            HARD_IRQ.get() && SAVED.get() == 0,
            "reported outside of hard-IRQ context, or under a lock"
        );
        SPURIOUS.set(Some(irq));
    }
}

/// Checks the context of a "task; may sleep" operation, which may wait for hardware, allocate and
/// free. It must not be called with interrupts masked (for example under a lock that a handler
/// takes) or in hard-IRQ context.
pub(crate) fn assert_task() {
    judge(is_task(), "a task operation with interrupts masked, or in hard-IRQ context");
}

/// Panics with a fake's finding, unless the thread is already panicking. A test that unwinds tears
/// its devices down; its first finding is the one to report, and a second panic would also abort
/// the other tests.
pub(crate) fn judge(holds: bool, finding: &str) {
    assert!(holds || std::thread::panicking(), "{finding}");
}

/// Locked data of a fake. Fakes can allocate even while the kernel's heap is exhausted.
#[derive(Debug)]
pub(crate) struct Locked<'a, T> {
    data: MutexGuard<'a, T>,
    _outside: Outside,
}

/// Locks the data of a fake. Ignores lock poisoning.
pub(crate) fn lock<T>(data: &Mutex<T>) -> Locked<'_, T> {
    Locked { data: data.lock().unwrap_or_else(PoisonError::into_inner), _outside: Outside::new() }
}

impl<T> Deref for Locked<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.data
    }
}

impl<T> DerefMut for Locked<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

/// Decrements a counter. Returns `false` once, when the counter is 0.
pub(crate) fn count_down(counter: &AtomicUsize) -> bool {
    match counter.load(Ordering::Relaxed) {
        usize::MAX => true,
        0 => {
            counter.store(usize::MAX, Ordering::Relaxed);
            false
        }
        left => {
            counter.store(left - 1, Ordering::Relaxed);
            true
        }
    }
}

/// CPU hotplug that collects stranded interrupts in a list.
pub(crate) trait Hotplug {
    fn bring_online(&self, cpu: Cpu) -> Result<Vec<Stranded>, UnknownCpu>;
    fn offline(&self, cpu: Cpu) -> Result<Vec<Stranded>, UnknownCpu>;
}

impl Hotplug for Interrupts {
    fn bring_online(&self, cpu: Cpu) -> Result<Vec<Stranded>, UnknownCpu> {
        let mut stranded = Vec::new();
        self.cpu_online(cpu, |one| stranded.push(one)).map(|()| stranded)
    }

    fn offline(&self, cpu: Cpu) -> Result<Vec<Stranded>, UnknownCpu> {
        let mut stranded = Vec::new();
        self.cpu_offline(cpu, |one| stranded.push(one)).map(|()| stranded)
    }
}

/// A machine with four CPUs, all online, and one controller.
pub(crate) struct Machine {
    pub(crate) interrupts: Interrupts,
    pub(crate) controller: Arc<Controller>,
    pub(crate) root: Arc<Root>,
}

pub(crate) const CPUS: u32 = 4;

impl Machine {
    pub(crate) fn new(kind: Addressing) -> Self {
        Self::with_controller(Controller::new(kind))
    }

    pub(crate) fn with_controller(controller: Arc<Controller>) -> Self {
        let root = Arc::new(Root::default());
        let cpus = NonZeroU16::new(4).unwrap();
        let config = Config::new(cpus, Arc::new(Kernel)).with_wired(root.clone());
        let interrupts = Interrupts::new(config).unwrap();
        for cpu in 1..CPUS {
            interrupts.bring_online(Cpu::new(cpu)).unwrap();
        }
        Self { interrupts, controller, root }
    }

    pub(crate) fn store(&self, kind: StoreKind) -> Arc<Store> {
        Store::new(kind, &self.controller)
    }

    pub(crate) fn attach(&self, store: &Arc<Store>) -> MsiDevice {
        self.try_attach(store).unwrap()
    }

    pub(crate) fn try_attach(&self, store: &Arc<Store>) -> Result<MsiDevice, MsiDeviceError> {
        let config = MsiDeviceConfig::new(
            "device",
            RequesterId::pci(1, 0, 0),
            self.controller.clone(),
            store.clone(),
        );
        MsiDevice::attach(&self.interrupts, config)
    }

    /// Dispatches an interrupt on a CPU, as its trap loop would.
    pub(crate) fn dispatch(&self, cpu: u32, hwirq: HwIrq) -> Dispatched {
        in_hard_irq(cpu, || self.interrupts.dispatch(Cpu::new(cpu), hwirq))
    }

    /// Handles the pending interrupts of `cpu`, as its trap loop would, until none is pending.
    pub(crate) fn take_interrupts(&self, cpu: u32) -> Vec<(HwIrq, Dispatched)> {
        let mut taken = Vec::new();
        while let Some(hwirq) = self.controller.acknowledge(cpu) {
            taken.push((hwirq, self.dispatch(cpu, hwirq)));
        }
        taken
    }

    /// Handles the pending interrupts of all CPUs until none is pending.
    pub(crate) fn settle(&self) {
        while (0..CPUS).any(|cpu| !self.take_interrupts(cpu).is_empty()) {}
    }
}

/// Returns each pair of a controller and an edge-triggered store.
pub(crate) fn combinations() -> impl Iterator<Item = (Addressing, StoreKind)> {
    let kinds = [Addressing::Stays, Addressing::NamesCpu].into_iter();
    kinds.flat_map(|kind| StoreKind::EDGES.map(|store| (kind, store)))
}

/// Creates a machine, and attaches a device with this many vectors. The first is on CPU 0.
pub(crate) fn attached(
    kind: Addressing,
    store: StoreKind,
    count: u16,
) -> (Machine, Arc<Store>, MsiDevice) {
    let machine = Machine::new(kind);
    let store = machine.store(store);
    let device = machine.attach(&store);
    device.allocate(store.kind.shape(), count..=count).unwrap();
    (machine, store, device)
}

/// Creates a machine with a device whose only vector has a handler.
pub(crate) fn requested(
    kind: Addressing,
    store: StoreKind,
) -> (Machine, Arc<Store>, MsiDevice, IrqHandle) {
    let (machine, store, device) = attached(kind, store, 1);
    let handle = device.request(0, "test", |_| {}).unwrap();
    (machine, store, device, handle)
}

/// Returns the controller's reason for a refusal.
pub(crate) fn refusal<T: fmt::Debug>(refused: Result<T, MsiDeviceError>) -> MsiError {
    match refused {
        Err(MsiDeviceError::Controller(error)) => error,
        other => panic!("{other:?}"),
    }
}
