//! Restoring devices that lost their message state.

use crate::function::{AT, Function, attach};
use crate::mock::{Addressing, FIRST, Hook, StoreKind, attached};
use irq_domain::MsiDeviceError;
use irq_domain::pci::{AccessContext, ConfigSpace};
use msi_types::pci::msi;
use msi_types::{Cpu, HwIrq, MessageStore, Shape};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

const STORES: [StoreKind; 5] =
    [StoreKind::MSIX, StoreKind::SLOW, StoreKind::MSI, StoreKind::MSI_MASKABLE, StoreKind::LEVEL];

#[test]
fn a_restored_device_sends_as_before() {
    for kind in STORES {
        let (machine, store, device) = attached(Addressing::NamesCpu, kind, 4);
        let handles: Vec<_> =
            (0..4).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
        if kind == StoreKind::MSIX {
            handles[1].set_affinity(Cpu::new(3)).unwrap();
        }
        let messages = || [0, 1, 2, 3].map(|slot| (store.message(slot), store.deassert(slot)));
        let before = messages();
        handles[2].disable();
        store.reset();
        device.restore().unwrap();
        assert_eq!(messages(), before, "{kind:?}");
        (0..4).for_each(|slot| store.fire(slot));
        machine.settle();
        let counts = || handles.iter().map(irq_domain::IrqHandle::count).collect::<Vec<_>>();
        assert_eq!(counts(), [1, 1, 0, 1], "{kind:?}");
        handles[2].enable();
        machine.settle();
        assert_eq!(counts(), [1, 1, 1, 1], "{kind:?}");
    }
}

#[test]
fn a_restore_stores_the_parents_new_messages() {
    let (machine, store, device) = attached(Addressing::NamesCpu, StoreKind::MSIX, 1);
    machine.controller.displace(HwIrq::new(FIRST), Cpu::new(2));
    store.reset();
    device.restore().unwrap();
    assert_eq!(store.message(0).unwrap().address, 0x080a_0040 + 2 * 0x2_0000);
    assert_eq!(device.message(0), store.message(0));
}

#[test]
fn a_failed_restore_can_be_retried() {
    let (machine, store, device) = attached(Addressing::Stays, StoreKind::MSIX, 2);
    let handle = device.request(1, "test", |_| {}).unwrap();
    store.reset();
    store.fail_in.store(1, SeqCst);
    assert!(matches!(device.restore(), Err(MsiDeviceError::Store(_))));
    device.restore().unwrap();
    store.fire(1);
    machine.settle();
    assert_eq!(handle.count(), 1);
}

#[test]
fn an_enable_during_a_restore_waits_for_its_end() {
    let (_machine, store, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
    let handle = Arc::new(device.request_disabled(0, "test", |_| {}).unwrap());
    store.reset();
    let (enabled, endpoint) = (handle.clone(), store.clone());
    let hook = move || {
        enabled.enable();
        assert!(endpoint.is_masked(0), "unmasked before its message is restored");
    };
    *store.meanwhile.lock().unwrap() = Some(Hook(Box::new(hook)));
    device.restore().unwrap();
    assert!(!store.is_masked(0));
}

#[test]
fn a_vector_disabled_during_a_restore_stays_masked() {
    for kind in [StoreKind::MSIX, StoreKind::SLOW] {
        let (machine, store, device) = attached(Addressing::Stays, kind, 1);
        let handle = Arc::new(device.request(0, "test", |_| {}).unwrap());
        store.reset();
        let disabled = handle.clone();
        *store.meanwhile.lock().unwrap() = Some(Hook(Box::new(move || disabled.disable())));
        device.restore().unwrap();
        assert!(store.is_masked(0) || machine.controller.is_masked(handle.hwirq()), "{kind:?}");
    }
}

#[test]
fn restore_enables_extended_data_before_the_message() {
    let control = msi::Control::new().with_extended_data_capable(true);
    let function = Function::with_msi(control, AccessContext::Any);
    let (_machine, device) = attach(Addressing::Stays, Arc::new(function.msi_store().unwrap()));
    device.allocate(Shape::AlignedGroup, 1..=1).unwrap();
    function.reset();
    function.written.lock().unwrap().clear();
    device.restore().unwrap();
    let written = function.written.lock().unwrap().clone();
    let message = AT + msi::ADDRESS_LOW..AT + msi::Layout::new(control).extended_data() + 4;
    let to_message = written.iter().position(|(at, _)| message.contains(at)).unwrap();
    let [(at, found), ..] = written[..to_message] else { panic!("{written:x?}") };
    let found = msi::Control::from(u16::try_from(found).unwrap());
    assert!(at == AT + msi::CONTROL && found.extended_data_enable() && !found.enable());
}

#[test]
fn restore_rewrites_the_msix_table_of_a_reset_function() {
    let function = Function::with_msix(8);
    let (_machine, device) = attach(Addressing::Stays, Arc::new(function.msix_store().unwrap()));
    device.allocate(Shape::Independent, 4..=4).unwrap();
    let handles: Vec<_> =
        (0..3).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
    handles[1].disable();
    let table = || {
        let entry = |slot| (function.entry_message(slot), function.entry(slot, 12));
        (0..4).map(entry).collect::<Vec<_>>()
    };
    let before = (table(), function.msix_control());
    function.reset();
    device.restore().unwrap();
    assert_eq!((table(), function.msix_control()), before);
}

#[test]
fn restore_rewrites_the_msi_registers_of_a_reset_function() {
    let maskless = msi::Control::new().with_multiple_message_capable(2);
    let maskable = maskless.with_per_vector_masking(true);
    for (control, context) in [
        (maskable, AccessContext::Any),
        (maskable, AccessContext::Task),
        (maskless.with_address_64(true), AccessContext::Any),
    ] {
        let function = Function::with_msi(control, context);
        let store: Arc<dyn MessageStore> = Arc::new(function.msi_store().unwrap());
        let (_machine, device) = attach(Addressing::Stays, store);
        device.allocate(Shape::AlignedGroup, 4..=4).unwrap();
        let _handle = device.request(1, "test", |_| {}).unwrap();
        let registers = || {
            let word = |offset| ConfigSpace::read32(&*function, AT + offset);
            (0..5).map(|index| word(index * 4)).collect::<Vec<_>>()
        };
        let before = registers();
        function.reset();
        assert_ne!(registers(), before);
        device.restore().unwrap();
        assert_eq!(registers(), before, "{control:?} {context:?}");
    }
}
