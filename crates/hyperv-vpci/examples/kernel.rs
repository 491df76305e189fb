//! Simulation of a kernel whose tasks sleep until the host signals, and of a monitor whose thread
//! sleeps until the guest signals. Four tasks request and delete messages on one bus concurrently,
//! and one task handles the bus's events.

use hyperv_vpci::channel::Idle;
use hyperv_vpci::guest::{Bus, BusConfig, BusEvent, Kernel, SpiDomain, Vectors, Wait};
use hyperv_vpci::host::{Host, HostConfig, HostFunction, Injection, Served};
use hyperv_vpci::protocol::{DeviceDescription, Slot};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use msi_types::{
    BlockRequest, Cpu, Delivery, Fit, HwIrq, IrqState, Level, Line, LocalCpu, MsiError, MsiParent,
    Pending, Rewrite, SetLine, TaskContext, Trigger, WiredParent,
};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::error::Error;
use std::num::{NonZeroU8, NonZeroU16};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SLOT: Slot = Slot::new(0, 0);
const TASKS: u32 = 4;
const ROUNDS: u32 = 200;

/// Count of signals, on which threads can sleep.
#[derive(Default)]
struct SignalCount {
    count: Mutex<u32>,
    changed: Condvar,
}

impl SignalCount {
    fn count(&self) -> MutexGuard<'_, u32> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn raise(&self) {
        *self.count() += 1;
        self.changed.notify_all();
    }

    /// Sleeps until the count differs from `seen`. Returns `false` if `time` elapses first.
    fn sleep(&self, seen: u32, time: Duration) -> bool {
        let unchanged = |count: &mut u32| *count == seen;
        let slept = self.changed.wait_timeout_while(self.count(), time, unchanged);
        !slept.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

std::thread_local! {
    /// Time at which the calling task's wait must end.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The guest's kernel. [`Kernel::wake`] is the handler for the channel's interrupt.
pub(crate) struct SleepingKernel {
    signals: SignalCount,
    /// Time limit of a wait.
    limit: Duration,
    /// Number of waits that timed out.
    timeouts: AtomicU32,
}

impl SleepingKernel {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { signals: SignalCount::default(), limit, timeouts: AtomicU32::new(0) }
    }
}

impl LocalCpu for SleepingKernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn relax(&self) {
        std::thread::yield_now();
    }
    fn yield_now(&self) {
        std::thread::yield_now();
    }
}

impl TaskContext for SleepingKernel {
    fn may_wait(&self) -> bool {
        true
    }
}

impl Kernel for SleepingKernel {
    fn wake_ups(&self) -> u32 {
        *self.signals.count()
    }

    fn wake(&self) {
        self.signals.raise();
    }

    fn wait(&self, seen: u32, turn: u32) -> Wait {
        // A host can wake the task as often as it likes, so the limit is that of the whole wait.
        if turn == 0 {
            DEADLINE.set(Instant::now().checked_add(self.limit));
        }
        let deadline = DEADLINE.get();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match left.filter(|left| !left.is_zero()) {
            Some(left) if self.signals.sleep(seen, left) => Wait::Again,
            _ => {
                self.timeouts.fetch_add(1, Ordering::Relaxed);
                Wait::GiveUp
            }
        }
    }

    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok()
    }
}

/// Set of claimed SPIs, in place of a real kernel's GIC driver.
#[derive(Default)]
struct ClaimedSpis(Mutex<BTreeSet<HwIrq>>);

impl WiredParent for ClaimedSpis {
    fn claim(&self, first: HwIrq, _: NonZeroU16) -> Result<(), MsiError> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.insert(first) { Ok(()) } else { Err(MsiError::InUse(first)) }
    }
    fn release(&self, first: HwIrq, _: NonZeroU16) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&first);
    }
    fn set_trigger(&self, _: HwIrq, _: Trigger) -> Result<(), MsiError> {
        Ok(())
    }
    fn set_target(&self, _: HwIrq, _: Cpu) -> Result<(), MsiError> {
        Ok(())
    }
    fn mask(&self, _: HwIrq) {}
    fn unmask(&self, _: HwIrq) {}
    fn set_pending(&self, _: HwIrq, _: Pending) {}
    fn is_pending(&self, _: HwIrq) -> bool {
        false
    }
}

impl SetLine for ClaimedSpis {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Pending
    }
    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Pending
    }
}

/// Serves the guest on the monitor's thread until `end` is set, and then ejects the function.
fn monitor(
    mut host: Host,
    mut channel: impl hyperv_vpci::channel::Channel,
    signals: &SignalCount,
    end: &AtomicU32,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut is_ejected = false;
    while host.version().is_none() || host.window().is_some() || !is_ejected {
        // The count is read before the host checks for packets, so that a later signal ends the
        // sleep.
        let seen = *signals.count();
        if end.load(Ordering::SeqCst) == 1 && !is_ejected {
            host.eject(SLOT)?;
            is_ejected = true;
        }
        while host.serve(&mut channel)? == Served::More {}
        if host.window().is_some() || !is_ejected {
            signals.sleep(seen, Duration::from_secs(2));
        }
    }
    Ok(())
}

/// Requests and deletes messages repeatedly, as a driver's task.
fn churn(bus: &Bus) -> Result<(), MsiError> {
    let device = bus.attach(SLOT.requester(0), 8)?;
    let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), Cpu::new(0));
    for _ in 0..ROUNDS {
        let block = bus.allocate(&device, &request)?;
        bus.compose(&block, 0)?;
        bus.free(&device, block);
    }
    bus.detach(device);
    Ok(())
}

/// Handles the bus's events in a task, until the host ejects the function.
fn handle_events(bus: &Bus, kernel: &SleepingKernel) -> Result<(), Box<dyn Error + Send + Sync>> {
    loop {
        let seen = kernel.wake_ups();
        while bus.poll()? == Idle::Busy {}
        while let Some(event) = bus.next_event() {
            println!("{event:?}");
            if let BusEvent::EjectRequested(slot) = event {
                return Ok(bus.eject_complete(slot)?);
            }
        }
        kernel.signals.sleep(seen, Duration::from_secs(2));
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let spis = Arc::new(ClaimedSpis::default());
    let config = HostConfig::new(1, 0xfeed_0000, *b"a bus's instance");
    let mut host = Host::new(config, Injection::Spi(spis.clone()))?;
    let description = DeviceDescription { vendor: 0x1414, slot: SLOT, ..Default::default() };
    host.offer(HostFunction::new(description, [0; 6]))?;
    let (to_host, end) = (Arc::new(SignalCount::default()), AtomicU32::new(0));
    let kernel = Arc::new(SleepingKernel::new(Duration::from_secs(2)));
    let pages = NonZeroU8::new(4).ok_or("a ring has pages")?;
    let (there, back) = (HeapRing::new(pages)?, HeapRing::new(pages)?);
    // Each end's notifier wakes the other end.
    let (signals, interrupt) = (to_host.clone(), kernel.clone());
    let near = RingChannel::new(there.clone(), back.clone(), move || signals.raise())?;
    let far = RingChannel::new(back, there, move || interrupt.wake())?;
    std::thread::scope(|scope| {
        let monitor = scope.spawn(|| monitor(host, far, &to_host, &end));
        let vectors = Vectors::Spis(Arc::new(SpiDomain::new(spis, kernel.clone())?));
        let config = BusConfig::new(0x1000_0000, 0, 64);
        let bus = Arc::new(Bus::open(config, Box::new(near), vectors, kernel.clone())?);
        let (shared, sleeper) = (bus.clone(), &*kernel);
        let events = scope.spawn(move || handle_events(&shared, sleeper));
        let start = |_| {
            let bus = bus.clone();
            scope.spawn(move || churn(&bus))
        };
        let drivers: Vec<_> = (0..TASKS).map(start).collect();
        for driver in drivers {
            driver.join().map_err(|_| "a driver panicked")??;
        }
        end.store(1, Ordering::SeqCst);
        to_host.raise();
        events.join().map_err(|_| "the event task panicked")??;
        bus.close()?;
        monitor.join().map_err(|_| "the monitor panicked")?
    })?;
    let timeouts = kernel.timeouts.load(Ordering::Relaxed);
    println!("{} messages, {timeouts} waits timed out", TASKS * ROUNDS);
    if timeouts == 0 { Ok(()) } else { Err("a wake-up was lost".into()) }
}
