//! The model's memory, which grows with the number of vCPUs and mapped events.

use crate::model::{EventMapping, GicSize, MeasuredGic, NoKick};
use crate::probe::{Fallible, MeasureError, named};
use std::sync::Arc;
use vgic::{GuestMemory, MemoryFault, Vgic, VgicConfig};

/// Numbers of mapped events. Each event has its own LPI of the 2^20 − 8192 that 20 INTID bits
/// provide.
const FEW: u32 = 1 << 12;
const MANY: u32 = (1 << 20) - (1 << 14);

/// Heap memory used by the model, in bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub struct Memory {
    /// Memory for a machine with one vCPU and no LPIs.
    pub idle: usize,
    /// Memory for each mapped event beyond the first 4,096.
    pub event: f64,
}

/// Measures the memory. `heap` must return the number of bytes that are currently allocated.
///
/// # Errors
/// Returns an error if a machine cannot be created.
pub fn memory(heap: &dyn Fn() -> usize) -> Result<Memory, MeasureError> {
    named("memory", measured(heap))
}

fn measured(heap: &dyn Fn() -> usize) -> Fallible<Memory> {
    let before = heap();
    let idle = Vgic::new(VgicConfig::new(1), Arc::new(NoMemory), Arc::new(NoKick));
    let idle = idle.map(|_kept| heap() - before)?;
    let [few, many] = [FEW, MANY].map(|events| with_events(events, heap));
    let more = u32::try_from(many?.saturating_sub(few?)).unwrap_or(u32::MAX);
    Ok(Memory { idle, event: f64::from(more) / f64::from(MANY - FEW) })
}

/// Returns the memory of a machine with so many mapped events. Guest memory isn't counted.
fn with_events(events: u32, heap: &dyn Fn() -> usize) -> Fallible<usize> {
    let size = GicSize { vcpus: 8, budget: events.max(1 << 16) * 2, lpi_id_bits: 20 };
    let event_bits = if events == FEW { 5 } else { 9 };
    let mapping = EventMapping::new(events >> event_bits, event_bits);
    let before = heap();
    let (mut gic, _vcpus) = MeasuredGic::booted(size, Arc::new(NoKick))?;
    gic.configure(events)?;
    gic.map(mapping, size.vcpus)?;
    Ok(heap().saturating_sub(before).saturating_sub(size.ram_bytes()))
}

/// Empty guest memory, for a guest that never accesses memory.
struct NoMemory;

impl GuestMemory for NoMemory {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }

    fn write(&self, address: u64, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { address })
    }
}
