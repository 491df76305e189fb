//! The binary form of a machine's state, written by anyone. For any contents, the reader must not
//! panic or hang, and must allocate memory in proportion to the bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use vgic_monitor::machine_state::MachineState;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// First bytes of the binary form.
const MAGIC: &[u8] = b"GICSTATE";
/// Memory that a list of any stated length may take before its elements are read.
const MOST_AHEAD: usize = 8 << 20;
/// Maximum size of a value in memory whose binary form has one byte.
const MOST_PER_BYTE: usize = 256;

fuzz_target!(|body: &[u8]| {
    let bytes = [MAGIC, body].concat();
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let state = MachineState::from_bytes(&bytes);
    let used = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(used <= MOST_AHEAD + MOST_PER_BYTE * bytes.len(), "{used} bytes");
    if let Ok(state) = state {
        assert_eq!(MachineState::from_bytes(&state.to_bytes()), Ok(state));
    }
});
