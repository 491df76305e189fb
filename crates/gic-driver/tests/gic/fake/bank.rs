//! Per-interrupt state in a frame, accessed through the frame's register arrays.

use gic_arch::{IntId, IntIdField, IntIdRange, gicd, gicr};
use std::ops::Range;

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct InterruptState {
    pub(crate) enabled: bool,
    /// `true` while the interrupt is forwarded, i.e. until a disable has taken effect.
    pub(crate) forwarded: bool,
    pub(crate) pending: bool,
    /// `true` while a message asserts the interrupt, which must be level-triggered.
    pub(crate) held: bool,
    pub(crate) active: bool,
    /// Priority as stored in hardware.
    pub(crate) priority: u8,
    pub(crate) edge: bool,
    pub(crate) group: bool,
    pub(crate) group_modifier: bool,
}

/// One register array of each kind, in the order of [`ARRAYS`].
pub(crate) type Registers = [IntIdField; 10];

const ARRAYS: [Array; 10] = [
    Array::Group,
    Array::GroupModifier,
    Array::SetEnable,
    Array::ClearEnable,
    Array::SetPending,
    Array::ClearPending,
    Array::SetActive,
    Array::ClearActive,
    Array::Priority,
    Array::Trigger,
];

/// Distributor register arrays for SPIs.
pub(crate) const SPI: Registers = [
    gicd::IGROUPR,
    gicd::IGRPMODR,
    gicd::ISENABLER,
    gicd::ICENABLER,
    gicd::ISPENDR,
    gicd::ICPENDR,
    gicd::ISACTIVER,
    gicd::ICACTIVER,
    gicd::IPRIORITYR,
    gicd::ICFGR,
];
/// Distributor register arrays for extended SPIs.
pub(crate) const EXTENDED_SPI: Registers = [
    gicd::IGROUPR_E,
    gicd::IGRPMODR_E,
    gicd::ISENABLER_E,
    gicd::ICENABLER_E,
    gicd::ISPENDR_E,
    gicd::ICPENDR_E,
    gicd::ISACTIVER_E,
    gicd::ICACTIVER_E,
    gicd::IPRIORITYR_E,
    gicd::ICFGR_E,
];
/// Redistributor register arrays for SGIs, PPIs and extended PPIs.
pub(crate) const PRIVATE: Registers = [
    gicr::IGROUPR,
    gicr::IGRPMODR,
    gicr::ISENABLER,
    gicr::ICENABLER,
    gicr::ISPENDR,
    gicr::ICPENDR,
    gicr::ISACTIVER,
    gicr::ICACTIVER,
    gicr::IPRIORITYR,
    gicr::ICFGR,
];

/// State of one range of interrupts, and the register arrays that access it.
#[derive(Debug)]
pub(crate) struct Bank {
    registers: Registers,
    states: Vec<InterruptState>,
    /// Implemented fields.
    implemented: Range<usize>,
    /// Number of interrupts with a fixed trigger.
    fixed_triggers: usize,
    /// `true` for the Non-secure view, in which groups are hidden, priorities are shifted, and
    /// Secure interrupts are inaccessible.
    pub(crate) non_secure_view: bool,
}

/// Kinds of register arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Array {
    Group,
    GroupModifier,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    Priority,
    Trigger,
}

impl Bank {
    pub(crate) fn new(registers: Registers, implemented: Range<usize>) -> Self {
        // SGIs have fixed triggers.
        let fixed_triggers = if registers[0].range() == IntIdRange::Private { 16 } else { 0 };
        let states = vec![InterruptState::default(); implemented.end];
        Self { registers, states, implemented, fixed_triggers, non_secure_view: false }
    }

    pub(crate) fn state(&mut self, intid: IntId) -> &mut InterruptState {
        let index = self.registers[0].range().index_of(intid).unwrap();
        &mut self.states[usize::try_from(index).unwrap()]
    }

    /// Clears the effect of earlier messages: an edge-triggered interrupt is no longer pending, and
    /// a level-triggered one is no longer asserted (IHI 0069, `GICD_CLRSPI_NSR`). Returns `None` if
    /// the interrupt is not in this bank.
    pub(crate) fn clear_message(&mut self, intid: IntId) -> Option<()> {
        let index = usize::try_from(self.registers[0].range().index_of(intid)?).ok()?;
        let state = self.states.get_mut(index)?;
        state.pending = false;
        state.held &= state.edge;
        Some(())
    }

    pub(crate) fn states(&self) -> &[InterruptState] {
        &self.states
    }

    /// Makes previous writes to `ICENABLER` take effect.
    pub(crate) fn complete_writes(&mut self) {
        for state in &mut self.states {
            state.forwarded = state.enabled;
        }
    }

    /// Reads the register or byte at `offset`. Returns `None` if the offset is not part of these
    /// arrays.
    pub(crate) fn read(&self, offset: u32, bytes: u32) -> Option<u32> {
        let (array, first, count, bits) = self.locate(offset, bytes)?;
        let mut value = 0;
        for (place, index) in (first..first + count).enumerate() {
            value |= self.field(array, index) << (u32::try_from(place).unwrap() * bits);
        }
        Some(value)
    }

    /// Returns the index of the first field in the register at `offset`, or `None` if the register
    /// is not part of these arrays.
    pub(crate) fn first_field(&self, offset: u32) -> Option<u32> {
        let (_, field) = self.arrays().find(|(_, field)| field.fields_at(offset).is_some())?;
        Some((offset - field.offset()) * 8 / field.bits())
    }

    /// Writes the register or byte at `offset`. Returns `None` if the offset is not part of these
    /// arrays. Otherwise, returns `true` if the write was to `ICENABLER`.
    pub(crate) fn write(&mut self, offset: u32, bytes: u32, value: u32) -> Option<bool> {
        let (array, first, count, bits) = self.locate(offset, bytes)?;
        for (place, index) in (first..first + count).enumerate() {
            let field = value >> (u32::try_from(place).unwrap() * bits) & (u32::MAX >> (32 - bits));
            self.set_field(array, index, field);
        }
        Some(array == Array::ClearEnable)
    }

    fn arrays(&self) -> impl Iterator<Item = (Array, IntIdField)> {
        ARRAYS.into_iter().zip(self.registers)
    }

    /// Returns the array, the first accessed field, the number of accessed fields and their width.
    fn locate(&self, offset: u32, bytes: u32) -> Option<(Array, usize, usize, u32)> {
        for (array, field) in self.arrays() {
            if field.fields_at(offset).is_some() {
                assert!(
                    bytes == 4 || bytes == 1 && array == Array::Priority,
                    "{bytes}-byte access to {array:?} at {offset:#x}"
                );
                assert_eq!(offset % bytes, 0, "misaligned access at {offset:#x}");
                let first = (offset - field.offset()) * 8 / field.bits();
                let count = bytes * 8 / field.bits();
                return Some((array, first as usize, count as usize, field.bits()));
            }
        }
        None
    }

    fn visible(&self, index: usize) -> bool {
        let kept = |state: &InterruptState| self.non_secure_view && !state.group;
        self.implemented.contains(&index)
            && self.states.get(index).is_some_and(|state| !kept(state))
    }

    fn field(&self, array: Array, index: usize) -> u32 {
        if !self.visible(index) {
            return 0;
        }
        let state = &self.states[index];
        match array {
            Array::Group => u32::from(state.group && !self.non_secure_view),
            Array::GroupModifier => u32::from(state.group_modifier && !self.non_secure_view),
            Array::SetEnable | Array::ClearEnable => state.enabled.into(),
            Array::SetPending | Array::ClearPending => {
                (state.pending || (state.held && !state.edge)).into()
            }
            Array::SetActive | Array::ClearActive => state.active.into(),
            Array::Priority if self.non_secure_view => (state.priority << 1).into(),
            Array::Priority => state.priority.into(),
            Array::Trigger => u32::from(state.edge) << 1,
        }
    }

    fn set_field(&mut self, array: Array, index: usize, field: u32) {
        if !self.visible(index) {
            return;
        }
        let (shifted, fixed) = (self.non_secure_view, index < self.fixed_triggers);
        let state = &mut self.states[index];
        let set = field != 0;
        match array {
            Array::Group if !shifted => state.group = set,
            Array::GroupModifier if !shifted => state.group_modifier = set,
            Array::Group | Array::GroupModifier => {}
            Array::SetEnable => {
                state.enabled |= set;
                state.forwarded |= set;
            }
            Array::ClearEnable => state.enabled &= !set,
            Array::SetPending => state.pending |= set,
            Array::ClearPending => state.pending &= !set,
            Array::SetActive => state.active |= set,
            Array::ClearActive => state.active &= !set,
            // Five priority bits are implemented.
            Array::Priority => {
                let value = u8::try_from(field).unwrap();
                state.priority = if shifted { value >> 1 | 0x80 } else { value } & 0xf8;
            }
            Array::Trigger if fixed => {}
            Array::Trigger => {
                let edge = field & 2 != 0;
                assert!(
                    !state.enabled || state.edge == edge,
                    "the trigger of an enabled interrupt must not be changed"
                );
                state.edge = edge;
            }
        }
    }
}
