//! Messages while the guest changes the IOMMU's mapping and invalidates.

use super::{explore, explore_all, explore_random, numbered};
use crate::lock::WaitQueue;
use crate::sync::{AtomicBool, AtomicU64, SeqCst};
use crate::translation::slot::{Crossing, Mapping, Slot};
use crate::translation::{Access, Invalidation, TranslateMsi, Translations};
use crate::{RoutedMessage, Sender};
use msi_types::DeviceId;
use shuttle::{sync::Arc, thread};

/// The guest's mapping of the message's page, with a higher address at each change.
struct Mapped(AtomicU64);

impl TranslateMsi for Mapped {
    fn translate(&self, _: DeviceId, _: u64, _: Access) -> Option<u64> {
        Some(self.0.load(SeqCst))
    }
}

struct Machine {
    translations: Translations,
    mapped: Arc<Mapped>,
    /// The mapping of the last invalidation that has completed.
    completed: AtomicU64,
}

impl Machine {
    fn new() -> Arc<Self> {
        let mapped = Arc::new(Mapped(AtomicU64::new(1)));
        let translations = Translations::with_sets(mapped.clone(), 2);
        Arc::new(Self { translations, mapped, completed: AtomicU64::new(1) })
    }

    fn send(&self) -> Option<u64> {
        self.translations.send(numbered(1), |RoutedMessage { message, .. }| {
            assert!(message.address >= self.completed.load(SeqCst), "an old translation");
            message.address
        })
    }

    /// Maps another address and completes the invalidation.
    fn remap(&self, address: u64, invalidation: &Invalidation) {
        self.mapped.0.store(address, SeqCst);
        self.translations.invalidate(invalidation);
        self.completed.store(address, SeqCst);
    }
}

fn of_device() -> Invalidation {
    let Sender::Device(device) = numbered(1).sender else { return Invalidation::all() };
    Invalidation::all().with_devices(device..=device)
}

#[test]
fn no_message_uses_a_translation_after_its_invalidation() {
    fn scenario() {
        let machine = Machine::new();
        machine.send();
        let devices = [(), ()].map(|()| {
            let machine = machine.clone();
            thread::spawn(move || (machine.send(), machine.send()))
        });
        machine.remap(2, &of_device());
        machine.remap(3, &Invalidation::all());
        for device in devices {
            device.join().unwrap();
        }
        assert_eq!(machine.send(), Some(3));
    }
    explore(2_500, scenario);
}

#[test]
fn an_invalidation_discards_a_concurrent_translation() {
    fn scenario() {
        let machine = Machine::new();
        let device = thread::spawn({
            let machine = machine.clone();
            move || machine.send()
        });
        machine.remap(2, &of_device());
        assert_eq!(machine.send(), Some(2));
        device.join().unwrap();
        assert_eq!(machine.send(), Some(2));
    }
    explore(2_500, scenario);
}

#[test]
fn later_messages_do_not_delay_an_invalidation() {
    fn scenario() {
        let crossing = Arc::new((Crossing::new(), WaitQueue::default(), AtomicBool::new(false)));
        let pass = crossing.0.enter(&crossing.1);
        let guest = thread::spawn({
            let crossing = crossing.clone();
            move || {
                crossing.0.drain(&crossing.1);
                crossing.2.store(true, SeqCst);
            }
        });
        let phase = pass.unit();
        let device = thread::spawn({
            let crossing = crossing.clone();
            move || {
                let mut later = crossing.0.enter(&crossing.1);
                while later.unit() == phase {
                    drop(later);
                    thread::yield_now();
                    later = crossing.0.enter(&crossing.1);
                }
                // This message is being sent until the invalidation has completed.
                while !crossing.2.load(SeqCst) {
                    thread::yield_now();
                }
            }
        });
        drop(pass);
        device.join().unwrap();
        guest.join().unwrap();
    }
    explore_random(1_000, scenario);
}

#[test]
fn a_later_message_does_not_wake_an_invalidation() {
    fn scenario() {
        let crossing = Arc::new((Crossing::new(), WaitQueue::default()));
        let pass = crossing.0.enter(&crossing.1);
        let guest = thread::spawn({
            let crossing = crossing.clone();
            move || crossing.0.drain(&crossing.1)
        });
        // The queue is locked here, so a message that wakes its waiters would wait for itself.
        crossing.1.wait_until(|| {
            drop(crossing.0.enter(&crossing.1));
            true
        });
        drop(pass);
        guest.join().unwrap();
    }
    explore_all(100, scenario);
}

/// An IOMMU that a device's message may ask only once.
struct AskedOnce(AtomicBool);

impl TranslateMsi for AskedOnce {
    fn translate(&self, _: DeviceId, iova: u64, access: Access) -> Option<u64> {
        assert!(access == Access::Prefetch || !self.0.swap(true, SeqCst), "asked again");
        Some(iova)
    }
}

#[test]
fn an_invalidation_keeps_an_unchanged_translation_in_use() {
    fn scenario() {
        let iommu = Arc::new(AskedOnce(AtomicBool::new(false)));
        let translations = Arc::new(Translations::with_sets(iommu, 2));
        translations.send(numbered(1), drop);
        let device = thread::spawn({
            let translations = translations.clone();
            move || translations.send(numbered(1), drop)
        });
        translations.invalidate(&of_device());
        assert_eq!(device.join().unwrap(), Some(()));
    }
    explore(500, scenario);
}

#[test]
fn a_concurrent_lookup_never_returns_a_torn_mapping() {
    fn mapping(number: u32) -> Mapping {
        let (iova, address) = (number.into(), number.into());
        Mapping { device: DeviceId::new(number), iova, address }
    }

    fn scenario() {
        let slot = Arc::new(Slot::new());
        slot.store(Some(mapping(1)));
        let writer = thread::spawn({
            let slot = slot.clone();
            move || [Some(mapping(2)), None].into_iter().for_each(|mapping| slot.store(mapping))
        });
        let seen = slot.load();
        assert!([None, Some(mapping(1)), Some(mapping(2))].contains(&seen), "{seen:?}");
        writer.join().unwrap();
        assert_eq!(slot.load(), None);
    }
    explore_all(500, scenario);
}
