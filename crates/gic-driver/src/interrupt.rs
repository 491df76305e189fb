//! A wired interrupt (SGI, PPI, SPI, extended PPI or extended SPI), accessed through the frame that
//! holds its state.

use crate::frame::{Fields, Frame};
use crate::{GicError, Group, Mmio, MmioExt, Platform, SecurityView};
use gic_arch::{IntId, IntIdField, IntIdLocation, Priority};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{Pending, Trigger};

/// Handle to an interrupt that its frame implements. Created by
/// [`Distributor::interrupt`](crate::Distributor::interrupt) and
/// [`Redistributor::interrupt`](crate::Redistributor::interrupt), which check the INTID.
///
/// Every operation affects only this interrupt and may be called in any context. In the Non-secure
/// view, a Secure interrupt's registers read as zero and ignore writes.
#[derive(Debug)]
pub struct Interrupt<'a, M> {
    frame: &'a Frame<M>,
    fields: &'static Fields,
    intid: IntId,
}

impl<'a, M: Mmio> Interrupt<'a, M> {
    /// Creates a handle. The frame must implement the interrupt.
    pub(crate) fn new(frame: &'a Frame<M>, fields: &'static Fields, intid: IntId) -> Self {
        Self { frame, fields, intid }
    }

    /// Returns the interrupt's INTID.
    pub fn intid(&self) -> IntId {
        self.intid
    }

    /// Enables forwarding of the interrupt to the CPU interface.
    pub fn enable(&self) {
        self.write_one(self.fields.set_enable);
    }

    /// Disables forwarding. On return the interrupt is no longer forwarded, but a CPU to which it
    /// was already forwarded may still acknowledge it.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if `RWP` stays set.
    pub fn disable<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.request_disable();
        self.wait_for_rwp(platform)
    }

    /// Requests that forwarding be disabled, without waiting until this has taken effect. This is
    /// the first half of [`disable`](Self::disable).
    pub(crate) fn request_disable(&self) {
        self.write_one(self.fields.clear_enable);
    }

    /// Waits until the requested change has taken effect.
    pub(crate) fn wait_for_rwp<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.frame.wait_for_rwp(platform)
    }

    /// Returns `true` if forwarding is enabled.
    pub fn is_enabled(&self) -> bool {
        self.read(self.fields.set_enable) != 0
    }

    /// Sets the priority, in this security view's scale. Bits that are not implemented are ignored.
    /// The priority is kept until the interrupt is claimed again, so a message-based SPI keeps its
    /// priority when it is freed and allocated to another device.
    pub fn set_priority(&self, priority: Priority) {
        if let Some(location) = self.locate(self.fields.priority) {
            self.frame.mmio.write8(location.byte_offset(), priority.get());
        }
    }

    /// Returns the priority, in this security view's scale.
    pub fn priority(&self) -> Priority {
        Priority::new(self.read(self.fields.priority).to_le_bytes()[0])
    }

    /// Sets or clears the pending state. A level-triggered interrupt stays pending while its line
    /// is asserted.
    pub fn set_pending(&self, pending: Pending) {
        self.write_one(match pending {
            Pending::Set => self.fields.set_pending,
            Pending::Clear => self.fields.clear_pending,
        });
    }

    /// Returns `true` if the interrupt is pending, or active and pending.
    pub fn is_pending(&self) -> bool {
        self.read(self.fields.set_pending) != 0
    }

    /// Makes the interrupt active, as if it had been acknowledged. Callers use this to restore a
    /// guest's state, or the state before a suspend.
    pub fn activate(&self) {
        self.write_one(self.fields.set_active);
    }

    /// Deactivates the interrupt at its frame, without using a CPU interface.
    pub fn deactivate(&self) {
        self.write_one(self.fields.clear_active);
    }

    /// Returns `true` if the interrupt is active.
    pub fn is_active(&self) -> bool {
        self.read(self.fields.set_active) != 0
    }

    /// Sets the trigger mode. The interrupt must be disabled.
    ///
    /// # Errors
    /// [`GicError::StillEnabled`] if the interrupt is enabled; [`GicError::FixedTrigger`] if the
    /// hardware does not accept the mode.
    pub fn set_trigger<P: Platform>(&self, platform: &P, trigger: Trigger) -> Result<(), GicError> {
        if self.trigger() == trigger {
            return Ok(());
        }
        if self.is_enabled() {
            return Err(GicError::StillEnabled(self.intid));
        }
        let field = match trigger {
            Trigger::Edge => 0b10,
            Trigger::Level => 0,
        };
        self.replace(platform, self.fields.trigger, field);
        if self.trigger() == trigger { Ok(()) } else { Err(GicError::FixedTrigger(self.intid)) }
    }

    /// Returns the trigger mode.
    pub fn trigger(&self) -> Trigger {
        if self.read(self.fields.trigger) & 0b10 == 0 { Trigger::Level } else { Trigger::Edge }
    }

    /// Moves the interrupt to a group.
    ///
    /// # Errors
    /// [`GicError::GroupRefused`] in the Non-secure view, which cannot change groups, and for
    /// [`Group::SecureOne`] if only one security state exists.
    pub fn set_group<P: Platform>(
        &self,
        platform: &P,
        view: SecurityView,
        group: Group,
    ) -> Result<(), GicError> {
        let (group_bit, modifier) = match (view, group) {
            (SecurityView::NonSecure, _) | (SecurityView::Single, Group::SecureOne) => {
                return Err(GicError::GroupRefused(self.intid));
            }
            (_, Group::Zero) => (0, 0),
            (_, Group::One) => (1, 0),
            (_, Group::SecureOne) => (0, 1),
        };
        self.replace(platform, self.fields.group, group_bit);
        if view == SecurityView::Secure {
            self.replace(platform, self.fields.group_modifier, modifier);
        }
        if self.read(self.fields.group) == group_bit {
            Ok(())
        } else {
            Err(GicError::GroupRefused(self.intid))
        }
    }

    /// Returns the interrupt's group, or `None` in the Non-secure view, where the group registers
    /// read as zero.
    pub(crate) fn group(&self, view: SecurityView) -> Option<Group> {
        let bits = (self.read(self.fields.group), self.read(self.fields.group_modifier));
        match (view, bits) {
            (SecurityView::NonSecure, _) => None,
            (_, (1, _)) => Some(Group::One),
            (SecurityView::Secure, (_, 1)) => Some(Group::SecureOne),
            _ => Some(Group::Zero),
        }
    }

    /// Explains whether the interrupt is enabled, not active, and pending.
    pub(crate) fn explain(&self) -> Explanation {
        let interrupt = self.intid.hwirq();
        let mut explained = Explanation::new();
        if self.is_enabled() {
            explained.note(Fact::Enabled(self.priority().get()));
        } else {
            explained.hinder(Obstacle::Disabled { interrupt });
        }
        if self.trigger() == Trigger::Level {
            explained.note(Fact::LevelSensitive);
        }
        if self.is_active() {
            explained.hinder(Obstacle::Active { interrupt, cpu: None });
        } else if self.is_pending() {
            explained.note(Fact::Pending(interrupt));
        } else {
            explained.note(Fact::NotPending(interrupt));
        }
        explained
    }

    /// Sets the priority after checking (by reading back) that this security view can configure the
    /// interrupt. With two security states, registers of Secure interrupts ignore Non-secure
    /// writes.
    ///
    /// # Errors
    /// [`GicError::KeptBySecure`] if the interrupt belongs to Secure software.
    pub fn take(&self, priority: Priority) -> Result<(), GicError> {
        // Every implementation has at least the upper four priority bits in each security view.
        self.set_priority(Priority::new(0xf0));
        if self.priority() == Priority::HIGHEST {
            return Err(GicError::KeptBySecure(self.intid));
        }
        self.set_priority(priority);
        Ok(())
    }

    fn locate(&self, field: IntIdField) -> Option<IntIdLocation> {
        field.locate(self.intid)
    }

    fn read(&self, field: IntIdField) -> u32 {
        let frame = self.frame.reads(self.intid);
        self.locate(field).map_or(0, |location| location.extract(frame.read(location.register())))
    }

    /// Writes 1 to the interrupt's bit in a write-1-to-set or write-1-to-clear register. Zeros in
    /// the other bits have no effect.
    fn write_one(&self, field: IntIdField) {
        if let Some(location) = self.locate(field) {
            self.frame.mmio.write(location.register(), location.mask());
        }
    }

    fn replace<P: Platform>(&self, platform: &P, field: IntIdField, value: u32) {
        let Some(location) = self.locate(field) else { return };
        self.frame.fields_lock.with(platform, |()| {
            let old = self.frame.reads(self.intid).read(location.register());
            self.frame.mmio.write(location.register(), location.insert(old, value));
        });
    }
}
