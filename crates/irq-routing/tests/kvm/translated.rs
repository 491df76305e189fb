//! Messages behind an IOMMU, above KVM.

use crate::machines::enable_extended_ids;
use crate::trials::{FIRST, Machine, eventfd};
use doorbell_test_support::kvm::{Failure, Outcome, Trial, same};
use irq_routing::irqfd::EventfdPoller;
use irq_routing::kvm::{ApicIds, KvmConfig, KvmRouter, MsiIrqfdSet, RustVmm};
use irq_routing::{
    Access, Change, Invalidation, MessageSink, Route, RoutedMessage, Routing, Sender, TranslateMsi,
};
use msi_types::{Delivery, DeviceId, MsiMessage};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

pub(crate) const ALL: &[Trial] = &[
    ("the_kernels_routes_hold_translated_addresses", routes),
    ("an_eventfd_that_the_iommu_blocks_is_served_by_user_space", irqfds),
    ("an_address_that_kvm_refuses_spoils_no_other_route", refused),
];

const DEVICE: DeviceId = DeviceId::new(8);
const ROUTED: RoutedMessage = RoutedMessage {
    sender: Sender::Device(DEVICE),
    message: MsiMessage { address: 0x5000, data: 0x41 },
};
/// The address of the machine's local APIC, and of one that the machine does not have.
const APIC: u64 = 0xfee0_0000;
const NO_APIC: u64 = 0xfee0_7000;

/// An IOMMU that maps all addresses to one, or blocks all messages while that is 0.
#[derive(Default)]
struct Iommu {
    mapped: AtomicU64,
    events: AtomicU64,
}

impl TranslateMsi for Iommu {
    fn translate(&self, _: DeviceId, _: u64, access: Access) -> Option<u64> {
        let address = Some(self.mapped.load(SeqCst)).filter(|address| *address != 0);
        if address.is_none() && access == Access::Message {
            self.events.fetch_add(1, SeqCst);
        }
        address
    }
}

impl Iommu {
    fn remap(&self, machine: &Machine, address: u64) -> Outcome {
        self.mapped.store(address, SeqCst);
        let device = Invalidation::all().with_devices(DEVICE..=DEVICE);
        Ok(machine.router.invalidate(&device)?)
    }
}

fn machine() -> Result<(Machine, Arc<Iommu>), Failure> {
    machine_of(KvmConfig::new(FIRST))
}

fn machine_of(config: KvmConfig) -> Result<(Machine, Arc<Iommu>), Failure> {
    let (mut machine, iommu) = (Machine::new()?, Arc::new(Iommu::default()));
    let router = KvmRouter::new(RustVmm(machine.vm.clone()), config)?;
    machine.router = Arc::new(router.with_translator(iommu.clone()));
    Ok((machine, iommu))
}

fn routes() -> Outcome {
    let (machine, iommu) = machine()?;
    let (gsi, device) = (machine.router.allocate()?, eventfd()?);
    let route = Route::Message(ROUTED);
    machine.router.commit(&[Change::Set(gsi, route)])?;
    let bound = machine.router.bind(RustVmm(&device), gsi)?;
    device.write(1)?;
    same(machine.router.signal(gsi)?, Delivery::Blocked)?;
    same((machine.arrived()?, machine.router.dropped()), (vec![], 1))?;
    same((machine.router.route(gsi), iommu.events.load(SeqCst)), (Some(route), 1))?;

    iommu.remap(&machine, APIC)?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x41])?;
    same(machine.router.signal_msi(ROUTED)?, Delivery::Pending)?;
    same(machine.arrived()?, vec![0x41])?;
    let updates = machine.router.updates();
    for _ in 0..100 {
        machine.router.invalidate(&Invalidation::all())?;
    }
    same(machine.router.updates(), updates)?;

    iommu.remap(&machine, NO_APIC)?;
    device.write(1)?;
    same((machine.arrived()?, machine.router.updates()), (vec![], updates + 1))?;

    // The guest maps the page again before the eventfd is bound, without an invalidation.
    iommu.remap(&machine, 0)?;
    drop(bound);
    iommu.mapped.store(APIC, SeqCst);
    let _bound = machine.router.bind(RustVmm(&device), gsi)?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x41])
}

fn irqfds() -> Outcome {
    let (machine, iommu) = machine()?;
    let poller = EventfdPoller::new()?;
    let set = MsiIrqfdSet::new(machine.router.clone(), poller.clone())?;
    let device = Arc::new(eventfd()?);
    let irqfd = set.add(RustVmm(device.clone()));
    irqfd.open(ROUTED)?;
    same(set.hand_over()?, 0)?;
    device.write(1)?;
    same((machine.arrived_by(&poller, 0)?, iommu.events.load(SeqCst)), (vec![], 1))?;

    // The guest maps the page without an invalidation.
    iommu.mapped.store(APIC, SeqCst);
    device.write(1)?;
    same(machine.arrived_by(&poller, 1)?, vec![0x41])?;
    set.hand_over()?; // unless the timer has already expired
    same(set.waiting(), 0)?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x41])?;

    iommu.remap(&machine, 0)?;
    irqfd.close();
    irqfd.open(ROUTED)?;
    device.write(1)?;
    same((machine.arrived_by(&poller, 0)?, set.waiting()), (vec![], 1))?;
    same((iommu.events.load(SeqCst), machine.router.dropped()), (2, 2))?;

    iommu.remap(&machine, APIC)?;
    device.write(1)?;
    same(machine.arrived_by(&poller, 1)?, vec![0x41])
}

/// A guest maps a page to an address with reserved bits, for which KVM refuses a whole table.
fn refused() -> Outcome {
    let extended = KvmConfig::new(FIRST).with_apic_ids(ApicIds::Extended);
    let (machine, iommu) = machine_of(extended)?;
    enable_extended_ids(&machine.vm)?;
    let (gsi, other) = (machine.router.allocate()?, machine.router.allocate()?);
    iommu.remap(&machine, APIC)?;
    machine.router.commit(&[Change::Set(gsi, Route::Message(ROUTED))])?;
    iommu.remap(&machine, APIC | 1 << 32)?;

    let anonymous = MsiMessage { address: APIC, data: 0x42 };
    let route = RoutedMessage { sender: Sender::Anonymous, message: anonymous };
    machine.router.commit(&[Change::Set(other, Route::Message(route))])?;
    let device = eventfd()?;
    let _bound = machine.router.bind(RustVmm(&device), other)?;
    device.write(1)?;
    same(machine.arrived()?, vec![0x42])
}
