//! Size limits of an LPI core, and the mapping of configured priorities to levels.

use super::entry::{LPI_INDEX_BITS, Level, TARGET_BITS};
use super::itt::CHUNK_ENTRIES;
use super::ready_bitmap::{ENTRIES_PER_SUMMARY, MAX_POSITIONS};
use gic_arch::{Priority, lpi};

/// Most INTID bits: 2^20 − 8192 LPIs.
pub(crate) const MAX_ID_BITS: u8 = 20;
/// Most event bits of a device.
pub(crate) const MAX_EVENT_BITS: u8 = {
    #[expect(clippy::cast_possible_truncation, reason = "23")]
    let bits = super::itt::MAX_EVENT_BITS as u8;
    bits
};
/// Most entries that can be configured.
const MAX_ENTRIES: u32 = 1 << 22;
const _: () = assert!(MAX_ENTRIES + (1 << MAX_ID_BITS) <= MAX_POSITIONS, "each has ready bits");

/// The part of the CPU interface's range that configured priorities of LPIs are in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PriorityView {
    /// One security state: the priority itself.
    Unshifted,
    /// Two security states: LPIs are Non-secure, in the lower half of the range.
    NonSecure,
}

/// The meaning of an LPI's configured priority to the CPU interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Priorities {
    /// The part of the range.
    pub(crate) view: PriorityView,
    /// Number of bits that count: 4 to 8.
    pub(crate) bits: u8,
}

impl Priorities {
    /// The level of a configured priority: bits that do not count make no levels, which would take
    /// memory.
    pub(super) const fn level(self, configured: Priority) -> Level {
        let bits = match self.view {
            PriorityView::Unshifted => self.bits,
            PriorityView::NonSecure => self.bits.saturating_sub(1),
        };
        Level::of(configured.truncated(bits as u32))
    }

    /// The priority of a level, as the CPU interface sees it.
    pub(super) const fn of(self, level: Level) -> Priority {
        match self.view {
            PriorityView::Unshifted => level.configured(),
            PriorityView::NonSecure => Priority::from_non_secure_view(level.configured().get()),
        }
    }

    /// The levels before this number are more urgent than this priority of the CPU interface's.
    pub(super) fn levels_before(self, than: Priority) -> u32 {
        let than = u32::from(than.get());
        match self.view {
            PriorityView::Unshifted => than.div_ceil(4),
            PriorityView::NonSecure => than.saturating_sub(0x80).div_ceil(2),
        }
    }
}

/// The size of an LPI core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LpiConfig {
    /// Number of vCPUs, at most 512.
    pub(crate) vcpus: u16,
    /// The budget of entries: about one per mapped event, counted in powers of two up to 32 per
    /// device and in 32s beyond. At most 2^22; memory comes with use: 8 bytes and a few bits a
    /// entry.
    pub(crate) entries: u32,
    /// The budget of mapped devices, of all ITSes each.
    pub(crate) devices: u32,
    /// INTID bits of the distributor: 14 to [`MAX_ID_BITS`].
    pub(crate) id_bits: u8,
    /// The meaning of priorities.
    pub(crate) priorities: Priorities,
    /// Are there `GICR_SETLPIR` and `GICR_CLRLPIR`?
    pub(crate) direct: bool,
    /// Units of work at one access to a redistributor's register.
    pub(crate) work_per_access: u32,
}

impl LpiConfig {
    /// A machine of this many vCPUs: 2^17 entries, 2^16 devices, 16 INTID bits, one security state,
    /// five priority bits.
    pub(crate) const fn new(vcpus: u16) -> Self {
        let priorities = Priorities { view: PriorityView::Unshifted, bits: 5 };
        Self {
            vcpus,
            entries: 1 << 17,
            devices: 1 << 16,
            id_bits: 16,
            priorities,
            direct: false,
            work_per_access: 1024,
        }
    }

    pub(super) const fn bounded(self) -> Self {
        Self {
            vcpus: if self.vcpus > 1 << TARGET_BITS { 1 << TARGET_BITS } else { self.vcpus },
            entries: if self.entries > MAX_ENTRIES {
                MAX_ENTRIES
            } else {
                self.entries.next_multiple_of(CHUNK_ENTRIES)
            },
            id_bits: if self.id_bits > MAX_ID_BITS { MAX_ID_BITS } else { self.id_bits },
            ..self
        }
    }

    pub(super) const fn chunks(self) -> u32 {
        self.entries / CHUNK_ENTRIES
    }

    /// Number of the distributor's LPIs.
    pub(super) const fn lpis(self) -> u32 {
        (1u32 << self.id_bits).saturating_sub(gic_arch::Lpi::FIRST.get())
    }

    /// The first position that is no entry's.
    pub(super) const fn first_own_position(self) -> u32 {
        self.entries.next_multiple_of(ENTRIES_PER_SUMMARY)
    }

    /// Every chunk can hang under a node of its own, and these under others.
    pub(super) const fn nodes(self) -> u32 {
        2 * self.chunks()
    }
}

const _: () = assert!(MAX_ID_BITS as u32 <= LPI_INDEX_BITS && MAX_ID_BITS > lpi::MIN_ID_BITS);

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    fn all() -> impl Iterator<Item = Priorities> {
        let views = [PriorityView::Unshifted, PriorityView::NonSecure];
        views.into_iter().flat_map(|view| (4..=8).map(move |bits| Priorities { view, bits }))
    }

    fn bytes() -> impl Iterator<Item = Priority> {
        (0..=u8::MAX).map(Priority::new)
    }

    #[test]
    fn the_levels_before_a_priority_are_those_that_are_more_urgent() {
        for (priorities, than) in
            all().flat_map(|priorities| bytes().map(move |than| (priorities, than)))
        {
            for level in bytes().map(|configured| priorities.level(configured)) {
                let before = level.index() < priorities.levels_before(than) as usize;
                assert_eq!(
                    before,
                    priorities.of(level).is_more_urgent_than(than),
                    "{priorities:?} {than:?}"
                );
            }
        }
    }

    #[test]
    fn bits_that_count_make_levels_and_others_do_not() {
        for priorities in all() {
            let levels: BTreeSet<_> =
                bytes().map(|configured| priorities.level(configured).index()).collect();
            let bits = match priorities.view {
                PriorityView::Unshifted => priorities.bits.min(6),
                PriorityView::NonSecure => (priorities.bits - 1).min(6),
            };
            assert_eq!(levels.len(), 1 << bits, "{priorities:?}");
        }
    }
}
