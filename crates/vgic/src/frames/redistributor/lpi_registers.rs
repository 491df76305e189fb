//! Redistributor registers for LPIs.
//!
//! Direct LPIs (IHI 0069 §12.11): `GICR_SETLPIR` makes an LPI pending at one redistributor, and
//! `GICR_CLRLPIR` clears its pending state. A device with access to these registers can signal any
//! LPI.
//!
//! Messages don't take locks and don't allocate, because setting `EnableLPIs` has already allocated
//! a word for each LPI in the redistributor's tables. Messages are ignored while LPIs are disabled
//! at the redistributor, if the LPI exceeds the distributor's or the tables' INTID bits, and on a
//! machine without direct LPIs.

use super::Redistributor;
use crate::config::Coherence;
use crate::frames::registers::{Lanes, low_word};
use crate::lpi::{Injection, LpiCore};
use crate::monitor::AccessWidth;
use crate::monitor::events::{FaultDetail, FaultReason};
use doorbell_fallible::OutOfMemory;
use gic_arch::gicr::{self, Pendbaser, Propbaser};
use gic_arch::{IntId, Lpi, Shareability, lpi};
use msi_types::{Cpu, Delivery};

/// LPI register values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LpiRegisters {
    /// `GICR_CTLR.EnableLPIs`.
    pub(crate) enabled: bool,
    pub(crate) propbaser: Propbaser,
    /// `GICR_PENDBASER` as accepted. Includes `PTZ` until LPIs are enabled, although `PTZ` reads as
    /// zero.
    pub(crate) pendbaser: Pendbaser,
    /// `GICR_PENDBASER` as written, including RES0 bits.
    pub(crate) written_pendbaser: u64,
    /// For `GICR_PROPBASER` and `GICR_PENDBASER`, the value of the last write if it was ignored
    /// because LPIs were enabled or still being disabled.
    pub(crate) ignored: [Option<u64>; 2],
}

/// RES0 bits in `GICR_PENDBASER` that a table address without 64 KiB alignment would set (IHI 0069
/// §12.11).
const UNALIGNED: u64 = 0xf000;

impl LpiRegisters {
    pub(crate) const fn new() -> Self {
        Self {
            enabled: false,
            propbaser: Propbaser::new(),
            pendbaser: Pendbaser::new(),
            written_pendbaser: 0,
            ignored: [None; 2],
        }
    }
}

impl<'a> Redistributor<'a> {
    /// Handles a write to `GICR_CTLR.EnableLPIs`. Only starts to enable LPIs. Callers must
    /// [finish](Self::finish_enabling) this before the guest resumes. The bit can only be cleared
    /// if [`can_clear_enable_lpis`] is set.
    ///
    /// [`can_clear_enable_lpis`]: crate::VgicConfig::can_clear_enable_lpis
    pub(super) fn set_enable_lpis(self, enable: bool) {
        let Some(lpis) = self.lpis else { return };
        self.change_enable(lpis, enable);
        self.advance();
        self.give_up_enabling(lpis);
    }

    /// Finishes enabling LPIs, in time proportional to the number of mappings.
    pub(crate) fn finish_enabling(self) {
        if let Some(lpis) = self.lpis {
            // We must not hold a lock here: a kick may access these registers.
            if lpis.finish_enabling(self.cpu).is_err() {
                self.give_up_enabling(lpis);
            }
        }
    }

    /// Disables LPIs again if there is not enough memory to enable them. Writes pending state back
    /// to the pending table.
    fn give_up_enabling(self, lpis: &LpiCore) {
        let cpu = self.cpu.get();
        let mut registers = self.registers.lpis.lock();
        let gives_up = lpis.with_kicks_deferred(|control| {
            let is_starved = control.is_enabling_starved(cpu);
            if is_starved {
                control.disable_lpis(cpu);
            }
            is_starved
        });
        if gives_up {
            registers.enabled = false;
            drop(registers);
            self.registers.disabled.ask();
            self.advance();
        }
    }

    /// Starts to enable or disable LPIs. Enabling clears `PTZ`, because the table may no longer be
    /// zero when LPIs are disabled again.
    fn change_enable(self, lpis: &LpiCore, enable: bool) {
        let cpu = self.cpu.get();
        let mut registers = self.registers.lpis.lock();
        if enable && !registers.enabled {
            if self.is_disabling() {
                let reason = FaultReason::LpiTablesInUse;
                return self.fault(gicr::CTLR.offset(), reason, FaultDetail::None);
            }
            let (propbaser, pendbaser) = (registers.propbaser, registers.pendbaser);
            let begun =
                lpis.with_kicks_deferred(|control| control.enable_lpis(cpu, propbaser, pendbaser));
            if let Err(OutOfMemory) = begun {
                let reason = FaultReason::OutOfMemory;
                return self.fault(gicr::CTLR.offset(), reason, FaultDetail::None);
            }
            self.check_tables(lpis, &registers);
            registers.enabled = true;
            registers.pendbaser = pendbaser.with_pending_table_zero(false);
        } else if !enable && registers.enabled && self.config.can_clear_enable_lpis {
            registers.enabled = false;
            self.registers.unawaited.replace(0);
            lpis.with_kicks_deferred(|control| control.disable_lpis(cpu));
            self.registers.disabled.ask();
        }
    }

    /// Records faults in the tables that the redistributor is about to use.
    fn check_tables(self, lpis: &LpiCore, registers: &LpiRegisters) {
        let LpiRegisters { propbaser, written_pendbaser, .. } = *registers;
        if propbaser.id_bits() < lpi::MIN_ID_BITS {
            let is_absent = propbaser.into_bits() == 0;
            let reason =
                if is_absent { FaultReason::NoConfigurationTable } else { FaultReason::LpiTable };
            let detail = FaultDetail::Value(propbaser.into_bits());
            self.fault(gicr::PROPBASER.offset(), reason, detail);
        }
        if written_pendbaser & UNALIGNED != 0 {
            let detail = FaultDetail::Value(written_pendbaser);
            self.fault(gicr::PENDBASER.offset(), FaultReason::UnalignedPendingTable, detail);
        }
        let cpu = self.cpu.get();
        let sharer = lpis.read(self.cpu.index()).sharer_of_pending_table(cpu);
        if let Some(sharer) = sharer {
            let detail = FaultDetail::Redistributor(Cpu::new(sharer));
            self.fault(gicr::PENDBASER.offset(), FaultReason::SharedPendingTable, detail);
        }
    }

    /// Returns `true` if `EnableLPIs` was cleared, but some pending state still has to be written
    /// to the pending table (`GICR_CTLR.RWP`).
    pub(super) fn is_disabling(self) -> bool {
        self.lpis.is_some_and(|lpis| lpis.read(self.cpu.index()).is_disabling(self.cpu.get()))
    }

    /// Returns `true` if `EnableLPIs` was set, but has not fully taken effect.
    pub(crate) fn is_enabling(self) -> bool {
        self.lpis.is_some_and(|lpis| lpis.read(self.cpu.index()).is_enabling(self.cpu.get()))
    }

    /// Returns `true` while an invalidation is incomplete (`GICR_SYNCR.Busy`).
    pub(super) fn is_invalidating(self) -> bool {
        self.lpis.is_some_and(|lpis| lpis.read(self.cpu.index()).is_invalidating(self.cpu.get()))
    }

    /// Continues the work that register writes started. Called when the guest polls for completion.
    pub(super) fn advance(self) {
        if let Some(lpis) = self.lpis {
            lpis.advance_registers(self.cpu.index());
        }
    }

    pub(super) fn propbaser(self) -> Propbaser {
        self.registers.lpis.lock().propbaser
    }

    /// Returns `GICR_PENDBASER`. `PTZ` reads as zero.
    pub(super) fn pendbaser(self) -> Pendbaser {
        self.registers.lpis.lock().pendbaser.with_pending_table_zero(false)
    }

    pub(super) fn set_propbaser(self, lanes: Lanes) {
        self.set_tables(gicr::PROPBASER.offset(), lanes, |registers| {
            let written = Propbaser::from(lanes.over(registers.propbaser.into_bits()));
            registers.propbaser = self.accepted_propbaser(written);
        });
    }

    /// Returns the value that `GICR_PROPBASER` holds after a write of `written`.
    pub(super) fn accepted_propbaser(self, written: Propbaser) -> Propbaser {
        Propbaser::new()
            .with_id_bits_minus_one(written.id_bits_minus_one())
            .with_inner_cache(written.inner_cache())
            .with_shareability(self.shareability(written.shareability()))
            .with_address(written.address())
            .with_outer_cache(written.outer_cache())
    }

    pub(super) fn set_pendbaser(self, lanes: Lanes) {
        self.set_tables(gicr::PENDBASER.offset(), lanes, |registers| {
            let written = Pendbaser::from(lanes.over(registers.pendbaser.into_bits()));
            registers.written_pendbaser = lanes.over(registers.written_pendbaser);
            registers.pendbaser = self.accepted_pendbaser(written);
        });
    }

    /// Returns the value that `GICR_PENDBASER` holds after a write of `written`, including `PTZ`.
    pub(super) fn accepted_pendbaser(self, written: Pendbaser) -> Pendbaser {
        Pendbaser::new()
            .with_inner_cache(written.inner_cache())
            .with_shareability(self.shareability(written.shareability()))
            .with_address(written.address())
            .with_outer_cache(written.outer_cache())
            .with_pending_table_zero(written.pending_table_zero())
    }

    /// Changes a table register. Ignores writes on a machine without LPIs, and while LPIs are
    /// enabled (UNPREDICTABLE in IHI 0069).
    fn set_tables(self, register: u32, lanes: Lanes, change: impl FnOnce(&mut LpiRegisters)) {
        if self.lpis.is_none() {
            return;
        }
        let mut registers = self.registers.lpis.lock();
        let (index, value) = if register == gicr::PROPBASER.offset() {
            (0, registers.propbaser.into_bits())
        } else {
            (1, registers.pendbaser.into_bits())
        };
        let is_in_use = registers.enabled || self.is_disabling();
        registers.ignored[index] = is_in_use.then(|| lanes.over(value));
        if is_in_use {
            drop(registers);
            let detail = FaultDetail::Value(lanes.over(0));
            self.fault(register, FaultReason::LpiTablesInUse, detail);
        } else {
            change(&mut registers);
        }
    }

    /// Returns the shareability field as the guest reads it. Non-shareable tells the guest to clean
    /// its tables to memory.
    fn shareability(self, written: Shareability) -> Shareability {
        match self.config.coherence {
            Coherence::Coherent => written,
            Coherence::NonCoherent => Shareability::Non,
        }
    }

    /// Handles a write to `GICR_INVLPIR`.
    pub(super) fn invalidate(self, lanes: Lanes) {
        let config = self.config;
        let implemented = config.redistributor_invalidation || config.direct_lpi;
        if let Some((lpis, lpi)) = self.named_lpi(lanes).filter(|_| implemented) {
            self.record_unawaited_invalidation(
                gicr::INVLPIR.offset(),
                FaultDetail::Interrupt(lpi.intid()),
            );
            if let Err(OutOfMemory) = lpis.invalidate(self.cpu, lpi) {
                let detail = FaultDetail::Interrupt(lpi.intid());
                self.fault(gicr::INVLPIR.offset(), FaultReason::OutOfMemory, detail);
            }
            self.registers.invalidated.ask();
            self.advance();
        }
    }

    /// Handles a write to `GICR_INVALLR`.
    pub(super) fn invalidate_all(self, lanes: Lanes) {
        let config = self.config;
        let implemented = config.redistributor_invalidation || config.direct_lpi;
        let is_written = lanes.zero_extended().is_some();
        if let Some(lpis) = self.enabled_lpis().filter(|_| implemented && is_written) {
            self.record_unawaited_invalidation(gicr::INVALLR.offset(), FaultDetail::None);
            lpis.invalidate_all(self.cpu);
            self.registers.invalidated.ask();
            self.advance();
        }
    }

    /// Records a fault if the guest has not waited for the previous invalidation, which hardware
    /// may not have completed.
    fn record_unawaited_invalidation(self, register: u32, detail: FaultDetail) {
        if self.registers.unawaited.replace(1) != 0 {
            self.fault(register, FaultReason::InvalidationInProgress, detail);
        }
    }

    /// Decodes the LPI from a register write, if LPIs are enabled at this redistributor. Narrower
    /// writes are zero-extended. Bits above the INTID are RES0 without virtual LPIs (IHI 0069,
    /// `GICR_INVLPIR`).
    fn named_lpi(self, lanes: Lanes) -> Option<(&'a LpiCore, Lpi)> {
        let (lpis, value) = (self.enabled_lpis()?, lanes.zero_extended()?);
        let lpi = Lpi::try_from(IntId::new(low_word(value))).ok();
        if lpi.is_none() {
            let (reason, detail) = (FaultReason::NoSuchInterrupt, FaultDetail::Value(value));
            self.fault(gicr::INVLPIR.offset(), reason, detail);
        }
        Some((lpis, lpi?))
    }

    /// Returns the LPI core, if LPIs are enabled at this redistributor.
    fn enabled_lpis(self) -> Option<&'a LpiCore> {
        self.lpis.filter(|_| self.registers.lpis.lock().enabled)
    }

    /// Handles a 32-bit or 64-bit write at an offset from RD_base. Returns `None` if there is no
    /// doorbell of this width at the offset.
    pub(crate) fn ring(self, offset: u32, width: AccessWidth, value: u64) -> Option<Delivery> {
        let act = match offset {
            _ if offset == gicr::SETLPIR.offset() => Self::set_lpi,
            _ if offset == gicr::CLRLPIR.offset() => Self::clear_lpi,
            _ => return None,
        };
        let taken = matches!(width, AccessWidth::Word | AccessWidth::Double);
        (taken && self.config.direct_lpi).then(|| act(self, value))
    }

    /// Handles a CPU's write to `GICR_SETLPIR`. A narrower write is zero-extended.
    pub(crate) fn write_setlpir(self, lanes: Lanes) {
        if let Some(value) = lanes.zero_extended().filter(|_| self.config.direct_lpi) {
            let _ = self.set_lpi(value);
        }
    }

    /// Handles a CPU's write to `GICR_CLRLPIR`. A narrower write is zero-extended.
    pub(crate) fn write_clrlpir(self, lanes: Lanes) {
        if let Some(value) = lanes.zero_extended().filter(|_| self.config.direct_lpi) {
            let _ = self.clear_lpi(value);
            self.registers.invalidated.ask();
        }
    }

    fn set_lpi(self, value: u64) -> Delivery {
        let Some((lpis, lpi)) = self.lpis.zip(self.implemented_lpi(gicr::SETLPIR.offset(), value))
        else {
            return Delivery::Blocked;
        };
        match lpis.set_lpi(self.cpu, lpi) {
            Injection::Fresh | Injection::Coalesced => Delivery::Pending,
            Injection::Dropped => self.dropped(lpi),
        }
    }

    /// Records why a message was dropped. Does not wait for locks.
    #[cold]
    #[inline(never)]
    fn dropped(self, lpi: Lpi) -> Delivery {
        let reason = match self.registers.try_lpis() {
            Some(registers) if !registers.enabled => FaultReason::LpisDisabled,
            Some(LpiRegisters { propbaser, .. }) if propbaser.into_bits() == 0 => {
                FaultReason::NoConfigurationTable
            }
            Some(LpiRegisters { propbaser, .. })
                if u64::from(lpi.get()) >> propbaser.id_bits() != 0 =>
            {
                FaultReason::LpiOutOfRange
            }
            _ => FaultReason::DisabledMessage,
        };
        self.fault(gicr::SETLPIR.offset(), reason, FaultDetail::Interrupt(lpi.intid()));
        Delivery::Blocked
    }

    /// Clears the LPI's pending state. Always returns [`Delivery::Blocked`], because clearing can't
    /// make an interrupt pending.
    fn clear_lpi(self, value: u64) -> Delivery {
        if let Some((lpis, lpi)) =
            self.lpis.zip(self.implemented_lpi(gicr::CLRLPIR.offset(), value))
        {
            lpis.clear_lpi(self.cpu, lpi);
        }
        Delivery::Blocked
    }

    /// Decodes the LPI from a value written to `register`. If the distributor doesn't implement the
    /// LPI, records a fault. Bits above the INTID are RES0.
    fn implemented_lpi(self, register: u32, value: u64) -> Option<Lpi> {
        let id_bits = self.config.lpi_id_bits?;
        let lpi = Lpi::try_from(IntId::new(low_word(value))).ok();
        let implemented = lpi.filter(|lpi| u64::from(lpi.get()) >> id_bits == 0);
        if implemented.is_none() {
            self.fault(register, FaultReason::NoSuchInterrupt, FaultDetail::Value(value));
        }
        implemented
    }
}
