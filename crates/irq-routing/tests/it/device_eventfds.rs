//! Eventfds of devices in other processes, with an MSI-X table.
#![cfg(target_os = "linux")]

use crate::controller::{Controller, Heard};
use irq_routing::device_eventfds::{DeviceEventfds, MessageIrqfd, MessageIrqfdSet, SourceId};
use irq_routing::irqfd::{EventfdPoller, IrqfdError, MessageEventfdSet};
use irq_routing::msix::{BusMaster, MsixTable};
use irq_routing::{GsiSpace, RoutedMessage, Router, Sender, Unsettled};
use msi_types::DeviceId;
use msi_types::pci::msix::Control;
use proptest::prelude::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;
use std::time::Duration;

const VECTORS: u16 = 3;
const SOURCES: usize = 3;
const LIMIT: Duration = Duration::from_secs(20);

/// Table and a device, which holds duplicates of the eventfds.
struct Rig {
    table: MsixTable,
    poller: Arc<EventfdPoller>,
    controller: Arc<Controller>,
    choose: Box<dyn Fn(usize, Option<u16>)>,
    device: Vec<OwnedFd>,
}

fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap()
}

impl Rig {
    /// Creates a rig in which each source signals the vector of the same number. All vectors are
    /// masked.
    fn new() -> Self {
        let controller = Arc::new(Controller::default());
        let router = Arc::new(Router::new(GsiSpace::default(), controller.inputs()).unwrap());
        let poller = EventfdPoller::new().unwrap();
        let irqfds = MessageEventfdSet::new(poller.clone(), router.clone());
        let eventfds = Arc::new(DeviceEventfds::new(irqfds));
        let sender = Sender::Device(DeviceId::new(8));
        let table = MsixTable::new(VECTORS, sender, router).unwrap();
        let table = table.with_observer(eventfds.clone());
        let device: Vec<_> = (0..SOURCES).map(|_| new_eventfd()).collect();
        let sources: Vec<SourceId> =
            device.iter().map(|fd| eventfds.add(fd.try_clone().unwrap()).unwrap()).collect();
        let choose = move |source: usize, vector| {
            eventfds.set_vector(sources[source], vector).unwrap();
        };
        (0..VECTORS).for_each(|vector| choose(vector.into(), Some(vector)));
        for vector in 0..VECTORS {
            let entry = u64::from(vector) * 16;
            table.write(entry, &Controller::ITS.to_le_bytes());
            table.write(entry + 8, &u32::from(vector).to_le_bytes());
        }
        table.write_control(Control::new().with_enable(true));
        Self { table, poller, controller, choose: Box::new(choose), device }
    }

    fn mask(&self, vector: u16, masked: bool) {
        self.table.write(u64::from(vector) * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    fn ring(&self, source: usize) {
        rustix::io::write(&self.device[source], &1u64.to_ne_bytes()).unwrap();
    }

    fn pending(&self) -> u64 {
        let mut bytes = [0; 8];
        self.table.read_pending(0, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Serves all signals, and returns the vectors whose messages arrived since the last call.
    fn heard(&self) -> Vec<u32> {
        while self.poller.dispatch(Some(Duration::ZERO)).unwrap() > 0 {}
        self.arrived()
    }

    fn arrived(&self) -> Vec<u32> {
        let data = |heard| match heard {
            Heard::Event(_, data) => data,
            other => panic!("{other:?}"),
        };
        let mut heard: Vec<_> = self.controller.heard().into_iter().map(data).collect();
        heard.sort_unstable();
        heard
    }
}

#[test]
fn signal_of_a_masked_vector_is_pending() {
    let rig = Rig::new();
    rig.ring(1);
    assert_eq!((rig.heard(), rig.pending()), (vec![], 0b10));
    rig.mask(1, false);
    assert_eq!((rig.heard(), rig.pending()), (vec![1], 0));
}

#[test]
fn unread_signal_is_sent_on_unmask() {
    let rig = Rig::new();
    rig.ring(1);
    rig.mask(1, false);
    assert_eq!((rig.heard(), rig.pending()), (vec![1], 0));
}

#[test]
fn an_eventfd_signal_sends_the_newly_chosen_vector() {
    let rig = Rig::new();
    rig.mask(0, false);
    rig.mask(2, false);
    rig.ring(0);
    (rig.choose)(0, Some(2));
    assert_eq!(rig.heard(), [2]);
    rig.ring(0);
    assert_eq!(rig.heard(), [2]);
}

#[test]
fn a_saved_state_includes_unread_eventfd_signals() {
    let rig = Rig::new();
    rig.ring(2);
    assert_eq!(rig.table.save().pending, [2]);
}

#[test]
fn settling_waits_for_the_serving_threads() {
    let rig = Rig::new();
    let _serving = [rig.poller.spawn().unwrap(), rig.poller.spawn().unwrap()];
    (0..VECTORS).for_each(|vector| rig.mask(vector, false));
    for round in 0..2000 {
        (0..SOURCES).for_each(|source| rig.ring(source));
        rig.table.settle(LIMIT).unwrap();
        assert_eq!(rig.arrived(), [0, 1, 2], "in round {round}");
    }
}

#[test]
fn reset_discards_unread_eventfd_signals() {
    let rig = Rig::new();
    rig.ring(2);
    rig.table.reset();
    assert_eq!(rig.pending(), 0);
}

#[test]
fn blocking_eventfd_is_refused() {
    let eventfds = DeviceEventfds::new(Refusing);
    let blocking = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    assert!(matches!(eventfds.add(blocking), Err(IrqfdError::Blocking)));
}

/// Host that refuses every open.
struct Refusing;

impl MessageIrqfdSet for Refusing {
    type Irqfd = Self;

    fn add(&self, _: Arc<OwnedFd>) -> Self {
        Self
    }

    fn settle(&self, _: Duration) -> Result<(), Unsettled> {
        Ok(())
    }
}

impl MessageIrqfd for Refusing {
    fn open(&mut self, _: RoutedMessage) -> Result<(), IrqfdError> {
        Err(IrqfdError::System(io::ErrorKind::QuotaExceeded.into()))
    }

    fn close(&mut self) {}
}

#[test]
fn a_refused_eventfd_is_reported_and_served_manually() {
    let controller = Arc::new(Controller::default());
    let router = Arc::new(Router::new(GsiSpace::default(), controller.inputs()).unwrap());
    let eventfds = Arc::new(DeviceEventfds::new(Refusing));
    let table = MsixTable::new(1, Sender::Device(DeviceId::new(8)), router).unwrap();
    let table = table.with_observer(eventfds.clone());
    let device = new_eventfd();
    let source = eventfds.add(device.try_clone().unwrap()).unwrap();
    eventfds.set_vector(source, Some(0)).unwrap();
    table.write(0, &Controller::ITS.to_le_bytes());
    table.write(8, &5u64.to_le_bytes());
    table.write_control(Control::new().with_enable(true));
    let errors = eventfds.take_errors();
    assert_eq!((errors.len(), errors[0].vector, errors[0].source_id), (1, 0, source));
    rustix::io::write(&device, &1u64.to_ne_bytes()).unwrap();
    eventfds.serve(|vector| _ = table.signal(vector));
    assert_eq!(controller.heard(), [Heard::Event(DeviceId::new(8), 5)]);
    rustix::io::write(&device, &1u64.to_ne_bytes()).unwrap();
    table.settle(LIMIT).unwrap();
    assert_eq!(controller.heard(), [Heard::Event(DeviceId::new(8), 5)]);
}

#[derive(Clone, Debug)]
enum Step {
    Ring(usize),
    Mask(u16, bool),
    Choose(usize, Option<u16>),
    ReadPending,
    Settle,
    Enable(bool),
    BusMaster(bool),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..SOURCES).prop_map(Step::Ring),
        4 => (0..VECTORS, any::<bool>()).prop_map(|(vector, masked)| Step::Mask(vector, masked)),
        3 => (0..SOURCES, prop::option::of(0..VECTORS))
            .prop_map(|(source, vector)| Step::Choose(source, vector)),
        2 => Just(Step::ReadPending),
        2 => Just(Step::Settle),
        1 => any::<bool>().prop_map(Step::Enable),
        1 => any::<bool>().prop_map(Step::BusMaster),
    ]
}

/// Simplest possible model of sources and vectors.
struct Model {
    rung: [bool; SOURCES],
    vectors: [Option<u16>; SOURCES],
    masked: [bool; 3],
    pending: [bool; 3],
    enabled: bool,
    bus_master: bool,
}

impl Model {
    fn is_open(&self, vector: u16) -> bool {
        self.enabled && self.bus_master && !self.masked[usize::from(vector)]
    }

    /// Returns the vectors that are sent. An eventfd and a pending bit each send one message.
    fn settle(&mut self) -> Vec<u32> {
        let mut sent = Vec::new();
        for vector in 0..VECTORS {
            if self.is_open(vector) && std::mem::take(&mut self.pending[usize::from(vector)]) {
                sent.push(u32::from(vector));
            }
        }
        for (source, vector) in self.vectors.into_iter().enumerate() {
            let open = vector.filter(|vector| self.is_open(*vector));
            if let Some(vector) = open.filter(|_| std::mem::take(&mut self.rung[source])) {
                sent.push(vector.into());
            }
        }
        sent.sort_unstable();
        sent
    }

    fn read_pending(&mut self) -> u64 {
        for (source, vector) in self.vectors.into_iter().enumerate() {
            if let Some(vector) = vector.filter(|_| std::mem::take(&mut self.rung[source])) {
                self.pending[usize::from(vector)] = true;
            }
        }
        self.pending.iter().rev().fold(0, |bits, pending| bits << 1 | u64::from(*pending))
    }
}

proptest! {
    #[test]
    fn every_signal_is_sent_or_pending(steps in prop::collection::vec(steps(), 0..50)) {
        let rig = Rig::new();
        let mut model = Model {
            rung: [false; SOURCES],
            vectors: [Some(0), Some(1), Some(2)],
            masked: [true; 3],
            pending: [false; 3],
            enabled: true,
            bus_master: true,
        };
        for step in steps {
            match step {
                Step::Ring(source) => {
                    rig.ring(source);
                    model.rung[source] = true;
                }
                Step::Mask(vector, masked) => {
                    rig.mask(vector, masked);
                    model.masked[usize::from(vector)] = masked;
                }
                Step::Choose(source, vector) => {
                    (rig.choose)(source, vector);
                    model.vectors[source] = vector;
                }
                Step::ReadPending => prop_assert_eq!(rig.pending(), model.read_pending()),
                Step::Settle => {
                    let expected = model.settle();
                    model.read_pending();
                    rig.table.settle(LIMIT).unwrap();
                    prop_assert_eq!(rig.arrived(), expected);
                }
                Step::BusMaster(is_master) => {
                    let setting = [BusMaster::Disabled, BusMaster::Enabled][usize::from(is_master)];
                    rig.table.set_bus_master(setting);
                    model.bus_master = is_master;
                }
                Step::Enable(enabled) => {
                    rig.table.write_control(Control::new().with_enable(enabled));
                    model.enabled = enabled;
                }
            }
            prop_assert_eq!(rig.heard(), model.settle(), "after {:?}", step);
        }
    }
}
