//! Tests for LPIs in list registers. LPIs have no active state, and commands that affect a listed
//! LPI make its vCPU exit. The guest must see the same interrupts as without list registers.

use super::entered::Entered;
use super::its::{DEVICE, Translated, mapti};
use super::reference::Reference;
use crate::model::half::{ExitPolicy, Half};
use crate::model::virtual_interface::{Hardware, vtr};
use doorbell_test_support::guest::{clear, discard, inv, mapc, movall, movi, sync, unmapd};
use gic_arch::gicd::{self, Irouter};
use gic_arch::ich::ListRegisterState::{Invalid, Pending};
use gic_arch::its::Command;
use gic_arch::{IntId, Lpi, gicr, icc};
use msi_types::{Delivery, DeviceId, EventId, Level, Line, SetLine};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use vgic::{DirectInjection, InListRegister, ListRegisterVcpu, Translate, VgicConfig};

pub(crate) const FIRST: u32 = 8192;

/// Creates a machine with two vCPUs with list registers. vCPU 0 is in its guest and has the LPI of
/// event 0 in its first list register.
fn listed() -> (Translated, Entered, Hardware, ListRegisterVcpu) {
    listed_in(Translated::new(2))
}

fn listed_in(mut translated: Translated) -> (Translated, Entered, Hardware, ListRegisterVcpu) {
    let second = translated.machine.vcpus.pop().unwrap();
    let first = translated.machine.vcpus.pop().unwrap();
    let second = second.with_list_registers(vtr(4, 5)).unwrap();
    translated.send(0);
    let (inside, hardware) = enter(first.with_list_registers(vtr(4, 5)).unwrap());
    assert_eq!(hardware.registers.list[0].virtual_intid(), FIRST);
    (translated, inside, hardware, second)
}

pub(crate) fn enter(vcpu: ListRegisterVcpu) -> (Entered, Hardware) {
    let mut inside = Entered::new(vcpu);
    let hardware = Hardware::new(inside.interface(), vtr(4, 5));
    (inside, hardware)
}

#[test]
fn an_lpi_is_listed_pending_without_maintenance() {
    let (_translated, _inside, mut hardware, _) = listed();
    let register = hardware.registers.list[0];
    assert_eq!(
        (register.state(), register.hw(), register.eoi(), register.group1()),
        (Pending, false, false, true)
    );

    assert_eq!(hardware.acknowledge(1), FIRST);
    assert_eq!(hardware.registers.list[0].state(), Invalid, "an LPI is never active");
    hardware.end(1, FIRST);
    assert_eq!(hardware.registers.hcr.eoi_count(), 0, "an LPI must not be deactivated");
}

#[test]
fn an_unacknowledged_lpi_comes_again() {
    for acknowledged in [false, true] {
        let (_translated, inside, mut hardware, _) = listed();
        if acknowledged {
            hardware.acknowledge(1);
            hardware.end(1, FIRST);
        }
        let (_inside, hardware) = enter(inside.exit(&hardware.registers));
        let expected = if acknowledged { Invalid } else { Pending };
        assert_eq!(hardware.registers.list[0].state(), expected);
    }
}

#[test]
fn a_message_for_a_listed_lpi_is_not_lost() {
    let (translated, inside, mut hardware, _) = listed();
    hardware.acknowledge(1);

    assert_eq!(translated.send(0), Delivery::Pending);

    assert_eq!(translated.machine.kicks.of(0), 1);
    let (_inside, mut hardware) = enter(inside.exit(&hardware.registers));
    hardware.end(1, FIRST);
    assert_eq!(hardware.acknowledge(1), FIRST);
}

#[test]
fn a_message_before_the_ack_is_coalesced() {
    let (translated, inside, hardware, _) = listed();
    translated.send(0);
    let (_inside, mut hardware) = enter(inside.exit(&hardware.registers));
    hardware.acknowledge(1);
    hardware.end(1, FIRST);
    assert_eq!(hardware.acknowledge(1), 1023);
}

#[test]
fn a_command_for_a_listed_lpi_awaits_the_exit() {
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

        let _first = inside.exit(&hardware.registers);

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
fn hardware_takes_a_listed_lpi_after_the_exit() {
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
        let (_first, hardware) = enter(inside.exit(&hardware.registers));
        assert!(translated.is_done(), "{command:?}");
        assert_eq!(*direct.0.lock().unwrap(), [taken], "{command:?}");
        assert_eq!(hardware.registers.list[0].state(), Invalid, "{command:?}");
        let (_second, hardware) = enter(second);
        assert_eq!(hardware.registers.list[0].state(), Invalid, "{command:?}");
    }
}

#[test]
fn syncr_awaits_the_exit_of_the_lpis_vcpu() {
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
fn sync_ends_although_others_go_on_recalling() {
    let (translated, first, left, second) = listed();
    let machine = &translated.machine;
    for (spi, cpu) in [(40, 0), (41, 1)] {
        let target = machine.gic.config().cpus[cpu].affinity;
        machine.write_gicd(gicd::irouter(IntId::new(spi)).unwrap(), Irouter::to(target));
        machine.enable_spi(spi);
        machine.gic.set_line(Line::Spi(spi), Level::High);
    }
    let recall = |spi: u32| {
        let at = gicd::ISACTIVER.locate(IntId::new(spi)).unwrap();
        machine.write_gicd(at.register(), at.mask());
        let at = gicd::ICACTIVER.locate(IntId::new(spi)).unwrap();
        machine.write_gicd(at.register(), at.mask());
    };
    let (first, left) = enter(first.exit(&left.registers));
    let (second, other) = enter(second);
    recall(40);
    recall(41);

    translated.run([sync(0)]);

    assert!(!translated.is_done());
    let (_first, _) = enter(first.exit(&left.registers));
    recall(40);
    assert!(!translated.is_done(), "the second vCPU has not exited");
    let (_second, _) = enter(second.exit(&other.registers));
    assert!(translated.is_done(), "both vCPUs have exited since the SYNC");
}

#[test]
fn a_listed_lpi_follows_its_command() {
    let cases: [(&[Command], bool); 7] = [
        (&[movi(1, 0, 1)], true),
        (&[movall(0, 1)], true),
        (&[discard(1, 0)], false),
        (&[discard(1, 0), mapti(0, 1)], false),
        (&[mapti(0, 1)], false),
        (&[clear(1, 0)], false),
        (&[unmapd(1)], false),
    ];
    for (commands, arrives) in cases {
        let (translated, inside, hardware, second) = listed();
        translated.run(commands.iter().copied().chain([sync(0)]));

        let (_first, old) = enter(inside.exit(&hardware.registers));

        let (_second, new) = enter(second);
        assert_eq!(old.registers.list[0].state(), Invalid, "{commands:?}");
        assert_eq!(new.registers.list[0].state() == Pending, arrives, "{commands:?}");
    }
}

#[test]
fn an_acknowledged_lpi_does_not_move() {
    for command in [movi(1, 0, 1), movall(0, 1)] {
        let (translated, inside, mut hardware, second) = listed();
        hardware.acknowledge(1);
        translated.run([command, sync(0)]);

        let _first = inside.exit(&hardware.registers);

        let (_second, new) = enter(second);
        assert_eq!(new.registers.list[0].state(), Invalid, "{command:?}");
    }
}

#[test]
fn a_moved_lpi_is_listed_once_at_a_time() {
    let (translated, inside, hardware, second) = listed();
    translated.run([movi(1, 0, 1)]);
    translated.send(0);

    let (second, new) = enter(second);
    assert_eq!(new.registers.list[0].state(), Invalid);
    let _first = inside.exit(&hardware.registers);

    assert_eq!(translated.machine.kicks.of(1), 1, "the LPI is now ready at the new vCPU");
    let (_second, new) = enter(second.exit(&new.registers));
    assert_eq!(new.registers.list[0].virtual_intid(), FIRST);
}

#[test]
fn a_listed_disabled_lpi_comes_back_enabled() {
    let (translated, inside, hardware, _) = listed();
    translated.configure(0, false);
    translated.run([inv(1, 0), sync(0)]);
    assert!(!translated.is_done());

    let (inside, hardware) = enter(inside.exit(&hardware.registers));
    assert_eq!(hardware.registers.list[0].state(), Invalid);

    translated.configure(0, true);
    translated.run([inv(1, 0), sync(0)]);
    let (_inside, hardware) = enter(inside.exit(&hardware.registers));
    assert_eq!(hardware.registers.list[0].state(), Pending);
}

#[test]
fn disabling_lpis_saves_listed_ones_to_the_table() {
    let (translated, inside, hardware, _) = listed();
    translated.machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new());
    let (inside, left) = enter(inside.exit(&hardware.registers));
    assert_eq!(left.registers.list[0].state(), Invalid);

    translated.machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true));

    let (_inside, hardware) = enter(inside.exit(&left.registers));
    assert_eq!(hardware.registers.list[0].virtual_intid(), FIRST);
}

/// Nothing reads `GICR_CTLR` here, because a read would finish the write as well.
#[test]
fn an_exit_saves_a_listed_lpi_of_disabled_ones() {
    for acknowledged in [false, true] {
        let (translated, inside, mut hardware, _) = listed();
        translated.machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new());
        if acknowledged {
            hardware.acknowledge(1);
        }
        assert!(!translated.is_saved(0), "the guest may still acknowledge the LPI");

        let _first = inside.exit(&hardware.registers);

        assert_eq!(translated.is_saved(0), !acknowledged);
    }
}

#[test]
fn commands_for_unlisted_lpis_wait_for_nobody() {
    let (translated, _inside, _hardware, _) = listed();
    translated.send(5);
    translated.run([movi(1, 5, 1), discard(1, 6), sync(0)]);
    assert!(translated.is_done());
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Send(u32),
    /// A message that reaches a vCPU in guest mode, which lists its LPI if possible.
    Arrive(u32, usize),
    Move(u32, u16),
    Clear(u32),
    MoveAll(u16, u16),
    MapCollection(u16, u16),
    Remap(u32, u16),
    Enable(u32, bool),
    Acknowledge(usize),
    End(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let event = || 0..Translated::EVENTS;
    let cpu = || 0..2usize;
    prop_oneof![
        6 => event().prop_map(Op::Send),
        6 => (event(), cpu()).prop_map(|(event, cpu)| Op::Arrive(event, cpu)),
        2 => (event(), 0..2u16).prop_map(|(event, cpu)| Op::Move(event, cpu)),
        1 => event().prop_map(Op::Clear),
        1 => (0..2u16).prop_map(|from| Op::MoveAll(from, 1 - from)),
        1 => (0..2u16, 0..2u16).prop_map(|(collection, cpu)| Op::MapCollection(collection, cpu)),
        1 => (event(), 0..2u16).prop_map(|(event, cpu)| Op::Remap(event, cpu)),
        1 => (event(), any::<bool>()).prop_map(|(event, enable)| Op::Enable(event, enable)),
        5 => cpu().prop_map(Op::Acknowledge),
        4 => cpu().prop_map(Op::End),
    ]
}

/// A test machine and its vCPUs.
struct Side {
    translated: Translated,
    halves: Vec<Half>,
    /// `true` if a vCPU was kicked.
    kicked: Arc<AtomicBool>,
    handled: [Vec<u64>; 2],
}

impl Side {
    fn new(lists: Option<(u8, ExitPolicy)>) -> Self {
        let mut translated = Translated::new(2);
        let vcpus = std::mem::take(&mut translated.machine.vcpus);
        let kicked = Arc::new(AtomicBool::new(false));
        let half = |vcpu| match lists {
            None => Half::Software(vcpu),
            Some((count, exits)) => Half::lists(vcpu, count, exits, kicked.clone()),
        };
        let halves = vcpus.into_iter().map(half).collect();
        Self { halves, kicked, translated, handled: [vec![], vec![]] }
    }

    /// Makes both vCPUs exit and reenter twice, as if they had been kicked. An exit may make an
    /// interrupt pending at the other vCPU.
    fn attend(&mut self) {
        for _ in 0..2 {
            for half in &mut self.halves {
                self.kicked.store(true, SeqCst);
                half.attend();
            }
        }
    }

    fn apply(&mut self, op: Op) -> u64 {
        self.attend();
        let answer = match op {
            Op::Send(event) => u64::from(self.translated.send(event) == Delivery::Pending),
            Op::Arrive(event, cpu) => {
                let is_listed = self.halves[cpu].list_message(DEVICE, Translated::message(event));
                u64::from(is_listed || self.translated.send(event) == Delivery::Pending)
            }
            Op::Move(event, collection) => self.run([movi(1, event, collection), sync(0)]),
            Op::Clear(event) => self.run([clear(1, event), sync(0)]),
            Op::MoveAll(from, to) => self.run([movall(from, to), sync(0)]),
            Op::MapCollection(collection, cpu) => self.run([mapc(collection, cpu), sync(0)]),
            Op::Remap(event, cpu) => self.run([discard(1, event), mapti(event, cpu), sync(0)]),
            Op::Enable(event, enable) => {
                self.translated.configure(event, enable);
                self.run([inv(1, event), sync(0)])
            }
            Op::Acknowledge(cpu) => {
                let intid = self.halves[cpu].read_sysreg(icc::IAR1.encoding()).unwrap();
                self.handled[cpu].extend(Some(intid).filter(|intid| *intid != 1023));
                intid
            }
            Op::End(cpu) => {
                let intid = self.handled[cpu].pop().unwrap_or(1023);
                self.halves[cpu].write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
                intid
            }
        };
        self.attend();
        assert!(self.translated.is_done(), "SYNC must complete after all vCPUs have exited");
        answer
    }

    fn run<const N: usize>(&self, commands: [Command; N]) -> u64 {
        self.translated.run(commands);
        0
    }

    /// Acknowledges and ends all pending interrupts of a vCPU. Returns their INTIDs in ascending
    /// order, because LPIs of equal priority are unordered.
    fn drain(&mut self, cpu: usize) -> Vec<u64> {
        while !self.handled[cpu].is_empty() {
            self.apply(Op::End(cpu));
        }
        let mut taken = Vec::new();
        loop {
            match self.apply(Op::Acknowledge(cpu)) {
                1023 => break,
                intid => taken.push(intid),
            }
            self.apply(Op::End(cpu));
        }
        taken.sort_unstable();
        taken
    }
}

impl Reference {
    /// Applies the operation. Returns `true` if the reference allows the model's answer.
    fn follow(&mut self, op: Op, answer: u64) -> bool {
        match op {
            Op::Send(event) | Op::Arrive(event, _) => self.message(event),
            Op::Move(event, collection) => self.movi(event, collection),
            Op::Clear(event) => self.clear(event),
            Op::MoveAll(from, to) => self.movall(from, to),
            Op::MapCollection(collection, cpu) => self.mapc(collection, cpu),
            Op::Remap(event, collection) => self.remap(event, collection),
            Op::Acknowledge(cpu) => {
                let event = u32::try_from(answer).unwrap().checked_sub(FIRST);
                return event.is_none_or(|event| self.acknowledge(cpu, event));
            }
            Op::Enable(..) | Op::End(_) => {}
        }
        true
    }
}

fn exits() -> impl Strategy<Value = ExitPolicy> {
    prop_oneof![Just(ExitPolicy::Always), Just(ExitPolicy::Needed)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn list_registers_take_the_same_lpis(
        count in 1u8..=16,
        exits in exits(),
        ops in proptest::collection::vec(ops(), 1..150),
    ) {
        let (mut software, mut lists) = (Side::new(None), Side::new(Some((count, exits))));
        for op in ops {
            prop_assert_eq!(software.apply(op), lists.apply(op), "{:?}", op);
        }
    }

    #[test]
    fn an_lpi_is_taken_as_often_as_it_is_pending(
        lists in prop::option::of((1u8..=16, exits())),
        ops in proptest::collection::vec(ops(), 1..150),
    ) {
        let (mut side, mut reference) = (Side::new(lists), Reference::new(Translated::EVENTS));
        for op in ops {
            // Skip configuration changes: for an event whose target is another CPU, the
            // architecture does not specify whether the configuration is reloaded.
            if !matches!(op, Op::Enable(..)) {
                let answer = side.apply(op);
                prop_assert!(reference.follow(op, answer), "{:?}: {} is not pending", op, answer);
            }
        }
        for cpu in 0..2 {
            let pending = reference.pending(cpu);
            let expected: Vec<_> = pending.iter().map(|event| u64::from(FIRST + event)).collect();
            prop_assert_eq!(side.drain(cpu), expected, "vCPU {}", cpu);
        }
    }
}
