//! vPEs (GICv4.0; IHI 0069, "virtual LPIs"): those of a virtual machine, with their tables.
//! [`direct`](super::direct) maps events to them.
//!
//! A vPE has the same number at each ITS to which it is mapped, and no other vPE of the machine has
//! it. Where `GITS_TYPER.VMOVP` is 0, these ITSes must all execute the same VMOVP before any of
//! them executes another: each move has a sequence number, and all vPEs of the machine are moved
//! under one lock.
//!
//! Each vPE is mapped to the redistributor of one CPU at a time. While it is
//! [resident](VpeSet::load) there, the redistributor signals the vPE's virtual LPIs to the guest.
//! Otherwise, they wait in the vPE's pending table, and may ring its doorbell. A vPE to which no
//! event is mapped has no virtual LPIs, so it does not become resident.
//!
//! Doorbells are physical LPIs that wake the vCPUs. A virtual LPI that becomes pending while its
//! vPE is not resident makes the vPE's doorbell pending at the redistributor to which the vPE is
//! mapped. The doorbells also belong to events of a *proxy*, a DeviceID that no device has, because
//! the ITS moves LPIs by their events.

use super::config::{VpeTable, refused};
use super::error::{ItsError, fault};
use super::mapping::EventRequest;
use super::{Its, TaskState};
use crate::platform::{ADDRESS_BITS, Coherence, GicPlatform, Table};
use crate::redistributor::VpeTables;
use crate::{MmioExt, Redistributor};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use doorbell_fallible::lock::TaskLock;
use gic_arch::gicr::vlpi::Vpendbaser;
use gic_arch::its::{MapAction, RdBase, VirtualCommand, VpeId};
use gic_arch::lpi::{
    CONFIG_TABLE_ALIGNMENT, Config, MIN_ID_BITS, PENDING_TABLE_ALIGNMENT, config_offset,
    config_table_bytes, pending_table_bytes,
};
use gic_arch::{Lpi, gits};
use msi_types::{Attachment, Cpu, DeviceId, HwIrqBlock};

/// A vCPU's vPE.
#[derive(Debug)]
pub(super) struct Vpe {
    id: VpeId,
    pending: Table,
    residency: TaskLock<Residency>,
    /// `true` while the vCPU waits: from before its vPE leaves until it is loaded.
    pub(super) waits: AtomicBool,
    /// `true` if a virtual LPI may have become pending since the vCPU waits.
    pub(super) may_be_pending: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Residency {
    /// CPU to whose redistributor the vPE is mapped.
    cpu: Cpu,
    /// CPU on which the vPE is loaded.
    loaded: Option<Cpu>,
    place: Place,
    /// Number of events that are mapped to the vPE.
    events: u32,
    /// `GICR_VPENDBASER.IDAI` when the vPE last left.
    idai: bool,
}

/// Residency of a vPE at the redistributor of its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    Away,
    Resident,
    /// The redistributor did not respond. The vPE must leave before it can be resident again.
    Unknown,
}

/// The vPEs of a virtual machine, and the configuration of its virtual LPIs. The configuration
/// table is the hypervisor's, with all virtual LPIs initially disabled.
///
/// Dropping the set makes its vPEs leave their CPUs, unmaps them and frees their tables. If events
/// are still mapped to them, or if one does not leave, the tables are leaked instead, because the
/// hardware may still access them.
#[doc(alias = "its_vm")]
pub struct VpeSet<P: GicPlatform> {
    /// The ITS of the doorbells.
    pub(super) its: Arc<Its<P>>,
    /// The other ITSes, with the number of vPEs that are mapped to each.
    others: Vec<(Arc<Its<P>>, usize)>,
    config: Table,
    id_bits: u8,
    pub(super) vpes: Vec<Vpe>,
    pub(super) doorbells: Option<Doorbells>,
}

msi_types::debug_by!([P: GicPlatform] VpeSet<P> as "VpeSet", |it| {vpes: it.vpes});

impl<P: GicPlatform> VpeSet<P> {
    /// Maps a vPE to each of these CPUs, with virtual INTIDs of `id_bits` bits.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`ItsError::Fault`] if the ITS or a CPU's redistributor lacks GICv4.0, if the ITS was
    /// created [without vPEs](super::ItsConfig::with_vpes) or has none left, or if a command fails;
    /// [`ItsError::NotReachable`], [`ItsError::NoMemory`]. On error, all memory has been freed
    /// unless the ITS may still use it.
    pub fn new(its: Arc<Its<P>>, id_bits: u8, cpus: &[Cpu]) -> Result<Self, ItsError> {
        let refused = |reason| Err(refused(its.frame.base, reason));
        if !(MIN_ID_BITS..=its.lpis().id_bits()).contains(&id_bits) {
            return refused("the ITS does not support the guest's number of INTID bits");
        }
        if !has_vpes(&its) {
            return refused("the ITS does not implement GICv4.0");
        }
        let config = table(&its, config_table_bytes(id_bits), CONFIG_TABLE_ALIGNMENT)?;
        let (others, vpes, doorbells) = (Vec::new(), Vec::new(), None);
        let mut set = Self { its, others, config, id_bits, vpes, doorbells };
        set.vpes.try_reserve_exact(cpus.len()).map_err(|_| ItsError::NoMemory("vPEs"))?;
        for cpu in cpus {
            set.map_vpe(*cpu)?;
        }
        Ok(set)
    }

    /// Also maps the vPEs to another ITS, so that its events can be
    /// [handed over](Self::hand_over), too.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Any error of [`new`](Self::new). [`ItsError::Fault`] if the ITS belongs to another GIC or is
    /// already in the set, if the ITSes move vPEs in different ways, or if ITSes that must move
    /// vPEs together have the same number.
    pub fn with_its(mut self, its: &Arc<Its<P>>) -> Result<Self, ItsError> {
        let refused = |reason| Err(refused(its.frame.base, reason));
        if !has_vpes(its) || its.typer.vmovp() != self.its.typer.vmovp() {
            return refused("the ITS does not implement GICv4.0 like the other");
        }
        let is_known = |known: &Arc<Its<P>>| {
            Arc::ptr_eq(known, its) || (!its.typer.vmovp() && number(known) == number(its))
        };
        if !Arc::ptr_eq(&self.its.gic, &its.gic) || self.all().any(is_known) {
            return refused("the ITSes cannot share vPEs");
        }
        self.others.try_reserve(1).map_err(|_| ItsError::NoMemory("vPEs"))?;
        self.others.push((its.clone(), 0));
        for index in 0..self.vpes.len() {
            let vpe = &self.vpes[index];
            let target = its.collections.of_cpu(vpe.cpu(its.platform()))?.1;
            with_vpe_table(its, |table| table.ensure(&its.frame, vpe.id))?;
            if let Some((_, mapped)) = self.others.last_mut() {
                *mapped = index + 1;
            }
            map_vpe(its, vpe.id, vpe.vmapp(target, self.id_bits, MapAction::Map))?;
        }
        Ok(self)
    }

    /// Iterates over the ITSes to which the vPEs are mapped.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Its<P>>> {
        core::iter::once(&self.its).chain(self.others.iter().map(|(its, _)| its))
    }

    fn map_vpe(&mut self, cpu: Cpu) -> Result<(), ItsError> {
        let its = self.its.clone();
        let target = its.collections.of_cpu(cpu)?.1;
        if !self.redistributor(cpu)?.can_load_vpes() {
            return Err(refused(its.frame.base, "a redistributor does not implement GICv4.0"));
        }
        let pending = table(&its, pending_table_bytes(self.id_bits), PENDING_TABLE_ALIGNMENT)?;
        let id = match allocate_vpe(&its) {
            Ok(id) => id,
            Err(error) => {
                its.platform().release_table(pending);
                return Err(error);
            }
        };
        let [waits, may_be_pending] = [const { AtomicBool::new(false) }; 2];
        let residency = TaskLock::new(Residency {
            cpu,
            loaded: None,
            place: Place::Away,
            events: 0,
            idai: false,
        });
        let vpe = Vpe { id, pending, residency, waits, may_be_pending };
        let map = vpe.vmapp(target, self.id_bits, MapAction::Map);
        // From now on, dropping the set unmaps the vPE.
        self.vpes.push(vpe);
        map_vpe(&its, id, map)
    }

    /// Maps a vPE that is not resident to another CPU.
    fn move_vpe(&self, vpe: &Vpe, cpu: Cpu) -> Result<(), ItsError> {
        let vmovp = |its: &Its<P>, its_list, sequence| {
            let (_, target) = its.collections.of_cpu(cpu)?;
            let vmovp = VirtualCommand::Vmovp { vpe: vpe.id, target, its_list, sequence };
            let sync = VirtualCommand::Vsync { vpe: vpe.id };
            its.run_virtual([vmovp, sync].map(VirtualCommand::encode))
        };
        if self.its.typer.vmovp() {
            return vmovp(&self.its, 0, 0);
        }
        let its_list = self.all().fold(0, |list, its| list | 1 << number(its));
        let mut sequence = self.its.gic.vpe_moves.lock(self.its.platform());
        *sequence = sequence.wrapping_add(1);
        self.all().try_for_each(|its| vmovp(its, its_list, *sequence))
    }

    /// Loads a vPE on a CPU; the guest may then be entered. The vPE must not be loaded anywhere
    /// else, and no other vPE may be loaded there. The vPE becomes resident as soon as an event is
    /// mapped to it.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the vPE becomes resident and the CPU is off;
    /// [`ItsError::Fault`] if the set has no such vPE, if a command fails, or if
    /// `GICR_VPENDBASER.Dirty` stays set.
    pub fn load(&self, vpe: u16, cpu: Cpu) -> Result<(), ItsError> {
        let found = self.vpe(vpe)?;
        found.waits.store(false, SeqCst);
        let mut residency = found.residency.lock(self.its.platform());
        residency.loaded = Some(cpu);
        if residency.events == 0 { Ok(()) } else { self.enter(vpe, &mut residency) }
    }

    /// Makes a loaded vPE resident. No-op if the vPE isn't loaded, or already is resident.
    fn enter(&self, index: u16, residency: &mut Residency) -> Result<(), ItsError> {
        let vpe = self.vpe(index)?;
        let cpu = match (residency.loaded, residency.place) {
            (Some(cpu), Place::Away) => cpu,
            (_, Place::Unknown) => return Err(self.stays_dirty()),
            (_, Place::Away | Place::Resident) => return Ok(()),
        };
        if residency.cpu != cpu {
            self.move_vpe(vpe, cpu)?;
            // The ITS must know where the doorbell rings.
            let doorbell = self.doorbell(index);
            doorbell.map_or(Ok(cpu), |doorbell| self.its.move_event(doorbell, cpu))?;
            residency.cpu = cpu;
        }
        let tables = VpeTables {
            config: self.config.address,
            pending: vpe.pending.address,
            id_bits: self.id_bits,
            idai: residency.idai,
        };
        let loaded = self.redistributor(cpu)?.load_vpe(self.its.platform(), tables);
        residency.place = if loaded.is_ok() { Place::Resident } else { Place::Unknown };
        loaded.map_err(|_| self.stays_dirty())
    }

    fn leave(&self, residency: &mut Residency) -> Result<Vpendbaser, ItsError> {
        let put = self.redistributor(residency.cpu)?.put_vpe(self.its.platform());
        residency.place = if put.is_ok() { Place::Away } else { Place::Unknown };
        let left = put.map_err(|_| self.stays_dirty())?;
        residency.idai = left.idai();
        Ok(left)
    }

    /// Makes a vPE leave its CPU. Returns `true` if a virtual LPI is pending. If the vCPU waits for
    /// an interrupt, use [`put_to_wait`](Self::put_to_wait) instead.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// Any error of [`load`](Self::load). After [`ItsError::Fault`], callers must assume that a
    /// virtual LPI is pending.
    pub fn put(&self, vpe: u16) -> Result<bool, ItsError> {
        let mut residency = self.vpe(vpe)?.residency.lock(self.its.platform());
        residency.loaded = None;
        Ok(residency.place != Place::Away && self.leave(&mut residency)?.pending_last())
    }

    /// Counts an event that is about to be mapped to a vPE. If the vPE is loaded, makes it
    /// resident.
    pub(super) fn add_event(&self, vpe: u16) -> Result<(), ItsError> {
        let mut residency = self.vpe(vpe)?.residency.lock(self.its.platform());
        self.enter(vpe, &mut residency)?;
        residency.events += 1;
        Ok(())
    }

    /// Forgets an event that is not mapped to a vPE any more. If it was the last one, the vPE stays
    /// resident until it is put.
    pub(super) fn remove_event(&self, vpe: u16) -> Result<(), ItsError> {
        let mut residency = self.vpe(vpe)?.residency.lock(self.its.platform());
        residency.events -= 1;
        Ok(())
    }

    /// Stores the configuration of a virtual LPI. Redistributors may keep using the old
    /// configuration until the event is [invalidated](Self::invalidate).
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`ItsError::NotMapped`] if the table does not cover the LPI.
    pub fn configure(&self, lpi: Lpi, config: Config) -> Result<(), ItsError> {
        self.check(lpi)?;
        let (platform, offset) = (self.its.platform(), config_offset(lpi));
        platform.store8(&self.config, offset, config.into());
        platform.publish(&self.config, offset..offset + 1, Coherence::NonCoherent);
        Ok(())
    }

    pub(super) fn check(&self, lpi: Lpi) -> Result<(), ItsError> {
        let is_covered = u64::from(lpi.get()) < 1 << self.id_bits;
        if is_covered { Ok(()) } else { Err(ItsError::NotMapped(lpi)) }
    }

    pub(super) fn id(&self, vpe: u16) -> Result<VpeId, ItsError> {
        Ok(self.vpe(vpe)?.id)
    }

    pub(super) fn vpe(&self, vpe: u16) -> Result<&Vpe, ItsError> {
        let found = self.vpes.get(usize::from(vpe));
        found.ok_or(refused(self.its.frame.base, "no vPE has this number"))
    }

    pub(super) fn doorbell(&self, vpe: u16) -> Option<Lpi> {
        self.doorbells.as_ref()?.of(vpe)
    }

    fn redistributor(&self, cpu: Cpu) -> Result<&Redistributor<P::Mmio>, ItsError> {
        let found = self.its.gic.redistributor_frames(cpu);
        found.map_err(|_| ItsError::NotReachable(cpu, "it has no redistributor"))
    }

    fn stays_dirty(&self) -> ItsError {
        fault(self.its.frame.base, "GICR_VPENDBASER", "Dirty stays set")
    }
}

impl Vpe {
    /// Returns the CPU to whose redistributor the vPE is mapped.
    pub(super) fn cpu<P: GicPlatform>(&self, platform: &P) -> Cpu {
        self.residency.lock(platform).cpu
    }

    fn vmapp(&self, target: RdBase, id_bits: u8, action: MapAction) -> VirtualCommand {
        VirtualCommand::Vmapp {
            vpe: self.id,
            target,
            pending_table: self.pending.address,
            id_bits_minus_one: id_bits - 1,
            action,
        }
    }
}

impl<P: GicPlatform> Drop for VpeSet<P> {
    fn drop(&mut self) {
        let its = &self.its;
        if self.vpes.iter().any(|vpe| vpe.residency.lock(its.platform()).events != 0) {
            return;
        }
        let mut is_unused = true;
        for (index, mut vpe) in core::mem::take(&mut self.vpes).into_iter().enumerate() {
            let mapped = self.others.iter().filter(|(_, mapped)| index < *mapped);
            let mapped = || mapped.clone().map(|(its, _)| its).chain([its]);
            // The ITS ignores the target.
            let unmap = vpe.vmapp(RdBase::from_field(0), self.id_bits, MapAction::Unmap);
            let sync = VirtualCommand::Vsync { vpe: vpe.id };
            let left = {
                let mut residency = vpe.residency.lock(its.platform());
                if residency.place == Place::Away {
                    Ok(())
                } else {
                    self.leave(&mut residency).map(|_| ())
                }
            };
            let unmap =
                |its: &Arc<Its<P>>| its.run_virtual([unmap, sync].map(VirtualCommand::encode));
            match left.and_then(|()| mapped().try_for_each(unmap)) {
                Ok(()) => {
                    its.platform().release_table(vpe.pending.take());
                    release_vpe(its, vpe.id);
                }
                Err(error) => {
                    is_unused = false;
                    its.note(error);
                }
            }
        }
        if is_unused {
            its.platform().release_table(self.config.take());
            if let Some(doorbells) = self.doorbells.take() {
                doorbells.unmap(its);
            }
        }
    }
}

const fn has_vpes<P: GicPlatform>(its: &Its<P>) -> bool {
    its.typer.virtual_lpis() && !its.typer.vmapp()
}

/// Allocates a vPE's number, and room in the vPE table.
fn allocate_vpe<P: GicPlatform>(its: &Its<P>) -> Result<VpeId, ItsError> {
    let id = its.gic.vpe_numbers.with(its.platform(), |used| {
        let free = used.iter().position(|used| !used).unwrap_or(used.len());
        if free == used.len() {
            used.try_reserve(1).map_err(|_| ItsError::NoMemory("vPEs"))?;
            used.push(false);
        }
        let id = u16::try_from(free);
        let id = id.map_err(|_| refused(its.frame.base, "the vPE table is full"))?;
        used[free] = true;
        Ok(VpeId::new(id))
    })?;
    let ensured = with_vpe_table(its, |table| table.ensure(&its.frame, id));
    ensured.inspect_err(|_| release_vpe(its, id)).map(|()| id)
}

fn release_vpe<P: GicPlatform>(its: &Its<P>, id: VpeId) {
    its.gic.vpe_numbers.with(its.platform(), |used| {
        if let Some(used) = used.get_mut(usize::from(id.get())) {
            *used = false;
        }
    });
}

/// Returns `GITS_CTLR.ITS_Number`.
fn number<P: GicPlatform>(its: &Its<P>) -> u8 {
    its.frame.registers.read(gits::CTLR).its_number()
}

fn map_vpe<P: GicPlatform>(its: &Its<P>, vpe: VpeId, map: VirtualCommand) -> Result<(), ItsError> {
    let (sync, reload) = (VirtualCommand::Vsync { vpe }, VirtualCommand::Vinvall { vpe });
    its.run_virtual([map, sync, reload, sync].map(VirtualCommand::encode))
}

fn table<P: GicPlatform>(its: &Its<P>, bytes: u64, align: u64) -> Result<Table, ItsError> {
    let table = its.constraints.allocate(its.platform(), bytes, align, ADDRESS_BITS);
    table.map_err(|error| ItsError::no_table("a table of virtual LPIs", error))
}

pub(super) fn with_vpe_table<P: GicPlatform, R>(
    its: &Its<P>,
    f: impl FnOnce(&mut VpeTable) -> Result<R, ItsError>,
) -> Result<R, ItsError> {
    its.state.with(its.platform(), |TaskState { vpe_table, .. }| {
        f(vpe_table.as_mut().ok_or(refused(its.frame.base, "the ITS has no vPE table"))?)
    })
}

/// The doorbells of a set of vPEs, in the vPEs' order. They are always enabled.
#[derive(Debug)]
pub(super) struct Doorbells {
    proxy: Attachment,
    lpis: HwIrqBlock,
}

impl Doorbells {
    /// Maps `count` doorbells to the CPUs of their vPEs, of which there may be `room` at this ITS.
    /// On error, nothing is mapped.
    pub(super) fn map<P: GicPlatform>(
        its: &Its<P>,
        proxy: DeviceId,
        room: u32,
        (count, cpus): (NonZeroU16, impl Fn(u16) -> Cpu),
    ) -> Result<Self, ItsError> {
        let proxy = its.attach_shared(proxy, count.get().into(), room)?;
        let request = EventRequest::new(count, cpus(0));
        let lpis = match its.map_events(&proxy, request) {
            Ok(lpis) => lpis,
            Err(error) => {
                its.detach(proxy);
                return Err(error);
            }
        };
        let doorbells = Self { proxy, lpis };
        let mut all = (0..count.get()).filter_map(|vpe| Some((doorbells.of(vpe)?, cpus(vpe))));
        match all.try_for_each(|(doorbell, cpu)| its.move_event(doorbell, cpu).map(|_| ())) {
            Ok(()) => Ok(doorbells),
            Err(error) => {
                doorbells.unmap(its);
                Err(error)
            }
        }
    }

    /// Unmaps the doorbells. No event may use them any more.
    pub(super) fn unmap<P: GicPlatform>(self, its: &Its<P>) {
        its.release(self.proxy, &mut core::iter::once(self.lpis));
    }

    /// Returns a vPE's doorbell.
    pub(super) fn of(&self, vpe: u16) -> Option<Lpi> {
        Lpi::try_from(self.lpis.hwirq(vpe)?.get()).ok()
    }

    /// Returns the vPE that has this doorbell.
    pub(super) fn vpe_of(&self, lpi: Lpi) -> Option<u16> {
        let index = u16::try_from(lpi.get().checked_sub(self.lpis.first().get())?).ok()?;
        (index < self.lpis.count().get()).then_some(index)
    }
}
