//! Size limits for an LPI core, and the mapping from configured priorities to levels.

use super::entry::{LPI_INDEX_BITS, Level, TARGET_BITS};
use super::entry_table::SPREAD_ENTRIES;
use super::itt::CHUNK_ENTRIES;
use super::ready_bitmap::{ENTRIES_PER_SUMMARY, MAX_POSITIONS};
use gic_arch::{Priority, lpi};

/// Maximum number of INTID bits, which permits 2^20 − 8192 LPIs.
pub(crate) const MAX_ID_BITS: u8 = 20;
/// Maximum number of event bits per device.
pub(crate) const MAX_EVENT_BITS: u8 = {
    #[expect(clippy::cast_possible_truncation, reason = "the value is 23")]
    let bits = super::itt::MAX_EVENT_BITS as u8;
    bits
};
/// Maximum number of entries that can be configured.
const MAX_ENTRIES: u32 = 1 << 22;
const _: () = assert!(MAX_ENTRIES + (1 << MAX_ID_BITS) <= MAX_POSITIONS, "all need ready bits");

/// Part of the CPU interface's priority range that the LPIs' configured priorities occupy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PriorityView {
    /// One security state: the CPU interface uses the configured priority unchanged.
    Unshifted = 0,
    /// Two security states: LPIs are Non-secure, so their priorities are in the lower half of the
    /// range.
    NonSecure = 1,
}

/// Mapping from LPIs' configured priorities to CPU interface priorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Priorities {
    /// Part of the priority range that the configured priorities occupy.
    pub(crate) view: PriorityView,
    /// Number of implemented priority bits: 4 to 8.
    pub(crate) bits: u8,
}

impl Priorities {
    /// Returns the level of a configured priority. Discards unimplemented priority bits, because
    /// each additional level would need memory.
    pub(super) const fn level(self, configured: Priority) -> Level {
        let bits = match self.view {
            PriorityView::Unshifted => self.bits,
            PriorityView::NonSecure => self.bits.saturating_sub(1),
        };
        Level::of(configured.truncated(bits as u32))
    }

    /// Returns the priority of a level, as the CPU interface sees it.
    pub(super) const fn of(self, level: Level) -> Priority {
        // [`Priority::from_non_secure_view`] without a branch, which would take more instructions
        // for each interrupt.
        let halves = self.view as u8;
        Priority::new(level.configured().get() >> halves | halves << 7)
    }

    /// Returns the number of levels that have higher priority than this CPU interface priority.
    pub(super) fn levels_before(self, than: Priority) -> u32 {
        let than = u32::from(than.get());
        // Rounds up. `div_ceil` would compute the remainder as well.
        match self.view {
            PriorityView::Unshifted => (than + 3) >> 2,
            PriorityView::NonSecure => (than.saturating_sub(0x80) + 1) >> 1,
        }
    }
}

/// Limits and options for an LPI core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LpiConfig {
    /// Number of vCPUs, at most 512.
    pub(crate) vcpus: u16,
    /// Entry budget, at most 2^22. Each mapped event needs about one entry: a device's entries are
    /// allocated in powers of two up to 64, and in blocks of 64 beyond that. Memory is allocated on
    /// first use: 8 bytes and a few bits per entry, and up to 512 KiB more than that while the
    /// first 65,536 entries are spread over [pages](super::entry_table::Position).
    pub(crate) entries: u32,
    /// Budget for mapped devices, per ITS.
    pub(crate) devices: u32,
    /// Number of INTID bits at the distributor: 14 to [`MAX_ID_BITS`].
    pub(crate) id_bits: u8,
    /// Priority mapping.
    pub(crate) priorities: Priorities,
    /// `true` if `GICR_SETLPIR` and `GICR_CLRLPIR` exist.
    pub(crate) direct: bool,
    /// Maximum units of work per access to a redistributor register.
    pub(crate) work_per_access: u32,
}

impl LpiConfig {
    /// Returns the configuration for a machine with this many vCPUs: 2^17 entries, 2^16 devices, 16
    /// INTID bits, one security state and five priority bits.
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

    /// Returns the number of LPIs that the distributor implements.
    pub(super) const fn lpis(self) -> u32 {
        (1u32 << self.id_bits).saturating_sub(gic_arch::Lpi::FIRST.get())
    }

    /// Returns the first position after the entries of events, a multiple of
    /// [`ENTRIES_PER_SUMMARY`].
    pub(super) const fn first_own_position(self) -> u32 {
        let entries = self.entries.next_multiple_of(ENTRIES_PER_SUMMARY);
        if entries > SPREAD_ENTRIES { entries } else { SPREAD_ENTRIES }
    }

    /// Returns the maximum number of ITT nodes. Every chunk of entries may need a parent node, and
    /// these nodes need parents of their own.
    ///
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
    fn levels_before_a_priority_are_exactly_the_more_urgent_ones() {
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
    fn only_implemented_priority_bits_distinguish_levels() {
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
