//! Routes in KVM: tables as the kernel takes them, and vectors that are opened one by one.

use crate::{Probe, Reference, each};
use irq_routing::irqfd::EventfdPoller;
use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfd, MsiIrqfds};
use irq_routing::{RoutedMessage, Sender};
use kvm_bindings::{KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::{Kvm, VmFd};
use msi_types::MsiMessage;
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::{Duration, Instant};

const VECTORS: u32 = 1024;
/// Most tables that so many vectors may take.
const MOST_TABLES: u64 = 16;
const FIRST_GSI: u32 = 24;
const DOORBELL: u32 = 0xfee0_0000;
const TABLE_EACH: &str = "peer-kvm-table-each-1024";

fn machine() -> Result<VmFd, String> {
    let machine = Kvm::new().and_then(|kvm| kvm.create_vm()).map_err(|error| error.to_string())?;
    machine.create_irq_chip().map_err(|error| error.to_string())?;
    Ok(machine)
}

/// A table of so many messages, the first with other data.
fn table(routes: u32, first: u32) -> Result<KvmIrqRouting, String> {
    let entry = |gsi| {
        let data = if gsi == 0 { first } else { 0x40 };
        let msi =
            kvm_irq_routing_msi { address_lo: DOORBELL, data, ..kvm_irq_routing_msi::default() };
        let u = kvm_bindings::kvm_irq_routing_entry__bindgen_ty_1 { msi };
        let type_ = kvm_bindings::KVM_IRQ_ROUTING_MSI;
        kvm_irq_routing_entry { gsi, type_, u, ..kvm_irq_routing_entry::default() }
    };
    let entries: Vec<_> = (0..routes).map(entry).collect();
    KvmIrqRouting::from_entries(&entries).map_err(|error| format!("{error:?}"))
}

/// Two tables in turn that differ in one route.
pub(super) fn update(name: &'static str, routes: u32) -> Result<Probe, String> {
    let (machine, tables) = (machine()?, [table(routes, 0x40)?, table(routes, 0x41)?]);
    Ok(Probe::new(name, Reference::FetchOr, move || {
        let start = Instant::now();
        for table in &tables {
            machine.set_gsi_routing(table).map_err(|error| error.to_string())?;
        }
        Ok(each(start.elapsed(), 2))
    }))
}

/// The cost of a vector if each takes a table of its own: the mean of tables from one to all.
pub(super) fn table_each() -> Result<Probe, String> {
    const SIZES: u32 = 8;
    let step = VECTORS / SIZES;
    let sizes = (0..SIZES).map(|index| step * index + step / 2);
    let tables: Vec<_> = sizes.map(|size| table(size, 0x40)).collect::<Result<_, _>>()?;
    let machine = machine()?;
    Ok(Probe::new(TABLE_EACH, Reference::FetchOr, move || {
        let start = Instant::now();
        for table in &tables {
            machine.set_gsi_routing(table).map_err(|error| error.to_string())?;
        }
        Ok(each(start.elapsed(), SIZES))
    }))
}

/// A machine, and the eventfds of a device.
struct OneByOne {
    router: Arc<KvmRouter>,
    irqfds: MsiIrqfds,
    vectors: Vec<MsiIrqfd>,
}

impl OneByOne {
    fn new() -> Result<Self, String> {
        // Many systems allow 1024 descriptors unless one asks for more.
        let limit = getrlimit(Resource::Nofile);
        let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, most).map_err(|error| error.to_string())?;
        let machine = irq_routing::kvm::RustVmm(Arc::new(machine()?));
        let router = KvmRouter::new(machine, KvmConfig::new(FIRST_GSI));
        let router = Arc::new(router.map_err(|error| error.to_string())?);
        let poller = EventfdPoller::new().map_err(|error| error.to_string())?;
        let irqfds = MsiIrqfds::new(router.clone(), poller).map_err(|error| error.to_string())?;
        let vectors = (0..VECTORS).map(|_| {
            let device = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC);
            device.map(|device| irqfds.add(device)).map_err(|error| error.to_string())
        });
        let vectors = vectors.collect::<Result<_, _>>()?;
        Ok(Self { router, irqfds, vectors })
    }

    /// Opens all vectors, one by one, and hands them to the kernel.
    fn open(&self, data: u32) -> Result<Duration, String> {
        let (start, before) = (Instant::now(), self.router.updates());
        let message = MsiMessage { address: DOORBELL.into(), data };
        for vector in &self.vectors {
            let opened = vector.open(RoutedMessage { sender: Sender::Anonymous, message });
            opened.map_err(|error| error.to_string())?;
        }
        self.irqfds.hand_over().map_err(|error| error.to_string())?;
        self.counted(start, before)
    }

    /// Closes all vectors, one by one, and frees their GSIs.
    fn close(&mut self) -> Result<Duration, String> {
        let (start, before) = (Instant::now(), self.router.updates());
        self.vectors.clear();
        self.counted(start, before)
    }

    fn counted(&self, start: Instant, before: u64) -> Result<Duration, String> {
        let (time, tables) = (start.elapsed(), self.router.updates() - before);
        let waiting = self.irqfds.waiting();
        if tables <= MOST_TABLES && waiting == 0 {
            Ok(time)
        } else {
            Err(format!("{tables} tables for {VECTORS} vectors, {waiting} in user space"))
        }
    }
}

/// The cost of a vector of those that a guest unmasks one by one, until the kernel serves it.
pub(super) fn unmask() -> Probe {
    Probe::new("unmask-1024", Reference::Case(TABLE_EACH), || {
        Ok(each(OneByOne::new()?.open(0x40)?, VECTORS))
    })
}

/// The cost of the release of such a vector.
pub(super) fn release() -> Probe {
    Probe::new("release-1024", Reference::Case(TABLE_EACH), || {
        let mut vectors = OneByOne::new()?;
        vectors.open(0x40)?;
        Ok(each(vectors.close()?, VECTORS))
    })
}
