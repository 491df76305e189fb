//! GICv2m frames: each has a doorbell for a range of SPIs (Arm Server Base System Architecture,
//! appendix on GICv2m).
//!
//! A message is a pulse, which makes an edge-triggered SPI pending, but doesn't affect a
//! level-sensitive SPI.

use crate::config::V2mConfig;
use crate::frames::registers::{
    Frame, FrameIndex, ID_REGISTERS, Lanes, Refusal, Register, identification, low_word, register,
};
use crate::monitor::AccessWidth;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::wired::Wired;
use crate::wired::interrupt::InterruptWord;
use gic_arch::v2m;
use gic_arch::{IntId, RegisterInfo};
use msi_types::Delivery;

/// Context for one access to a frame.
#[derive(Clone, Copy)]
pub(crate) struct V2m<'a> {
    pub(crate) config: &'a V2mConfig,
    pub(crate) wired: &'a Wired,
    pub(crate) events: &'a EventLog,
}

/// Identification registers, as they are in a 4 KiB frame.
const V2M_ID_REGISTERS: RegisterInfo = v2m::ID_REGISTERS.info(ID_REGISTERS.name);

impl<'a> V2m<'a> {
    const REGISTERS: &'a [Register<Self>] = &[
        register!(v2m::TYPER, constant |frame: Self, _| {
            frame.config.typer().into_bits().into()
        }),
        register!(v2m::SETSPI_NS, trigger |frame: Self, _, lanes: Lanes| {
            if let Some(data) = lanes.zero_extended() {
                let _ = frame.signal(data);
            }
        }),
        register!(v2m::IIDR, constant |frame: Self, _| frame.config.iidr.into()),
        Register::constant(V2M_ID_REGISTERS, |_, index| identification(index, 0)),
    ];

    const FRAME: Frame<'a, Self> =
        Frame { registers: Self::REGISTERS, index: &FrameIndex::of(Self::REGISTERS) };

    /// Reads a register, as [`Frame::read`] does.
    pub(crate) fn read(
        self,
        offset: u32,
        width: AccessWidth,
        refused: &mut dyn FnMut(Refusal),
    ) -> u64 {
        Self::FRAME.read(self, offset, width, refused)
    }

    /// Writes a register, as [`Frame::write`] does.
    pub(crate) fn write(
        self,
        offset: u32,
        width: AccessWidth,
        value: u64,
        refused: &mut dyn FnMut(Refusal),
    ) {
        Self::FRAME.write(self, offset, width, value, refused);
    }

    /// Handles a 16-bit or 32-bit write at an offset in the frame. Returns `None` if there is no
    /// doorbell of this width at the offset.
    pub(crate) fn ring(self, offset: u32, width: AccessWidth, value: u64) -> Option<Delivery> {
        let taken = matches!(width, AccessWidth::Half | AccessWidth::Word);
        (offset == v2m::SETSPI_NS.offset() && taken).then(|| self.signal(value))
    }

    /// Signals a message's target SPI. Ignores Secure SPIs, and numbers outside the frame's range.
    fn signal(self, value: u64) -> Delivery {
        let spi = low_word(value);
        if !self.config.spis().contains(&spi) {
            let at = (RegisterFrame::V2m(self.config.base), v2m::SETSPI_NS.offset());
            let detail = FaultDetail::Value(value);
            self.events.record(GuestFault::new(FaultReason::NoSuchInterrupt, at, detail));
            return Delivery::Blocked;
        }
        self.wired.signal(IntId::new(spi), InterruptWord::pulsed)
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2m_table_lists_each_register_once_in_order() {
        let mut expected = v2m::REGISTERS.to_vec();
        expected.push(V2M_ID_REGISTERS);
        expected.sort_by_key(|info| info.offset);
        let found: alloc::vec::Vec<_> =
            V2m::REGISTERS.iter().map(|register| register.info).collect();
        assert_eq!(found, expected);
    }
}
