//! The binary form of a machine's state, written by anyone. For any contents, the reader must not
//! panic or hang, and must allocate memory in proportion to the bytes.
#![no_main]

use doorbell_test_support::heap_use;
use libfuzzer_sys::fuzz_target;
use vgic_monitor::machine_state::MachineState;

/// First bytes of the binary form.
const MAGIC: &[u8] = b"GICSTATE";
/// Memory that a list of any stated length may take before its elements are read.
const MOST_AHEAD: usize = 8 << 20;
/// Maximum size of a value in memory whose binary form has one byte.
const MOST_PER_BYTE: usize = 256;

fuzz_target!(|body: &[u8]| {
    let bytes = [MAGIC, body].concat();
    let (state, heap) = heap_use(|| MachineState::from_bytes(&bytes));
    assert!(heap.allocated <= MOST_AHEAD + MOST_PER_BYTE * bytes.len(), "{heap:?}");
    if let Ok(state) = state {
        assert_eq!(MachineState::from_bytes(&state.to_bytes()), Ok(state));
    }
});
