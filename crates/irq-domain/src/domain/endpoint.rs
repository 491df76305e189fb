//! The interface between a device's message store and its domain.

use super::vector_table::{Messages, VectorTable};
use crate::irq::flow::Flow;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use msi_types::{
    FastMask, Fit, Initially, LevelMessages, Masking, MessageStore, MsiMessage, Rewrite, Shape,
    StoreError, StoreUpdate, Trigger,
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

    /// Returns the limits of the store's messages.
    pub(super) fn fit(&self) -> Fit {
        self.0.fit()
    }

    /// Returns the endpoint's mask, if it can mask vectors in any context. Level-triggered stores
    /// have none, because only the controller can mask a level that is already asserted.
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

    /// Returns the initial state of a vector at the controller. Messages are held back at the
    /// endpoint or by the handler cell, which saves the controller an invalidation per vector. A
    /// vector must be masked at the controller to be made level-triggered.
    pub(super) fn initially(&self) -> Initially {
        match self.trigger() {
            Trigger::Edge => Initially::Unmasked,
            Trigger::Level => Initially::Masked,
        }
    }

    /// Returns a description of where vectors are masked.
    pub(super) fn masked_at(&self) -> &'static str {
        match (self.mask(), self.0.masking()) {
            (Some(_), _) => "the endpoint",
            (None, Masking::PerVector) => "the controller, at the endpoint while it is rewritten",
            (None, Masking::None) => "the controller",
        }
    }

    /// Makes the store write all registers again, because the device lost them.
    pub(super) fn forget(&self) {
        self.0.forget();
    }

    /// Writes the messages to the store and turns the store on. If the endpoint can mask vectors in
    /// any context, it leaves them masked.
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

    /// Replaces the message of the first of `slots`, which share it.
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
            // A queue that failed at the message has not executed the unmask. The first error is
            // the one to report.
            let _ = self.0.update(&mut |update: &mut dyn StoreUpdate| unmask(update));
        }
        written
    }

    /// Returns `true` if the old message can be replaced without the device ever sending a mix of
    /// the old and the new one.
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

    /// Clears slots whose vectors are removed, and turns the store off if `enable` is `Off`.
    /// Continues after failures.
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
