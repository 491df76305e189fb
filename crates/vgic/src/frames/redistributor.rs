//! Redistributor frames (IHI 0069 §12.10, §12.11): RD_base and SGI_base of one PE.

mod lpi_registers;
mod saved;

pub(crate) use lpi_registers::LpiRegisters;

use crate::config::{RedistributorFrame, SecurityView, VgicConfig};
use crate::frames::per_interrupt::{self as per, PerInterrupt};
use crate::frames::registers::{
    Frame, FrameIndex, ID_REGISTERS, Lanes, Register, identification, low_byte, low_word, register,
};
use crate::lpi::LpiCore;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::sync::lock::Mutex;
use crate::sync::published::Published;
use crate::wakeup::Awaited;
use crate::wired::{Private, Wired, participation};
use core::sync::atomic::Ordering::SeqCst;
use gic_arch::gicr::{self, Ctlr, Syncr, Typer, Waker};
use msi_types::Cpu;

/// A redistributor's registers. Recalls for the PE's private interrupts are in [`Wired`]. Two
/// redistributors' registers share no cache line.
#[repr(align(128))]
pub(crate) struct RedistributorRegisters {
    frame: RedistributorFrame,
    lpis: Mutex<LpiRegisters>,
    /// Recalls for disabled LPIs.
    disabled: Awaited,
    /// Recalls for invalidated or cleared LPIs.
    pub(crate) invalidated: Awaited,
    /// 1 if the guest has not read `GICR_SYNCR.Busy` as 0 since it last invalidated LPIs.
    unawaited: Published,
}

impl RedistributorRegisters {
    pub(crate) const fn new(frame: RedistributorFrame) -> Self {
        Self {
            frame,
            lpis: Mutex::new(LpiRegisters::new()),
            disabled: Awaited::new(),
            invalidated: Awaited::new(),
            unawaited: Published::new(0),
        }
    }

    pub(crate) fn reset(&self) {
        self.restore(LpiRegisters::new());
    }

    /// Returns the registers that concern LPIs.
    pub(crate) fn lpis(&self) -> LpiRegisters {
        *self.lpis.lock()
    }

    /// Returns the registers that concern LPIs, or `None` if another thread is accessing them.
    pub(crate) fn try_lpis(&self) -> Option<LpiRegisters> {
        self.lpis.try_lock().map(|lpis| *lpis)
    }

    pub(crate) fn restore(&self, lpis: LpiRegisters) {
        *self.lpis.lock() = lpis;
        self.unawaited.replace(0);
    }
}

/// Context for one redistributor access.
#[derive(Clone, Copy)]
pub(crate) struct Redistributor<'a> {
    pub(crate) cpu: Cpu,
    pub(crate) config: &'a VgicConfig,
    pub(crate) registers: &'a RedistributorRegisters,
    pub(crate) private: &'a Private,
    pub(crate) wired: &'a Wired,
    pub(crate) lpis: Option<&'a LpiCore>,
    pub(crate) events: &'a EventLog,
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
}

impl<'a> Redistributor<'a> {
    /// Registers in both frames. MPAM and Secure-only registers read as zero.
    const REGISTERS: &'a [Register<Self>] = &[
        register!(gicr::CTLR, value | r, _ | r.read_control().into_bits().into(), |r, _, lanes| r
            .set_control(lanes)),
        register!(gicr::IIDR, constant | r, _ | r.config.iidr.into_bits().into()),
        register!(gicr::TYPER, constant | r, _ | r.typer().into_bits()),
        register!(gicr::STATUSR, zero),
        register!(gicr::WAKER, value | r, _ | r.waker().into_bits().into(), |r, _, lanes| r
            .set_waker(lanes)),
        register!(gicr::MPAMIDR, zero),
        register!(gicr::PARTIDR, zero),
        register!(gicr::SETLPIR, trigger | r, _, lanes | r.write_setlpir(lanes)),
        register!(gicr::CLRLPIR, trigger | r, _, lanes | r.write_clrlpir(lanes)),
        register!(gicr::PROPBASER, value | r, _ | r.propbaser().into_bits(), |r, _, lanes| r
            .set_propbaser(lanes)),
        register!(gicr::PENDBASER, value | r, _ | r.pendbaser().into_bits(), |r, _, lanes| r
            .set_pendbaser(lanes)),
        register!(gicr::INVLPIR, trigger | r, _, lanes | r.invalidate(lanes)),
        register!(gicr::INVALLR, trigger | r, _, lanes | r.invalidate_all(lanes)),
        register!(gicr::SYNCR, constant | r, _ | r.syncr().into_bits().into()),
        Register::constant(ID_REGISTERS, |_, index| identification(index, 0x93)),
        register!(gicr::IGROUPR, fields per::group),
        register!(gicr::ISENABLER, fields per::set_enable),
        register!(gicr::ICENABLER, fields per::clear_enable),
        register!(gicr::ISPENDR, fields per::set_pending),
        register!(gicr::ICPENDR, fields per::clear_pending),
        register!(gicr::ISACTIVER, fields per::set_active),
        register!(gicr::ICACTIVER, fields per::clear_active),
        register!(gicr::IPRIORITYR, fields per::priority),
        register!(gicr::ICFGR, fields per::trigger),
        register!(gicr::IGRPMODR, zero),
        register!(gicr::NSACR, zero),
    ];

    pub(crate) const FRAME: Frame<'a, Self> =
        Frame { registers: Self::REGISTERS, index: &FrameIndex::of(Self::REGISTERS) };

    /// Records a guest error at a register.
    pub(crate) fn fault(&self, register: u32, reason: FaultReason, detail: FaultDetail) {
        let frame = RegisterFrame::Redistributor(self.registers.frame.base);
        self.events.record(GuestFault::new(reason, (frame, register), detail));
    }

    /// Reads `GICR_CTLR`, after making progress. `EnableLPIs` reads as zero until LPIs are fully
    /// enabled.
    fn read_control(self) -> Ctlr {
        self.advance();
        let control = self.control();
        control.with_enable_lpis(control.enable_lpis() && !self.is_enabling())
    }

    fn control(self) -> Ctlr {
        let bits = self.private.participation.load(SeqCst);
        let config = self.config;
        // Read `EnableLPIs` before `RWP`: a reader that finds LPIs disabled must not find the
        // change complete before it is.
        let enabled = self.registers.lpis.lock().enabled;
        let pending =
            self.wired.is_outstanding_after(|| self.is_disabling(), &self.registers.disabled)
                || self.wired.is_outstanding(&self.private.awaited);
        Ctlr::new()
            .with_rwp(pending)
            .with_enable_lpis(enabled)
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

    /// Updates the `DPG` bits. The guest's view determines which of the bits are writable.
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

    /// Returns `GICR_SYNCR`, after making progress. `Busy` is set while an invalidated LPI may
    /// still be in a list register, or while an invalidation still has LPIs to visit.
    fn syncr(self) -> Syncr {
        self.advance();
        let invalidated = &self.registers.invalidated;
        let busy = self.wired.is_outstanding_after(|| self.is_invalidating(), invalidated);
        if !busy {
            self.registers.unawaited.replace(0);
        }
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

    /// Returns `GICR_WAKER`. Waking takes effect immediately. `ChildrenAsleep` is set only when
    /// none of the vCPU's interrupts are in list registers. In the Non-secure view, the register
    /// reads as zero, because firmware owns it.
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

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_redistributor_table_lists_each_register_once_in_order() {
        let mut expected = gicr::REGISTERS.to_vec();
        expected.push(ID_REGISTERS);
        expected.sort_by_key(|info| info.offset);
        let found: alloc::vec::Vec<_> =
            Redistributor::REGISTERS.iter().map(|register| register.info).collect();
        assert_eq!(found, expected);
    }
}
