//! Eventfds that send MSIs. An eventfd is open while its MSI is unmasked.

use alioth::hv::{Error, IrqFd, MsiSender, Result};
use irq_routing::RoutedMessage;
use irq_routing::kvm::{MsiIrqfd, MsiIrqfdSet};
use irq_routing::msi_types::MsiMessage;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use snafu::GenerateImplicitData;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub fn failed(what: &str, error: impl std::fmt::Display) -> Error {
    let error = io::Error::other(format!("{what}: {error}"));
    Error::IrqFd { error, _location: snafu::Location::generate() }
}

/// Sends the MSIs of a device, either through Alioth's own calls or through eventfds that
/// `irq-routing` routes.
#[derive(Debug)]
pub struct Sender<S> {
    alioth: S,
    device: irq_routing::Sender,
    irqfds: Arc<MsiIrqfdSet>,
}

impl<S> Sender<S> {
    pub fn new(alioth: S, device: irq_routing::Sender, irqfds: Arc<MsiIrqfdSet>) -> Self {
        Self { alioth, device, irqfds }
    }
}

impl<S: MsiSender> MsiSender for Sender<S> {
    type IrqFd = RoutedIrqfd;

    fn send(&self, address: u64, data: u32) -> Result<()> {
        self.alioth.send(address, data)
    }

    fn create_irqfd(&self) -> Result<RoutedIrqfd> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let eventfd = Arc::new(eventfd.map_err(|error| failed("eventfd", error))?);
        let irqfd = self.irqfds.add(eventfd.clone());
        let vector = Vector { message: MsiMessage { address: 0, data: 0 }, is_masked: true };
        Ok(RoutedIrqfd { eventfd, device: self.device, irqfd, vector: Mutex::new(vector) })
    }
}

/// An eventfd that sends its MSI while the MSI is unmasked.
#[derive(Debug)]
pub struct RoutedIrqfd {
    eventfd: Arc<OwnedFd>,
    device: irq_routing::Sender,
    irqfd: MsiIrqfd,
    vector: Mutex<Vector>,
}

#[derive(Debug)]
struct Vector {
    message: MsiMessage,
    is_masked: bool,
}

impl RoutedIrqfd {
    fn vector(&self) -> MutexGuard<'_, Vector> {
        self.vector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the message. If the vector is unmasked, the change takes effect immediately.
    fn change(&self, change: impl FnOnce(&mut MsiMessage)) -> Result<()> {
        let mut vector = self.vector();
        change(&mut vector.message);
        if vector.is_masked { Ok(()) } else { self.open(vector.message) }
    }

    fn open(&self, message: MsiMessage) -> Result<()> {
        let routed = RoutedMessage { sender: self.device, message };
        self.irqfd.open(routed).map_err(|error| failed("irqfd", error))
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
        if masked == vector.is_masked {
            return Ok(false);
        }
        if masked {
            self.irqfd.close();
        } else {
            self.open(vector.message)?;
        }
        vector.is_masked = masked;
        Ok(true)
    }

    fn get_masked(&self) -> bool {
        self.vector().is_masked
    }
}
