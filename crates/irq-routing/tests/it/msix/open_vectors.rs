//! Opening and closing of vectors, and the cost of both.

use super::rig::{DEVICE, ENABLED, HELD_BACK, Rig, event, program, router};
use crate::controller::Heard;
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{GsiSpace, MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::{Delivery, DeviceId};
use std::sync::Arc;

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
