//! Shim layers: buses with quirks.

use super::*;

#[test]
fn a_bus_offset_is_added_to_stored_addresses() {
    let machine = Machine::new(Addressing::NamesCpu);
    let parent =
        shim(&machine, ShimLayer::new("bridge").with_addresses(AddressRule::Offset(0x1000_0000)));
    let store = machine.store(StoreKind::MSIX);
    let device = attach(&machine, &parent, DEVICE, &store).unwrap();
    let granted = device.allocate_at(&[0]).unwrap();
    let expected = 0x180a_0040 + u64::from(granted[0].cpu.get()) * 0x2_0000;
    assert_eq!(store.message(0).unwrap().address, expected);
    machine.interrupts.set_affinity(granted[0].irq, Cpu::new(3)).unwrap();
    assert_eq!(store.message(0).unwrap().address, 0x180a_0040 + 3 * 0x2_0000);
}

#[test]
fn a_shifting_bus_attaches_the_shifted_requester_id() {
    let machine = Machine::new(Addressing::Stays);
    let rule = RequesterRule::Shifted { shift: 4, base: 3 };
    let parent = shim(&machine, ShimLayer::new("bridge").with_requesters(rule));
    let _device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    assert_eq!(*machine.controller.requesters.lock().unwrap(), [RequesterId::new(0x1003)]);
}

#[test]
fn a_requester_id_that_a_shift_or_base_overflows_is_refused() {
    for rule in [
        RequesterRule::Shifted { shift: 31, base: 0 },
        RequesterRule::Shifted { shift: 64, base: 0 },
        RequesterRule::Shifted { shift: 0, base: u32::MAX },
    ] {
        let machine = Machine::new(Addressing::Stays);
        let parent = shim(&machine, ShimLayer::new("bridge").with_requesters(rule));
        let refused = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX));
        let error = refusal(refused);
        assert!(matches!(error, MsiError::Bus { level: "bridge", device: DEVICE, .. }), "{rule:?}");
    }
}

#[test]
fn a_pre_its_window_encodes_the_device_in_the_address() {
    let machine = Machine::new(Addressing::Stays);
    *machine.controller.isolation.lock().unwrap() = Isolation::Isolated(IsolatingMechanism::Its);
    let rule = AddressRule::Window { window: 0x5800_0000, devices: 0x200 };
    let parent = shim(&machine, ShimLayer::new("pre-its").with_addresses(rule));
    let device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    device.allocate_at(&[0]).unwrap();
    assert_eq!(device.message(0).unwrap().address, 0x5800_0000 + 0x100 * 4);
    assert_eq!(device.prove_isolated().err(), Some(NotIsolated::SharedDoorbell("pre-its")));
    let far = RequesterId::new(0x200);
    let outside =
        attach(&machine, &parent, far, &machine.store(StoreKind::MSIX)).unwrap().allocate_at(&[0]);
    assert!(matches!(refusal(outside), MsiError::Bus { level: "pre-its", .. }));
}

#[test]
fn a_narrow_bus_refuses_messages_it_would_truncate() {
    let wide = Machine::new(Addressing::NamesCpuFarApart);
    wide.interrupts.offline(Cpu::new(0)).unwrap();
    let parent = shim(&wide, ShimLayer::new("bridge").with_widths(32, 32));
    let device = attach(&wide, &parent, DEVICE, &wide.store(StoreKind::MSIX)).unwrap();
    let refused = device.allocate(Shape::Independent, 8..=8);
    assert!(matches!(refusal(refused), MsiError::AddressTooWide { bits: 32, .. }));
    let machine = Machine::new(Addressing::Stays);
    let parent = shim(&machine, ShimLayer::new("bridge").with_widths(64, 12));
    let device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    let refused = device.allocate_at(&[0]);
    assert!(matches!(refusal(refused), MsiError::DataTooWide { bits: 12, .. }));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}
