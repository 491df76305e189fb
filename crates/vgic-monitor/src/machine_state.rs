//! A machine's interrupt state in one value. [`Parts`] saves and restores it in the right order.
//!
//! | step | lost without this step |
//! |---|---|
//! | the monitor stops the devices, before it calls [`Parts::save`] | a signal after the save |
//! | `save` pauses the vCPUs and settles the eventfds and functions | signals that are still in eventfds |
//! | `save` saves the controller, then the functions | |
//! | the monitor saves guest memory, and the new process restores it | the ITS's and the LPIs' tables |
//! | [`Parts::restore`] checks the functions, and restores the controller | |
//! | `restore` lowers the pins of level-triggered eventfds, and asks their devices to signal again | the end of the interrupt: no eventfd would lower its line |
//! | `restore` restores the functions | messages that are not masked |
//! | devices that drive lines themselves drive them again | a level that changed |
//! | the monitor starts the vCPUs, then the devices | |
//!
//! ```
//! # use std::sync::Arc;
//! # use std::time::Duration;
//! # use vgic_monitor::irq_routing::{GsiSpace, Inputs, Router, Sender};
//! # use vgic_monitor::irq_routing::msix::MsixTable;
//! # use vgic_monitor::machine_state::Parts;
//! # use vgic_monitor::msi_types::{Cpu, DeviceId, Kick};
//! # use vgic_monitor::vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};
//! # struct Nothing;
//! # impl Kick for Nothing { fn kick(&self, _: Cpu) {} }
//! # impl GuestMemory for Nothing {
//! #     fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
//! #         Err(MemoryFault { address })
//! #     }
//! #     fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
//! #         Err(MemoryFault { address })
//! #     }
//! # }
//! # let (gic, mut vcpus) = Vgic::new(VgicConfig::new(1), Arc::new(Nothing), Arc::new(Nothing))?;
//! # let router = Arc::new(Router::new(GsiSpace::default(), Inputs::new(gic.clone()))?);
//! let disk = MsixTable::new(2, Sender::Device(DeviceId::new(8)), router)?;
//! let parts = Parts::new(&gic).with_function("disk", &disk);
//!
//! let state = parts.save(&mut vcpus, Duration::from_secs(1))?;
//! parts.check(&state)?; // in another process, with the same parts
//! parts.restore(&mut vcpus, &state)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! On KVM, [`Parts::on_kvm`] takes the place of [`Parts::new`]. Its `save`, `check` and `restore`
//! act on a [`KvmController`], in the order that KVM requires. They take no vCPUs: the VMM must
//! stop them first.
//!
//! With the feature `serde`, a [`MachineState`] can be stored in any format. With the feature
//! `binary`, `MachineState::to_bytes` returns a form that takes at most 14 bytes per LPI whose
//! collection is mapped, where JSON takes about 100.

#[cfg(feature = "binary")]
mod bytes;
mod function;
#[cfg(feature = "serde")]
mod function_list;
mod kvm;

#[cfg(feature = "binary")]
pub use bytes::BytesError;
pub use function::{Function, FunctionError, FunctionState};
pub use kvm::KvmController;

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
#[cfg(all(feature = "std", target_os = "linux"))]
use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use irq_routing::{Attachments, MessageSink, Unsettled};
use vgic::saved_state::{NotRestorable, RestoreError, SaveError, SavedState};
use vgic::{ConfigError, Vcpu, Vgic};
use vgic_kvm::KvmError;
#[cfg(doc)]
use vgic_kvm::snapshot::KvmSnapshot;

/// Version of the format that this library writes. It also rises with the version of the
/// controller's state, because the binary form has no names of fields. The library also reads
/// version 1, whose controller's state has no shape.
pub const VERSION: u32 = 2;

/// The earlier version.
const WITHOUT_SHAPE: u32 = 1;

/// A machine's interrupt state. Guest memory is not part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(deny_unknown_fields)
)]
pub struct MachineState<S = SavedState> {
    /// Version of the format; [`VERSION`] in a state that this library saves.
    pub version: u32,
    /// State of the interrupt controller: the model's, or a [`KvmSnapshot`].
    pub gic: S,
    /// States of the functions, with their names. A state with more functions than a PCI segment
    /// (65,536) is invalid.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "function_list::deserialize"))]
    pub functions: Vec<(String, FunctionState)>,
}

/// Parts of a machine whose interrupt state is saved together. The interrupt controller is the
/// model, or a [`KvmController`].
#[derive(Clone)]
pub struct Parts<'a, C = &'a Vgic> {
    controller: C,
    functions: Vec<(&'a str, &'a dyn Function)>,
    routers: Vec<Attachments>,
    #[cfg(all(feature = "std", target_os = "linux"))]
    pollers: Vec<&'a EventfdPoller>,
    #[cfg(all(feature = "std", target_os = "linux"))]
    levels: Vec<&'a IrqfdSet>,
}

/// Reason why a machine's state was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveStateError {
    /// Two functions have the same name. The monitor is at fault.
    #[error("two functions are named {0:?}")]
    SameName(String),
    /// A part of the machine is attached to its router, but not among the parts that are saved.
    #[error("{0} is attached to the machine, but is not among the parts")]
    LeftOut(String),
    /// Signals are still being served.
    #[error(transparent)]
    Unsettled(#[from] Unsettled),
    /// The interrupt controller cannot be saved.
    #[error(transparent)]
    Gic(#[from] SaveError),
    /// KVM's controller cannot be saved.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

/// Reason why a machine's state was not restored. If the interrupt controller refused its state, it
/// is reset and the functions are unchanged. If a [`Function`] that accepted its state refused to
/// be restored, the machine is in a part of the state. Otherwise, the machine is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreStateError {
    /// The state's version is not supported.
    #[error("the state has version {0}, but this library reads versions 1 to {VERSION}")]
    Version(u32),
    /// The name does not occur once in the state and once in the machine.
    #[error("the state has {saved} functions named {name:?}, but the machine has {here}")]
    Functions {
        /// Name of the function.
        name: String,
        /// Number of functions with the name in the state.
        saved: usize,
        /// Number of functions with the name in the machine.
        here: usize,
    },
    /// A function cannot be in its saved state.
    #[error("function {name:?}: {error}")]
    Function {
        /// Name of the function.
        name: String,
        /// Reason.
        error: FunctionError,
    },
    /// The interrupt controller cannot be in its saved state.
    #[error(transparent)]
    Gic(#[from] RestoreError),
    /// The interrupt controller's configuration is invalid. Only [`Parts::check`] returns this.
    #[error(transparent)]
    Config(ConfigError),
    /// The state is that of a VM with other vCPUs or another number of ITSes.
    #[error(
        "the state has {saved_cpus} vCPUs and {saved_its} ITSes, but the VM has {cpus} and {its}, \
         or its vCPUs have other affinities or numbers"
    )]
    Machine {
        /// Number of vCPUs in the state.
        saved_cpus: usize,
        /// Number of ITSes in the state.
        saved_its: usize,
        /// Number of vCPUs in the VM.
        cpus: usize,
        /// Number of ITSes in the VM.
        its: usize,
    },
    /// KVM's controller cannot be in its saved state. [`KvmSnapshot::restore`] says when it is
    /// unchanged.
    #[error(transparent)]
    Kvm(#[from] KvmError),
}

impl<'a, C> Parts<'a, C> {
    const fn of(controller: C) -> Self {
        Self {
            controller,
            functions: Vec::new(),
            routers: Vec::new(),
            #[cfg(all(feature = "std", target_os = "linux"))]
            pollers: Vec::new(),
            #[cfg(all(feature = "std", target_os = "linux"))]
            levels: Vec::new(),
        }
    }

    /// Adds an MSI-X table, an MSI capability or a virtio device's notifier, by a name that is the
    /// same in the process that restores the machine. A device with several of them adds each with
    /// its own name.
    #[must_use]
    pub fn with_function(mut self, name: &'a str, function: &'a dyn Function) -> Self {
        self.functions.push((name, function));
        self
    }

    /// Adds a poller, whose eventfds are served before a save.
    #[cfg(all(feature = "std", target_os = "linux"))]
    #[must_use]
    pub fn with_poller(mut self, poller: &'a EventfdPoller) -> Self {
        self.pollers.push(poller);
        self
    }

    /// Adds eventfds that are bound to GSIs. They are served before a save, and after a restore,
    /// the devices of level-triggered ones are asked to signal again
    /// ([`IrqfdSet::resample_all`]).
    #[cfg(all(feature = "std", target_os = "linux"))]
    #[must_use]
    pub fn with_irqfds(mut self, irqfds: &'a IrqfdSet) -> Self {
        self.levels.push(irqfds);
        self
    }

    fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        #[cfg(all(feature = "std", target_os = "linux"))]
        {
            self.pollers.iter().try_for_each(|poller| poller.settle(limit))?;
            self.levels.iter().try_for_each(|irqfds| irqfds.settle(limit))?;
        }
        self.functions.iter().try_for_each(|(_, function)| function.settle(limit))
    }

    /// Adds the router, so that a save finds each part that signals through it and is left out.
    /// Without it, a save finds such parts only if another part signals through the same router.
    #[must_use]
    pub fn with_router(mut self, router: &dyn MessageSink) -> Self {
        self.routers.push(router.attachments());
        self
    }

    /// Checks that the names are unique, and that no part is left out.
    fn check_parts(&self) -> Result<(), SaveStateError> {
        let parts = self.functions.iter().filter_map(|(_, function)| function.attachment());
        #[cfg(all(feature = "std", target_os = "linux"))]
        let parts = parts.chain(self.levels.iter().map(|irqfds| irqfds.attachment()));
        let parts: Vec<_> = parts.collect();
        let mut all = parts.iter().map(|part| part.all()).chain(&self.routers);
        if let Some(name) = all.find_map(|all| all.missing(&parts)) {
            return Err(SaveStateError::LeftOut(name));
        }
        match self.counts(&[]).into_iter().find(|(_, (_, here))| *here > 1) {
            Some((name, _)) => Err(SaveStateError::SameName(name.to_owned())),
            None => Ok(()),
        }
    }

    fn save_functions(&self) -> Vec<(String, FunctionState)> {
        let functions = self.functions.iter();
        functions.map(|(name, function)| ((*name).to_owned(), function.save())).collect()
    }

    /// Returns how often each name occurs in saved states and in the machine.
    fn counts<'s>(
        &'s self,
        saved: &'s [(String, FunctionState)],
    ) -> BTreeMap<&'s str, (usize, usize)> {
        let mut counts = BTreeMap::<_, (usize, usize)>::new();
        for (name, _) in saved {
            counts.entry(name.as_str()).or_default().0 += 1;
        }
        for (name, _) in &self.functions {
            counts.entry(*name).or_default().1 += 1;
        }
        counts
    }

    /// Checks that the functions can be in their saved states. Returns each with its state.
    fn check_functions<'s, S>(
        &self,
        state: &'s MachineState<S>,
    ) -> Result<Vec<Restorable<'a, 's>>, RestoreStateError> {
        if !(WITHOUT_SHAPE..=VERSION).contains(&state.version) {
            return Err(RestoreStateError::Version(state.version));
        }
        let unmatched = self.counts(&state.functions).into_iter().find(|(_, of)| *of != (1, 1));
        if let Some((name, (saved, here))) = unmatched {
            return Err(RestoreStateError::Functions { name: name.to_owned(), saved, here });
        }
        let states: BTreeMap<_, _> =
            state.functions.iter().map(|(name, state)| (name.as_str(), state)).collect();
        let functions = self.functions.iter().filter_map(|(name, function)| {
            Some(Restorable { name, function: *function, state: states.get(name)? })
        });
        let functions: Vec<_> = functions.collect();
        functions.iter().try_for_each(|it| it.refusal(it.function.check(it.state)))?;
        Ok(functions)
    }

    /// Lowers the pins of level-triggered eventfds. Functions may share these pins, and drive them
    /// afterwards.
    #[cfg(all(feature = "std", target_os = "linux"))]
    fn resample_all(&self) {
        self.levels.iter().for_each(|irqfds| irqfds.resample_all());
    }

    /// Restores the functions, once the controller is restored.
    fn restore_functions(functions: Vec<Restorable<'_, '_>>) -> Result<(), RestoreStateError> {
        // A virtio device's pin depends on its table, so tables are restored first.
        let (virtio, tables): (Vec<_>, Vec<_>) =
            functions.into_iter().partition(|it| matches!(it.state, FunctionState::Virtio(_)));
        let mut functions = tables.into_iter().chain(virtio);
        functions.try_for_each(|it| it.refusal(it.function.restore(it.state)))
    }
}

impl<'a> Parts<'a> {
    /// Creates the parts of a machine without devices, whose interrupt controller is the model.
    pub const fn new(gic: &'a Vgic) -> Self {
        Self::of(gic)
    }

    /// Saves the state of a machine whose devices have stopped. Pauses the vCPUs in `vcpus` for the
    /// duration of the call; the others must already be paused. Waits at most `limit` for each
    /// poller and function.
    ///
    /// May be called repeatedly. Each function's settling reads the eventfds of its poller.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if two functions have the same name, a device still signals, a vCPU is not
    /// paused, or the heap is exhausted.
    pub fn save(
        &self,
        vcpus: &mut [Vcpu],
        limit: Duration,
    ) -> Result<MachineState, SaveStateError> {
        self.check_parts()?;
        let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        self.settle(limit)?;
        let gic = self.controller.save()?;
        Ok(MachineState { version: VERSION, gic, functions: self.save_functions() })
    }

    /// Checks that [`restore`](Self::restore) would accept a state, without changing the machine.
    /// The vCPUs may run.
    ///
    /// # Errors
    /// Returns an error if a function or the controller cannot be in the state, or the heap is
    /// exhausted. `restore` may still fail if a vCPU is not paused or the heap is exhausted.
    pub fn check(&self, state: &MachineState) -> Result<(), RestoreStateError> {
        self.check_parts_of(state).map(|_| ())
    }

    /// Checks every part of a state. Returns the functions with their states.
    fn check_parts_of<'s>(
        &self,
        state: &'s MachineState,
    ) -> Result<Vec<Restorable<'_, 's>>, RestoreStateError> {
        let functions = self.check_functions(state)?;
        let checked = self.controller.config().check_restorable(&state.gic);
        checked.map_err(|error| match error {
            NotRestorable::Config(error) => RestoreStateError::Config(error),
            NotRestorable::State(error) => RestoreStateError::Gic(error),
        })?;
        Ok(functions)
    }

    /// Restores a state. Guest memory must already have its saved contents, and the devices must
    /// have stopped. Pauses the vCPUs in `vcpus` for the duration of the call; the others must
    /// already be paused. Sends the functions' pending messages that are not masked. Devices that
    /// drive lines themselves must drive them again before the vCPUs start.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the machine cannot be in that state, a vCPU is not paused, or the heap
    /// is exhausted. A machine that refuses the state is unchanged. If the heap is exhausted later,
    /// the interrupt controller is reset, and the functions are unchanged.
    pub fn restore(
        &self,
        vcpus: &mut [Vcpu],
        state: &MachineState,
    ) -> Result<(), RestoreStateError> {
        let functions = self.check_parts_of(state)?;
        let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        self.controller.restore(&state.gic)?;
        #[cfg(all(feature = "std", target_os = "linux"))]
        self.resample_all();
        Self::restore_functions(functions)
    }
}

/// A function with its saved state.
struct Restorable<'a, 's> {
    name: &'a str,
    function: &'a dyn Function,
    state: &'s FunctionState,
}

impl Restorable<'_, '_> {
    /// Adds the function's name to an error.
    fn refusal(&self, outcome: Result<(), FunctionError>) -> Result<(), RestoreStateError> {
        outcome.map_err(|error| RestoreStateError::Function { name: self.name.to_owned(), error })
    }
}

impl<C> fmt::Debug for Parts<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.functions.iter().map(|(name, _)| name).collect();
        f.debug_struct("Parts").field("functions", &names).finish_non_exhaustive()
    }
}
