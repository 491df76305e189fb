//! Explanations of vectors and GSIs, with the controller's explanation appended.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controller;

use controller::Controller;
use irq_routing::msix::{MsixTable, Signalled};
use irq_routing::{GsiSpace, Pin, Route, Router, Sender};
use msi_types::explain::{ExplainInput, Explanation, Fact, Obstacle};
use msi_types::pci::msix::Control;
use msi_types::{DeviceId, Gsi, HwIrq, Line, MsiMessage};
use std::sync::Arc;

const DEVICE: DeviceId = DeviceId::new(8);
const ENABLED: Control = Control::new().with_enable(true);
const MESSAGE: MsiMessage = MsiMessage { address: Controller::ITS, data: 3 };

/// A controller that reports a different obstacle for each kind of input.
struct Unmapped;

impl ExplainInput for Unmapped {
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation {
        Explanation::new().with_fact(Fact::Doorbell(message.address)).with_obstacle(match sender {
            Some(device) => Obstacle::UnmappedDevice { device, mapped: message.data },
            None => Obstacle::NoIdentity { address: message.address },
        })
    }

    fn explain_line(&self, line: Line) -> Explanation {
        let Line::Spi(spi) = line else { panic!("a GSI is never a PPI") };
        Explanation::new().with_obstacle(Obstacle::Disabled { interrupt: HwIrq::new(spi) })
    }
}

struct Rig {
    router: Arc<Router>,
    controller: Arc<Controller>,
}

impl Rig {
    fn new() -> Self {
        let controller = Arc::new(Controller::default());
        let inputs = controller.inputs().with_explainer(Arc::new(Unmapped));
        let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
        Self { router, controller }
    }

    /// Returns an enabled table whose vector 0 is programmed and unmasked.
    fn table(&self, sender: Sender) -> MsixTable {
        let table = MsixTable::new(2, sender, self.router.clone()).unwrap();
        table.write_control(ENABLED);
        table.write(0, &MESSAGE.address.to_le_bytes());
        table.write(8, &MESSAGE.data.to_le_bytes());
        table.write(12, &0u32.to_le_bytes());
        table
    }
}

#[test]
fn an_open_vector_is_followed_into_the_controller() {
    let rig = Rig::new();
    let explanation = rig.table(Sender::Device(DEVICE)).explain(0);
    let expected = Obstacle::UnmappedDevice { device: DEVICE, mapped: MESSAGE.data };
    assert_eq!(explanation.obstacle(), Some(expected));
    let facts = [Fact::Message(MESSAGE), Fact::Doorbell(MESSAGE.address)];
    assert!(explanation.facts().eq(facts));
    let anonymous = rig.table(Sender::Anonymous).explain(0);
    let expected = Obstacle::NoIdentity { address: MESSAGE.address };
    assert_eq!(anonymous.obstacle(), Some(expected));
    assert_eq!(rig.controller.heard(), [], "an explanation must not send the message");
}

#[test]
fn each_mask_is_named() {
    let rig = Rig::new();
    let table = rig.table(Sender::Device(DEVICE));
    let obstacle = || table.explain(0).obstacle();
    table.write_control(ENABLED.with_function_mask(true));
    assert_eq!(obstacle(), Some(Obstacle::FunctionMasked));
    table.write_control(Control::new().with_function_mask(true));
    assert_eq!(obstacle(), Some(Obstacle::MessagesDisabled));
    table.write_control(ENABLED);
    table.write(12, &1u32.to_le_bytes());
    assert_eq!(obstacle(), Some(Obstacle::VectorMasked { vector: 0, pending: false }));
    assert_eq!(table.signal(0), Signalled::Held);
    assert_eq!(obstacle(), Some(Obstacle::VectorMasked { vector: 0, pending: true }));
}

#[test]
fn a_vector_without_a_message_is_named() {
    let rig = Rig::new();
    let table = rig.table(Sender::Device(DEVICE));
    table.write(28, &0u32.to_le_bytes());
    assert_eq!(table.explain(1).obstacle(), Some(Obstacle::NoMessage));
}

#[test]
fn a_vector_beyond_the_table_is_named() {
    let table = Rig::new().table(Sender::Device(DEVICE));
    let expected = Obstacle::NoVector { vector: 2, vectors: 2 };
    assert_eq!(table.explain(2).obstacle(), Some(expected));
}

#[test]
fn a_gsi_is_followed_along_its_route() {
    let rig = Rig::new();
    let message = Route::to_its(DEVICE, MESSAGE);
    let routes = [(Gsi::new(5), message), (Gsi::new(6), Route::Pin(Pin::new(7).unwrap()))];
    rig.router.replace(&routes).unwrap();
    let by_message = rig.router.explain(Gsi::new(5));
    let expected = Obstacle::UnmappedDevice { device: DEVICE, mapped: MESSAGE.data };
    assert_eq!(by_message.obstacle(), Some(expected));
    let interrupt = HwIrq::new(39);
    let by_pin = rig.router.explain(Gsi::new(6));
    assert_eq!(by_pin.obstacle(), Some(Obstacle::Disabled { interrupt }));
    assert!(by_pin.facts().eq([Fact::Route { gsi: Gsi::new(6), interrupt }]));
}

#[test]
fn a_gsi_without_a_route_is_named() {
    let rig = Rig::new();
    rig.router.replace(&[]).unwrap();
    for gsi in [Gsi::new(5), Gsi::new(u32::MAX)] {
        assert_eq!(rig.router.explain(gsi).obstacle(), Some(Obstacle::NoRoute { gsi }));
    }
}

#[test]
fn a_router_without_explanations_ends_at_the_message() {
    let controller = Arc::new(Controller::default());
    let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
    router.replace(&[(Gsi::new(5), Route::to_its(DEVICE, MESSAGE))]).unwrap();
    let explanation = router.explain(Gsi::new(5));
    assert_eq!(explanation.obstacle(), None);
    assert!(explanation.facts().eq([Fact::Message(MESSAGE)]));
}
