//! Procedures that monitors use to save a machine: the documented one, and two from publicly
//! reported bugs.
//!
//! The result is a [`KvmSnapshot`], which `doorbell snapshot` reads. A snapshot from one of the
//! wrong procedures restores without an error, or with an error that does not name the cause.

use crate::layout::CPUS;
use crate::machine::affinities;
use crate::memory::{Ram, rows};
use crate::scenario::{DevicePlan, EventPlan, ItsPlan, Levels, Plan};
use crate::{Failure, Machine, Snapshot};
use gic_arch::{Affinity, Priority, lpi};
use std::time::Duration;
use vgic::{GuestMemory, MemoryFault};
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, Errno};
use vgic_kvm::snapshot::{KvmAttributes, KvmSnapshot, SnapshotCpu};
use vgic_monitor::machine_state::{KvmController, MachineState, Parts};

/// Number of ITSes.
const ITSES: usize = 2;
pub(crate) const PAGE: u64 = 0x1000;
/// Time to wait for eventfds, of which the machine has none.
const LIMIT: Duration = Duration::from_secs(1);

/// Procedure that saves a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Procedure {
    /// The procedure in Linux's documentation: save all tables, read each vCPU's registers, then
    /// copy memory.
    Documented,
    /// Reads the registers of every vCPU with the first vCPU's MPIDR (cloud-hypervisor#8638).
    FirstCpuForAll,
    /// Chooses the pages to copy before KVM writes its tables (e2b-dev/infra#2057).
    PagesBeforeTables,
}

impl Procedure {
    /// All procedures.
    pub const ALL: [Self; 3] = [Self::Documented, Self::FirstCpuForAll, Self::PagesBeforeTables];

    /// Returns the procedure's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Documented => "documented",
            Self::FirstCpuForAll => "first-cpu-for-all",
            Self::PagesBeforeTables => "pages-before-tables",
        }
    }

    /// Saves a machine whose vCPUs are not running.
    pub fn save(self, machine: &mut dyn Machine) -> Result<KvmSnapshot, Failure> {
        let ram = machine.ram().clone();
        // The pages that a monitor copies if it tracks writes by vCPUs and devices, but not by KVM.
        let written: Vec<u64> = rows(&ram)?.iter().map(|(address, _)| address / PAGE).collect();
        let cpus = cpus(machine)?;
        let mut devices = Devices { machine, is_first: self == Self::FirstCpuForAll };
        let mut snapshot = KvmSnapshot::take(&mut devices, cpus, ITSES, &ram)?;
        if self == Self::PagesBeforeTables {
            snapshot.copy_tables(&WrittenPages { ram, written })?;
        }
        Ok(snapshot)
    }
}

/// Attributes of a machine's devices.
struct Devices<'m> {
    machine: &'m mut dyn Machine,
    /// `true` if the first vCPU's MPIDR is used to read the registers of every vCPU.
    is_first: bool,
}

impl KvmAttributes for Devices<'_> {
    fn get(&mut self, device: KvmDevice, attribute: Attribute) -> Result<u64, Errno> {
        let read = match attribute {
            Attribute::Redistributor { offset, .. } if self.is_first => {
                Attribute::Redistributor { cpu: Affinity::default(), offset }
            }
            Attribute::SystemRegister { register, .. } if self.is_first => {
                Attribute::SystemRegister { cpu: Affinity::default(), register }
            }
            _ => attribute,
        };
        self.machine.get(device, read)
    }

    fn set(&mut self, device: KvmDevice, attribute: Attribute, value: u64) -> Result<(), Errno> {
        self.machine.set(device, attribute, value)
    }
}

/// Memory that can only be read in the pages listed in `written`.
pub(crate) struct WrittenPages {
    pub(crate) ram: Ram,
    /// Numbers of the pages, in ascending order.
    pub(crate) written: Vec<u64>,
}

impl GuestMemory for WrittenPages {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let last = address + (bytes.len() as u64).max(1) - 1;
        let mut pages = address / PAGE..=last / PAGE;
        if pages.all(|page| self.written.binary_search(&page).is_ok()) {
            self.ram.read(address, bytes)
        } else {
            Err(MemoryFault { address })
        }
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

/// Saves a machine whose vCPUs are not running by one call.
pub fn save_parts(machine: &mut dyn Machine) -> Result<MachineState<KvmSnapshot>, Failure> {
    let ram = machine.ram().clone();
    let cpus = cpus(machine)?;
    let mut devices = Devices { machine, is_first: false };
    let controller = KvmController::new(&mut devices, cpus, ITSES, &ram);
    Ok(Parts::on_kvm(controller).save(LIMIT)?)
}

/// Restores a machine that has not run by one call, after its memory. The check must find nothing
/// that KVM would leave out.
pub fn restore_parts(
    machine: &mut dyn Machine,
    state: &MachineState<KvmSnapshot>,
) -> Result<(), Failure> {
    let ram = machine.ram().clone();
    for range in &state.gic.memory {
        for data in &range.data {
            ram.write(range.address + data.at, &data.hex)?;
        }
    }
    let cpus = cpus(machine)?;
    let mut devices = Devices { machine, is_first: false };
    let mut parts = Parts::on_kvm(KvmController::new(&mut devices, cpus, ITSES, &ram));
    let left_out = parts.check(state)?;
    if !left_out.is_empty() {
        return Err(format!("KVM would leave out {left_out:?}").into());
    }
    Ok(parts.restore(state)?)
}

/// Describes a machine's vCPUs.
fn cpus(machine: &dyn Machine) -> Result<Vec<SnapshotCpu>, Failure> {
    let all = (0..CPUS).zip(affinities());
    all.map(|(number, affinity)| Ok(SnapshotCpu::new(affinity, number, machine.stopped(number)?)))
        .collect()
}

/// Converts a snapshot's attributes and memory to the form that a restore requires.
pub fn to_restore(snapshot: &KvmSnapshot) -> Snapshot {
    let registers = snapshot.attributes.iter();
    let attributes = registers.map(|saved| (saved.device, saved.attribute, saved.value));
    let attributes = attributes.filter(|(_, which, _)| !matches!(which, Attribute::Address(_)));
    let memory = snapshot.memory.iter().flat_map(|range| {
        range.data.iter().map(|data| (range.address + data.at, data.hex.clone()))
    });
    Snapshot { attributes: attributes.collect(), memory: memory.collect() }
}

/// Returns a plan in which devices at both ITSes make LPIs pending at each vCPU. All of these LPIs
/// are enabled.
pub fn plan() -> Plan {
    let event = |id, intid, collection, priority| EventPlan {
        id,
        intid,
        collection,
        config: lpi::Config::new().with_enable(true).with_priority(Priority::new(priority)),
    };
    let device = |id, events| DevicePlan { id, event_bits: 2, events };
    let its = |device: DevicePlan| ItsPlan {
        collections: vec![(0, 0), (1, 1)],
        messages: device.events.iter().map(|event| (device.id, event.id)).collect(),
        devices: vec![device],
        changes_before: Vec::new(),
        changes_after: Vec::new(),
    };
    let first = vec![event(0, 8192, 0, 0x20), event(1, 8193, 1, 0x28), event(2, 8194, 1, 0x30)];
    let second = vec![event(0, 8200, 0, 0x38), event(3, 8201, 1, 0x40)];
    Plan {
        levels: Levels::Flat,
        its: [its(device(8, first)), its(device(0x10, second))],
        wired: Vec::new(),
        private: 27,
        binary_point: 0,
    }
}
