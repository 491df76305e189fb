//! Registers with one field per wired interrupt, shared by the distributor and the redistributors.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::{IntId, IntIdClass, IntIdField, gicd, gicr};
use vgic::saved_state::{InterruptState, SavedState};

/// Mask of the priority bits that KVM keeps.
const PRIORITY_MASK: u8 = 0xf8;
/// Field value of an edge-triggered interrupt in `ICFGR`.
const EDGE: u32 = 2;

/// A register with one field per interrupt.
pub(super) struct FieldRegister {
    field: IntIdField,
    get: fn(&InterruptState) -> u32,
    /// Writes the field's bits.
    set: fn(&mut InterruptState, u32),
}

/// The distributor's registers.
pub(super) const DISTRIBUTOR: &[FieldRegister] = &field_registers([
    gicd::IGROUPR,
    gicd::ISENABLER,
    gicd::ICENABLER,
    gicd::ISPENDR,
    gicd::ISACTIVER,
    gicd::ICACTIVER,
    gicd::IPRIORITYR,
    gicd::ICFGR,
]);
/// The redistributors' registers.
pub(super) const REDISTRIBUTOR: &[FieldRegister] = &field_registers([
    gicr::IGROUPR,
    gicr::ISENABLER,
    gicr::ICENABLER,
    gicr::ISPENDR,
    gicr::ISACTIVER,
    gicr::ICACTIVER,
    gicr::IPRIORITYR,
    gicr::ICFGR,
]);

/// Describes the registers with these fields. Registers that aren't in the table (e.g. `ICPENDR`)
/// read as zero and ignore writes.
const fn field_registers(fields: [IntIdField; 8]) -> [FieldRegister; 8] {
    let [group, enable, disable, pend, activate, deactivate, priority, trigger] = fields;
    [
        FieldRegister {
            field: group,
            get: |interrupt| interrupt.group1.into(),
            set: |interrupt, bits| interrupt.group1 = bits != 0,
        },
        FieldRegister {
            field: enable,
            get: |interrupt| interrupt.enabled.into(),
            set: |interrupt, bits| interrupt.enabled |= bits != 0,
        },
        FieldRegister {
            field: disable,
            get: |interrupt| interrupt.enabled.into(),
            set: |interrupt, bits| interrupt.enabled &= bits == 0,
        },
        FieldRegister {
            field: pend,
            get: |interrupt| interrupt.latch.into(),
            set: |interrupt, bits| interrupt.latch = bits != 0,
        },
        FieldRegister {
            field: activate,
            get: |interrupt| interrupt.active.into(),
            set: |interrupt, bits| interrupt.active |= bits != 0,
        },
        FieldRegister {
            field: deactivate,
            get: |interrupt| interrupt.active.into(),
            set: deactivate_if,
        },
        FieldRegister {
            field: priority,
            get: |interrupt| interrupt.priority.into(),
            set: |interrupt, bits| interrupt.priority = bits.to_le_bytes()[0] & PRIORITY_MASK,
        },
        FieldRegister {
            field: trigger,
            get: |interrupt| if interrupt.edge { EDGE } else { 0 },
            set: set_trigger,
        },
    ]
}

fn deactivate_if(interrupt: &mut InterruptState, bits: u32) {
    if bits != 0 {
        (interrupt.active, interrupt.active_at) = (false, None);
    }
}

/// Writes a field of `ICFGR`. Triggers are fixed for private interrupts.
fn set_trigger(interrupt: &mut InterruptState, bits: u32) {
    if interrupt.intid.is_shared() {
        interrupt.edge = bits & EDGE != 0;
    }
}

/// Reads the register at `offset`, or returns `None` if it is not in `registers`.
pub(super) fn get(
    registers: &[FieldRegister],
    interrupts: &[InterruptState],
    offset: u32,
) -> Option<u32> {
    let (register, first, count) = locate(registers, offset)?;
    let fields = (0..count).filter_map(|index| {
        let intid = register.field.range().intid_at(first + index)?;
        let at = interrupts.binary_search_by_key(&intid, |interrupt| interrupt.intid).ok()?;
        Some((register.get)(interrupts.get(at)?) << (index * register.field.bits()))
    });
    Some(fields.fold(0, |register, field| register | field))
}

/// Writes the register at `offset`, or returns `None` if it is not in `registers`.
pub(super) fn set(
    registers: &[FieldRegister],
    interrupts: &mut [InterruptState],
    offset: u32,
    word: u32,
) -> Option<()> {
    let (register, first, count) = locate(registers, offset)?;
    let bits = register.field.bits();
    for index in 0..count {
        let found = register.field.range().intid_at(first + index);
        let found = found.and_then(|intid| {
            interrupts.binary_search_by_key(&intid, |interrupt| interrupt.intid).ok()
        });
        if let Some(interrupt) = found.and_then(|at| interrupts.get_mut(at)) {
            (register.set)(interrupt, (word >> (index * bits)) & ((1 << bits) - 1));
        }
    }
    Some(())
}

fn locate(registers: &[FieldRegister], offset: u32) -> Option<(&FieldRegister, u32, u32)> {
    if !offset.is_multiple_of(4) {
        return None;
    }
    registers.iter().find_map(|register| {
        register.field.fields_at(offset).map(|(first, count)| (register, first, count))
    })
}

/// Returns a bitmap of the high lines among the 32 lines starting at `first`. Like KVM, ignores the
/// lines of edge-triggered interrupts.
pub(super) fn levels(interrupts: &[InterruptState], first: u16) -> u32 {
    let high = interrupts.iter().filter(|interrupt| interrupt.line && !interrupt.edge);
    high.filter_map(|interrupt| bit_of(interrupt.intid, first)).fold(0, |word, bit| word | bit)
}

/// Sets the levels of 32 lines starting at `first`, without causing edges.
pub(super) fn set_levels(interrupts: &mut [InterruptState], first: u16, word: u32) {
    for interrupt in interrupts {
        let bit =
            bit_of(interrupt.intid, first).filter(|_| interrupt.intid.class() != IntIdClass::Sgi);
        if let Some(bit) = bit {
            interrupt.line = word & bit != 0;
        }
    }
}

fn bit_of(intid: IntId, first: u16) -> Option<u32> {
    let distance = intid.get().checked_sub(first.into()).filter(|distance| *distance < 32)?;
    Some(1 << distance)
}

/// Adds every interrupt that the state does not list, in its reset state.
pub(super) fn list_all(state: &mut SavedState, spis: u32) -> Result<(), TryReserveError> {
    fill(&mut state.distributor.interrupts, 32..32 + spis)?;
    let mut private = state.cpus.iter_mut().map(|cpu| &mut cpu.redistributor.interrupts);
    private.try_for_each(|interrupts| fill(interrupts, 0..32))
}

fn fill(
    interrupts: &mut Vec<InterruptState>,
    intids: core::ops::Range<u32>,
) -> Result<(), TryReserveError> {
    let all = try_collect(intids.map(|intid| {
        let intid = IntId::new(intid);
        let at = interrupts.binary_search_by_key(&intid, |interrupt| interrupt.intid);
        at.ok()
            .and_then(|at| interrupts.get(at))
            .copied()
            .unwrap_or_else(|| InterruptState::new(intid))
    }))?;
    *interrupts = all;
    Ok(())
}

/// Clears the pending latches of active level-sensitive interrupts, which KVM drops when the guest
/// deactivates the interrupt.
pub(super) fn drop_latches(state: &mut SavedState) {
    let private = state.cpus.iter_mut().flat_map(|cpu| &mut cpu.redistributor.interrupts);
    for interrupt in private.chain(&mut state.distributor.interrupts) {
        interrupt.latch &= interrupt.edge || !interrupt.active;
    }
}

/// Removes interrupts that are in their reset state.
pub(super) fn list_changed(state: &mut SavedState) {
    let changed = |interrupt: &InterruptState| *interrupt != InterruptState::new(interrupt.intid);
    state.distributor.interrupts.retain(changed);
    for cpu in &mut state.cpus {
        cpu.redistributor.interrupts.retain(changed);
    }
}
