//! Guest's end of the bus: the bus driver, which is also the MSI parent of its functions.
//!
//! | | arm64 | x86 |
//! |---|---|---|
//! | vectors | SPIs 64 to 1019, from an [`SpiDomain`] | local APIC vectors, from [`ApicVectors`] |
//! | message | granted by the host | granted by the host |
//! | retargeting | changes the SPI's route | makes a hypercall ([`Hypercall`]) |
//! | required version | 1.4 for SPIs above 255 | 1.2 for VP indices above 63 |
//!
//! The kernel must call [`Bus::poll`] when the channel signals, and [`Kernel::wake`] in its handler
//! of the signal. [`Bus`] re-arms the signal itself once no packet is left. [`kernel.rs`] connects
//! both ends.
//!
//! [`kernel.rs`]: https://github.com/doorbell-rs/doorbell/blob/main/crates/hyperv-vpci/examples/kernel.rs
//!
//! A [`Bus`] implements [`MsiParent`](msi_types::MsiParent). It allocates its vectors from the root
//! controller, which therefore also handles acknowledgment, end of interrupt, masking and routing.
//! A function stores the message that the host granted for a vector. The message does not change
//! while the vector is allocated, even if the vector is retargeted.
//!
//! A task that sends a request waits for the answer, for a time that the kernel limits
//! ([`Kernel::wait`]). If the answer arrives later and grants an interrupt, the bus returns the
//! interrupt to the host.
//!
//! The host may send a message until it has confirmed its deletion, has listed the bus without the
//! function, or has lost its channel. Until then, a freed vector stays allocated at the root and
//! counts against [`BusConfig::vectors`]. A deletion that cannot be sent yet is queued.
//!
//! Locks, outermost first:
//!
//! ```text
//! a bus's link to its host (TaskLock): does not wait for the host while it is held
//! ├─ the root controller's own locks
//! └─ a bus's interrupts, an SPI domain's targets (IrqLock): allocate nothing, call nothing
//! ```

mod bus;
mod composition;
mod deletion_queue;
mod device_table;
mod error;
mod function_table;
mod interrupt_table;
mod link;
mod msi_parent;
mod power;
mod spi_domain;
mod vectors;

pub use bus::{Bus, BusConfig};
pub use error::VpciError;
pub use function_table::BusEvent;
pub use link::Faults;
pub use spi_domain::{FIRST_SPI, LAST_SPI, SpiDomain};
pub use vectors::{ApicVectors, Hypercall, Vectors};

use msi_types::{Cpu, TaskContext};

/// Result of one turn of a bounded wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// The caller must check its condition again, and may wait for another turn.
    Again,
    /// The time limit was reached.
    GiveUp,
}

/// Services of the kernel that a bus needs.
///
/// A task reads [`wake_ups`](Self::wake_ups), checks the channel, and passes the number to
/// [`wait`](Self::wait) if its answer has not arrived. A signal after the check changes the number,
/// so that the wait returns immediately. Several tasks may wait on one bus, and any of them may
/// receive a packet for another one; the bus then calls [`wake`](Self::wake).
pub trait Kernel: TaskContext {
    /// Returns the number of wake-ups so far. It may wrap.
    ///
    /// Context: any.
    fn wake_ups(&self) -> u32;

    /// Counts a wake-up and wakes every task in [`wait`](Self::wait). The kernel must call it in
    /// its handler of the channel's signal, and the bus calls it in tasks.
    ///
    /// Context: any.
    fn wake(&self);

    /// Waits for the host until the number of wake-ups differs from `seen` or the kernel's clock
    /// ends the turn. Returns immediately if the number already differs. `turn` counts from 0 in
    /// each wait. The kernel decides how long a host may be silent, and ends the wait by returning
    /// [`Wait::GiveUp`]. It must do this by its clock even if wake-ups never stop.
    ///
    /// Context: task; may sleep.
    fn wait(&self, seen: u32, turn: u32) -> Wait;

    /// Returns the hypervisor's VP index of a CPU, or `None` for a CPU that is not present.
    ///
    /// Context: any.
    fn processor(&self, cpu: Cpu) -> Option<u16>;
}
