//! Explanations of why an interrupt does not arrive from KVM's controller.

use crate::abi::{Attribute, Errno};
use crate::config::placed;
use crate::left_out::LeftOut;
use crate::limits::OutsideKvm;
use crate::register::{KvmDevice, KvmError};
use crate::snapshot::{KvmAttributes, KvmSnapshot, SnapshotCpu, SnapshotTable, Unwritten};
use crate::view::KvmView;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use gic_arch::gicd;
use msi_types::explain::{ExplainInput, Explanation, Fact, Unexamined};
use msi_types::{Cpu, DeviceId, Line, MsiMessage};
use vgic::saved_state::{SaveError, SavedState};
use vgic::{GuestMemory, Vcpu, Vgic};

/// Explains why an interrupt does not arrive from KVM's controller. A VMM passes it to the
/// `with_explainer` of its routes, such as `KvmRouter`.
///
/// Each explanation takes a [`KvmSnapshot`], loads it into the model, and asks the model. If the
/// state can't be read or loaded as a whole, the explanation lists
/// [`KernelController`](Unexamined::KernelController) as not examined;
/// [`copy`](KvmExplainer::copy) returns the reason.
///
/// Stop all vCPUs before you ask. KVM refuses an access with `EBUSY` while a vCPU runs, but does
/// not notice a vCPU that runs between two accesses, so that the snapshot may mix states.
///
/// As for a migration, KVM first writes its mappings and pending LPIs to the ITS tables and pending
/// tables that the guest has provided, and marks the pages as dirty. A guest must not access these
/// tables while the controller uses them, so it does not notice. An explanation changes nothing
/// else, neither in KVM nor in guest memory.
///
/// KVM does not show everything:
///
/// - KVM caches the configurations of LPIs. An explanation reads them from the guest's table
///   instead, which differs if the guest has not invalidated a changed configuration.
/// - The commands that an ITS has refused, and the pulses that inputs have ignored, are not known.
/// - Whether the target is powered on is not known, so the target is only
///   [`Routed`](Fact::Routed).
#[derive(Clone)]
pub struct KvmExplainer<D> {
    devices: D,
    cpus: Vec<SnapshotCpu>,
    its: usize,
    memory: Arc<dyn GuestMemory>,
}

impl<D> fmt::Debug for KvmExplainer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpus, its, .. } = self;
        f.debug_struct("KvmExplainer").field("cpus", cpus).field("its", its).finish_non_exhaustive()
    }
}

/// Reason why KVM's controller could not be examined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotExamined {
    /// KVM did not return an attribute, or the model did not accept its value.
    #[error(transparent)]
    Attribute(#[from] KvmError),
    /// The model can't have this machine or state.
    #[error(transparent)]
    Outside(#[from] OutsideKvm),
    /// The heap has no memory for the copy.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// A part of the state could not be loaded.
    #[error("the state is incomplete: {0}")]
    Incomplete(LeftOut),
    /// A table at this address overlaps another one, so that KVM has overwritten a part of what it
    /// saved.
    #[error("a table at {0:#x} overlaps another one")]
    Overlap(u64),
}

impl<D: KvmAttributes + Clone> KvmExplainer<D> {
    /// Creates an explainer for a VM with these vCPUs and `its` ITSes, as for
    /// [`KvmSnapshot::take`]. Each explanation uses a clone of `devices`. Explanations number vCPUs
    /// by their position in `cpus`, and ignore [`SnapshotCpu::stopped`].
    pub fn new(
        devices: D,
        cpus: Vec<SnapshotCpu>,
        its: usize,
        memory: Arc<dyn GuestMemory>,
    ) -> Self {
        Self { devices, cpus, its, memory }
    }

    /// Returns a copy of KVM's controller. It answers further questions, such as
    /// [`Vgic::explain_interrupt`], and never changes guest memory. No vCPU of the VM may be
    /// running.
    ///
    /// # Errors
    /// [`NotExamined`] tells why no faithful copy is possible.
    pub fn copy(&self) -> Result<Arc<Vgic>, NotExamined> {
        let mut devices = self.devices.clone();
        let mut snapshot =
            KvmSnapshot::take(&mut devices, self.cpus.clone(), self.its, &*self.memory)?;
        let at = |attribute| move |errno: Errno| KvmError::new(KvmDevice::Gic, attribute, errno);
        let iidr = Attribute::Distributor { offset: gicd::IIDR.offset() };
        let config = placed(snapshot.config().map_err(at(iidr))?);
        let tables = snapshot.tables(&*self.memory).map_err(at(iidr))?;
        overlap(tables).map_or(Ok(()), |address| Err(NotExamined::Overlap(address)))?;
        // These addresses are part of the configuration.
        snapshot.attributes.retain(|of| !matches!(of.attribute, Attribute::Address(_)));

        let memory = Arc::new(Unwritten(self.memory.clone()));
        let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_: Cpu| ()))
            .map_err(OutsideKvm::from)?;
        let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        let mut view = KvmView::new(&config, gic.save()?, &*memory)?;
        view.load(&snapshot.attributes)?;
        // Memory was read after the tables were saved, so an ITS with empty tables has no mappings.
        let left_out = LeftOut { empty_its: 0, ..view.left_out() };
        if !left_out.is_empty() {
            return Err(NotExamined::Incomplete(left_out));
        }
        let state = forwarding_both(view.into_state());
        gic.restore(&state).map_err(OutsideKvm::from)?;
        Ok(gic)
    }

    fn explain(&self, ask: impl FnOnce(&Vgic) -> Explanation) -> Explanation {
        match self.copy() {
            Ok(gic) => with_routed(&ask(&gic)),
            Err(_) => Explanation::new().with_unexamined(Unexamined::KernelController),
        }
    }
}

impl<D: KvmAttributes + Clone + Send + Sync> ExplainInput for KvmExplainer<D> {
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation {
        self.explain(|gic| gic.explain_message(sender, message))
    }

    fn explain_line(&self, line: Line) -> Explanation {
        self.explain(|gic| gic.explain_line(line))
    }
}

/// Returns the address of a table that begins inside another one.
fn overlap(mut tables: Vec<SnapshotTable>) -> Option<u64> {
    tables.sort_unstable_by_key(|table| table.address);
    let begins_inside = |pair: &&[SnapshotTable]| {
        pair.first().zip(pair.last()).is_some_and(|(a, b)| b.address - a.address < a.bytes)
    };
    tables.windows(2).find(begins_inside)?.last().map(|table| table.address)
}

/// Enables Group 0 if Group 1 is enabled, because KVM's single enable forwards both.
fn forwarding_both(mut state: SavedState) -> SavedState {
    let control = gicd::Ctlr::from(state.distributor.ctlr);
    state.distributor.ctlr = control.with_enable_grp0(control.enable_grp1()).into_bits();
    state
}

/// Replaces the target's state with `Routed`, because only the model's vCPU has this state.
fn with_routed(explanation: &Explanation) -> Explanation {
    let facts = explanation.facts().map(|fact| match fact {
        Fact::Target(cpu, _) => Fact::Routed(cpu),
        fact => fact,
    });
    let replaced = facts.fold(Explanation::new(), Explanation::with_fact);
    let replaced = explanation.unexamined().fold(replaced, Explanation::with_unexamined);
    explanation.obstacles().fold(replaced, Explanation::with_obstacle)
}
