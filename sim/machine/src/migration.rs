//! Migration of the interrupt controller while the machine runs. A migration happens between two
//! accesses of the CPUs to the model.

#[cfg(test)]
mod tests;

use crate::cpu::CpuCore;
use crate::model::GicModel;
use crate::rng::Rng;
use doorbell_hardware::hyperv::HypervHost;
use doorbell_hardware::lock::lock;
use doorbell_hardware::platform::{Interleave, InterleavePoint};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vgic::Vcpu;

/// The migrations of the interrupt controller while the machine runs, from the drivers' first
/// access on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Migration {
    /// It stays.
    #[default]
    Never,
    /// Again and again it is saved, and restored from the bytes of what was saved. Mostly a fresh
    /// model is restored and takes its place, sometimes the same one is. The old model is dropped,
    /// with everything that belongs to it.
    ///
    /// Without threads, that is between any two register accesses of a driver, in handlers, and
    /// between a message and its interrupt. With threads it is between any two accesses of the CPUs
    /// to their halves of the model. Devices do not stand still: what they send meanwhile waits at
    /// the bus, as do the drivers' accesses, and reaches the fresh model.
    AtRandom {
        /// Decides when, where nothing else does, and where to.
        seed: u64,
    },
}

/// One in so many times, the model is restored where it is.
const STAY: usize = 4;
/// One in so many register accesses is overtaken by a migration.
pub(crate) const ACCESSES: usize = 100;
/// The pause between two migrations where time passes by itself.
const PAUSE: Duration = Duration::from_millis(1);
/// The migrations' own stream of random numbers.
const STREAM: u64 = 0x4d6f7665;

/// The target of a migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Destination {
    /// To a fresh model, which takes its place.
    Fresh,
    /// To itself.
    Same,
}

/// Saves the machine's model and restores it from the bytes.
pub(crate) struct Migrator {
    model: Arc<GicModel>,
    cores: Vec<Arc<CpuCore>>,
    /// The host's end of a virtual bus, which moves along.
    host: Option<Arc<HypervHost>>,
    state: Mutex<MigratorState>,
}

struct MigratorState {
    rng: Rng,
    moved: u64,
    failure: Option<String>,
}

impl Migrator {
    /// For a machine with this model and these CPUs; `None` if it stays.
    pub(crate) fn new(
        migration: Migration,
        model: &Arc<GicModel>,
        cores: &[Arc<CpuCore>],
        host: Option<Arc<HypervHost>>,
    ) -> Option<Arc<Self>> {
        let Migration::AtRandom { seed } = migration else { return None };
        let state =
            Mutex::new(MigratorState { rng: Rng::new(seed, STREAM), moved: 0, failure: None });
        Some(Arc::new(Self { model: Arc::clone(model), cores: cores.to_vec(), host, state }))
    }

    /// Moves the model, once in `times`. Did it?
    pub(crate) fn perhaps(&self, times: usize) -> bool {
        let now = lock(&self.state).rng.one_in(times);
        if now {
            self.migrate_under(|| {});
        }
        now
    }

    /// Moves the model under `load`: no CPU takes before what devices send there.
    pub(crate) fn migrate_under(&self, load: impl FnOnce()) {
        let stays = lock(&self.state).rng.one_in(STAY);
        let outcome =
            self.migrate_to(if stays { Destination::Same } else { Destination::Fresh }, load);
        let mut state = lock(&self.state);
        match outcome {
            Ok(()) => state.moved += 1,
            Err(reason) => _ = state.failure.get_or_insert(reason),
        }
    }

    /// Moves the model while no CPU accesses its half of it: between any two instructions of
    /// theirs.
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
    /// The first reason why it could not be, once.
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

/// A thread that moves the model again and again, until this is dropped.
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
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}
