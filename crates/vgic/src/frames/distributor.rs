//! Distributor frame (IHI 0069 §12.9).

mod saved;

use crate::config::{SecurityView, VgicConfig};
use crate::frames::mbi::{Mbi, Message};
use crate::frames::per_interrupt::{self as per, PerInterrupt};
use crate::frames::registers::{
    Frame, FrameIndex, ID_REGISTERS, Lanes, Register, identification, low_byte, low_word, register,
};
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::wired::Wired;
use gic_arch::gicd::{self, Ctlr, CtlrNs, Irouter, Typer};
use gic_arch::{IntId, Reg};
use msi_types::Cpu;

/// `GICD_CTLR.E1NWF`. The bit reads back as written, but has no effect.
const E1NWF: u32 = 1 << 7;

/// Context for one distributor access.
#[derive(Clone, Copy)]
pub(crate) struct Distributor<'a> {
    pub(crate) config: &'a VgicConfig,
    pub(crate) wired: &'a Wired,
    pub(crate) events: &'a EventLog,
}

impl PerInterrupt for Distributor<'_> {
    fn config(&self) -> &VgicConfig {
        self.config
    }

    fn wired(&self) -> &Wired {
        self.wired
    }

    fn owner(&self) -> Cpu {
        Cpu::new(0)
    }
}

impl<'a> Distributor<'a> {
    /// The distributor's registers. Registers that exist only without affinity routing, or only in
    /// the Secure view, read as zero.
    const REGISTERS: &'a [Register<Self>] = &[
        register!(gicd::CTLR, value | d, _ | d.control().into(), |d, _, lanes| d
            .set_control(lanes)),
        register!(gicd::TYPER, constant | d, _ | u64::from(d.typer().into_bits())),
        register!(gicd::IIDR, constant | d, _ | u64::from(d.config.iidr.into_bits())),
        register!(gicd::TYPER2, zero),
        register!(gicd::STATUSR, zero),
        register!(gicd::SETSPI_NSR, trigger | d, _, lanes | d.mbi().write(Message::Set, lanes)),
        register!(gicd::CLRSPI_NSR, trigger | d, _, lanes | d.mbi().write(Message::Clear, lanes)),
        register!(gicd::SETSPI_SR, zero),
        register!(gicd::CLRSPI_SR, zero),
        register!(gicd::IGROUPR, fields per::group),
        register!(gicd::ISENABLER, fields per::set_enable),
        register!(gicd::ICENABLER, fields per::clear_enable),
        register!(gicd::ISPENDR, fields per::set_pending),
        register!(gicd::ICPENDR, fields per::clear_pending),
        register!(gicd::ISACTIVER, fields per::set_active),
        register!(gicd::ICACTIVER, fields per::clear_active),
        register!(gicd::IPRIORITYR, fields per::priority),
        register!(gicd::ITARGETSR, zero),
        register!(gicd::ICFGR, fields per::trigger),
        register!(gicd::IGRPMODR, zero),
        register!(gicd::NSACR, zero),
        register!(gicd::SGIR, zero),
        register!(gicd::CPENDSGIR, zero),
        register!(gicd::SPENDSGIR, zero),
        register!(gicd::IGROUPR_E, fields per::group),
        register!(gicd::ISENABLER_E, fields per::set_enable),
        register!(gicd::ICENABLER_E, fields per::clear_enable),
        register!(gicd::ISPENDR_E, fields per::set_pending),
        register!(gicd::ICPENDR_E, fields per::clear_pending),
        register!(gicd::ISACTIVER_E, fields per::set_active),
        register!(gicd::ICACTIVER_E, fields per::clear_active),
        register!(gicd::IPRIORITYR_E, fields per::priority),
        register!(gicd::ICFGR_E, fields per::trigger),
        register!(gicd::IGRPMODR_E, zero),
        register!(gicd::NSACR_E, zero),
        register!(
            gicd::IROUTER,
            value | d,
            index | d.route(IntId::new(index)),
            |d, index, lanes| {
                d.set_route(gicd::IROUTER.get(index), IntId::new(index), lanes);
            }
        ),
        register!(
            gicd::IROUTER_E,
            value | d,
            index | d.route(extended_spi(index)),
            |d, index, lanes| {
                d.set_route(gicd::IROUTER_E.get(index), extended_spi(index), lanes);
            }
        ),
        Register::constant(ID_REGISTERS, |_, index| identification(index, 0x92)),
    ];

    pub(crate) const FRAME: Frame<'a, Self> =
        Frame { registers: Self::REGISTERS, index: &FrameIndex::of(Self::REGISTERS) };

    pub(crate) fn control(self) -> u32 {
        let pending = self.wired.awaits_folding();
        self.control_view(self.wired.control()) | Ctlr::new().with_rwp(pending).into_bits()
    }

    /// Returns the guest's view of a stored `GICD_CTLR`, with `RWP` clear.
    fn control_view(self, stored: u32) -> u32 {
        match self.config.security {
            SecurityView::Single => Ctlr::from(stored).with_are(true).with_ds(true).into_bits(),
            SecurityView::NonSecure => {
                CtlrNs::new().with_enable_grp1a(stored & 2 != 0).with_are_ns(true).into_bits()
            }
        }
    }

    /// Writes `GICD_CTLR`. The guest can't disable affinity routing or change the number of
    /// security states. In both views, bit 1 enables Group 1.
    fn set_control(self, lanes: Lanes) {
        let writable = self.writable_control();
        self.wired.set_control(|old| low_word(lanes.over(old.into())) & writable);
    }

    fn writable_control(self) -> u32 {
        match self.config.security {
            SecurityView::Single => {
                Ctlr::new().with_enable_grp0(true).with_enable_grp1(true).into_bits() | E1NWF
            }
            SecurityView::NonSecure => CtlrNs::new().with_enable_grp1a(true).into_bits(),
        }
    }

    fn typer(self) -> Typer {
        let config = self.config;
        let lines = config.spis.div_ceil(32);
        let extended = config.extended_spis / 32;
        Typer::new()
            .with_it_lines_number(low_byte(lines))
            .with_espi(extended > 0)
            .with_espi_range(low_byte(extended.saturating_sub(1)))
            .with_security_extn(config.security == SecurityView::NonSecure)
            .with_mbis(config.message_based_spis)
            .with_lpis(config.lpi_id_bits.is_some())
            .with_id_bits_minus_one(config.id_bits() - 1)
            .with_a3v(true)
            .with_no_1_of_n(!config.one_of_n)
            .with_rss(true)
    }

    /// Returns this frame's doorbells.
    pub(crate) fn mbi(self) -> Mbi<'a> {
        let Self { config, wired, events } = self;
        Mbi { config, wired, events, frame: RegisterFrame::Distributor(config.distributor) }
    }

    fn route(self, intid: IntId) -> u64 {
        if intid.is_shared() { self.wired.route(intid).into_bits() } else { 0 }
    }

    fn set_route(self, register: Option<Reg<Irouter>>, intid: IntId, lanes: Lanes) {
        if intid.is_shared() && self.config.implements(intid) {
            self.wired.set_route(intid, |old| lanes.over(old));
        } else {
            let frame = RegisterFrame::Distributor(self.config.distributor);
            let at = (frame, register.map_or(0, Reg::offset));
            let (reason, detail) = (FaultReason::NoSuchInterrupt, FaultDetail::Interrupt(intid));
            self.events.record(GuestFault::new(reason, at, detail));
        }
    }
}

const fn extended_spi(index: u32) -> IntId {
    IntId::new(index + IntId::EXTENDED_SPI_BASE)
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distributor_table_lists_each_register_once_in_order() {
        let mut expected = gicd::REGISTERS.to_vec();
        expected.push(ID_REGISTERS);
        expected.sort_by_key(|info| info.offset);
        let found: alloc::vec::Vec<_> =
            Distributor::REGISTERS.iter().map(|register| register.info).collect();
        assert_eq!(found, expected);
    }
}
