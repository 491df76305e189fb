//! The MSI store over simulated capability registers.

use crate::function::{AT, Function, attach};
use crate::mock::{Addressing, FIRST};
use irq_domain::pci::{AccessContext, Capability, ConfigSpace, MsiStore, PciError, capabilities};
use irq_domain::{MoveError, MsiDeviceError};
use msi_types::pci::msi::{self, Control, Layout};
use msi_types::{
    Cpu, Masking, MessageStore, MsiError, MsiMessage, Rewrite, Shape, StoreError, StoreUpdate,
};
use std::num::NonZeroU16;
use std::sync::Arc;

fn control(log2: u8, wide: bool, masking: bool) -> Control {
    Control::new()
        .with_multiple_message_capable(log2)
        .with_address_64(wide)
        .with_per_vector_masking(masking)
}

fn store(control: Control) -> (Arc<Function>, Arc<MsiStore>) {
    let function = Function::with_msi(control, AccessContext::Any);
    let store = Arc::new(function.msi_store().unwrap());
    (function, store)
}

fn write(store: &MsiStore, message: MsiMessage) -> Result<(), StoreError> {
    store.update(&mut |update: &mut dyn StoreUpdate| update.write(0, message))
}

#[test]
fn capabilities_are_walked_in_list_order_until_the_list_ends() {
    let loops = [(0x01, 0x40), (0x10, 0x44)].into_iter().cycle().take(48).collect();
    for (what, list, expected) in [
        (
            "a list",
            &[(0x40, 0x01, 0x60), (0x60, 0x11, 0x50), (0x50, 0x05, 0)][..],
            vec![(0x01, 0x40), (0x11, 0x60), (0x05, 0x50)],
        ),
        ("a loop", &[(0x40, 0x01, 0x44), (0x44, 0x10, 0x40)], loops),
        ("a list that leads into the header", &[(0x40, 0x01, 0x10)], vec![(0x01, 0x40)]),
    ] {
        let function = Function::with_list(list);
        let expected = expected.into_iter().map(|(id, offset)| Capability { id, offset });
        assert!(capabilities(&*function).eq(expected), "{what}");
        function.set(0x06, &[0, 0]);
        assert_eq!(capabilities(&*function).count(), 0, "the status register denies {what}");
    }
}

#[test]
fn a_function_that_is_gone_has_no_capabilities() {
    let function = Function::with_msi(control(0, false, false), AccessContext::Any);
    function.gone.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(function.msi_store().err(), Some(PciError::NoCapability { id: 5 }));
}

#[test]
fn an_msi_capability_beyond_config_space_is_refused() {
    let function = Function::with_list(&[(0xf4, msi::CAPABILITY_ID, 0)]);
    function.set(0xf6, &u16::from(control(0, true, false)).to_le_bytes());
    let too_long = PciError::CapabilityTooLong { id: 5, offset: 0xf4 };
    assert_eq!(function.msi_store().err(), Some(too_long));
}

#[test]
fn a_reserved_vector_count_is_refused() {
    for log2 in [6, 7] {
        let function = Function::with_msi(control(log2, true, false), AccessContext::Any);
        assert_eq!(function.msi_store().err(), Some(PciError::ReservedVectorCount { log2 }));
    }
}

#[test]
fn store_limits_match_the_msi_capability() {
    for (wide, masking, extended) in
        (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
    {
        let (_, store) = store(control(3, wide, masking).with_extended_data_capable(extended));
        let fit = store.fit();
        assert_eq!(store.slots(), 8);
        assert_eq!(fit.address_bits, if wide { 64 } else { 32 });
        assert_eq!(fit.data_bits, if extended { 32 } else { 16 });
        assert_eq!(fit.rewrite, if masking { Rewrite::Masked } else { Rewrite::LowWordOnly });
        assert_eq!(store.masking(), if masking { Masking::PerVector } else { Masking::None });
        assert_eq!(store.fast_mask().is_some(), masking);
    }
}

#[test]
fn taking_over_msi_disables_it_and_masks_every_vector() {
    let enabled = control(2, true, true).with_enable(true).with_multiple_message_enable(2);
    let (function, _store) = store(enabled);
    assert!(!function.msi_control().enable());
    assert_eq!(function.msi_control().multiple_message_enable(), 0);
    let mask = AT + Layout::new(enabled).mask().unwrap();
    assert!(function.written.lock().unwrap().contains(&(mask, u32::MAX)));
}

#[test]
fn wide_addresses_and_data_use_upper_halves() {
    let kind = control(0, true, false).with_extended_data_capable(true);
    let (function, store) = store(kind);
    write(&store, MsiMessage { address: 0x12_3456_7000, data: 0x0001_2345 }).unwrap();
    let read = |offset| ConfigSpace::read16(&*function, AT + offset);
    assert_eq!(read(Layout::new(kind).address_high().unwrap()), 0x12);
    assert_eq!(read(Layout::new(kind).extended_data()), 1);
    assert!(function.msi_control().extended_data_enable());
}

#[test]
fn a_message_too_wide_is_refused() {
    let (_, store) = store(control(0, false, false));
    for message in [
        MsiMessage { address: 0x1_0000_0000, data: 0 },
        MsiMessage { address: 0x1000, data: 0x1_0000 },
    ] {
        assert!(write(&store, message).is_err());
    }
}

#[test]
fn an_msi_store_refuses_a_second_message() {
    let (_, store) = store(control(2, true, true));
    let second = store.update(&mut |update: &mut dyn StoreUpdate| {
        update.write(1, MsiMessage { address: 0x1000, data: 1 });
    });
    assert_eq!(second.unwrap_err().slot, 1);
}

#[test]
fn a_maskless_function_refuses_torn_messages() {
    let (function, store) = store(control(0, true, false));
    write(&store, MsiMessage { address: 0x1000, data: 7 }).unwrap();
    store.set_enabled(true).unwrap();
    function.written.lock().unwrap().clear();
    for message in
        [MsiMessage { address: 0x1_0000_1000, data: 7 }, MsiMessage { address: 0x2000, data: 8 }]
    {
        assert!(write(&store, message).is_err());
    }
    assert!(function.written.lock().unwrap().is_empty());
}

#[test]
fn a_failed_register_write_restores_the_old_message() {
    let kind = control(0, true, true);
    let (function, store) = store(kind);
    let old = MsiMessage { address: 0x1000, data: 7 };
    write(&store, old).unwrap();
    *function.stuck.lock().unwrap() = Some(u64::from(AT + Layout::new(kind).data()));
    let failed = write(&store, MsiMessage { address: 0x2000, data: 8 }).unwrap_err();
    assert_eq!((failed.slot, failed.reason), (0, "the function read back a different message"));
    *function.stuck.lock().unwrap() = None;
    assert_eq!(ConfigSpace::read32(&*function, AT + msi::ADDRESS_LOW), 0x1000);
}

#[test]
fn a_mask_operation_changes_at_most_the_mask_bit_of_its_vector() {
    let kind = control(5, true, true);
    let (function, store) = store(kind);
    let fast = store.fast_mask().unwrap();
    let masks = || ConfigSpace::read32(&*function, AT + Layout::new(kind).mask().unwrap());
    fast.unmask(0);
    fast.unmask(31);
    assert_eq!(masks(), 0x7fff_fffe);
    fast.mask(0);
    assert_eq!(masks(), 0x7fff_ffff);
    fast.unmask(32);
    assert_eq!(masks(), 0x7fff_ffff);
}

#[test]
fn msi_pending_bits_are_read_by_vector() {
    let kind = control(2, false, true);
    let (function, store) = store(kind);
    function.set(AT + Layout::new(kind).pending().unwrap(), &[0b0100]);
    let fast = store.fast_mask().unwrap();
    assert!((0..50).filter(|slot| fast.is_pending(*slot)).eq([2]));
}

#[test]
fn grant_refuses_counts_that_msi_cannot_encode() {
    let (function, store) = store(control(3, true, false));
    let grant = |count| store.grant(NonZeroU16::new(count).unwrap());
    grant(4).unwrap();
    assert_eq!(function.msi_control().multiple_message_enable(), 2);
    assert!(grant(3).is_err());
    assert!(grant(16).is_err());
}

#[test]
fn a_group_is_set_up_enabled_and_torn_down_again() {
    let (function, store) = store(control(3, true, true));
    let (machine, device) = attach(Addressing::NamesCpu, store);
    let granted = device.allocate(Shape::AlignedGroup, 1..=32).unwrap();
    assert_eq!(granted.len(), 8);
    assert!(function.msi_control().enable());
    assert_eq!(function.msi_control().multiple_message_enable(), 3);
    let handle = device.request(3, "queue", |_| {}).unwrap();
    let moved = handle.set_affinity(Cpu::new(2)).unwrap();
    assert_eq!(moved.others.len(), 7);
    let address = ConfigSpace::read32(&*function, AT + msi::ADDRESS_LOW);
    assert_eq!(u64::from(address), device.message(0).unwrap().address);
    drop((handle, device));
    assert!(!function.msi_control().enable());
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn data_wider_than_the_function_is_refused() {
    let (_, store) = store(control(0, true, true));
    let (machine, device) = attach(Addressing::Stays, store);
    machine.controller.skew.store(0x1_0000, std::sync::atomic::Ordering::Relaxed);
    let refused = device.allocate(Shape::AlignedGroup, 1..=1);
    let data = 0x1_0000 + FIRST;
    assert_eq!(refused, Err(MsiDeviceError::Controller(MsiError::DataTooWide { data, bits: 16 })));
}

#[test]
fn a_maskless_function_moves_only_within_the_same_4_gib() {
    let torn = Err(MoveError::Controller(MsiError::WouldTear));
    for (kind, expected) in [(Addressing::NamesCpu, Ok(())), (Addressing::NamesCpuFarApart, torn)] {
        let (_, store) = store(control(0, true, false));
        let (_machine, device) = attach(kind, store);
        device.allocate(Shape::AlignedGroup, 1..=1).unwrap();
        let handle = device.request(0, "test", |_| {}).unwrap();
        assert_eq!(handle.hwirq().get(), FIRST);
        assert_eq!(handle.set_affinity(Cpu::new(3)).map(drop), expected, "{kind:?}");
    }
}
