//! Who must be kicked: the flag per vCPU that says it sleeps or runs guest code, and the one kick that ends it.
//!
//! The protocol is store buffering, so both sides use sequentially consistent accesses:
//!
//! ```text
//! injector                          vCPU
//! makes an interrupt visible        leave(): outside := 1
//! notify(): outside set? swap 0,    looks for interrupts
//!           kick if it was 1        found one: returned(), does not sleep
//! ```
//!
//! One of the two sees what the other did, so no wake-up is lost; and of many injectors one gets the 1, so there is
//! one kick for one departure.

use crate::atomic::{AtomicBool, Ordering::SeqCst};
use alloc::boxed::Box;
use alloc::sync::Arc;

use msi_types::{Cpu, Kick};

/// The vCPUs' flags, and the way to kick them. Shared by everything that makes interrupts pending.
pub(crate) struct Attention {
    outside: Box<[Flag]>,
    kick: Arc<dyn Kick>,
}

/// A cache line of its own: injectors of distinct vCPUs must not meet.
#[repr(align(128))]
struct Flag(AtomicBool);

impl Attention {
    pub(crate) fn new(cpus: usize, kick: Arc<dyn Kick>) -> Self {
        Self { outside: (0..cpus).map(|_| Flag(AtomicBool::new(false))).collect(), kick }
    }

    /// vCPU `cpu` may have something to do: kicks it if it left. To be called after whatever it has to do is visible
    /// (by a sequentially consistent read-modify-write). Unknown vCPUs have nothing to do.
    pub(crate) fn notify(&self, cpu: Cpu) {
        let Some(flag) = self.outside.get(cpu.index()) else { return };
        if flag.0.load(SeqCst) && flag.0.swap(false, SeqCst) {
            self.kick.kick(cpu);
        }
    }

    /// vCPU `cpu` is about to leave the model: from now on it must be kicked. It looks for interrupts afterwards.
    pub(crate) fn leave(&self, cpu: Cpu) {
        if let Some(flag) = self.outside.get(cpu.index()) {
            flag.0.swap(true, SeqCst);
        }
    }

    /// vCPU `cpu` is back, or did not leave: it will look by itself.
    pub(crate) fn returned(&self, cpu: Cpu) {
        if let Some(flag) = self.outside.get(cpu.index()) {
            flag.0.store(false, SeqCst);
        }
    }
}

impl core::fmt::Debug for Attention {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Attention").field("cpus", &self.outside.len()).finish_non_exhaustive()
    }
}
