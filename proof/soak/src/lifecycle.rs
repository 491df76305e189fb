//! Saves and restores models, also through KVM's format.

use doorbell_test_support::guest::{Half, Interface};
use doorbell_test_support::guest::{Ram, ram};
use vgic::saved_state::SavedState;
use vgic::{Vgic, VgicConfig, VmMemory};
use vgic_kvm::{KvmRegister, KvmView};

/// The memory of a guest.
pub(crate) type Memory = VmMemory<Ram>;

/// Saves a machine while its vCPUs are paused.
pub(crate) fn save<'a>(gic: &Vgic, vcpus: impl IntoIterator<Item = &'a mut Half>) -> SavedState {
    let _paused: Vec<_> = vcpus.into_iter().map(Half::pause).collect();
    gic.save().unwrap()
}

/// Restores a state, and checks that a save immediately afterwards returns the same state.
pub(crate) fn restore<'a>(
    gic: &Vgic,
    vcpus: impl IntoIterator<Item = &'a mut Half>,
    state: &SavedState,
) {
    let _paused: Vec<_> = vcpus.into_iter().map(Half::pause).collect();
    gic.restore(state).unwrap();
    let lacks_configurations = state
        .its
        .iter()
        .flat_map(|its| &its.devices)
        .any(|device| device.events.iter().any(|event| event.configuration.is_none()));
    if lacks_configurations {
        // A state that came through KVM's format: the restore has read them from memory.
        return;
    }
    let again = gic.save().unwrap();
    assert!(again == *state, "the restored state differs: {}", difference(state, &again));
}

/// Converts a state to KVM's format and back: the attributes and tables that KVM would save, loaded
/// into the state of a fresh machine.
pub(crate) fn through_kvm(
    config: &VgicConfig,
    state: SavedState,
    fresh: SavedState,
    memory: &Memory,
) -> SavedState {
    let saved = kvm_attributes(config, state, memory);
    let mut view = KvmView::new(config, fresh, memory).unwrap();
    view.load(&saved).unwrap();
    assert!(view.left_out().is_empty(), "the load left out {}", view.left_out());
    let loaded = view.into_state();
    let again = kvm_attributes(config, loaded.clone(), memory);
    assert!(saved == again, "KVM's attributes differ: {}", difference(&saved, &again));
    loaded
}

/// Returns `true` if KVM's format doesn't contain the CPU of one of the state's active SPIs.
pub(crate) fn has_undecidable_spis(config: &VgicConfig, state: SavedState) -> bool {
    // A save to this memory, which is not the guest's, writes nothing.
    let memory = VmMemory(ram(1 << 40, 0x1000));
    let mut view = KvmView::new(config, state, &memory).unwrap();
    view.save().unwrap();
    view.left_out().active_spis > 0
}

fn kvm_attributes(config: &VgicConfig, state: SavedState, memory: &Memory) -> Vec<KvmRegister> {
    let mut view = KvmView::new(config, state, memory).unwrap();
    let saved = view.save().unwrap();
    assert!(view.left_out().is_empty(), "the save left out {}", view.left_out());
    saved
}

/// Returns the first lines that differ in the values' `Debug` output.
fn difference(left: &impl std::fmt::Debug, right: &impl std::fmt::Debug) -> String {
    let (left, right) = (format!("{left:#?}"), format!("{right:#?}"));
    let differing = left.lines().zip(right.lines()).filter(|(left, right)| left != right);
    let shown = differing.take(10).map(|(left, right)| format!("{left} | {right}"));
    shown.collect::<Vec<_>>().join("\n")
}
