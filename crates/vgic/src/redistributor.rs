//! The redistributors' frames (IHI 0069 §12.10, §12.11): RD_base and SGI_base of one PE.

mod lpi_registers;
mod saved;

pub(crate) use lpi_registers::LpiRegisters;
pub(crate) use saved::RestoredRedistributor;

use crate::config::{RedistributorFrame, SecurityView, VgicConfig};
use crate::events::{Events, FaultReason, GuestFault};
use crate::lock::Mutex;
use crate::lpi::LpiCore;
use crate::per_interrupt::{self as per, PerInterrupt};
use crate::registers::{Frame, ID_REGISTERS, Kind, Lanes, Row, identification, low_byte, low_word};
use crate::wakeup::Awaited;
use crate::wired::{Private, Wired, participation};
use core::sync::atomic::Ordering::SeqCst;
use gic_arch::IntId;
use gic_arch::gicr::{self, Ctlr, Syncr, Typer, Waker};
use msi_types::Cpu;

/// A redistributor's own registers; those of its interrupts are in [`Wired`].
pub(crate) struct RedistributorRegisters {
    frame: RedistributorFrame,
    lpis: Mutex<LpiRegisters>,
    /// Recalls of LPIs that are disabled.
    disabled: Awaited,
    /// Recalls of LPIs that are invalidated or cleared.
    pub(crate) invalidated: Awaited,
}

impl RedistributorRegisters {
    pub(crate) const fn new(frame: RedistributorFrame) -> Self {
        Self {
            frame,
            lpis: Mutex::new(LpiRegisters::new()),
            disabled: Awaited::new(),
            invalidated: Awaited::new(),
        }
    }

    pub(crate) fn reset(&self) {
        self.restore(LpiRegisters::new());
    }

    pub(crate) fn restore(&self, lpis: LpiRegisters) {
        *self.lpis.lock() = lpis;
    }
}

/// The target of an access to a redistributor.
#[derive(Clone, Copy)]
pub(crate) struct Redistributor<'a> {
    pub(crate) cpu: Cpu,
    pub(crate) config: &'a VgicConfig,
    pub(crate) registers: &'a RedistributorRegisters,
    pub(crate) private: &'a Private,
    pub(crate) wired: &'a Wired,
    pub(crate) lpis: Option<&'a LpiCore>,
    pub(crate) events: &'a Events,
}

impl PerInterrupt for Redistributor<'_> {
    fn config(&self) -> &VgicConfig {
        self.config
    }

    fn wired(&self) -> &Wired {
        self.wired
    }

    fn owner(&self) -> Cpu {
        self.cpu
    }

    fn missing(&self, intid: IntId) {
        self.fault(FaultReason::NoSuchInterrupt, intid.get().into());
    }
}

/// A row of [`Redistributor::ROWS`].
macro_rules! row {
    ($name:ident, zero) => {
        Row::zero(gicr::$name.info(stringify!($name)))
    };
    ($name:ident, fields $kind:path) => {
        Row::new(gicr::$name.info(stringify!($name)), $kind(gicr::$name))
    };
    ($name:ident, constant $read:expr) => {
        Row::constant(gicr::$name.info(stringify!($name)), $read)
    };
    ($name:ident, trigger $write:expr) => {
        Row::trigger(gicr::$name.info(stringify!($name)), $write)
    };
    ($name:ident, value $read:expr, $write:expr) => {
        Row::new(gicr::$name.info(stringify!($name)), Kind::Value { read: $read, write: $write })
    };
}

impl<'a> Redistributor<'a> {
    /// Both frames. Registers that only exist in the Secure view read as zero, and MPAM's.
    const ROWS: &'a [Row<Self>] = &[
        row!(CTLR, value | r, _ | r.read_control().into_bits().into(), |r, _, lanes| r
            .set_control(lanes)),
        row!(IIDR, constant | r, _ | r.config.iidr.into_bits().into()),
        row!(TYPER, constant | r, _ | r.typer().into_bits()),
        row!(STATUSR, zero),
        row!(WAKER, value | r, _ | r.waker().into_bits().into(), |r, _, lanes| r.set_waker(lanes)),
        row!(MPAMIDR, zero),
        row!(PARTIDR, zero),
        row!(SETLPIR, trigger | r, _, lanes | r.write_setlpir(lanes)),
        row!(CLRLPIR, trigger | r, _, lanes | r.write_clrlpir(lanes)),
        row!(PROPBASER, value | r, _ | r.propbaser().into_bits(), |r, _, lanes| r
            .set_propbaser(lanes)),
        row!(PENDBASER, value | r, _ | r.pendbaser().into_bits(), |r, _, lanes| r
            .set_pendbaser(lanes)),
        row!(INVLPIR, trigger | r, _, lanes | r.invalidate(lanes)),
        row!(INVALLR, trigger | r, _, lanes | r.invalidate_all(lanes)),
        row!(SYNCR, constant | r, _ | r.syncr().into_bits().into()),
        Row::constant(ID_REGISTERS, |_, index| identification(index, 0x93)),
        row!(IGROUPR, fields per::group),
        row!(ISENABLER, fields per::set_enable),
        row!(ICENABLER, fields per::clear_enable),
        row!(ISPENDR, fields per::set_pending),
        row!(ICPENDR, fields per::clear_pending),
        row!(ISACTIVER, fields per::set_active),
        row!(ICACTIVER, fields per::clear_active),
        row!(IPRIORITYR, fields per::priority),
        row!(ICFGR, fields per::trigger),
        row!(IGRPMODR, zero),
        row!(NSACR, zero),
    ];

    pub(crate) const FRAME: Frame<'a, Self> = Frame(Self::ROWS);

    pub(crate) fn fault(&self, reason: FaultReason, detail: u64) {
        self.events.record(GuestFault { reason, address: self.registers.frame.base, detail });
    }

    /// `EnableLPIs` reads as zero until it has taken effect.
    fn read_control(self) -> Ctlr {
        self.advance();
        let control = self.control();
        control.with_enable_lpis(control.enable_lpis() && !self.is_enabling())
    }

    fn control(self) -> Ctlr {
        let bits = self.private.participation.load(SeqCst);
        let config = self.config;
        // In this order: the recalls of what is disabled are complete before they are asked for.
        let pending = self.is_disabling()
            || self.wired.is_outstanding(&self.registers.disabled)
            || self.wired.is_outstanding(&self.private.awaited);
        Ctlr::new()
            .with_rwp(pending)
            .with_enable_lpis(self.registers.lpis.lock().enabled)
            .with_ces(config.lpi_id_bits.is_some() && config.can_clear_enable_lpis)
            .with_ir(config.lpi_id_bits.is_some() && config.redistributor_invalidation)
            .with_dpg0(bits & participation::DECLINES[0] != 0)
            .with_dpg1_ns(bits & participation::DECLINES[1] != 0)
            .with_dpg1_s(bits & participation::DECLINES_SECURE != 0)
    }

    fn set_control(self, lanes: Lanes) {
        let written = Ctlr::from(low_word(lanes.over(self.control().into_bits().into())));
        if self.config.one_of_n {
            self.set_declined(written);
        }
        if self.config.lpi_id_bits.is_some() {
            self.set_enable_lpis(written.enable_lpis());
        }
    }

    /// The guest's view decides which of the `DPG` bits it can write.
    fn set_declined(self, written: Ctlr) {
        let single = self.config.security == SecurityView::Single;
        let bits = [
            (participation::DECLINES[0], written.dpg0() && single),
            (participation::DECLINES[1], written.dpg1_ns()),
            (participation::DECLINES_SECURE, written.dpg1_s() && single),
        ];
        let set = bits.iter().filter(|(_, on)| *on).fold(0, |set, (bit, _)| set | bit);
        let clear = bits.iter().filter(|(_, on)| !*on).fold(0, |clear, (bit, _)| clear | bit);
        self.wired.set_participation(self.cpu, set, clear);
    }

    /// Busy while an LPI that was invalidated may still be in a list register, or has still to be
    /// found.
    fn syncr(self) -> Syncr {
        self.advance();
        let busy = self.is_invalidating() || self.wired.is_outstanding(&self.registers.invalidated);
        Syncr::new().with_busy(busy)
    }

    fn typer(self) -> Typer {
        let config = self.config;
        let of = config.cpus.get(self.cpu.index());
        Typer::new()
            .with_plpis(config.lpi_id_bits.is_some())
            .with_direct_lpi(config.direct_lpi)
            .with_last(self.registers.frame.last)
            .with_dpgs(config.one_of_n)
            .with_processor_number(of.map_or(0, |of| of.processor_number))
            .with_ppi_num(low_byte(config.extended_ppis / 32))
            .with_affinity_value(of.map_or(0, |of| of.affinity.packed()))
    }

    /// Awake at once; asleep when nothing is in list registers any more. Zero where firmware owns
    /// it.
    fn waker(self) -> Waker {
        let asleep = self.private.participation.load(SeqCst) & participation::AWAKE == 0;
        match self.config.security {
            SecurityView::Single => Waker::new()
                .with_processor_sleep(asleep)
                .with_children_asleep(asleep && !self.wired.is_outstanding(&self.private.awaited)),
            SecurityView::NonSecure => Waker::new(),
        }
    }

    fn set_waker(self, lanes: Lanes) {
        if self.config.security == SecurityView::NonSecure {
            return;
        }
        let written = Waker::from(low_word(lanes.over(self.waker().into_bits().into())));
        if written.processor_sleep() {
            self.wired.set_participation(self.cpu, 0, participation::AWAKE);
        } else {
            self.wired.set_participation(self.cpu, participation::AWAKE, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_register_of_the_architecture_once_in_order() {
        let mut expected = gicr::REGISTERS.to_vec();
        expected.push(ID_REGISTERS);
        expected.sort_by_key(|info| info.offset);
        let found: alloc::vec::Vec<_> = Redistributor::ROWS.iter().map(|row| row.info).collect();
        assert_eq!(found, expected);
    }
}
