//! Mistakes of a guest at the registers of its GIC, which the model records. The first one of each
//! kind is a line on the console.

use alloc::vec::Vec;
use core::fmt::Display;
use image_rt::lock::IrqMutex;
use image_rt::println;
use vgic::{Events, FaultReason};

/// The kinds of mistakes of a guest that were printed.
#[derive(Debug, Default)]
pub(crate) struct Faults(IrqMutex<Vec<FaultReason>>);

impl Faults {
    /// Prints the mistakes since the last call whose kind is new.
    #[inline]
    pub(crate) fn print(&self, guest: impl Display, events: &Events) {
        events.drain(|fault| {
            let is_new = self.0.with(|printed| {
                let is_new = !printed.contains(&fault.reason);
                printed.extend(is_new.then_some(fault.reason));
                is_new
            });
            if is_new {
                println!("hypervisor: fault of {guest}: {fault}");
            }
        });
    }
}
