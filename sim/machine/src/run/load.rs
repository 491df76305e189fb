//! The load, with one thread per device and one per kind of disturbance. A lost message never
//! blocks a device.

use super::{CpuHotplug, DeviceHotplug, Moves, Progress, RunOptions, Suspensions};
use crate::cpu::Cpus;
use crate::error::RunError;
use crate::migration::Migrator;
use crate::oracle::VectorRecord;
use crate::rng::Rng;
use crate::system::{AffinityChange, Device, DeviceVector, SuspendOutcome, System};
use doorbell_hardware::lock::lock;
use std::hint::spin_loop;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

/// Interval between progress reports.
const TICK: Duration = Duration::from_millis(50);
/// Missing messages count as lost once no message has arrived anywhere for this long.
const SETTLE: Duration = Duration::from_secs(10);
/// Minimum number of times that a waiting thread must have run during [`SETTLE`] before messages
/// count as lost, or a device as unable to send. On a heavily loaded host, threads run so rarely
/// that elapsed time alone proves nothing; if the waiting thread could run this often, so could the
/// CPUs' threads.
const SETTLE_TURNS: u32 = 2_000;
/// Maximum time for which a device may be unable to send once an earlier message has failed to
/// arrive in time. Must be longer than it takes to remove a device and add it again.
const UNABLE: Duration = Duration::from_secs(2);
/// Number of times that a device with [`WaitPolicy::Some`] checks for a handler run before it sends
/// the next message anyway.
const SOME_TURNS: u32 = 20;
/// Maximum time for which a device waits for its handler before it checks again whether the run has
/// failed or the message is lost.
const HANDLER_PAUSE: Duration = Duration::from_millis(1);
/// Number of times that a device checks for a handler run before it counts its message as lost,
/// once another message has failed to arrive in time.
const IN_VAIN_TURNS: u32 = 40;
/// Pauses between affinity changes, between the rarer disturbances, and between suspends.
const MOVE_PAUSE: Duration = Duration::from_micros(200);
const RARE_PAUSE: Duration = Duration::from_millis(4);
const SUSPEND_PAUSE: Duration = Duration::from_millis(8);

/// Number of disturbances of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct DisturbanceCounts {
    pub(crate) moves: u64,
    pub(crate) readded: u64,
    pub(crate) replugged: u64,
    pub(crate) suspended: u64,
    pub(crate) migrated: u64,
}

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
    /// The time since which the device has been unable to send, and the number of attempts since
    /// then.
    unable_since: Option<(Instant, u32)>,
}

/// A wait for messages to be handled. The wait times out once no message has been handled for
/// [`SETTLE`], during which the waiting thread must have woken at least [`SETTLE_TURNS`] times.
#[derive(Default)]
struct Silence {
    turns: u32,
    /// The time at which a message was last seen to be handled, and the number of messages handled
    /// by then.
    start: Option<(Instant, u64)>,
}

impl Silence {
    /// Counts one poll by the waiting thread, and returns `true` if no message has been handled for
    /// too long. `arrivals` must return the number of messages handled so far; it is not called
    /// during short waits.
    fn is_final(&mut self, arrivals: impl Fn() -> u64) -> bool {
        self.turns += 1;
        if self.turns < SETTLE_TURNS {
            return false;
        }
        match self.start {
            Some((since, _)) if since.elapsed() < SETTLE => self.turns -= 1,
            Some((_, before)) if before == arrivals() => return true,
            _ => *self = Self { turns: 0, start: Some((Instant::now(), arrivals())) },
        }
        false
    }
}

/// A load on a running machine.
pub(super) struct Load<'a> {
    system: &'a System,
    cpus: &'a (dyn Cpus + Sync),
    options: &'a RunOptions,
    /// Migrates the model, if migration is enabled.
    migrator: Option<&'a Migrator>,
    /// Number of devices that are still sending.
    sending: AtomicUsize,
    /// Set once the disturbances have ended.
    quiet: AtomicBool,
    /// Set once a message has failed to arrive in time. Later waits are then shorter.
    hopeless: AtomicBool,
    failure: Mutex<Option<RunError>>,
    counts: Mutex<DisturbanceCounts>,
}

impl<'a> Load<'a> {
    pub(super) fn new(
        system: &'a System,
        cpus: &'a (dyn Cpus + Sync),
        options: &'a RunOptions,
        migrator: Option<&'a Migrator>,
    ) -> Self {
        Self {
            system,
            cpus,
            options,
            migrator,
            sending: AtomicUsize::new(0),
            quiet: AtomicBool::new(false),
            hopeless: AtomicBool::new(false),
            failure: Mutex::new(None),
            counts: Mutex::default(),
        }
    }

    /// Runs the load until every message has been sent, and each has either arrived or been lost.
    pub(super) fn run(
        &self,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<DisturbanceCounts, RunError> {
        let active: Vec<_> =
            self.system.devices.iter().filter(|device| !device.vectors().is_empty()).collect();
        self.sending.store(active.len(), Ordering::SeqCst);
        thread::scope(|scope| {
            let disturbers = self.disturbers(scope);
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
        self.settle(progress);
        if let Some(migrator) = self.migrator.filter(|_| self.keeps_one_back()) {
            migrator.migrate_under(|| self.system.send_each());
            self.settle(progress);
        }
        match lock(&self.failure).take() {
            Some(error) => Err(error),
            None => Ok(*lock(&self.counts)),
        }
    }

    fn disturbers<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<ScopedJoinHandle<'scope, ()>> {
        let disturbances = self.options.disturbances;
        let mut disturbers = Vec::new();
        if disturbances.moves == Moves::Random {
            disturbers.push(scope.spawn(|| self.move_vectors(Rng::new(self.options.seed, 1))));
        }
        if disturbances.cpus == CpuHotplug::Replugged {
            disturbers.push(scope.spawn(|| self.replug_cpus(Rng::new(self.options.seed, 2))));
        }
        if disturbances.suspensions == Suspensions::NowAndThen {
            disturbers.push(scope.spawn(|| self.suspend_machine()));
        }
        if disturbances.devices == DeviceHotplug::Readded {
            disturbers.push(scope.spawn(|| self.readd_devices(Rng::new(self.options.seed, 3))));
        }
        disturbers
    }

    /// Runs a device: sends all messages of its vectors, and draws a random wait policy for each
    /// message.
    fn device(&self, device: &Device, mut rng: Rng) {
        let messages = self.options.messages - u32::from(self.keeps_one_back());
        let vectors = device.vectors().iter();
        let mut left: Vec<_> =
            vectors.map(|vector| RemainingSends { vector, messages, unable_since: None }).collect();
        left.retain(|_| messages != 0);
        while !left.is_empty() && !self.has_failed() {
            let start = rng.below(left.len());
            left.rotate_left(start);
            for one in &mut left {
                // Send the last message only after the previous one has been handled; otherwise, it
                // could hide the loss of the previous one.
                let wait_policy = if one.messages == 1 {
                    WaitPolicy::Endless
                } else {
                    WaitPolicy::random(&mut rng)
                };
                if !self.await_handler(one.vector, wait_policy) {
                    one.messages = 0;
                } else if device.send(one.vector) {
                    one.messages -= 1;
                    one.unable_since = None;
                } else if self.is_unable(one.unable_since.get_or_insert((Instant::now(), 0))) {
                    one.messages = 0;
                } else if one.vector.record.may_send() {
                    thread::sleep(Duration::from_micros(100));
                } else {
                    one.vector.record.wait_unless(VectorRecord::may_send, HANDLER_PAUSE);
                }
            }
            left.retain(|one| one.messages != 0);
        }
        self.sending.fetch_sub(1, Ordering::SeqCst);
    }

    /// Counts an attempt to send, and returns `true` if the device has been unable to send for so
    /// long that the run gives up on it.
    fn is_unable(&self, (since, attempts): &mut (Instant, u32)) -> bool {
        *attempts += 1;
        let wait_policy = if self.hopeless.load(Ordering::Relaxed) { UNABLE } else { SETTLE };
        // The thread that adds devices again runs about as often as this one.
        let is_unable = *attempts > SETTLE_TURNS && since.elapsed() > wait_policy;
        if is_unable {
            self.hopeless.store(true, Ordering::Relaxed);
        }
        is_unable
    }

    /// Returns `true` if each vector's last message must be sent only after the disturbances have
    /// ended, as in `simulate::scheduler`.
    fn keeps_one_back(&self) -> bool {
        self.migrator.is_some() && self.options.messages != 0
    }

    /// Waits until the vector's last message has been handled, for as long as `wait_policy`
    /// permits. Returns `false` if the message was lost. The device must then not send another
    /// message, because that message would hide the loss.
    fn await_handler(&self, vector: &DeviceVector, wait_policy: WaitPolicy) -> bool {
        let record = &vector.record;
        match wait_policy {
            WaitPolicy::None => return true,
            WaitPolicy::Some => {
                (0..SOME_TURNS).take_while(|_| !record.is_settled()).for_each(|_| spin_loop());
                return true;
            }
            WaitPolicy::Endless => {}
        }
        let mut silence = Silence::default();
        while !record.is_settled() && !self.has_failed() {
            let in_vain = self.hopeless.load(Ordering::Relaxed) && silence.turns > IN_VAIN_TURNS;
            if in_vain || silence.is_final(|| self.arrivals()) {
                self.hopeless.store(true, Ordering::Relaxed);
                return false;
            }
            record.wait_unless(VectorRecord::is_settled, HANDLER_PAUSE);
        }
        true
    }

    fn move_vectors(&self, mut rng: Rng) {
        let active: Vec<_> =
            self.system.devices.iter().filter(|device| !device.vectors().is_empty()).collect();
        self.administrate(MOVE_PAUSE, |counts| {
            let Some(device) = rng.pick(&active) else { return Ok(()) };
            let index = rng.below(device.vectors().len());
            let to = rng.cpu(self.system.cpus);
            let _awake = self.system.awake();
            let moved = self.system.move_vector(device, index, to)?;
            lock(counts).moves += u64::from(moved == AffinityChange::Done);
            Ok(())
        });
    }

    fn replug_cpus(&self, mut rng: Rng) {
        self.administrate(RARE_PAUSE, |counts| {
            let _awake = self.system.awake();
            let pause = |_: &mut Rng| thread::sleep(RARE_PAUSE);
            let replugged = self.system.replug_any_cpu(self.cpus, &mut rng, pause)?;
            lock(counts).replugged += u64::from(replugged);
            Ok(())
        });
    }

    fn readd_devices(&self, mut rng: Rng) {
        self.administrate(RARE_PAUSE, |counts| {
            let _awake = self.system.awake();
            lock(counts).readded += u64::from(self.system.readd_any_device(&mut rng)?);
            Ok(())
        });
    }

    fn suspend_machine(&self) {
        self.administrate(SUSPEND_PAUSE, |counts| {
            let suspended = self.system.suspend_and_resume(self.cpus)?;
            lock(counts).suspended += u64::from(suspended == SuspendOutcome::Done);
            Ok(())
        });
    }

    /// Performs a disturbance once, then repeats it until the devices have sent all their messages.
    /// A failure ends the run.
    fn administrate(
        &self,
        pause: Duration,
        mut act: impl FnMut(&Mutex<DisturbanceCounts>) -> Result<(), String>,
    ) {
        loop {
            if let Err(reason) = act(&self.counts) {
                let operation = "a change while the machine was busy".to_owned();
                lock(&self.failure).get_or_insert(RunError::Driver { operation, reason });
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
    fn settle(&self, progress: &mut dyn FnMut(Progress)) {
        let since = Instant::now();
        let mut silence = Silence::default();
        loop {
            let is_settled = self.vectors().all(|vector| vector.record.is_settled());
            let is_hopeless = self.hopeless.load(Ordering::Relaxed) && since.elapsed() > TICK;
            if is_settled || is_hopeless || silence.is_final(|| self.arrivals()) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        progress(self.progress());
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

    /// Returns the number of messages seen by handlers.
    fn arrivals(&self) -> u64 {
        self.vectors().map(|vector| vector.record.seen()).sum()
    }

    fn vectors(&self) -> impl Iterator<Item = &'a DeviceVector> + use<'a> {
        self.system
            .devices
            .iter()
            .flat_map(|device| device.vectors().iter().map(|vector| &**vector))
    }
}
