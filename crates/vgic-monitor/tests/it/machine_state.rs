//! Machines that are restored from the state of another machine, or refuse it.

mod bytes;

use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vgic_monitor::irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use vgic_monitor::irq_routing::msi::{MsiCapability, MsiLayout};
use vgic_monitor::irq_routing::msix::MsixTable;
use vgic_monitor::irq_routing::virtio::{Notification, VirtioNotifier};
use vgic_monitor::irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing, Sender};
use vgic_monitor::machine_state::{
    Function, FunctionError, MachineState, Parts, RestoreStateError, SaveStateError,
};
use vgic_monitor::msi_types::{Cpu, DeviceId, Kick, Level};
use vgic_monitor::vgic::{AccessWidth, GuestMemory, MemoryFault, Vcpu, Vgic, VgicConfig};

const LIMIT: Duration = Duration::from_secs(20);
const SENDER: Sender = Sender::Device(DeviceId::new(8));
/// Offset of `GICD_ISENABLER1`.
const ISENABLER1: u64 = 0x104;

/// Empty guest memory, and a kick that does nothing.
struct Nothing;

impl GuestMemory for Nothing {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}

impl Kick for Nothing {
    fn kick(&self, _: Cpu) {}
}

/// A machine with an MSI-X function.
struct Machine {
    gic: Arc<Vgic>,
    vcpus: Vec<Vcpu>,
    router: Arc<Router>,
    table: Arc<MsixTable>,
}

impl Machine {
    fn new(vcpus: u16, vectors: u16) -> Self {
        Self::with(VgicConfig::new(vcpus), vectors)
    }

    fn with(config: VgicConfig, vectors: u16) -> Self {
        let (gic, vcpus) = Vgic::new(config, Arc::new(Nothing), Arc::new(Nothing)).unwrap();
        let router = Router::new(GsiSpace::default(), Inputs::new(gic.clone())).unwrap();
        let router = Arc::new(router);
        let table = Arc::new(MsixTable::new(vectors, SENDER, router.clone()).unwrap());
        Self { gic, vcpus, router, table }
    }

    /// Enables an SPI and MSI-X, as a guest's drivers do, and makes vector 1 pending.
    fn enable_interrupts(&self) {
        let address = self.gic.config().distributor + ISENABLER1;
        let _ = self.gic.write(address, AccessWidth::Word, 2).unwrap();
        self.table.write_capability(3, &[0x80]);
        self.table.signal(1);
    }

    fn save(&mut self) -> MachineState {
        Parts::new(&self.gic)
            .with_function("disk", &*self.table)
            .save(&mut self.vcpus, LIMIT)
            .unwrap()
    }

    /// Restores a state. If the machine refuses it, checks that nothing changed.
    fn restore(&mut self, state: &MachineState) -> Result<(), RestoreStateError> {
        let before = self.save();
        let parts = Parts::new(&self.gic).with_function("disk", &*self.table);
        let check = parts.check(state);
        let restored = parts.restore(&mut self.vcpus, state);
        assert_eq!(check.is_ok(), restored.is_ok(), "{check:?}, {restored:?}");
        if restored.is_err() {
            assert_eq!(self.save(), before);
        }
        restored
    }
}

fn used() -> MachineState {
    let mut machine = Machine::new(2, 3);
    machine.enable_interrupts();
    machine.save()
}

#[test]
fn restored_machine_is_in_the_saved_state() {
    let state = used();
    let json = serde_json::to_string(&state).unwrap();
    let mut machine = Machine::new(2, 3);
    assert_ne!(machine.save(), state);
    machine.restore(&serde_json::from_str(&json).unwrap()).unwrap();
    assert_eq!(machine.save(), state);
}

#[test]
fn refused_restore_leaves_every_part_unchanged() {
    let state = used();
    let mut later = state.clone();
    later.version += 1;
    let refused = |(vcpus, vectors), state: &MachineState| {
        let mut machine = Machine::new(vcpus, vectors);
        machine.enable_interrupts();
        let before = machine.save();
        let error = machine.restore(state).unwrap_err();
        assert_eq!(machine.save(), before, "{error}");
        error
    };
    let other_table = refused((2, 4), &state);
    assert!(
        matches!(&other_table, RestoreStateError::Function { name, .. } if name == "disk"),
        "{other_table:?}"
    );
    let other_gic = refused((3, 3), &state);
    assert!(matches!(other_gic, RestoreStateError::Gic(_)), "{other_gic:?}");
    let later = refused((2, 3), &later);
    assert!(matches!(later, RestoreStateError::Version(3)), "{later:?}");
}

#[test]
fn each_function_needs_exactly_one_state() {
    let refused = |state: &MachineState| match Machine::new(2, 3).restore(state) {
        Err(RestoreStateError::Functions { name, saved, here }) => (name, saved, here),
        other => panic!("{other:?}"),
    };
    let mut missing = used();
    let disk = missing.functions.pop().unwrap();
    assert_eq!(refused(&missing), ("disk".to_owned(), 0, 1));
    let mut twice = missing.clone();
    twice.functions.extend([disk.clone(), disk.clone()]);
    assert_eq!(refused(&twice), ("disk".to_owned(), 2, 1));
    let mut unknown = missing;
    unknown.functions.extend([disk.clone(), ("net".to_owned(), disk.1)]);
    assert_eq!(refused(&unknown), ("net".to_owned(), 1, 0));
}

#[test]
fn save_refuses_two_functions_with_one_name() {
    let mut machine = Machine::new(1, 1);
    let parts = Parts::new(&machine.gic)
        .with_function("disk", &*machine.table)
        .with_function("disk", &*machine.table);
    let refused = parts.save(&mut machine.vcpus, LIMIT);
    assert!(matches!(&refused, Err(SaveStateError::SameName(name)) if name == "disk"));
}

#[test]
fn save_names_a_part_that_is_left_out() {
    let mut machine = Machine::new(1, 1);
    let router = machine.router.clone();
    let notifier = VirtioNotifier::new(machine.table.clone(), 1);
    let irqfds = IrqfdSet::new(EventfdPoller::new().unwrap(), router.clone());
    let functions: [(_, &dyn Function); 2] = [
        ("the function with DeviceID 0x8", &*machine.table),
        ("the virtio notifier of the function with DeviceID 0x8", &notifier),
    ];
    let none = Parts::new(&machine.gic);
    let mut left_out = |parts: &Parts<'_>| match parts.save(&mut machine.vcpus, LIMIT) {
        Err(SaveStateError::LeftOut(name)) => Some(name),
        saved => saved.map(|_| None).unwrap(),
    };
    let [table, notifier] = functions;
    for ((present, function), (absent, _)) in [(table, notifier), (notifier, table)] {
        let one = none.clone().with_function(present, function).with_irqfds(&irqfds);
        assert_eq!(left_out(&one).as_deref(), Some(absent));
    }
    assert_eq!(left_out(&none.clone().with_router(&*router)).as_deref(), Some(table.0));
    let all = none.with_function(table.0, table.1).with_function(notifier.0, notifier.1);
    assert_eq!(left_out(&all).as_deref(), Some("a set of eventfds"));
    assert_eq!(left_out(&all.clone().with_irqfds(&irqfds)), None);
    drop(irqfds);
    assert_eq!(left_out(&all), None);
}

#[test]
fn a_function_refuses_the_state_of_another_kind_of_function() {
    let mut machine = Machine::new(2, 3);
    let layout = MsiLayout { log2_vectors: 0, address_64: true, per_vector_masking: false };
    let msi = MsiCapability::new(layout, 0, SENDER, machine.router.clone()).unwrap();
    let parts = Parts::new(&machine.gic).with_function("disk", &msi);
    let refused = parts.restore(&mut machine.vcpus, &used());
    assert!(
        matches!(refused, Err(RestoreStateError::Function { error: FunctionError::OtherKind, .. })),
        "{refused:?}"
    );
}

#[test]
fn save_needs_each_vcpu_to_be_paused() {
    let mut machine = Machine::new(2, 1);
    let parts = Parts::new(&machine.gic);
    assert!(matches!(parts.save(&mut [], LIMIT), Err(SaveStateError::Gic(_))));
    let (one, others) = machine.vcpus.split_at_mut(1);
    let _paused = one[0].pause();
    parts.save(others, LIMIT).unwrap();
}

#[test]
fn virtio_device_is_restored_after_its_table_whatever_the_order() {
    let mut machine = Machine::new(1, 2);
    let pin = Arc::new(Mutex::new(Vec::new()));
    let driven = pin.clone();
    let notifier = VirtioNotifier::new(machine.table.clone(), 1)
        .with_pin(move |level| driven.lock().unwrap().push(level));
    notifier.write_capability(3, &[0x80]);
    notifier.notify(Notification::ConfigurationChange);
    let parts = Parts::new(&machine.gic)
        .with_function("vectors", &notifier)
        .with_function("table", &*machine.table);
    let state = parts.save(&mut machine.vcpus, LIMIT).unwrap();
    machine.table.reset();
    notifier.reset();
    parts.restore(&mut machine.vcpus, &state).unwrap();
    assert_eq!(*pin.lock().unwrap(), [Level::Low], "the pin is low while MSI-X is enabled");
    assert_eq!(notifier.take_isr(), 2);
}

#[test]
fn function_that_shares_its_pin_with_an_eventfd_keeps_it_high() {
    let mut machine = Machine::new(1, 1);
    let irqfds = IrqfdSet::new(EventfdPoller::new().unwrap(), machine.router.clone());
    let gsi = machine.router.allocate().unwrap();
    let pin = Change::Set(gsi, Route::Pin(Pin::of_spi(33).unwrap()));
    machine.router.commit(&[pin]).unwrap();
    let [trigger, resample] = [(); 2].map(|()| new_eventfd());
    let _bound = irqfds.bind_level(trigger, resample, gsi).unwrap();
    let router = machine.router.clone();
    let notifier = VirtioNotifier::new(machine.table.clone(), 1)
        .with_pin(move |level| _ = router.set_level(gsi, level).unwrap());
    notifier.notify(Notification::UsedBuffer(0));
    let parts = Parts::new(&machine.gic)
        .with_function("table", &*machine.table)
        .with_function("net", &notifier)
        .with_irqfds(&irqfds);
    let state = parts.save(&mut machine.vcpus, LIMIT).unwrap();
    parts.restore(&mut machine.vcpus, &state).unwrap();
    assert!(line(&parts.save(&mut machine.vcpus, LIMIT).unwrap()));
}

fn line(state: &MachineState) -> bool {
    state.gic.distributor.interrupts.iter().any(|interrupt| interrupt.line)
}

fn new_eventfd() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap())
}

#[test]
fn restore_asks_level_triggered_devices_to_signal_again() {
    let mut machine = Machine::new(1, 1);
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller, machine.router.clone());
    machine.gic.observe_lines(irqfds.observer()).unwrap();
    let gsi = machine.router.allocate().unwrap();
    let pin = Change::Set(gsi, Route::Pin(Pin::of_spi(33).unwrap()));
    machine.router.commit(&[pin]).unwrap();
    let [trigger, resample] = [(); 2].map(|()| new_eventfd());
    let _bound = irqfds.bind_level(trigger.clone(), resample.clone(), gsi).unwrap();
    rustix::io::write(&trigger, &1u64.to_ne_bytes()).unwrap();

    let parts =
        Parts::new(&machine.gic).with_function("disk", &*machine.table).with_irqfds(&irqfds);
    let state = parts.save(&mut machine.vcpus, LIMIT).unwrap();
    assert!(line(&state), "the save serves the signal");
    machine.router.set_level(gsi, Level::Low).unwrap();
    parts.restore(&mut machine.vcpus, &state).unwrap();
    assert!(!line(&parts.save(&mut machine.vcpus, LIMIT).unwrap()));
    let mut count = [0; 8];
    rustix::io::read(&resample, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
}
