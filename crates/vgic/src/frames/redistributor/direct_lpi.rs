//! Direct LPIs (IHI 0069 §12.11): `GICR_SETLPIR` makes an LPI pending at one redistributor, and
//! `GICR_CLRLPIR` clears its pending state. A device with access to these registers can signal any
//! LPI.
//!
//! Messages don't take locks and don't allocate, because setting `EnableLPIs` has already allocated
//! a word for each LPI in the redistributor's tables. Messages are ignored while LPIs are disabled
//! at the redistributor, if the LPI exceeds the distributor's or the tables' INTID bits, and on a
//! machine without direct LPIs.

use crate::frames::redistributor::{LpiRegisters, Redistributor};
use crate::frames::registers::{Lanes, low_word};
use crate::lpi::Injection;
use crate::monitor::access::AccessWidth;
use crate::monitor::events::{FaultDetail, FaultReason};
use gic_arch::{IntId, Lpi, gicr};
use msi_types::Delivery;

impl Redistributor<'_> {
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
