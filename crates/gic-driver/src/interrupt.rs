//! One wired interrupt (SGI, PPI, SPI or of the extended ranges) at the frame that holds its state.

use crate::frame::{Fields, Frame};
use crate::{GicError, Group, Mmio, MmioExt, Platform, SecurityView};
use gic_arch::{IntId, IntIdField, IntIdLocation, Priority};
use msi_types::{Pending, Trigger};

/// An interrupt that its frame implements. Made by
/// [`Distributor::interrupt`](crate::Distributor::interrupt) and
/// [`Redistributor::interrupt`](crate::Redistributor::interrupt); nothing remains to be checked by
/// its methods.
///
/// Every operation touches the state of this interrupt alone and may run in any context. With two
/// security states and the Non-secure view, an interrupt that Secure software keeps reads as zero
/// and ignores writes.
#[derive(Debug)]
pub struct Interrupt<'a, M> {
    frame: &'a Frame<M>,
    fields: &'static Fields,
    intid: IntId,
}

impl<'a, M: Mmio> Interrupt<'a, M> {
    /// The caller checked that the frame implements the interrupt.
    pub(crate) fn new(frame: &'a Frame<M>, fields: &'static Fields, intid: IntId) -> Self {
        Self { frame, fields, intid }
    }

    /// The interrupt's INTID.
    pub fn intid(&self) -> IntId {
        self.intid
    }

    /// Enables forwarding.
    pub fn enable(&self) {
        self.write_one(self.fields.set_enable);
    }

    /// Disables forwarding. On return it is not forwarded any more, though a CPU may be about to
    /// acknowledge it.
    ///
    /// # Errors
    /// [`GicError::TimedOut`] if the hardware does not finish.
    pub fn disable<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.request_disable();
        self.wait_for_rwp(platform)
    }

    /// The first half of [`disable`](Self::disable).
    pub(crate) fn request_disable(&self) {
        self.write_one(self.fields.clear_enable);
    }

    /// Waits until the requested change has taken effect.
    pub(crate) fn wait_for_rwp<P: Platform>(&self, platform: &P) -> Result<(), GicError> {
        self.frame.wait_for_rwp(platform)
    }

    /// Returns true if forwarding is enabled.
    pub fn is_enabled(&self) -> bool {
        self.read(self.fields.set_enable) != 0
    }

    /// Sets the priority, as this security view has it. Bits that the implementation lacks are
    /// dropped. It stays until the interrupt is claimed anew: an SPI that carries messages keeps it
    /// from one device to the next.
    pub fn set_priority(&self, priority: Priority) {
        if let Some(location) = self.locate(self.fields.priority) {
            self.frame.mmio.write8(location.byte_offset(), priority.get());
        }
    }

    /// The priority, as this security view has it.
    pub fn priority(&self) -> Priority {
        Priority::new(self.read(self.fields.priority).to_le_bytes()[0])
    }

    /// Makes it pending, or drops its pending state. What a level-triggered source asserts stays
    /// pending.
    pub fn set_pending(&self, pending: Pending) {
        self.write_one(match pending {
            Pending::Set => self.fields.set_pending,
            Pending::Clear => self.fields.clear_pending,
        });
    }

    /// Returns true in the states pending, and active and pending.
    pub fn is_pending(&self) -> bool {
        self.read(self.fields.set_pending) != 0
    }

    /// Makes it active, as if it had been acknowledged: for restoring a guest's or a suspended
    /// state.
    pub fn activate(&self) {
        self.write_one(self.fields.set_active);
    }

    /// Ends its active state without a CPU interface.
    pub fn deactivate(&self) {
        self.write_one(self.fields.clear_active);
    }

    /// Is it active?
    pub fn is_active(&self) -> bool {
        self.read(self.fields.set_active) != 0
    }

    /// Sets how it is signalled.
    ///
    /// # Errors
    /// [`GicError::StillEnabled`] and [`GicError::FixedTrigger`].
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

    /// The trigger mode.
    pub fn trigger(&self) -> Trigger {
        if self.read(self.fields.trigger) & 0b10 == 0 { Trigger::Level } else { Trigger::Edge }
    }

    /// Puts it into a group.
    ///
    /// # Errors
    /// [`GicError::GroupRefused`]: the Non-secure view cannot change groups, and one security state
    /// has no [`Group::SecureOne`].
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

    /// Checks that this security view has a say over the interrupt, by setting its priority and
    /// reading it back. With two security states, the registers of what Secure software keeps
    /// ignore Non-secure writes.
    ///
    /// # Errors
    /// [`GicError::KeptBySecure`].
    pub fn take(&self, priority: Priority) -> Result<(), GicError> {
        // Implementations have at least the upper four bits of the view.
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

    /// Writes 1 to the interrupt's bit of a write-1-to-set or write-1-to-clear register; zeros
    /// change nothing.
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
