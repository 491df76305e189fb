//! Snapshots of a VM's GIC and ITSes: the values of all device attributes, and the tables in guest
//! memory whose addresses they contain.
//!
//! [`KvmSnapshot::take`] reads a snapshot through [`KvmAttributes`], which the VMM implements, and
//! [`KvmSnapshot::restore`] writes it in KVM's order. The command `doorbell snapshot` inspects
//! snapshots.
//!
//! # Format
//!
//! With the feature `serde`, a snapshot is serialized as the JSON object below. Numbers that may
//! exceed 32 bits are hexadecimal strings, because some JSON parsers cannot represent 64-bit
//! integers.
//!
//! ```json
//! {
//!   "format": "kvm-vgic",
//!   "version": 1,
//!   "cpus": [{ "affinity": 0, "number": 0, "stopped": false }],
//!   "interrupts": 96,
//!   "attributes": [
//!     { "device": "its0", "group": 0, "attribute": "0x4", "value": "0x8080000" },
//!     { "device": "gic", "group": 1, "attribute": "0x0", "value": "0x12" }
//!   ],
//!   "memory": [
//!     { "address": "0x40020000", "bytes": 4096, "data": [{ "at": 8, "hex": "0100a04000000080" }] }
//!   ]
//! }
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `format`, `version` | always `kvm-vgic`, and [`SNAPSHOT_VERSION`]; readers must reject other values |
//! | `cpus` | the vCPUs, in the order of their numbers: `affinity` is `Aff3.Aff2.Aff1.Aff0` packed into 32 bits, `number` is the `vcpu_id` passed to `KVM_CREATE_VCPU`, and `stopped` is `true` if `KVM_GET_MP_STATE` returned `KVM_MP_STATE_STOPPED`, or `null` if unknown |
//! | `interrupts` | `KVM_DEV_ARM_VGIC_GRP_NR_IRQS` |
//! | `attributes` | device, group, attribute number and value, as in `struct kvm_device_attr`; the device is `gic`, or `its` followed by the index of the ITS |
//! | `memory` | the part of guest memory that the snapshot contains: ranges that do not overlap, in which bytes outside of `data` are zero. The contents of memory outside the ranges are unknown, and must not be read as zeros |
//!
//! Any change to a field or to its meaning requires a new version.

#[cfg(feature = "serde")]
mod json;
mod table;

pub use crate::register::KvmAttributes;
pub use table::{SnapshotTable, TableUse};

use crate::abi::{Attribute, Errno, control, frame};
use crate::config::{at_revision, placed};
use crate::left_out::{LeftOut, add};
use crate::register::{KvmDevice, KvmError, KvmRegister};
use crate::rehearsal::{PAGE, PAGE_BYTES};
use crate::view::KvmView;
use crate::word::low_word;
use crate::{kvm_config, kvm_its_config, order};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use doorbell_fallible::{try_collect, try_push};
use gic_arch::{Affinity, Iidr, gicd};
use vgic::saved_state::SavedState;
use vgic::{CpuConfig, GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};

/// Version of the format that this library writes and reads.
pub const SNAPSHOT_VERSION: u32 = 1;

/// Maximum number of pages in a snapshot that a restore by KVM would not read (64 MiB). Further
/// pages are omitted.
const MOST_PAGES: usize = 1 << 14;
/// Maximum number of vCPUs of a GICv3 on KVM (`VGIC_V3_MAX_CPUS`).
const MOST_CPUS: u16 = 512;
/// Alignment, size and end of the addresses of an ITS.
const ITS_ALIGNMENT: u64 = 0x1_0000;
const ITS_BYTES: u64 = 0x2_0000;
const ADDRESSES: u64 = 1 << 52;
/// Maximum number of ITSes.
const MOST_ITS: usize = 64;
/// Granularity of [`MemoryData`] in bytes. A row is stored if any of its bytes is nonzero.
const ROW: usize = 32;

/// A vCPU of a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct SnapshotCpu {
    /// Affinity, as in the vCPU's `MPIDR_EL1`. Attributes identify the vCPU by its affinity.
    #[cfg_attr(feature = "serde", serde(with = "json::affinity"))]
    pub affinity: Affinity,
    /// The `vcpu_id` passed to `KVM_CREATE_VCPU`, which equals `GICR_TYPER.Processor_Number`. ITS
    /// tables identify the vCPU by this number.
    pub number: u16,
    /// `true` if the vCPU is powered off (`KVM_MP_STATE_STOPPED`); `None` if unknown.
    pub stopped: Option<bool>,
}

impl SnapshotCpu {
    /// Returns a vCPU with this affinity, number and power state.
    pub const fn new(affinity: Affinity, number: u16, stopped: Option<bool>) -> Self {
        Self { affinity, number, stopped }
    }
}

/// A range of guest memory that a snapshot contains. Bytes outside of `data` are zero.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct MemoryRange {
    /// Guest physical address.
    #[cfg_attr(feature = "serde", serde(with = "json::hex"))]
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Nonzero contents, in ascending order.
    pub data: Vec<MemoryData>,
}

impl MemoryRange {
    /// Returns a range that contains only zeros.
    pub const fn new(address: u64, bytes: u64) -> Self {
        Self { address, bytes, data: Vec::new() }
    }
}

/// Contents of a part of a [`MemoryRange`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct MemoryData {
    /// Offset of the first byte in the range.
    pub at: u64,
    /// The bytes.
    #[cfg_attr(feature = "serde", serde(with = "json::bytes"))]
    pub hex: Vec<u8>,
}

impl MemoryData {
    /// Returns contents that start at this offset in their range.
    pub const fn new(at: u64, hex: Vec<u8>) -> Self {
        Self { at, hex }
    }
}

/// State of a VM's GICv3 and ITSes on KVM. The [module](self) describes its format.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct KvmSnapshot {
    /// The vCPUs, in the order of their numbers.
    pub cpus: Vec<SnapshotCpu>,
    /// Number of INTIDs below 1024, including private interrupts.
    pub interrupts: u32,
    /// Attributes and their values, in the order in which they must be restored. The addresses of
    /// the ITSes come first.
    pub attributes: Vec<KvmRegister>,
    /// The ranges of guest memory that contain the tables.
    pub memory: Vec<MemoryRange>,
}

impl KvmSnapshot {
    /// Creates a snapshot from registers that were saved in another format. `interrupts` is the
    /// number of INTIDs below 1024. The snapshot has no tables until
    /// [`copy_tables`](Self::copy_tables).
    pub const fn new(
        cpus: Vec<SnapshotCpu>,
        interrupts: u32,
        attributes: Vec<KvmRegister>,
    ) -> Self {
        Self { cpus, interrupts, attributes, memory: Vec::new() }
    }

    /// Takes a snapshot of a VM with these vCPUs and `its` ITSes. No vCPU may be running. First
    /// makes KVM write its tables to the guest memory that the guest has provided for them.
    ///
    /// # Errors
    /// [`KvmError`] for the first attribute that cannot be read, or if the heap is exhausted.
    /// `EFAULT` from [`control::ITS_SAVE_TABLES`] means that a table is not in guest memory.
    pub fn take(
        devices: &mut dyn KvmAttributes,
        cpus: Vec<SnapshotCpu>,
        its: usize,
        memory: &dyn GuestMemory,
    ) -> Result<Self, KvmError> {
        for index in 0..its {
            save_tables(devices, KvmDevice::Its(index), control::ITS_SAVE_TABLES)?;
        }
        save_tables(devices, KvmDevice::Gic, control::SAVE_PENDING_TABLES)?;
        let count = read(devices, KvmDevice::Gic, Attribute::InterruptCount)?;
        let interrupts = low_word(count.value);
        let mut snapshot = Self::new(cpus, interrupts, Vec::new());
        let bases = (0..its).map(|index| (KvmDevice::Its(index), Attribute::Address(frame::ITS)));
        let config = snapshot.bare_config();
        let saved = order::saved(&config, its);
        for (device, attribute) in bases.chain(saved) {
            let register = read(devices, device, attribute)?;
            try_push(&mut snapshot.attributes, register)
                .map_err(|error| KvmError::new(device, attribute, error.into()))?;
        }
        let copied = snapshot.copy_tables(memory);
        let (device, attribute) = (KvmDevice::Gic, Attribute::Control(control::ITS_SAVE_TABLES));
        copied.map_err(|errno| KvmError::new(device, attribute, errno))?;
        Ok(snapshot)
    }

    /// Restores the snapshot on a VM whose GIC and ITSes are initialized, have their addresses, and
    /// have not been used. No vCPU may be running, and guest memory must already have its saved
    /// contents.
    ///
    /// Before it changes anything, checks that the snapshot is complete, and that the VM has the
    /// same number of interrupts, and the snapshot's ITSes at the same addresses. The VM must have
    /// the snapshot's vCPUs and no other ITS. Call [`rehearse`](Self::rehearse) first to find out
    /// what KVM would refuse or leave out.
    ///
    /// # Errors
    /// [`KvmError`] for the first attribute that is missing (`ENXIO`) or present twice (`EEXIST`),
    /// that the VM has another value for (`EINVAL`), or that cannot be written. In the last case,
    /// the VM must not run.
    pub fn restore(&self, devices: &mut dyn KvmAttributes) -> Result<(), KvmError> {
        let bases = (0..self.its_count()).map(|index| {
            let (device, attribute) = (KvmDevice::Its(index), Attribute::Address(frame::ITS));
            (device, attribute, self.get(device, attribute))
        });
        let count = (KvmDevice::Gic, Attribute::InterruptCount, Some(self.interrupts.into()));
        for (device, attribute, saved) in bases.chain([count]) {
            let here = read(devices, device, attribute)?.value;
            if saved != Some(here) {
                return Err(KvmError::new(device, attribute, Errno::Invalid));
            }
        }
        self.registers()?.iter().try_for_each(|register| order::restore(devices, *register))
    }

    /// Restores the snapshot in a model of KVM's controller that is [as strict as
    /// KVM](KvmView::as_strict_as_kvm), from its copies of the tables. Returns what KVM would leave
    /// out. Takes memory proportional to the size of the snapshot.
    ///
    /// # Errors
    /// [`KvmError`] for the first attribute that is missing (`ENXIO`) or present twice (`EEXIST`),
    /// or that KVM would refuse, with KVM's error. `EFAULT` from [`control::ITS_RESTORE_TABLES`]
    /// means that KVM would read a part of guest memory that the snapshot does not contain. An
    /// invalid number of interrupts (`EINVAL`) or vCPUs (`E2BIG`), an invalid vCPU and invalid
    /// copies of the tables (`EINVAL`) are reported as errors of [`Attribute::InterruptCount`].
    pub fn rehearse(&self) -> Result<LeftOut, KvmError> {
        let memory = TableCopies::of(&self.memory);
        let invalid = |errno| KvmError::new(KvmDevice::Gic, Attribute::InterruptCount, errno);
        self.rehearse_in(&memory.map_err(invalid)?, &mut Vec::new())
    }

    /// Rehearses the snapshot with tables in `memory`. Replaces `pages` by the numbers of the pages
    /// that KVM would read.
    fn rehearse_in(
        &self,
        memory: &dyn GuestMemory,
        pages: &mut Vec<u64>,
    ) -> Result<LeftOut, KvmError> {
        let invalid = |errno| KvmError::new(KvmDevice::Gic, Attribute::InterruptCount, errno);
        self.check_machine()?;
        let iidr = Attribute::Distributor { offset: gicd::IIDR.offset() };
        let config = self.config();
        let config = config.map_err(|errno| KvmError::new(KvmDevice::Gic, iidr, errno))?;
        let config = placed(config);
        let state = fresh_state(&config).ok_or(invalid(Errno::Invalid))?;
        let view = KvmView::new(&config, state, memory);
        let mut view = view.map_err(|_| invalid(Errno::Invalid))?.as_strict_as_kvm();
        let registers = self.registers()?;
        let loaded = view.load(&registers);
        let mut left_out = view.left_out();
        let ignored = self.attributes.len() - registers.len() - self.its_count();
        add(&mut left_out.attributes, ignored);
        *pages = view.into_pages();
        loaded.map(|()| left_out)
    }

    /// Checks the numbers of interrupts and vCPUs, and the addresses of the ITSes, as
    /// `vgic_set_common_attr`, `kvm_vgic_create` and `vgic_check_iorange` do.
    fn check_machine(&self) -> Result<(), KvmError> {
        let is_count_valid =
            (64..1024).contains(&self.interrupts) && self.interrupts.is_multiple_of(32);
        let errno = if !is_count_valid || self.cpus.iter().any(|cpu| cpu.number >= MOST_CPUS) {
            Some(Errno::Invalid)
        } else {
            (self.cpus.len() > MOST_CPUS.into()).then_some(Errno::TooBig)
        };
        let its = (0..self.its_count()).map(|index| {
            let (device, attribute) = (KvmDevice::Its(index), Attribute::Address(frame::ITS));
            let base = self.get(device, attribute).unwrap_or(0);
            let errno = match base.checked_add(ITS_BYTES) {
                Some(end) if base.is_multiple_of(ITS_ALIGNMENT) => {
                    (end > ADDRESSES).then_some(Errno::TooBig)
                }
                _ => Some(Errno::Invalid),
            };
            (device, attribute, errno)
        });
        let count = (KvmDevice::Gic, Attribute::InterruptCount, errno);
        let refused = |(device, attribute, errno): (_, _, Option<_>)| {
            Some(KvmError::new(device, attribute, errno?))
        };
        core::iter::once(count).chain(its).find_map(refused).map_or(Ok(()), Err)
    }

    /// Returns the attributes in the order of a restore. The addresses of the ITSes are not among
    /// them. Fails if an attribute is missing or present twice.
    fn registers(&self) -> Result<Vec<KvmRegister>, KvmError> {
        let mut saved: Vec<_> = Vec::new();
        let no_memory = |errno| KvmError::new(KvmDevice::Gic, Attribute::InterruptCount, errno);
        saved.try_reserve(self.attributes.len()).map_err(|error| no_memory(error.into()))?;
        saved.extend(self.attributes.iter().map(|it| ((it.device, it.attribute), it.value)));
        saved.sort_unstable();
        let mut pairs = saved.iter().zip(saved.iter().skip(1));
        if let Some((((device, attribute), _), _)) = pairs.find(|(one, other)| one.0 == other.0) {
            return Err(KvmError::new(*device, *attribute, Errno::Exists));
        }
        let mut registers = Vec::new();
        for (device, attribute) in self.complete() {
            let found = saved.binary_search_by_key(&(device, attribute), |(of, _)| *of).ok();
            let value = found.and_then(|at| saved.get(at)).map(|(_, value)| *value);
            let value = value.ok_or(KvmError::new(device, attribute, Errno::NoRegister))?;
            try_push(&mut registers, KvmRegister { device, attribute, value })
                .map_err(|error| no_memory(error.into()))?;
        }
        Ok(registers)
    }

    /// Replaces the snapshot's memory with the tables that its attributes name, read from `memory`.
    /// A VMM can call this function to build a snapshot from registers and memory that it has saved
    /// in its own format. Omits unreadable pages, and pages beyond the first 64 MiB unless KVM
    /// would read them. A [`rehearsal`](Self::rehearse) therefore finds every byte it reads.
    ///
    /// # Errors
    /// `ENOMEM` if the heap is exhausted.
    pub fn copy_tables(&mut self, memory: &dyn GuestMemory) -> Result<(), Errno> {
        let tables = self.tables(memory)?;
        let (mut pages, mut read) = (Vec::new(), Vec::new());
        // KVM would read nothing after an error.
        let _ = self.rehearse_in(&Unwritten(memory), &mut read);
        for table in &tables {
            let end = table.address.saturating_add(table.bytes);
            for page in (table.address / PAGE..end.div_ceil(PAGE)).take(MOST_PAGES) {
                try_push(&mut pages, page)?;
            }
            if pages.len() > 2 * MOST_PAGES {
                pages.sort_unstable();
                pages.dedup();
                pages.truncate(MOST_PAGES);
            }
        }
        for pages in [&mut pages, &mut read] {
            pages.sort_unstable();
            pages.dedup();
        }
        pages.truncate(MOST_PAGES);
        pages.try_reserve(read.len())?;
        pages.append(&mut read);
        pages.sort_unstable();
        pages.dedup();
        self.memory.clear();
        let mut bytes = [0; PAGE_BYTES];
        for page in pages {
            if memory.read(page * PAGE, &mut bytes).is_ok() {
                self.add_page(page * PAGE, &bytes)?;
            }
        }
        Ok(())
    }

    /// Appends a page. Extends the last range if the page is adjacent to it.
    fn add_page(&mut self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let adjacent = self.memory.last().is_some_and(|last| last.address + last.bytes == address);
        if !adjacent {
            try_push(&mut self.memory, MemoryRange::new(address, 0))?;
        }
        let Some(range) = self.memory.last_mut() else { return Ok(()) };
        for (offset, row) in (range.bytes..).step_by(ROW).zip(bytes.chunks(ROW)) {
            if row.iter().all(|byte| *byte == 0) {
                continue;
            }
            match range.data.last_mut() {
                Some(last) if last.at + last.hex.len() as u64 == offset => {
                    last.hex.try_reserve(row.len())?;
                    last.hex.extend_from_slice(row);
                }
                _ => {
                    let hex = try_collect(row.iter().copied())?;
                    try_push(&mut range.data, MemoryData::new(offset, hex))?;
                }
            }
        }
        range.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Returns an attribute's value, if the snapshot contains it.
    #[must_use]
    pub fn get(&self, device: KvmDevice, attribute: Attribute) -> Option<u64> {
        let wanted = |of: &&KvmRegister| (of.device, of.attribute) == (device, attribute);
        self.attributes.iter().find(wanted).map(|register| register.value)
    }

    /// Iterates over the attributes that a complete snapshot contains in addition to the addresses
    /// of the ITSes, in the order in which they must be restored.
    pub fn complete(&self) -> impl Iterator<Item = (KvmDevice, Attribute)> {
        order::saved_of(
            self.cpus.iter().map(|cpu| cpu.affinity),
            self.interrupts.clamp(32, 1024) - 32,
            self.its_count(),
        )
    }

    /// Returns the configuration of a machine that can restore this snapshot. The caller must
    /// validate the configuration. ITSes have the VM's addresses; other frames have default
    /// addresses.
    ///
    /// # Errors
    /// `EINVAL` if `GICD_IIDR` is not one of KVM's.
    pub fn config(&self) -> Result<VgicConfig, Errno> {
        let identification = Attribute::Distributor { offset: gicd::IIDR.offset() };
        let base = |index| self.get(KvmDevice::Its(index), Attribute::Address(frame::ITS));
        let bases = (0..self.its_count()).map(|index| base(index).map(kvm_its_config));
        let its = bases.collect::<Option<_>>().ok_or(Errno::NoRegister)?;
        let config = self.bare_config().with_its(its);
        match self.get(KvmDevice::Gic, identification) {
            Some(value) => at_revision(config, Iidr::from(low_word(value))),
            None => Ok(config),
        }
    }

    /// Returns the number of consecutive ITSes, from index 0, whose addresses the snapshot
    /// contains.
    pub fn its_count(&self) -> usize {
        let has = |index: &usize| {
            self.get(KvmDevice::Its(*index), Attribute::Address(frame::ITS)).is_some()
        };
        (0..MOST_ITS).take_while(has).count()
    }

    /// Returns the configuration without ITSes.
    fn bare_config(&self) -> VgicConfig {
        let cpus = self.cpus.iter().map(|cpu| CpuConfig::new(cpu.affinity, cpu.number));
        let count = u16::try_from(self.cpus.len()).unwrap_or(u16::MAX);
        kvm_config(count, self.interrupts).with_cpus(cpus.collect())
    }
}

/// Returns the state of a machine that has not been used, or `None` if the configuration is invalid
/// or the heap is exhausted.
fn fresh_state(config: &VgicConfig) -> Option<SavedState> {
    let (gic, mut vcpus) =
        Vgic::new(config.clone(), Arc::new(TableCopies(Vec::new())), Arc::new(|_| ())).ok()?;
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();
    gic.save().ok()
}

/// Guest memory that contains only a snapshot's copies of the tables, sorted by address. Ignores
/// writes.
struct TableCopies<'s>(Vec<&'s MemoryRange>);

impl<'s> TableCopies<'s> {
    /// Fails with `EINVAL` if two ranges overlap, or if the contents of a range are not in
    /// ascending order or lie outside of it.
    fn of(ranges: &'s [MemoryRange]) -> Result<Self, Errno> {
        let mut sorted = try_collect(ranges.iter())?;
        sorted.sort_unstable_by_key(|range| range.address);
        let after = |end: u64, start: u64, bytes: u64| {
            if end <= start { start.checked_add(bytes) } else { None }
        };
        let all = sorted.iter().try_fold(0, |end, range| {
            let mut contents = range.data.iter().map(|data| (data.at, data.hex.len() as u64));
            let inside = contents.try_fold(0, |end, (at, bytes)| after(end, at, bytes));
            inside.filter(|inside| *inside <= range.bytes)?;
            after(end, range.address, range.bytes)
        });
        all.map(|_| Self(sorted)).ok_or(Errno::Invalid)
    }
}

impl GuestMemory for TableCopies<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        let above = self.0.partition_point(|range| range.address <= address);
        let range = above.checked_sub(1).and_then(|at| self.0.get(at));
        let range = range.ok_or(MemoryFault { address })?;
        let offset = address - range.address;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > range.bytes {
            return Err(MemoryFault { address });
        }
        bytes.fill(0);
        let first = range.data.partition_point(|data| data.at + data.hex.len() as u64 <= offset);
        let data = range.data.get(first..).unwrap_or_default();
        for data in data.iter().take_while(|data| data.at < end) {
            let distance =
                |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
            let to = bytes.iter_mut().skip(distance(offset, data.at));
            let from = data.hex.iter().skip(distance(data.at, offset));
            to.zip(from).for_each(|(to, from)| *to = *from);
        }
        Ok(())
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Ok(())
    }
}

/// Guest memory that ignores writes. A restore writes only to clear the pending bits that it has
/// moved into the state.
pub(super) struct Unwritten<M>(pub(super) M);

impl<M: Deref<Target: GuestMemory> + Send + Sync> GuestMemory for Unwritten<M> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.0.read(address, bytes)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Ok(())
    }

    fn read_u64(&self, address: u64) -> Result<u64, MemoryFault> {
        self.0.read_u64(address)
    }
}

fn read(
    devices: &mut dyn KvmAttributes,
    device: KvmDevice,
    attribute: Attribute,
) -> Result<KvmRegister, KvmError> {
    let value = devices.get(device, attribute);
    let value = value.map_err(|errno| KvmError::new(device, attribute, errno))?;
    Ok(KvmRegister { device, attribute, value })
}

fn save_tables(
    devices: &mut dyn KvmAttributes,
    device: KvmDevice,
    command: u64,
) -> Result<(), KvmError> {
    let attribute = Attribute::Control(command);
    let outcome = devices.set(device, attribute, 0);
    outcome.map_err(|errno| KvmError::new(device, attribute, errno))
}
