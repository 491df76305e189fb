//! Machines whose interrupt controller is KVM's.

use super::{MachineState, Parts, RestoreStateError, SaveStateError, VERSION};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use vgic::GuestMemory;
use vgic_kvm::LeftOut;
use vgic_kvm::snapshot::{KvmAttributes, KvmSnapshot, SnapshotCpu};

/// KVM's GICv3 with its ITSes, accessed through their device attributes.
pub struct KvmController<'a> {
    devices: &'a mut dyn KvmAttributes,
    cpus: Vec<SnapshotCpu>,
    its: usize,
    memory: &'a dyn GuestMemory,
}

impl<'a> KvmController<'a> {
    /// Creates the controller of a VM with these vCPUs, in the order of their numbers, and this
    /// number of ITSes.
    pub const fn new(
        devices: &'a mut dyn KvmAttributes,
        cpus: Vec<SnapshotCpu>,
        its: usize,
        memory: &'a dyn GuestMemory,
    ) -> Self {
        Self { devices, cpus, its, memory }
    }
}

impl<'a> Parts<'a, KvmController<'a>> {
    /// Creates the parts of a VM without devices, whose interrupt controller is KVM's.
    pub const fn on_kvm(controller: KvmController<'a>) -> Self {
        Self::of(controller)
    }

    /// Saves the state of a VM whose devices and vCPUs have stopped: serves the signals that are
    /// still in eventfds, makes KVM write its tables to guest memory, and reads its attributes. The
    /// VMM must save guest memory afterwards. Waits at most `limit` for each poller and function.
    ///
    /// Eventfds that are bound to a GSI in the kernel are not among the parts: settle each
    /// `KvmIrqfd` first.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if two functions have the same name, a device still signals, or KVM refuses
    /// an access.
    pub fn save(&mut self, limit: Duration) -> Result<MachineState<KvmSnapshot>, SaveStateError> {
        self.check_parts()?;
        self.settle(limit)?;
        let KvmController { devices, cpus, its, memory } = &mut self.controller;
        let gic = KvmSnapshot::take(*devices, cpus.clone(), *its, *memory)?;
        Ok(MachineState { version: VERSION, gic, functions: self.save_functions() })
    }

    /// Checks that [`restore`](Self::restore) would accept a state, and returns what KVM would
    /// leave out. Does not access the VM, but restores the state in a model of KVM's controller
    /// ([`KvmSnapshot::rehearse`]).
    ///
    /// # Errors
    /// Returns an error if a function cannot be in the state, or KVM would refuse it. `restore` may
    /// still fail if the VM has another number of interrupts, ITSes at other addresses, or another
    /// version of KVM.
    pub fn check(&self, state: &MachineState<KvmSnapshot>) -> Result<LeftOut, RestoreStateError> {
        self.check_functions(state)?;
        self.check_machine(&state.gic)?;
        Ok(state.gic.rehearse()?)
    }

    /// Restores a state on a VM that has not run. Guest memory must already have its saved
    /// contents, and the devices must have stopped. Sends the functions' pending messages that are
    /// not masked. Devices that drive lines themselves must drive them again before the vCPUs
    /// start, and those with level-triggered eventfds in the kernel must signal again if the cause
    /// of their interrupt persists.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the VM cannot be in that state. See [`KvmSnapshot::restore`].
    pub fn restore(&mut self, state: &MachineState<KvmSnapshot>) -> Result<(), RestoreStateError> {
        let functions = self.check_functions(state)?;
        self.check_machine(&state.gic)?;
        state.gic.restore(self.controller.devices)?;
        #[cfg(all(feature = "std", target_os = "linux"))]
        self.resample_all();
        Self::restore_functions(functions)
    }

    /// Checks that the VM has a state's vCPUs and as many ITSes.
    fn check_machine(&self, saved: &KvmSnapshot) -> Result<(), RestoreStateError> {
        let KvmController { cpus, its, .. } = &self.controller;
        let same = |(one, other): (&SnapshotCpu, &SnapshotCpu)| {
            (one.affinity, one.number) == (other.affinity, other.number)
        };
        let (saved_cpus, saved_its) = (saved.cpus.len(), saved.its_count());
        let is_same = saved_cpus == cpus.len() && saved.cpus.iter().zip(cpus).all(same);
        if is_same && saved_its == *its {
            return Ok(());
        }
        let (cpus, its) = (cpus.len(), *its);
        Err(RestoreStateError::Machine { saved_cpus, saved_its, cpus, its })
    }
}

impl fmt::Debug for KvmController<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpus, its, .. } = self;
        f.debug_struct("KvmController")
            .field("cpus", cpus)
            .field("its", its)
            .finish_non_exhaustive()
    }
}
