//! A strict redistributor with direct LPIs. From the moment LPIs are enabled it caches every
//! configuration byte. It reads one again only when told to, takes its time to, and panics where
//! the architecture says UNPREDICTABLE.

use super::memory::Memory;
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser, Syncr, Typer, Waker};
use gic_arch::{Shareability, id};
use std::collections::{BTreeMap, BTreeSet};

/// Reads of `SYNCR` and `RWP` that show 1.
const LAG: u32 = 2;
const FIRST_LPI: u32 = 8192;

#[derive(Debug)]
pub(crate) struct Redistributor {
    pub(crate) typer: Typer,
    /// `CES`, and whether disabling LPIs works in truth.
    pub(crate) can_disable: bool,
    pub(crate) disables: bool,
    /// True if its accesses are coherent.
    pub(crate) coherent: bool,
    /// Invalidations never end.
    pub(crate) stuck: bool,
    /// Ignores invalidations, as a broken driver would show.
    pub(crate) ignores_invalidation: bool,
    /// `SYNCR.Busy` reads 0 all the time: a driver that does not look at it.
    pub(crate) hides_busy: bool,
    pub(crate) pending: BTreeSet<u32>,
    /// Cached bytes of the configuration table.
    pub(crate) remembered: BTreeMap<u32, u8>,
    /// As `GICD_TYPER` says.
    pub(crate) lpis: u64,
    /// Writes to `SETLPIR` and its kin: none without Direct LPIs.
    pub(crate) direct_writes: u32,
    /// Writes to `INVLPIR` and `INVALLR`.
    pub(crate) invalidations: u32,
    pub(crate) asleep: bool,
    enabled: bool,
    propbaser: Propbaser,
    pendbaser: Pendbaser,
    zero: bool,
    /// Invalidations that were begun: one LPI, or all.
    invalidating: Vec<Option<u32>>,
    lag: u32,
    /// Reads of `CTLR` that still show `RWP`.
    settling: u32,
    others: BTreeMap<u32, u32>,
}

impl Redistributor {
    pub(crate) fn new(typer: Typer) -> Self {
        Self {
            typer,
            can_disable: true,
            disables: true,
            coherent: true,
            stuck: false,
            ignores_invalidation: false,
            hides_busy: false,
            pending: BTreeSet::new(),
            remembered: BTreeMap::new(),
            lpis: u64::MAX,
            direct_writes: 0,
            invalidations: 0,
            asleep: true,
            enabled: false,
            propbaser: Propbaser::new(),
            pendbaser: Pendbaser::new(),
            zero: false,
            invalidating: Vec::new(),
            lag: 0,
            settling: 0,
            others: BTreeMap::new(),
        }
    }

    /// Everything but its identity is lost.
    pub(crate) fn lose_power(&mut self) {
        self.enabled = false;
        self.asleep = true;
        (self.propbaser, self.pendbaser) = (Propbaser::new(), Pendbaser::new());
        self.pending.clear();
        self.remembered.clear();
        self.invalidating.clear();
        self.others.clear();
    }

    /// A device's message, or software's.
    pub(crate) fn set(&mut self, intid: u32) {
        if self.enabled && self.implements(intid) {
            self.pending.insert(intid);
        }
    }

    /// The LPI that it would signal, if any.
    pub(crate) fn signalled(&self) -> Option<u32> {
        let enabled = |lpi: &&u32| self.remembered.get(lpi).is_some_and(|byte| byte & 1 != 0);
        if self.asleep { None } else { self.pending.iter().find(enabled).copied() }
    }

    /// Reads one configuration byte again unasked, as it may at any time.
    pub(crate) fn refill(&mut self, memory: &Memory, intid: u32) {
        if self.enabled && self.implements(intid) {
            let byte =
                memory.controller_load(self.propbaser.address() + u64::from(intid - FIRST_LPI));
            self.remembered.insert(intid, byte);
        }
    }

    pub(crate) fn read(&mut self, memory: &mut Memory, offset: u32) -> u64 {
        match offset {
            _ if offset == gicr::CTLR.offset() => self.control().into_bits().into(),
            _ if offset == gicr::TYPER.offset() => self.typer.into(),
            _ if offset == gicr::IIDR.offset() => 0x43b,
            _ if offset == id::PIDR2.offset() => 0x3b,
            _ if offset == gicr::WAKER.offset() => {
                let waker = Waker::new()
                    .with_processor_sleep(self.asleep)
                    .with_children_asleep(self.asleep);
                u32::from(waker).into()
            }
            _ if offset == gicr::PROPBASER.offset() => self.propbaser.into(),
            _ if offset == gicr::PENDBASER.offset() => {
                self.pendbaser.with_pending_table_zero(false).into()
            }
            _ if offset == gicr::SYNCR.offset() => {
                self.check_direct("SYNCR");
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
                assert!(
                    !self.enabled && self.settling == 0,
                    "PROPBASER is written while LPIs are enabled"
                );
                self.propbaser = Propbaser::from(value).with_shareability(self.shareability());
            }
            _ if offset == gicr::PENDBASER.offset() => {
                assert!(
                    !self.enabled && self.settling == 0,
                    "PENDBASER is written while LPIs are enabled"
                );
                self.pendbaser = Pendbaser::from(value).with_shareability(self.shareability());
                self.zero = self.pendbaser.pending_table_zero();
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
                self.begin_invalidation("INVLPIR", Some(low), value);
            }
            _ if offset == gicr::INVALLR.offset() => {
                self.begin_invalidation("INVALLR", None, value);
            }
            0x1_0000.. => {
                self.check_awake(offset);
                self.others.insert(offset, low);
            }
            _ => panic!("write of GICR + {offset:#x}"),
        }
    }

    fn begin_invalidation(&mut self, register: &str, what: Option<u32>, value: u64) {
        self.check_direct(register);
        assert_eq!(value >> 32, 0, "{register}: a virtual LPI");
        // CONSTRAINED UNPREDICTABLE (IHI 0069, GICR_INVLPIR and GICR_INVALLR): one that comes early
        // may be ignored.
        assert!(self.invalidating.is_empty(), "{register} is written while GICR_SYNCR.Busy is 1");
        self.invalidations += 1;
        if !self.ignores_invalidation {
            self.invalidating.push(what);
            self.lag = LAG;
        }
    }

    fn is_busy(&mut self, memory: &Memory) -> bool {
        if self.stuck && !self.invalidating.is_empty() {
            // It needs no time once it goes on.
            self.lag = 1;
            return true;
        }
        self.lag = self.lag.saturating_sub(1);
        if self.lag == 0 {
            for what in std::mem::take(&mut self.invalidating) {
                match what {
                    Some(intid) => self.refill(memory, intid),
                    None => self.refill_all(memory),
                }
            }
        }
        self.lag != 0
    }

    fn refill_all(&mut self, memory: &Memory) {
        for intid in FIRST_LPI..self.end() {
            self.refill(memory, intid);
        }
    }

    fn control(&mut self) -> Ctlr {
        let rwp = self.settling != 0;
        self.settling = self.settling.saturating_sub(1);
        Ctlr::new().with_enable_lpis(self.enabled).with_ces(self.can_disable).with_rwp(rwp)
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
                    !self.zero || self.pending.is_empty(),
                    "PTZ is set for a table that is not all zero"
                );
                self.refill_all(memory);
            }
            (true, false) if self.disables => {
                self.store_pending(memory);
                self.enabled = false;
                self.settling = LAG;
            }
            _ => {}
        }
    }

    fn load_pending(&mut self, memory: &Memory) {
        for intid in FIRST_LPI..self.end() {
            let byte = memory.controller_load(self.pendbaser.address() + u64::from(intid / 8));
            if byte & 1 << (intid % 8) != 0 {
                self.pending.insert(intid);
            }
        }
    }

    fn store_pending(&mut self, memory: &mut Memory) {
        for first in (FIRST_LPI..self.end()).step_by(8) {
            let bits = (0..8).filter(|bit| self.pending.contains(&(first + bit)));
            let byte = bits.fold(0, |byte, bit| byte | 1 << bit);
            memory.controller_store(self.pendbaser.address() + u64::from(first / 8), byte);
        }
        self.pending.clear();
        self.remembered.clear();
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

    fn check_direct(&mut self, register: &str) {
        assert!(self.typer.direct_lpi(), "{register} is used where it is IMPLEMENTATION DEFINED");
        assert!(!self.asleep, "{register} is used while the redistributor sleeps");
        self.direct_writes += 1;
    }

    fn check_awake(&self, offset: u32) {
        assert!(!self.asleep, "GICR + {offset:#x} is used while the redistributor sleeps");
    }
}
