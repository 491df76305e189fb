//! The interface between a device's message store and its domain, and the negotiation between an
//! endpoint and the levels below it.

use super::vector_table::{Messages, VectorTable};
use crate::error::MsiDeviceError;
use crate::irq::handler::Flow;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use msi_types::{
    Capabilities, Capability, FastMask, Fit, Initially, InterruptIsolated, LevelMessages, Masking,
    MessageStore, Mismatch, MsiMessage, MsiParent, Properties, Property, RequesterId, Rewrite,
    Shape, SlotState, Storage, StoreError, StoreUpdate, Trigger, negotiate,
};

/// A driver's function that updates its copies of a slot's message, or clears them if the message
/// is `None`. See [`MsiDeviceConfig::with_copy`](crate::MsiDeviceConfig::with_copy).
pub type MessageCopy = dyn Fn(u16, Option<MsiMessage>) + Send + Sync;

/// A device's message store, and the driver's copies of its messages.
pub(super) struct Endpoint {
    store: Arc<dyn MessageStore>,
    copy: Option<Arc<MessageCopy>>,
}

/// State of the store's enable bit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum StoreEnable {
    #[default]
    Off,
    On,
}

impl Endpoint {
    pub(super) const fn new(store: Arc<dyn MessageStore>, copy: Option<Arc<MessageCopy>>) -> Self {
        Self { store, copy }
    }

    pub(super) fn storage(&self) -> Storage {
        self.store.storage()
    }

    /// Returns `true` if the device sends messages from places that no bus defines, where a
    /// hypervisor can't find them.
    pub(super) fn hides_messages(&self) -> bool {
        self.copy.is_some() || self.storage() == Storage::Device
    }

    /// Returns `true` if the store can mask everything that the device sends for a slot. It can't
    /// mask messages that the device sends from copies.
    pub(super) fn masks_all(&self) -> bool {
        self.copy.is_none() && self.store.masking() == Masking::PerVector
    }

    pub(super) fn slots(&self) -> u16 {
        self.store.slots()
    }

    pub(super) fn trigger(&self) -> Trigger {
        self.store.trigger()
    }

    /// Returns the store's limits on messages.
    pub(super) fn fit(&self) -> Fit {
        self.store.fit()
    }

    /// Returns the endpoint's mask, if it can mask vectors in any context. Level-triggered stores
    /// never have such a mask, because only the controller can mask a level that is already
    /// asserted. Neither do stores whose messages the driver copies.
    ///
    /// Context: any.
    pub(super) fn mask(&self) -> Option<&dyn FastMask> {
        self.store.fast_mask().filter(|_| self.trigger() == Trigger::Edge && self.masks_all())
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
        match (self.mask(), self.store.masking()) {
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
        self.store.read_back(slot)
    }

    /// Tells the store that the device has lost its register contents, so that the store writes all
    /// registers again.
    pub(super) fn forget(&self) {
        self.store.forget();
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
            let count = u16::try_from(vectors.vectors.len()).ok().and_then(NonZeroU16::new);
            self.store.grant(count.unwrap_or(NonZeroU16::MIN))?;
        }
        let masked_here = self.mask().is_some();
        self.store.update(&mut |update: &mut dyn StoreUpdate| {
            for (slot, vector) in vectors.vectors.iter() {
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
        self.update_copies(vectors.slots(), |slot| vectors.sent_message(slot));
        if enable == StoreEnable::Off {
            self.store.set_enabled(true)?;
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
        let written = self.store.update(&mut |update: &mut dyn StoreUpdate| {
            slots.clone().for_each(|slot| update.mask(slot));
            slots.clone().take(1).for_each(|first| update.write(first, message));
            unmask(update);
        });
        if written.is_err() && !masks_itself {
            // If the store is a command queue that failed at the message, it has not executed the
            // unmask either. Report the first error.
            let _ = self.store.update(&mut |update: &mut dyn StoreUpdate| unmask(update));
        }
        written
    }

    /// Has the driver update its copies of the messages for these slots, under the store's lock.
    /// Must be called after each change of a message: as soon as the store holds the new one, and
    /// before the controller stops accepting the old one.
    ///
    /// Context: task; may sleep.
    pub(super) fn update_copies(
        &self,
        mut slots: impl Iterator<Item = u16>,
        sent: impl Fn(u16) -> Option<MsiMessage>,
    ) {
        let Some(copy) = &self.copy else { return };
        let mut update = || slots.by_ref().for_each(|slot| copy(slot, sent(slot)));
        // A store that fails before it acquires its lock doesn't excuse stale copies.
        let _ = self.store.update(&mut |_| update());
        update();
    }

    /// Returns `true` if the device can never send a mix of the old message and the new one while
    /// we replace it.
    pub(super) fn can_replace(&self, old: Option<MsiMessage>, new: MsiMessage) -> bool {
        let Some(old) = old else { return false };
        match self.fit().rewrite {
            Rewrite::Masked => self.store.masking() == Masking::PerVector || old == new,
            Rewrite::Atomic64 => true,
            Rewrite::AddressOnly => old.data == new.data,
            Rewrite::LowWordOnly => {
                old.address_high() == new.address_high() && old.data == new.data
            }
            Rewrite::Never => old == new,
        }
    }

    /// Clears the slots of vectors that are being removed, and the driver's copies of their
    /// messages. Turns the store off if `enable` is `Off`. Continues after failures.
    ///
    /// Context: task; may sleep.
    pub(super) fn quieten(
        &self,
        mut slots: impl Iterator<Item = u16> + Clone,
        enable: StoreEnable,
    ) -> Result<(), StoreError> {
        self.update_copies(slots.clone(), |_| None);
        let cleared = self.store.update(&mut |update: &mut dyn StoreUpdate| {
            slots.by_ref().for_each(|slot| update.clear(slot));
        });
        let off = if enable == StoreEnable::Off { self.store.set_enabled(false) } else { Ok(()) };
        off.and(cleared)
    }
}

/// Checks that an endpoint fits every level of the hierarchy, before anything is allocated.
///
/// Context: any.
pub(super) fn check_store(
    parent: &dyn MsiParent,
    requester: RequesterId,
    endpoint: &Endpoint,
) -> Result<(), MsiDeviceError> {
    let isolated = if endpoint.hides_messages() {
        InterruptIsolated::prove(parent, requester).map(drop)
    } else {
        Ok(())
    };
    let has = properties(endpoint);
    let has = if isolated.is_ok() { has.with(Property::Isolation) } else { has };
    negotiate(needs(endpoint), has, &|visit| parent.tiers(visit)).map_err(|mismatch| {
        match (mismatch, isolated) {
            (Mismatch::Required { property: Property::Isolation, tier }, Err(reason)) => {
                MsiDeviceError::NotIsolated { tier, reason }
            }
            (other, _) => other.into(),
        }
    })
}

/// Checks that the hierarchy provides a capability.
///
/// Context: any.
pub(super) fn require(parent: &dyn MsiParent, capability: Capability) -> Result<(), Mismatch> {
    let needs = Capabilities::NONE.with(capability);
    negotiate(needs, Properties::ALL, &|visit| parent.tiers(visit))
}

fn needs(endpoint: &Endpoint) -> Capabilities {
    let needed = [
        (Capability::DeviceStorage, endpoint.storage() != Storage::Bus),
        (Capability::MessageRemapping, endpoint.hides_messages()),
        (Capability::Masking, endpoint.mask().is_none()),
    ];
    let needed = needed.iter().filter(|(_, needed)| *needed);
    needed.fold(Capabilities::NONE, |set, (capability, _)| set.with(*capability))
}

fn properties(endpoint: &Endpoint) -> Properties {
    let fit = endpoint.fit();
    let has = [
        (Property::WideAddress, fit.address_bits >= 64),
        (Property::WideData, fit.data_bits >= 32),
        (Property::Maskable, endpoint.masks_all()),
    ];
    let present = has.iter().filter(|(_, present)| *present);
    present.fold(Properties::NONE, |set, (property, _)| set.with(*property))
}
