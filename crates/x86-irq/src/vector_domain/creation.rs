//! Creates vector domains.

use super::free_hwirqs::FreeHwirqs;
use super::irq_data::{IrqData, IrqDataLocked};
use super::quotas::QuotaTable;
use super::{Core, VectorDomain, VectorDomainConfig};
use crate::matrix::VectorMatrix;
use alloc::collections::TryReserveError;
use core::sync::atomic::AtomicU32;
use doorbell_fallible::try_collect;
use doorbell_lock::{IrqLock, TaskLock};

impl VectorDomain {
    /// Creates a domain with all CPUs offline.
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// Returns an error if the kernel's heap is exhausted.
    pub fn new(config: VectorDomainConfig<'_>) -> Result<Self, TryReserveError> {
        let VectorDomainConfig { cpus, hwirqs, window, system, destinations, apic } = config;
        let (count, count_cpus) = (hwirqs.get(), cpus.get());
        let core = Core {
            matrix: VectorMatrix::new(cpus, window.clone(), system)?,
            apic_ids: try_collect((0..count_cpus).map(|_| None))?,
            irqs: try_collect((0..count).map(|_| IrqDataLocked::default()))?,
            free: FreeHwirqs::try_new(count.into())?,
        };
        Ok(Self {
            apic,
            destinations,
            window: window.into_inner(),
            table: try_collect(
                (0..count_cpus).map(|_| core::array::from_fn(|_| AtomicU32::new(0))),
            )?,
            irqs: try_collect((0..count).map(|_| IrqData::default()))?,
            quotas: TaskLock::new(QuotaTable::default()),
            core: IrqLock::new(core),
        })
    }
}
