//! Eventfds that user space serves until one table hands them over to the kernel.

use crate::trials::{FIRST, Machine, eventfd};
use doorbell_test_support::kvm::{Failure, Outcome, Trial, same};
use irq_routing::irqfd::EventfdPoller;
use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfd, MsiIrqfdSet, RustVmm};
use irq_routing::msix::{MsixTable, VectorObserver};
use irq_routing::{RoutedMessage, Routing, Sender};
use msi_types::MsiMessage;
use msi_types::pci::msix::Control;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::EventFd;

pub(crate) const ALL: &[Trial] = &[
    ("vectors_unmasked_one_by_one_take_few_tables", unmasked),
    ("each_signal_arrives_once_during_hand_overs", once),
    ("vectors_without_a_gsi_work", exhausted),
    ("a_vector_that_is_masked_and_unmasked_costs_no_table", masked),
    ("a_quiet_time_hands_over_what_rang", quiet),
    ("vectors_that_never_ring_cost_no_table", idle),
    ("each_first_signal_after_a_table_costs_none", late),
    ("idle_vectors_leave_their_gsis_to_those_that_ring", scarce),
];

/// The VMM's observer for a function whose device has an eventfd for each vector.
struct Function {
    irqfds: Vec<MsiIrqfd>,
    devices: Vec<Arc<EventFd>>,
}

impl Function {
    fn new(irqfds: &MsiIrqfdSet, vectors: u16) -> Result<Arc<Self>, Failure> {
        let devices: Vec<_> =
            (0..vectors).map(|_| Ok(Arc::new(eventfd()?))).collect::<Result<_, Failure>>()?;
        let irqfds = devices.iter().map(|device| irqfds.add(RustVmm(device.clone()))).collect();
        Ok(Arc::new(Self { irqfds, devices }))
    }
}

impl VectorObserver for Function {
    fn opened(&self, vector: u16, message: RoutedMessage) {
        let opened = self.irqfds[usize::from(vector)].open(message);
        assert!(opened.is_ok(), "{opened:?}");
    }

    fn closed(&self, vector: u16) {
        self.irqfds[usize::from(vector)].close();
    }
}

struct Host {
    machine: Machine,
    poller: Arc<EventfdPoller>,
    irqfds: MsiIrqfdSet,
}

impl Host {
    fn new() -> Result<Self, Failure> {
        Self::of(Machine::new()?)
    }

    fn of(machine: Machine) -> Result<Self, Failure> {
        let poller = EventfdPoller::new()?;
        let irqfds = MsiIrqfdSet::new(machine.router.clone(), poller.clone())?;
        Ok(Self { machine, poller, irqfds })
    }

    /// Checks the messages that arrive once the poller has served all signals. No message may
    /// arrive twice.
    fn expect(&self, expected: &[u32]) -> Outcome {
        let mut arrived = self.machine.arrived_by(&self.poller, expected.len())?;
        arrived.sort_unstable();
        same(&*arrived, expected)
    }
}

/// Returns the message with this x86 vector.
fn message(vector: u32) -> RoutedMessage {
    let message = MsiMessage { address: 0xfee0_0000, data: vector };
    RoutedMessage { sender: Sender::Anonymous, message }
}

fn unmask(table: &MsixTable, vector: u16, data: u32) {
    let entry = u64::from(vector) * 16;
    table.write(entry, &0xfee0_0000u64.to_le_bytes());
    table.write(entry + 8, &u64::from(data).to_le_bytes());
}

/// Raises the process's limit of descriptors, which many systems set to 1024.
fn allow_descriptors() -> Outcome {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

fn unmasked() -> Outcome {
    const VECTORS: u16 = 1024;
    allow_descriptors()?;
    let host = Host::new()?;
    let router = host.machine.router.clone();
    let function = Function::new(&host.irqfds, VECTORS)?;
    let table =
        MsixTable::new(VECTORS, Sender::Anonymous, router.clone())?.with_observer(function.clone());
    table.write_control(Control::new().with_enable(true));

    (0..VECTORS).for_each(|vector| unmask(&table, vector, 0x40));
    host.irqfds.hand_over()?;

    let tables = router.updates();
    same((1..=16).contains(&tables), true)?;
    same(host.irqfds.waiting(), 0)?;
    for device in [0, 511, 1022, 1023] {
        function.devices[device].write(1)?;
        same(host.machine.arrived()?, vec![0x40])?;
    }
    drop(table);
    drop(function);
    same(router.updates(), tables)?;
    same(router.allocate()?.get(), FIRST)
}

/// Every device signals once while its vector is being opened and a thread polls, and once later.
fn once() -> Outcome {
    const VECTORS: u16 = 200;
    let host = Host::new()?;
    let serving = host.poller.spawn()?;
    let function = Function::new(&host.irqfds, VECTORS)?;
    for (vector, data) in (0..VECTORS).zip(0x20..) {
        function.irqfds[usize::from(vector)].open(message(data))?;
        function.devices[usize::from(vector)].write(1)?;
    }
    let all: Vec<_> = (0x20..0x20 + u32::from(VECTORS)).collect();
    host.expect(&all)?;

    host.irqfds.hand_over()?;

    host.expect(&[])?;
    drop(serving);
    same(host.irqfds.waiting(), 0)?;
    function.devices.iter().try_for_each(|device| device.write(1))?;
    host.expect(&all)?;
    function.irqfds.iter().for_each(MsiIrqfd::close);
    function.devices.iter().try_for_each(|device| device.write(1))?;
    host.expect(&[])
}

fn exhausted() -> Outcome {
    let machine = Machine::new()?;
    let last = KvmConfig::new(machine.router.limit() - 2);
    let router = Arc::new(KvmRouter::new(RustVmm(machine.vm.clone()), last)?);
    let host = Host::of(Machine { router, ..machine })?;
    let function = Function::new(&host.irqfds, 4)?;
    for (irqfd, data) in function.irqfds.iter().zip(0x41..) {
        irqfd.open(message(data))?;
    }
    same(host.irqfds.hand_over().is_err(), true)?;
    same(host.irqfds.waiting(), 2)?;
    function.devices.iter().try_for_each(|device| device.write(1))?;
    host.expect(&[0x41, 0x42, 0x43, 0x44])?;

    function.irqfds[..2].iter().for_each(MsiIrqfd::close);

    same(host.irqfds.hand_over()?, 2)?;
    function.devices.iter().try_for_each(|device| device.write(1))?;
    host.expect(&[0x43, 0x44])
}

fn masked() -> Outcome {
    let host = Host::new()?;
    let function = Function::new(&host.irqfds, 1)?;
    let (irqfd, device) = (&function.irqfds[0], &function.devices[0]);
    irqfd.open(message(0x41))?;
    host.irqfds.hand_over()?;
    let tables = host.machine.router.updates();

    for _ in 0..3 {
        irqfd.close();
        device.write(1)?;
        host.expect(&[])?;
        irqfd.open(message(0x41))?;
        host.expect(&[0x41])?;
    }

    same((host.machine.router.updates(), host.irqfds.waiting()), (tables, 0))?;
    irqfd.open(message(0x42))?;
    device.write(1)?;
    host.expect(&[0x42])?;
    same(host.machine.router.updates(), tables + 1)
}

fn quiet() -> Outcome {
    let host = Host::new()?;
    let _serving = host.poller.spawn()?;
    let function = Function::new(&host.irqfds, 3)?;
    function.irqfds.iter().try_for_each(|irqfd| irqfd.open(message(0x41)))?;
    function.devices[..2].iter().try_for_each(|device| device.write(1))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while host.irqfds.waiting() > 1 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    same((host.irqfds.waiting(), host.machine.router.updates()), (1, 1))
}

fn idle() -> Outcome {
    let host = Host::new()?;
    let function = Function::new(&host.irqfds, 64)?;
    function.irqfds.iter().try_for_each(|irqfd| irqfd.open(message(0x41)))?;
    std::thread::sleep(2 * MsiIrqfdSet::QUIET);
    host.expect(&[])?;
    drop(function);
    same((host.irqfds.waiting(), host.machine.router.updates()), (0, 0))
}

/// The first table contains the routes of all vectors.
fn late() -> Outcome {
    let host = Host::new()?;
    let function = Function::new(&host.irqfds, 8)?;
    function.irqfds.iter().try_for_each(|irqfd| irqfd.open(message(0x41)))?;
    for (rung, device) in function.devices.iter().enumerate() {
        device.write(1)?;
        host.expect(&[0x41])?;
        std::thread::sleep(2 * MsiIrqfdSet::QUIET);
        host.expect(&[])?;
        same((host.irqfds.waiting(), host.machine.router.updates()), (7 - rung, 1))?;
        device.write(1)?;
        same(host.machine.arrived()?, vec![0x41])?;
    }
    Ok(())
}

/// With two GSIs for three vectors, the vectors that were signaled own the GSIs.
fn scarce() -> Outcome {
    let machine = Machine::new()?;
    let last = KvmConfig::new(machine.router.limit() - 2);
    let router = Arc::new(KvmRouter::new(RustVmm(machine.vm.clone()), last)?);
    let host = Host::of(Machine { router, ..machine })?;
    let function = Function::new(&host.irqfds, 3)?;
    for (irqfd, data) in function.irqfds.iter().zip(0x41..) {
        irqfd.open(message(data))?;
    }
    for (device, data) in [(2, 0x43), (1, 0x42)] {
        function.devices[device].write(1)?;
        host.expect(&[data])?;
        std::thread::sleep(2 * MsiIrqfdSet::QUIET);
        host.expect(&[])?;
    }
    same(host.irqfds.waiting(), 1)?;
    function.devices.iter().try_for_each(|device| device.write(1))?;
    host.expect(&[0x41, 0x42, 0x43])
}
