//! `GITS_STATUSR` and `GITS_UMSIR` (GICv3.1): what the guest is told of wrong accesses and of messages that nothing is
//! mapped for, where the ITS is configured so. Lock-free: devices' messages are reported from their threads.

use crate::atomic::{AtomicU64, Ordering::SeqCst};
use crate::events::FaultReason;
use crate::lpi::Unmapped;
use crate::safeguard::Safeguard;
use gic_arch::gits::{Statusr, Umsir};

/// Which way an access goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    Read,
    Write,
}

/// The registers.
///
/// A message that is to be reported claims the report, writes `GITS_UMSIR`, and only then sets `UMSI`. So whoever sees
/// `UMSI` sees its message; no other writes there until `UMSI` was cleared.
pub(super) struct Status {
    /// `GITS_STATUSR`, and [`CLAIMED`].
    bits: AtomicU64,
    message: AtomicU64,
}

/// Somebody is about to report a message.
const CLAIMED: u64 = 1 << 32;
const UMSI: u64 = bits(Statusr::new().with_umsi(true));
const OVERFLOW: u64 = bits(Statusr::new().with_overflow(true));
const SYNDROME: u64 = bits(Statusr::new().with_syndrome(0xf));

const fn bits(status: Statusr) -> u64 {
    status.into_bits() as u64
}

/// Can the registers be so? The syndrome and the message are those of `UMSI`.
pub(super) fn is_possible(status: Statusr, message: Umsir) -> bool {
    let fields = Statusr::new()
        .with_rrd(true)
        .with_wrd(true)
        .with_rwod(true)
        .with_wrod(true)
        .with_umsi(true)
        .with_overflow(true)
        .with_syndrome(0xf)
        .into_bits();
    let reported = if status.umsi() {
        matches!(status.syndrome(), 2..=5 | 7)
    } else {
        status.syndrome() == 0 && message == Umsir::new()
    };
    reported && status.into_bits() & !fields == 0
}

/// `GITS_STATUSR.Syndrome`.
const fn syndrome(lacks: Unmapped) -> u8 {
    match lacks {
        Unmapped::DeviceOutOfRange => 2,
        Unmapped::Device => 3,
        Unmapped::EventOutOfRange => 4,
        Unmapped::Event => 5,
        Unmapped::Collection => 7,
    }
}

impl Status {
    pub(super) const fn new() -> Self {
        Self { bits: AtomicU64::new(0), message: AtomicU64::new(0) }
    }

    /// A message that is about to be reported comes after the reset.
    pub(super) fn reset(&self) {
        self.bits.fetch_and(CLAIMED, SeqCst);
    }

    /// An access was refused. Widths that a register does not take have no bit.
    pub(super) fn refused(&self, reason: FaultReason, direction: Direction) {
        let refused = match (reason, direction) {
            (FaultReason::UnknownRegister, Direction::Read) => Statusr::new().with_rrd(true),
            (FaultReason::UnknownRegister, Direction::Write) => Statusr::new().with_wrd(true),
            (FaultReason::AccessDirection, Direction::Read) => Statusr::new().with_rwod(true),
            (FaultReason::AccessDirection, Direction::Write) => Statusr::new().with_wrod(true),
            _ => return,
        };
        self.bits.fetch_or(bits(refused), SeqCst);
    }

    /// A message was dropped. The first one is kept until the guest clears `UMSI`.
    pub(super) fn unmapped(&self, device_id: u32, event_id: u32, lacks: Unmapped) {
        let message = Umsir::new().with_device_id(device_id).with_event_id(event_id);
        self.report(syndrome(lacks), message);
    }

    fn report(&self, syndrome: u8, message: Umsir) {
        let report = UMSI | bits(Statusr::new().with_syndrome(syndrome));
        let claim = if Safeguard::ClaimReport.stands() { CLAIMED } else { report };
        let before = self.update(|now| now | if now & (CLAIMED | UMSI) == 0 { claim } else { OVERFLOW });
        if before & (CLAIMED | UMSI) == 0 {
            self.message.store(message.into_bits(), SeqCst);
            self.update(|now| (now & !CLAIMED) | report);
        }
    }

    /// `GITS_STATUSR` was written: ones clear. The syndrome says nothing once `UMSI` is clear.
    pub(super) fn clear(&self, written: u32) {
        self.update(|now| {
            let left = now & (SYNDROME | CLAIMED | !u64::from(written));
            if left & UMSI == 0 { left & !SYNDROME } else { left }
        });
    }

    /// What was reported where the machine was saved. A message that is being reported meanwhile counts as one that came
    /// earlier.
    pub(super) fn restore(&self, (status, message): (Statusr, Umsir)) {
        self.reset();
        self.bits.fetch_or(bits(status) & !(UMSI | SYNDROME), SeqCst);
        if status.umsi() {
            self.report(status.syndrome(), message);
        }
    }

    fn update(&self, change: impl Fn(u64) -> u64) -> u64 {
        let mut old = self.bits.load(SeqCst);
        loop {
            match self.bits.compare_exchange(old, change(old), SeqCst, SeqCst) {
                Ok(_) => return old,
                Err(seen) => old = seen,
            }
        }
    }

    /// `GITS_STATUSR`. Messages overflow once the first one is reported.
    pub(super) fn status(&self) -> Statusr {
        let bits = self.bits.load(SeqCst);
        let bits = if bits & CLAIMED == 0 { bits } else { bits & !OVERFLOW };
        #[expect(clippy::cast_possible_truncation, reason = "the register is the low half")]
        let status = Statusr::from_bits(bits as u32);
        status
    }

    /// Both, while nobody clears them.
    pub(super) fn saved(&self) -> (Statusr, Umsir) {
        let status = self.status();
        (status, if status.umsi() { self.message() } else { Umsir::new() })
    }

    /// `GITS_UMSIR`; zero while `UMSI` is clear.
    pub(super) fn message(&self) -> Umsir {
        let reported = self.bits.load(SeqCst) & UMSI != 0;
        if reported { Umsir::from_bits(self.message.load(SeqCst)) } else { Umsir::new() }
    }
}
