//! Services that the kernel provides to the interrupt core, and the state that the core shares with
//! its interrupt sources: the kernel, the online CPUs and the redelivery count.

use crate::error::{MoveError, UnknownCpu};
use crate::name::Irq;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use msi_types::{Cpu, TaskContext};

/// The part of the core that interrupt sources also use.
pub(crate) struct Runtime {
    host: Arc<dyn Host>,
    /// For each CPU, `true` if it may be an interrupt's target.
    online: Vec<AtomicBool>,
    redelivered: AtomicU64,
}

impl Runtime {
    /// Creates the initial state, with all CPUs offline.
    pub(crate) fn try_new(host: Arc<dyn Host>, cpus: u16) -> Result<Self, TryReserveError> {
        let online = try_collect((0..cpus).map(|_| AtomicBool::new(false)))?;
        Ok(Self { host, online, redelivered: AtomicU64::new(0) })
    }

    pub(crate) fn host(&self) -> &dyn Host {
        &*self.host
    }

    pub(crate) fn cpus(&self) -> usize {
        self.online.len()
    }

    /// Context: any.
    pub(crate) fn check_known(&self, cpu: Cpu) -> Result<(), UnknownCpu> {
        if cpu.index() < self.cpus() { Ok(()) } else { Err(UnknownCpu(cpu)) }
    }

    /// Context: any.
    pub(crate) fn is_online(&self, cpu: Cpu) -> bool {
        self.online.get(cpu.index()).is_some_and(|online| online.load(Ordering::SeqCst))
    }

    /// Context: any.
    pub(crate) fn check_online(&self, cpu: Cpu) -> Result<(), MoveError> {
        if self.is_online(cpu) { Ok(()) } else { Err(MoveError::Offline(cpu)) }
    }

    /// Sets whether interrupts may target a CPU. Ignores CPUs beyond the configured number.
    pub(crate) fn set_online(&self, cpu: Cpu, online: bool) {
        if let Some(flag) = self.online.get(cpu.index()) {
            flag.store(online, Ordering::SeqCst);
        }
    }

    pub(crate) fn count_redelivery(&self) {
        self.redelivered.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn redelivered(&self) -> u64 {
        self.redelivered.load(Ordering::SeqCst)
    }
}

/// Services that the interrupt core requires of the kernel (or of a simulated one). The core may
/// call every function in any context.
pub trait Host: TaskContext {
    /// Returns the calling CPU, or `None` on a thread that isn't a CPU (the host side of a
    /// simulation).
    ///
    /// The core only calls this function with interrupts masked, so the calling task cannot migrate
    /// to another CPU before the core has used the result.
    fn current_cpu(&self) -> Option<Cpu>;

    /// Reports that the core has disabled an interrupt because more than 99 900 of 100 000 handler
    /// runs found [nothing to do](crate::IrqReturn::None). The driver can enable it again with
    /// [`IrqHandle::enable`](crate::IrqHandle::enable). The provided method does nothing.
    ///
    /// Context: hard IRQ.
    fn disabled_as_spurious(&self, irq: Irq) {
        let _ = irq;
    }
}

/// Forwards calls on references and smart pointers to the kernel behind them.
impl<P: Deref<Target: Host> + Send + Sync> Host for P {
    fn current_cpu(&self) -> Option<Cpu> {
        (**self).current_cpu()
    }

    fn disabled_as_spurious(&self, irq: Irq) {
        (**self).disabled_as_spurious(irq);
    }
}
