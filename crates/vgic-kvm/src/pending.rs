//! LPI pending bits in guest memory, which a save writes (`KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES`)
//! and a restore transfers into a state.

use crate::abi::Errno;
use crate::left_out::{TableMemory, add};
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::gicr::{Ctlr, Pendbaser, Propbaser};
use gic_arch::{Affinity, IntId, Lpi, lpi};
use vgic::GuestMemory;
use vgic::saved_state::{CollectionState, EventState, RedistributorState, SavedState};

/// A bit in a pending table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Bit {
    address: u64,
    bit: u8,
}

impl Bit {
    /// Locates an LPI's bit in a redistributor's pending table. Returns `None` if `intid` is not an
    /// LPI, if the table is too small for it (`GICR_PROPBASER.IDbits`), or if the table does not
    /// exist because LPIs are disabled and `GICR_PENDBASER` was never written.
    pub(super) fn of(redistributor: &RedistributorState, intid: IntId) -> Option<Self> {
        let lpi = Lpi::try_from(intid).ok()?;
        let table = Pendbaser::from(redistributor.pendbaser).address();
        let exists = has_enabled_lpis(redistributor) || table != 0;
        let id_bits = Propbaser::from(redistributor.propbaser).id_bits();
        let reaches = u64::from(lpi.get()) >> id_bits == 0;
        let (offset, bit) = lpi::pending_location(lpi);
        (exists && reaches).then(|| Self { address: table + offset, bit })
    }

    /// Returns `true` if the bit is set. If the bit is outside memory, it reads as clear and is
    /// counted.
    pub(super) fn read(self, memory: &mut TableMemory<'_>) -> bool {
        let byte = self.byte(memory);
        add(&mut memory.left_out.pending_bits, usize::from(byte.is_err()));
        byte.is_ok_and(|byte| byte & self.mask() != 0)
    }

    /// Writes the bit. Skips the write if the byte wouldn't change, because a migration has to
    /// resend every page that is written. A table outside memory is the guest's fault and must not
    /// prevent its migration, so the bit is only counted.
    fn write(self, memory: &mut TableMemory<'_>, set: bool) {
        let written = self.byte(memory).and_then(|byte| {
            let wanted = if set { byte | self.mask() } else { byte & !self.mask() };
            if wanted == byte { Ok(()) } else { memory.write(self.address, &[wanted]) }
        });
        add(&mut memory.left_out.pending_bits, usize::from(written.is_err()));
    }

    /// Returns `true` if the bit is set, or `None` if it is outside memory.
    pub(super) fn peek(self, memory: &dyn GuestMemory) -> Option<bool> {
        let mut byte = [0];
        memory.read(self.address, &mut byte).ok()?;
        Some(byte[0] & self.mask() != 0)
    }

    fn byte(self, memory: &mut TableMemory<'_>) -> Result<u8, Errno> {
        let mut byte = [0];
        memory.read(self.address, &mut byte)?;
        Ok(byte[0])
    }

    const fn mask(self) -> u8 {
        1 << self.bit
    }
}

fn has_enabled_lpis(redistributor: &RedistributorState) -> bool {
    Ctlr::from(redistributor.ctlr).enable_lpis()
}

/// Writes the bits of all LPIs that have events mapped to them.
pub(super) fn save(
    state: &SavedState,
    memory: &mut TableMemory<'_>,
) -> Result<(), TryReserveError> {
    for SavedBit { bit, pending, .. } in bits(state)?.into_iter().filter(|saved| !saved.is_kept) {
        match bit {
            Some(bit) => bit.write(memory, pending),
            None => add(&mut memory.left_out.pending_bits, usize::from(pending)),
        }
    }
    Ok(())
}

/// Returns the bits in memory with the values that they must have after a save: those whose values
/// are kept, for which this must be called before the save, or those that the save writes.
pub(super) fn expected(
    state: &SavedState,
    memory: &dyn GuestMemory,
    are_kept: bool,
) -> Result<Vec<(Bit, bool)>, TryReserveError> {
    let bits = bits(state)?.into_iter().filter(|saved| saved.is_kept == are_kept);
    try_collect(bits.filter_map(|SavedBit { bit, pending, is_kept }| {
        let before = bit?.peek(memory)?;
        Some((bit?, if is_kept { before } else { pending }))
    }))
}

/// Bit of an LPI that has events mapped to it.
struct SavedBit {
    /// `None` if the LPI has no bit.
    bit: Option<Bit>,
    pending: bool,
    /// `true` if a save doesn't write the bit.
    is_kept: bool,
}

/// Returns the bits of all LPIs that have events mapped to them.
///
/// While LPIs are disabled, bits are set but never cleared. The state doesn't contain the LPIs that
/// were pending when the guest disabled LPIs: the redistributor wrote them to the guest's table,
/// and reads them when LPIs are enabled again (IHI 0069, `GICR_CTLR.EnableLPIs`).
fn bits(state: &SavedState) -> Result<Vec<SavedBit>, TryReserveError> {
    let mut bits =
        try_collect(events(state).map(|(cpu, event)| (cpu, event.intid, event.pending)))?;
    // Sort pending events before other events of the same LPI, so that deduplication keeps the
    // pending event.
    bits.sort_unstable_by_key(|(cpu, intid, pending)| (*cpu, *intid, !pending));
    bits.dedup_by_key(|(cpu, intid, _)| (*cpu, *intid));
    try_collect(bits.into_iter().map(|(cpu, intid, pending)| {
        let cpu = state.cpus.iter().find(|of| of.affinity == cpu).map(|of| &of.redistributor);
        SavedBit {
            bit: cpu.and_then(|of| Bit::of(of, intid)),
            pending,
            is_kept: !pending && !cpu.is_some_and(has_enabled_lpis),
        }
    }))
}

/// Clears pending bits in guest memory that were transferred into a state.
pub(super) fn clear(bits: &[Bit], memory: &mut TableMemory<'_>) {
    for bit in bits {
        bit.write(memory, false);
    }
}

/// Converts pending LPIs to KVM's representation, in which each pending LPI belongs to an event of
/// a mapped collection.
///
/// If an LPI is pending at a redistributor without an event, one of the events that map to the LPI
/// becomes pending, preferably an event with the same target CPU. KVM can't represent pending state
/// for an LPI without events, or for an event whose collection is unmapped. In the latter case, the
/// behavior is UNPREDICTABLE (IHI 0069, MAPC).
pub(super) fn hand_over(state: &mut SavedState) -> Result<(), TryReserveError> {
    let by_themselves = state.cpus.iter().flat_map(|cpu| {
        cpu.redistributor
            .lpis
            .iter()
            .map(|lpi| ByItself { lpi: (lpi.intid, cpu.affinity), is_left: true })
    });
    let mut all = try_collect(by_themselves)?;
    all.sort_unstable_by_key(|own| own.lpi);
    state.cpus.iter_mut().for_each(|cpu| cpu.redistributor.lpis.clear());
    forget_unmapped(state);
    if all.is_empty() {
        return Ok(());
    }
    each_event(state, |cpu, event| {
        if let Ok(at) = all.binary_search_by_key(&(event.intid, cpu), |own| own.lpi) {
            event.pending |= core::mem::take(&mut all[at].is_left);
        }
    });
    all.retain(|own| own.is_left);
    all.dedup_by_key(|own| own.lpi.0);
    each_event(state, |_, event| {
        if let Ok(at) = all.binary_search_by_key(&event.intid, |own| own.lpi.0) {
            event.pending |= core::mem::take(&mut all[at].is_left);
        }
    });
    Ok(())
}

/// LPI that is pending at a redistributor without an event.
struct ByItself {
    lpi: (IntId, Affinity),
    /// `true` if no event has received the pending state yet.
    is_left: bool,
}

fn forget_unmapped(state: &mut SavedState) {
    for its in &mut state.its {
        for event in its.devices.iter_mut().flat_map(|device| &mut device.events) {
            event.pending &= target(&its.collections, event).is_some();
        }
    }
}

fn each_event(state: &mut SavedState, mut change: impl FnMut(Affinity, &mut EventState)) {
    for its in &mut state.its {
        for event in its.devices.iter_mut().flat_map(|device| &mut device.events) {
            if let Some(cpu) = target(&its.collections, event) {
                change(cpu, event);
            }
        }
    }
}

/// Iterates over every event whose collection is mapped, with its target CPU.
fn events(state: &SavedState) -> impl Iterator<Item = (Affinity, &EventState)> {
    state.its.iter().flat_map(|its| {
        let events = its.devices.iter().flat_map(|device| &device.events);
        events.filter_map(|event| Some((target(&its.collections, event)?, event)))
    })
}

fn target(collections: &[CollectionState], event: &EventState) -> Option<Affinity> {
    let at = collections.binary_search_by_key(&event.collection, |state| state.collection).ok()?;
    collections.get(at).map(|state| state.target)
}
