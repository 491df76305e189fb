//! Tests for direct injection by hardware.

use super::rig::*;
use crate::frames::its::ItsConfig;
use crate::monitor::{DirectInjection, DirectTarget, InListRegister, Translate};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use gic_arch::Lpi;
use gic_arch::its::Command;
use gic_arch::lpi::Config;
use msi_types::{Cpu, DeviceId, EventId};
use std::sync::Mutex;

const DEVICE: u32 = 1;
const EVENT: u32 = 0;
const LPI: u32 = 8200;

/// Hardware that executes INT itself, and records the event's translation after each
/// other command.
#[derive(Default)]
struct Hardware {
    executed: Mutex<Vec<Command>>,
    translations: Mutex<Vec<Option<(u32, u32, Config)>>>,
    failures: AtomicU32,
    /// Number of times that the model's pending state was taken.
    taken: AtomicU32,
    /// Number of events that each command is said to concern.
    followed: AtomicU32,
}

impl DirectInjection for Hardware {
    fn before(&self, command: Command) -> bool {
        let is_own = matches!(command, Command::Int { .. });
        if is_own {
            self.executed.lock().unwrap().push(command);
        }
        is_own
    }

    fn after(
        &self,
        command: Option<Command>,
        translate: &mut Translate<'_>,
    ) -> Result<u32, InListRegister> {
        self.failures.fetch_add(command.is_none().into(), Ordering::SeqCst);
        let found = translate(DeviceId::new(DEVICE), EventId::new(EVENT))?;
        self.taken.fetch_add(found.is_some_and(|it| it.pending).into(), Ordering::SeqCst);
        self.translations.lock().unwrap().push(found.map(parts));
        Ok(self.followed.load(Ordering::SeqCst))
    }

    fn is_direct(&self, lpi: Lpi) -> bool {
        lpi.get() == LPI
    }
}

fn parts(DirectTarget { lpi, cpu, config, .. }: DirectTarget) -> (u32, u32, Config) {
    (lpi.get(), cpu.get(), config)
}

fn config(enable: bool) -> Config {
    Config::new().with_enable(enable).with_priority(gic_arch::Priority::new(0xa0))
}

/// Returns a running machine with two vCPUs and one mapped event, and its hardware.
fn rig() -> (Rig, Arc<Hardware>) {
    let (rig, hardware) = (Rig::running(2), Arc::new(Hardware::default()));
    rig.run([mapd(DEVICE, 1), mapti(DEVICE, EVENT, LPI, 0)]);
    assert!(rig.its.inject_directly(hardware.clone()));
    assert!(!rig.its.inject_directly(hardware.clone()), "the ITS already has hardware");
    (rig, hardware)
}

#[test]
fn commands_that_map_move_or_invalidate_a_direct_event_update_hardware() {
    let (rig, hardware) = rig();
    let translation = |command: Command| {
        rig.run([command]);
        hardware.translations.lock().unwrap().pop().expect("the command is followed")
    };
    let at = |cpu, enabled| Some((LPI, cpu, config(enabled)));
    assert_eq!(translation(movi(DEVICE, EVENT, 1)), at(1, true));
    assert_eq!(translation(mapc(1, 0)), at(0, true));
    rig.configure(LPI, false, 0xa0);
    assert_eq!(translation(inv(DEVICE, EVENT)), at(0, false));
    assert_eq!(translation(unmapc(1)), None);
    assert_eq!(translation(mapc(1, 1)), at(1, false));
    assert_eq!(translation(discard(DEVICE, EVENT)), None);
    let remapped = translation(mapti(DEVICE, EVENT, LPI + 1, 0));
    assert_eq!(remapped, Some((LPI + 1, 0, config(true))));
    assert_eq!(translation(unmapd(DEVICE)), None);
}

#[test]
fn a_failed_command_is_reported_to_hardware() {
    let (rig, hardware) = rig();
    rig.run([mapti(DEVICE, EVENT, 1, 0), mapti(DEVICE, EVENT, LPI, 0)]);
    assert_eq!(hardware.failures.load(Ordering::SeqCst), 1);
    let at_first = Some((LPI, 0, config(true)));
    assert_eq!(*hardware.translations.lock().unwrap(), [at_first, at_first]);
}

#[test]
fn events_updated_in_hardware_count_toward_the_command_budget() {
    for (followed, executed) in [(0, 10), (1, 5), (9, 1), (100, 1)] {
        let rig = Rig::running_with(1, ItsConfig::new(BASE).with_work_per_access(10));
        let hardware = Arc::new(Hardware::default());
        hardware.followed.store(followed, Ordering::SeqCst);
        rig.run([mapd(DEVICE, 1), mapti(DEVICE, EVENT, LPI, 0)]);
        assert!(rig.its.inject_directly(hardware.clone()));
        rig.queue_raw([inv(DEVICE, EVENT).encode(); 20]);
        assert_eq!(hardware.translations.lock().unwrap().len(), executed);
    }
}

#[test]
fn the_model_skips_int_of_a_direct_event() {
    let (rig, hardware) = rig();
    rig.run([int(DEVICE, EVENT), sync(0)]);
    assert_eq!(*hardware.executed.lock().unwrap(), [int(DEVICE, EVENT)]);
    assert!(rig.lpis.pending(Cpu::new(0)).is_empty());
}

#[test]
fn clear_of_a_direct_event_clears_the_models_pending_state() {
    let (rig, _) = rig();
    rig.send(DEVICE, EVENT);
    assert_eq!(rig.pending(0), [LPI]);

    rig.run([clear(DEVICE, EVENT)]);

    assert!(rig.pending(0).is_empty());
}

#[test]
fn commands_transfer_the_models_pending_state_to_hardware() {
    let (rig, hardware) = rig();
    for (command, taken) in [
        (inv(DEVICE, EVENT), 1),
        (movi(DEVICE, EVENT, 1), 1),
        // The command discards the pending state.
        (mapti(DEVICE, EVENT, LPI, 0), 0),
        // The command fails.
        (mapti(DEVICE, EVENT, 1, 0), 1),
    ] {
        hardware.taken.store(0, Ordering::SeqCst);
        rig.send(DEVICE, EVENT);
        rig.run([command]);
        assert_eq!(hardware.taken.load(Ordering::SeqCst), taken, "{command:?}");
        assert!(rig.pending(0).is_empty() && rig.pending(1).is_empty(), "{command:?}");
    }
}

#[test]
fn movi_transfers_a_redistributors_pending_state_to_hardware() {
    let (rig, hardware) = rig();
    rig.send(DEVICE, EVENT);
    // The LPI becomes pending at vCPU 1, to which the event does not belong.
    rig.run([movall(0, 1)]);
    assert_eq!([rig.pending(0), rig.pending(1)], [&[][..], &[LPI]]);
    rig.run([movi(DEVICE, EVENT, 1)]);
    assert_eq!(hardware.taken.load(Ordering::SeqCst), 1);
    assert!(rig.pending(1).is_empty());
}

#[test]
fn events_of_disabled_controllers_have_no_direct_target() {
    let (rig, _) = rig();
    let find = |event| rig.its.direct_target(DeviceId::new(DEVICE), EventId::new(event)).unwrap();
    let target = || find(EVENT).map(parts);
    let enabled = Some((LPI, 0, config(true)));
    assert_eq!(target(), enabled);
    rig.set_enabled(false);
    assert_eq!(target(), None);
    rig.set_enabled(true);
    assert_eq!(target(), enabled);
    rig.disable_lpis(0);
    assert_eq!(target(), None);
    assert_eq!(find(EVENT + 1), None);
}
