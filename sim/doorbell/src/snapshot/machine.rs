//! Internal form of a snapshot, which is the same for the model's states and for KVM's snapshots.

use super::memory::Memory;
use anyhow::Result;
use gic_arch::gicr::{Propbaser, Typer, Waker};
use gic_arch::{Affinity, IntId, Lpi, lpi};
use msi_types::Cpu;
use std::collections::BTreeMap;
use std::sync::Arc;
use vgic::saved_state::{CollectionState, CpuState, EventState, ItsState, Property, SavedState};
use vgic::{GuestMemory as _, Vcpu, Vgic, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::snapshot::SnapshotTable;
use vgic_kvm::{KvmDevice, KvmRegister, RefusedEntry};

/// Origin of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// `vgic`'s saved state, which contains all mappings.
    Model,
    /// KVM's attributes and tables.
    Kvm,
}

/// A snapshot's state, with the machine configuration that the state requires.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) config: VgicConfig,
    pub(super) state: SavedState,
    /// The saved machine's shape. Empty if the snapshot does not contain it; `state` never does.
    pub(super) shape: Vec<Property>,
    pub(super) memory: Arc<Memory>,
    /// Power state of vCPUs: `true` if powered off. The map lacks vCPUs whose power state is not
    /// known.
    pub(super) stopped: BTreeMap<Affinity, bool>,
    /// Tables in guest memory whose addresses are in KVM's registers.
    pub(super) tables: Vec<SnapshotTable>,
    /// Parts that a restore would refuse or lose.
    pub(super) problems: Vec<Problem>,
}

/// A part of a snapshot that cannot be restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Problem {
    /// An attribute is not in the snapshot.
    Absent(KvmDevice, Attribute),
    /// A restore ignores an attribute, because the machine does not have it.
    Ignored(KvmDevice, Attribute),
    /// KVM refuses an attribute's value.
    Refused(KvmRegister, Errno),
    /// KVM refuses to restore an ITS's tables.
    Tables { its: u64, errno: Errno, entry: Option<RefusedEntry> },
    /// The snapshot enables an ITS, but the ITS remains disabled, because a register that it needs
    /// is not valid.
    NotEnabled { its: u64 },
    /// A bit is set in a pending table, but no event with its INTID targets the vCPU.
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

    /// Returns `true` if the vCPU is powered off.
    pub(super) fn is_off(&self, cpu: Cpu) -> bool {
        let cpu = self.config.cpus.get(cpu.index());
        cpu.is_some_and(|cpu| self.stopped.get(&cpu.affinity) == Some(&true))
    }

    /// Returns the vCPUs in the order of their numbers.
    pub(super) fn cpus(&self) -> Vec<&CpuState> {
        let mut cpus: Vec<_> = self.state.cpus.iter().collect();
        cpus.sort_by_key(|cpu| Typer::from(cpu.redistributor.typer).processor_number());
        cpus
    }

    pub(super) fn cpu(&self, affinity: Affinity) -> Option<&CpuState> {
        self.state.cpus.iter().find(|cpu| cpu.affinity == affinity)
    }

    /// Returns the reason why a vCPU does not run or cannot receive interrupts, if any.
    pub(super) fn why_off(&self, cpu: &CpuState) -> Option<&'static str> {
        if self.stopped.get(&cpu.affinity) == Some(&true) {
            Some("is off (KVM_MP_STATE_STOPPED)")
        } else if Waker::from(cpu.redistributor.waker).processor_sleep() {
            Some("is asleep (GICR_WAKER.ProcessorSleep)")
        } else {
            None
        }
    }

    /// Returns the configuration byte of an event's LPI, if it is known. A state of the model
    /// contains the byte but no guest memory.
    pub(super) fn configuration(&self, its: &ItsState, event: &EventState) -> Option<u8> {
        let cpu = target(its, event).and_then(|cpu| self.cpu(cpu));
        event.configuration.or_else(|| self.byte_in_memory(cpu?, event.intid))
    }

    /// Reads an LPI's configuration byte from the guest memory in a KVM snapshot.
    pub(super) fn byte_in_memory(&self, cpu: &CpuState, intid: IntId) -> Option<u8> {
        let table = Propbaser::from(cpu.redistributor.propbaser).address();
        let address = table + lpi::config_offset(Lpi::try_from(intid).ok()?);
        let mut byte = [0];
        let read = self.memory.read(address, &mut byte);
        read.ok().filter(|()| self.origin == Origin::Kvm).map(|()| byte[0])
    }

    /// Restores a state into the model.
    pub(super) fn restored(&self, state: &SavedState) -> Result<(Arc<Vgic>, Vec<Vcpu>)> {
        let (gic, mut vcpus) =
            Vgic::new(self.config.clone(), self.memory.clone(), Arc::new(|_: Cpu| ()))?;
        let paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
        gic.restore(state)?;
        drop(paused);
        Ok((gic, vcpus))
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

/// Returns the target of an event's collection; `None` if the collection is not mapped.
pub(super) fn target(its: &ItsState, event: &EventState) -> Option<Affinity> {
    target_in(&its.collections, event)
}

/// Like [`target`], in an ITS's list of collections.
pub(super) fn target_in(collections: &[CollectionState], event: &EventState) -> Option<Affinity> {
    let at = collections.binary_search_by_key(&event.collection, |state| state.collection);
    at.ok().and_then(|at| collections.get(at)).map(|state| state.target)
}
