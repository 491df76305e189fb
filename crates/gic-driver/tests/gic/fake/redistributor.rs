//! Redistributors as stubborn as the architecture allows. A redistributor uses the configuration
//! that was in memory when the LPI was last invalidated there, even if the LPI was elsewhere in the
//! meantime. Commands of an ITS take effect only at a SYNC, and invalidations by register only when
//! `SYNCR.Busy` becomes 0. An access that the architecture calls UNPREDICTABLE panics.

use super::memory::{Memory, View};
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser, Syncr, Typer, Waker};
use gic_arch::{Shareability, id};
use std::collections::{BTreeMap, BTreeSet};

/// Number of reads of `SYNCR` and `RWP` that return 1.
const LAG: u32 = 2;
const FIRST_LPI: u32 = 8192;

/// An invalidation in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Invalidation {
    One(u32),
    All,
}

/// The effect of an ITS command at a redistributor, once it is synchronised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    Reload(u32),
    ReloadAll,
    Set(u32),
    Clear(u32),
    MoveTo(u32, u64),
    MoveAllTo(u64),
}

#[derive(Debug)]
pub(crate) struct Redistributor {
    /// Physical address of RD_base.
    pub(crate) base: u64,
    /// `RdBase::field`.
    pub(crate) target: u64,
    pub(crate) typer: Typer,
    /// `GICR_CTLR.CES`.
    pub(crate) can_disable: bool,
    /// Disabling LPIs works, whatever `CES` says.
    pub(crate) disables: bool,
    /// Its accesses look into caches.
    pub(crate) coherent: bool,
    /// Caches all configurations when LPIs are enabled; otherwise none before it is told to.
    pub(crate) caches_at_enable: bool,
    /// Invalidations never end.
    pub(crate) stuck: bool,
    /// Ignores invalidations, which has the same effect as a driver that omits them.
    pub(crate) ignores_invalidation: bool,
    /// `SYNCR.Busy` reads as 0 always, which has the same effect as a driver that ignores it.
    pub(crate) hides_busy: bool,
    /// Whether `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR` exist without Direct LPIs:
    /// `GICR_CTLR.IR`.
    pub(crate) has_invlpir: bool,
    pub(crate) pending: BTreeSet<u32>,
    /// Number of implemented LPIs, as `GICD_TYPER` states it.
    pub(crate) lpis: u64,
    /// Number of accesses to `SETLPIR`, `CLRLPIR`, `INVLPIR`, `INVALLR` and `SYNCR`.
    pub(crate) direct_writes: u32,
    /// Number of writes to `INVLPIR` and `INVALLR`.
    pub(crate) invalidations: u32,
    pub(crate) asleep: bool,
    /// LPIs delivered between polls, as by a redistributor that reads configurations at any time.
    delivered: Vec<u32>,
    /// Cached bytes of the configuration table; missing ones look disabled.
    config: Vec<u8>,
    enabled: bool,
    propbaser: Propbaser,
    pendbaser: Pendbaser,
    invalidating: Option<Invalidation>,
    /// Number of further reads of `SYNCR` that return `Busy` as 1.
    busy: u32,
    /// Number of further reads of `CTLR` that return `RWP` as 1.
    settling: u32,
    others: BTreeMap<u32, u32>,
}

impl Redistributor {
    pub(crate) fn new(base: u64, target: u64, typer: Typer) -> Self {
        Self {
            base,
            target,
            typer,
            can_disable: true,
            disables: true,
            coherent: false,
            caches_at_enable: false,
            stuck: false,
            ignores_invalidation: false,
            hides_busy: false,
            has_invlpir: false,
            pending: BTreeSet::new(),
            lpis: u64::MAX,
            direct_writes: 0,
            invalidations: 0,
            asleep: true,
            delivered: Vec::new(),
            config: Vec::new(),
            enabled: false,
            propbaser: Propbaser::new(),
            pendbaser: Pendbaser::new(),
            invalidating: None,
            busy: 0,
            settling: 0,
            others: BTreeMap::new(),
        }
    }

    /// Leaves LPIs enabled for good with a previous kernel's tables, and these LPIs pending.
    pub(crate) fn leave_enabled(
        &mut self,
        config: u64,
        table: u64,
        pending: impl Iterator<Item = u32>,
    ) {
        self.propbaser = Propbaser::new().with_id_bits_minus_one(13).with_address(config);
        self.pendbaser = Pendbaser::new().with_address(table);
        (self.can_disable, self.disables, self.enabled) = (false, false, true);
        self.pending = pending.collect();
    }

    /// Returns true if `GICR_CTLR.EnableLPIs` is set.
    pub(crate) fn lpis_enabled(&self) -> bool {
        self.enabled
    }

    /// Loses everything but its identity and abilities.
    pub(crate) fn lose_power(&mut self) {
        (self.enabled, self.asleep) = (false, true);
        (self.propbaser, self.pendbaser) = (Propbaser::new(), Pendbaser::new());
        self.forget();
        self.delivered.clear();
        self.invalidating = None;
        self.others.clear();
    }

    /// Loses its caches and its pending LPIs.
    pub(crate) fn forget(&mut self) {
        self.config.clear();
        self.pending.clear();
    }

    /// Makes an LPI pending: a device's message, or software's.
    pub(crate) fn set(&mut self, intid: u32) {
        if self.enabled && self.implements(intid) {
            self.pending.insert(intid);
        }
    }

    /// Returns the address of the configuration table.
    pub(crate) fn config_table(&self) -> u64 {
        self.propbaser.address()
    }

    /// Returns the configuration byte that it uses.
    pub(crate) fn config_of(&self, lpi: u32) -> Option<u8> {
        self.config.get((lpi - FIRST_LPI) as usize).copied()
    }

    pub(crate) fn is_enabled(&self, lpi: u32) -> bool {
        self.config_of(lpi).is_some_and(|config| config & 1 != 0)
    }

    /// Returns the LPI that it would signal, if any.
    pub(crate) fn signalled(&self) -> Option<u32> {
        let ready = self.pending.iter().find(|lpi| self.is_enabled(**lpi));
        ready.filter(|_| !self.asleep).copied()
    }

    /// Takes what can be delivered.
    pub(crate) fn acknowledge(&mut self) -> Vec<u32> {
        let mut taken = std::mem::take(&mut self.delivered);
        taken.extend(self.ready());
        taken
    }

    fn ready(&mut self) -> Vec<u32> {
        let ready: Vec<_> =
            self.pending.iter().copied().filter(|lpi| self.is_enabled(*lpi)).collect();
        self.pending.retain(|lpi| !ready.contains(lpi));
        ready
    }

    /// Reads configurations and delivers, as it may at any time, if LPIs are enabled for good.
    pub(crate) fn deliver_early(&mut self, memory: &mut Memory) {
        if !self.disables && self.enabled && !self.asleep {
            self.refill_all(memory);
            let ready = self.ready();
            self.delivered.extend(ready);
        }
    }

    /// Reads one configuration byte again unasked, as it may at any time.
    pub(crate) fn refill(&mut self, memory: &mut Memory, intid: u32) {
        if self.enabled && self.implements(intid) {
            let index = (intid - FIRST_LPI) as usize;
            let address = self.propbaser.address() + index as u64;
            let byte = memory.device_read(self.config_view(), address, 1)[0];
            if self.config.len() <= index {
                self.config.resize(index + 1, 0);
            }
            self.config[index] = byte;
        }
    }

    fn refill_all(&mut self, memory: &mut Memory) {
        if self.enabled {
            let count = (self.end() - FIRST_LPI) as usize;
            self.config = memory.device_read(self.config_view(), self.propbaser.address(), count);
        }
    }

    pub(crate) fn read(&mut self, memory: &mut Memory, offset: u32) -> u64 {
        match offset {
            _ if offset == gicr::CTLR.offset() => self.control().into_bits().into(),
            _ if offset == gicr::TYPER.offset() => self.typer.into(),
            _ if offset == gicr::IIDR.offset() => 0x43b,
            _ if offset == id::PIDR2.offset() => 0x3b,
            _ if offset == gicr::WAKER.offset() => {
                let waker = Waker::new().with_processor_sleep(self.asleep);
                u32::from(waker.with_children_asleep(self.asleep)).into()
            }
            _ if offset == gicr::PROPBASER.offset() => self.propbaser.into(),
            _ if offset == gicr::PENDBASER.offset() => {
                self.pendbaser.with_pending_table_zero(false).into()
            }
            _ if offset == gicr::SYNCR.offset() => {
                self.check_invalidates("SYNCR");
                let busy = self.is_busy(memory) && !self.hides_busy;
                u32::from(Syncr::new().with_busy(busy)).into()
            }
            0x1_0000.. => {
                self.check_awake(offset);
                self.others.get(&offset).copied().unwrap_or(0).into()
            }
            _ => panic!("read of GICR + {offset:#x}"),
        }
    }

    pub(crate) fn write(&mut self, memory: &mut Memory, offset: u32, value: u64) {
        let low = u32::try_from(value & 0xffff_ffff).unwrap();
        match offset {
            _ if offset == gicr::CTLR.offset() => self.set_control(memory, Ctlr::from(low)),
            _ if offset == gicr::WAKER.offset() => self.asleep = Waker::from(low).processor_sleep(),
            _ if offset == gicr::PROPBASER.offset() => {
                self.check_disabled("PROPBASER");
                self.propbaser = Propbaser::from(value).with_shareability(self.shareability());
            }
            _ if offset == gicr::PENDBASER.offset() => {
                self.check_disabled("PENDBASER");
                self.pendbaser = Pendbaser::from(value).with_shareability(self.shareability());
            }
            _ if offset == gicr::SETLPIR.offset() => {
                self.check_direct("SETLPIR");
                self.set(low);
            }
            _ if offset == gicr::CLRLPIR.offset() => {
                self.check_direct("CLRLPIR");
                if self.enabled {
                    self.pending.remove(&low);
                }
            }
            _ if offset == gicr::INVLPIR.offset() => {
                self.begin_invalidation("INVLPIR", Invalidation::One(low), value);
            }
            _ if offset == gicr::INVALLR.offset() => {
                self.begin_invalidation("INVALLR", Invalidation::All, value);
            }
            0x1_0000.. => {
                self.check_awake(offset);
                self.others.insert(offset, low);
            }
            _ => panic!("write of GICR + {offset:#x}"),
        }
    }

    fn begin_invalidation(&mut self, register: &str, what: Invalidation, value: u64) {
        self.check_invalidates(register);
        assert_eq!(value >> 32, 0, "{register}: a virtual LPI");
        // CONSTRAINED UNPREDICTABLE (IHI 0069, GICR_INVLPIR and GICR_INVALLR): one that comes early
        // may be ignored.
        assert_eq!(self.invalidating, None, "{register} is written while GICR_SYNCR.Busy is 1");
        self.invalidations += 1;
        if !self.ignores_invalidation {
            (self.invalidating, self.busy) = (Some(what), LAG);
        }
    }

    fn is_busy(&mut self, memory: &mut Memory) -> bool {
        if self.stuck && self.invalidating.is_some() {
            // It needs no time once it goes on.
            self.busy = 1;
            return true;
        }
        self.busy = self.busy.saturating_sub(1);
        if self.busy == 0 {
            match self.invalidating.take() {
                Some(Invalidation::One(intid)) => self.refill(memory, intid),
                Some(Invalidation::All) => self.refill_all(memory),
                None => {}
            }
        }
        self.busy != 0
    }

    fn control(&mut self) -> Ctlr {
        let rwp = self.settling != 0;
        self.settling = self.settling.saturating_sub(1);
        let control = Ctlr::new().with_enable_lpis(self.enabled).with_rwp(rwp);
        control.with_ces(self.can_disable).with_ir(self.has_invlpir)
    }

    fn set_control(&mut self, memory: &mut Memory, value: Ctlr) {
        match (self.enabled, value.enable_lpis()) {
            (false, true) => {
                assert!(
                    self.propbaser.address() != 0 && self.settling == 0,
                    "LPIs are enabled too early"
                );
                self.enabled = true;
                self.load_pending(memory);
                assert!(
                    !self.pendbaser.pending_table_zero() || self.pending.is_empty(),
                    "PTZ is set for a table that is not all zero"
                );
                if self.caches_at_enable {
                    self.refill_all(memory);
                }
            }
            (true, false) if self.disables => {
                self.store_pending(memory);
                self.enabled = false;
                self.settling = LAG;
            }
            _ => {}
        }
    }

    fn load_pending(&mut self, memory: &mut Memory) {
        let (start, bytes) = self.pending_bytes();
        let table = memory.device_read(self.pending_view(), start, bytes);
        let set = (FIRST_LPI..self.end())
            .filter(|lpi| table[((lpi - FIRST_LPI) / 8) as usize] & 1 << (lpi % 8) != 0);
        self.pending.extend(set);
    }

    fn store_pending(&mut self, memory: &mut Memory) {
        let (start, bytes) = self.pending_bytes();
        let mut table = vec![0; bytes];
        for lpi in &self.pending {
            table[((lpi - FIRST_LPI) / 8) as usize] |= 1 << (lpi % 8);
        }
        memory.device_write(start, &table);
        self.forget();
    }

    /// Returns the address of the first LPI's byte in the pending table, and the number of bytes.
    fn pending_bytes(&self) -> (u64, usize) {
        let first = self.pendbaser.address() + u64::from(FIRST_LPI / 8);
        (first, (self.end() - FIRST_LPI).div_ceil(8) as usize)
    }

    fn config_view(&self) -> View {
        view(self.propbaser.shareability())
    }

    fn pending_view(&self) -> View {
        view(self.pendbaser.shareability())
    }

    fn shareability(&self) -> Shareability {
        if self.coherent { Shareability::Inner } else { Shareability::Non }
    }

    fn implements(&self, intid: u32) -> bool {
        (FIRST_LPI..self.end()).contains(&intid)
    }

    /// The tests' tables are small.
    fn end(&self) -> u32 {
        let lpis = (1 << self.propbaser.id_bits()) - u64::from(FIRST_LPI);
        FIRST_LPI + u32::try_from(lpis.min(self.lpis)).unwrap()
    }

    fn check_disabled(&self, register: &str) {
        assert!(
            !self.enabled && self.settling == 0,
            "{register} is written while LPIs are enabled"
        );
    }

    fn check_direct(&mut self, register: &str) {
        assert!(self.typer.direct_lpi(), "{register} is used where it is IMPLEMENTATION DEFINED");
        assert!(!self.asleep, "{register} is used while the redistributor sleeps");
        self.direct_writes += 1;
    }

    fn check_invalidates(&mut self, register: &str) {
        let exists = self.typer.direct_lpi() || self.has_invlpir;
        assert!(exists, "{register} is used where it is IMPLEMENTATION DEFINED");
        assert!(!self.asleep, "{register} is used while the redistributor sleeps");
        self.direct_writes += 1;
    }

    fn check_awake(&self, offset: u32) {
        assert!(!self.asleep, "GICR + {offset:#x} is used while the redistributor sleeps");
    }
}

fn view(shareability: Shareability) -> View {
    if shareability == Shareability::Non { View::Dram } else { View::Coherent }
}

/// Applies an effect at the redistributor `at`.
pub(crate) fn apply(
    redistributors: &mut [Redistributor],
    memory: &mut Memory,
    at: u64,
    effect: Effect,
) {
    let here = redistributors.iter_mut().find(|rd| rd.target == at).unwrap();
    let moved: Vec<u32> = match effect {
        Effect::Reload(_) if here.ignores_invalidation => return,
        Effect::Reload(lpi) => return here.refill(memory, lpi),
        Effect::ReloadAll => return here.refill_all(memory),
        Effect::Set(lpi) => {
            here.pending.insert(lpi);
            return;
        }
        Effect::Clear(lpi) => {
            here.pending.remove(&lpi);
            return;
        }
        Effect::MoveTo(lpi, _) => here.pending.take(&lpi).into_iter().collect(),
        Effect::MoveAllTo(_) => std::mem::take(&mut here.pending).into_iter().collect(),
    };
    if let Effect::MoveTo(_, to) | Effect::MoveAllTo(to) = effect {
        let there = redistributors.iter_mut().find(|rd| rd.target == to).unwrap();
        there.pending.extend(moved);
    }
}
