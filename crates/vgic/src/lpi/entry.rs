//! The entry: one atomic value that holds a mapped event's translation and pending bit, or an LPI's
//! state at one redistributor.

use gic_arch::Lpi;

/// Width of an entry's LPI index, i.e. of the INTID minus 8192.
pub(super) const LPI_INDEX_BITS: u32 = 20;
/// LPI index of an entry that no event is mapped to. No LPI has it, because INTIDs have at most 20
/// bits.
pub(super) const NO_LPI: u32 = (1 << LPI_INDEX_BITS) - 1;
/// Width of an entry's generation.
pub(super) const GENERATION_BITS: u32 = 22;
/// The last generation. A chunk that has reached the last generation is never allocated again.
pub(super) const GENERATION_MAX: u32 = (1 << GENERATION_BITS) - 1;
/// Width of an entry's target.
pub(super) const TARGET_BITS: u32 = 9;
/// Number of priority levels that a configuration byte can express.
pub(super) const LEVELS: usize = 1 << LEVEL_BITS;

const LPI_SHIFT: u32 = GENERATION_BITS + 1;
const TARGET_SHIFT: u32 = LPI_SHIFT + LPI_INDEX_BITS;
const LEVEL_SHIFT: u32 = TARGET_SHIFT + TARGET_BITS;
const LEVEL_BITS: u32 = 6;
/// D, above the generation. A link to a block of entries has the same flag, which an entry needs to
/// admit a message.
pub(super) const DELIVERABLE: u64 = 1 << GENERATION_BITS;
/// D in a [compact](Entry::compact) entry, above its other flags.
const COMPACT_DELIVERABLE: u16 = 1 << 15;
const MAPPED: u64 = 1 << 58;
const HELD: u64 = 1 << 59;
const REVOKED: u64 = 1 << 60;
const LISTED: u64 = 1 << 61;
const ENABLED: u64 = 1 << 62;
const PENDING: u64 = 1 << 63;
/// Flags that determine whether an entry is ready, and their values in a ready entry.
const READINESS: u64 = PENDING | ENABLED | LISTED;
const READY: u64 = PENDING | ENABLED;

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Priority level: the six bits of an LPI's configured priority. 0 is the highest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Level(u8);

impl Level {
    /// Returns the level of a configured priority.
    pub(super) const fn of(configured: gic_arch::Priority) -> Self {
        Self(configured.get() >> (8 - LEVEL_BITS))
    }

    /// Creates a level from the low six bits of a number.
    pub(super) const fn new(number: u32) -> Self {
        Self(number.to_le_bytes()[0] & (LEVELS - 1).to_le_bytes()[0])
    }

    /// Returns the level as an index below [`LEVELS`].
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the configured priority.
    pub(super) const fn configured(self) -> gic_arch::Priority {
        gic_arch::Priority::new(self.0 << (8 - LEVEL_BITS))
    }
}

/// An entry's value. Its flags are P pending, E enabled, M mapped, D deliverable, H held, L listed
/// and R revoked. The entry also holds the priority level, the target vCPU, the LPI, and a
/// generation that identifies the owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry(u64);

/// Flags and target of an entry that is ready for a vCPU, computed once per vCPU.
#[derive(Clone, Copy)]
pub(super) struct ReadyFor(Entry);

impl ReadyFor {
    /// Creates the value for this vCPU.
    pub(super) const fn new(vcpu: u32) -> Self {
        Self(Entry(READY).with_target(vcpu))
    }

    /// Returns the vCPU.
    pub(super) const fn vcpu(self) -> u32 {
        self.0.target()
    }
}

impl Entry {
    /// Creates an unmapped entry with this generation, for [`NO_LPI`].
    pub(super) const fn unmapped(generation: u32) -> Self {
        Self(generation as u64 & mask(GENERATION_BITS)).with_lpi_index(NO_LPI)
    }

    /// Converts from an atomic's value.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Converts to an atomic's value.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// Returns only the level and the flags, for an entry whose position in its table implies the
    /// other fields.
    pub(super) const fn compact(self) -> u16 {
        let deliverable = if self.is_deliverable() { COMPACT_DELIVERABLE } else { 0 };
        (self.0 >> LEVEL_SHIFT) as u16 | deliverable
    }

    /// Rebuilds an entry from [`compact`](Self::compact) and the fields that its position implies.
    pub(super) const fn expanded(compact: u16, target: u32, lpi_index: u32) -> Self {
        Self((compact as u64) << LEVEL_SHIFT)
            .with_deliverable(compact & COMPACT_DELIVERABLE != 0)
            .with_target(target)
            .with_lpi_index(lpi_index)
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

    /// Returns `true` if P is set.
    pub(super) const fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// Returns `true` if E is set.
    pub(super) const fn is_enabled(self) -> bool {
        self.0 & ENABLED != 0
    }

    /// Returns `true` if M is set: the event and its collection are mapped.
    pub(super) const fn is_mapped(self) -> bool {
        self.0 & MAPPED != 0
    }

    /// Returns `true` if D is set: a message may set P.
    pub(super) const fn is_deliverable(self) -> bool {
        self.0 & DELIVERABLE != 0
    }

    /// Returns `true` if a message of the generation in the low bits of `expected` may set P: D is
    /// set, and the generations match. D must be set in `expected`.
    #[inline]
    pub(super) const fn admits(self, expected: u64) -> bool {
        (self.0 ^ expected) & (DELIVERABLE | mask(GENERATION_BITS)) == 0
    }

    /// Returns `true` if H is set: the LPI was pending while its target had LPIs disabled, and will
    /// become pending again when they are enabled.
    pub(super) const fn is_held(self) -> bool {
        self.0 & HELD != 0
    }

    /// Returns `true` if a vCPU may acknowledge the LPI. D doesn't matter: an LPI that is pending
    /// at a redistributor can still be delivered after its ITS was disabled or its collection
    /// unmapped. An LPI in a list register must be folded first.
    pub(super) const fn is_ready(self) -> bool {
        self.0 & READINESS == READY
    }

    /// Returns `true` if the entry [is ready](Self::is_ready) for this vCPU, at this level.
    #[inline]
    pub(super) const fn is_ready_at(self, vcpu: ReadyFor, level: Level) -> bool {
        const PLACE: u64 = mask(TARGET_BITS + LEVEL_BITS) << TARGET_SHIFT;
        let expected = vcpu.0.0 | (level.0 as u64) << LEVEL_SHIFT;
        (self.0 ^ expected) & (READINESS | PLACE) == 0
    }

    /// Returns `true` if L is set: the pending state was moved to a list register, and may return
    /// to the entry when the list register is folded.
    pub(super) const fn is_listed(self) -> bool {
        self.0 & LISTED != 0
    }

    /// Returns `true` if the LPI is pending in the entry, or may still be pending in a list
    /// register.
    pub(super) const fn is_pending_anywhere(self) -> bool {
        self.is_pending() || self.0 & (LISTED | REVOKED) == LISTED
    }

    /// Returns `true` if the LPI is pending only if the guest has not acknowledged it in its list
    /// register, which is unknown until the list register is folded.
    pub(super) const fn awaits_fold(self) -> bool {
        self.0 & (LISTED | REVOKED | PENDING) == LISTED
    }

    /// Returns `true` if the LPI [is pending anywhere](Self::is_pending_anywhere) or held.
    pub(super) const fn is_pending_or_held(self) -> bool {
        self.is_pending_anywhere() || self.is_held()
    }

    /// Returns the entry after its pending state was moved to a list register.
    pub(super) const fn listed(self) -> Self {
        self.with_pending(false).with_flag(LISTED, true)
    }

    /// Returns the entry after the LPI's list register was folded. `pending` is `true` if the LPI
    /// was still pending in the list register.
    pub(super) fn folded(self, pending: bool) -> Self {
        let brought = pending && self.0 & REVOKED == 0;
        self.with_pending(self.is_pending() || brought).with_flag(LISTED | REVOKED, false)
    }

    /// Returns the entry with P clear. If the LPI is in a list register, sets R so that folding
    /// doesn't restore P.
    pub(super) const fn cleared(self) -> Self {
        self.with_pending(false).with_flag(REVOKED, self.is_listed())
    }

    /// Returns the entry with neither pending nor held state.
    pub(super) const fn emptied(self) -> Self {
        self.cleared().with_held(false)
    }

    /// Returns the entry as it is while its redistributor's LPIs are disabled.
    pub(super) fn stopped(self) -> Self {
        self.cleared().with_deliverable(false)
    }

    /// Returns the entry for a new mapping that replaces this mapping in the same generation. If
    /// the LPI is in a list register, keeps L and sets R, so that folding doesn't make the new
    /// mapping pending.
    pub(super) const fn replaced_by(self, new: Self) -> Self {
        Self(new.0 | (self.0 & LISTED)).cleared()
    }

    /// Returns the priority level.
    pub(super) const fn level(self) -> Level {
        Level::new(self.field(LEVEL_SHIFT, LEVEL_BITS))
    }

    /// Returns the target vCPU.
    pub(super) const fn target(self) -> u32 {
        self.field(TARGET_SHIFT, TARGET_BITS)
    }

    /// Returns the LPI's index.
    pub(super) const fn lpi_index(self) -> u32 {
        self.field(LPI_SHIFT, LPI_INDEX_BITS)
    }

    /// Returns the LPI.
    pub(super) fn lpi(self) -> Lpi {
        Lpi::from_index(self.lpi_index()).unwrap_or(Lpi::FIRST)
    }

    /// Returns the generation.
    pub(super) const fn generation(self) -> u32 {
        self.field(0, GENERATION_BITS)
    }

    /// Returns the entry with P as given.
    pub(super) const fn with_pending(self, pending: bool) -> Self {
        self.with_flag(PENDING, pending)
    }

    /// Returns the entry with E as given.
    pub(super) const fn with_enabled(self, enabled: bool) -> Self {
        self.with_flag(ENABLED, enabled)
    }

    /// Returns the entry with M as given.
    pub(super) const fn with_mapped(self, mapped: bool) -> Self {
        self.with_flag(MAPPED, mapped)
    }

    /// Returns the entry with D as given.
    pub(super) const fn with_deliverable(self, deliverable: bool) -> Self {
        self.with_flag(DELIVERABLE, deliverable)
    }

    /// Returns the entry with H as given.
    pub(super) const fn with_held(self, held: bool) -> Self {
        self.with_flag(HELD, held)
    }

    /// Returns the entry with this priority level.
    pub(super) const fn with_level(self, level: Level) -> Self {
        self.with_field(LEVEL_SHIFT, LEVEL_BITS, level.0 as u32)
    }

    /// Returns the entry with this target.
    pub(super) const fn with_target(self, target: u32) -> Self {
        self.with_field(TARGET_SHIFT, TARGET_BITS, target)
    }

    /// Returns the entry with this LPI, by index.
    ///
    pub(super) const fn with_lpi_index(self, index: u32) -> Self {
        self.with_field(LPI_SHIFT, LPI_INDEX_BITS, index)
    }
}
