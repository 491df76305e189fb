//! The guest's end of the bus: a bus driver that is also the MSI parent for its functions.
//!
//! | | arm64 | x86 |
//! |---|---|---|
//! | vectors | SPIs 64 to 1019, from an [`SpiDomain`] | local APIC vectors, from [`ApicVectors`] |
//! | message | granted by the host | granted by the host |
//! | retargeting | changes the SPI's route | makes a hypercall ([`Hypercall`]) |
//! | required version | 1.4 for SPIs above 255 | 1.2 for VP indices above 63 |
//!
//! The kernel must call [`Bus::poll`] when the channel signals, and [`Kernel::wake`] in its handler
//! for that signal. [`Bus`] itself re-arms the signal once no packets are left. See this crate's
//! `examples/kernel.rs`.
//!
//! [`kernel.rs`]: https://github.com/doorbell-rs/doorbell/blob/main/crates/hyperv-vpci/examples/kernel.rs
//!
//! A [`Bus`] implements [`MsiParent`](msi_types::MsiParent). It allocates vectors from the root
//! controller, so acknowledgment, end of interrupt, masking and routing are also handled there. A
//! function stores the message that the host granted for a vector. The message stays the same for
//! as long as the vector is allocated, even if the vector is retargeted.
//!
//! A task that sends a request waits for the answer, but only as long as the kernel allows
//! ([`Kernel::wait`]). If a late answer grants an interrupt, the bus returns the interrupt to the
//! host.
//!
//! The host may send a vector's message until it has confirmed the message's deletion, has sent a
//! list that no longer contains the function, or has lost its channel. Until then, a freed vector
//! stays allocated at the root, and still counts against the `vectors` of [`BusConfig::new`]. If a
//! deletion can't be sent yet, it is queued. A vector without a message is treated in the same way
//! until the host has answered all requests for its message.
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
mod error;
mod function_table;
mod interrupt_table;
mod link;
mod msi_parent;
mod power;
mod spi_domain;
mod vectors;

pub use bus::{Bus, BusConfig};
pub use error::{Faults, VpciError};
pub use function_table::BusEvent;
pub use spi_domain::{FIRST_SPI, LAST_SPI, SpiDomain};
pub use vectors::{ApicVectors, Hypercall, Vectors};

use msi_types::{Cpu, TaskContext};

/// Next step of a task after one iteration of a bounded wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wait {
    /// The caller must check its condition again, and may wait again.
    Again,
    /// The time limit was reached.
    GiveUp,
}

/// Kernel functions on which a bus relies: a counter of wake-ups, bounded waits, and VP indices.
///
/// A task reads [`wake_ups`](Self::wake_ups) and then checks the channel. If the task's answer
/// hasn't arrived, the task passes the number of wake-ups to [`wait`](Self::wait). A signal after
/// the check changes the number, so the wait returns immediately. Several tasks may wait on one
/// bus. If one task receives a packet for another task, the bus calls [`wake`](Self::wake).
pub trait Kernel: TaskContext {
    /// Returns the number of wake-ups so far. It may wrap.
    ///
    /// Context: any.
    fn wake_ups(&self) -> u32;

    /// Counts a wake-up and wakes all tasks in [`wait`](Self::wait). The kernel must call this in
    /// its handler for the channel's signal. The bus also calls it, in the context of a task.
    ///
    /// Context: any.
    fn wake(&self);

    /// Blocks until the number of wake-ups differs from `seen` (it may already) or the kernel's
    /// time limit expires. The limit applies to the whole wait of a task, not to one call: `turn`
    /// counts the calls of a wait, starting at 0. At turn 0, the kernel must record the time for
    /// the calling task, with its clock. Once the limit has passed since then, the kernel must
    /// return [`Wait::GiveUp`], even if there was a wake-up. A limit on the number of turns or on
    /// the time of one call doesn't suffice: a host that sends irrelevant packets wakes the task
    /// each time, and would keep it for as long as it likes.
    ///
    /// Context: task; may sleep.
    fn wait(&self, seen: u32, turn: u32) -> Wait;

    /// Returns the hypervisor's VP index for a CPU, or `None` if the CPU is not present.
    ///
    /// Context: any.
    fn processor(&self, cpu: Cpu) -> Option<u16>;
}
