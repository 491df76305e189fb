//! A virtio device's notifications: vectors that the guest changes, and the pin.
#![cfg(target_os = "linux")]

use crate::controller::{Controller, Heard};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::saved_state::{StateError, VirtioState};
use irq_routing::virtio::Notification::{self, ConfigurationChange, UsedBuffer};
use irq_routing::virtio::{NO_VECTOR, VirtioNotifier};
use irq_routing::{GsiSpace, Router, Sender};
use msi_types::{Delivery, DeviceId, Level};
use proptest::prelude::*;
use std::mem;
use std::sync::{Arc, Mutex};

const VECTORS: u16 = 3;
const QUEUES: u16 = 2;
const SENT: Option<Signaled> = Some(Signaled::Sent(Delivery::Pending));

struct Rig {
    notifier: VirtioNotifier,
    table: Arc<MsixTable>,
    controller: Arc<Controller>,
    pin: Arc<Mutex<Vec<Level>>>,
}

impl Rig {
    /// Creates a device whose vectors are unmasked and send their numbers. MSI-X is disabled.
    fn new() -> Self {
        let (controller, router) = controller();
        let table = Arc::new(unmasked(MsixTable::new(VECTORS, SENDER, router).unwrap()));
        let pin = Arc::new(Mutex::new(Vec::new()));
        let driven = pin.clone();
        let notifier = VirtioNotifier::new(table.clone(), QUEUES)
            .with_pin(move |level| driven.lock().unwrap().push(level));
        Self { notifier, table, controller, pin }
    }

    /// Creates a device with MSI-X enabled and these vectors.
    fn with_vectors(vectors: [u16; 3]) -> Self {
        let rig = Self::new();
        rig.enable(true);
        for (notification, vector) in ALL.into_iter().zip(vectors) {
            rig.notifier.write_vector(notification, vector);
        }
        rig
    }

    fn enable(&self, enable: bool) {
        self.notifier.write_capability(3, &[u8::from(enable) << 7]);
    }

    fn heard(&self) -> Vec<u32> {
        heard(&self.controller)
    }

    /// Returns the levels to which the pin was driven since the last call.
    fn pin(&self) -> Vec<Level> {
        mem::take(&mut self.pin.lock().unwrap())
    }

    fn vectors(&self) -> [u16; 3] {
        ALL.map(|notification| self.notifier.vector(notification))
    }
}

const SENDER: Sender = Sender::Device(DeviceId::new(8));
const ALL: [Notification; 3] = [ConfigurationChange, UsedBuffer(0), UsedBuffer(1)];

fn controller() -> (Arc<Controller>, Arc<Router>) {
    let controller = Arc::new(Controller::default());
    let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
    (controller, Arc::new(router))
}

fn unmasked(table: MsixTable) -> MsixTable {
    for vector in 0..VECTORS {
        table.write(u64::from(vector) * 16, &Controller::ITS.to_le_bytes());
        table.write(u64::from(vector) * 16 + 8, &u64::from(vector).to_le_bytes());
    }
    table
}

/// Returns the data of the messages that arrived since the last call.
fn heard(controller: &Controller) -> Vec<u32> {
    let data = |heard| match heard {
        Heard::Event(_, data) => data,
        other => panic!("{other:?}"),
    };
    controller.heard().into_iter().map(data).collect()
}

#[test]
fn device_refuses_a_vector_that_its_table_lacks() {
    let rig = Rig::with_vectors([VECTORS - 1, VECTORS, u16::MAX - 1]);
    assert_eq!(rig.vectors(), [VECTORS - 1, NO_VECTOR, NO_VECTOR]);
    rig.notifier.write_vector(ConfigurationChange, VECTORS);
    assert_eq!(rig.vectors(), [NO_VECTOR; 3]);
}

#[test]
fn reset_removes_all_vectors_but_keeps_the_table() {
    let rig = Rig::with_vectors([0, 1, 2]);
    rig.notifier.notify(ConfigurationChange);
    rig.notifier.reset();
    assert_eq!((rig.vectors(), rig.notifier.take_isr()), ([NO_VECTOR; 3], 0));
    assert!(rig.table.control().enable());
    rig.notifier.write_vector(UsedBuffer(1), 1);
    assert_eq!(rig.notifier.notify(UsedBuffer(1)), SENT);
}

#[test]
fn device_asserts_its_pin_until_the_guest_reads_the_status() {
    let rig = Rig::new();
    assert_eq!(rig.notifier.notify(UsedBuffer(1)), Some(Signaled::Disabled));
    assert_eq!(rig.notifier.notify(ConfigurationChange), Some(Signaled::Disabled));
    assert_eq!(rig.pin(), [Level::High]);
    assert_eq!(rig.notifier.take_isr(), 3);
    assert_eq!((rig.pin(), rig.notifier.take_isr()), (vec![Level::Low], 0));
    assert_eq!(rig.heard().len(), 0);
}

#[test]
fn isr_status_reports_configuration_changes_despite_msix() {
    let rig = Rig::with_vectors([0, 1, 2]);
    rig.notifier.notify(UsedBuffer(0));
    assert_eq!(rig.notifier.take_isr(), 0);
    rig.notifier.notify(ConfigurationChange);
    assert_eq!((rig.notifier.take_isr(), rig.pin()), (2, vec![]));
}

#[test]
fn interrupt_status_matches_the_pin_level() {
    let rig = Rig::new();
    rig.notifier.notify(UsedBuffer(0));
    assert!(rig.notifier.interrupt_status());
    rig.enable(true);
    assert!(!rig.notifier.interrupt_status());
    rig.enable(false);
    drop(rig.notifier);
    assert_eq!(*rig.pin.lock().unwrap(), [Level::High, Level::Low, Level::High, Level::Low]);
}

#[test]
fn reset_withdraws_pending_messages() {
    let rig = Rig::with_vectors([0, 1, 2]);
    rig.table.write(16 + 12, &1u32.to_le_bytes());
    rig.notifier.notify(UsedBuffer(0));
    rig.notifier.reset();
    rig.table.write(16 + 12, &0u32.to_le_bytes());
    assert_eq!(rig.heard().len(), 0);
}

#[test]
fn restore_drives_the_pin_even_if_unchanged() {
    let rig = Rig::new();
    rig.notifier.notify(UsedBuffer(0));
    let state = rig.notifier.save();
    rig.notifier.restore(&state).unwrap();
    assert_eq!(rig.pin(), [Level::High, Level::High]);
}

#[test]
fn refused_restore_leaves_the_notifier_unchanged() {
    let rig = Rig::with_vectors([0, 1, 2]);
    let before = rig.notifier.save();
    let changed = |change: fn(&mut VirtioState)| {
        let mut state = before.clone();
        change(&mut state);
        rig.notifier.restore(&state)
    };
    let refused = [
        (changed(|state| state.version = 99), StateError::Version(99)),
        (
            changed(|state| state.queue_vectors.push(0)),
            StateError::Queues { saved: 3, here: QUEUES.into() },
        ),
        (changed(|state| state.queue_vectors[1] = VECTORS), StateError::Vector(VECTORS)),
        (changed(|state| state.configuration_vector = 0xfffe), StateError::Vector(0xfffe)),
        (
            changed(|state| state.isr = 0x84),
            StateError::ReservedBits { register: "ISR status", value: 0x84 },
        ),
    ];
    for (answer, error) in refused {
        assert_eq!(answer, Err(error));
    }
    assert_eq!(rig.notifier.save(), before);
}

fn any_notification() -> impl Strategy<Value = Notification> {
    prop_oneof![Just(ConfigurationChange), (0..QUEUES).prop_map(UsedBuffer)]
}

proptest! {
    #[test]
    fn restored_device_notifies_like_the_saved_one(
        writes in prop::collection::vec((any_notification(), 0..VECTORS + 2), 0..10),
        notified in prop::collection::vec(any_notification(), 0..6),
        enabled: bool,
    ) {
        let [one, other] = [Rig::new(), Rig::new()];
        one.enable(enabled);
        for (notification, vector) in writes {
            one.notifier.write_vector(notification, vector);
        }
        for notification in notified {
            one.notifier.notify(notification);
        }
        let state = serde_json::to_string(&one.notifier.save()).unwrap();
        other.table.restore(&one.table.save()).unwrap();
        other.notifier.restore(&serde_json::from_str(&state).unwrap()).unwrap();
        let last = |rig: &Rig| rig.pin().last().copied().unwrap_or(Level::Low);
        prop_assert_eq!(last(&other), last(&one));
        prop_assert_eq!(other.vectors(), one.vectors());
        one.heard();
        other.heard();
        for notification in ALL {
            let [here, there] = [&one, &other].map(|rig| rig.notifier.notify(notification));
            prop_assert_eq!(here, there);
        }
        prop_assert_eq!(one.heard(), other.heard());
        prop_assert_eq!(one.notifier.take_isr(), other.notifier.take_isr());
        prop_assert_eq!(last(&other), last(&one));
    }
}
