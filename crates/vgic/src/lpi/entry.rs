//! The entry: one mapped event's translation and its pending bit, in one atomic value; or an LPI's
//! state at one redistributor.

use gic_arch::Lpi;

/// Bits of an entry's LPI index: INTIDs reach up to 8192 + 2^20 − 1.
pub(super) const LPI_INDEX_BITS: u32 = 20;
/// Bits of an entry's generation.
pub(super) const GENERATION_BITS: u32 = 22;
/// The last generation; a chunk that reached it takes no more owners.
pub(super) const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;
/// Bits of an entry's target.
pub(super) const TARGET_BITS: u32 = 9;
/// Priority levels: as many as a configuration byte can say.
pub(super) const LEVELS: usize = 1 << LEVEL_BITS;

const LPI_SHIFT: u32 = GENERATION_BITS;
const TARGET_SHIFT: u32 = LPI_SHIFT + LPI_INDEX_BITS;
const LEVEL_SHIFT: u32 = TARGET_SHIFT + TARGET_BITS;
const LEVEL_BITS: u32 = 6;
const MAPPED: u64 = 1 << 57;
const DELIVERABLE: u64 = 1 << 58;
const HELD: u64 = 1 << 59;
const REVOKED: u64 = 1 << 60;
const LISTED: u64 = 1 << 61;
const ENABLED: u64 = 1 << 62;
const PENDING: u64 = 1 << 63;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// A priority level: the six bits of an LPI's configured priority; 0 is the most urgent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Level(u8);

impl Level {
    /// The level of a configured priority.
    pub(super) const fn of(configured: gic_arch::Priority) -> Self {
        Self(configured.get() >> (8 - LEVEL_BITS))
    }

    /// From a number; bits above the sixth are dropped.
    pub(super) const fn new(number: u32) -> Self {
        Self(number.to_le_bytes()[0] & (LEVELS - 1).to_le_bytes()[0])
    }

    /// As an index below [`LEVELS`].
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// The priority that is configured.
    pub(super) const fn configured(self) -> gic_arch::Priority {
        gic_arch::Priority::new(self.0 << (8 - LEVEL_BITS))
    }
}

/// An entry: P pending, E enabled, M mapped, D deliverable, H held, L listed and R revoked. It also
/// has the priority level, target vCPU, LPI, and the generation that it has while its owner owns
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry(u64);

impl Entry {
    /// An entry of this generation that maps nothing.
    pub(super) const fn unmapped(generation: u32) -> Self {
        Self(generation as u64 & mask(GENERATION_BITS))
    }

    /// From an atomic's value.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For an atomic.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// Level and flags alone: what an entry holds whose place says the rest.
    pub(super) const fn compact(self) -> u16 {
        (self.0 >> LEVEL_SHIFT) as u16
    }

    /// From [`compact`](Self::compact) and what the place says.
    pub(super) const fn expanded(compact: u16, target: u32, lpi_index: u32) -> Self {
        Self((compact as u64) << LEVEL_SHIFT).with_target(target).with_lpi_index(lpi_index)
    }

    const fn field(self, shift: u32, bits: u32) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "every field has at most 22 bits")]
        let value = ((self.0 >> shift) & mask(bits)) as u32;
        value
    }

    const fn with_field(self, shift: u32, bits: u32, value: u32) -> Self {
        Self((self.0 & !(mask(bits) << shift)) | ((value as u64 & mask(bits)) << shift))
    }

    const fn with_flag(self, flag: u64, on: bool) -> Self {
        Self(if on { self.0 | flag } else { self.0 & !flag })
    }

    /// P.
    pub(super) const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// E.
    pub(super) const fn is_enabled(self) -> bool {
        self.0 & ENABLED != 0
    }

    /// M: are the event and its collection mapped?
    pub(super) const fn is_mapped(self) -> bool {
        self.0 & MAPPED != 0
    }

    /// D: may a message set P?
    pub(super) const fn is_deliverable(self) -> bool {
        self.0 & DELIVERABLE != 0
    }

    /// May a message of this generation set P? D is set, and the generation the same.
    #[inline]
    pub(super) const fn admits(self, generation: u32) -> bool {
        let expected = DELIVERABLE | generation as u64;
        (self.0 ^ expected) & (DELIVERABLE | mask(GENERATION_BITS)) == 0
    }

    /// H: it was pending when its target had LPIs disabled, and becomes pending there when they are
    /// enabled.
    pub(super) const fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// May a vCPU acknowledge it? D is not asked for: what is pending at a redistributor stays
    /// deliverable there when its ITS is disabled or its collection unmapped. What is in a list
    /// register waits until that was folded.
    pub(super) const fn is_ready(self) -> bool {
        self.0 & (PENDING | ENABLED | LISTED) == PENDING | ENABLED
    }

    /// L: a list register took what was pending, and may bring it back.
    pub(super) const fn is_listed(self) -> bool {
        self.0 & LISTED != 0
    }

    /// Is something pending, here or (for all that is known) in a list register?
    pub(super) const fn is_pending_anywhere(self) -> bool {
        self.is_pending() || self.0 & (LISTED | REVOKED) == LISTED
    }

    /// As [`is_pending_anywhere`](Self::is_pending_anywhere), or held.
    pub(super) const fn is_pending_or_held(self) -> bool {
        self.is_pending_anywhere() || self.is_held()
    }

    /// Taken into a list register.
    pub(super) const fn listed(self) -> Self {
        self.with_pending(false).with_flag(LISTED, true)
    }

    /// Back from a list register, where it may still be pending.
    pub(super) fn folded(self, pending: bool) -> Self {
        let brought = pending && self.0 & REVOKED == 0;
        self.with_pending(self.is_pending() || brought).with_flag(LISTED | REVOKED, false)
    }

    /// With P clear: what a list register brings back does not count.
    pub(super) const fn cleared(self) -> Self {
        self.with_pending(false).with_flag(REVOKED, self.is_listed())
    }

    /// With nothing pending, and nothing held.
    pub(super) const fn emptied(self) -> Self {
        self.cleared().with_held(false)
    }

    /// Of a redistributor whose LPIs are disabled.
    pub(super) fn stopped(self) -> Self {
        self.cleared().with_deliverable(false)
    }

    /// A new mapping of the same generation: a list register's stay is remembered, and what it
    /// brings back does not count.
    pub(super) const fn replaced_by(self, new: Self) -> Self {
        Self(new.0 | (self.0 & LISTED)).cleared()
    }

    /// Priority level.
    pub(super) const fn level(self) -> Level {
        Level::new(self.field(LEVEL_SHIFT, LEVEL_BITS))
    }

    /// Target vCPU.
    pub(super) const fn target(self) -> u32 {
        self.field(TARGET_SHIFT, TARGET_BITS)
    }

    /// Index of the LPI.
    pub(super) const fn lpi_index(self) -> u32 {
        self.field(LPI_SHIFT, LPI_INDEX_BITS)
    }

    /// The LPI.
    pub(super) fn lpi(self) -> Lpi {
        Lpi::from_index(self.lpi_index()).unwrap_or(Lpi::FIRST)
    }

    /// Generation.
    pub(super) const fn generation(self) -> u32 {
        self.field(0, GENERATION_BITS)
    }

    /// With P as given.
    pub(super) const fn with_pending(self, pending: bool) -> Self {
        self.with_flag(PENDING, pending)
    }

    /// With E as given.
    pub(super) const fn with_enabled(self, enabled: bool) -> Self {
        self.with_flag(ENABLED, enabled)
    }

    /// With M as given.
    pub(super) const fn with_mapped(self, mapped: bool) -> Self {
        self.with_flag(MAPPED, mapped)
    }

    /// With D as given.
    pub(super) const fn with_deliverable(self, deliverable: bool) -> Self {
        self.with_flag(DELIVERABLE, deliverable)
    }

    /// With H as given.
    pub(super) const fn with_held(self, held: bool) -> Self {
        self.with_flag(HELD, held)
    }

    /// With this priority level.
    pub(super) const fn with_level(self, level: Level) -> Self {
        self.with_field(LEVEL_SHIFT, LEVEL_BITS, level.0 as u32)
    }

    /// With this target.
    pub(super) const fn with_target(self, target: u32) -> Self {
        self.with_field(TARGET_SHIFT, TARGET_BITS, target)
    }

    /// With this LPI, by index.
    pub(super) const fn with_lpi_index(self, index: u32) -> Self {
        self.with_field(LPI_SHIFT, LPI_INDEX_BITS, index)
    }
}
