//! How big an LPI core may get.

use super::directory::CHUNK_SLOTS;
use super::word::{LPI_INDEX_BITS, TARGET_BITS};
use gic_arch::{Priority, lpi};

/// Most INTID bits: 2^20 − 8192 LPIs.
pub(crate) const MAX_ID_BITS: u8 = 20;
/// Most event bits of a device.
pub(crate) const MAX_EVENT_BITS: u8 = {
    #[expect(clippy::cast_possible_truncation, reason = "23")]
    let bits = super::directory::MAX_EVENT_BITS as u8;
    bits
};
/// Most slots that can be configured.
const MAX_SLOTS: u32 = 1 << 22;

/// What an LPI's configured priority means to the hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PriorityView {
    /// One security state: the priority itself.
    Unshifted,
    /// Two security states: LPIs are Non-secure, in the lower half of the range.
    NonSecure,
}

impl PriorityView {
    pub(super) const fn hardware(self, configured: Priority) -> Priority {
        match self {
            Self::Unshifted => configured,
            Self::NonSecure => Priority::from_non_secure_view(configured.get()),
        }
    }
}

/// The size of an LPI core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LpiConfig {
    /// Number of vCPUs, at most 1024.
    pub(crate) vcpus: u16,
    /// The budget of slots: about one per mapped event, counted in powers of two up to 32 per device and in 32s
    /// beyond. At most 2^22; memory comes with use: 8 bytes and a few bits a slot.
    pub(crate) slots: u32,
    /// The budget of mapped devices, of all ITSes each.
    pub(crate) devices: u32,
    /// INTID bits of the distributor: 14 to [`MAX_ID_BITS`].
    pub(crate) id_bits: u8,
    /// What priorities mean.
    pub(crate) priority_view: PriorityView,
    /// Are there `GICR_SETLPIR` and `GICR_CLRLPIR`?
    pub(crate) direct: bool,
}

impl LpiConfig {
    /// A machine of this many vCPUs: 2^17 slots, 2^16 devices, 16 INTID bits, one security state.
    pub(crate) const fn new(vcpus: u16) -> Self {
        let priority_view = PriorityView::Unshifted;
        Self { vcpus, slots: 1 << 17, devices: 1 << 16, id_bits: 16, priority_view, direct: false }
    }

    pub(super) const fn bounded(self) -> Self {
        Self {
            vcpus: if self.vcpus > 1 << TARGET_BITS { 1 << TARGET_BITS } else { self.vcpus },
            slots: if self.slots > MAX_SLOTS { MAX_SLOTS } else { self.slots.next_multiple_of(CHUNK_SLOTS) },
            id_bits: if self.id_bits > MAX_ID_BITS { MAX_ID_BITS } else { self.id_bits },
            ..self
        }
    }

    pub(super) const fn chunks(self) -> u32 {
        self.slots / CHUNK_SLOTS
    }

    /// How many chunks redistributors can hold by themselves: half of the slots are the devices', whatever a pending
    /// table says.
    pub(super) const fn own_chunks(self) -> u32 {
        self.chunks().div_ceil(2)
    }

    /// How many redistributors can be rung.
    pub(super) const fn doorbells(self) -> u16 {
        if self.direct { self.vcpus } else { 0 }
    }

    /// Every chunk can hang under a node of its own, and these under others.
    pub(super) const fn nodes(self) -> u32 {
        2 * self.chunks() + self.vcpus as u32
    }
}

const _: () = assert!(MAX_ID_BITS as u32 <= LPI_INDEX_BITS && MAX_ID_BITS > lpi::MIN_ID_BITS);
