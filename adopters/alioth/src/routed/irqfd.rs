//! Eventfds of message-signalled interrupts: a GSI each, routed while it is unmasked.

use alioth::hv::{Error, IrqFd, MsiSender, Result};
use irq_routing::kvm::{KvmIrqfd, KvmRouter};
use irq_routing::msi_types::{Gsi, MsiMessage};
use irq_routing::{Change, Route, Routing};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use snafu::GenerateImplicitData;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    let error = io::Error::other(format!("{what}: {error}"));
    Error::IrqFd { error, _location: snafu::Location::generate() }
}

/// Sends a device's messages: Alioth's own calls, and eventfds with our routes.
#[derive(Debug)]
pub struct Sender<S> {
    alioth: S,
    router: Arc<KvmRouter>,
}

impl<S> Sender<S> {
    pub fn new(alioth: S, router: Arc<KvmRouter>) -> Self {
        Self { alioth, router }
    }
}

impl<S: MsiSender> MsiSender for Sender<S> {
    type IrqFd = RoutedIrqfd;

    fn send(&self, address: u64, data: u32) -> Result<()> {
        self.alioth.send(address, data)
    }

    fn create_irqfd(&self) -> Result<RoutedIrqfd> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let eventfd = eventfd.map_err(|error| failed("eventfd", error))?;
        let gsi = self.router.allocate().map_err(|error| failed("GSI", error))?;
        let vector = Vector { message: MsiMessage { address: 0, data: 0 }, bound: None };
        let eventfd = Arc::new(eventfd);
        Ok(RoutedIrqfd { eventfd, gsi, router: self.router.clone(), vector: Mutex::new(vector) })
    }
}

/// An eventfd that sends a message while it is unmasked.
#[derive(Debug)]
pub struct RoutedIrqfd {
    eventfd: Arc<OwnedFd>,
    gsi: Gsi,
    router: Arc<KvmRouter>,
    vector: Mutex<Vector>,
}

#[derive(Debug)]
struct Vector {
    message: MsiMessage,
    /// The bind of the eventfd, which ends while the vector is masked.
    bound: Option<KvmIrqfd<Arc<OwnedFd>>>,
}

impl RoutedIrqfd {
    fn vector(&self) -> MutexGuard<'_, Vector> {
        self.vector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the message. The kernel hears of it while the vector is unmasked.
    fn change(&self, change: impl FnOnce(&mut MsiMessage)) -> Result<()> {
        let mut vector = self.vector();
        change(&mut vector.message);
        if vector.bound.is_some() { self.route(&vector) } else { Ok(()) }
    }

    fn route(&self, vector: &Vector) -> Result<()> {
        let route = Route::to_doorbell(vector.message);
        let changes = self.router.commit(&[Change::Set(self.gsi, route)]);
        changes.map(drop).map_err(|error| failed("route", error))
    }
}

impl Drop for RoutedIrqfd {
    fn drop(&mut self) {
        self.vector().bound = None;
        if let Err(error) = self.router.release(&[self.gsi]) {
            eprintln!("{error}");
        }
    }
}

impl AsFd for RoutedIrqfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

impl IrqFd for RoutedIrqfd {
    fn set_addr_lo(&self, low: u32) -> Result<()> {
        self.change(|message| message.address = message.address & !0xffff_ffff | u64::from(low))
    }

    fn get_addr_lo(&self) -> u32 {
        self.vector().message.address_low()
    }

    fn set_addr_hi(&self, high: u32) -> Result<()> {
        self.change(|message| {
            message.address = message.address & 0xffff_ffff | u64::from(high) << 32;
        })
    }

    fn get_addr_hi(&self) -> u32 {
        self.vector().message.address_high()
    }

    fn set_data(&self, data: u32) -> Result<()> {
        self.change(|message| message.data = data)
    }

    fn get_data(&self) -> u32 {
        self.vector().message.data
    }

    fn set_masked(&self, masked: bool) -> Result<bool> {
        let mut vector = self.vector();
        if masked == vector.bound.is_none() {
            return Ok(false);
        }
        if masked {
            vector.bound = None;
            return Ok(true);
        }
        self.route(&vector)?;
        let bound = self.router.bind(self.eventfd.clone(), self.gsi);
        vector.bound = Some(bound.map_err(|error| failed("irqfd", error))?);
        Ok(true)
    }

    fn get_masked(&self) -> bool {
        self.vector().bound.is_none()
    }
}
