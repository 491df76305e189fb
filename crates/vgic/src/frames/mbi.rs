//! Message-based SPIs (IHI 0069 §12.9): `GICD_SETSPI_NSR` and `GICD_CLRSPI_NSR`, in the distributor
//! frame and in an alias frame. The alias frame has only doorbells, so a device that can write to
//! it can't reach any other register.

use crate::config::VgicConfig;
use crate::frames::registers::{Frame, FrameIndex, Lanes, Register, low_word, register};
use crate::monitor::AccessWidth;
use crate::monitor::events::{EventLog, FaultDetail, FaultReason, GuestFault, RegisterFrame};
use crate::wired::Wired;
use crate::wired::interrupt::InterruptWord;
use gic_arch::{IntId, gicd};
use msi_types::Delivery;

/// INTID field in the registers.
const INTID_BITS: u64 = 0x1fff;

/// Context for one access to a frame's doorbells.
#[derive(Clone, Copy)]
pub(crate) struct Mbi<'a> {
    pub(crate) config: &'a VgicConfig,
    pub(crate) wired: &'a Wired,
    pub(crate) events: &'a EventLog,
    pub(crate) frame: RegisterFrame,
}

/// Effect of a message on an interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    /// A `SETSPI` message: an edge, or a rising level.
    Set,
    /// A `CLRSPI` message, which undoes the effect of `SETSPI` messages.
    Clear,
}

impl Message {
    /// Returns the doorbell's offset in its frame.
    const fn register(self) -> u32 {
        match self {
            Self::Set => gicd::SETSPI_NSR.offset(),
            Self::Clear => gicd::CLRSPI_NSR.offset(),
        }
    }

    fn apply(self, state: InterruptWord) -> InterruptWord {
        match self {
            Self::Set => state.message_set(),
            Self::Clear => state.message_cleared(),
        }
    }
}

impl Mbi<'_> {
    /// Handles a 16-bit or 32-bit write at an offset in the frame. Returns `None` if there is no
    /// doorbell of this width at the offset.
    pub(crate) fn ring(self, offset: u32, width: AccessWidth, value: u64) -> Option<Delivery> {
        let message = match offset {
            _ if offset == gicd::SETSPI_NSR.offset() => Message::Set,
            _ if offset == gicd::CLRSPI_NSR.offset() => Message::Clear,
            _ => return None,
        };
        let taken = matches!(width, AccessWidth::Half | AccessWidth::Word);
        (taken && self.config.message_based_spis).then(|| self.signal(message, value))
    }

    /// Handles a CPU's write.
    pub(crate) fn write(self, message: Message, lanes: Lanes) {
        if let Some(number) = lanes.zero_extended().filter(|_| self.config.message_based_spis) {
            let _ = self.signal(message, number);
        }
    }

    /// Applies a message to its target SPI. Ignores Secure SPIs, and numbers that aren't SPIs on
    /// this machine.
    fn signal(self, message: Message, number: u64) -> Delivery {
        let intid = IntId::new(low_word(number & INTID_BITS));
        if !intid.is_shared() || !self.config.implements(intid) {
            let at = (self.frame, message.register());
            let (reason, detail) = (FaultReason::NoSuchInterrupt, FaultDetail::Interrupt(intid));
            self.events.record(GuestFault::new(reason, at, detail));
            return Delivery::Blocked;
        }
        self.wired.signal(intid, |state| message.apply(state))
    }
}

impl<'a> Mbi<'a> {
    /// Registers in the alias frame. The Secure registers ignore writes.
    const REGISTERS: &'a [Register<Self>] = &[
        register!(gicd::SETSPI_NSR, trigger |mbi: Self, _, lanes| {
            mbi.write(Message::Set, lanes);
        }),
        register!(gicd::CLRSPI_NSR, trigger |mbi: Self, _, lanes| {
            mbi.write(Message::Clear, lanes);
        }),
        register!(gicd::SETSPI_SR, zero),
        register!(gicd::CLRSPI_SR, zero),
    ];

    pub(crate) const ALIAS: Frame<'a, Self> =
        Frame { registers: Self::REGISTERS, index: &FrameIndex::of(Self::REGISTERS) };
}
