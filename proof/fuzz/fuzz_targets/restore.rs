//! A saved state from an untrusted source, in each of our two formats and in KVM's. For any
//! contents, the reader must not panic or hang, and must either reject the state and reset the
//! machine, or restore a valid state.
#![no_main]

use doorbell_fuzz::damage::Damage;
use doorbell_fuzz::kvm::{Act, KvmShape, Monitor};
use doorbell_fuzz::machine::{Machine, Shape, Step};
use doorbell_test_support::heap_use;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vgic_monitor::machine_state::MachineState;

/// First bytes of the binary form.
const MAGIC: &[u8] = b"GICSTATE";
/// Memory that a list of any stated length may take before its elements are read.
const MOST_AHEAD: usize = 8 << 20;
/// Maximum size of a value in memory whose binary form has one byte.
const MOST_PER_BYTE: usize = 256;

#[derive(Arbitrary, Debug)]
enum Input {
    /// A model's saved state that has been corrupted in transit.
    Damaged(Shape, Vec<Step>, Vec<Damage>),
    /// The binary form of a machine's state, written by anyone. Reading it must allocate memory in
    /// proportion to the bytes.
    Binary(Vec<u8>),
    /// A VMM that uses KVM's device API with unchecked input. It restores a machine from attributes
    /// and from tables in the guest's memory.
    Kvm(KvmShape, Vec<Act>),
}

fuzz_target!(|input: Input| {
    match input {
        Input::Damaged(shape, steps, damages) => {
            let mut machine = Machine::start(shape);
            steps.into_iter().for_each(|step| machine.take(step));
            machine.restore_damaged(&damages);
        }
        Input::Binary(body) => read(&[MAGIC, &body].concat()),
        Input::Kvm(shape, acts) => {
            let mut monitor = Monitor::new(shape);
            acts.into_iter().take(Monitor::MOST_ACTS).for_each(|act| monitor.take(act));
            monitor.restore();
        }
    }
});

fn read(bytes: &[u8]) {
    let (state, heap) = heap_use(|| MachineState::from_bytes(bytes));
    assert!(heap.allocated <= MOST_AHEAD + MOST_PER_BYTE * bytes.len(), "{heap:?}");
    if let Ok(state) = state {
        assert_eq!(MachineState::from_bytes(&state.to_bytes()), Ok(state));
    }
}
