//! Memory limits for the model, measured with a counting allocator.

use doorbell_bench::memory;
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// This must be the only test in this program: concurrent tests would allocate as well.
#[test]
fn the_model_keeps_its_memory_budgets() {
    let memory = memory(&|| HEAP.current_usage()).unwrap();
    assert!(memory.idle <= 8 << 10, "a machine of one vCPU without LPIs: {memory:?}");
    assert!(memory.event >= 8.0, "each event has a separate word: {memory:?}");
    assert!(memory.event <= 32.0, "{memory:?}");
}
