//! Fake redistributors that are as uncooperative as the architecture allows. A redistributor uses
//! the configuration that was in memory when the LPI was last invalidated there, even if the LPI
//! has had another target since then. ITS commands only take effect at a SYNC, and register
//! invalidations only when `SYNCR.Busy` becomes 0. Accesses that the architecture calls
//! UNPREDICTABLE panic.

use super::bank::PRIVATE;
use super::board::REDISTRIBUTOR;
use super::memory::{Memory, View};
use super::power::Power;
use super::{Bank, FakeVlpiFrame, LAG};
use gic_arch::gicr::{self, Ctlr, Pendbaser, Propbaser, STRIDE_V3, Syncr, Typer, Waker};
use gic_arch::{Affinity, Shareability, id};
use std::collections::BTreeSet;

const CTLR: u32 = gicr::CTLR.offset();
const IIDR: u32 = gicr::IIDR.offset();
const TYPER: u32 = gicr::TYPER.offset();
const WAKER: u32 = gicr::WAKER.offset();
const PROPBASER: u32 = gicr::PROPBASER.offset();
const PENDBASER: u32 = gicr::PENDBASER.offset();
const SETLPIR: u32 = gicr::SETLPIR.offset();
const CLRLPIR: u32 = gicr::CLRLPIR.offset();
const INVLPIR: u32 = gicr::INVLPIR.offset();
const INVALLR: u32 = gicr::INVALLR.offset();
const SYNCR: u32 = gicr::SYNCR.offset();
const PIDR2: u32 = id::PIDR2.offset();
const FIRST_LPI: u32 = 8192;

/// An invalidation in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Invalidation {
    One(u32),
    All,
}

#[derive(Debug)]
pub(crate) struct FakeRedistributor {
    /// Physical address of RD_base.
    pub(crate) base: u64,
    /// Value of `RdBase::field`.
    pub(crate) target: u64,
    pub(crate) typer: Typer,
    pub(crate) pidr2: u32,
    pub(crate) iidr: u32,
    /// The CPU's private interrupts.
    pub(crate) bank: Bank,
    pub(crate) power: Power,
    /// VLPI_base frame, present with `GICR_TYPER.VLPIS`.
    pub(crate) vlpi: FakeVlpiFrame,
    /// `GICR_CTLR.CES`.
    pub(crate) can_disable: bool,
    /// `true` if LPIs can be disabled, independently of `CES`.
    pub(crate) disables: bool,
    /// `true` if table accesses are coherent with caches.
    pub(crate) coherent: bool,
    /// `true` if all configurations are cached when LPIs are enabled; otherwise, a configuration is
    /// first cached at an invalidation.
    pub(crate) caches_at_enable: bool,
    /// `true` if writes never take effect, and the redistributor neither falls asleep nor wakes up.
    pub(crate) stuck: bool,
    /// `true` if invalidations never complete.
    pub(crate) stuck_invalidation: bool,
    /// `true` if invalidations are ignored, as if the driver omitted them.
    pub(crate) ignores_invalidation: bool,
    /// `true` if `SYNCR.Busy` always reads as 0, as if the driver ignored it.
    pub(crate) hides_busy: bool,
    /// `true` if `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR` exist without Direct LPIs
    /// (`GICR_CTLR.IR`).
    pub(crate) has_invlpir: bool,
    pub(crate) pending: BTreeSet<u32>,
    /// Number of implemented LPIs, as in `GICD_TYPER`.
    pub(crate) lpis: u64,
    /// Number of accesses to `SETLPIR`, `CLRLPIR`, `INVLPIR`, `INVALLR` and `SYNCR`.
    pub(crate) direct_writes: u32,
    /// Number of writes to `INVLPIR` and `INVALLR`.
    pub(crate) invalidations: u32,
    pub(crate) propbaser: Propbaser,
    pub(crate) pendbaser: Pendbaser,
    /// `true` if `PTZ` was written for the pending table in use.
    pub(crate) pending_table_zero: bool,
    /// LPIs that were delivered between polls, because the redistributor may read configurations at
    /// any time.
    delivered: Vec<u32>,
    /// Cached bytes of the configuration table. LPIs beyond the end of the cache are treated as
    /// disabled.
    config: Vec<u8>,
    enabled: bool,
    /// `true` while a write that sets `EnableLPIs` has been acknowledged but has not arrived yet.
    enable_under_way: bool,
    invalidating: Option<Invalidation>,
    /// Number of further reads of `SYNCR` that will return `Busy` as 1.
    busy: u32,
    /// Number of reads of `CTLR` until `RWP` is 0.
    settling: u32,
}

impl FakeRedistributor {
    /// Returns the redistributor of the PE with affinity 0.0.0.`number`, after reset, with 32
    /// extended PPIs and coherent table accesses.
    pub(crate) fn new(number: u8, last: bool) -> Self {
        let typer = Typer::new()
            .with_plpis(true)
            .with_last(last)
            .with_processor_number(u16::from(number) + 100)
            .with_ppi_num(1)
            .with_affinity_value(Affinity::new(0, 0, 0, number).packed());
        let base = REDISTRIBUTOR + u64::from(number) * STRIDE_V3;
        Self { coherent: true, ..Self::at(base, number.into(), typer) }
    }

    /// Returns a redistributor after reset, with table accesses that are not coherent with caches.
    pub(crate) fn at(base: u64, target: u64, typer: Typer) -> Self {
        Self {
            base,
            target,
            typer,
            pidr2: 0x3b,
            iidr: 0x043b,
            bank: Bank::new(PRIVATE, 0..64),
            power: Power::new(),
            vlpi: FakeVlpiFrame::default(),
            can_disable: true,
            disables: true,
            coherent: false,
            caches_at_enable: false,
            stuck: false,
            stuck_invalidation: false,
            ignores_invalidation: false,
            hides_busy: false,
            has_invlpir: false,
            pending: BTreeSet::new(),
            lpis: u64::MAX,
            direct_writes: 0,
            invalidations: 0,
            propbaser: Propbaser::new(),
            pendbaser: Pendbaser::new(),
            pending_table_zero: false,
            delivered: Vec::new(),
            config: Vec::new(),
            enabled: false,
            enable_under_way: false,
            invalidating: None,
            busy: 0,
            settling: 0,
        }
    }

    pub(crate) fn awake(mut self) -> Self {
        (self.power.sleep, self.power.asleep) = (false, false);
        self
    }

    /// Leaves LPIs permanently enabled with a previous kernel's tables, and makes these LPIs
    /// pending.
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

    /// Returns `true` if `GICR_CTLR.EnableLPIs` is set.
    pub(crate) fn lpis_enabled(&self) -> bool {
        self.enabled
    }

    /// Resets all state except identification registers and properties, as on power loss.
    pub(crate) fn lose_power(&mut self) {
        self.power.reset();
        (self.enabled, self.enable_under_way, self.pending_table_zero) = (false, false, false);
        (self.propbaser, self.pendbaser) = (Propbaser::new(), Pendbaser::new());
        self.bank = Bank::new(PRIVATE, 0..64);
        self.vlpi = FakeVlpiFrame::default();
        self.forget();
        self.delivered.clear();
        (self.invalidating, self.busy, self.settling) = (None, 0, 0);
    }

    /// Drops all cached configurations and pending LPIs.
    pub(crate) fn forget(&mut self) {
        self.config.clear();
        self.pending.clear();
    }

    /// Makes an LPI pending, on behalf of a device or of software.
    pub(crate) fn set(&mut self, intid: u32) {
        if self.enabled && self.implements(intid) {
            self.pending.insert(intid);
        }
    }

    /// Returns the address of the configuration table.
    pub(crate) fn config_table(&self) -> u64 {
        self.propbaser.address()
    }

    /// Returns the configuration byte that the redistributor uses.
    pub(crate) fn config_of(&self, lpi: u32) -> Option<u8> {
        self.config.get((lpi - FIRST_LPI) as usize).copied()
    }

    pub(crate) fn is_enabled(&self, lpi: u32) -> bool {
        self.config_of(lpi).is_some_and(|config| config & 1 != 0)
    }

    /// Returns the LPI that the redistributor would signal, if any.
    pub(crate) fn signaled(&self) -> Option<u32> {
        let ready = self.pending.iter().find(|lpi| self.is_enabled(**lpi));
        ready.filter(|_| !self.power.is_asleep()).copied()
    }

    /// Returns the LPIs that can be delivered, and clears their pending state.
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

    /// Reads all configurations and delivers LPIs, if LPIs are permanently enabled. A real
    /// redistributor may read configurations at any time.
    pub(crate) fn deliver_early(&mut self, memory: &mut Memory) {
        if !self.disables && self.enabled && !self.power.is_asleep() {
            self.refill_all(memory);
            let ready = self.ready();
            self.delivered.extend(ready);
        }
    }

    /// Reloads a configuration byte without a request, as a redistributor may do at any time.
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

    pub(super) fn refill_all(&mut self, memory: &mut Memory) {
        if self.enabled {
            let count = (self.end() - FIRST_LPI) as usize;
            self.config = memory.device_read(self.config_view(), self.propbaser.address(), count);
        }
    }

    pub(crate) fn read(&mut self, memory: &mut Memory, offset: u32, bytes: u32) -> u64 {
        self.complete_enable(memory);
        self.power.check(offset);
        if let Some(value) = self.bank.read(offset, bytes) {
            return value.into();
        }
        match (offset, bytes) {
            (CTLR, 4) => self.control().into_bits().into(),
            (IIDR, 4) => self.iidr.into(),
            (TYPER, 8) => self.typer.into(),
            (WAKER, 4) => self.power.read_waker(self.stuck).into(),
            (PROPBASER, 8) => self.propbaser.into(),
            (PENDBASER, 8) => self.pendbaser.into(),
            (SYNCR, 4) => {
                self.check_invalidates("SYNCR");
                let busy = self.is_busy(memory) && !self.hides_busy;
                u32::from(Syncr::new().with_busy(busy)).into()
            }
            (PIDR2, 4) => self.pidr2.into(),
            _ => panic!("{bytes}-byte read of GICR + {offset:#x}"),
        }
    }

    pub(crate) fn write(&mut self, memory: &mut Memory, offset: u32, bytes: u32, value: u64) {
        self.complete_enable(memory);
        self.power.check(offset);
        let low = u32::try_from(value & 0xffff_ffff).unwrap();
        match (offset, bytes) {
            (CTLR, 4) => self.set_control(memory, Ctlr::from(low)),
            (WAKER, 4) => self.power.write_waker(Waker::from(low)),
            (PROPBASER, 8) => {
                self.check_disabled("PROPBASER");
                let value = Propbaser::from(value);
                self.propbaser = value.with_shareability(self.shareability(value.shareability()));
            }
            (PENDBASER, 8) => {
                self.check_disabled("PENDBASER");
                let value = Pendbaser::from(value);
                self.pending_table_zero = value.pending_table_zero();
                let shareability = self.shareability(value.shareability());
                self.pendbaser =
                    value.with_shareability(shareability).with_pending_table_zero(false);
            }
            (SETLPIR, 8) => {
                self.check_direct("SETLPIR");
                self.set(low);
            }
            (CLRLPIR, 8) => {
                self.check_direct("CLRLPIR");
                if self.enabled {
                    self.pending.remove(&low);
                }
            }
            (INVLPIR, 8) => self.begin_invalidation("INVLPIR", Invalidation::One(low), value),
            (INVALLR, 8) => self.begin_invalidation("INVALLR", Invalidation::All, value),
            _ => {
                let disabled = self
                    .bank
                    .write(offset, bytes, low)
                    .unwrap_or_else(|| panic!("{bytes}-byte write of GICR + {offset:#x}"));
                if disabled {
                    self.settling = LAG;
                }
            }
        }
    }

    fn begin_invalidation(&mut self, register: &str, what: Invalidation, value: u64) {
        self.check_invalidates(register);
        assert_eq!(value >> 32, 0, "{register} is written for a virtual LPI");
        // CONSTRAINED UNPREDICTABLE (IHI 0069, GICR_INVLPIR and GICR_INVALLR): a write while an
        // invalidation is in progress may be ignored.
        assert_eq!(self.invalidating, None, "{register} is written while GICR_SYNCR.Busy is 1");
        self.invalidations += 1;
        if !self.ignores_invalidation {
            (self.invalidating, self.busy) = (Some(what), LAG - 1);
        }
    }

    fn is_busy(&mut self, memory: &mut Memory) -> bool {
        if self.stuck_invalidation && self.invalidating.is_some() {
            // When the redistributor is no longer stuck, the invalidation completes immediately.
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
        if !self.stuck {
            self.settling = self.settling.saturating_sub(1);
        }
        let rwp = self.stuck || self.settling != 0;
        if !rwp {
            self.bank.complete_writes();
        }
        let control = Ctlr::new().with_enable_lpis(self.enabled).with_rwp(rwp);
        control.with_ces(self.can_disable).with_ir(self.has_invlpir)
    }

    fn set_control(&mut self, memory: &mut Memory, value: Ctlr) {
        match (self.enabled, value.enable_lpis()) {
            (false, true) => {
                assert_ne!(self.propbaser.address(), 0, "LPIs are enabled without tables");
                assert_eq!(self.settling, 0, "EnableLPIs is set while RWP is 1");
                self.enable_under_way = true;
            }
            (true, false) if self.disables => {
                self.store_pending(memory);
                self.enabled = false;
                self.settling = LAG;
            }
            _ => {}
        }
    }

    /// Completes a write that was acknowledged before it arrived. Accesses to one peripheral arrive
    /// in program order, so the write arrives before the next access.
    fn complete_enable(&mut self, memory: &mut Memory) {
        if !std::mem::take(&mut self.enable_under_way) {
            return;
        }
        self.enabled = true;
        self.load_pending(memory);
        assert!(
            !self.pending_table_zero || self.pending.is_empty(),
            "PTZ is set for a table that is not all zero"
        );
        if self.caches_at_enable {
            self.refill_all(memory);
        }
    }

    /// Makes a vPE resident, with this configuration table.
    pub(super) fn reside(&mut self, memory: &mut Memory, table: Propbaser) {
        (self.propbaser, self.enabled) = (table, true);
        self.load_pending(memory);
        self.refill_all(memory);
    }

    /// Makes a vPE leave. Returns `true` if an enabled LPI is pending.
    pub(super) fn leave(&mut self, memory: &mut Memory) -> bool {
        let is_pending = self.pending.iter().any(|lpi| self.is_enabled(*lpi));
        self.store_pending(memory);
        self.enabled = false;
        is_pending
    }

    pub(super) fn load_pending(&mut self, memory: &mut Memory) {
        let (start, bytes) = self.pending_bytes();
        let table = memory.device_read(self.pending_view(), start, bytes);
        let set = (FIRST_LPI..self.end())
            .filter(|lpi| table[((lpi - FIRST_LPI) / 8) as usize] & 1 << (lpi % 8) != 0);
        self.pending.extend(set);
    }

    pub(super) fn store_pending(&mut self, memory: &mut Memory) {
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

    /// Returns the shareability that reads back if `wanted` is written.
    fn shareability(&self, wanted: Shareability) -> Shareability {
        if self.coherent { wanted } else { Shareability::Non }
    }

    fn implements(&self, intid: u32) -> bool {
        (FIRST_LPI..self.end()).contains(&intid)
    }

    /// Returns the first INTID after the implemented LPIs. The result is low, because the tables in
    /// tests are small.
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
        assert!(
            self.typer.direct_lpi(),
            "{register} is accessed where it is IMPLEMENTATION DEFINED"
        );
        self.direct_writes += 1;
    }

    fn check_invalidates(&mut self, register: &str) {
        let exists = self.typer.direct_lpi() || self.has_invlpir;
        assert!(exists, "{register} is accessed where it is IMPLEMENTATION DEFINED");
        self.direct_writes += 1;
    }
}

fn view(shareability: Shareability) -> View {
    if shareability == Shareability::Non { View::Dram } else { View::Coherent }
}
