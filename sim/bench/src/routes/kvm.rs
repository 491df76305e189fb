//! Routing in KVM. Measures setting whole tables, the only change that the kernel accepts, and
//! opening vectors one by one. Each case is compared with the minimum that the kernel itself needs.

use crate::probe::{Probe, Reference, each};
use irq_routing::irqfd::EventfdPoller;
use irq_routing::kvm::{KvmConfig, KvmRouter, MsiIrqfd, MsiIrqfdSet};
use irq_routing::{RoutedMessage, Sender};
use kvm_bindings::{KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi};
use kvm_ioctls::{Kvm, VmFd};
use msi_types::MsiMessage;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const VECTORS: u32 = 1024;
/// Maximum number of tables that are set while measuring these vectors.
const MOST_TABLES: u64 = 16;
const FIRST_GSI: u32 = 24;
const DOORBELL: u32 = 0xfee0_0000;
const TABLE_EACH: &str = "peer-kvm-table-each-1024";
const DEASSIGN: &str = "floor-irqfd-deassign";

fn machine() -> Result<VmFd, String> {
    let machine = Kvm::new().and_then(|kvm| kvm.create_vm()).map_err(|error| error.to_string())?;
    machine.create_irq_chip().map_err(|error| error.to_string())?;
    Ok(machine)
}

/// Returns a table with `routes` messages. The data of the first message is `first`.
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

/// Measures switching between two tables that differ in one route.
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

/// Measures the cost per vector if a whole table is set for each vector: the mean over table sizes
/// from one to all vectors.
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

/// Raises the file descriptor limit, which is 1024 by default on many systems.
fn allow_descriptors() -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, most).map_err(|error| error.to_string())
}

/// Measures just `KVM_IRQFD`: assigning or deassigning an eventfd.
fn irqfd(name: &'static str, measured: Irqfd) -> Probe {
    Probe::new(name, Reference::Case(TABLE_EACH), move || {
        allow_descriptors()?;
        let machine = machine()?;
        let table = table(VECTORS, 0x40)?;
        machine.set_gsi_routing(&table).map_err(|error| error.to_string())?;
        let eventfds = (0..VECTORS).map(|_| EventFd::new(EFD_NONBLOCK));
        let eventfds: Vec<_> =
            eventfds.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let each_one = |call: fn(&VmFd, &EventFd, u32) -> Result<(), kvm_ioctls::Error>| {
            let start = Instant::now();
            let mut calls = eventfds.iter().zip(0..).map(|(fd, gsi)| call(&machine, fd, gsi));
            calls.try_for_each(|result| result.map_err(|error| error.to_string()))?;
            Ok::<_, String>(each(start.elapsed(), VECTORS))
        };
        let assigned = each_one(VmFd::register_irqfd)?;
        match measured {
            Irqfd::Assign => Ok(assigned),
            Irqfd::Deassign => each_one(VmFd::unregister_irqfd),
        }
    })
}

#[derive(Clone, Copy)]
enum Irqfd {
    Assign,
    Deassign,
}

/// Returns the probes for `KVM_IRQFD`. Binding or unbinding a vector calls it at least once.
pub(super) fn floors() -> [Probe; 2] {
    [irqfd("floor-irqfd-assign", Irqfd::Assign), irqfd(DEASSIGN, Irqfd::Deassign)]
}

/// A machine, and the eventfds of one device.
struct OneByOne {
    router: Arc<KvmRouter>,
    irqfds: MsiIrqfdSet,
    poller: Arc<EventfdPoller>,
    devices: Vec<Arc<OwnedFd>>,
    vectors: Vec<MsiIrqfd>,
}

impl OneByOne {
    fn new() -> Result<Self, String> {
        allow_descriptors()?;
        let machine = irq_routing::kvm::RustVmm(Arc::new(machine()?));
        let router = KvmRouter::new(machine, KvmConfig::new(FIRST_GSI));
        let router = Arc::new(router.map_err(|error| error.to_string())?);
        let poller = EventfdPoller::new().map_err(|error| error.to_string())?;
        let irqfds = MsiIrqfdSet::new(router.clone(), poller.clone());
        let irqfds = irqfds.map_err(|error| error.to_string())?;
        let devices = (0..VECTORS)
            .map(|_| eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).map(Arc::new));
        let devices: Vec<_> =
            devices.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let vectors = devices.iter().map(|device| irqfds.add(device.clone())).collect();
        Ok(Self { router, irqfds, poller, devices, vectors })
    }

    /// Opens all vectors one by one.
    fn open(&self) -> Result<Duration, String> {
        let (start, before) = (Instant::now(), self.router.updates());
        let message = MsiMessage { address: DOORBELL.into(), data: 0x40 };
        for vector in &self.vectors {
            let opened = vector.open(RoutedMessage { sender: Sender::Anonymous, message });
            opened.map_err(|error| error.to_string())?;
        }
        self.counted(start, before)
    }

    /// Opens all vectors one by one, and then lets the kernel serve their eventfds.
    fn open_in_kernel(&self) -> Result<Duration, String> {
        let (start, before) = (Instant::now(), self.router.updates());
        self.open()?;
        self.irqfds.hand_over().map_err(|error| error.to_string())?;
        match self.irqfds.waiting() {
            0 => self.counted(start, before),
            waiting => Err(format!("user space serves {waiting}")),
        }
    }

    /// Opens all vectors one by one, with each device signaling as soon as its vector is open. User
    /// space sends these messages; afterwards, the kernel serves the eventfds of all vectors.
    fn open_and_ring(&self) -> Result<Duration, String> {
        let (start, before) = (Instant::now(), self.router.updates());
        let message = MsiMessage { address: DOORBELL.into(), data: 0x40 };
        for (vector, device) in self.vectors.iter().zip(&self.devices) {
            let opened = vector.open(RoutedMessage { sender: Sender::Anonymous, message });
            opened.map_err(|error| error.to_string())?;
            let rung = rustix::io::write(&**device, &1u64.to_ne_bytes());
            rung.map_err(|error| error.to_string())?;
            self.poller.dispatch(Some(Duration::ZERO)).map_err(|error| error.to_string())?;
        }
        self.irqfds.hand_over().map_err(|error| error.to_string())?;
        self.counted(start, before)
    }

    /// Closes all vectors one by one and frees their GSIs.
    fn close(&mut self) -> Result<Duration, String> {
        let (start, before) = (Instant::now(), self.router.updates());
        self.vectors.clear();
        self.counted(start, before)
    }

    fn counted(&self, start: Instant, before: u64) -> Result<Duration, String> {
        let (time, tables) = (start.elapsed(), self.router.updates() - before);
        if tables <= MOST_TABLES {
            Ok(time)
        } else {
            Err(format!("{tables} tables for {VECTORS} vectors"))
        }
    }
}

/// Returns probes for the cost per vector of opening and closing vectors that a guest unmasks one
/// by one. The vectors are either never signaled, signaled immediately, or served by the kernel.
pub(super) fn vectors() -> [Probe; 5] {
    let of_table = |name, sample: fn() -> Result<Duration, String>| {
        Probe::new(name, Reference::Case(TABLE_EACH), move || Ok(each(sample()?, VECTORS)))
    };
    [
        of_table("unmask-1024", || OneByOne::new()?.open()),
        of_table("unmask-1024-bound", || OneByOne::new()?.open_in_kernel()),
        of_table("unmask-1024-rung", || OneByOne::new()?.open_and_ring()),
        of_table("release-1024", || {
            let mut vectors = OneByOne::new()?;
            vectors.open()?;
            vectors.close()
        }),
        Probe::new("release-1024-bound", Reference::Case(DEASSIGN), || {
            let mut vectors = OneByOne::new()?;
            vectors.open_in_kernel()?;
            Ok(each(vectors.close()?, VECTORS))
        }),
    ]
}
