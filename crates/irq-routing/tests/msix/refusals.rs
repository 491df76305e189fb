//! Routes that a host refuses.

use crate::controller::Controller;
use crate::rig::{DEVICE, ENABLED, HELD_BACK, event, program};
use irq_routing::msix::{MsixTable, Signalled};
use irq_routing::{
    Change, Changes, GsiSpace, Route, RouteError, Router, Routing, Sender, SignalError,
};
use msi_types::{Delivery, Gsi};
use std::sync::Arc;

/// Routes of a host that takes no message with this data.
struct Choosy(Router);

impl Choosy {
    const REFUSED: u32 = 0xbad;
    const ERROR: RouteError = RouteError::Refused { errno: 22 };

    /// A table of three vectors whose first two are unmasked, with messages 10 and 11.
    fn table() -> (MsixTable, Arc<Controller>) {
        let controller = Arc::new(Controller::default());
        let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
        let table = MsixTable::new(3, Sender::Device(DEVICE), Arc::new(Self(router))).unwrap();
        table.write_control(ENABLED).unwrap();
        (0..2).for_each(|vector| program(&table, vector, 10 + u32::from(vector), 0).unwrap());
        (table, controller)
    }
}

impl Routing for Choosy {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.0.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        self.0.release(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        let data = |change: &Change| match change.route() {
            Some(Route::Message(routed)) => Some(routed.message.data),
            _ => None,
        };
        if changes.iter().any(|change| data(change) == Some(Self::REFUSED)) {
            return Err(Self::ERROR);
        }
        self.0.commit(changes)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        self.0.signal(gsi)
    }
}

#[test]
fn routed_vectors_send_despite_a_refused_route() {
    let (table, controller) = Choosy::table();
    table.write_control(HELD_BACK).unwrap();
    program(&table, 2, Choosy::REFUSED, 0).unwrap();
    assert_eq!(table.signal(1), Signalled::Held);

    assert_eq!(table.write_control(ENABLED), Err(Choosy::ERROR));

    assert_eq!(
        [0, 2].map(|vector| table.signal(vector)),
        [Signalled::Sent(Delivery::Pending), Signalled::Held]
    );
    assert_eq!(controller.heard(), [event(11), event(10)]);
}

#[test]
fn overwritten_message_needs_its_new_route() {
    let (table, controller) = Choosy::table();

    assert_eq!(table.write(8, &Choosy::REFUSED.to_le_bytes()), Err(Choosy::ERROR));

    assert_eq!(table.signal(0), Signalled::Held);
    assert_eq!(table.gsi(0), None);
    table.write(8, &13u32.to_le_bytes()).unwrap();
    assert_eq!(controller.heard(), [event(13)]);
}
