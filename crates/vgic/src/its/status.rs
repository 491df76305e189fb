//! `GITS_STATUSR` and `GITS_UMSIR` (GICv3.1): what the guest is told of wrong accesses and of messages that nothing is
//! mapped for, where the ITS is configured so.

use crate::events::FaultReason;
use gic_arch::gits::{Statusr, Umsir};
use spin::mutex::SpinMutex;

/// Why a message has no mapping, as `GITS_STATUSR.Syndrome` has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unmapped {
    DeviceOutOfRange = 2,
    Device = 3,
    EventOutOfRange = 4,
    Event = 5,
    Collection = 7,
}

/// Which way an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Read,
    Write,
}

/// The registers.
#[derive(Debug)]
pub(super) struct Status(SpinMutex<(Statusr, Umsir)>);

impl Status {
    pub(super) const fn new() -> Self {
        Self(SpinMutex::new((Statusr::new(), Umsir::new())))
    }

    pub(super) fn reset(&self) {
        *self.0.lock() = (Statusr::new(), Umsir::new());
    }

    /// An access was refused. Widths that a register does not take have no bit.
    pub(super) fn refused(&self, reason: FaultReason, direction: Direction) {
        let (status, _) = &mut *self.0.lock();
        match (reason, direction) {
            (FaultReason::UnknownRegister, Direction::Read) => status.set_rrd(true),
            (FaultReason::UnknownRegister, Direction::Write) => status.set_wrd(true),
            (FaultReason::AccessDirection, Direction::Read) => status.set_rwod(true),
            (FaultReason::AccessDirection, Direction::Write) => status.set_wrod(true),
            _ => {}
        }
    }

    /// A message was dropped; `why` is asked if there is room to report it.
    pub(super) fn unmapped(&self, device_id: u32, event_id: u32, why: impl FnOnce() -> Option<Unmapped>) {
        if self.0.lock().0.umsi() {
            return self.0.lock().0.set_overflow(true);
        }
        // Not with the lock held: whoever answers has locks of its own.
        let Some(why) = why() else { return };
        let (status, message) = &mut *self.0.lock();
        if status.umsi() {
            status.set_overflow(true);
        } else {
            status.set_umsi(true);
            status.set_syndrome(why as u8);
            *message = Umsir::new().with_device_id(device_id).with_event_id(event_id);
        }
    }

    /// `GITS_STATUSR`.
    pub(super) fn status(&self) -> Statusr {
        self.0.lock().0
    }

    /// `GITS_UMSIR`.
    pub(super) fn message(&self) -> Umsir {
        self.0.lock().1
    }

    /// `GITS_STATUSR` was written: ones clear. The syndrome says nothing once `UMSI` is clear.
    pub(super) fn clear(&self, written: u32) {
        let (status, _) = &mut *self.0.lock();
        let keep = Statusr::new().with_syndrome(0xf).into_bits() | !written;
        *status = Statusr::from_bits(status.into_bits() & keep);
        if !status.umsi() {
            status.set_syndrome(0);
        }
    }
}
