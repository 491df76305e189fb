//! What a kernel gives to the interrupt core.

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

/// What a kernel, or a simulation of one, gives to the interrupt core. Every function may be called in any
/// context.
pub trait Host: Send + Sync {
    /// The CPU that runs the caller; `None` on a thread that is no CPU (the host side of a simulation).
    ///
    /// The core asks this only with interrupts saved, so the answer cannot change under it. It decides by it
    /// whether a handler is on the caller's stack, and waiting for handlers could therefore wait for oneself: a
    /// thread that claimed to be a CPU which it is not would not wait.
    fn current_cpu(&self) -> Option<Cpu>;

    /// Keeps interrupts from being taken on this CPU and returns what was before. Nests.
    fn irq_save(&self) -> IrqState;

    /// Goes back to what [`irq_save`](Self::irq_save) returned.
    fn irq_restore(&self, state: IrqState);

    /// One turn of a wait for another CPU, called without locks held. In task context it may yield or sleep for
    /// a moment; in a hard-IRQ handler it is a pause instruction.
    fn relax(&self);
}
