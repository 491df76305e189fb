//! Builds a machine from a KVM snapshot. Unlike a restore by KVM, loading continues after an error,
//! and records each attribute and table that KVM would refuse.

use super::config;
use super::machine::{Machine, Origin, Problem};
use super::memory::Memory;
use anyhow::{Result, ensure};
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::gits;
use gic_arch::{IntId, lpi};
use msi_types::Cpu;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use vgic::saved_state::SavedState;
use vgic::{GuestMemory, Vcpu, Vgic, VgicConfig};
use vgic_kvm::abi::{Attribute, Errno, control, frame};
use vgic_kvm::snapshot::KvmSnapshot;
use vgic_kvm::{KvmDevice, KvmRegister, KvmView};

/// Maximum number of pending bits that are reported.
const MOST_BITS: usize = 256;
/// Maximum number of INTID bits, which limits the length of a pending table.
const ID_BITS: u8 = 16;

/// Builds a machine, and loads the snapshot's attributes and tables into it.
pub(super) fn machine(snapshot: &KvmSnapshot) -> Result<Machine> {
    let bases = |register: &&KvmRegister| register.attribute == Attribute::Address(frame::ITS);
    config::check_size(snapshot.cpus.len(), snapshot.attributes.iter().filter(bases).count())?;
    let identified = snapshot.config().map_err(|errno| {
        anyhow::anyhow!("KVM does not support its GICD_IIDR or the address of an ITS: {errno}")
    })?;
    let mut cpus = identified.cpus.clone();
    cpus.sort_by_key(|cpu| cpu.processor_number);
    let config = config::placed(identified, cpus)?;
    let memory = Arc::new(Memory::of(&snapshot.memory)?);
    let (mut problems, tables) = (Vec::new(), snapshot.tables(&*memory)?);
    let state = load(snapshot, &config, &memory, &mut problems)?;
    check_bits(&state, &memory, &mut problems);
    let stopped = snapshot.cpus.iter().filter_map(|cpu| Some((cpu.affinity, cpu.stopped?)));
    Ok(Machine {
        name: String::new(),
        origin: Origin::Kvm,
        config,
        state,
        shape: Vec::new(),
        memory,
        stopped: stopped.collect(),
        tables,
        problems,
    })
}

/// Writes the attributes to the model in the same order as a restore.
fn load(
    snapshot: &KvmSnapshot,
    config: &VgicConfig,
    memory: &Arc<Memory>,
    problems: &mut Vec<Problem>,
) -> Result<SavedState> {
    let mut values = BTreeMap::new();
    for saved in &snapshot.attributes {
        if values.insert((saved.device, saved.attribute), saved.value).is_some() {
            problems.push(Problem::Refused(*saved, Errno::Exists));
        }
    }
    let known = |device: &KvmDevice| match device {
        KvmDevice::Gic => true,
        KvmDevice::Its(index) => *index < config.its.len(),
    };
    let stray = values.keys().find(|(device, _)| !known(device));
    ensure!(stray.is_none(), "the address of {:?} is missing", stray.map(|(device, _)| device));
    let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_: Cpu| ()))?;
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    let mut view = KvmView::new(config, gic.save()?, &**memory)?.as_strict_as_kvm();
    for (device, attribute) in snapshot.complete() {
        match values.remove(&(device, attribute)) {
            Some(value) => {
                let register = KvmRegister { device, attribute, value };
                load_one(&mut view, config, register, problems);
            }
            None => problems.push(Problem::Absent(device, attribute)),
        }
    }
    let ignored = values.into_keys().filter(|(device, attribute)| {
        *device == KvmDevice::Gic || *attribute != Attribute::Address(frame::ITS)
    });
    problems.extend(ignored.map(|(device, attribute)| Problem::Ignored(device, attribute)));
    if problems.iter().all(|problem| matches!(problem, Problem::Ignored(..)))
        && let Err(error) = snapshot.rehearse()
    {
        let (device, attribute) = (error.device, error.attribute);
        let value = snapshot.get(device, attribute).unwrap_or(snapshot.interrupts.into());
        problems.push(Problem::Refused(KvmRegister { device, attribute, value }, error.errno));
    }
    Ok(view.into_state())
}

fn load_one(
    view: &mut KvmView<'_>,
    config: &VgicConfig,
    register: KvmRegister,
    problems: &mut Vec<Problem>,
) {
    let KvmRegister { device, attribute, value } = register;
    let enable = Attribute::Its { offset: gits::CTLR.offset().into() };
    let base = match device {
        KvmDevice::Its(index) => config.its.get(index).map_or(0, |its| its.base),
        KvmDevice::Gic => 0,
    };
    if attribute == enable {
        let command = Attribute::Control(control::ITS_RESTORE_TABLES);
        if let Err(errno) = view.set(device, command, 0) {
            problems.push(Problem::Tables { its: base, errno, entry: view.refused_entry() });
        }
    }
    if let Err(errno) = view.set(device, attribute, value) {
        problems.push(Problem::Refused(register, errno));
    } else if attribute == enable
        && value & 1 != 0
        && view.get(device, attribute).is_ok_and(|read| read & 1 == 0)
    {
        problems.push(Problem::NotEnabled { its: base });
    }
}

/// Finds bits that are still set in the pending tables after the ITS tables have been restored: no
/// event with such a bit's INTID targets the vCPU.
fn check_bits(state: &SavedState, memory: &Memory, problems: &mut Vec<Problem>) {
    let mut seen = BTreeSet::new();
    let tables = state.cpus.iter().filter_map(|cpu| {
        let redistributor = &cpu.redistributor;
        let table = Pendbaser::from(redistributor.pendbaser).address();
        let id_bits = Propbaser::from(redistributor.propbaser).id_bits().min(ID_BITS);
        let is_used = Ctlr::from(redistributor.ctlr).enable_lpis() && seen.insert(table);
        is_used.then(|| (cpu.affinity, table, lpi::pending_table_bytes(id_bits)))
    });
    let bits = tables.flat_map(|(cpu, table, bytes)| {
        (lpi::PENDING_TABLE_RESERVED..bytes).flat_map(move |offset| {
            let mut byte = [0];
            // Memory that the snapshot lacks leaves the byte as it is.
            let _ = memory.read(table + offset, &mut byte);
            let first = u32::try_from(8 * offset).unwrap_or(0);
            let numbers = (0..8).filter(move |bit| byte[0] & 1 << bit != 0);
            numbers.map(move |bit| Problem::PendingBit { cpu, intid: IntId::new(first + bit) })
        })
    });
    problems.extend(bits.take(MOST_BITS));
}

/// Returns a name for an attribute, such as the offset of its register.
pub(super) fn name(device: KvmDevice, attribute: Attribute) -> String {
    let device = match device {
        KvmDevice::Gic => "gic".to_owned(),
        KvmDevice::Its(index) => format!("its{index}"),
    };
    let place = match attribute {
        Attribute::Distributor { offset } => format!("distributor register {offset:#x}"),
        Attribute::Redistributor { cpu, offset } => {
            format!("redistributor register {offset:#x} of CPU {cpu}")
        }
        Attribute::SystemRegister { cpu, register } => {
            format!("system register {:#x} of CPU {cpu}", register.packed())
        }
        Attribute::Levels { cpu, first, .. } => {
            format!("levels of INTIDs from {first} of CPU {cpu}")
        }
        Attribute::Its { offset } => format!("ITS register {offset:#x}"),
        other => format!("attribute {:#x} of group {}", other.number(), other.group()),
    };
    format!("{device}: {place}")
}

/// Describes an error number that a restore returns.
pub(super) fn describe(errno: Errno) -> String {
    format!("error {}: {errno}", errno.number())
}
