//! Explanations of vectors and GSIs, with the controller's explanation appended.

use crate::controller::{Controller, Heard};
use doorbell_test_support::{Score, other_values};
use irq_routing::msi::{MsiCapability, MsiLayout};
use irq_routing::msix::{BusMaster, MsixTable, Signaled};
use irq_routing::{GsiSpace, Pin, Route, Router, Sender};
use msi_types::explain::{ExplainInput, Explanation, Fact, Obstacle};
use msi_types::pci::msi;
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
        Explanation::stopped(Obstacle::Disabled { interrupt: HwIrq::new(spi) })
    }
}

struct Rig {
    router: Arc<Router>,
}

impl Rig {
    fn new() -> Self {
        let controller = Arc::new(Controller::default());
        let inputs = controller.inputs().with_explainer(Arc::new(Unmapped));
        Self { router: Arc::new(Router::new(GsiSpace::default(), inputs).unwrap()) }
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
fn explain_follows_a_gsi_along_its_route() {
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
fn explain_reports_a_gsi_without_a_route() {
    let rig = Rig::new();
    rig.router.replace(&[]).unwrap();
    for gsi in [Gsi::new(5), Gsi::new(u32::MAX)] {
        assert_eq!(rig.router.explain(gsi).obstacle(), Some(Obstacle::NoRoute { gsi }));
    }
}

#[test]
fn explain_stops_at_the_message_if_the_controller_cannot_explain() {
    let controller = Arc::new(Controller::default());
    let router = Router::new(GsiSpace::default(), controller.inputs()).unwrap();
    router.replace(&[(Gsi::new(5), Route::to_its(DEVICE, MESSAGE))]).unwrap();
    let explanation = router.explain(Gsi::new(5));
    assert_eq!(explanation.obstacle(), None);
    assert!(explanation.facts().eq([Fact::Message(MESSAGE)]));
}

/// Returns a capability with four vectors, two of which are granted.
fn capability(sender: Sender, router: Arc<Router>) -> MsiCapability {
    let layout = MsiLayout { log2_vectors: 2, address_64: true, per_vector_masking: true };
    let capability = MsiCapability::new(layout, 0, sender, router).unwrap();
    capability.write(4, &MESSAGE.address.to_le_bytes());
    capability.write(12, &2u16.to_le_bytes());
    enable(&capability, true);
    capability
}

fn enable(capability: &MsiCapability, enabled: bool) {
    let control = msi::Control::new().with_enable(enabled).with_multiple_message_enable(1);
    capability.write(2, &u16::from(control).to_le_bytes());
}

#[test]
fn explain_reports_the_obstacles_of_msi_capability_vectors() {
    let rig = Rig::new();
    let capability = capability(Sender::Device(DEVICE), rig.router.clone());
    let obstacle = |vector| capability.explain(vector).obstacle();
    let reaches = |data| Some(Obstacle::UnmappedDevice { device: DEVICE, mapped: data });
    assert_eq!([obstacle(0), obstacle(1)], [reaches(2), reaches(3)]);
    assert!(capability.explain(1).facts().any(|fact| fact == Fact::Message(MESSAGE)));
    let missing = |vector| Some(Obstacle::NoVector { vector, vectors: 2 });
    assert_eq!([obstacle(2), obstacle(u16::MAX)], [missing(2), missing(u16::MAX)]);
    capability.write(16, &1u32.to_le_bytes());
    let masked = |pending| Some(Obstacle::VectorMasked { vector: 0, pending });
    assert_eq!([obstacle(0), obstacle(1)], [masked(false), reaches(3)]);
    assert_eq!(capability.signal(0), Signaled::Held);
    assert_eq!(obstacle(0), masked(true));
    capability.set_bus_master(BusMaster::Disabled);
    assert_eq!(obstacle(1), Some(Obstacle::BusMasterDisabled));
    enable(&capability, false);
    assert_eq!([obstacle(1), obstacle(9)], [Some(Obstacle::MessagesDisabled); 2]);
}

#[test]
fn explain_considers_both_msi_and_msix_of_a_function() {
    let rig = Rig::new();
    let table = rig.table(Sender::Anonymous);
    let capability = capability(Sender::Device(DEVICE), rig.router.clone());
    let by_table = Obstacle::NoIdentity { address: MESSAGE.address };
    let by_capability = Obstacle::UnmappedDevice { device: DEVICE, mapped: 2 };
    for (msi, msix, expected) in [
        (false, false, Obstacle::MessagesDisabled),
        (false, true, by_table),
        (true, false, by_capability),
        (true, true, Obstacle::BothEnabled),
    ] {
        enable(&capability, msi);
        table.write_control(Control::new().with_enable(msix));
        let explained = capability.explain_beside(&table, 0);
        assert_eq!(explained.obstacle(), Some(expected), "{msi} {msix}");
    }
}

/// The event that is mapped. Another message meets an obstacle that shows the difference.
struct Mapped;

impl ExplainInput for Mapped {
    fn explain_message(&self, sender: Option<DeviceId>, message: MsiMessage) -> Explanation {
        let MsiMessage { address, data } = message;
        let stopped = Explanation::stopped;
        match sender {
            _ if address != MESSAGE.address => {
                stopped(Obstacle::NoDoorbell { address, doorbell: Some(MESSAGE.address) })
            }
            None => stopped(Obstacle::NoIdentity { address }),
            Some(device) if device != DEVICE => {
                stopped(Obstacle::UnmappedDevice { device, mapped: 1 })
            }
            Some(device) if data != MESSAGE.data => {
                stopped(Obstacle::UnmappedEvent { device, event: data.into() })
            }
            Some(_) => Explanation::new().with_fact(Fact::Doorbell(address)),
        }
    }

    fn explain_line(&self, _: Line) -> Explanation {
        unreachable!("the function has no line")
    }
}

/// A register of a function with MSI and MSI-X, or a setting of its VMM.
#[derive(Clone, Copy)]
enum Place {
    MsiControl,
    Msi(u16),
    MsixControl,
    Entry(u64),
    Sender,
    /// Bus Master Enable.
    Command,
}

/// Returns the values of a function whose vector 0 works, and words that name each.
fn working(uses_msix: bool) -> Vec<(Place, u64, u32, &'static [&'static str])> {
    let message = [MESSAGE.address, MESSAGE.data.into()];
    let (entry, msi) = if uses_msix { (message, [0; 2]) } else { ([0; 2], message) };
    let (control, enabled) = (&["Message Control"], 1 << 15);
    vec![
        (Place::Command, 1, 1, &["Bus Master Enable"]),
        (Place::Sender, DEVICE.get().into(), 32, &["DeviceID"]),
        (Place::Msi(4), msi[0], 64, &["sends 0x", "holds no message"]),
        (Place::Msi(12), msi[1], 16, &["sends 0x"]),
        (Place::Msi(16), 0, 32, &["is masked"]),
        (Place::MsiControl, u64::from(!uses_msix), 16, control),
        (Place::Entry(0), entry[0], 64, &["sends 0x", "holds no message"]),
        (Place::Entry(8), entry[1], 32, &["sends 0x"]),
        (Place::Entry(12), 0, 32, &["is masked"]),
        (Place::MsixControl, u64::from(uses_msix) * enabled, 16, control),
    ]
}

/// Programs a function, and signals vector 0. Returns the explanation before the signal, and `true`
/// if the controller receives the mapped event.
fn run(places: impl Iterator<Item = (Place, u64)>) -> (String, bool) {
    let controller = Arc::new(Controller::default());
    let inputs = controller.inputs().with_explainer(Arc::new(Mapped));
    let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
    let table = MsixTable::new(2, Sender::Device(DEVICE), router.clone()).unwrap();
    let layout = MsiLayout { log2_vectors: 2, address_64: true, per_vector_masking: true };
    let msi = MsiCapability::new(layout, 0, Sender::Device(DEVICE), router).unwrap();
    for (place, value) in places {
        let bytes = value.to_le_bytes();
        match place {
            Place::MsiControl => msi.write(2, &bytes[..2]),
            Place::Msi(12) => msi.write(12, &bytes[..2]),
            Place::Msi(4) => msi.write(4, &bytes),
            Place::Msi(offset) => msi.write(offset, &bytes[..4]),
            Place::MsixControl => {
                table.write_control(Control::from_bits(u16::from_le_bytes([bytes[0], bytes[1]])));
            }
            Place::Entry(0) => table.write(0, &bytes),
            Place::Entry(offset) => table.write(offset, &bytes[..4]),
            Place::Sender => {
                let sender = Sender::Device(DeviceId::new(u32::try_from(value).unwrap()));
                msi.set_sender(sender);
                table.set_sender(sender);
            }
            Place::Command => {
                let master = if value == 1 { BusMaster::Enabled } else { BusMaster::Disabled };
                msi.set_bus_master(master);
                table.set_bus_master(master);
            }
        }
    }
    let text = msi.explain_beside(&table, 0).to_string();
    // PCI leaves it undefined what a function sends while both are enabled.
    let both = msi.is_enabled() && table.control().enable();
    let _ = if msi.is_enabled() { msi.signal(0) } else { table.signal(0) };
    let heard = controller.heard();
    (text, !both && heard == [Heard::Event(DEVICE, MESSAGE.data)])
}

#[test]
fn the_guide_states_the_explain_score_of_a_function() {
    let mut score = Score::new("an emulated function");
    for uses_msix in [false, true] {
        let places = working(uses_msix);
        let values = || places.iter().map(|(place, value, ..)| (*place, *value));
        let (text, arrives) = run(values());
        assert!(arrives && text.contains("no obstacle was found"), "{text}");
        for (index, (place, value, bits, words)) in places.iter().enumerate() {
            let omitted = run(values().enumerate().filter(|(n, _)| *n != index).map(|(_, v)| v));
            let changed = other_values(*value, *bits).into_iter().map(|other| {
                run(values().enumerate().map(|(n, v)| if n == index { (*place, other) } else { v }))
            });
            for (broken, arrives) in changed.chain([omitted]) {
                if arrives {
                    score.add_harmless();
                } else {
                    score.add_fault(words, [&text, &broken]);
                }
            }
        }
    }
    score.check();
}
