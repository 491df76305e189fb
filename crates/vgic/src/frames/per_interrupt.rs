//! Registers with one field per interrupt. The distributor and the redistributors share the
//! handlers of these registers.

use crate::config::{SecurityView, VgicConfig};
use crate::frames::registers::{Handlers, NoSuchInterrupt};
use crate::wired::Wired;
use crate::wired::interrupt::InterruptWord;
use gic_arch::{IntId, IntIdField, Priority};
use msi_types::Cpu;

/// A frame with one field per interrupt.
pub(crate) trait PerInterrupt: Copy {
    /// Returns the machine's configuration.
    fn config(&self) -> &VgicConfig;
    /// Returns the interrupts.
    fn wired(&self) -> &Wired;
    /// Returns the vCPU whose private interrupts the frame shows, or an arbitrary vCPU if the frame
    /// shows shared interrupts.
    fn owner(&self) -> Cpu;
}

fn read<C: PerInterrupt>(frame: C, intid: IntId, field: fn(&InterruptWord) -> bool) -> u32 {
    frame.wired().visible(frame.owner(), intid).is_some_and(|state| field(&state)).into()
}

/// Reads the bits of 32 interrupts: whether they are enabled or active.
fn bits<C: PerInterrupt>(frame: C, first: IntId, flag: InterruptWord) -> u32 {
    frame.wired().bits(frame.owner(), first, flag)
}

fn change<C: PerInterrupt>(
    frame: C,
    intid: IntId,
    change: impl Fn(InterruptWord) -> InterruptWord,
) -> Result<(), NoSuchInterrupt> {
    let exists = frame.wired().change(frame.owner(), intid, change);
    if exists { Ok(()) } else { Err(NoSuchInterrupt) }
}

fn exists<C: PerInterrupt>(frame: C, intid: IntId) -> Result<(), NoSuchInterrupt> {
    if frame.config().implements(intid) { Ok(()) } else { Err(NoSuchInterrupt) }
}

/// Handles `ISENABLER`.
pub(crate) const fn set_enable<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Bits {
        field,
        read: |frame, first| bits(frame, first, InterruptWord::new().with_enabled(true)),
        write: |frame, intid| change(frame, intid, |state| state.with_enabled(true)),
    }
}

/// Handles `ICENABLER`.
pub(crate) const fn clear_enable<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Bits {
        field,
        read: |frame, first| bits(frame, first, InterruptWord::new().with_enabled(true)),
        write: |frame, intid| change(frame, intid, |state| state.with_enabled(false)),
    }
}

/// Handles `ISPENDR`.
pub(crate) const fn set_pending<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Bits {
        field,
        read: |frame, first| frame.wired().pending_bits(frame.owner(), first),
        write: |frame, intid| change(frame, intid, |state| state.with_latch(true)),
    }
}

/// Handles `ICPENDR`. A level-sensitive interrupt stays pending while its input is high.
pub(crate) const fn clear_pending<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Bits {
        field,
        read: |frame, first| frame.wired().pending_bits(frame.owner(), first),
        write: |frame, intid| change(frame, intid, InterruptWord::unlatched),
    }
}

/// Handles `ISACTIVER`.
pub(crate) const fn set_active<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Bits {
        field,
        read: |frame, first| bits(frame, first, InterruptWord::new().with_active(true)),
        write: |frame, intid| {
            frame.wired().activate(frame.owner(), intid);
            exists(frame, intid)
        },
    }
}

/// Handles `ICACTIVER`.
pub(crate) const fn clear_active<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Bits {
        field,
        read: |frame, first| bits(frame, first, InterruptWord::new().with_active(true)),
        write: |frame, intid| {
            frame.wired().deactivate(frame.owner(), intid);
            Ok(())
        },
    }
}

/// Handles `IGROUPR`. With two security states, the register belongs to the Secure side.
pub(crate) const fn group<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Fields {
        field,
        read: |frame, intid| match frame.config().security {
            SecurityView::Single => read(frame, intid, InterruptWord::group1),
            SecurityView::NonSecure => 0,
        },
        write: |frame, intid, value| {
            if frame.config().security == SecurityView::Single {
                change(frame, intid, |state| state.with_group1(value != 0))?;
            }
            Ok(())
        },
    }
}

/// Handles `IPRIORITYR`, in the guest's view of priorities.
pub(crate) const fn priority<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Fields {
        field,
        read: |frame, intid| {
            let config = frame.config();
            let shown = |state: InterruptWord| match config.security {
                SecurityView::Single => state.priority(),
                SecurityView::NonSecure => state.priority().non_secure_view(),
            };
            frame.wired().visible(frame.owner(), intid).map_or(0, |state| shown(state).get().into())
        },
        write: |frame, intid, value| {
            let priority = hardware_priority(frame.config(), value);
            change(frame, intid, |state| state.with_priority_value(priority.get()))
        },
    }
}

/// Converts an eight-bit field written by the guest to the priority that the hardware stores.
fn hardware_priority(config: &VgicConfig, field: u32) -> Priority {
    let [written, ..] = field.to_le_bytes();
    let priority = match config.security {
        SecurityView::Single => Priority::new(written),
        SecurityView::NonSecure => Priority::from_non_secure_view(written),
    };
    priority.truncated(config.priority_bits.into())
}

/// Handles `ICFGR`. SGI triggers are fixed, and PPI triggers may be.
pub(crate) const fn trigger<C: PerInterrupt>(field: IntIdField) -> Handlers<C> {
    Handlers::Fields {
        field,
        read: |frame, intid| read(frame, intid, InterruptWord::edge) << 1,
        write: |frame, intid, value| {
            let edge = value & 2 != 0;
            if frame.config().allows_trigger(intid, edge) {
                change(frame, intid, |state| state.with_edge(edge))?;
            }
            Ok(())
        },
    }
}
