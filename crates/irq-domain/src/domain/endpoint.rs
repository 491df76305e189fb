//! The interface between a device's message store and its domain.

use super::vector_table::{Messages, VectorTable};
use crate::irq::flow::Flow;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use msi_types::{
    FastMask, Fit, Initially, LevelMessages, Masking, MessageStore, MsiMessage, Rewrite, Shape,
    SlotState, StoreError, StoreUpdate, Trigger,
};

/// A device's message store.
pub(super) struct Endpoint(Arc<dyn MessageStore>);

/// State of the store's enable bit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum StoreEnable {
    #[default]
    Off,
    On,
}

impl Endpoint {
    pub(super) const fn new(store: Arc<dyn MessageStore>) -> Self {
        Self(store)
    }

    pub(super) fn slots(&self) -> u16 {
        self.0.slots()
    }

    pub(super) fn trigger(&self) -> Trigger {
        self.0.trigger()
    }

    /// Returns the store's limits on messages.
    pub(super) fn fit(&self) -> Fit {
        self.0.fit()
    }

    /// Returns the endpoint's mask, if it can mask vectors in any context. Level-triggered stores
    /// never have such a mask, because only the controller can mask a level that is already
    /// asserted.
    ///
    /// Context: any.
    pub(super) fn mask(&self) -> Option<&dyn FastMask> {
        self.0.fast_mask().filter(|_| self.trigger() == Trigger::Edge)
    }

    pub(super) fn flow(&self) -> Flow {
        match self.trigger() {
            Trigger::Edge => Flow::Edge,
            Trigger::Level => Flow::Level,
        }
    }

    /// Returns a new vector's initial state at the controller. The endpoint or the handler cell
    /// holds early messages back, so the controller needn't mask (this saves one invalidation per
    /// vector). The exception is a level-triggered vector, which can only be composed while masked.
    pub(super) fn initially(&self) -> Initially {
        match self.trigger() {
            Trigger::Edge => Initially::Unmasked,
            Trigger::Level => Initially::Masked,
        }
    }

    /// Describes where vectors can be masked.
    pub(super) fn maskable_at(&self) -> &'static str {
        match (self.mask(), self.0.masking()) {
            (Some(_), _) => "the endpoint",
            (None, Masking::PerVector) => {
                "the controller, and at the endpoint while its message is rewritten"
            }
            (None, Masking::None) => "the controller",
        }
    }

    /// Reads a slot back from the device.
    ///
    /// Context: task; may sleep.
    pub(super) fn read_back(&self, slot: u16) -> Option<SlotState> {
        self.0.read_back(slot)
    }

    /// Tells the store that the device has lost its register contents, so that the store writes all
    /// registers again.
    pub(super) fn forget(&self) {
        self.0.forget();
    }

    /// Writes the messages to the store and turns it on. If the endpoint can mask vectors in any
    /// context, they are left masked.
    pub(super) fn write(
        &self,
        vectors: &VectorTable,
        shape: Shape,
        enable: StoreEnable,
    ) -> Result<(), StoreError> {
        if shape == Shape::AlignedGroup {
            let count = u16::try_from(vectors.iter().len()).ok().and_then(NonZeroU16::new);
            self.0.grant(count.unwrap_or(NonZeroU16::MIN))?;
        }
        let masked_here = self.mask().is_some();
        self.0.update(&mut |update: &mut dyn StoreUpdate| {
            for (slot, vector) in vectors.iter() {
                update.mask(slot);
                match vector.messages {
                    Some(Messages { message: assert, deassert: Some(deassert) }) => {
                        update.write_level(slot, LevelMessages { assert, deassert });
                    }
                    Some(Messages { message, deassert: None }) => update.write(slot, message),
                    None => {}
                }
                if !masked_here {
                    update.unmask(slot);
                }
            }
        })?;
        if enable == StoreEnable::Off {
            self.0.set_enabled(true)?;
        }
        Ok(())
    }

    /// Replaces the message that `slots` share, which is stored in the first slot.
    pub(super) fn rewrite(
        &self,
        slots: &(impl Iterator<Item = u16> + Clone),
        message: MsiMessage,
    ) -> Result<(), StoreError> {
        let masks_itself = self.mask().is_some();
        let unmask = |update: &mut dyn StoreUpdate| {
            if !masks_itself {
                slots.clone().for_each(|slot| update.unmask(slot));
            }
        };
        let written = self.0.update(&mut |update: &mut dyn StoreUpdate| {
            slots.clone().for_each(|slot| update.mask(slot));
            slots.clone().take(1).for_each(|first| update.write(first, message));
            unmask(update);
        });
        if written.is_err() && !masks_itself {
            // If the store is a command queue that failed at the message, it has not executed the
            // unmask either. Report the first error.
            let _ = self.0.update(&mut |update: &mut dyn StoreUpdate| unmask(update));
        }
        written
    }

    /// Returns `true` if the device can never send a mix of the old message and the new one while
    /// we replace it.
    pub(super) fn can_replace(&self, old: Option<MsiMessage>, new: MsiMessage) -> bool {
        let Some(old) = old else { return false };
        match self.fit().rewrite {
            Rewrite::Masked => self.0.masking() == Masking::PerVector || old == new,
            Rewrite::Atomic64 => true,
            Rewrite::AddressOnly => old.data == new.data,
            Rewrite::LowWordOnly => {
                old.address_high() == new.address_high() && old.data == new.data
            }
            Rewrite::Never => old == new,
        }
    }

    /// Clears the slots of vectors that are being removed, and turns the store off if `enable` is
    /// `Off`. Continues after failures.
    ///
    /// Context: task; may sleep.
    pub(super) fn quieten(
        &self,
        mut slots: impl Iterator<Item = u16>,
        enable: StoreEnable,
    ) -> Result<(), StoreError> {
        let cleared = self.0.update(&mut |update: &mut dyn StoreUpdate| {
            slots.by_ref().for_each(|slot| update.clear(slot));
        });
        let off = if enable == StoreEnable::Off { self.0.set_enabled(false) } else { Ok(()) };
        off.and(cleared)
    }
}
