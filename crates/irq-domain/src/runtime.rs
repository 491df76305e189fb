//! State that the core shares with its interrupt sources: the kernel, the online CPUs and the
//! redelivery count.

use crate::error::{MoveError, UnknownCpu};
use crate::host::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use doorbell_fallible::try_collect;
use msi_types::Cpu;

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
