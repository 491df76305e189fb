//! Devices with device-defined message stores.

use crate::mock::{Addressing, Controller, Machine, assert_task, count_down};
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig, MsiDeviceError};
use msi_types::{
    Cpu, Fit, Masking, MessageStore, MsiError, MsiMessage, RequesterId, Rewrite, Shape, StoreError,
    StoreUpdate,
};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

const FIT: Fit = Fit::new(Rewrite::Masked);
const DEVICE: RequesterId = RequesterId::pci(4, 0, 0);

thread_local! {
    static IN_HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Checks that only tasks access a device's memory.
fn assert_may_sleep() {
    assert_task();
    assert!(!IN_HANDLER.get(), "a store that sleeps was used in a handler");
}

fn attach(machine: &Machine, store: Arc<dyn MessageStore>) -> MsiDevice {
    let config = MsiDeviceConfig::new("device", DEVICE, machine.controller.clone(), store);
    MsiDevice::attach(&machine.interrupts, config).unwrap()
}

/// A command of a device whose messages are not accessible to software.
#[derive(Clone, Copy, Debug)]
enum Command {
    Write(MsiMessage),
    Mask,
    Unmask,
    Clear,
}

/// An entry in the device's own memory.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    message: Option<MsiMessage>,
    masked: bool,
    waiting: bool,
}

/// A device whose messages are changed by batches of commands, which execute asynchronously.
struct CommandQueue {
    controller: Arc<Controller>,
    entries: Mutex<BTreeMap<u16, Entry>>,
    enabled: AtomicBool,
    batches: AtomicUsize,
    commands: AtomicU64,
    /// Counter that each write command decrements. The command that finds 0 fails, and ends its
    /// batch.
    fail_in: AtomicUsize,
}

impl CommandQueue {
    fn new(controller: &Arc<Controller>) -> Arc<Self> {
        let (entries, enabled, batches, commands) = Default::default();
        let (controller, fail_in) = (controller.clone(), AtomicUsize::new(usize::MAX));
        Arc::new(Self { controller, entries, enabled, batches, commands, fail_in })
    }

    fn execute(&self, slot: u16, command: Command) -> Result<(), StoreError> {
        self.commands.fetch_add(1, Relaxed);
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.entry(slot).or_default();
        match command {
            Command::Mask => entry.masked = true,
            Command::Clear => *entry = Entry { masked: true, ..Entry::default() },
            Command::Unmask => {
                entry.masked = false;
                if core::mem::take(&mut entry.waiting) {
                    self.controller.signal(entry.message.expect("waiting without a message"));
                }
            }
            Command::Write(message) => {
                if !count_down(&self.fail_in) {
                    return Err(StoreError { slot, reason: "the device refused the command" });
                }
                assert!(entry.masked, "rewritten while the entry can fire");
                entry.message = Some(message);
            }
        }
        Ok(())
    }

    fn fire(&self, slot: u16) {
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.get_mut(&slot).unwrap();
        if entry.masked {
            entry.waiting = true;
        } else {
            self.controller.signal(entry.message.unwrap());
        }
    }

    fn message(&self, slot: u16) -> Option<MsiMessage> {
        self.entries.lock().unwrap().get(&slot)?.message
    }
}

/// Commands that have not been posted yet.
struct Batch(Vec<(u16, Command)>);

impl StoreUpdate for Batch {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.push((slot, Command::Write(message)));
    }

    fn mask(&mut self, slot: u16) {
        self.0.push((slot, Command::Mask));
    }

    fn unmask(&mut self, slot: u16) {
        self.0.push((slot, Command::Unmask));
    }

    fn clear(&mut self, slot: u16) {
        self.0.push((slot, Command::Clear));
    }
}

impl MessageStore for CommandQueue {
    fn slots(&self) -> u16 {
        2048
    }

    fn fit(&self) -> Fit {
        FIT
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        assert_may_sleep();
        let mut batch = Batch(Vec::new());
        change(&mut batch);
        self.batches.fetch_add(1, Relaxed);
        std::thread::yield_now();
        batch.0.into_iter().try_for_each(|(slot, command)| self.execute(slot, command))
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        assert_may_sleep();
        self.enabled.store(enabled, SeqCst);
        Ok(())
    }
}

/// Creates a machine with a device that has a command queue.
fn commanded() -> (Machine, Arc<CommandQueue>, MsiDevice) {
    let machine = Machine::new(Addressing::NamesCpu);
    let queue = CommandQueue::new(&machine.controller);
    let device = attach(&machine, queue.clone());
    (machine, queue, device)
}

#[test]
fn an_allocation_a_move_and_a_teardown_each_send_one_command_batch() {
    let (_machine, queue, device) = commanded();
    device.allocate(Shape::Independent, 500..=500).unwrap();
    assert_eq!((queue.batches.load(Relaxed), queue.commands.load(Relaxed)), (1, 1500));
    let handle = device.request(7, "test", |_| {}).unwrap();
    assert_eq!(queue.batches.load(Relaxed), 1);
    handle.set_affinity(Cpu::new(2)).unwrap();
    assert_eq!(queue.batches.load(Relaxed), 2);
    drop(handle);
    drop(device);
    assert_eq!(queue.batches.load(Relaxed), 3);
    assert!(!queue.enabled.load(SeqCst));
}

#[test]
fn a_handler_masks_without_the_command_queue() {
    let (machine, queue, device) = commanded();
    device.allocate_at(&[1000]).unwrap();
    let own = Arc::new(Mutex::new(None::<IrqHandle>));
    let inner = own.clone();
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        IN_HANDLER.set(true);
        inner.lock().unwrap().as_ref().unwrap().disable();
        IN_HANDLER.set(false);
    };
    *own.lock().unwrap() = Some(device.request(1000, "test", handler).unwrap());
    let commands = queue.commands.load(Relaxed);
    queue.fire(1000);
    machine.settle();
    queue.fire(1000);
    machine.settle();
    let handle = own.lock().unwrap().take().unwrap();
    assert_eq!((handle.count(), queue.commands.load(Relaxed)), (1, commands));
}

#[test]
fn a_refused_move_keeps_the_vector_working() {
    let (machine, queue, device) = commanded();
    device.allocate_at(&[5]).unwrap();
    let handle = device.request(5, "test", |_| {}).unwrap();
    let (home, before) = (handle.effective_affinity(), queue.message(5));
    queue.fail_in.store(0, Relaxed);
    handle.set_affinity(Cpu::new(3)).unwrap_err();
    assert_eq!((handle.effective_affinity(), queue.message(5)), (home, before));
    queue.fire(5);
    machine.settle();
    assert_eq!(handle.count(), 1);
}

proptest! {
    #[test]
    fn an_allocation_with_a_fault_grants_all_wanted_vectors_or_none(
        had in 0..4u16,
        wanted in 1..20u16,
        write in 0..20usize,
        controller in 0..8usize,
    ) {
        let (machine, queue, device) = commanded();
        if had > 0 {
            device.allocate(Shape::Independent, had..=had).unwrap();
        }
        queue.fail_in.store(write, Relaxed);
        machine.controller.fail_in.store(controller, Relaxed);
        let result = device.allocate(Shape::Independent, wanted..=wanted);
        let granted = result.as_ref().map_or(0, Vec::len);
        prop_assert!(granted == 0 || granted == usize::from(wanted));
        prop_assert!(matches!(
            result,
            Ok(_)
                | Err(MsiDeviceError::Store(_)
                    | MsiDeviceError::Controller(MsiError::Controller(_)))
        ));
        let live = usize::from(had) + granted;
        prop_assert_eq!(machine.controller.vectors_in_use(), live);
        let messages = (0..2048).filter(|slot| queue.message(*slot).is_some()).count();
        prop_assert_eq!(messages, live, "a slot without a vector kept its message");
        prop_assert_eq!(queue.enabled.load(SeqCst), live > 0);
        drop(device);
        prop_assert_eq!(machine.controller.vectors_in_use(), 0);
    }
}
