//! Translation of messages by an IOMMU between devices and the interrupt controller.
//!
//! Behind an IOMMU, the guest stores an IOVA as the address of a message. The monitor's emulation
//! of the IOMMU implements [`TranslateMsi`]. A [`Router`](crate::Router) or a `kvm::KvmRouter` then
//! translates each message for its sender, before the message reaches a doorbell:
//!
//! ```text
//! device ─▶ vector, GSI or write ─▶ router ─▶ translation (copy) ─▶ doorbell ─▶ controller
//!                                     ▲            ▲ miss, retranslation
//! guest ─▶ IOMMU emulation ── invalidate ──▶ TranslateMsi::translate
//! ```
//!
//! The router keeps copies of translations, as an IOMMU does in its TLB, so that a message takes no
//! lock. Therefore, the emulation must call [`Routing::invalidate`](crate::Routing::invalidate)
//! when the guest invalidates. Blocked messages are not copied, because an IOMMU's TLB holds no
//! invalid entries: a guest may map a page without an invalidation, and the next message then
//! arrives.
//!
//! A message whose sender has no DeviceID ([`Sender::Anonymous`]) is not translated. Behind an
//! IOMMU, give functions a DeviceID even if the doorbell ignores it.
//!
//! # What an invalidation waits for
//!
//! The router counts each message from its look-up until it has been sent. The message belongs to
//! the phase in which its look-up started.
//!
//! 1. An invalidation locks the copies against additions and translates those that it concerns
//!    again. A copy whose address is no longer mapped is removed.
//! 2. It starts a new phase. A message that starts from now on finds only the new copies, or asks
//!    the IOMMU.
//! 3. It waits until all messages of the old phase have been sent, and unlocks the copies.
//!
//! A message that finds no copy asks the IOMMU, and adds a copy only if it can take the lock at
//! once. An invalidation holds the lock until such messages have been sent, so none of them can add
//! an older translation.

pub(crate) mod slot;

use crate::lock::{Mutex, WaitQueue};
use crate::sync::{AtomicU64, SeqCst};
use crate::{RoutedMessage, Sender};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::RangeInclusive;
use msi_types::{DeviceId, MsiMessage};
use slot::{Crossing, Mapping, Slot};

/// Reason for which a translation is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Access {
    /// A device has sent a message. If the IOMMU blocks it, the router drops the message, and the
    /// IOMMU should record its fault event.
    Message,
    /// No device has sent a message. The IOMMU must not record an event: a guest may crash if it
    /// sees a fault that no device caused.
    Prefetch,
}

/// An IOMMU that translates the addresses of messages. The monitor's emulation of the IOMMU
/// implements this trait.
pub trait TranslateMsi: Send + Sync {
    /// Translates the address of a device's 32-bit write, and returns the guest physical address.
    /// Returns `iova` itself if the device bypasses the IOMMU, and `None` if the IOMMU blocks the
    /// write. If the write faults, the IOMMU should record the event, because only it knows the
    /// reason. The route reports no error.
    ///
    /// Any method of a router, an MSI-X table or a set of eventfds may call this method. A lock
    /// that it takes must not be held during any such call, otherwise both threads wait forever.
    ///
    /// Context: any.
    fn translate(&self, device: DeviceId, iova: u64, access: Access) -> Option<u64>;
}

/// The translations that an invalidation command concerns.
///
/// ```
/// use irq_routing::Invalidation;
/// use msi_types::DeviceId;
///
/// let device = DeviceId::new(8);
/// let stream = Invalidation::all().with_devices(device..=device); // CMD_CFGI_STE
/// // CMD_TLBI_NH_VA of 0x8000_5000: with pages of 4 KiB, a block has up to 1 GiB.
/// let block = Invalidation::all().with_addresses(0x8000_0000..=0xbfff_ffff);
/// # drop((stream, block));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Invalidation {
    devices: RangeInclusive<DeviceId>,
    addresses: RangeInclusive<u64>,
}

impl Invalidation {
    /// Creates an invalidation of all translations.
    pub const fn all() -> Self {
        let devices = DeviceId::new(0)..=DeviceId::new(u32::MAX);
        Self { devices, addresses: 0..=u64::MAX }
    }

    /// Restricts the invalidation to these devices.
    #[must_use]
    pub fn with_devices(self, devices: RangeInclusive<DeviceId>) -> Self {
        Self { devices, ..self }
    }

    /// Restricts the invalidation to these IOVAs. If the guest's command names one address of a
    /// page or block that it unmaps, the range must be the largest block that contains the address.
    /// Otherwise, messages to the block's other pages keep their translations.
    #[must_use]
    pub fn with_addresses(self, addresses: RangeInclusive<u64>) -> Self {
        Self { addresses, ..self }
    }

    fn concerns(&self, device: DeviceId, iova: u64) -> bool {
        self.devices.contains(&device) && self.addresses.contains(&iova)
    }

    /// Returns `true` if the invalidation concerns a message.
    #[cfg(all(
        feature = "kvm",
        target_os = "linux",
        any(target_arch = "aarch64", target_arch = "x86_64")
    ))]
    pub(crate) fn concerns_message(&self, routed: RoutedMessage) -> bool {
        match routed.sender {
            Sender::Device(device) => self.concerns(device, routed.message.address),
            Sender::Anonymous => false,
        }
    }
}

/// Number of sets, a power of two. A device's translations are copied to one set.
const SETS: usize = 256;
/// Number of copies in a set. A device usually has one: the doorbell that all its vectors share.
const WAYS: usize = 4;

/// Copies of the translations of some devices, and the messages of these devices that are being
/// sent.
#[derive(Debug)]
#[repr(align(64))]
struct Set {
    crossing: Crossing,
    slots: [Slot; WAYS],
}

/// An IOMMU and copies of its translations.
pub(crate) struct Translations {
    iommu: Arc<dyn TranslateMsi>,
    sets: Box<[Set]>,
    /// Way of the next copy. The lock is held while copies change.
    next: Mutex<usize>,
    /// Queue of the thread that invalidates.
    idle: WaitQueue,
    dropped: AtomicU64,
}

impl Translations {
    pub(crate) fn new(iommu: Arc<dyn TranslateMsi>) -> Self {
        Self::with_sets(iommu, SETS)
    }

    pub(crate) fn with_sets(iommu: Arc<dyn TranslateMsi>, sets: usize) -> Self {
        let set = |_| Set { crossing: Crossing::new(), slots: [(); WAYS].map(|()| Slot::new()) };
        let sets = (0..sets).map(set).collect();
        let (next, idle) = (Mutex::new(0), WaitQueue::default());
        Self { iommu, sets, next, idle, dropped: AtomicU64::new(0) }
    }

    /// Translates a message and passes it to `forward`. Returns `None` if the IOMMU blocks the
    /// message.
    ///
    /// Context: any.
    pub(crate) fn send<T>(
        &self,
        message: RoutedMessage,
        forward: impl FnOnce(RoutedMessage) -> T,
    ) -> Option<T> {
        let sent = self.cross(message, Access::Message, forward);
        if sent.is_none() {
            self.dropped.fetch_add(1, SeqCst);
        }
        sent
    }

    /// Returns the message as the IOMMU forwards it, or `None` if the IOMMU blocks it.
    #[cfg(all(
        feature = "kvm",
        target_os = "linux",
        any(target_arch = "aarch64", target_arch = "x86_64")
    ))]
    pub(crate) fn prefetch(&self, message: RoutedMessage) -> Option<RoutedMessage> {
        self.cross(message, Access::Prefetch, |message| message)
    }

    fn cross<T>(
        &self,
        RoutedMessage { sender, message: MsiMessage { address, data } }: RoutedMessage,
        access: Access,
        forward: impl FnOnce(RoutedMessage) -> T,
    ) -> Option<T> {
        let to = |address| RoutedMessage { sender, message: MsiMessage { address, data } };
        let Sender::Device(device) = sender else { return Some(forward(to(address))) };
        let set = self.sets.get(self.index(device))?;
        let pass = set.crossing.enter(&self.idle);
        let address = set.find(device, address).or_else(|| self.walk(set, device, address, access));
        let result = address.map(|address| forward(to(address)));
        drop(pass);
        result
    }

    /// Asks the IOMMU, and copies the translation unless another thread is changing copies.
    #[cold]
    fn walk(&self, set: &Set, device: DeviceId, iova: u64, access: Access) -> Option<u64> {
        let address = self.iommu.translate(device, iova, access)?;
        let Some(mut next) = self.next.try_lock() else { return Some(address) };
        if set.find(device, iova).is_none() {
            *next = (*next + 1) % WAYS;
            let free = set.slots.iter().find(|slot| slot.is_free());
            if let Some(slot) = free.or(set.slots.get(*next)) {
                slot.store(Some(Mapping { device, iova, address }));
            }
        }
        Some(address)
    }

    /// Translates copies again, and waits for messages that may use the old ones.
    pub(crate) fn invalidate(&self, invalidation: &Invalidation) {
        let next = self.next.lock();
        let (first, last) = (*invalidation.devices.start(), *invalidation.devices.end());
        let sets = match self.sets.get(self.index(first)).filter(|_| first == last) {
            Some(set) => core::slice::from_ref(set),
            None => &*self.sets,
        };
        for set in sets {
            set.retranslate(invalidation, &*self.iommu);
        }
        for set in sets {
            set.crossing.drain(&self.idle);
        }
        drop(next);
    }

    /// Returns the index of a device's set. Buses of PCI Express often have a single device, so the
    /// bus number counts, too.
    fn index(&self, device: DeviceId) -> usize {
        let bytes = device.get().to_le_bytes().into_iter();
        bytes.fold(0, |index, byte| index ^ usize::from(byte)) & self.sets.len().wrapping_sub(1)
    }

    /// Returns the number of messages that the IOMMU has blocked.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(SeqCst)
    }
}

impl Set {
    fn find(&self, device: DeviceId, iova: u64) -> Option<u64> {
        let mut mappings = self.slots.iter().filter_map(Slot::load);
        let found = mappings.find(|mapping| (mapping.device, mapping.iova) == (device, iova))?;
        Some(found.address)
    }

    /// Callers must hold the lock of the copies.
    fn retranslate(&self, invalidation: &Invalidation, iommu: &dyn TranslateMsi) {
        for slot in &self.slots {
            let Some(old) = slot.load() else { continue };
            let Mapping { device, iova, .. } = old;
            if invalidation.concerns(device, iova) {
                let address = iommu.translate(device, iova, Access::Prefetch);
                let new = address.map(|address| Mapping { device, iova, address });
                // A slot that changes makes messages ask the IOMMU.
                if new != Some(old) {
                    slot.store(new);
                }
            }
        }
    }
}

msi_types::debug_by!(Translations as "Translations", |it| {dropped: it.dropped()});
