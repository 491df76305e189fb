//! A wired-to-MSI bridge.

use crate::mock::{Addressing, Controller, Machine, Store, StoreKind, lock};
use irq_domain::{InputBridge, MsiDeviceConfig, MsiDeviceError, RequestError, WiredBridge};
use msi_types::{
    Cpu, FastMask, Fit, HwIrq, Masking, MessageStore, RequesterId, Storage, StoreError,
    StoreUpdate, Trigger,
};
use std::sync::{Arc, Mutex};

/// An input of the bridge.
#[derive(Clone, Copy, Debug, Default)]
struct Input {
    trigger: Option<Trigger>,
    high: bool,
    /// `true` if the input has sent its message and has not been ended yet.
    latched: bool,
}

/// The bridge's hardware: eight inputs, the last of which does not support levels.
#[derive(Debug)]
pub(crate) struct Hardware {
    store: Arc<Store>,
    inputs: Mutex<[Input; 8]>,
}

impl Hardware {
    fn new(controller: &Arc<Controller>) -> Arc<Self> {
        Arc::new(Self { store: Store::new(StoreKind::MSIX, controller), inputs: Mutex::default() })
    }

    fn drive(&self, input: u16, high: bool) {
        let fires = {
            let mut inputs = lock(&self.inputs);
            let input = &mut inputs[usize::from(input)];
            let rises = high && !input.high;
            input.high = high;
            let fires = rises && !input.latched;
            input.latched |= rises;
            fires
        };
        if fires {
            self.store.fire(input);
        }
    }
}

impl MessageStore for Hardware {
    fn slots(&self) -> u16 {
        self.store.slots()
    }

    fn fit(&self) -> Fit {
        self.store.fit()
    }

    fn masking(&self) -> Masking {
        self.store.masking()
    }

    fn storage(&self) -> Storage {
        self.store.storage()
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        self.store.update(change)
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        self.store.set_enabled(enabled)
    }

    fn fast_mask(&self) -> Option<&dyn FastMask> {
        self.store.fast_mask()
    }
}

impl InputBridge for Hardware {
    fn set_trigger(&self, input: u16, trigger: Trigger) -> Result<(), StoreError> {
        assert!(self.store.is_masked(input), "the trigger changes while the input can fire");
        if input == 7 && trigger == Trigger::Level {
            return Err(StoreError { slot: input, reason: "only edges" });
        }
        self.inputs.lock().unwrap()[usize::from(input)].trigger = Some(trigger);
        Ok(())
    }

    fn end(&self, input: u16) {
        let again = {
            let mut inputs = lock(&self.inputs);
            let input = &mut inputs[usize::from(input)];
            let again = input.high && input.trigger == Some(Trigger::Level);
            input.latched = again;
            again
        };
        if again {
            self.store.fire(input);
        }
    }
}

pub(crate) fn attach(machine: &Machine) -> (Arc<Hardware>, WiredBridge) {
    let hardware = Hardware::new(&machine.controller);
    let config = MsiDeviceConfig::of_bridge(
        "mbigen",
        RequesterId::new(0x40),
        machine.controller.clone(),
        hardware.clone(),
    );
    (hardware, WiredBridge::attach(&machine.interrupts, config).unwrap())
}

#[test]
fn an_asserted_level_reruns_its_handler_until_deassert() {
    let machine = Machine::new(Addressing::Stays);
    let (hardware, bridge) = attach(&machine);
    let (device, runs) = (hardware.clone(), std::sync::atomic::AtomicU32::new(0));
    let handler = move |_: &irq_domain::IrqContext<'_>| {
        if runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
            device.drive(2, false);
        }
    };
    let handle = bridge.request(2, Trigger::Level, "level", handler).unwrap();
    hardware.drive(2, true);
    machine.settle();
    assert_eq!(handle.count(), 3);
    assert_eq!(hardware.inputs.lock().unwrap()[2].trigger, Some(Trigger::Level));
}

#[test]
fn each_edge_runs_its_handler_once() {
    let machine = Machine::new(Addressing::NamesCpu);
    let (hardware, bridge) = attach(&machine);
    let handle = bridge.request(7, Trigger::Edge, "edge", |_| {}).unwrap();
    for cpu in [1, 2, 3] {
        handle.set_affinity(Cpu::new(cpu)).unwrap();
        hardware.drive(7, true);
        hardware.drive(7, false);
        machine.settle();
    }
    assert_eq!(handle.count(), 3);
}

#[test]
fn a_pending_level_is_delivered_to_the_next_handler() {
    let machine = Machine::new(Addressing::Stays);
    let (hardware, bridge) = attach(&machine);
    let first = bridge.request(2, Trigger::Level, "level", |_| {}).unwrap();
    let hwirq: HwIrq = first.hwirq();
    hardware.drive(2, true);
    first.disable();
    // The message is taken while the interrupt is disabled, and the handler that would have ended
    // the input is removed.
    machine.settle();
    drop(first);
    let device = hardware.clone();
    let second =
        bridge.request(2, Trigger::Level, "level", move |_| device.drive(2, false)).unwrap();
    machine.settle();
    assert_eq!((second.count(), second.hwirq()), (1, hwirq));
}

#[test]
fn a_trigger_the_bridge_does_not_support_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let (_, bridge) = attach(&machine);
    let refused = bridge.request(7, Trigger::Level, "level", |_| {});
    let reason = StoreError { slot: 7, reason: "only edges" };
    assert_eq!(refused.err(), Some(RequestError::Bridge(MsiDeviceError::Store(reason))));
    let missing = bridge.request(8, Trigger::Level, "level", |_| {});
    assert_eq!(missing.err(), Some(RequestError::Bridge(MsiDeviceError::NoSlot(8))));
}

#[test]
fn dropping_a_bridge_frees_its_inputs() {
    let machine = Machine::new(Addressing::Stays);
    let (hardware, bridge) = attach(&machine);
    let handle = bridge.request_disabled(2, Trigger::Edge, "edge", |_| {}).unwrap();
    hardware.drive(2, true);
    machine.settle();
    assert_eq!(handle.count(), 0);
    handle.enable();
    machine.settle();
    assert_eq!(handle.count(), 1);
    drop(bridge);
    assert_eq!(machine.controller.in_use(), (0, 0));
}
