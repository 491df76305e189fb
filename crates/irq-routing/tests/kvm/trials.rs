//! Trials of routes and bound eventfds, and the list of all trials.

use doorbell_test_support::kvm::{Failure, Outcome, Trial, enable, same, take_arrived};
use irq_routing::irqfd::EventfdPoller;
use irq_routing::kvm::{KvmConfig, KvmIrqfd, KvmRouter, RustVmm};
use irq_routing::msix::{MsixTable, Signaled, VectorObserver};
use irq_routing::{
    Change, ChangeCount, MessageSink, Pin, Route, RouteError, RoutedMessage, Routing, Sender,
    SignalError,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use msi_types::explain::{Fact, Obstacle, Stage, StageState};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, Gsi, MsiMessage};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub(crate) const ALL: &[Trial] = &[
    ("a_gsi_leads_to_its_message", signals),
    ("a_gsi_is_explained_up_to_its_message", explains),
    ("a_message_needs_no_gsi", messages),
    ("an_eventfd_rings_wherever_its_gsi_leads_now", irqfds),
    ("what_is_not_bound_any_more_rings_nothing_and_can_be_bound_again", unbound),
    ("a_settled_irqfd_has_been_served", settled),
    ("a_level_takes_a_pin_and_a_second_eventfd", levels),
    ("a_table_as_large_as_can_be_is_one_change", full),
    ("a_change_that_kvm_refuses_has_no_effect", refused),
    ("a_commit_with_a_gsi_beyond_the_limit_has_no_effect", beyond),
    ("a_released_gsi_leads_nowhere", released),
    ("a_table_is_replaced_as_a_whole_or_not_at_all", replaced),
    ("the_first_table_ends_the_identity_mapping_even_if_it_is_empty", identity),
    ("an_msix_table_rings_kvm_by_the_eventfds_of_its_open_vectors", msix),
];

/// Machine with one enabled local APIC.
pub(crate) struct Machine {
    pub(crate) router: Arc<KvmRouter>,
    pub(crate) vm: Arc<VmFd>,
    pub(crate) vcpu: VcpuFd,
}

pub(crate) const FIRST: u32 = 24;

impl Machine {
    pub(crate) fn new() -> Result<Self, Failure> {
        let vm = Arc::new(Kvm::new()?.create_vm()?);
        vm.create_irq_chip()?;
        let vcpu = vm.create_vcpu(0)?;
        Self::of(vm, vcpu, KvmConfig::new(FIRST))
    }

    /// Wraps a machine that already has an interrupt controller.
    pub(crate) fn of(vm: Arc<VmFd>, vcpu: VcpuFd, config: KvmConfig) -> Result<Self, Failure> {
        enable(&vcpu)?;
        let router = KvmRouter::new(RustVmm(vm.clone()), config)?;
        Ok(Self { router: Arc::new(router), vm, vcpu })
    }

    /// Returns the vectors that have arrived since the last call.
    pub(crate) fn arrived(&self) -> Result<Vec<u32>, Failure> {
        take_arrived(&self.vcpu)
    }

    /// Waits for `count` vectors while `poller` serves all signals, and returns those that have
    /// arrived. If an eventfd was signaled before it was bound, KVM injects the signal from a
    /// separate thread, so the expected vectors (and any unexpected one) may arrive late.
    pub(crate) fn arrived_by(
        &self,
        poller: &EventfdPoller,
        count: usize,
    ) -> Result<Vec<u32>, Failure> {
        while poller.dispatch(Some(Duration::ZERO))? > 0 {}
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut arrived = self.arrived()?;
        while arrived.len() < count && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
            arrived.extend(self.arrived()?);
        }
        thread::sleep(Duration::from_millis(2));
        arrived.extend(self.arrived()?);
        Ok(arrived)
    }
}

pub(crate) fn vector(vector: u32) -> Route {
    Route::to_doorbell(MsiMessage { address: 0xfee0_0000, data: vector })
}

pub(crate) fn eventfd() -> Result<EventFd, Failure> {
    Ok(EventFd::new(EFD_NONBLOCK)?)
}

fn signals() -> Outcome {
    let machine = Machine::new()?;
    let (one, other) = (machine.router.allocate()?, machine.router.allocate()?);
    machine.router.commit(&[Change::Set(one, vector(0x41)), Change::Set(other, vector(0x52))])?;
    same(machine.router.signal(other)?, Delivery::Pending)?;
    same(machine.arrived()?, vec![0x52])?;
    same(machine.router.signal(one)?, Delivery::Pending)?;
    same(machine.arrived()?, vec![0x41])?;
    same(machine.router.signal(Gsi::new(77)), Err(SignalError::Unrouted(Gsi::new(77))))
}

fn explains() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, pin) = (machine.router.allocate()?, Gsi::new(5));
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    let route = Route::to_doorbell(message);
    machine
        .router
        .commit(&[Change::Set(gsi, route), Change::Set(pin, Route::Pin(Pin::new(5)?))])?;
    let explained = machine.router.explain(gsi);
    same(
        (explained.obstacle(), explained.facts().collect()),
        (None, vec![Fact::Message(message)]),
    )?;
    // Nothing behind the message was examined.
    for stage in Stage::ALL.into_iter().skip(1) {
        same(explained.state(stage), StageState::NotExamined)?;
    }
    same(machine.router.explain(pin).obstacle(), None)?;
    machine.router.commit(&[Change::Clear(gsi)])?;
    for gsi in [gsi, Gsi::new(u32::MAX)] {
        same(machine.router.explain(gsi).obstacle(), Some(Obstacle::NoRoute { gsi }))?;
    }
    Ok(())
}

fn messages() -> Outcome {
    let machine = Machine::new()?;
    let message = MsiMessage { address: 0xfee0_0000, data: 0x63 };
    let delivery = machine.router.signal_msi(RoutedMessage { sender: Sender::Anonymous, message });
    same(delivery, Ok(Delivery::Pending))?;
    same(machine.arrived()?, vec![0x63])?;
    same(machine.router.route(Gsi::new(5)), Some(Route::Pin(Pin::new(5)?)))
}

fn irqfds() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, device) = (machine.router.allocate()?, eventfd()?);
    let _bound = machine.router.bind(RustVmm(&device), gsi)?;
    device.write(1)?;
    same(machine.arrived()?, vec![])?;
    for number in [0x41, 0x42, 0x43] {
        machine.router.commit(&[Change::Set(gsi, vector(number))])?;
        device.write(1)?;
        same(machine.arrived()?, vec![number])?;
    }
    Ok(())
}

fn unbound() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, device) = (machine.router.allocate()?, eventfd()?);
    machine.router.commit(&[Change::Set(gsi, vector(0x41))])?;
    drop(machine.router.bind(RustVmm(&device), gsi)?);
    device.write(1)?;
    same(machine.arrived()?, vec![])?;
    same(device.read()?, 1)?;
    let _bound = machine.router.bind(RustVmm(&device), gsi)?;
    same(machine.router.bind(RustVmm(&device), gsi).is_err(), true)?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x41])
}

/// A signal from before the bind is sent by a thread of the kernel.
fn settled() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, device) = (machine.router.allocate()?, eventfd()?);
    machine.router.commit(&[Change::Set(gsi, vector(0x41))])?;
    for _ in 0..3000 {
        device.write(1)?;
        let bound = machine.router.bind(RustVmm(&device), gsi)?;
        bound.settle()?;
        same(machine.arrived()?, vec![0x41])?;
        device.write(1)?;
        same(machine.arrived()?, vec![0x41])?;
    }
    Ok(())
}

fn levels() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, device, resample) = (Gsi::new(5), eventfd()?, eventfd()?);
    machine.router.commit(&[Change::Set(gsi, Route::Pin(Pin::new(5)?))])?;
    drop(machine.router.bind_level(RustVmm(&device), RustVmm(&resample), gsi)?);
    let _again = machine.router.bind_level(RustVmm(&device), RustVmm(&resample), gsi)?;
    Ok(())
}

fn full() -> Outcome {
    let machine = Machine::new()?;
    let limit = machine.router.limit();
    let routes = |number| (0..limit).map(move |gsi| Change::Set(Gsi::new(gsi), vector(number)));
    let changes: Vec<_> = routes(0x41).collect();
    same(machine.router.commit(&changes)?, ChangeCount { made: limit, redundant: 0 })?;
    same(machine.router.commit(&changes)?, ChangeCount { made: 0, redundant: limit })?;
    same(
        machine.router.allocate(),
        Err(RouteError::GsisExhausted { first: Gsi::new(FIRST), limit }),
    )?;
    machine.router.signal(Gsi::new(limit - 1))?;
    same(machine.arrived()?, vec![0x41])
}

fn refused() -> Outcome {
    let machine = Machine::new()?;
    let gsi = machine.router.allocate()?;
    machine.router.commit(&[Change::Set(gsi, vector(0x41))])?;
    // The I/O APIC has 24 pins.
    let wrong = Change::Set(Gsi::new(3), Route::Pin(Pin::new(900)?));
    let commit = machine.router.commit(&[Change::Set(gsi, vector(0x42)), wrong]);
    same(matches!(commit, Err(RouteError::Refused { errno: 22 })), true)?;
    same(machine.router.route(Gsi::new(3)), None)?;
    machine.router.signal(gsi)?;
    same(machine.arrived()?, vec![0x41])
}

fn beyond() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, limit) = (machine.router.allocate()?, machine.router.limit());
    let far = Gsi::new(limit);
    let commit =
        machine.router.commit(&[Change::Set(gsi, vector(0x41)), Change::Set(far, vector(0x42))]);
    same(commit, Err(RouteError::NoSuchGsi { gsi: far, limit }))?;
    same(machine.router.route(gsi), None)
}

fn released() -> Outcome {
    let machine = Machine::new()?;
    let (gsi, device) = (machine.router.allocate()?, eventfd()?);
    machine.router.commit(&[Change::Set(gsi, vector(0x41))])?;
    let _bound = machine.router.bind(RustVmm(&device), gsi)?;
    machine.router.release(&[gsi])?;
    device.write(1)?;
    same(machine.arrived()?, vec![])?;
    same(machine.router.release(&[gsi]), Err(RouteError::NotAllocated(gsi)))?;
    same(machine.router.allocate()?, gsi)
}

fn replaced() -> Outcome {
    let machine = Machine::new()?;
    let [one, two, three] = [Gsi::new(30), Gsi::new(31), Gsi::new(32)];
    let first = [(one, vector(0x41)), (two, vector(0x42))];
    same(machine.router.replace(&first)?, ChangeCount { made: 2, redundant: 0 })?;
    let twice = [(three, vector(0x43)), (three, vector(0x44))];
    same(machine.router.replace(&twice), Err(RouteError::DuplicateGsi(three)))?;
    let second = [(two, vector(0x42)), (three, vector(0x43))];
    same(machine.router.replace(&second)?, ChangeCount { made: 2, redundant: 1 })?;
    same(machine.router.signal(one), Err(SignalError::Unrouted(one)))?;
    machine.router.signal(two)?;
    machine.router.signal(three)?;
    same(machine.arrived()?, vec![0x42, 0x43])
}

fn identity() -> Outcome {
    let machine = Machine::new()?;
    let pin = Gsi::new(5);
    same(machine.router.route(pin), Some(Route::Pin(Pin::new(5)?)))?;
    same(machine.router.signal(pin)?, Delivery::Pending)?;
    let gsi = machine.router.allocate()?;
    machine.router.release(&[gsi])?;
    same(machine.router.route(pin).is_some(), true)?;
    machine.router.commit(&[Change::Clear(gsi)])?;
    same(machine.router.signal(pin), Err(SignalError::Unrouted(pin)))
}

/// A monitor's observer for a device in the kernel, which binds a vector's eventfd while the vector
/// is open.
struct Binder {
    router: Arc<KvmRouter>,
    devices: Vec<Arc<EventFd>>,
    bound: Mutex<BTreeMap<u16, KvmIrqfd<RustVmm<Arc<EventFd>>>>>,
}

impl VectorObserver for Binder {
    fn opened(&self, vector: u16, message: RoutedMessage) {
        let bind = || {
            let gsi = self.router.allocate().ok()?;
            self.router.commit(&[Change::Set(gsi, Route::Message(message))]).ok()?;
            let device = self.devices.get(usize::from(vector))?.clone();
            self.router.bind(RustVmm(device), gsi).ok()
        };
        if let (Some(bound), Ok(mut all)) = (bind(), self.bound.lock()) {
            all.insert(vector, bound);
        }
    }

    fn closed(&self, vector: u16) {
        if let Ok(mut all) = self.bound.lock() {
            all.remove(&vector);
        }
    }
}

fn msix() -> Outcome {
    let machine = Machine::new()?;
    let devices = vec![Arc::new(eventfd()?), Arc::new(eventfd()?)];
    let binder =
        Arc::new(Binder { router: machine.router.clone(), devices, bound: Mutex::default() });
    let table =
        MsixTable::new(2, Sender::Anonymous, machine.router.clone())?.with_observer(binder.clone());
    table.write_control(Control::new().with_enable(true));
    table.write(0x10, &0xfee0_0000u64.to_le_bytes());
    table.write(0x18, &0x61u64.to_le_bytes());

    binder.devices[1].write(1)?;
    same(machine.arrived()?, vec![0x61])?;
    same(table.signal(1), Signaled::Sent(Delivery::Pending))?;
    same(machine.arrived()?, vec![0x61])?;
    table.write(0x1c, &1u32.to_le_bytes());
    binder.devices[1].write(1)?;
    same((machine.arrived()?, table.signal(1)), (vec![], Signaled::Held))?;
    drop(table);
    same(Arc::strong_count(&machine.vm), 2)
}
