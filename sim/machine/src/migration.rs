//! Migrates the interrupt controller while the machine runs. A migration happens between two CPU
//! accesses to the model.

#[cfg(test)]
mod tests;

use crate::cpu::CpuCore;
use crate::model::GicModel;
use crate::rng::Rng;
use crate::trace::{Occurrence, Recorder};
use doorbell_hardware::hyperv::HypervHost;
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::{Interleave, InterleavePoint};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vgic::Vcpu;

/// Migrations of the interrupt controller while the machine runs. The first migration may occur at
/// the drivers' first register access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Migration {
    /// The controller is never migrated.
    #[default]
    Never,
    /// The controller is saved repeatedly, and restored from the saved bytes. Most migrations
    /// restore into a new model; the old model is dropped with everything it owns. The other
    /// migrations restore into the same model.
    ///
    /// Without threads, a migration can occur between any two register accesses of a driver, inside
    /// a handler, and between a message and the interrupt that it causes. With threads, a migration
    /// can occur between any two CPU accesses to the model. Devices keep running. If a device sends
    /// a message or a CPU accesses a register during a migration, the bus delays the access until
    /// it can reach the new model.
    AtRandom {
        /// Seed for the choice of restore targets, and for the timing of migrations where the
        /// scheduler doesn't determine it.
        seed: u64,
    },
}

/// On average, one in this many migrations restores into the same model.
const STAY: usize = 4;
/// On average, one in this many register accesses is preceded by a migration.
pub(crate) const ACCESSES: usize = 100;
/// Pause between two migrations with real threads.
const PAUSE: Duration = Duration::from_millis(1);
/// The random stream that decides when to migrate, and where to restore.
const STREAM: u64 = 0x4d6f7665;

/// The model into which a migration restores the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Destination {
    /// A new model, which replaces the old one.
    Fresh,
    /// The same model.
    Same,
}

/// Saves the machine's model and restores it from the saved bytes.
pub(crate) struct Migrator {
    model: Arc<GicModel>,
    cores: Vec<Arc<CpuCore>>,
    /// The host end of a virtual bus, which migrates together with the model.
    host: Option<Arc<HypervHost>>,
    recorder: Option<Arc<Recorder>>,
    state: Mutex<MigratorState>,
}

struct MigratorState {
    rng: Rng,
    moved: u64,
    failure: Option<String>,
}

impl Migrator {
    /// Creates the migrator of a machine with this model and these CPUs, or returns `None` if
    /// `migration` is [`Migration::Never`].
    pub(crate) fn new(
        migration: Migration,
        model: &Arc<GicModel>,
        cores: &[Arc<CpuCore>],
        host: Option<Arc<HypervHost>>,
        recorder: Option<Arc<Recorder>>,
    ) -> Option<Arc<Self>> {
        let Migration::AtRandom { seed } = migration else { return None };
        let state =
            Mutex::new(MigratorState { rng: Rng::new(seed, STREAM), moved: 0, failure: None });
        let (model, cores) = (Arc::clone(model), cores.to_vec());
        Some(Arc::new(Self { model, cores, host, recorder, state }))
    }

    /// Migrates the model with a probability of 1/`times`. Returns `true` if a migration took
    /// place.
    pub(crate) fn perhaps(&self, times: usize) -> bool {
        let now = lock(&self.state).rng.one_in(times);
        if now {
            self.migrate_under(|| {});
        }
        now
    }

    /// Runs `load`, then migrates the model before any CPU can take the resulting interrupts.
    pub(crate) fn migrate_under(&self, load: impl FnOnce()) {
        let stays = lock(&self.state).rng.one_in(STAY);
        let outcome =
            self.migrate_to(if stays { Destination::Same } else { Destination::Fresh }, load);
        let mut state = lock(&self.state);
        match outcome {
            Ok(()) => {
                state.moved += 1;
                let recorder = self.recorder.iter();
                recorder.for_each(|recorder| recorder.record_of(None, Occurrence::Migrated));
            }
            Err(reason) => _ = state.failure.get_or_insert(reason),
        }
    }

    /// Migrates the model while no CPU is accessing it, i.e. between any two CPU instructions.
    fn migrate_to(&self, to: Destination, load: impl FnOnce()) -> Result<(), String> {
        let mut halves: Vec<_> = self.cores.iter().map(|core| core.vcpu()).collect();
        let mut vcpus: Vec<&mut Vcpu> = halves.iter_mut().map(|half| &mut **half).collect();
        load();
        match to {
            Destination::Fresh => self.model.exchange(&mut vcpus)?,
            Destination::Same => self.model.reload(&mut vcpus)?,
        }
        self.host.as_ref().map_or(Ok(()), |host| host.migrate())
    }

    /// Returns the number of migrations.
    ///
    /// # Errors
    /// Returns an error if a migration failed; the error holds the reason for the first failure.
    pub(crate) fn moved(&self) -> Result<u64, String> {
        let state = lock(&self.state);
        state.failure.clone().map_or(Ok(state.moved), Err)
    }
}

impl Interleave for Migrator {
    fn at(&self, _: InterleavePoint) {
        self.perhaps(ACCESSES);
    }
}

/// A thread that migrates the model repeatedly until this value is dropped.
pub(crate) struct MigratorThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MigratorThread {
    pub(crate) fn start(migrator: &Arc<Migrator>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (migrator, stopped) = (Arc::clone(migrator), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                migrator.migrate_under(|| {});
                thread::sleep(PAUSE);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for MigratorThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // If the thread panicked, it has already printed its message.
            let _ = thread.join();
        }
    }
}
