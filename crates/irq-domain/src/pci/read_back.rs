//! State of a slot, and checks of the registers that determine whether a function can send messages
//! at all.

use super::{COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, VENDOR, capabilities};
use msi_types::explain::{Explanation, Fact, Obstacle, Unexamined};
use msi_types::pci::{msi, msix};
use msi_types::{MsiMessage, SlotState};

/// Capability ID of PCI Power Management, and the offset of its Control/Status register, whose bits
/// 1:0 are the power state (PCI Express Base §7.5.2.2).
const POWER: u8 = 0x01;
const POWER_STATUS: u16 = 0x04;
const POWER_STATE: u16 = 3;

/// Returns the state of a slot. Reports `obstacle` if the slot has one. Otherwise, calls `read` for
/// the slot's message and, if the slot is masked, its pending bit.
pub(super) fn slot_state(
    config: &dyn ConfigSpace,
    slot: u16,
    obstacle: Option<Obstacle>,
    read: impl FnOnce() -> (MsiMessage, Option<bool>),
) -> SlotState {
    let mut state = SlotState::new(Explanation::new());
    state.requester = config.requester();
    if let Some(obstacle) = obstacle.or_else(|| check_both(config)) {
        let stopped = Explanation::stopped(obstacle);
        state.explanation = match obstacle {
            Obstacle::Absent | Obstacle::PoweredDown { .. } => stopped,
            _ => stopped.merge(explain_bus(config)),
        };
        return state;
    }
    let (message, pending_if_masked) = read();
    let endpoint = match pending_if_masked {
        Some(pending) => Explanation::stopped(Obstacle::VectorMasked { vector: slot, pending }),
        None => Explanation::new().with_fact(Fact::Message(message)),
    };
    state.message = Some(message);
    state.explanation = endpoint.merge(explain_bus(config));
    if state.requester.is_none() {
        let unread = state.explanation.with_unexamined(Unexamined::Requester);
        state.explanation = unread.with_unexamined(Unexamined::Bridges);
    }
    state
}

/// Returns an obstacle if both MSI and MSI-X are enabled.
fn check_both(config: &dyn ConfigSpace) -> Option<Obstacle> {
    let control = |id, register| {
        let found = capabilities(config).find(|capability| capability.id == id);
        found.map_or(0, |found| config.read16(found.offset + register))
    };
    let msi = msi::Control::from_bits(control(msi::CAPABILITY_ID, msi::CONTROL));
    let msix = msix::Control::from_bits(control(msix::CAPABILITY_ID, msix::CONTROL));
    (msi.enable() && msix.enable()).then_some(Obstacle::BothEnabled)
}

/// Returns an obstacle if the function does not respond or is not in D0.
pub(super) fn check_power(config: &dyn ConfigSpace) -> Option<Obstacle> {
    if is_virtual(config) && config.read16(COMMAND) == u16::MAX {
        return Some(Obstacle::Absent);
    }
    let power = capabilities(config).find(|capability| capability.id == POWER)?;
    let state = config.read16(power.offset + POWER_STATUS) & POWER_STATE;
    let state = state.to_le_bytes()[0];
    (state != 0).then_some(Obstacle::PoweredDown { state })
}

/// Returns an obstacle if the function does not respond to accesses to its memory regions. Those of
/// a virtual function are enabled by its physical function (SR-IOV 1.1, §3.4.1.3).
pub(super) fn check_memory(config: &dyn ConfigSpace) -> Option<Obstacle> {
    let decodes = config.read16(COMMAND) & COMMAND_MEMORY != 0 || is_virtual(config);
    (!decodes).then_some(Obstacle::MemoryDisabled)
}

/// Returns `true` for a virtual function, whose vendor reads as all ones (SR-IOV 1.1, §3.4.1.1), and
/// for a function that does not respond.
fn is_virtual(config: &dyn ConfigSpace) -> bool {
    config.read16(VENDOR) == u16::MAX
}

/// Explains whether the function's writes reach the host bridge.
fn explain_bus(config: &dyn ConfigSpace) -> Explanation {
    let is_master = config.read16(COMMAND) & COMMAND_MASTER != 0;
    let function = (!is_master).then_some(Obstacle::BusMasterDisabled);
    let bridge = config.closed_bridge().map(|bridge| Obstacle::BridgeDisabled { bridge });
    let is_open = function.is_none() && bridge.is_none();
    let fact = is_open.then_some(Fact::BusMaster);
    Explanation::new().with_obstacles(&[function, bridge]).with_facts(&[fact])
}
