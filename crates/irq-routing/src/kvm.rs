//! Routes and eventfds in Linux's KVM, through `kvm-ioctls`, for machines with the kernel's
//! interrupt controller.
//!
//! The kernel takes its whole table at once (`KVM_SET_GSI_ROUTING`), at a price that grows with the
//! table. This router therefore keeps the table: one [`commit`](Routing::commit) is one system
//! call, and none if nothing changes. Signals look routes up under the table's lock; eventfds do
//! not. As for [`Router`](crate::Router), each GSI is the pin of its number until the first table
//! is set.
//!
//! On Arm, inputs without a GSI are driven by [`VmFd::set_irq_line`], with a number of
//! [`IrqLine`](crate::IrqLine).
//!
//! Messages of an ITS need their DeviceID ([`Sender::Device`]); the kernel knows no doorbells but
//! those of ITSes. On x86, pins are the I/O APIC's.

pub(crate) mod pulses;

use self::pulses::Pulses;
use crate::gsis::Gsis;
use crate::{Change, Changes, Pin, Route, RouteError, RoutedMessage, Routing, Sender, SignalError};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::fmt;
use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1 as Target, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_irq_routing_msi__bindgen_ty_1 as Device, kvm_msi,
};
use kvm_ioctls::{Cap, VmFd};
use msi_types::{Delivery, Gsi};
use rustix::io::Errno;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Size of the table in `kvm-bindings`, regardless of the kernel's own.
const MOST_ROUTES: u32 = 4096;
/// Irqchip number of the pins.
#[cfg(target_arch = "aarch64")]
const IRQCHIP: u32 = 0;
#[cfg(target_arch = "x86_64")]
const IRQCHIP: u32 = kvm_bindings::KVM_IRQCHIP_IOAPIC;
/// Highest number of pins.
#[cfg(target_arch = "aarch64")]
const PINS: u32 = Pin::COUNT;
#[cfg(target_arch = "x86_64")]
const PINS: u32 = kvm_bindings::KVM_IOAPIC_NUM_PINS;

type Table = BTreeMap<Gsi, Route>;

/// The GSIs of a virtual machine of KVM's, and their routes.
pub struct KvmRouter {
    vm: Arc<VmFd>,
    limit: u32,
    state: Mutex<KernelRoutes>,
    pulses: Pulses,
}

/// The kernel's routes, and the GSIs that are given out.
struct KernelRoutes {
    /// Table that the kernel has; `None` before the first.
    table: Option<Table>,
    gsis: Gsis,
}

impl KvmRouter {
    /// Creates a router for a machine whose interrupt controller is initialized. The kernel sets a
    /// table of its own at that initialization; nothing else may set one afterwards. GSIs below
    /// `first_allocated` are the monitor's own to number. The limit is the kernel's
    /// (`KVM_CAP_IRQ_ROUTING`), at most 4096.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`]: this kernel routes no GSIs.
    pub fn new(vm: Arc<VmFd>, first_allocated: u32) -> io::Result<Self> {
        let limit =
            u32::try_from(vm.check_extension_int(Cap::IrqRouting)).unwrap_or(0).min(MOST_ROUTES);
        if limit == 0 {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "KVM has no GSI routing here"));
        }
        let state = KernelRoutes { table: None, gsis: Gsis::new(first_allocated, limit) };
        Ok(Self { vm, limit, state: Mutex::new(state), pulses: Pulses::default() })
    }

    /// Returns the limit; all GSIs lie below it.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the route of a GSI.
    pub fn route(&self, gsi: Gsi) -> Option<Route> {
        match &self.state().table {
            Some(table) => table.get(&gsi).copied(),
            None => Pin::new(gsi.get()).ok().filter(|pin| pin.get() < PINS).map(Route::Pin),
        }
    }

    /// Replaces the whole table: a GSI that is not in `routes` has no route.
    ///
    /// # Errors
    /// A GSI does not exist, or has two routes; or the kernel refuses. Nothing has changed then.
    pub fn replace(&self, routes: &[(Gsi, Route)]) -> Result<Changes, RouteError> {
        let mut table = Table::new();
        for (gsi, route) in routes {
            self.judge(*gsi)?;
            if table.insert(*gsi, *route).is_some() {
                return Err(RouteError::DuplicateGsi(*gsi));
            }
        }
        let mut state = self.state();
        let before = state.table.clone().unwrap_or_default();
        let redundant = table.iter().filter(|(gsi, route)| before.get(gsi) == Some(route)).count();
        let cleared = before.keys().filter(|gsi| !table.contains_key(gsi)).count();
        let counted = |count| u32::try_from(count).unwrap_or(u32::MAX);
        let made = counted(table.len() - redundant + cleared);
        self.set(&mut state, table, made)?;
        Ok(Changes { made, redundant: counted(redundant) })
    }

    /// Sends a message that has no GSI: `KVM_SIGNAL_MSI`.
    pub fn signal_msi(&self, RoutedMessage { sender, message }: RoutedMessage) -> Delivery {
        let (flags, devid) = identity(sender);
        let message = kvm_msi {
            address_lo: message.address_low(),
            address_hi: message.address_high(),
            data: message.data,
            flags,
            devid,
            ..kvm_msi::default()
        };
        match self.vm.signal_msi(message) {
            Ok(0) => Delivery::Blocked,
            Ok(_) => Delivery::Pending,
            Err(error) if error.errno() == BUSY => Delivery::Blocked,
            Err(_) => Delivery::NoDoorbell,
        }
    }

    /// Binds an eventfd to a GSI: each signal of `trigger` is an edge, routed or not, until the
    /// bind is dropped. A changed route counts for the next signal.
    ///
    /// # Errors
    /// The kernel's: the eventfd is bound already, or the machine has no interrupt controller yet.
    pub fn bind(&self, trigger: &EventFd, gsi: Gsi) -> io::Result<KvmIrqfd> {
        self.enter(trigger, gsi, |vm| vm.register_irqfd(trigger, gsi.get()))
    }

    /// Binds an eventfd to a GSI's level: a signal of `trigger` raises the pin. The end of the
    /// interrupt lowers the pin and signals `resample`; the device then signals again if its reason
    /// persists.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn bind_level(
        &self,
        trigger: &EventFd,
        resample: &EventFd,
        gsi: Gsi,
    ) -> io::Result<KvmIrqfd> {
        self.enter(trigger, gsi, |vm| vm.register_irqfd_with_resample(trigger, resample, gsi.get()))
    }

    fn enter(
        &self,
        trigger: &EventFd,
        gsi: Gsi,
        register: impl FnOnce(&VmFd) -> Result<(), kvm_ioctls::Error>,
    ) -> io::Result<KvmIrqfd> {
        let trigger = trigger.try_clone()?;
        // Nothing is made, and dropped, for an eventfd that is another's.
        register(&self.vm).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        Ok(KvmIrqfd { vm: self.vm.clone(), trigger, gsi })
    }

    fn judge(&self, gsi: Gsi) -> Result<(), RouteError> {
        let limit = self.limit;
        if gsi.get() < limit { Ok(()) } else { Err(RouteError::NoSuchGsi { gsi, limit }) }
    }

    /// Gives the kernel another table, all of it or nothing, unless it has it already. What is
    /// routed is taken.
    fn set(&self, state: &mut KernelRoutes, table: Table, changes: u32) -> Result<(), RouteError> {
        if changes == 0 && state.table.is_some() {
            return Ok(());
        }
        let entries: alloc::vec::Vec<_> =
            table.iter().map(|(gsi, route)| entry(*gsi, *route)).collect();
        let refused = |errno| RouteError::Refused { errno };
        // The table has at most as many entries as there are GSIs, and those have room.
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| refused(TOO_BIG))?;
        self.vm.set_gsi_routing(&routing).map_err(|error| refused(error.errno()))?;
        for gsi in table.keys() {
            state.gsis.take(*gsi);
        }
        state.table = Some(table);
        Ok(())
    }

    fn pulse(&self, gsi: Gsi, pin: Pin) -> Delivery {
        let line = line(gsi, pin);
        self.pulses.pulse(|high| self.vm.set_irq_line(line, high))
    }

    fn state(&self) -> MutexGuard<'_, KernelRoutes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const TOO_BIG: i32 = Errno::TOOBIG.raw_os_error();
/// The ITS, or the target's LPIs, are disabled.
const BUSY: i32 = Errno::BUSY.raw_os_error();

impl Routing for KvmRouter {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.state().gsis.allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        let mut state = self.state();
        state.gsis.release_all(gsis)?;
        let Some(mut table) = state.table.clone() else { return Ok(()) };
        let mut cleared = 0;
        for gsi in gsis {
            cleared += u32::from(table.remove(gsi).is_some());
        }
        let done = self.set(&mut state, table, cleared);
        if done.is_err() {
            for gsi in gsis {
                state.gsis.take(*gsi);
            }
        }
        done
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        changes.iter().try_for_each(|change| self.judge(change.gsi()))?;
        if changes.is_empty() {
            return Ok(Changes::default());
        }
        let mut state = self.state();
        let mut table = state.table.clone().unwrap_or_default();
        let mut counts = Changes::default();
        for change in changes {
            let before = match change.route() {
                Some(route) => table.insert(change.gsi(), route),
                None => table.remove(&change.gsi()),
            };
            *(if before == change.route() { &mut counts.redundant } else { &mut counts.made }) += 1;
        }
        self.set(&mut state, table, counts.made)?;
        Ok(counts)
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        match self.route(gsi).ok_or(SignalError::Unrouted(gsi))? {
            Route::Message(message) => Ok(self.signal_msi(message)),
            Route::Pin(pin) => Ok(self.pulse(gsi, pin)),
        }
    }
}

/// The number by which `KVM_IRQ_LINE` knows the pin: its SPI, not the GSI.
#[cfg(target_arch = "aarch64")]
fn line(_: Gsi, pin: Pin) -> u32 {
    crate::IrqLine::Line(pin.line()).encode().unwrap_or(0)
}

/// The number by which `KVM_IRQ_LINE` knows the pin: the GSI.
#[cfg(target_arch = "x86_64")]
fn line(gsi: Gsi, _: Pin) -> u32 {
    gsi.get()
}

fn entry(gsi: Gsi, route: Route) -> kvm_irq_routing_entry {
    let (type_, flags, u) = match route {
        Route::Pin(pin) => {
            let irqchip = kvm_irq_routing_irqchip { irqchip: IRQCHIP, pin: pin.get() };
            (KVM_IRQ_ROUTING_IRQCHIP, 0, Target { irqchip })
        }
        Route::Message(RoutedMessage { sender, message }) => {
            let (flags, devid) = identity(sender);
            let msi = kvm_irq_routing_msi {
                address_lo: message.address_low(),
                address_hi: message.address_high(),
                data: message.data,
                __bindgen_anon_1: Device { devid },
            };
            (KVM_IRQ_ROUTING_MSI, flags, Target { msi })
        }
    };
    kvm_irq_routing_entry { gsi: gsi.get(), type_, flags, pad: 0, u }
}

/// Flags and DeviceID of a message.
fn identity(sender: Sender) -> (u32, u32) {
    match sender {
        Sender::Anonymous => (0, 0),
        Sender::Device(device) => (KVM_MSI_VALID_DEVID, device.get()),
    }
}

impl fmt::Debug for KvmRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.state().table.as_ref().map_or(0, Table::len);
        f.debug_struct("KvmRouter")
            .field("limit", &self.limit)
            .field("routes", &routes)
            .finish_non_exhaustive()
    }
}

/// A bound eventfd, until it is dropped: then the kernel has served what it was serving, and later
/// signals stay in the eventfd.
#[must_use = "dropping it ends the bind"]
pub struct KvmIrqfd {
    vm: Arc<VmFd>,
    trigger: EventFd,
    gsi: Gsi,
}

impl Drop for KvmIrqfd {
    fn drop(&mut self) {
        // It fails only for what is not bound.
        let _ = self.vm.unregister_irqfd(&self.trigger, self.gsi.get());
    }
}

impl fmt::Debug for KvmIrqfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvmIrqfd").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}
