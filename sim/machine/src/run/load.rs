//! The load, with one thread per device and one per kind of disturbance. A lost message never
//! blocks a device.
//!
//! A message is lost if its handler has not seen it although nothing can happen any more: all CPUs
//! sleep, no CPU has been kicked, and no operation on the vector is in progress. How long that
//! takes does not matter.

use super::{Progress, RunOptions};
use crate::cpu::CpuThreads;
use crate::disturbance::{Disturbance, DisturbanceCounts};
use crate::error::RunError;
use crate::ledger::VectorRecord;
use crate::migration::Migrator;
use crate::rng::Rng;
use crate::system::{Device, DeviceVector, System};
use doorbell_hardware::lock::lock;
use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Interval between progress reports.
const TICK: Duration = Duration::from_millis(50);
/// Number of consecutive attempts to send while no operation is in progress, after which a device
/// is unable to send for good. On a loaded host, the thread that lets it send again may not run for
/// many attempts.
const ATTEMPTS: u32 = 5_000;
/// Number of consecutive looks, each of which finds that nothing can make a handler see a message,
/// after which the message is lost.
const LOOKS: u32 = 200;
/// Number of times that a device with [`WaitPolicy::Some`] checks for a handler run before it sends
/// the next message anyway.
const SOME_TURNS: u32 = 20;
/// Maximum time for which a device waits for its handler before it checks again whether the run has
/// failed or the message is lost.
const HANDLER_PAUSE: Duration = Duration::from_millis(1);
/// Maximum time to wait for a handler. This limit only ends what hangs, such as a CPU that takes
/// interrupts forever.
const HANG: Duration = Duration::from_mins(10);
/// Pauses between affinity changes, between the rarer disturbances, and between suspends.
const MOVE_PAUSE: Duration = Duration::from_micros(200);
const RARE_PAUSE: Duration = Duration::from_millis(4);
const SUSPEND_PAUSE: Duration = Duration::from_millis(8);

/// The policy that determines how long a device waits for the handler of its last message before
/// sending the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum WaitPolicy {
    /// Do not wait.
    None,
    /// Wait for a limited time.
    Some,
    /// Wait until the handler has run or the message is lost.
    Endless,
}

impl WaitPolicy {
    fn random(rng: &mut Rng) -> Self {
        match rng.below(3) {
            0 => Self::None,
            1 => Self::Some,
            _ => Self::Endless,
        }
    }
}

/// The messages that remain to be sent on a vector.
struct RemainingSends<'a> {
    vector: &'a DeviceVector,
    messages: u32,
    /// Number of consecutive attempts at which the device was unable to send.
    unable: u32,
}

/// A load on a running machine.
pub(super) struct Load<'a> {
    system: &'a System,
    cpus: &'a CpuThreads,
    options: &'a RunOptions,
    /// Migrates the model, if migration is enabled.
    migrator: Option<&'a Migrator>,
    /// Number of devices that are still sending.
    sending: AtomicUsize,
    /// Set once the disturbances have ended.
    quiet: AtomicBool,
    /// Set once a wait has reached [`HANG`]; no other waits as long.
    hangs: AtomicBool,
    failure: Mutex<Option<RunError>>,
    counts: Mutex<DisturbanceCounts>,
}

impl<'a> Load<'a> {
    pub(super) fn new(
        system: &'a System,
        cpus: &'a CpuThreads,
        options: &'a RunOptions,
        migrator: Option<&'a Migrator>,
    ) -> Self {
        let (sending, quiet, hangs, failure, counts) = Default::default();
        Self { system, cpus, options, migrator, sending, quiet, hangs, failure, counts }
    }

    /// Runs the load until every message has been sent, and each has either arrived or been lost.
    pub(super) fn run(
        &self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<DisturbanceCounts, RunError> {
        let active = self.system.active();
        self.sending.store(active.len(), Ordering::SeqCst);
        thread::scope(|scope| {
            let disturbers: Vec<_> = self
                .options
                .disturbances
                .iter()
                .zip(1..)
                .map(|(kind, stream)| {
                    let rng = Rng::new(self.options.seed, stream);
                    scope.spawn(move || self.disturb(*kind, rng))
                })
                .collect();
            for (device, stream) in active.iter().zip(100..) {
                scope.spawn(move || self.device(device, Rng::new(self.options.seed, stream)));
            }
            self.watch(progress, || self.sending.load(Ordering::SeqCst) == 0);
            self.quiet.store(true, Ordering::SeqCst);
            for disturber in disturbers {
                // If a thread panicked, it has already printed its message, and the result shows
                // the work that it left unfinished.
                let _ = disturber.join();
            }
        });
        self.settle();
        if let Some(migrator) = self.migrator.filter(|_| self.keeps_one_back()) {
            migrator.migrate_under(|| self.system.send_each());
            self.settle();
        }
        progress(self.progress());
        match lock(&self.failure).take() {
            Some(error) => Err(error),
            None => Ok(*lock(&self.counts)),
        }
    }

    /// Runs a device: sends all messages of its vectors, and draws a random wait policy for each
    /// message.
    fn device(&self, device: &Device, mut rng: Rng) {
        let messages = self.options.messages - u32::from(self.keeps_one_back());
        let vectors = device.vectors().iter();
        let mut left: Vec<_> =
            vectors.map(|vector| RemainingSends { vector, messages, unable: 0 }).collect();
        left.retain(|_| messages != 0);
        while !left.is_empty() && !self.has_failed() {
            let start = rng.below(left.len());
            left.rotate_left(start);
            for one in &mut left {
                self.send(device, one, &mut rng);
            }
            left.retain(|one| one.messages != 0);
        }
        self.sending.fetch_sub(1, Ordering::SeqCst);
    }

    /// Sends the next message of a vector, or gives up on the vector.
    fn send(&self, device: &Device, one: &mut RemainingSends<'_>, rng: &mut Rng) {
        let record = &one.vector.record;
        // Send the last message only after the previous one has been handled; otherwise, it could
        // hide the loss of the previous one.
        let wait_policy =
            if one.messages == 1 { WaitPolicy::Endless } else { WaitPolicy::random(rng) };
        if !self.await_handler(record, wait_policy) {
            one.messages = 0;
        } else if device.send(one.vector) {
            (one.messages, one.unable) = (one.messages - 1, 0);
        } else if !record.may_send() {
            record.wait_unless(VectorRecord::may_send, HANDLER_PAUSE);
        } else {
            one.unable += u32::from(record.operations_ended().is_some());
            if one.unable == ATTEMPTS {
                one.messages = 0;
            }
            thread::sleep(Duration::from_micros(100));
        }
    }

    /// Returns `true` if each vector's last message must be sent only after the disturbances have
    /// ended, as in `simulate::scheduler`.
    fn keeps_one_back(&self) -> bool {
        self.migrator.is_some() && self.options.messages != 0
    }

    /// Waits until the vector's last message has been handled, for as long as `wait_policy`
    /// permits. Returns `false` if the message was lost. The device must then not send another
    /// message, because that message would hide the loss.
    fn await_handler(&self, record: &VectorRecord, wait_policy: WaitPolicy) -> bool {
        match wait_policy {
            WaitPolicy::None => return true,
            WaitPolicy::Some => {
                (0..SOME_TURNS).take_while(|_| !record.is_settled()).for_each(|_| spin_loop());
                return true;
            }
            WaitPolicy::Endless => {}
        }
        let (start, mut looks) = (Instant::now(), 0);
        while !record.is_settled() && !self.has_failed() {
            if start.elapsed() > HANG {
                self.hangs.store(true, Ordering::SeqCst);
            }
            looks = if self.is_lost(record) { looks + 1 } else { 0 };
            if looks == LOOKS || self.hangs.load(Ordering::SeqCst) {
                return false;
            }
            record.wait_unless(VectorRecord::is_settled, HANDLER_PAUSE);
        }
        true
    }

    /// Returns `true` if nothing can make the handler see the vector's last message. The device
    /// must not be sending.
    fn is_lost(&self, record: &VectorRecord) -> bool {
        let before = record.operations_ended();
        before.is_some()
            && self.cpus.are_asleep()
            && before == record.operations_ended()
            && !record.is_settled()
    }

    /// Performs a disturbance once, then repeats it until the devices have sent all their messages.
    /// A failure ends the run.
    fn disturb(&self, kind: Disturbance, mut rng: Rng) {
        let pause = match kind {
            Disturbance::Moves => MOVE_PAUSE,
            Disturbance::CpuHotplug | Disturbance::DeviceHotplug => RARE_PAUSE,
            Disturbance::Suspensions => SUSPEND_PAUSE,
        };
        loop {
            let meanwhile = |_: &mut Rng| thread::sleep(RARE_PAUSE);
            match self.system.disturb(kind, self.cpus, &mut rng, meanwhile) {
                Ok(done) => lock(&self.counts).count(kind, done),
                Err(reason) => {
                    lock(&self.failure).get_or_insert(RunError::of_disturbance(reason));
                }
            }
            if self.quiet.load(Ordering::SeqCst) || self.has_failed() {
                return;
            }
            thread::sleep(pause);
        }
    }

    fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Waits until the last messages have been handled.
    fn settle(&self) {
        for vector in self.vectors() {
            self.await_handler(&vector.record, WaitPolicy::Endless);
        }
    }

    /// Reports progress until `done` returns `true`.
    fn watch(&self, progress: &mut dyn FnMut(Progress), done: impl Fn() -> bool) {
        let mut shown = Instant::now();
        progress(self.progress());
        while !done() {
            thread::sleep(Duration::from_millis(1));
            if shown.elapsed() > TICK {
                progress(self.progress());
                shown = Instant::now();
            }
        }
    }

    fn progress(&self) -> Progress {
        let count = u64::try_from(self.vectors().count()).unwrap_or(u64::MAX);
        Progress {
            sent: self.vectors().map(|vector| vector.record.sent()).sum(),
            total: count * u64::from(self.options.messages),
        }
    }

    fn vectors(&self) -> impl Iterator<Item = &'a DeviceVector> + use<'a> {
        self.system.devices.iter().flat_map(Device::vectors).map(|vector| &**vector)
    }
}
