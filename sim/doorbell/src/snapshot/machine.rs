//! The internal form of a snapshot, whether it comes from the model or from KVM.

use super::memory::Memory;
use gic_arch::gicr::Typer;
use gic_arch::{Affinity, IntId};
use msi_types::Cpu;
use std::collections::BTreeMap;
use std::sync::Arc;
use vgic::VgicConfig;
use vgic::saved_state::{CpuState, EventState, ItsState, SavedState};
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::snapshot::SnapshotTable;
use vgic_kvm::{KvmDevice, KvmRegister};

/// Where a snapshot comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// `vgic`'s saved state, which contains all mappings.
    Model,
    /// KVM's attributes and tables.
    Kvm,
}

/// A machine that can have the snapshot's state.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) config: VgicConfig,
    pub(super) state: SavedState,
    pub(super) memory: Arc<Memory>,
    /// Whether vCPUs are powered off, if known.
    pub(super) stopped: BTreeMap<Affinity, bool>,
    /// Tables that KVM's registers name.
    pub(super) tables: Vec<SnapshotTable>,
    /// What a restore would refuse or lose.
    pub(super) problems: Vec<Problem>,
}

/// A part of a snapshot that cannot be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// The attribute is not in the snapshot.
    Absent(KvmDevice, Attribute),
    /// The attribute's value is refused.
    Refused(KvmRegister, Errno),
    /// An ITS's tables cannot be read.
    Tables { its: u64, errno: Errno },
    /// An ITS is enabled, but cannot be without a valid register.
    NotEnabled { its: u64 },
    /// A collection's target does not exist.
    NoTarget { its: u64, collection: u16, number: u32 },
    /// A pending bit belongs to no event.
    PendingBit { cpu: Affinity, intid: IntId },
    /// The model refuses the state.
    NotRestorable(String),
}

impl Machine {
    /// Returns the vCPU's number, which is its index among the vCPUs sorted by processor number.
    pub(super) fn number(&self, affinity: Affinity) -> usize {
        let found = self.config.cpus.iter().position(|cpu| cpu.affinity == affinity);
        found.unwrap_or(usize::MAX)
    }

    /// Returns the vCPU with this number.
    pub(super) fn vcpu(&self, number: u32) -> Option<Cpu> {
        let cpu = Cpu::new(number);
        (cpu.index() < self.config.cpus.len()).then_some(cpu)
    }

    /// Returns the vCPUs, by number.
    pub(super) fn cpus(&self) -> Vec<&CpuState> {
        let mut cpus: Vec<_> = self.state.cpus.iter().collect();
        cpus.sort_by_key(|cpu| Typer::from(cpu.redistributor.typer).processor_number());
        cpus
    }

    pub(super) fn cpu(&self, affinity: Affinity) -> Option<&CpuState> {
        self.state.cpus.iter().find(|cpu| cpu.affinity == affinity)
    }

    /// Iterates over all events, with their ITS and DeviceID.
    pub(super) fn events(&self) -> impl Iterator<Item = (&ItsState, u32, &EventState)> {
        self.state.its.iter().flat_map(|its| {
            its.devices.iter().flat_map(move |device| {
                device.events.iter().map(move |event| (its, device.device.get(), event))
            })
        })
    }
}

/// Returns the target of an event's collection.
pub(super) fn target(its: &ItsState, event: &EventState) -> Option<Affinity> {
    let at = its.collections.binary_search_by_key(&event.collection, |state| state.collection);
    at.ok().and_then(|at| its.collections.get(at)).map(|state| state.target)
}
