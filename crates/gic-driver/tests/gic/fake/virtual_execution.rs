//! Executes ITS commands for virtual LPIs. Each takes effect only at a VSYNC for its vPE.

use super::effect::{Effect, apply};
use super::entries::TranslationEntry;
use super::execution::Execution;
use super::memory::Memory;
use super::redistributor::FakeRedistributor;
use gic_arch::gicr::{Pendbaser, Propbaser, Typer};
use gic_arch::its::{MapAction, RdBase, VirtualCommand, VpeId};
use gic_arch::lpi::pending_table_bytes;

/// Flag of the targets that are vPEs.
pub(super) const VPE: u64 = 1 << 40;

/// A vPE. Its virtual LPIs are modeled like the LPIs of a redistributor, which are enabled while
/// the vPE is resident.
#[derive(Debug)]
pub(crate) struct FakeVpe {
    pub(crate) lpis: FakeRedistributor,
    /// Target of the redistributor to which the vPE is mapped.
    pub(crate) home: u64,
    /// `true` once VMAPP has taken effect.
    pub(crate) is_mapped: bool,
    /// `true` once all configurations have been invalidated.
    pub(crate) is_invalidated: bool,
    /// `true` if the next VSYNC unmaps the vPE.
    leaves: bool,
    /// Target to which the next VSYNC moves the vPE.
    next_home: Option<u64>,
}

impl FakeVpe {
    /// Returns the addresses of the tables.
    pub(crate) fn tables(&self) -> [u64; 2] {
        [self.lpis.pendbaser.address(), self.lpis.propbaser.address()]
    }

    /// Asserts that the vPE may be used.
    pub(crate) fn check(&self) {
        assert!(self.is_mapped && !self.leaves, "a vPE is used before its VMAPP has taken effect");
        assert!(self.is_invalidated, "a vPE is used with another vPE's cached configurations");
    }
}

impl Execution<'_> {
    pub(crate) fn run_virtual(&mut self, command: VirtualCommand) -> Option<()> {
        match command {
            VirtualCommand::Vmapp { vpe, target, pending_table, id_bits_minus_one, action } => {
                self.vmapp(vpe, target, (pending_table, id_bits_minus_one + 1), action)
            }
            VirtualCommand::Vmapti { device, event, vpe, intid, doorbell } => {
                (!self.its.hardware.refuses_vmapti).then_some(())?;
                let entry = self.its.event_entry(self.memory, device.get(), event.get())?;
                self.check_discarded(entry);
                let old = self.memory.device_read64(self.its.table_view(), entry);
                assert_eq!(old, 0, "VMAPTI of an event that is already mapped");
                self.vpe(vpe)?.check();
                self.map(entry, vpe, intid);
                self.change_doorbell(entry, doorbell);
                Some(())
            }
            VirtualCommand::Vmovi { device, event, vpe, doorbell } => {
                let (entry, lpi, from) = self.mapped(device.get(), event.get())?;
                assert_ne!(from & VPE, 0, "VMOVI of a physical LPI");
                self.vpe(vpe)?.check();
                self.defer(from, Effect::MoveTo(lpi, VPE | u64::from(vpe.get())));
                self.map(entry, vpe, lpi);
                if doorbell.is_some() {
                    self.change_doorbell(entry, doorbell);
                }
                Some(())
            }
            VirtualCommand::Vmovp { vpe, target, .. } => {
                self.knows(target.field()).then_some(())?;
                self.vpe(vpe)?.next_home = Some(target.field());
                Some(())
            }
            VirtualCommand::Vsync { vpe } => self.vsync(vpe),
            VirtualCommand::Vinvall { vpe } => {
                self.vpe(vpe)?;
                self.defer(VPE | u64::from(vpe.get()), Effect::ReloadAll);
                Some(())
            }
        }
    }

    fn vpe(&mut self, vpe: VpeId) -> Option<&mut FakeVpe> {
        let target = VPE | u64::from(vpe.get());
        self.its.vpes.iter_mut().find(|vpe| vpe.lpis.target == target)
    }

    fn map(&mut self, entry: u64, vpe: VpeId, intid: u32) {
        let new = TranslationEntry::new().with_intid(intid).with_collection(vpe.get());
        let effect = Effect::Map(entry, new.with_is_virtual(true).into());
        self.defer(VPE | u64::from(vpe.get()), effect);
    }

    fn change_doorbell(&mut self, entry: u64, doorbell: Option<u32>) {
        match doorbell {
            Some(doorbell) => self.its.doorbells.insert(entry, doorbell),
            None => self.its.doorbells.remove(&entry),
        };
    }

    fn vmapp(
        &mut self,
        vpe: VpeId,
        target: RdBase,
        (table, id_bits): (u64, u8),
        action: MapAction,
    ) -> Option<()> {
        self.its.entry(self.memory, 1, vpe.get().into())?;
        if action == MapAction::Unmap {
            self.vpe(vpe)?.leaves = true;
            return Some(());
        }
        self.knows(target.field()).then_some(())?;
        assert!(self.vpe(vpe).is_none(), "the vPE is already mapped");
        let bytes = usize::try_from(pending_table_bytes(id_bits)).unwrap();
        let view = self.its.table_view();
        let zero = self.memory.device_read(view, table, bytes).iter().all(|byte| *byte == 0);
        assert!(zero && table % 0x1_0000 == 0, "a pending table must be zero and aligned");
        let mut lpis = FakeRedistributor::at(0, VPE | u64::from(vpe.get()), Typer::new());
        lpis.pendbaser = Pendbaser::new().with_address(table);
        lpis.propbaser = Propbaser::new().with_id_bits_minus_one(id_bits - 1);
        self.its.vpes.push(FakeVpe {
            lpis,
            home: target.field(),
            is_mapped: false,
            is_invalidated: false,
            leaves: false,
            next_home: None,
        });
        Some(())
    }

    fn vsync(&mut self, vpe: VpeId) -> Option<()> {
        let synchronized = self.vpe(vpe)?;
        let (target, leaves) = (synchronized.lpis.target, synchronized.leaves);
        synchronized.is_mapped = true;
        synchronized.home = synchronized.next_home.take().unwrap_or(synchronized.home);
        let effects = self.take_deferred(target);
        if leaves {
            self.its.vpes.retain(|vpe| vpe.lpis.target != target);
            return Some(());
        }
        self.vpe(vpe)?.is_invalidated |= effects.contains(&Effect::ReloadAll);
        // The effects on a vPE that is not resident are in its table.
        self.with_table(target, FakeRedistributor::load_pending);
        for effect in effects {
            let mut lpis: Vec<_> = self.its.vpes.iter_mut().map(|vpe| &mut vpe.lpis).collect();
            apply(&mut lpis, self.memory, target, effect);
        }
        self.with_table(target, FakeRedistributor::store_pending);
        Some(())
    }

    fn with_table(&mut self, target: u64, access: fn(&mut FakeRedistributor, &mut Memory)) {
        let mut lpis = self.its.vpes.iter_mut().map(|vpe| &mut vpe.lpis);
        let found = lpis.find(|lpis| lpis.target == target && !lpis.lpis_enabled());
        if let Some(lpis) = found {
            access(lpis, self.memory);
        }
    }
}
