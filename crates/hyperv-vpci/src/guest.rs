//! The guest's end: the bus's driver, and the parent of its functions' interrupts.
//!
//! | | arm64 | x86 |
//! |---|---|---|
//! | vectors | SPIs of an [`SpiDomain`], 64 to 1019 | local APICs' vectors, by [`ApicVectors`] |
//! | message | the host's answer | the host's answer |
//! | a move | changes the SPI's route | is a hypercall ([`Hypercall`]) |
//! | required version | 1.4 for SPIs above 255 | 1.2 for VP indices above 63 |
//!
//! The kernel must call [`Bus::poll`] when the channel signals, and [`Kernel::wake`] in its handler
//! of the signal. [`Bus`] re-arms the signal itself once no packet is left. `examples/kernel.rs` of
//! this crate is such a kernel.
//!
//! A [`Bus`] is an [`MsiParent`](msi_types::MsiParent). Its vectors are the root's own, so that
//! acknowledgement, end of interrupt, masks and routes are the root's business, too. A function
//! stores the host's answer to a request. It is the same as long as the vector is allocated,
//! wherever the vector moves.
//!
//! The sender of a request waits for the answer in task context, for a time that the kernel's clock
//! measures ([`Kernel::wait`]). An interrupt that a later answer grants is returned to the host.
//!
//! The host may send a message until it confirms the deletion with success, lists the bus without
//! the function, or loses its channel. Until then a freed vector stays allocated at the root and
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
    /// Look again.
    Again,
    /// The time is over.
    GiveUp,
}

/// The kernel's services for a bus.
///
/// A task reads [`wake_ups`](Self::wake_ups), checks the channel, and passes the number to
/// [`wait`](Self::wait) if it did not find what it waits for. A signal that arrives after the check
/// changes the number, so that the wait returns immediately. Several tasks may wait on one bus, and
/// any of them may receive a packet for another: the bus then calls [`wake`](Self::wake).
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
    /// ends the turn. Returns immediately if the number differs already. `turn` counts from 0 in
    /// each wait. The kernel ends the wait by [`Wait::GiveUp`]: it decides how long a host may be
    /// silent, and must end a wait by its clock even if wake-ups never stop.
    ///
    /// Context: task; may sleep.
    fn wait(&self, seen: u32, turn: u32) -> Wait;

    /// Returns the hypervisor's VP index of a CPU; `None` for a CPU that is not present.
    ///
    /// Context: any.
    fn processor(&self, cpu: Cpu) -> Option<u16>;
}
