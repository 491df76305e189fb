//! Decides what happens next: a device sends a message, or a CPU takes a step.

use crate::cpu::{CpuCore, Cpus, SleepingCpus, Work};
use crate::disturbance::Disturbance;
use crate::migration::{ACCESSES, Migrator};
use crate::rng::Rng;
use crate::run::RunOptions;
use crate::system::{AffinityChange, System};
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::{Executing, Interleave, InterleavePoint};
use msi_types::Cpu;
use std::sync::{Arc, Mutex, OnceLock, Weak};

/// On average, one in this many interleave points lets other activity run before the driver
/// continues.
const OVERTAKE: usize = 6;
/// Maximum number of steps during a long handler run.
const LONG_RUN: usize = 40;
/// On average, one in this many steps migrates the model, if migration is enabled. Migrations also
/// occur between a driver's register accesses.
const STEPS: usize = 30;
/// On average, one in this many steps of a long run moves a vector.
const MOVE_MEANWHILE: usize = 8;

/// The scheduler, which runs on a single thread. Its locks only exist to satisfy the traits' `Sync`
/// bounds, and are never held during a step.
pub(super) struct Scheduler {
    cores: Vec<Arc<CpuCore>>,
    sleepers: Arc<SleepingCpus>,
    messages: u32,
    /// Set if vectors move.
    moves: bool,
    /// Migrates the model, if migration is enabled.
    migrator: Option<Arc<Migrator>>,
    /// Set once the drivers are up. Devices don't send before that.
    system: OnceLock<Weak<System>>,
    state: Mutex<SchedulerState>,
}

/// Activity of a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    /// The CPU can take a step.
    Ready,
    Asleep,
    /// The CPU is handling an interrupt, or performing a task's work.
    Busy,
}

struct SchedulerState {
    rng: Rng,
    cpus: Vec<Activity>,
    /// Vectors with messages left to send.
    left: Vec<ScheduledSends>,
    /// Number of messages sent plus interrupts taken.
    progress: usize,
    moves: u64,
    /// Set while a task runs. A second task must not start then, because it might wait forever for
    /// the first one.
    in_task: bool,
    failure: Option<String>,
}

/// The messages that remain to be sent on a vector.
#[derive(Clone, Copy)]
struct ScheduledSends {
    device: usize,
    vector: usize,
    messages: u32,
    /// Set while the vector waits for the handler of its last message; sending another message
    /// could hide the loss of the last one.
    patient: bool,
}

impl Scheduler {
    pub(super) fn new(
        cores: Vec<Arc<CpuCore>>,
        sleepers: Arc<SleepingCpus>,
        options: &RunOptions,
        migrator: Option<Arc<Migrator>>,
    ) -> Self {
        let state = SchedulerState {
            rng: Rng::new(options.seed, 0),
            cpus: vec![Activity::Ready; cores.len()],
            left: Vec::new(),
            progress: 0,
            moves: 0,
            in_task: false,
            failure: None,
        };
        Self {
            cores,
            sleepers,
            messages: options.messages,
            moves: options.disturbances.contains(&Disturbance::Moves),
            migrator,
            system: OnceLock::new(),
            state: Mutex::new(state),
        }
    }

    /// Allows the devices of `system` to send from now on.
    pub(super) fn take_over(&self, system: &Arc<System>) {
        let vectors = system.devices.iter().enumerate().flat_map(|(device, sender)| {
            let messages = self.messages - u32::from(self.keeps_one_back());
            (0..sender.vectors().len()).map(move |vector| ScheduledSends {
                device,
                vector,
                messages,
                patient: true,
            })
        });
        lock(&self.state).left = vectors.filter(|left| left.messages != 0).collect();
        // Each scheduler has a single system, so the cell is set only once.
        let _ = self.system.set(Arc::downgrade(system));
    }

    pub(super) fn has_more_to_send(&self) -> bool {
        !lock(&self.state).left.is_empty()
    }

    /// Performs one step: a device sends a message, or a CPU advances.
    pub(super) fn step(&self) {
        self.perhaps_migrate(STEPS);
        if self.draw(3) == 0 {
            self.send();
        } else {
            self.advance(self.draw(self.cores.len()));
        }
    }

    fn perhaps_migrate(&self, times: usize) {
        if let Some(migrator) = &self.migrator {
            migrator.perhaps(times);
        }
    }

    /// Returns `true` if each vector's last message is sent only after the disturbances have ended,
    /// while only migrations continue. From then on, drivers no longer resend interrupts because of
    /// a move or a CPU that went offline. Such a resend would hide the loss of the message.
    fn keeps_one_back(&self) -> bool {
        self.migrator.is_some() && self.messages != 0
    }

    /// Sends each vector's last message while the model migrates. Must be called after the
    /// disturbances have ended.
    pub(super) fn send_what_was_kept_back(&self) {
        let Some(migrator) = self.migrator.as_ref().filter(|_| self.keeps_one_back()) else {
            return;
        };
        let Some(system) = self.system.get().and_then(Weak::upgrade) else { return };
        migrator.migrate_under(|| system.send_each());
    }

    /// Performs a task's work unless another task is in progress. That task is further down the
    /// stack, so waiting for it could take forever.
    pub(super) fn as_task(&self, work: impl FnOnce() -> Result<(), String>) {
        if std::mem::replace(&mut lock(&self.state).in_task, true) {
            return;
        }
        let _executing = Executing::as_nobody();
        let result = work();
        let mut state = lock(&self.state);
        state.in_task = false;
        state.failure = state.failure.take().or(result.err());
    }

    /// Moves a random vector to a random CPU, if moves are enabled.
    pub(super) fn move_any(&self) {
        let Some(system) = self.system.get().and_then(Weak::upgrade) else { return };
        if !self.moves {
            return;
        }
        let drawn = system.draw_move(&mut lock(&self.state).rng);
        let Some((device, vector, to)) = drawn else { return };
        self.as_task(|| {
            let moved = system.move_vector(device, vector, to)?;
            lock(&self.state).moves += u64::from(moved == AffinityChange::Done);
            Ok(())
        });
    }

    /// Returns the error of the first task that failed, if any.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.state).failure.clone()
    }

    /// Lets all CPUs advance until none of them has anything left to do.
    pub(super) fn settle(&self) {
        while (0..self.cores.len()).filter(|cpu| self.advance(*cpu)).count() != 0 {}
    }

    /// Returns the number of messages sent plus interrupts taken.
    pub(super) fn progress(&self) -> usize {
        lock(&self.state).progress
    }

    /// Returns the number of vectors that have moved.
    pub(super) fn moves(&self) -> u64 {
        lock(&self.state).moves
    }

    fn while_a_handler_runs(&self) {
        for _ in 0..self.draw(LONG_RUN) {
            self.step();
            if self.draw(MOVE_MEANWHILE) == 0 {
                self.move_any();
            }
        }
    }

    fn send(&self) {
        let Some(system) = self.system.get().and_then(Weak::upgrade) else { return };
        let (chosen, ScheduledSends { device, vector, patient, .. }) = {
            let SchedulerState { rng, left, .. } = &mut *lock(&self.state);
            let chosen = rng.below(left.len());
            let Some(remaining) = left.get(chosen) else { return };
            (chosen, *remaining)
        };
        let Some(sender) = system.devices.get(device) else { return };
        let Some(records) = sender.vectors().get(vector) else { return };
        if (patient && !records.record.is_settled()) || !sender.send(records) {
            return;
        }
        let SchedulerState { rng, left, progress, .. } = &mut *lock(&self.state);
        *progress += 1;
        if let Some(remaining) = left.get_mut(chosen) {
            remaining.messages -= 1;
            remaining.patient = remaining.messages == 1 || rng.one_in(2);
        }
        left.retain(|remaining| remaining.messages != 0);
    }

    /// Lets a CPU take one step, in which it wakes up, takes an interrupt, or goes to sleep. Other
    /// CPUs may take interrupts while this one handles one. Returns `false` if the CPU has nothing
    /// to do.
    fn advance(&self, index: usize) -> bool {
        let Some(core) = self.cores.get(index) else { return false };
        match self.activity(index) {
            Activity::Busy => return false,
            Activity::Asleep => {
                let is_called = self.sleepers.answer(core.cpu());
                if is_called {
                    core.woken();
                    self.set_activity(index, Activity::Ready);
                }
                return is_called;
            }
            Activity::Ready => {}
        }
        self.set_activity(index, Activity::Busy);
        let took = core.take_one();
        self.set_activity(index, Activity::Ready);
        if took {
            lock(&self.state).progress += 1;
            return true;
        }
        let sleeps = core.may_sleep();
        if sleeps {
            self.set_activity(index, Activity::Asleep);
        }
        sleeps
    }

    fn activity(&self, index: usize) -> Activity {
        lock(&self.state).cpus.get(index).copied().unwrap_or(Activity::Busy)
    }

    fn set_activity(&self, index: usize, activity: Activity) {
        if let Some(cpu) = lock(&self.state).cpus.get_mut(index) {
            *cpu = activity;
        }
    }

    fn draw(&self, bound: usize) -> usize {
        lock(&self.state).rng.below(bound)
    }
}

impl Interleave for Scheduler {
    fn at(&self, moment: InterleavePoint) {
        self.perhaps_migrate(ACCESSES);
        if self.system.get().is_none() {
            return;
        }
        match moment {
            InterleavePoint::InHandler => self.while_a_handler_runs(),
            InterleavePoint::Unmasked if self.draw(OVERTAKE) == 0 => self.step(),
            InterleavePoint::Masked if self.draw(OVERTAKE) == 0 => self.send(),
            InterleavePoint::Unmasked | InterleavePoint::Masked => {}
        }
    }
}

impl Cpus for Scheduler {
    fn count(&self) -> usize {
        self.cores.len()
    }

    fn run_on(&self, cpu: Cpu, work: Work) {
        let Some(core) = self.cores.get(cpu.index()) else { return };
        if self.activity(cpu.index()) == Activity::Asleep {
            core.woken();
        }
        self.set_activity(cpu.index(), Activity::Busy);
        work(core);
        self.set_activity(cpu.index(), Activity::Ready);
    }
}
