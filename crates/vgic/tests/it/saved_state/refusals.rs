//! Tests that invalid states are refused, and that each error names the object at fault.

use super::board::{Board, ITS, config};
use super::corrupt::non_secure;
use super::round_trip::busy;
use doorbell_test_support::guest::{mapd, mapti};
use gic_arch::gicd::Irouter;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};
use vgic::Vcpu;
use vgic::saved_state::{
    CollectionState, DeviceState, EnabledLpis, EventState, InterfaceState, InterruptState,
    ItsState, LpiState, Object, Problem, RedistributorState, RestoreError, SaveError, SavedState,
    VERSION,
};

const CPU0: Affinity = Affinity::new(0, 0, 0, 1);
const STRANGER: Affinity = Affinity::new(9, 9, 9, 9);
const NARROW: DeviceId = DeviceId::new(5);

/// Returns the error of restoring a changed state of a busy machine. Checks that the machine was
/// reset.
fn refused(change: impl FnOnce(&mut SavedState)) -> RestoreError {
    refused_by(&mut Board::running(), &mut busy(), change)
}

/// Checks that a changed state of a busy machine is refused because of this object.
#[track_caller]
fn refuses(object: Object, problem: Problem, change: impl FnOnce(&mut SavedState)) {
    assert_eq!(refused(change), RestoreError { object, problem });
}

pub(super) fn refused_by(
    board: &mut Board,
    source: &mut Board,
    change: impl FnOnce(&mut SavedState),
) -> RestoreError {
    let mut saved = source.save();
    change(&mut saved);
    let refused = board.try_restore(&saved).unwrap_err();
    assert_eq!(board.save(), board.unused(), "{refused}");
    refused
}

fn spi(saved: &mut SavedState, intid: u32) -> &mut InterruptState {
    let intid = IntId::new(intid);
    saved.distributor.interrupts.iter_mut().find(|interrupt| interrupt.intid == intid).unwrap()
}

fn its(saved: &mut SavedState) -> &mut ItsState {
    &mut saved.its[0]
}

fn value(field: &'static str, value: u64) -> Problem {
    Problem::Value { field, value }
}

fn no_cpu(field: &'static str, cpu: Affinity) -> Problem {
    Problem::NoSuchCpu { field, cpu }
}

#[test]
fn a_state_of_another_version_is_refused() {
    for version in [1, VERSION + 1] {
        let problem = Problem::Version(version);
        refuses(Object::Machine, problem, |saved| saved.version = version);
    }
}

#[test]
fn missing_and_unknown_objects_are_named() {
    refuses(Object::Cpu(CPU0), Problem::Absent, |saved| drop(saved.cpus.remove(0)));
    refuses(Object::Cpu(STRANGER), Problem::Unknown, |saved| saved.cpus[2].affinity = STRANGER);
    refuses(Object::Its(ITS), Problem::Absent, |saved| saved.its.clear());
    refuses(Object::Its(0x1000), Problem::Unknown, |saved| its(saved).base = 0x1000);
    let (beyond, private) = (IntId::new(1000), IntId::new(4));
    refuses(Object::Shared(IntId::new(5000)), Problem::Unknown, |saved| {
        saved.distributor.interrupts.last_mut().unwrap().intid = IntId::new(5000);
    });
    refuses(Object::Shared(private), Problem::Unknown, |saved| {
        saved.distributor.interrupts[0].intid = private;
    });
    refuses(Object::Private { cpu: CPU0, intid: IntId::new(1100) }, Problem::Unknown, |saved| {
        saved.cpus[0].redistributor.interrupts.last_mut().unwrap().intid = IntId::new(1100);
    });
    refuses(Object::Lpi { cpu: CPU0, intid: beyond }, Problem::Unknown, |saved| {
        saved.cpus[0].redistributor.lpis = vec![LpiState::new(beyond)];
    });
}

#[test]
fn duplicate_and_misordered_objects_are_named() {
    let cpu = Affinity::new(0, 0, 3, 1);
    refuses(Object::Cpu(cpu), Problem::Order, |saved| saved.cpus.swap(1, 2));
    refuses(Object::Device { its: ITS, device: NARROW }, Problem::Order, |saved| {
        its(saved).devices.swap(0, 1);
    });
    refuses(
        Object::Event { its: ITS, device: NARROW, event: EventId::new(1) },
        Problem::Order,
        |saved| {
            let event = its(saved).devices[0].events[1];
            its(saved).devices[0].events.insert(1, event);
        },
    );
    refuses(
        Object::Collection { its: ITS, collection: CollectionId::new(2) },
        Problem::Order,
        |saved| {
            let collection = its(saved).collections[2];
            its(saved).collections.push(collection);
        },
    );
}

#[test]
fn refusing_an_impossible_spi_names_the_field() {
    let problem = |change: fn(&mut InterruptState)| {
        let refused = refused(|saved| change(spi(saved, 40)));
        assert_eq!(refused.object, Object::Shared(IntId::new(40)));
        refused.problem
    };
    assert_eq!(problem(|it| it.priority = 0x81), value("priority", 0x81));
    assert_eq!(problem(|it| it.route = 1 << 63), value("route", 1 << 63));
    assert_eq!(problem(|it| it.active_at = Some(STRANGER)), no_cpu("active CPU", STRANGER));
    assert_eq!(problem(|it| it.active = false), no_cpu("active CPU", CPU0));
    // The route names a single CPU.
    assert_eq!(problem(|it| it.chosen = Some(CPU0)), no_cpu("chosen CPU", CPU0));
    let chosen = problem(|it| {
        it.route = Irouter::new().with_any_participating(true).into_bits();
        it.chosen = Some(STRANGER);
    });
    assert_eq!(chosen, no_cpu("chosen CPU", STRANGER));
}

#[test]
fn refusing_an_impossible_private_interrupt_names_its_cpu() {
    let intid = IntId::new(3);
    let problem = |change: fn(&mut InterruptState)| {
        let refused = refused(|saved| {
            let mut interrupts = saved.cpus[0].redistributor.interrupts.iter_mut();
            change(interrupts.find(|interrupt| interrupt.intid == intid).unwrap());
        });
        assert_eq!(refused.object, Object::Private { cpu: CPU0, intid });
        refused.problem
    };
    assert_eq!(problem(|it| it.edge = false), value("trigger", 0));
    assert_eq!(problem(|it| it.line = true), value("line", 1));
    assert_eq!(problem(|it| it.message = true), value("message level", 1));
    assert_eq!(problem(|it| it.route = 1), value("route", 1));
    assert_eq!(
        problem(|it| (it.active, it.active_at) = (true, Some(Affinity::new(0, 0, 7, 1)))),
        no_cpu("active CPU", Affinity::new(0, 0, 7, 1))
    );
}

/// A field, the number that is refused, and a change that writes it.
type Change<T> = (&'static str, u64, fn(&mut T));

#[test]
fn invalid_register_values_are_named() {
    // Affinity routing is always on.
    refuses(Object::Distributor, value("GICD_CTLR", 0), |saved| saved.distributor.ctlr = 0);
    let redistributors: [Change<RedistributorState>; 4] = [
        ("GICR_WAKER", 4, |it| it.waker = 4),
        ("control register", 0xf, |it| it.ctlr |= 1 << 3),
        ("GICR_PROPBASER", 1 << 60, |it| it.propbaser = 1 << 60),
        ("GICR_PENDBASER", 1 << 63, |it| it.pendbaser = 1 << 63),
    ];
    for (field, number, change) in redistributors {
        refuses(Object::Redistributor(CPU0), value(field, number), |saved| {
            change(&mut saved.cpus[0].redistributor);
        });
    }
    let interfaces: [Change<InterfaceState>; 4] = [
        ("priority mask", 1, |it| it.pmr = 1),
        ("binary point of Group 0", 0, |it| it.bpr0 = 0),
        ("binary point of Group 1", 8, |it| it.bpr1 = 8),
        // Five priority bits need one register.
        ("active priorities", 1, |it| it.ap1r[1] = 1),
    ];
    for (field, number, change) in interfaces {
        refuses(Object::Interface(CPU0), value(field, number), |saved| {
            change(&mut saved.cpus[0].interface);
        });
    }
    let all_its: [Change<ItsState>; 5] = [
        ("GITS_CREADR", 1 << 32, |it| it.creadr = 1 << 32),
        // The offset must be less than the queue's size.
        ("GITS_CWRITER", 0x1_0000, |it| it.cwriter = 0x1_0000),
        ("GITS_CBASER", 0x1000, |it| it.cbaser = 0x1000),
        ("GITS_BASER", 1, |it| it.baser[3] = 1),
        ("GITS_CTLR", 4, |it| it.ctlr = 4),
    ];
    for (field, number, change) in all_its {
        refuses(Object::Its(ITS), value(field, number), |saved| change(its(saved)));
    }
    // The tables have mappings.
    for table in [0, 1] {
        let mut without = 0;
        let refused = refused(|saved| {
            its(saved).baser[table] &= !(1 << 63);
            without = its(saved).baser[table];
        });
        let (object, problem) = (Object::Its(ITS), value("GITS_BASER", without));
        assert_eq!(refused, RestoreError { object, problem });
    }
}

/// Returns the error of restoring a changed state of the Non-secure view.
fn refused_non_secure(change: impl FnOnce(&mut SavedState)) -> RestoreError {
    refused_by(&mut non_secure(), &mut non_secure(), change)
}

#[test]
fn secure_interface_state_is_refused() {
    let problem = |change: fn(&mut InterfaceState)| {
        let refused = refused_non_secure(|saved| change(&mut saved.cpus[0].interface));
        assert_eq!(refused.object, Object::Interface(CPU0));
        refused.problem
    };
    assert_eq!(problem(|interface| interface.igrpen0 = true), value("enable of Group 0", 1));
    assert_eq!(problem(|interface| interface.pmr = 0x10), value("priority mask", 0x10));
    assert_eq!(problem(|interface| interface.bpr0 = 4), value("binary point of Group 0", 4));
    // Six priority bits have two registers.
    assert_eq!(problem(|it| it.ap0r[1] = 1), value("active priorities of Group 0", 1));
    assert_eq!(problem(|interface| interface.ap1r[0] = 1), value("active priorities", 1));
}

#[test]
fn secure_interrupt_state_is_refused() {
    let problem = |intid: u32, change: fn(&mut InterruptState)| {
        let refused = refused_non_secure(|saved| change(spi(saved, intid)));
        assert_eq!(refused.object, Object::Shared(IntId::new(intid)));
        refused.problem
    };
    assert_eq!(problem(40, |it| it.group1 = false), value("group", 0));
    assert_eq!(problem(33, |it| it.group1 = true), value("group", 1));
    assert_eq!(problem(40, |it| it.priority = 0x40), value("priority", 0x40));
    assert!(matches!(problem(33, |it| it.enabled = true), Problem::Value { field: "state", .. }));
    let redistributor = |change: fn(&mut RedistributorState)| {
        refused_non_secure(|saved| change(&mut saved.cpus[0].redistributor)).problem
    };
    assert_eq!(redistributor(|state| state.waker = 6), value("GICR_WAKER", 6));
    assert_eq!(redistributor(|state| state.ctlr = 1 << 24), value("control register", 1 << 24));
    // The machine has no LPIs.
    assert_eq!(redistributor(|state| state.ctlr = 1), value("control register", 1));
}

#[test]
fn invalid_mappings_are_named() {
    let device = Object::Device { its: ITS, device: NARROW };
    let event = Object::Event { its: ITS, device: NARROW, event: EventId::new(0) };
    let devices: [(_, fn(&mut DeviceState)); 3] = [
        (value("number of EventID bits", 0), |it| it.event_bits = 0),
        (value("number of EventID bits", 17), |it| it.event_bits = 17),
        (value("translation table", 1), |it| it.itt = 1),
    ];
    for (problem, change) in devices {
        refuses(device, problem, |saved| change(&mut its(saved).devices[0]));
    }
    let wide = DeviceId::new(0x1_0000);
    refuses(Object::Device { its: ITS, device: wide }, value("DeviceID", 0x1_0000), |saved| {
        its(saved).devices[1].device = wide;
    });
    let last = EventId::new(8);
    refuses(
        Object::Event { its: ITS, device: NARROW, event: last },
        value("EventID", 8),
        |saved| its(saved).devices[0].events[2].event = last,
    );
    let place = |cpu| no_cpu("redistributor of a pending event", cpu);
    let events: [(_, fn(&mut EventState)); 3] = [
        (value("LPI", 8191), |it| it.intid = IntId::new(8191)),
        (value("LPI", 1 << 16), |it| it.intid = IntId::new(1 << 16)),
        // The collection is mapped.
        (place(CPU0), |it| it.stays_at = Some(CPU0)),
    ];
    for (problem, change) in events {
        refuses(event, problem, |saved| change(&mut its(saved).devices[0].events[0]));
    }
    let unmapped =
        Object::Event { its: ITS, device: DeviceId::new(0x1234), event: EventId::new(0) };
    refuses(unmapped, place(STRANGER), |saved| {
        its(saved).devices[1].events[0].stays_at = Some(STRANGER);
    });
    let collection = CollectionId::new(100);
    refuses(Object::Collection { its: ITS, collection }, no_cpu("target", STRANGER), |saved| {
        its(saved).collections.push(CollectionState::new(collection, STRANGER));
    });
}

/// Returns events that differ only in the EventID and the LPI.
fn row(first: u32, lpi: u32) -> Vec<EventState> {
    let event = |at| {
        let (event, intid) = (EventId::new(first + at), IntId::new(lpi + at));
        let mut state = EventState::new(event, intid, CollectionId::new(0));
        state.configuration = Some(0xa1);
        state
    };
    (0..4).map(event).collect()
}

#[test]
fn the_first_impossible_object_is_named() {
    let of = |event, problem| {
        let object = Object::Event { its: ITS, device: NARROW, event: EventId::new(event) };
        RestoreError { object, problem }
    };
    assert_eq!(
        refused(|saved| its(saved).devices[0].events = row(6, 8192)),
        of(8, value("EventID", 8))
    );
    assert_eq!(
        refused(|saved| its(saved).devices[0].events = row(0, (1 << 16) - 2)),
        of(2, value("LPI", 1 << 16))
    );
    let mut limited = config();
    limited.its[0].collection_id_bits = Some(4);
    let (mut board, mut source) = (Board::new(limited.clone()), Board::new(limited));
    source.start();
    source.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0)]);
    let beyond = refused_by(&mut board, &mut source, |saved| {
        its(saved).devices[0].events = row(0, 8192);
        its(saved).devices[0].events[1].collection = CollectionId::new(16);
        its(saved).devices[0].events[3].intid = IntId::new(1 << 16);
    });
    assert_eq!(beyond, of(1, value("collection", 16)));

    let earlier = refused(|saved| {
        its(saved).devices[0].events[0].intid = IntId::new(8191);
        its(saved).devices[1].itt = 1;
    });
    assert_eq!(earlier, of(0, value("LPI", 8191)));
}

#[test]
fn save_and_restore_report_a_running_vcpu() {
    let (mut board, mut other) = (Board::running(), Board::running());
    let saved = board.save();
    let _other: Vec<_> = other.vcpus.iter_mut().map(Vcpu::pause).collect();
    let gic = board.gic.clone();
    let (first, rest) = board.vcpus.split_first_mut().unwrap();
    let _rest: Vec<_> = rest.iter_mut().map(Vcpu::pause).collect();

    for _ in 0..2 {
        assert_eq!(gic.save(), Err(SaveError::Running(CPU0)));
        let running = RestoreError { object: Object::Cpu(CPU0), problem: Problem::Running };
        assert_eq!(gic.restore(&saved), Err(running));
        assert_eq!(gic.lose_power(), Err(running));

        let paused = first.pause();
        assert_eq!(gic.save().as_ref(), Ok(&saved));
        paused.resume();
    }
}

#[test]
fn a_restore_error_displays_its_object_and_problem() {
    let refused = refused(|saved| its(saved).devices[0].events[0].intid = IntId::new(8191));
    assert_eq!(
        refused.to_string(),
        "the saved state of its@8080000, device 0x5 event 0x0 cannot be restored: its LPI cannot \
         be 0x1fff"
    );
}

#[test]
fn invalid_ranges_of_direct_lpis_are_refused() {
    let mut board = super::direct_lpis::started();
    let saved = board.save();
    let range = |first, count| EnabledLpis::new(IntId::new(first), count, 0xa3);
    let mut problem = |ranges: &[EnabledLpis]| {
        let mut saved = saved.clone();
        saved.cpus[1].redistributor.enabled_lpis = ranges.to_vec();
        board.try_restore(&saved).map_err(|error| error.problem)
    };
    assert_eq!(problem(&[range(8192, 57_000), range(65_192, 344)]), Ok(()));
    for (first, count, second) in [
        (8191, 2, 9000),
        (8192, 0, 9000),
        (8192, 57_345, 9000),
        (8192, u32::MAX, 9000),
        (8195, 7, 8195),
        (8195, 7, 8201),
        (8195, 7, 65_536),
    ] {
        let wrong = if first == 8195 { second } else { first };
        let wrong = Err(value("range of enabled LPIs", wrong.into()));
        assert_eq!(problem(&[range(first, count), range(second, 1)]), wrong, "{first}, {count}");
    }
    let of_an_its =
        refused(|saved| saved.cpus[0].redistributor.enabled_lpis = vec![range(8192, 1)]);
    assert_eq!(of_an_its.problem, value("range of enabled LPIs", 8192));
}
