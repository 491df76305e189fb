//! vPEs (GICv4.0; IHI 0069, "virtual LPIs"): those of a virtual machine, with their tables.
//! [`direct`](super::direct) maps events to them.
//!
//! Each vPE is mapped to the redistributor of one CPU at a time. While it is
//! [resident](VpeSet::load) there, the redistributor signals the vPE's virtual LPIs to the guest.
//! Otherwise, they wait in the vPE's pending table, and may ring its [doorbell](super::doorbell).

use super::doorbell::Doorbells;
use super::error::{ItsError, fault};
use super::hardware::Context;
use super::vpe_table::{VpeTable, refused};
use super::{Its, TaskState};
use crate::platform::{ADDRESS_BITS, Coherence, GicPlatform, Observed, Table};
use crate::redistributor::VpeTables;
use crate::{GicError, Redistributor};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use doorbell_lock::TaskLock;
use gic_arch::Lpi;
use gic_arch::gicr::vlpi::Vpendbaser;
use gic_arch::its::{MapAction, RawCommand, RdBase, VirtualCommand, VpeId};
use gic_arch::lpi::{
    CONFIG_TABLE_ALIGNMENT, Config, MIN_ID_BITS, PENDING_TABLE_ALIGNMENT, config_offset,
    config_table_bytes, pending_location, pending_table_bytes,
};
use msi_types::Cpu;

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
    is_resident: bool,
    /// `GICR_VPENDBASER.IDAI` when the vPE last left.
    idai: bool,
}

/// The vPEs of a virtual machine, and the configuration of its virtual LPIs. The configuration
/// table is the hypervisor's, with all virtual LPIs initially disabled.
///
/// Dropping the set unmaps its vPEs and frees their tables. If events are still mapped to them, the
/// tables are leaked instead, because the ITS may still access them.
#[doc(alias = "its_vm")]
pub struct VpeSet<P: GicPlatform> {
    pub(super) its: Arc<Its<P>>,
    config: Table,
    id_bits: u8,
    pub(super) vpes: Vec<Vpe>,
    pub(super) doorbells: Option<Doorbells>,
    /// Number of events that are mapped to the vPEs.
    pub(super) events: AtomicU32,
}

impl<P: GicPlatform> fmt::Debug for VpeSet<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VpeSet").field("vpes", &self.vpes).finish_non_exhaustive()
    }
}

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
        if !its.typer.virtual_lpis() || its.typer.vmapp() {
            return refused("the ITS does not implement GICv4.0");
        }
        if !its.typer.vmovp() {
            return refused("the ITS must move vPEs together with other ITSes");
        }
        let config = its.table(config_table_bytes(id_bits), CONFIG_TABLE_ALIGNMENT)?;
        let (vpes, doorbells, events) = (Vec::new(), None, AtomicU32::new(0));
        let mut set = Self { its, config, id_bits, vpes, doorbells, events };
        set.vpes.try_reserve_exact(cpus.len()).map_err(|_| ItsError::NoMemory("vPEs"))?;
        for cpu in cpus {
            set.map_vpe(*cpu)?;
        }
        Ok(set)
    }

    fn map_vpe(&mut self, cpu: Cpu) -> Result<(), ItsError> {
        let its = self.its.clone();
        let target = its.collections.of_cpu(cpu)?.1;
        if !self.redistributor(cpu)?.can_load_vpes() {
            return Err(refused(its.frame.base, "a redistributor does not implement GICv4.0"));
        }
        let pending = its.table(pending_table_bytes(self.id_bits), PENDING_TABLE_ALIGNMENT)?;
        let allocated = its.with_vpe_table(|table| table.allocate(&its.frame));
        let id = match allocated {
            Ok(id) => id,
            Err(error) => {
                its.platform().release_table(pending);
                return Err(error);
            }
        };
        let [waits, may_be_pending] = [const { AtomicBool::new(false) }; 2];
        let residency = TaskLock::new(Residency { cpu, is_resident: false, idai: false });
        let vpe = Vpe { id, pending, residency, waits, may_be_pending };
        let map = vpe.vmapp(target, self.id_bits, MapAction::Map);
        // From now on, dropping the set unmaps the vPE.
        self.vpes.push(vpe);
        let (sync, reload) =
            (VirtualCommand::Vsync { vpe: id }, VirtualCommand::Vinvall { vpe: id });
        its.run_virtual([map, sync, reload, sync].map(VirtualCommand::encode))
    }

    /// Makes a vPE resident at a CPU; the guest may then be entered. The vPE must not be resident
    /// anywhere else, and no other vPE may be resident there.
    ///
    /// Context: task; interrupts may be masked; must not sleep or allocate.
    ///
    /// # Errors
    /// [`ItsError::NotReachable`] if the CPU is off; [`ItsError::Fault`] if the set has no such
    /// vPE, if a command fails, or if `GICR_VPENDBASER.Dirty` stays set.
    pub fn load(&self, vpe: u16, cpu: Cpu) -> Result<(), ItsError> {
        let doorbell = self.doorbell(vpe);
        let vpe = self.vpe(vpe)?;
        vpe.waits.store(false, SeqCst);
        let mut residency = vpe.residency.lock(self.its.platform());
        if residency.cpu != cpu {
            let (_, target) = self.its.collections.of_cpu(cpu)?;
            let (its_list, sequence) = (0, 0);
            let vmovp = VirtualCommand::Vmovp { vpe: vpe.id, target, its_list, sequence };
            let sync = VirtualCommand::Vsync { vpe: vpe.id };
            self.its.run_virtual([vmovp, sync].map(VirtualCommand::encode))?;
            // The ITS must know where the doorbell rings.
            doorbell.map_or(Ok(cpu), |doorbell| self.its.move_event(doorbell, cpu))?;
            residency.cpu = cpu;
        }
        self.enter(vpe, &mut residency)
    }

    fn enter(&self, vpe: &Vpe, residency: &mut Residency) -> Result<(), ItsError> {
        let tables = VpeTables {
            config: self.config.address,
            pending: vpe.pending.address,
            id_bits: self.id_bits,
            idai: residency.idai,
        };
        residency.is_resident = true;
        let loaded = self.redistributor(residency.cpu)?.load_vpe(self.its.platform(), tables);
        loaded.map_err(|error| self.residency(error))
    }

    fn leave(&self, residency: &mut Residency) -> Result<Vpendbaser, ItsError> {
        residency.is_resident = false;
        let put = self.redistributor(residency.cpu)?.put_vpe(self.its.platform());
        let left = put.map_err(|error| self.residency(error))?;
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
        Ok(self.leave(&mut residency)?.pending_last())
    }

    /// Runs `f` while the vPE is resident nowhere, and tells it whether the virtual LPI is pending.
    /// The redistributor of a resident vPE may hold pending state. It writes that state to the
    /// table before `GICR_VPENDBASER.Dirty` reads as 0 (IHI 0069 §12.11).
    ///
    /// The vCPU may be running; it takes no virtual LPIs until `f` returns. If the table cannot be
    /// read, the LPI counts as pending.
    pub(super) fn while_evicted<R>(
        &self,
        (vpe, lpi): (u16, Lpi),
        f: impl FnOnce(bool) -> Result<R, ItsError>,
    ) -> Result<R, ItsError> {
        let vpe = self.vpe(vpe)?;
        let mut residency = vpe.residency.lock(self.its.platform());
        let was_resident = residency.is_resident;
        let left = if was_resident { self.leave(&mut residency).map(|_| ()) } else { Ok(()) };
        let is_pending = left.and_then(|()| self.is_pending(vpe, residency.cpu, lpi));
        let result = f(is_pending.unwrap_or_else(|error| {
            self.its.note(error);
            true
        }));
        if was_resident {
            self.enter(vpe, &mut residency)?;
        }
        result
    }

    /// Reads the pending table of a vPE that is not resident.
    fn is_pending(&self, vpe: &Vpe, cpu: Cpu, lpi: Lpi) -> Result<bool, ItsError> {
        // Messages that the ITS has translated must have reached the table.
        self.its.run_virtual([VirtualCommand::Vsync { vpe: vpe.id }.encode()])?;
        let (platform, (offset, bit)) = (self.its.platform(), pending_location(lpi));
        let coherence = self.redistributor(cpu)?.pending_coherence();
        let observed = platform.observe(&vpe.pending, offset..offset + 1, coherence);
        let byte = platform.load8(&vpe.pending, offset);
        Ok(observed == Observed::No || byte & 1 << bit != 0)
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

    fn residency(&self, _: GicError) -> ItsError {
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
        if self.events.load(SeqCst) != 0 {
            return;
        }
        let its = &self.its;
        let mut is_unused = true;
        for mut vpe in core::mem::take(&mut self.vpes) {
            // The ITS ignores the target.
            let unmap = vpe.vmapp(RdBase::from_field(0), self.id_bits, MapAction::Unmap);
            let sync = VirtualCommand::Vsync { vpe: vpe.id };
            match its.run_virtual([unmap, sync].map(VirtualCommand::encode)) {
                Ok(()) => {
                    its.platform().release_table(vpe.pending.take());
                    let _ = its.with_vpe_table(|table| {
                        table.set(vpe.id.get(), false);
                        Ok(())
                    });
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

impl<P: GicPlatform> Its<P> {
    fn table(&self, bytes: u64, align: u64) -> Result<Table, ItsError> {
        let table = self.constraints.allocate(self.platform(), bytes, align, ADDRESS_BITS);
        table.map_err(|error| ItsError::no_table("a table of virtual LPIs", error))
    }

    pub(super) fn with_vpe_table<R>(
        &self,
        f: impl FnOnce(&mut VpeTable) -> Result<R, ItsError>,
    ) -> Result<R, ItsError> {
        self.state.with(self.platform(), |TaskState { vpe_table, .. }| {
            f(vpe_table.as_mut().ok_or(refused(self.frame.base, "the ITS has no vPE table"))?)
        })
    }

    /// Posts commands as one batch, and waits for them.
    pub(super) fn run_virtual<const N: usize>(
        &self,
        commands: [RawCommand; N],
    ) -> Result<(), ItsError> {
        let result = self.queue.run_raw(&self.frame, Context::Any, &mut commands.into_iter());
        result.map_err(|failed| failed.error.at(self.frame.base))
    }
}
