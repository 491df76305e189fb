//! Tests of buses with quirks. Each quirk has a model that modifies device writes, and a layer that
//! handles the modification.

use super::super::board::Quirks;
use super::*;
use irq_domain::layer::{AddressRule, RequesterRule, ShimLayer};
use msi_types::{Delivery, Isolation, MsiMessage, NotIsolated, RequesterId, SignalMsi};
use std::sync::Arc;

/// Function that the bus applies to a requester ID and a message.
type CorruptMessage = fn(RequesterId, MsiMessage) -> (RequesterId, MsiMessage);

struct CorruptingBus {
    spoil: CorruptMessage,
    upstream: Arc<dyn SignalMsi<RequesterId>>,
}

impl SignalMsi<RequesterId> for CorruptingBus {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        let (from, message) = (self.spoil)(from, message);
        self.upstream.signal_msi(from, message)
    }
}

fn board_on(parent: Parent, spoil: CorruptMessage, layer: ShimLayer) -> Board {
    let plan = plan(parent, Layer::None, World::BareMetal);
    let bridge = Box::new(move |upstream| Arc::new(CorruptingBus { spoil, upstream }) as _);
    Board::with_quirks(plan, Quirks { layer, bridge }).unwrap()
}

/// Asserts that every endpoint works with the layer, and that no endpoint works without it.
#[track_caller]
fn assert_mended(parent: Parent, spoil: CorruptMessage, layer: ShimLayer) {
    for endpoint in Endpoint::ALL {
        let outcome = attempt(&board_on(parent, spoil, layer), *endpoint);
        assert_eq!(outcome, Outcome::Works, "{endpoint} on {parent}");
        let unaware = attempt(&board_on(parent, spoil, ShimLayer::new("bus")), *endpoint);
        assert!(matches!(unaware, Outcome::Broken(_)), "{endpoint} on {parent}: {unaware:?}");
    }
}

#[test]
fn a_shim_corrects_shifted_requester_ids() {
    let rule = RequesterRule::Shifted { shift: 3, base: 0x400 };
    let spoil: CorruptMessage =
        |from, message| (RequesterId::new((from.get() << 3) + 0x400), message);
    assert_mended(Parent::Its, spoil, ShimLayer::new("bus").with_requesters(rule));
}

#[test]
fn a_shim_corrects_a_bus_address_offset() {
    const OFFSET: u64 = 0x4000_0000;
    let spoil: CorruptMessage = |from, message| {
        (from, MsiMessage { address: message.address.wrapping_sub(OFFSET), ..message })
    };
    for parent in ARM {
        let rule = AddressRule::Offset(OFFSET);
        assert_mended(parent, spoil, ShimLayer::new("bus").with_addresses(rule));
    }
}

#[test]
fn a_window_before_an_its_disables_isolation() {
    const WINDOW: u64 = 0x5800_0000;
    let spoil: CorruptMessage = |from, message| match message.address.checked_sub(WINDOW) {
        Some(offset) if offset < 0x400 => {
            let device = u32::try_from(offset / 4).unwrap();
            (RequesterId::new(device), MsiMessage { address: 0x0821_0040, ..message })
        }
        _ => (from, MsiMessage::default()),
    };
    let layer = ShimLayer::new("bus")
        .with_addresses(AddressRule::Window { window: WINDOW, devices: 0x100 });
    assert_mended(Parent::Its, spoil, layer);
    let isolation = board_on(Parent::Its, spoil, layer).isolation(Endpoint::PciMsi);
    assert_eq!(isolation, Isolation::NotIsolated(NotIsolated::SharedDoorbell("bus")));
}

#[test]
fn a_bus_that_drops_data_bits_refuses_messages_that_do_not_fit() {
    let spoil: CorruptMessage =
        |from, message| (from, MsiMessage { data: message.data & 0xfff, ..message });
    let narrow = ShimLayer::new("bus").with_widths(64, 12);
    // An LPI's INTID needs 14 bits, whereas an EventID fits into 12.
    let on = |parent| attempt(&board_on(parent, spoil, narrow), Endpoint::PciMsix);
    assert_refused(&on(Parent::DirectLpi), "more than the 12 data bits");
    assert_eq!(on(Parent::Its), Outcome::Works);
}

#[test]
fn a_bus_that_drops_address_bits_refuses_far_doorbells() {
    let spoil: CorruptMessage =
        |from, message| (from, MsiMessage { address: message.address & 0x7ff_ffff, ..message });
    let narrow = ShimLayer::new("bus").with_widths(27, 32);
    for parent in ARM {
        let outcome = attempt(&board_on(parent, spoil, narrow), Endpoint::PciMsix);
        assert_refused(&outcome, "more than the 27 address bits");
    }
}
