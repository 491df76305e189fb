//! A vector whose message is sent by a CPU.

use alloc::boxed::Box;
use core::error::Error;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use ax_hal::irq::{CpuId, IrqAffinity, IrqHandle, IrqRequest, IrqReturn};
use ax_hal::time::{busy_wait, monotonic_time};
use irq_framework::IrqError;
use rdif_msi::{MsiAllocation, MsiDeviceId, MsiMessage, MsiRequest};

use crate::with_msi;

/// Requester ID of messages that CPUs send.
const CPUS: u32 = 0;
/// Time after which a message counts as lost.
const LIMIT: Duration = Duration::from_secs(1);
const NO_CPU: usize = usize::MAX;

/// The CPU that ran the handler since the last message was sent.
static TAKEN_BY: AtomicUsize = AtomicUsize::new(NO_CPU);

/// A vector with its handler.
pub struct CpuMessage {
    allocation: MsiAllocation,
    handle: IrqHandle,
    message: MsiMessage,
}

impl CpuMessage {
    /// Allocates a vector that targets a CPU, and requests its interrupt.
    pub fn new(cpu: usize) -> Result<Self, Box<dyn Error>> {
        let request =
            MsiRequest::new(MsiDeviceId(CPUS), 1).affinity(IrqAffinity::Fixed(CpuId(cpu)));
        let (allocation, irq, message) = with_msi(|msi| {
            let allocation = msi.allocate(request)?;
            let vector = allocation.vectors().first().ok_or(IrqError::NotFound)?;
            let (irq, message) = (vector.irq, msi.compose_message(vector)?);
            Ok((allocation, irq, message))
        })?;
        let request = IrqRequest::new(|context| {
            handle(context.cpu);
            IrqReturn::Handled
        });
        let handle = ax_hal::irq::request_irq(irq, request)?;
        Ok(Self { allocation, handle, message })
    }

    /// Sends the message. Returns the CPU that took the interrupt, or `None` if no CPU did.
    pub fn send(&self) -> Option<usize> {
        TAKEN_BY.store(NO_CPU, Ordering::SeqCst);
        let doorbell = ax_hal::mem::phys_to_virt((self.message.address as usize).into());
        // SAFETY: the interrupt driver has mapped the frame with the doorbell, and never unmaps it.
        unsafe { doorbell.as_mut_ptr().cast::<u32>().write_volatile(self.message.data) };
        let start = monotonic_time();
        loop {
            let cpu = TAKEN_BY.load(Ordering::SeqCst);
            if cpu != NO_CPU {
                return Some(cpu);
            }
            if monotonic_time() - start > LIMIT {
                return None;
            }
            busy_wait(Duration::from_micros(1));
        }
    }

    /// Frees the interrupt and the vector.
    pub fn free(self) -> Result<(), IrqError> {
        ax_hal::irq::free_irq(self.handle)?;
        with_msi(|msi| msi.free(self.allocation))
    }
}

/// The device's own part of the handler. Not inlined, so that a log of instructions shows its
/// address.
#[inline(never)]
pub fn handle(cpu: CpuId) {
    TAKEN_BY.store(cpu.0, Ordering::SeqCst);
}
