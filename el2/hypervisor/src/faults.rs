//! Prints the faults that the model records when a guest misuses its GIC. Only the first fault of
//! each kind appears on the console.

use alloc::string::ToString;
use alloc::vec::Vec;
use doorbell_facts::{Fact, HypervisorFact};
use image_rt::lock::IrqMutex;
use image_rt::println;
use vgic::{EventLog, FaultReason};

/// Kinds of faults that have been printed for a guest.
#[derive(Debug, Default)]
pub(crate) struct Faults(IrqMutex<Vec<FaultReason>>);

impl Faults {
    /// Prints the faults recorded since the last call, except those of kinds already printed.
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
