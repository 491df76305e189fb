//! What a kernel gives to the interrupt core.

use crate::irq::Irq;
use msi_types::Cpu;

/// What [`Host::irq_save`] found, for [`Host::irq_restore`]. Only the host knows its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "interrupts stay off until the state is restored"]
pub struct IrqState(usize);

impl IrqState {
    /// For implementations of [`Host`]: `raw` means something to them alone (DAIF, say).
    pub const fn new(raw: usize) -> Self {
        Self(raw)
    }

    /// For implementations of [`Host`]: the number given to [`IrqState::new`].
    pub const fn get(self) -> usize {
        self.0
    }
}

/// What a kernel, or a simulation of one, gives to the interrupt core. Every function may be called
/// in any context.
pub trait Host: Send + Sync {
    /// The CPU that runs the caller; `None` on a thread that is no CPU (the host side of a
    /// simulation).
    ///
    /// The core asks this only with interrupts saved, so the answer cannot change under it.
    fn current_cpu(&self) -> Option<Cpu>;

    /// May the caller wait for another CPU? False in hard-IRQ context, below
    /// [`dispatch`](crate::Interrupts::dispatch) or not (an interprocessor interrupt of the
    /// kernel's own), and with interrupts saved. A kernel that knows also answers false where
    /// preemption is off.
    ///
    /// Where the answer is false, dropping a handle or a device neither waits nor frees: a later
    /// task does.
    fn may_wait(&self) -> bool;

    /// Keeps interrupts from being taken on this CPU and returns what was before. Nests.
    fn irq_save(&self) -> IrqState;

    /// Goes back to what [`irq_save`](Self::irq_save) returned.
    fn irq_restore(&self, state: IrqState);

    /// One turn of a wait for a lock that is held for a few instructions: a pause. Interrupts may
    /// be saved.
    fn relax(&self);

    /// One turn of a wait that may be long: for a handler on another CPU, or for a task that waits
    /// for hardware. The caller [may wait](Self::may_wait); locks of tasks may be held. A kernel
    /// with a scheduler yields or sleeps for a moment. As provided, [`relax`](Self::relax).
    fn yield_now(&self) {
        self.relax();
    }

    /// An interrupt was shut off: more than 99 900 of 100 000 runs of its handler found
    /// [nothing to do](crate::Verdict::NotMine). It is disabled once more than before, until
    /// [`IrqHandle::enable`](crate::IrqHandle::enable). Hard IRQ. As provided, nobody hears of it.
    fn screaming(&self, irq: Irq) {
        let _ = irq;
    }
}
