//! The model of the GIC as the machine holds it: by a handle, so that a fresh model can take its
//! place.

use doorbell_hardware::lock::lock;
use doorbell_hardware::ram::Ram;
use msi_types::{Cpu, Delivery, DeviceId, Kick, Level, Line, MsiMessage, SetLine, SignalMsi};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use vgic::saved_state::SavedState;
use vgic::{ConfigError, FaultReason, Vcpu, Vgic, VgicConfig};

/// A change to a saved state before it is sent.
pub(crate) type StateFilter = Box<dyn Fn(SavedState) -> SavedState + Send + Sync>;

/// The machine's one model. Messages and register accesses reach it here; only the CPUs have their
/// halves of it.
pub(crate) struct GicModel {
    config: VgicConfig,
    memory: Arc<Ram>,
    kick: Arc<dyn Kick>,
    current: RwLock<Current>,
    /// Halves of the CPUs that take no part, which come last.
    idle: Mutex<Vec<Vcpu>>,
    /// Nothing, unless somebody wants to see whether it is noticed.
    wire: OnceLock<StateFilter>,
}

struct Current {
    vgic: Arc<Vgic>,
    its: Vec<Arc<dyn SignalMsi<DeviceId>>>,
    /// Faults of the guest that models before this one recorded.
    earlier_faults: u64,
}

impl Current {
    fn new(vgic: Arc<Vgic>, earlier_faults: u64) -> Self {
        let its = (0..).map_while(|index| vgic.its(index)).collect();
        Self { vgic, its, earlier_faults }
    }

    fn guest_faults(&self) -> u64 {
        let events = self.vgic.events();
        // Messages of a device that is being removed are no fault of the drivers.
        let dropped = [FaultReason::UnmappedMessage, FaultReason::DisabledMessage];
        let dropped: u64 = dropped.map(|reason| events.count(reason)).iter().sum();
        self.earlier_faults + events.total() - dropped
    }

    /// Lets go of the model. Fails if anybody else does not.
    fn leave_behind(self) -> Result<(), String> {
        let vgic = Arc::downgrade(&self.vgic);
        let its: Vec<_> = self.its.iter().map(Arc::downgrade).collect();
        drop(self);
        if vgic.strong_count() == 0 && its.iter().all(|its| its.strong_count() == 0) {
            Ok(())
        } else {
            Err("somebody refers to the model that was left behind".to_owned())
        }
    }
}

impl GicModel {
    /// A model, and its CPUs' halves.
    pub(crate) fn new(
        config: VgicConfig,
        memory: Arc<Ram>,
        kick: Arc<dyn Kick>,
    ) -> Result<(Arc<Self>, Vec<Vcpu>), ConfigError> {
        let (vgic, vcpus) = Vgic::new(config.clone(), Arc::clone(&memory) as _, Arc::clone(&kick))?;
        let current = RwLock::new(Current::new(vgic, 0));
        let (idle, wire) = (Mutex::default(), OnceLock::new());
        Ok((Arc::new(Self { config, memory, kick, current, idle, wire }), vcpus))
    }

    /// Keeps the halves of the CPUs that take no part: all behind those that do.
    pub(crate) fn keep_idle(&self, vcpus: impl IntoIterator<Item = Vcpu>) {
        lock(&self.idle).extend(vcpus);
    }

    /// From now on, this happens to what is saved.
    pub(crate) fn tamper(&self, wire: StateFilter) {
        assert!(self.wire.set(wire).is_ok(), "somebody does already");
    }

    /// Puts a fresh model in the place of this one. Of what was, it gets the bytes of what this one
    /// saves. `vcpus` are the halves of the CPUs that take part, in their order; nobody else may
    /// have any.
    ///
    /// Accesses and messages meanwhile wait at the bus, and reach the fresh model.
    ///
    /// # Errors
    /// The model's reason, or that somebody refers to the old model still.
    pub(crate) fn exchange(&self, vcpus: &mut [&mut Vcpu]) -> Result<(), String> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut idle = lock(&self.idle);
        let mut all: Vec<_> =
            vcpus.iter_mut().map(|vcpu| &mut **vcpu).chain(idle.iter_mut()).collect();
        let sent = self.save(&current.vgic, &mut all)?;
        let made =
            Vgic::new(self.config.clone(), Arc::clone(&self.memory) as _, Arc::clone(&self.kick));
        let (vgic, mut fresh) = made.map_err(|error| error.to_string())?;
        restore(&vgic, &mut fresh.iter_mut().collect::<Vec<_>>(), &sent)?;
        for (old, fresh) in all.into_iter().zip(fresh) {
            *old = fresh;
        }
        let fresh = Current::new(vgic, current.guest_faults());
        let old = std::mem::replace(&mut *current, fresh);
        // The state does not say who sleeps: every CPU looks for interrupts before it sleeps again.
        self.config.cpus.iter().zip(0..).for_each(|(_, cpu)| self.kick.kick(Cpu::new(cpu)));
        old.leave_behind()
    }

    /// Saves the model and restores it, whatever it was in, from the bytes; for the rest as
    /// [`exchange`](Self::exchange).
    ///
    /// # Errors
    /// The model's reason.
    pub(crate) fn reload(&self, vcpus: &mut [&mut Vcpu]) -> Result<(), String> {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut idle = lock(&self.idle);
        let mut all: Vec<_> =
            vcpus.iter_mut().map(|vcpu| &mut **vcpu).chain(idle.iter_mut()).collect();
        let sent = self.save(&current.vgic, &mut all)?;
        restore(&current.vgic, &mut all, &sent)
    }

    /// Turns the model's power off and on again. Only RAM keeps its contents.
    ///
    /// # Errors
    /// The model's reason.
    pub(crate) fn lose_power(&self, vcpus: &mut [&mut Vcpu]) -> Result<(), String> {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut idle = lock(&self.idle);
        let all = vcpus.iter_mut().map(|vcpu| &mut **vcpu).chain(idle.iter_mut());
        let mut frozen = current.vgic.freeze(all).map_err(|error| error.to_string())?;
        frozen.lose_power().map_err(|error| error.to_string())
    }

    /// Has the model of the moment do something.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&Vgic) -> R) -> R {
        act(&self.current().vgic)
    }

    /// The doorbell of the ITS at this index of the configuration, of whichever model there is.
    pub(crate) fn its(self: &Arc<Self>, index: usize) -> Arc<dyn SignalMsi<DeviceId>> {
        Arc::new(Doorbell { model: Arc::clone(self), index })
    }

    /// Faults of the guest, devices' messages aside.
    pub(crate) fn guest_faults(&self) -> u64 {
        self.current().guest_faults()
    }

    /// The configuration of every model here.
    pub(crate) const fn config(&self) -> &VgicConfig {
        &self.config
    }

    /// Something that only refers to the model of the moment.
    #[cfg(test)]
    pub(crate) fn watch(&self) -> std::sync::Weak<Vgic> {
        Arc::downgrade(&self.current().vgic)
    }

    /// The model's state as bytes.
    fn save(&self, vgic: &Vgic, vcpus: &mut [&mut Vcpu]) -> Result<Vec<u8>, String> {
        let frozen = vgic
            .freeze(vcpus.iter_mut().map(|vcpu| &mut **vcpu))
            .map_err(|error| error.to_string())?;
        let saved = frozen.save().map_err(|error| error.to_string())?;
        let sent = match self.wire.get() {
            Some(wire) => wire(saved),
            None => saved,
        };
        postcard::to_allocvec(&sent).map_err(|error| error.to_string())
    }

    fn current(&self) -> RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GicModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GicModel").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Makes the model what the bytes say. Saved again, it must say the same.
fn restore(vgic: &Vgic, vcpus: &mut [&mut Vcpu], sent: &[u8]) -> Result<(), String> {
    let received: SavedState = postcard::from_bytes(sent).map_err(|error| error.to_string())?;
    let mut frozen =
        vgic.freeze(vcpus.iter_mut().map(|vcpu| &mut **vcpu)).map_err(|error| error.to_string())?;
    frozen.restore(&received).map_err(|error| error.to_string())?;
    if frozen.save().as_ref() == Ok(&received) {
        Ok(())
    } else {
        Err("a restored machine saves as another one".to_owned())
    }
}

/// The doorbell of an ITS.
struct Doorbell {
    model: Arc<GicModel>,
    index: usize,
}

/// Lines of whichever model there is.
impl SetLine for GicModel {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        self.with(|vgic| vgic.set_line(line, level))
    }

    fn pulse(&self, line: Line) -> Delivery {
        self.with(|vgic| vgic.pulse(line))
    }
}

impl SignalMsi<DeviceId> for Doorbell {
    fn signal_msi(&self, from: DeviceId, message: MsiMessage) -> Delivery {
        let current = self.model.current();
        current
            .its
            .get(self.index)
            .map_or(Delivery::NoDoorbell, |its| its.signal_msi(from, message))
    }
}
