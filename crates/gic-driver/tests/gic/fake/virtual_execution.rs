//! Executes ITS commands for virtual LPIs. Each takes effect only at a VSYNC for its vPE.
//!
//! A redistributor's fake VLPI_base frame. Residency changes take effect late.

use super::LAG;
use super::effect::{Effect, apply};
use super::execution::Execution;
use super::memory::{Memory, TranslationEntry};
use super::redistributor::FakeRedistributor;
use gic_arch::gicr::vlpi::{self, Vpendbaser, Vpropbaser};
use gic_arch::gicr::{Pendbaser, Propbaser, Typer};
use gic_arch::its::{MapAction, RdBase, VirtualCommand, VpeId};
use gic_arch::lpi::pending_table_bytes;
use std::collections::BTreeMap;

/// Flag of the targets that are vPEs.
pub(super) const VPE: u64 = 1 << 40;

/// A vPE. Its virtual LPIs are modeled like the LPIs of a redistributor, which are enabled while
/// the vPE is resident.
#[derive(Debug)]
pub(crate) struct FakeVpe {
    pub(crate) lpis: FakeRedistributor,
    /// Target of the redistributor to which the vPE is mapped.
    pub(crate) home: u64,
    /// The ITSes to which the vPE is mapped, by their numbers.
    mappings: BTreeMap<u8, Mapping>,
    /// `GICR_VPENDBASER.IDAI` of the last put.
    pub(crate) idai: bool,
    /// The VMOVP that is in progress.
    moving: Option<Move>,
}

/// A vPE's mapping at an ITS.
#[derive(Debug, Default)]
struct Mapping {
    /// `true` once VMAPP has taken effect.
    is_mapped: bool,
    /// `true` once all configurations have been invalidated.
    is_invalidated: bool,
    /// `true` if the next VSYNC unmaps the vPE.
    leaves: bool,
}

/// A VMOVP, which takes effect at a VSYNC after all ITSes have executed it.
#[derive(Debug)]
struct Move {
    target: u64,
    /// Numbers of the ITSes, and of those that have not executed the command yet, as bitmaps.
    its_list: u16,
    awaited: u16,
    sequence: u16,
}

impl FakeVpe {
    /// Returns the addresses of the tables.
    pub(crate) fn tables(&self) -> [u64; 2] {
        [self.lpis.pendbaser.address(), self.lpis.propbaser.address()]
    }

    /// Asserts that the vPE may be used.
    pub(crate) fn check(&self) {
        for mapping in self.mappings.values() {
            let is_mapped = mapping.is_mapped && !mapping.leaves;
            assert!(is_mapped, "a vPE is used before its VMAPP has taken effect");
            let is_new = mapping.is_invalidated;
            assert!(is_new, "a vPE is used with another vPE's cached configurations");
        }
        assert!(self.moving.is_none(), "a vPE is used while it moves");
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
                let number = self.its.hardware.number;
                let used = self.vpe(vpe)?;
                used.check();
                used.mappings.get(&number)?;
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
            VirtualCommand::Vmovp { vpe, target, its_list, sequence } => {
                self.knows(target.field()).then_some(())?;
                self.vmovp(vpe, target.field(), its_list, sequence)
            }
            VirtualCommand::Vsync { vpe } => self.vsync(vpe),
            VirtualCommand::Vinvall { vpe } => {
                let number = self.its.hardware.number;
                let is_mapped = self.vpe(vpe)?.mappings.get(&number)?.is_mapped;
                assert!(is_mapped, "a vPE is invalidated before its VMAPP has taken effect");
                self.defer(VPE | u64::from(vpe.get()), Effect::ReloadAll);
                Some(())
            }
        }
    }

    fn vpe(&mut self, vpe: VpeId) -> Option<&mut FakeVpe> {
        let target = VPE | u64::from(vpe.get());
        self.memory.vpes.iter_mut().find(|vpe| vpe.lpis.target == target)
    }

    fn map(&mut self, entry: u64, vpe: VpeId, intid: u32) {
        let new = TranslationEntry::new().with_intid(intid).with_collection(vpe.get());
        let effect = Effect::Map(entry, new.with_is_virtual(true).into());
        self.defer(VPE | u64::from(vpe.get()), effect);
    }

    fn vmovp(&mut self, vpe: VpeId, target: u64, its_list: u16, sequence: u16) -> Option<()> {
        let (number, is_alone) = (self.its.hardware.number, self.its.hardware.typer.vmovp());
        let id = VPE | u64::from(vpe.get());
        for other in self.memory.vpes.iter().filter(|other| other.lpis.target != id) {
            assert!(other.moving.is_none(), "a VMOVP begins before another is complete");
        }
        let last = self.memory.last_vpe_move;
        let moved = self.vpe(vpe)?;
        assert!(!moved.lpis.lpis_enabled(), "a resident vPE is moved");
        let own = moved.mappings.keys().fold(0, |list, number| list | 1 << number);
        assert_eq!(its_list, if is_alone { 0 } else { own }, "ITSList");
        let moving = moved.moving.get_or_insert_with(|| {
            assert!(is_alone || last != Some(sequence), "a sequence number is used twice");
            Move { target, its_list, awaited: own, sequence }
        });
        let same = (target, its_list, sequence);
        assert_eq!((moving.target, moving.its_list, moving.sequence), same, "the same VMOVP");
        moving.awaited &= if is_alone { 0 } else { !(1 << number) };
        self.memory.last_vpe_move = Some(sequence);
        Some(())
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
        let number = self.its.hardware.number;
        if action == MapAction::Unmap {
            let unmapped = self.vpe(vpe)?;
            assert!(!unmapped.lpis.lpis_enabled(), "a resident vPE is unmapped");
            unmapped.mappings.get_mut(&number)?.leaves = true;
            return Some(());
        }
        self.knows(target.field()).then_some(())?;
        if let Some(known) = self.vpe(vpe) {
            let same = (known.lpis.pendbaser.address(), known.home);
            assert_eq!(same, (table, target.field()), "two vPEs have the same number");
            let old = known.mappings.insert(number, Mapping::default());
            assert!(old.is_none(), "the vPE is already mapped");
            return Some(());
        }
        let bytes = usize::try_from(pending_table_bytes(id_bits)).unwrap();
        let view = self.its.table_view();
        let zero = self.memory.device_read(view, table, bytes).iter().all(|byte| *byte == 0);
        assert!(zero && table % 0x1_0000 == 0, "a pending table must be zero and aligned");
        let mut lpis = FakeRedistributor::at(0, VPE | u64::from(vpe.get()), Typer::new());
        lpis.pendbaser = Pendbaser::new().with_address(table);
        lpis.propbaser = Propbaser::new().with_id_bits_minus_one(id_bits - 1);
        self.memory.vpes.push(FakeVpe {
            lpis,
            home: target.field(),
            mappings: BTreeMap::from([(number, Mapping::default())]),
            idai: false,
            moving: None,
        });
        Some(())
    }

    fn vsync(&mut self, vpe: VpeId) -> Option<()> {
        let number = self.its.hardware.number;
        let synchronized = self.vpe(vpe)?;
        let target = synchronized.lpis.target;
        let mapping = synchronized.mappings.get_mut(&number)?;
        mapping.is_mapped = true;
        let leaves = mapping.leaves;
        if let Some(moved) = synchronized.moving.take_if(|moving| moving.awaited == 0) {
            synchronized.home = moved.target;
        }
        let effects = self.take_deferred(target);
        if leaves {
            self.vpe(vpe)?.mappings.remove(&number);
            self.memory.vpes.retain(|vpe| !vpe.mappings.is_empty());
            return Some(());
        }
        let mapping = self.vpe(vpe)?.mappings.get_mut(&number)?;
        mapping.is_invalidated |= effects.contains(&Effect::ReloadAll);
        // The effects on a vPE that is not resident are in its table.
        self.with_table(target, FakeRedistributor::load_pending);
        let mut vpes = std::mem::take(&mut self.memory.vpes);
        for effect in effects {
            let mut lpis: Vec<_> = vpes.iter_mut().map(|vpe| &mut vpe.lpis).collect();
            apply(&mut lpis, self.memory, target, effect);
        }
        self.memory.vpes = vpes;
        self.with_table(target, FakeRedistributor::store_pending);
        Some(())
    }

    fn with_table(&mut self, target: u64, access: fn(&mut FakeRedistributor, &mut Memory)) {
        let mut vpes = std::mem::take(&mut self.memory.vpes);
        let mut lpis = vpes.iter_mut().map(|vpe| &mut vpe.lpis);
        let found = lpis.find(|lpis| lpis.target == target && !lpis.lpis_enabled());
        if let Some(lpis) = found {
            access(lpis, self.memory);
        }
        self.memory.vpes = vpes;
    }
}

#[derive(Debug, Default)]
pub(crate) struct FakeVlpiFrame {
    pub(crate) vpropbaser: Vpropbaser,
    pub(crate) vpendbaser: Vpendbaser,
    /// Number of reads until the last change of `Valid` takes effect.
    pub(crate) lag: u32,
    /// `true` if changes to `Valid` never take effect.
    pub(crate) stuck: bool,
    /// `true` if a vPE is resident: the last change of `Valid` that took effect.
    pub(crate) is_resident: bool,
}

impl FakeVlpiFrame {
    pub(super) fn read(&mut self, offset: u32) -> u64 {
        match offset {
            _ if offset == vlpi::VPROPBASER.offset() => self.vpropbaser.into(),
            _ if offset == vlpi::VPENDBASER.offset() => {
                self.lag = self.lag.saturating_sub(1);
                self.vpendbaser.with_dirty(self.stuck || self.lag > 0).into()
            }
            _ => panic!("read of VLPI_base + {offset:#x}"),
        }
    }

    pub(super) fn write(&mut self, offset: u32, value: u64) {
        match offset {
            _ if offset == vlpi::VPROPBASER.offset() => {
                assert!(!self.vpendbaser.valid(), "VPROPBASER is written while a vPE is resident");
                assert_eq!(self.lag, 0, "VPROPBASER is written while Dirty is set");
                self.vpropbaser = Vpropbaser::from(value);
            }
            _ if offset == vlpi::VPENDBASER.offset() => {
                assert_eq!(self.lag, 0, "VPENDBASER is written while Dirty is set");
                self.vpendbaser = Vpendbaser::from(value);
                self.lag = LAG;
            }
            _ => panic!("write of VLPI_base + {offset:#x}"),
        }
    }

    /// Makes a vPE resident, or makes it leave. Returns `Some` if it has left.
    pub(super) fn change_residency(
        &mut self,
        vpe: &mut FakeVpe,
        home: u64,
        memory: &mut Memory,
    ) -> Option<()> {
        assert_eq!(vpe.home, home, "a vPE is resident elsewhere than VMAPP says");
        if self.is_resident {
            vpe.check();
            assert_eq!(self.vpendbaser.idai(), vpe.idai, "IDAI is not that of the last put");
            let config = Propbaser::new()
                .with_id_bits_minus_one(self.vpropbaser.id_bits_minus_one())
                .with_shareability(self.vpropbaser.shareability())
                .with_address(self.vpropbaser.address());
            vpe.lpis.reside(memory, config);
            return None;
        }
        let is_pending = vpe.lpis.leave(memory);
        self.vpendbaser.set_pending_last(is_pending);
        vpe.idai = !vpe.idai;
        self.vpendbaser.set_idai(vpe.idai);
        Some(())
    }
}
