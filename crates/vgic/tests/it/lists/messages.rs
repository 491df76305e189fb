//! Tests for LPIs in list registers. LPIs have no active state, and commands that affect a listed
//! LPI make its vCPU exit. The guest must see the same interrupts as without list registers.

use super::entered::{Entered, enter};
use super::its::{Translated, mapti};
use doorbell_test_support::guest::{Hardware, clear, discard, inv, movall, movi, sync, unmapd};
use gic_arch::gicd::{self};
use gic_arch::ich::ListRegisterState::Invalid;
use gic_arch::its::Command;
use gic_arch::{Lpi, gicr};
use msi_types::{DeviceId, EventId};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;
use vgic::{DirectInjection, InListRegister, ListRegisterVcpu, Translate, VgicConfig};

pub(crate) const FIRST: u32 = 8192;

/// Creates a machine with two vCPUs with list registers. vCPU 0 is in its guest and has the LPI of
/// event 0 in its first list register.
fn listed() -> (Translated, Entered, Hardware, ListRegisterVcpu) {
    listed_in(Translated::new(2))
}

fn listed_in(mut translated: Translated) -> (Translated, Entered, Hardware, ListRegisterVcpu) {
    let first = translated.machine.list_register_vcpu();
    let second = translated.machine.list_register_vcpu();
    translated.send(0);
    let (inside, hardware) = enter(first);
    assert_eq!(hardware.registers.list[0].virtual_intid(), FIRST);
    (translated, inside, hardware, second)
}

#[test]
fn a_command_for_a_listed_lpi_waits_for_the_exit() {
    let commands =
        [movi(1, 0, 1), discard(1, 0), clear(1, 0), unmapd(1), movall(0, 1), mapti(0, 1)];
    for command in commands {
        let (translated, inside, hardware, second) = listed();

        translated.run([command, sync(0)]);

        assert_eq!(translated.machine.kicks.of(0), 1, "{command:?}");
        assert!(!translated.is_done(), "{command:?}");
        assert_eq!(
            translated.machine.read_gicr(1, gicr::SYNCR),
            0,
            "the other redistributor invalidated nothing"
        );

        let _first = inside.again(&hardware);

        assert!(translated.is_done(), "{command:?}");
        drop(second);
    }
}

/// Hardware that records which pending state it has taken from the model.
#[derive(Default)]
struct Direct(Mutex<Vec<bool>>);

impl DirectInjection for Direct {
    fn before(&self, _: Command) -> bool {
        false
    }

    fn after(
        &self,
        _: Option<Command>,
        translate: &mut Translate<'_>,
    ) -> Result<u32, InListRegister> {
        let found = translate(DeviceId::new(1), EventId::new(0))?;
        self.0.lock().unwrap().push(found.is_some_and(|it| it.pending));
        Ok(1)
    }

    fn is_direct(&self, _: Lpi) -> bool {
        false
    }
}

#[test]
fn commands_transfer_a_listed_lpi_to_hardware_after_the_exit() {
    let too_large = mapti(1 << 20, 0);
    for (command, acknowledges, taken) in [
        (inv(1, 0), false, true),
        (inv(1, 0), true, false),
        (movi(1, 0, 1), false, true),
        (mapti(0, 1), false, false),
        (too_large, false, true),
    ] {
        let (translated, inside, mut hardware, second) = listed();
        let direct = Arc::new(Direct::default());
        translated.machine.gic.inject_directly(0, direct.clone()).unwrap();
        if acknowledges {
            hardware.acknowledge(1);
        }

        translated.run([command]);

        assert!(!translated.is_done(), "{command:?}");
        assert_eq!(translated.machine.kicks.of(0), 1, "{command:?}");
        assert!(direct.0.lock().unwrap().is_empty(), "{command:?}");
        let (_first, hardware) = inside.again(&hardware);
        assert!(translated.is_done(), "{command:?}");
        assert_eq!(*direct.0.lock().unwrap(), [taken], "{command:?}");
        assert_eq!(hardware.registers.list[0].state(), Invalid, "{command:?}");
        let (_second, hardware) = enter(second);
        assert_eq!(hardware.registers.list[0].state(), Invalid, "{command:?}");
    }
}

/// Hardware that holds INV up, while the model holds its locks, until the test lets it continue.
struct HeldUp {
    has_begun: Barrier,
    may_continue: Mutex<Receiver<()>>,
}

impl DirectInjection for HeldUp {
    fn before(&self, command: Command) -> bool {
        if let Command::Inv { .. } = command {
            self.has_begun.wait();
            let told = self.may_continue.lock().unwrap().recv_timeout(Duration::from_secs(10));
            told.expect("the exit waits for the command");
        }
        false
    }

    fn after(&self, _: Option<Command>, _: &mut Translate<'_>) -> Result<u32, InListRegister> {
        Ok(0)
    }

    fn is_direct(&self, _: Lpi) -> bool {
        false
    }
}

#[test]
fn exits_and_entries_never_wait_for_commands() {
    let (translated, inside, hardware, _second) = listed();
    let (continues, may_continue) = mpsc::channel();
    let may_continue = Mutex::new(may_continue);
    let held_up = Arc::new(HeldUp { has_begun: Barrier::new(2), may_continue });
    translated.machine.gic.inject_directly(0, held_up.clone()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| translated.run([clear(1, 0), inv(1, 0), sync(0)]));
        held_up.has_begun.wait();

        let _first = inside.again(&hardware);

        continues.send(()).unwrap();
    });
    assert!(translated.is_done());
}

#[test]
fn syncr_stays_busy_until_the_lpis_vcpu_exits() {
    let config = |its: VgicConfig| its.with_redistributor_invalidation(true);
    let (translated, inside, hardware, _second) = listed_in(Translated::configured(2, config));
    let syncr = |cpu| translated.machine.read_gicr(cpu, gicr::SYNCR);
    translated.configure(0, false);

    translated.machine.write_gicr(0, gicr::INVLPIR, FIRST.into());

    assert_eq!([syncr(0), syncr(1)], [1, 0]);
    let _first = inside.exit(&hardware.registers);
    assert_eq!([syncr(0), syncr(1)], [0, 0]);
}

/// Distributor writes alternately force exits of two vCPUs, so that the model is always waiting for
/// at least one exit.
#[test]
fn sync_completes_despite_continuous_forced_exits() {
    let (translated, first, left, second) = listed();
    let machine = &translated.machine;
    for (spi, cpu) in [(40, 0), (41, 1)] {
        machine.route_to(spi, cpu);
        machine.enable_spi(spi);
        machine.raise(spi);
    }
    let recall = |spi: u32| {
        machine.set_bit(gicd::ISACTIVER, spi);
        machine.set_bit(gicd::ICACTIVER, spi);
    };
    let (first, left) = first.again(&left);
    let (second, other) = enter(second);
    recall(40);
    recall(41);

    translated.run([sync(0)]);

    assert!(!translated.is_done());
    let (_first, _) = first.again(&left);
    recall(40);
    assert!(!translated.is_done(), "the second vCPU has not exited");
    let (_second, _) = second.again(&other);
    assert!(translated.is_done(), "both vCPUs have exited since the SYNC");
}

/// Nothing reads `GICR_CTLR` here, because a read would finish the write as well.
#[test]
fn the_next_entry_saves_a_disabled_listed_lpi() {
    for acknowledged in [false, true] {
        let (translated, inside, mut hardware, _) = listed();
        translated.machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new());
        if acknowledged {
            hardware.acknowledge(1);
        }
        assert!(!translated.is_saved(0), "the guest may still acknowledge the LPI");

        let _first = inside.again(&hardware);

        assert_eq!(translated.is_saved(0), !acknowledged);
    }
}
