//! Services of the kernel on the calling CPU.

use core::ops::Deref;

/// Interrupt state of a CPU, as returned by [`LocalCpu::irq_save`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "interrupts stay off until the state is restored"]
pub struct IrqState(usize);

impl IrqState {
    /// Creates a state. For implementations of [`LocalCpu`], which alone interpret `raw` (DAIF,
    /// RFLAGS).
    pub const fn new(raw: usize) -> Self {
        Self(raw)
    }

    /// Returns the number that was passed to [`IrqState::new`]. For implementations of
    /// [`LocalCpu`].
    pub const fn get(self) -> usize {
        self.0
    }
}

/// The interrupt mask of the calling CPU, and the ways to wait on it.
///
/// A kernel implements this once for its interrupt core and its controllers' drivers.
/// Implementations must not call the interrupt core or the drivers. Functions have the following
/// context unless they state a different one.
///
/// Context: any.
#[doc(alias = "local_irq_save")]
#[doc(alias = "cpu_relax")]
#[doc(alias = "cond_resched")]
pub trait LocalCpu: Send + Sync {
    /// Masks interrupts on this CPU and returns the previous state. Calls nest.
    fn irq_save(&self) -> IrqState;

    /// Restores a state that [`irq_save`](Self::irq_save) returned.
    fn irq_restore(&self, state: IrqState);

    /// Executes one iteration of a short wait, such as for a lock that another CPU holds for a few
    /// instructions: a pause. Interrupts may be masked.
    fn relax(&self) {
        core::hint::spin_loop();
    }

    /// Executes one iteration of a wait that may be long: for another task, for a handler on
    /// another CPU, or for hardware. Callers may hold task locks. Interrupts are in the state that
    /// the kernel has in task context.
    ///
    /// Context: task; may sleep.
    ///
    /// A kernel with a scheduler yields or sleeps. If its tasks have priorities, it must let a lock
    /// holder of lower priority run: the caller must sleep, or lend its priority. A kernel that
    /// does not preempt tasks may pause, as in [`relax`](Self::relax).
    fn yield_now(&self);
}

/// A kernel that knows whether its current context may wait.
#[doc(alias = "in_task")]
#[doc(alias = "irqs_disabled")]
pub trait TaskContext: LocalCpu {
    /// Returns `true` if the caller may wait for another CPU. Must return false in hard-IRQ
    /// context, in every interrupt handler of the kernel, and with interrupts masked. A kernel that
    /// tracks preemption should also return false while preemption is disabled.
    ///
    /// Context: any.
    fn may_wait(&self) -> bool;
}

/// References and smart pointers to a kernel.
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

/// References and smart pointers to a kernel.
impl<P: Deref<Target: TaskContext> + Send + Sync> TaskContext for P {
    fn may_wait(&self) -> bool {
        (**self).may_wait()
    }
}
