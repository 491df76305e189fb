//! Tests of `inspect`, `diff` and `explain`.

use super::guest::{DEVICE, EVENTS, Guest, SPI};
use super::rules::set_icc;
use super::{of_kvm, of_model};
use crate::snapshot::diff::{StateDifference, differences};
use crate::snapshot::explain::{Question, answer};
use crate::snapshot::file::parse;
use crate::snapshot::inspect::{Counts, Summary};
use crate::snapshot::machine::Machine;
use gic_arch::{IntId, icc};
use msi_types::explain::Obstacle;
use msi_types::{Cpu, DeviceId, EventId, HwIrq};
use vgic_kvm::snapshot::KvmSnapshot;

fn obstacle(machine: &Machine, question: Question) -> Option<Obstacle> {
    answer(machine, question, false).unwrap().explanation.obstacle()
}

fn event(event: u32) -> Question {
    Question::Event(0, DEVICE, EventId::new(event))
}

#[test]
fn model_and_kvm_snapshots_have_the_same_summary() {
    let mut guest = Guest::new();
    (0..EVENTS - 1).for_each(|event| guest.send(event));
    for machine in [of_model(&guest.save()), of_kvm(&guest.kvm())] {
        let summary = Summary::of(&machine);
        let [first, second] = summary.cpus.as_slice() else { panic!("{summary:?}") };
        assert_eq!((first.vcpu, first.lpis_enabled, first.lpis_pending), (0, true, 2));
        assert_eq!((second.vcpu, second.lpis_enabled, second.lpis_pending), (1, true, 1));
        assert_eq!(first.private, Counts::default());
        let its = &summary.its[0];
        assert_eq!((its.devices, its.events, its.events_pending, its.collections), (1, 4, 3, 2));
    }
}

#[test]
fn a_difference_names_a_property_of_the_shape() {
    let state = Guest::new().save();
    let mut moved = state.clone();
    moved.shape[0].value = 0x900_0000;
    let (state, moved) = (of_model(&state), of_model(&moved));
    let [difference] = &differences(&state, &moved)[..] else { panic!("{state:?}") };
    assert_eq!(difference.object, "Distributor of 0x0");
    assert_eq!(difference.after.as_deref(), Some("0x9000000"));
}

#[test]
fn a_state_of_version_2_is_read() {
    let state = Guest::new().save();
    let mut old = serde_json::to_value(&state).unwrap();
    old["version"] = 2.into();
    old.as_object_mut().unwrap().remove("shape");
    let old = parse("old", &serde_json::to_vec(&old).unwrap()).unwrap();
    assert_eq!(differences(&old, &of_model(&state)), []);
}

#[test]
fn differences_name_objects_and_fields() {
    let mut guest = Guest::new();
    let before = of_model(&guest.save());
    guest.map_event(1, 8200, 0);
    guest.send(0);
    let after = of_model(&guest.save());
    let found = differences(&before, &after);
    let has = |object: &str, field: &'static str, before: &str, after: &str| {
        let (before, after) = (Some(before.to_owned()), Some(after.to_owned()));
        let wanted = StateDifference { object: object.to_owned(), field, before, after };
        assert!(found.contains(&wanted), "{wanted:?} is not in {found:#?}");
    };
    has("its@8080000, device 0x8 event 0x1", "INTID", "8193", "8200");
    has("its@8080000, device 0x8 event 0x1", "collection", "1", "0");
    has("its@8080000, device 0x8 event 0x0", "pending", "false", "true");
    has("its@8080000", "GITS_CWRITER", "0xe0", "0x100");
    has("its@8080000", "GITS_CREADR", "0xe0", "0x100");
    assert_eq!(found.len(), 5);
}

#[test]
fn explanations_find_the_obstacle_in_a_state() {
    let mut guest = Guest::new();
    guest.send(0);
    guest.configure(1, 0xa0);
    guest.send(1);
    let interrupt = HwIrq::new(8193);
    for machine in [of_model(&guest.save()), of_kvm(&guest.kvm())] {
        assert_eq!(obstacle(&machine, event(0)), None);
        assert_eq!(obstacle(&machine, event(1)), Some(Obstacle::Disabled { interrupt }));
        assert_eq!(obstacle(&machine, event(2)), None);
        let device = DeviceId::new(9);
        assert_eq!(
            obstacle(&machine, Question::Event(0, device, EventId::new(0))),
            Some(Obstacle::UnmappedDevice { device, mapped: 1 })
        );
        assert_eq!(
            obstacle(&machine, Question::Interrupt(1, IntId::new(8193))),
            Some(Obstacle::Disabled { interrupt })
        );
        assert!(answer(&machine, Question::Interrupt(2, IntId::new(8193)), false).is_err());
    }
}

#[test]
fn explanations_can_assume_a_pending_interrupt() {
    let assume = |machine: &Machine, question| {
        let answer = answer(machine, question, true).unwrap();
        (answer.assumed_pending, answer.explanation.obstacle())
    };
    let mut guest = Guest::new();
    guest.send(0);
    let spi = Question::Interrupt(0, IntId::new(SPI));
    for mut machine in [of_model(&guest.save()), of_kvm(&guest.kvm())] {
        assert_eq!(assume(&machine, event(0)), (false, None));
        for question in [event(1), Question::Interrupt(1, IntId::new(8193)), spi] {
            assert_eq!(assume(&machine, question), (true, None));
        }
        for cpu in &mut machine.state.cpus {
            cpu.interface.pmr = 0;
        }
        for (question, cpu, priority) in [(event(1), 1, 0xa0), (spi, 0, 0)] {
            let masked = Obstacle::PriorityMasked { priority, mask: 0, cpu: Cpu::new(cpu) };
            assert_eq!(assume(&machine, question), (true, Some(masked)));
        }
    }
}

/// A state in which interrupts do not arrive although each stage of the model lets them pass.
#[test]
fn explanations_state_the_findings_on_the_way() {
    let mut guest = Guest::new();
    (0..EVENTS).for_each(|event| guest.send(event));
    let whole = guest.kvm();
    let found = |snapshot: &KvmSnapshot, question| {
        let answer = answer(&of_kvm(snapshot), question, false).unwrap();
        let rules = answer.rows.iter().map(|row| row.rule.name).collect::<Vec<_>>();
        (answer.explanation.obstacle(), rules)
    };
    let lpi = Question::Interrupt(1, IntId::new(8193));
    assert_eq!(found(&whole, event(1)), (None, vec![]));
    let mut off = whole.clone();
    off.cpus[1].stopped = Some(true);
    let offline = Some(Obstacle::Offline { cpu: Cpu::new(1) });
    assert_eq!(found(&off, event(1)), (offline, vec!["idle-target"]));
    assert_eq!(found(&off, lpi), (offline, vec!["idle-target"]));
    assert_eq!(found(&off, event(0)), (None, vec![]), "the other vCPU runs");
    let mut stale = whole.clone();
    set_icc(&mut stale, icc::AP1R0.encoding(), 1 << 2);
    assert_eq!(found(&stale, event(1)).1, ["stale-active-priority"]);
    assert_eq!(found(&stale, event(0)), (None, vec![]), "the other vCPU has no such priority");
    let mut twice = Guest::new();
    twice.map_event(5, 8193, 1);
    for (event, rules) in [(event(5), &["intid-mapped-twice"][..]), (event(0), &[])] {
        assert_eq!(found(&twice.kvm(), event).1, rules);
    }
}
