//! Opening and closing of vectors, and the cost of both.

use super::rig::{DEVICE, ENABLED, HELD_BACK, MASKED, Rig, event, pending, program, router, table};
use crate::controller::{Controller, Heard};
use irq_routing::msix::{MsixTable, Signaled, VectorObserver};
use irq_routing::{GsiSpace, MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::{Delivery, DeviceId};
use std::sync::{Arc, Mutex};

const SENT: Signaled = Signaled::Sent(Delivery::Pending);

#[test]
fn a_message_after_a_bus_change_carries_the_new_device_id() {
    let rig = Rig::new(2);
    rig.table.write_control(ENABLED);
    program(&rig.table, 1, 3, 0);
    rig.table.set_sender(Sender::Device(DeviceId::new(0x108)));
    rig.table.signal(1);
    assert_eq!(rig.controller.heard(), [Heard::Event(DeviceId::new(0x108), 3)]);
}

/// cloud-hypervisor ran out of its 4096 routes with one 2048-vector NVMe device, because each
/// vector had a route from the beginning.
#[test]
fn msix_vectors_allocate_no_gsis() {
    let (router, controller) = router(GsiSpace::new(1000).with_first_allocated(1000));
    let tables: Vec<_> = (0..8).map(|_| table(2048, &router)).collect();
    for table in &tables {
        table.write_control(ENABLED);
        (0..2048).for_each(|vector| program(table, vector, vector.into(), 0));
        assert_eq!(table.signal(2047), SENT);
    }

    assert_eq!(controller.heard(), [event(2047); 8]);
    assert_eq!(router.routes(), []);
}

/// A driver that polls has already handled the interrupt's cause, so an unmask must not send the
/// message.
#[test]
fn withdrawn_message_is_not_sent_on_unmask() {
    let rig = Rig::new(2);
    rig.table.write_control(ENABLED);
    assert_eq!([0, 1].map(|vector| rig.table.signal(vector)), [Signaled::Held; 2]);

    rig.table.withdraw(1);

    assert_eq!(pending(&rig.table, 0), 1);
    (0..2).for_each(|vector| program(&rig.table, vector, 10 + u32::from(vector), 0));
    rig.table.withdraw(0);
    rig.table.withdraw(2);
    assert_eq!(rig.table.signal(0), SENT);
    assert_eq!(rig.controller.heard(), [event(10), event(10)]);
}

/// Host that refuses one particular message.
struct Choosy(Arc<dyn MessageSink>);

impl Choosy {
    const REFUSED: u32 = 0xbad;
    const ERROR: SignalError = SignalError::Refused { errno: 22 };
}

impl MessageSink for Choosy {
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError> {
        if message.message.data == Self::REFUSED {
            return Err(Self::ERROR);
        }
        self.0.signal_msi(message)
    }
}

#[test]
fn signaling_a_refused_message_returns_its_error() {
    let (router, controller) = router(GsiSpace::default());
    let table = MsixTable::new(3, Sender::Device(DEVICE), Arc::new(Choosy(router))).unwrap();
    table.write_control(HELD_BACK);
    [10, Choosy::REFUSED, 12].into_iter().zip(0..).for_each(|(data, at)| {
        program(&table, at, data, 0);
    });
    table.write_control(ENABLED);

    let signaled = [0, 1, 2].map(|vector| table.signal(vector));

    assert_eq!(signaled, [SENT, Signaled::Refused(Choosy::ERROR), SENT]);
    assert_eq!(controller.heard(), [event(10), event(12)]);
}

#[derive(Default)]
struct Told(Mutex<Vec<(u16, Option<u32>)>>);

impl Told {
    fn take(&self) -> Vec<(u16, Option<u32>)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl VectorObserver for Told {
    fn opened(&self, vector: u16, RoutedMessage { sender, message }: RoutedMessage) {
        assert_eq!((sender, message.address), (Sender::Device(DEVICE), Controller::ITS));
        self.0.lock().unwrap().push((vector, Some(message.data)));
    }

    fn closed(&self, vector: u16) {
        self.0.lock().unwrap().push((vector, None));
    }
}

#[test]
fn an_observer_is_notified_of_messages_and_masks() {
    let (router, _) = router(GsiSpace::default());
    let told = Arc::new(Told::default());
    let table = table(2, &router).with_observer(told.clone());
    table.write_control(ENABLED);
    table.write(0x10, &Controller::ITS.to_le_bytes());
    table.write(0x18, &11u64.to_le_bytes());
    assert_eq!(told.take(), [(1, Some(11))]);

    table.write(0x1c, &MASKED.to_le_bytes());
    table.write(0x18, &12u64.to_le_bytes());
    table.write(0x18, &13u32.to_le_bytes());
    table.write_control(ENABLED);
    drop(table);

    let unmasked_with_12 = [(1, None), (1, Some(12))];
    let overwritten_with_13 = [(1, None), (1, Some(13))];
    let dropped = [(1, None)];
    let expected: Vec<_> = [&unmasked_with_12[..], &overwritten_with_13, &dropped].concat();
    assert_eq!(told.take(), expected);
}
