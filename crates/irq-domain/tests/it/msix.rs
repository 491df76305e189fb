//! The MSI-X store over a simulated table.

use crate::function::{AT, Function, PENDING_AT, TABLE_AT, attach};
use crate::mock::{Addressing, Machine};
use irq_domain::pci::{MsixCapability, MsixStore, PciError, TableMemory};
use irq_domain::{MoveError, MsiDevice, MsiDeviceError};
use msi_types::pci::msix::{self, Control, ENTRY_CONTROL, ENTRY_DATA, ENTRY_SIZE};
use msi_types::{Cpu, MessageStore, MsiMessage, Shape, StoreError, StoreUpdate};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MESSAGE: MsiMessage = MsiMessage { address: 0x1_0809_0040, data: 0x1_2345 };

fn store(slots: u16) -> (Arc<Function>, Arc<MsixStore>) {
    let function = Function::with_msix(slots);
    let store = Arc::new(function.msix_store().unwrap());
    (function, store)
}

/// Creates a machine with a device of four entries.
fn attached(kind: Addressing) -> (Arc<Function>, Machine, MsiDevice) {
    let (function, store) = store(4);
    let (machine, device) = attach(kind, store);
    (function, machine, device)
}

fn write(store: &MsixStore, slot: u16, message: MsiMessage) -> Result<(), StoreError> {
    store.update(&mut |update: &mut dyn StoreUpdate| update.write(slot, message))
}

#[test]
fn the_capability_locates_the_table() {
    let function = Function::with_msix(65);
    let found = MsixCapability::find(&*function).unwrap();
    assert_eq!((found.offset, found.slots), (AT, 65));
    assert_eq!((found.table.bir(), found.table.offset()), (2, TABLE_AT));
    assert_eq!((found.pending.bir(), found.pending.offset()), (2, PENDING_AT));
    assert_eq!((found.table_length(), found.pending_length()), (65 * 16, 16));
}

#[test]
fn a_table_in_a_reserved_region_is_refused() {
    let function = Function::with_msix(4);
    function.set_places(6, 0);
    assert_eq!(MsixCapability::find(&*function), Err(PciError::ReservedBar { bir: 6 }));
    function.set_places(0, 7);
    assert_eq!(MsixCapability::find(&*function), Err(PciError::ReservedBar { bir: 7 }));
}

#[test]
fn a_table_that_exceeds_its_bar_is_refused() {
    let function = Function::with_msix(2048);
    let length = TableMemory::length(&*function);
    let refused = function.msix_store().err();
    assert_eq!(refused, Some(PciError::OutsideBar { bir: 2, end: TABLE_AT + 2048 * 16, length }));
}

#[test]
fn taking_over_msix_disables_it() {
    let function = Function::with_msix(4);
    let enable = || {
        let control = Control::new().with_table_size_minus_one(3).with_enable(true);
        function.set(AT + msix::CONTROL, &u16::from(control).to_le_bytes());
    };
    enable();
    let store = function.msix_store().unwrap();
    assert!(!function.msix_control().enable());
    // Turning the store off needs no set-up.
    enable();
    store.set_enabled(false).unwrap();
    assert!(!function.msix_control().enable());
}

#[test]
fn the_other_bits_of_vector_control_are_kept() {
    let function = Function::with_msix(4);
    function.set_memory(TABLE_AT + ENTRY_SIZE + ENTRY_CONTROL, 0xabcd_0000);
    let store = function.msix_store().unwrap();
    write(&store, 1, MESSAGE).unwrap();
    assert_eq!(function.entry(1, ENTRY_CONTROL), 0xabcd_0001);
    store.fast_mask().unwrap().unmask(1);
    assert_eq!(function.entry(1, ENTRY_CONTROL), 0xabcd_0000);
}

#[test]
fn an_entry_beyond_the_table_is_refused() {
    let (_, store) = store(4);
    assert_eq!(write(&store, 4, MESSAGE).unwrap_err().slot, 4);
    let fast = store.fast_mask().unwrap();
    fast.mask(4);
    fast.unmask(u16::MAX);
    assert!(!fast.is_pending(4));
}

#[test]
fn a_refused_message_stops_the_update() {
    let (function, store) = store(4);
    let messages = [1, 2, 3, 4].map(|data| MsiMessage { data, ..MESSAGE });
    let write_all = |messages: [MsiMessage; 4]| {
        store.update(&mut |update: &mut dyn StoreUpdate| {
            (0..).zip(messages).for_each(|(slot, message)| update.write(slot, message));
        })
    };
    write_all(messages).unwrap();
    *function.stuck.lock().unwrap() = Some(TABLE_AT + 2 * ENTRY_SIZE + ENTRY_DATA);
    let failed =
        write_all(messages.map(|message| MsiMessage { address: 0x4000, data: message.data + 8 }));
    assert_eq!(failed.unwrap_err().slot, 2);
    assert_eq!(function.entry_message(1), MsiMessage { address: 0x4000, data: 10 });
    assert_eq!([2, 3].map(|slot| function.entry_message(slot)), [messages[2], messages[3]]);
}

#[test]
fn msix_pending_bits_are_read_by_vector() {
    let (function, store) = store(66);
    write(&store, 0, MESSAGE).unwrap();
    function.set_memory(PENDING_AT, 1 << 5);
    function.set_memory(PENDING_AT + 8, 1 << 1);
    let fast = store.fast_mask().unwrap();
    assert!((0..70).filter(|slot| fast.is_pending(*slot)).eq([5, 65]));
}

#[test]
fn allocation_fails_if_the_function_is_gone() {
    let (function, machine, device) = attached(Addressing::Stays);
    function.gone.store(true, Ordering::Relaxed);
    let failed = device.allocate(Shape::Independent, 4..=4);
    assert!(matches!(failed, Err(MsiDeviceError::Store(_))));
    assert_eq!(machine.controller.vectors_in_use(), 0);
    assert!(machine.interrupts.snapshot().unwrap().is_empty());
}

#[test]
fn a_failed_allocation_leaves_msix_disabled() {
    let (function, machine, device) = attached(Addressing::Stays);
    *function.stuck.lock().unwrap() = Some(TABLE_AT + 2 * ENTRY_SIZE + ENTRY_DATA);
    let failed = device.allocate(Shape::Independent, 4..=4);
    assert!(matches!(failed, Err(MsiDeviceError::Store(StoreError { slot: 2, .. }))));
    assert!(!function.msix_control().enable());
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn tearing_down_a_removed_function_frees_its_vectors() {
    let (function, machine, device) = attached(Addressing::Stays);
    device.allocate(Shape::Independent, 4..=4).unwrap();
    let handle = device.request(0, "test", |_| {}).unwrap();
    function.gone.store(true, Ordering::Relaxed);
    assert!(device.tear_down().is_err());
    drop(handle);
    assert_eq!(machine.controller.in_use(), (0, 0));
}

#[test]
fn msix_entries_are_masked_until_requested() {
    let (function, _machine, device) = attached(Addressing::NamesCpuFarApart);
    device.allocate(Shape::Independent, 4..=4).unwrap();
    assert!((0..4).all(|slot| function.entry(slot, ENTRY_CONTROL) & 1 == 1));
    let handle = device.request(2, "queue", |_| {}).unwrap();
    assert_eq!(function.entry(2, ENTRY_CONTROL) & 1, 0);
    handle.set_affinity(Cpu::new(0)).unwrap();
    handle.set_affinity(Cpu::new(3)).unwrap();
    assert_eq!(function.entry_message(2), device.message(2).unwrap());
    assert_eq!(function.entry_message(2).address >> 32, 3);
    assert_eq!(function.entry(2, ENTRY_CONTROL) & 1, 0);
}

#[test]
fn a_move_with_a_refused_message_is_rolled_back() {
    let (function, machine, device) = attached(Addressing::NamesCpu);
    device.allocate(Shape::Independent, 1..=1).unwrap();
    let handle = device.request(0, "test", |_| {}).unwrap();
    handle.set_affinity(Cpu::new(1)).unwrap();
    let before = function.entry_message(0);
    *function.stuck.lock().unwrap() = Some(TABLE_AT);
    assert!(matches!(handle.set_affinity(Cpu::new(2)), Err(MoveError::Store(_))));
    assert_eq!((function.entry_message(0), handle.effective_affinity()), (before, Cpu::new(1)));
    assert_eq!(function.entry(0, ENTRY_CONTROL) & 1, 0);
    assert_eq!(machine.controller.outcomes().last(), Some(&msi_types::MoveOutcome::RolledBack));
}
