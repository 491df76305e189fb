//! Tests for messages that arrive in guest mode and are listed at once.

use super::entered::{Entered, enter};
use super::its::{DEVICE, Translated};
use super::messages::FIRST;
use doorbell_test_support::guest::{Hardware, discard, inv, message};
use gic_arch::gicd;
use gic_arch::ich::ListRegisterState::Invalid;

/// Creates a machine whose vCPU 0 is in its guest with empty list registers.
fn idle() -> (Translated, Entered, Hardware) {
    let mut translated = Translated::new(1);
    let (inside, hardware) = enter(translated.machine.list_register_vcpu());
    (translated, inside, hardware)
}

impl Entered {
    pub(crate) fn list_message(&mut self, event: u32, hardware: &mut Hardware) -> Option<usize> {
        let (sent, empty) = (message(event), hardware.empty());
        let index = self.list(DEVICE, sent, hardware.registers.vmcr, empty)?;
        hardware.registers.list[index] = self.interface().list[index];
        Some(index)
    }
}

#[test]
fn an_unacknowledged_message_is_listed_again() {
    let (_translated, mut inside, mut hardware) = idle();
    assert_eq!(inside.list_message(3, &mut hardware), Some(0));
    let (_inside, hardware) = inside.again(&hardware);
    assert_eq!(hardware.registers.list[0].virtual_intid(), FIRST + 3);
}

#[test]
fn a_message_that_requires_an_exit_enters_no_list_register() {
    let cases: [fn(&Translated, &mut Hardware); 7] = [
        |translated, _| translated.run([discard(1, 3)]),
        |translated, _| {
            translated.configure(3, false);
            translated.run([inv(1, 3)]);
        },
        |translated, _| translated.machine.write_gicd(gicd::CTLR, gicd::Ctlr::new()),
        |translated, _| _ = translated.send(3),
        |translated, _| _ = translated.send(4),
        |_, hardware| hardware.registers.vmcr.set_veng1(false),
        |_, hardware| hardware.set_mask(0x40),
    ];
    for (number, change) in cases.into_iter().enumerate() {
        let (translated, mut inside, mut hardware) = idle();
        change(&translated, &mut hardware);
        assert_eq!(inside.list_message(3, &mut hardware), None, "case {number}");
        assert_eq!(inside.interface().list[0].state(), Invalid, "case {number}");
    }
}

#[test]
fn a_message_is_not_listed_without_a_free_list_register() {
    let (_translated, mut inside, mut hardware) = idle();
    for event in 0..4 {
        assert!(inside.list_message(event, &mut hardware).is_some());
    }
    assert_eq!(inside.list_message(4, &mut hardware), None);
    assert_eq!(hardware.acknowledge(1), FIRST);
    assert_eq!(inside.list_message(0, &mut hardware), Some(0), "while its handler runs");
}
