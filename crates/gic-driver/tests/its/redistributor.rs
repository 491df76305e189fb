//! Redistributors as stubborn as the architecture allows. A redistributor uses the configuration
//! that was in memory when the LPI was last invalidated there, even if the LPI was elsewhere in the
//! meantime. Commands of an ITS take effect only at a SYNC, and writes of `INVLPIR` only when
//! `SYNCR.Busy` becomes 0.

use super::memory::{Memory, View};
use gic_arch::{Shareability, gicr};
use std::collections::BTreeSet;

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
    /// `RdBase::field`.
    pub(crate) target: u64,
    pub(crate) pending: BTreeSet<u32>,
    config: Vec<u8>,
    asleep: bool,
    lpis_enabled: bool,
    bases: [u64; 2],
    /// `GICR_CTLR.CES` is 0, and LPIs stay enabled.
    stuck: bool,
    /// Ignores invalidations of single LPIs, which has the same effect as a driver that omits them.
    pub(crate) ignores_invalidation: bool,
    /// Whether `GICR_INVLPIR`, `GICR_INVALLR` and `GICR_SYNCR` exist: `GICR_CTLR.IR`.
    pub(crate) has_invlpir: bool,
    /// Number of writes of `INVLPIR`.
    pub(crate) invalidations: u32,
    invalidating: Option<u32>,
    /// Number of further reads of `SYNCR` that return `Busy` as 1.
    busy: u32,
    /// LPIs delivered between polls, as by a redistributor that reads configurations at any time.
    pub(crate) delivered: Vec<u32>,
}

/// Number of reads of `SYNCR` until an invalidation is complete.
const LAG: u32 = 2;
const CTLR: u32 = gicr::CTLR.offset();
const INVLPIR: u32 = gicr::INVLPIR.offset();
const SYNCR: u32 = gicr::SYNCR.offset();
const WAKER: u32 = gicr::WAKER.offset();
const TYPER: u32 = gicr::TYPER.offset();
const PROPBASER: u32 = gicr::PROPBASER.offset();
const PENDBASER: u32 = gicr::PENDBASER.offset();

impl Redistributor {
    pub(crate) fn new(target: u64) -> Self {
        let (pending, config, bases) = (BTreeSet::new(), Vec::new(), [0; 2]);
        Self {
            target,
            pending,
            config,
            asleep: true,
            lpis_enabled: false,
            bases,
            stuck: false,
            ignores_invalidation: false,
            has_invlpir: false,
            invalidations: 0,
            invalidating: None,
            busy: 0,
            delivered: Vec::new(),
        }
    }

    /// A previous kernel used it: LPIs are enabled for good, with its tables, and these LPIs are
    /// pending.
    pub(crate) fn leave_enabled(
        &mut self,
        config: u64,
        table: u64,
        pending: impl Iterator<Item = u32>,
    ) {
        let id_bits = gicr::Propbaser::new().with_id_bits_minus_one(13);
        self.bases = [
            id_bits.with_address(config).into(),
            gicr::Pendbaser::new().with_address(table).into(),
        ];
        (self.stuck, self.lpis_enabled) = (true, true);
        self.pending = pending.collect();
    }

    /// Loses its power: only what its new owner gives it is there afterwards.
    pub(crate) fn lose_power(&mut self) {
        let Self { stuck, has_invlpir, target, .. } = *self;
        *self = Self { stuck, has_invlpir, ..Self::new(target) };
    }

    /// With LPIs enabled for good, it may read configurations at any time, and deliver at once.
    pub(crate) fn deliver_early(&mut self, memory: &mut Memory, table: ConfigTable) {
        if self.stuck && self.lpis_enabled && !self.asleep {
            self.reload_all(memory, table.address, table.count);
            let ready = self.ready();
            self.delivered.extend(ready);
        }
    }

    pub(crate) fn read(&mut self, memory: &mut Memory, offset: u32) -> u32 {
        match offset {
            CTLR => {
                let control = gicr::Ctlr::new().with_ces(!self.stuck).with_ir(self.has_invlpir);
                control.with_enable_lpis(self.lpis_enabled).into()
            }
            SYNCR => {
                self.check_invlpir("SYNCR");
                self.busy = self.busy.saturating_sub(1);
                if self.busy == 0
                    && let Some(lpi) = self.invalidating.take()
                {
                    let config = gicr::Propbaser::from(self.bases[0]).address();
                    self.reload(memory, config, lpi);
                }
                gicr::Syncr::new().with_busy(self.busy != 0).into()
            }
            WAKER => {
                let waker = gicr::Waker::new().with_processor_sleep(self.asleep);
                waker.with_children_asleep(self.asleep).into()
            }
            _ => 0,
        }
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        match offset {
            CTLR if self.stuck && self.lpis_enabled => {}
            CTLR => self.lpis_enabled = gicr::Ctlr::from(value).enable_lpis(),
            WAKER => self.asleep = gicr::Waker::from(value).processor_sleep(),
            _ => {}
        }
    }

    pub(crate) fn read64(&self, offset: u32, number: u16, last: bool) -> u64 {
        match offset {
            TYPER => {
                let typer = gicr::Typer::new().with_plpis(true).with_last(last);
                typer.with_processor_number(number).with_affinity_value(number.into()).into()
            }
            PROPBASER => self.bases[0],
            PENDBASER => self.bases[1],
            _ => panic!("read of GICR + {offset:#x}"),
        }
    }

    pub(crate) fn write64(&mut self, offset: u32, value: u64) {
        if offset == INVLPIR {
            self.check_invlpir("INVLPIR");
            // This is CONSTRAINED UNPREDICTABLE (IHI 0069, GICR_INVLPIR): the write may be ignored.
            assert_eq!(self.invalidating, None, "INVLPIR is written while GICR_SYNCR.Busy is 1");
            self.invalidations += 1;
            (self.invalidating, self.busy) = (Some(u32::try_from(value).unwrap()), LAG);
            return;
        }
        assert!(!self.lpis_enabled, "a table moved under enabled LPIs");
        match offset {
            // It does not look into caches.
            PROPBASER => {
                self.bases[0] =
                    gicr::Propbaser::from(value).with_shareability(Shareability::Non).into();
            }
            PENDBASER => {
                self.bases[1] =
                    gicr::Pendbaser::from(value).with_shareability(Shareability::Non).into();
            }
            _ => panic!("write of GICR + {offset:#x}"),
        }
    }

    /// Puts the redistributor to sleep, or wakes it.
    pub(crate) fn set_asleep(&mut self, asleep: bool) {
        self.asleep = asleep;
    }

    fn check_invlpir(&self, register: &str) {
        assert!(self.has_invlpir, "{register} is used where it is IMPLEMENTATION DEFINED");
        assert!(!self.asleep, "{register} is used while the redistributor sleeps");
    }

    /// Loses its caches, as if it had been without power: all LPIs look disabled.
    pub(crate) fn forget(&mut self) {
        self.config.clear();
        self.pending.clear();
    }

    pub(crate) fn is_enabled(&self, lpi: u32) -> bool {
        self.config.get(lpi as usize - 8192).is_some_and(|config| config & 1 != 0)
    }

    /// The configuration byte that it goes by.
    pub(crate) fn config_of(&self, lpi: u32) -> Option<u8> {
        self.config.get(lpi as usize - 8192).copied()
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

    fn reload(&mut self, memory: &mut Memory, table: u64, lpi: u32) {
        if self.ignores_invalidation {
            return;
        }
        let byte = memory.device_read(View::Dram, table + u64::from(lpi) - 8192, 1)[0];
        let index = lpi as usize - 8192;
        if self.config.len() <= index {
            self.config.resize(index + 1, 0);
        }
        self.config[index] = byte;
    }

    fn reload_all(&mut self, memory: &mut Memory, table: u64, count: usize) {
        self.config = memory.device_read(View::Dram, table, count);
    }
}

/// Address and size of the configuration bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfigTable {
    pub(crate) address: u64,
    pub(crate) count: usize,
}

/// Applies an effect at the redistributor `at`.
pub(crate) fn apply(
    redistributors: &mut [Redistributor],
    memory: &mut Memory,
    table: ConfigTable,
    at: u64,
    effect: Effect,
) {
    let here = redistributors.iter_mut().find(|rd| rd.target == at).unwrap();
    let moved: Vec<u32> = match effect {
        Effect::Reload(lpi) => return here.reload(memory, table.address, lpi),
        Effect::ReloadAll => return here.reload_all(memory, table.address, table.count),
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
