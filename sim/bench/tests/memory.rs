//! Limits of the model's memory, by an allocator that counts.

use doorbell_bench::growth;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The one test of this program: others would allocate meanwhile.
#[test]
fn the_model_keeps_its_memory_budgets() {
    let memory = growth::memory(&|| HEAP.current_usage()).unwrap();
    assert!(memory.idle <= 8 << 10, "a machine of one vCPU without LPIs: {memory:?}");
    assert!(memory.event >= 8.0, "an event has a word of its own: {memory:?}");
    assert!(memory.event <= 32.0, "{memory:?}");
}
