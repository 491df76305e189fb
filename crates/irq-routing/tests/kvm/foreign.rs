//! Eventfds of devices in other processes, with an MSI-X table whose messages KVM sends.

use crate::trials::Machine;
use doorbell_test_support::kvm::{Failure, Outcome, Trial, same};
use irq_routing::Sender;
use irq_routing::device_eventfds::{DeviceEventfds, SourceId};
use irq_routing::irqfd::EventfdPoller;
use irq_routing::kvm::MsiIrqfdSet;
use irq_routing::msix::MsixTable;
use msi_types::pci::msix::Control;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ALL: &[Trial] = &[
    ("a_masked_foreign_eventfd_is_pending_until_the_unmask", masked),
    ("a_foreign_eventfd_that_the_kernel_serves_can_be_masked", masked_in_the_kernel),
    ("a_changed_vector_needs_no_word_to_the_device", changed),
    ("a_saved_table_has_the_signals_of_foreign_eventfds", saved),
    ("foreign_eventfds_that_share_a_vector_send_each", shared),
    ("a_settled_signal_is_in_the_kernels_controller", settled),
];

const VECTORS: u16 = 3;

/// Function with an eventfd for each vector; the device holds another descriptor of each.
struct Function {
    machine: Machine,
    poller: Arc<EventfdPoller>,
    irqfds: Arc<MsiIrqfdSet>,
    eventfds: Arc<DeviceEventfds<Arc<MsiIrqfdSet>>>,
    table: MsixTable,
    sources: Vec<SourceId>,
    devices: Vec<OwnedFd>,
}

impl Function {
    /// Creates a function with all vectors masked. Vector `n` sends the x86 vector 0x40 + `n`.
    fn new() -> Result<Self, Failure> {
        let machine = Machine::new()?;
        let poller = EventfdPoller::new()?;
        let irqfds = Arc::new(MsiIrqfdSet::new(machine.router.clone(), poller.clone())?);
        let eventfds = Arc::new(DeviceEventfds::new(irqfds.clone()));
        let table = MsixTable::new(VECTORS, Sender::Anonymous, machine.router.clone())?
            .with_observer(eventfds.clone());
        let (mut sources, mut devices) = (Vec::new(), Vec::new());
        for vector in 0..VECTORS {
            let device = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
            let source = eventfds.add(device.try_clone()?)?;
            eventfds.set_vector(source, Some(vector))?;
            let entry = u64::from(vector) * 16;
            table.write(entry, &0xfee0_0000u64.to_le_bytes());
            table.write(entry + 8, &(0x40 + u32::from(vector)).to_le_bytes());
            sources.push(source);
            devices.push(device);
        }
        table.write_control(Control::new().with_enable(true));
        Ok(Self { machine, poller, irqfds, eventfds, table, sources, devices })
    }

    fn mask(&self, vector: u16, masked: bool) {
        self.table.write(u64::from(vector) * 16 + 12, &u32::from(masked).to_le_bytes());
    }

    fn ring(&self, device: usize) -> Outcome {
        rustix::io::write(&self.devices[device], &1u64.to_ne_bytes())?;
        Ok(())
    }

    /// Checks the messages that arrived, and the pending bits.
    fn expect(&self, expected: &[u32], pending: u64) -> Outcome {
        same(&*self.machine.arrived_by(&self.poller, expected.len())?, expected)?;
        let mut bits = [0; 8];
        self.table.read_pending(0, &mut bits);
        same(u64::from_le_bytes(bits), pending)
    }
}

fn masked() -> Outcome {
    let function = Function::new()?;
    function.ring(1)?;
    function.expect(&[], 0b10)?;
    function.mask(1, false);
    function.expect(&[0x41], 0)?;
    function.ring(1)?;
    function.expect(&[0x41], 0)
}

fn masked_in_the_kernel() -> Outcome {
    let function = Function::new()?;
    (0..VECTORS).for_each(|vector| function.mask(vector, false));
    same(function.irqfds.hand_over()?, VECTORS.into())?;
    let tables = function.machine.router.updates();
    for _ in 0..3 {
        function.ring(2)?;
        function.expect(&[0x42], 0)?;
        function.mask(2, true);
        function.ring(2)?;
        function.expect(&[], 0b100)?;
        function.mask(2, false);
        function.expect(&[0x42], 0)?;
    }
    same((function.irqfds.waiting(), function.machine.router.updates()), (0, tables))
}

fn changed() -> Outcome {
    let function = Function::new()?;
    (0..VECTORS).for_each(|vector| function.mask(vector, false));
    function.irqfds.hand_over()?;
    function.eventfds.set_vector(function.sources[0], Some(2))?;
    function.ring(0)?;
    function.expect(&[0x42], 0)?;
    function.eventfds.set_vector(function.sources[0], None)?;
    function.ring(0)?;
    function.expect(&[], 0)?;
    function.eventfds.set_vector(function.sources[0], Some(1))?;
    function.expect(&[0x41], 0)
}

fn saved() -> Outcome {
    let function = Function::new()?;
    function.mask(0, false);
    function.irqfds.hand_over()?;
    function.mask(0, true);
    function.ring(0)?;
    same(function.table.save().pending, vec![0])?;
    function.mask(0, false);
    function.expect(&[0x40], 0)
}

fn shared() -> Outcome {
    let function = Function::new()?;
    function.eventfds.set_vector(function.sources[0], Some(1))?;
    function.mask(1, false);
    function.irqfds.hand_over()?;
    for device in [0, 1] {
        function.ring(device)?;
        function.expect(&[0x41], 0)?;
    }
    function.mask(1, true);
    function.ring(0)?;
    function.ring(1)?;
    function.expect(&[], 0b10)
}

/// A signal from before the unmask is sent by a thread of the kernel.
fn settled() -> Outcome {
    let function = Function::new()?;
    function.mask(0, false);
    function.mask(1, false);
    function.irqfds.hand_over()?;
    function.ring(2)?;
    for _ in 0..3000 {
        function.mask(0, true);
        function.ring(0)?;
        function.ring(1)?;
        function.mask(0, false);
        function.table.settle(Duration::from_secs(20))?;
        let mut arrived = function.machine.arrived()?;
        arrived.sort_unstable();
        same(arrived, vec![0x40, 0x41])?;
    }
    same(function.irqfds.waiting(), 0)?;
    same(function.table.save().pending, vec![2])
}
