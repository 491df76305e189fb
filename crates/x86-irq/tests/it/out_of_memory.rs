//! Tests what happens when the heap is exhausted: operations fail without partial effects, and
//! freeing never allocates.

use crate::board::QuietApics;
use doorbell_test_support::{after_failures, outside, with_allocations};
use msi_types::{
    Attachment, BlockRequest, Cpu, Fit, MoveOutcome, MsiError, MsiParent, RequesterId, Rewrite,
    Shape,
};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use x86_irq::remapping::{
    ApicMode, EntryCache, InvalidationError, RemapMemory, RemapTableConfig, TableSize,
};
use x86_irq::{
    ApicId, Arrival, RemapTable, RemappedVectors, RemappedVectorsConfig, VectorDomain,
    VectorDomainConfig,
};

const NIC: RequesterId = RequesterId::pci(1, 0, 0);
const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);
const ENTRIES: usize = 32;

/// Memory of a table, and the unit that reads it.
struct Hardware([AtomicU64; ENTRIES * 2]);

impl Hardware {
    fn new() -> Arc<Self> {
        Arc::new(Self(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

struct Words(Arc<Hardware>);

impl RemapMemory for Words {
    fn read(&self, word: u32) -> u64 {
        self.0.0[word as usize].load(Relaxed)
    }

    fn write(&self, word: u32, value: u64) {
        self.0.0[word as usize].store(value, Relaxed);
    }
}

impl EntryCache for Hardware {
    fn invalidate(&self, _: u16, _: u8) -> Result<(), InvalidationError> {
        Ok(())
    }
}

fn domain() -> Arc<VectorDomain> {
    let config = || {
        VectorDomainConfig::new(NonZeroU16::new(2).unwrap(), Arc::new(QuietApics(|_| {})))
            .with_hwirqs(NonZeroU16::new(20).unwrap())
    };
    let domain = Arc::new(after_failures(5, || VectorDomain::new(outside(config)), drop));
    for cpu in [CPU0, CPU1] {
        domain.online(cpu, ApicId::new(cpu.get())).unwrap();
    }
    domain
}

fn remapping(hardware: &Arc<Hardware>, domain: &Arc<VectorDomain>) -> RemappedVectors<Words> {
    let size = TableSize::from_log2(5).unwrap();
    let config = RemapTableConfig::new(size, ApicMode::X2apic);
    let make = || {
        let table = RemapTable::new(config, Words(hardware.clone()));
        let cache = hardware.clone();
        RemappedVectors::new(RemappedVectorsConfig::new(domain.clone(), table, cache, 0xfed9_0000))
    };
    after_failures(1, make, drop)
}

fn request(count: u16, shape: Shape) -> BlockRequest {
    let fit = Fit::new(Rewrite::Masked);
    let count = NonZeroU16::new(count).unwrap();
    BlockRequest::new(count, fit, CPU0).with_shape(shape)
}

fn no_memory(error: MsiError) {
    assert!(matches!(error, MsiError::NoMemory(_)), "{error}");
}

/// Allocates, moves and frees vectors for a device of `parent`.
fn use_without_memory(domain: &VectorDomain, parent: &dyn MsiParent, shape: Shape) {
    let free = [CPU0, CPU1].map(|cpu| domain.available_on(cpu));
    let unchanged = |error| {
        no_memory(error);
        let now = [CPU0, CPU1].map(|cpu| domain.available_on(cpu));
        assert_eq!((domain.hwirqs_in_use(), now), (0, free));
    };
    // Records reuse the memory of removed records, and allocating a vector needs no memory.
    let device = after_failures(0, || parent.attach(NIC, 8), unchanged);
    let block = after_failures(0, || parent.allocate(&device, &request(2, shape)), unchanged);
    with_allocations(0, || {
        let moved = parent.begin_move(&block, 0, CPU1).unwrap();
        parent.end_move(moved, MoveOutcome::Written).unwrap();
        let place = domain.cpu_vector(block.first()).unwrap();
        assert_eq!(domain.arrive(CPU1, place.vector), Arrival::Deliver(block.first()));
        assert_eq!(domain.clean_up(CPU0), x86_irq::Cleanup::Done);
        domain.offline(CPU0).unwrap();
        domain.online(CPU0, ApicId::new(0)).unwrap();
        parent.free(&device, block);
        let _ = (domain.clean_up(CPU0), domain.clean_up(CPU1));
    });
    manage_without_memory(domain, parent, &device, free);
    with_allocations(0, || parent.detach(device));
}

fn manage_without_memory(
    domain: &VectorDomain,
    parent: &dyn MsiParent,
    device: &Attachment,
    free: [u32; 2],
) {
    let now = || [CPU0, CPU1].map(|cpu| domain.available_on(cpu));
    let request = request(2, Shape::Independent);
    let allocate = || parent.allocate_managed(device, &request, &[CPU1, CPU0, CPU1]);
    let managed = after_failures(3, allocate, |error| {
        no_memory(error);
        assert_eq!((domain.hwirqs_in_use(), now()), (0, free));
    });
    assert_eq!(now(), free.map(|free| free - 2));
    with_allocations(0, || {
        let moved = parent.begin_move(&managed, 1, CPU1).unwrap();
        parent.end_move(moved, MoveOutcome::Written).unwrap();
        parent.free(device, managed);
        let _ = (domain.clean_up(CPU0), domain.clean_up(CPU1));
    });
    assert_eq!((domain.hwirqs_in_use(), now()), (0, free));
}

#[test]
fn attach_and_allocate_without_memory_are_refused() {
    let hardware = Hardware::new();
    let domain = domain();
    let device = after_failures(1, || domain.attach(NIC, 8), no_memory);
    domain.detach(device);
    let parent = remapping(&hardware, &domain);
    let device = parent.attach(NIC, 8).unwrap();
    let refused = |error| {
        no_memory(error);
        assert_eq!((domain.hwirqs_in_use(), parent.entries_in_use()), (0, 0));
    };
    let shape = Shape::Independent;
    let block = after_failures(1, || parent.allocate(&device, &request(2, shape)), refused);
    parent.free(&device, block);
    parent.detach(device);
}

#[test]
fn apic_vectors_are_freed_without_memory() {
    let domain = domain();
    use_without_memory(&domain, &*domain, Shape::Independent);
}

#[test]
fn remapped_vectors_are_freed_without_memory() {
    let hardware = Hardware::new();
    let domain = domain();
    let parent = remapping(&hardware, &domain);
    use_without_memory(&domain, &parent, Shape::Independent);
    use_without_memory(&domain, &parent, Shape::AlignedGroup);
    assert_eq!(parent.entries_in_use(), 0);
    assert!(hardware.0.iter().all(|word| word.load(Relaxed) == 0));
}
