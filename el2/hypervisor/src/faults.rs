//! Printing of a guest's mistakes at its GIC, which the model records. The first mistake of each
//! kind is printed to the console.

use alloc::string::ToString;
use alloc::vec::Vec;
use doorbell_facts::{Fact, HypervisorFact};
use image_rt::lock::IrqMutex;
use image_rt::println;
use vgic::{EventLog, FaultReason};

/// Kinds of a guest's mistakes that have been printed.
#[derive(Debug, Default)]
pub(crate) struct Faults(IrqMutex<Vec<FaultReason>>);

impl Faults {
    /// Prints the mistakes since the last call whose kind has not been printed yet.
    #[inline]
    pub(crate) fn print(&self, guest: usize, events: &EventLog) {
        events.drain(|fault| {
            let is_new = self.0.with(|printed| {
                let is_new = !printed.contains(&fault.reason);
                printed.extend(is_new.then_some(fault.reason));
                is_new
            });
            if is_new {
                let fault = fault.to_string().into();
                println!("{}", Fact::from(HypervisorFact::Fault { guest, fault }));
            }
        });
    }
}
