//! The machine's handle on the GIC model. The handle lets a migration replace the model with a new
//! one.

use doorbell_hardware::lock::lock;
use doorbell_hardware::ram::Ram;
use msi_types::{Cpu, Delivery, DeviceId, Kick, Level, Line, MsiMessage, SetLine, SignalMsi};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use vgic::saved_state::SavedState;
use vgic::{ConfigError, FaultReason, Vcpu, Vgic, VgicConfig};

/// A change applied to a saved state before it is restored.
pub(crate) type StateFilter = Box<dyn Fn(SavedState) -> SavedState + Send + Sync>;

/// The machine's single model. Devices' messages and register accesses reach the model through this
/// handle; only the CPUs have direct access to their halves of the model.
pub(crate) struct GicModel {
    config: VgicConfig,
    memory: Arc<Ram>,
    kick: Arc<dyn Kick>,
    current: RwLock<Current>,
    /// The halves of the CPUs that don't take part in the run; these CPUs have the highest numbers.
    idle: Mutex<Vec<Vcpu>>,
    /// Filter applied to each saved state. Only tests set the filter, to check that a run detects
    /// lost state.
    wire: OnceLock<StateFilter>,
}

struct Current {
    vgic: Arc<Vgic>,
    its: Vec<Arc<dyn SignalMsi<DeviceId>>>,
    /// Guest faults that earlier models recorded.
    earlier_faults: u64,
}

impl Current {
    fn new(vgic: Arc<Vgic>, earlier_faults: u64) -> Self {
        let its = (0..).map_while(|index| vgic.its(index)).collect();
        Self { vgic, its, earlier_faults }
    }

    fn guest_faults(&self) -> u64 {
        let events = self.vgic.events();
        // A message from a device that is being removed is not the driver's fault.
        let dropped = FaultReason::DROPPED_MESSAGES.map(|reason| events.count(reason));
        let dropped: u64 = dropped.iter().sum();
        self.earlier_faults + events.total() - dropped
    }

    /// Drops the model. Fails if other references to the model remain.
    fn leave_behind(self) -> Result<(), String> {
        let vgic = Arc::downgrade(&self.vgic);
        let its: Vec<_> = self.its.iter().map(Arc::downgrade).collect();
        drop(self);
        if vgic.strong_count() == 0 && its.iter().all(|its| its.strong_count() == 0) {
            Ok(())
        } else {
            Err("references to the old model remain".to_owned())
        }
    }
}

impl GicModel {
    /// Creates a model and the CPUs' halves of it.
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

    /// Stores the halves of the CPUs that don't take part in the run. These CPUs must have higher
    /// numbers than the participating ones.
    pub(crate) fn keep_idle(&self, vcpus: impl IntoIterator<Item = Vcpu>) {
        lock(&self.idle).extend(vcpus);
    }

    /// Applies `wire` to every state saved from now on.
    #[cfg(test)]
    pub(crate) fn tamper(&self, wire: StateFilter) {
        assert!(self.wire.set(wire).is_ok(), "a filter is already set");
    }

    /// Saves the model, restores the bytes into a fresh one, and replaces the old model with it.
    /// `vcpus` must hold the halves of all participating CPUs, in order.
    ///
    /// During the exchange, the bus delays accesses and messages; afterwards, they reach the new
    /// model.
    ///
    /// # Errors
    /// Returns an error if the model cannot be saved or restored, or if references to the old model
    /// remain.
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
        // The saved state doesn't record which CPUs are asleep. The model doesn't need this
        // information, because every CPU checks for interrupts again before it sleeps.
        self.config.cpus.iter().zip(0..).for_each(|(_, cpu)| self.kick.kick(Cpu::new(cpu)));
        old.leave_behind()
    }

    /// Saves the model and restores the bytes into the same model, over its current state.
    /// Otherwise like [`exchange`](Self::exchange).
    ///
    /// # Errors
    /// Returns an error if the model cannot be saved or restored.
    pub(crate) fn reload(&self, vcpus: &mut [&mut Vcpu]) -> Result<(), String> {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut idle = lock(&self.idle);
        let mut all: Vec<_> =
            vcpus.iter_mut().map(|vcpu| &mut **vcpu).chain(idle.iter_mut()).collect();
        let sent = self.save(&current.vgic, &mut all)?;
        restore(&current.vgic, &mut all, &sent)
    }

    /// Power-cycles the model. Only RAM keeps its contents.
    ///
    /// # Errors
    /// Returns an error if the model cannot be saved or reset.
    pub(crate) fn lose_power(&self, vcpus: &mut [&mut Vcpu]) -> Result<(), String> {
        let current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut idle = lock(&self.idle);
        let all = vcpus.iter_mut().map(|vcpu| &mut **vcpu).chain(idle.iter_mut());
        let _paused: Vec<_> = all.map(Vcpu::pause).collect();
        current.vgic.lose_power().map_err(|error| error.to_string())
    }

    /// Calls `act` with the current model.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&Vgic) -> R) -> R {
        act(&self.current().vgic)
    }

    /// Returns the doorbell of the ITS at this index in the configuration. The doorbell always
    /// belongs to the current model.
    pub(crate) fn its(self: &Arc<Self>, index: usize) -> Arc<dyn SignalMsi<DeviceId>> {
        Arc::new(Doorbell { model: Arc::clone(self), index })
    }

    /// Returns the number of guest faults, not counting faults caused by messages from devices.
    pub(crate) fn guest_faults(&self) -> u64 {
        self.current().guest_faults()
    }

    /// Returns the configuration shared by all of this machine's models.
    pub(crate) const fn config(&self) -> &VgicConfig {
        &self.config
    }

    /// Returns the machine's RAM, which holds the model's tables and queues.
    pub(crate) fn memory(&self) -> &Ram {
        &self.memory
    }

    /// Returns a weak reference to the current model.
    #[cfg(test)]
    pub(crate) fn watch(&self) -> std::sync::Weak<Vgic> {
        Arc::downgrade(&self.current().vgic)
    }

    /// Saves the model's state as bytes.
    fn save(&self, vgic: &Vgic, vcpus: &mut [&mut Vcpu]) -> Result<Vec<u8>, String> {
        let _paused: Vec<_> = vcpus.iter_mut().map(|vcpu| vcpu.pause()).collect();
        let saved = vgic.save().map_err(|error| error.to_string())?;
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

msi_types::debug_by!(GicModel as "GicModel", |it| {config: it.config});

/// Restores the model from the bytes, and checks that saving it again produces the same bytes.
fn restore(vgic: &Vgic, vcpus: &mut [&mut Vcpu], sent: &[u8]) -> Result<(), String> {
    let received: SavedState = postcard::from_bytes(sent).map_err(|error| error.to_string())?;
    let _paused: Vec<_> = vcpus.iter_mut().map(|vcpu| vcpu.pause()).collect();
    vgic.restore(&received).map_err(|error| error.to_string())?;
    if vgic.save().as_ref() == Ok(&received) {
        Ok(())
    } else {
        Err("a restored machine does not save the same state".to_owned())
    }
}

/// An ITS's doorbell.
struct Doorbell {
    model: Arc<GicModel>,
    index: usize,
}

/// Sets lines on the current model.
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
