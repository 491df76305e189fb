//! The kernel's per-CPU services: masking interrupts, and waiting.

use core::ops::Deref;

/// A CPU's interrupt state, as returned by [`LocalCpu::irq_save`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "interrupts stay off until the state is restored"]
pub struct IrqState(usize);

impl IrqState {
    /// Creates a state. Only implementations of [`LocalCpu`] should call this, because only they
    /// know the meaning of `raw` (DAIF, RFLAGS).
    pub const fn new(raw: usize) -> Self {
        Self(raw)
    }

    /// Returns the number that was passed to [`IrqState::new`]. Only implementations of
    /// [`LocalCpu`] need this number.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// Control over the calling CPU's interrupt mask, and ways to wait.
///
/// A kernel implements this trait once, for its interrupt core and its controller drivers.
/// Implementations must not call the interrupt core or a controller driver. Functions have the
/// following context unless they state a different one.
///
/// Context: any.
#[doc(alias = "local_irq_save")]
#[doc(alias = "cpu_relax")]
#[doc(alias = "cond_resched")]
pub trait LocalCpu: Send + Sync {
    /// Masks interrupts on this CPU and returns the previous state. Calls nest.
    fn irq_save(&self) -> IrqState;

    /// Restores a state returned by [`irq_save`](Self::irq_save).
    fn irq_restore(&self, state: IrqState);

    /// Executes one iteration of a short wait, e.g. a pause while another CPU holds a lock for a
    /// few instructions. Interrupts may be masked.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Executes one iteration of a wait that may be long: for another task, for a handler on
    /// another CPU, or for hardware. Callers may hold task locks. Interrupts are masked only if the
    /// kernel always masks them in task context.
    ///
    /// Context: task; may sleep.
    ///
    /// A kernel with a scheduler should yield or sleep. If its tasks have priorities, the caller
    /// must sleep or lend its priority, so that a lower-priority lock holder can run. A kernel that
    /// does not preempt tasks may pause, as in [`relax`](Self::relax).
    fn yield_now(&self);
}

/// A kernel that knows whether the current context may wait.
#[doc(alias = "in_task")]
#[doc(alias = "irqs_disabled")]
pub trait TaskContext: LocalCpu {
    /// Returns `true` if the caller may wait for another CPU. Must return `false` in hard-IRQ
    /// context, in all of the kernel's interrupt handlers, and with interrupts masked. A kernel
    /// that tracks preemption should also return `false` while preemption is disabled.
    ///
    /// Context: any.
    fn may_wait(&self) -> bool;
}

/// Forwards calls on references and smart pointers to the kernel behind them.
impl<P: Deref<Target: LocalCpu> + Send + Sync> LocalCpu for P {
    fn irq_save(&self) -> IrqState {
        (**self).irq_save()
    }

    fn irq_restore(&self, state: IrqState) {
        (**self).irq_restore(state);
    }

    fn relax(&self) {
        (**self).relax();
    }

    fn yield_now(&self) {
        (**self).yield_now();
    }
}

/// Forwards calls on references and smart pointers to the kernel behind them.
impl<P: Deref<Target: TaskContext> + Send + Sync> TaskContext for P {
    fn may_wait(&self) -> bool {
        (**self).may_wait()
    }
}
