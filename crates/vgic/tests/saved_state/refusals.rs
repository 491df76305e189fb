//! Tests that invalid states are refused, and that each error names the object at fault.

use super::board::{Board, ITS, config};
use super::corrupt::non_secure;
use super::round_trip::busy;
use doorbell_test_support::guest::{mapd, mapti};
use gic_arch::gicd::Irouter;
use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};
use vgic::saved_state::{
    CollectionState, EnabledLpis, EventState, InterfaceState, InterruptState, ItsState, LpiState,
    Object, Problem, RedistributorState, RestoreError, SaveError, SavedState, VERSION,
};
use vgic::{SecurityView, Vcpu, VgicConfig};

const CPU0: Affinity = Affinity::new(0, 0, 0, 1);
const STRANGER: Affinity = Affinity::new(9, 9, 9, 9);
const NARROW: DeviceId = DeviceId::new(5);

/// Returns the error of restoring a changed state of a busy machine. Checks that the machine is
/// unchanged.
fn refused(change: impl FnOnce(&mut SavedState)) -> RestoreError {
    refused_by(&mut Board::running(), &mut busy(), change)
}

fn refused_by(
    board: &mut Board,
    source: &mut Board,
    change: impl FnOnce(&mut SavedState),
) -> RestoreError {
    let mut saved = source.save();
    change(&mut saved);
    let before = board.save();
    let refused = board.try_restore(&saved).unwrap_err();
    assert_eq!(board.save(), before, "{refused}");
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

#[test]
fn a_state_of_another_version_is_refused() {
    let refused = refused(|saved| saved.version = VERSION + 1);
    assert_eq!(
        refused,
        RestoreError { object: Object::Machine, problem: Problem::Version(VERSION + 1) }
    );
}

#[test]
fn another_machines_state_names_the_register() {
    let of = |change: fn(&mut VgicConfig)| {
        let mut other = config();
        change(&mut other);
        let refused = refused_by(&mut Board::new(other), &mut Board::new(config()), |_| {});
        match refused.problem {
            Problem::OtherMachine { register, .. } => (refused.object, register),
            problem => panic!("{problem}"),
        }
    };
    assert_eq!(of(|config| config.spis = 96), (Object::Distributor, "GICD_TYPER"));
    assert_eq!(
        of(|config| config.iidr = config.iidr.with_revision(3)),
        (Object::Distributor, "GICD_IIDR")
    );
    assert_eq!(
        of(|config| config.redistributor_invalidation = false),
        (Object::Redistributor(CPU0), "GICR_CTLR")
    );
    assert_eq!(
        of(|config| config.cpus[0].processor_number = 9),
        (Object::Redistributor(CPU0), "GICR_TYPER")
    );
    assert_eq!(of(|config| config.priority_bits = 7), (Object::Interface(CPU0), "ICC_CTLR_EL1"));
    assert_eq!(of(|config| config.its[0].device_id_bits = 20), (Object::Its(ITS), "GITS_TYPER"));
    assert_eq!(
        of(|config| config.its[0].iidr = gic_arch::Iidr::new()),
        (Object::Its(ITS), "GITS_IIDR")
    );
    assert_eq!(
        of(|config| config.security = SecurityView::NonSecure),
        (Object::Distributor, "GICD_TYPER")
    );
}

#[test]
fn missing_and_unknown_objects_are_named() {
    assert_eq!(
        refused(|saved| drop(saved.cpus.remove(0))),
        RestoreError { object: Object::Cpu(CPU0), problem: Problem::Absent }
    );
    assert_eq!(
        refused(|saved| saved.cpus[2].affinity = STRANGER),
        RestoreError { object: Object::Cpu(STRANGER), problem: Problem::Unknown }
    );
    assert_eq!(
        refused(|saved| saved.its.clear()),
        RestoreError { object: Object::Its(ITS), problem: Problem::Absent }
    );
    assert_eq!(
        refused(|saved| its(saved).base = 0x1000),
        RestoreError { object: Object::Its(0x1000), problem: Problem::Unknown }
    );
    let (beyond, private) = (IntId::new(1000), IntId::new(4));
    assert_eq!(
        refused(|saved| saved.distributor.interrupts.last_mut().unwrap().intid = IntId::new(5000)),
        RestoreError { object: Object::Shared(IntId::new(5000)), problem: Problem::Unknown }
    );
    assert_eq!(
        refused(|saved| saved.distributor.interrupts[0].intid = private),
        RestoreError { object: Object::Shared(private), problem: Problem::Unknown }
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].redistributor.interrupts.last_mut().unwrap().intid =
            IntId::new(1100)),
        RestoreError {
            object: Object::Private { cpu: CPU0, intid: IntId::new(1100) },
            problem: Problem::Unknown
        }
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].redistributor.lpis = vec![LpiState::new(beyond)]),
        RestoreError {
            object: Object::Lpi { cpu: CPU0, intid: beyond },
            problem: Problem::Unknown
        }
    );
}

#[test]
fn what_is_there_twice_or_out_of_order_is_named() {
    let cpu = Affinity::new(0, 0, 3, 1);
    assert_eq!(
        refused(|saved| saved.cpus.swap(1, 2)),
        RestoreError { object: Object::Cpu(cpu), problem: Problem::Order }
    );
    assert_eq!(
        refused(|saved| its(saved).devices.swap(0, 1)),
        RestoreError {
            object: Object::Device { its: ITS, device: NARROW },
            problem: Problem::Order
        }
    );
    assert_eq!(
        refused(|saved| {
            let event = its(saved).devices[0].events[1];
            its(saved).devices[0].events.insert(1, event);
        }),
        RestoreError {
            object: Object::Event { its: ITS, device: NARROW, event: EventId::new(1) },
            problem: Problem::Order
        }
    );
    assert_eq!(
        refused(|saved| {
            let collection = its(saved).collections[2];
            its(saved).collections.push(collection);
        }),
        RestoreError {
            object: Object::Collection { its: ITS, collection: CollectionId::new(2) },
            problem: Problem::Order
        }
    );
}

#[test]
fn an_impossible_interrupt_names_the_field() {
    let problem = |change: fn(&mut InterruptState)| {
        let refused = refused(|saved| change(spi(saved, 40)));
        assert_eq!(refused.object, Object::Shared(IntId::new(40)));
        refused.problem
    };
    assert_eq!(problem(|it| it.priority = 0x81), value("priority", 0x81));
    assert_eq!(problem(|it| it.route = 1 << 63), value("route", 1 << 63));
    assert_eq!(
        problem(|it| it.active_at = Some(STRANGER)),
        Problem::NoSuchCpu { field: "active CPU", cpu: STRANGER }
    );
    assert_eq!(
        problem(|it| it.active = false),
        Problem::NoSuchCpu { field: "active CPU", cpu: CPU0 }
    );
    assert_eq!(
        problem(|it| it.chosen = Some(CPU0)),
        Problem::NoSuchCpu { field: "chosen CPU", cpu: CPU0 },
        "the route names a single CPU"
    );
    assert_eq!(
        problem(|it| {
            it.route = Irouter::new().with_any_participating(true).into_bits();
            it.chosen = Some(STRANGER);
        }),
        Problem::NoSuchCpu { field: "chosen CPU", cpu: STRANGER }
    );
}

#[test]
fn an_impossible_ppi_names_its_cpu() {
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
    let other = Affinity::new(0, 0, 7, 1);
    assert_eq!(
        problem(|it| (it.active, it.active_at) = (true, Some(Affinity::new(0, 0, 7, 1)))),
        Problem::NoSuchCpu { field: "active CPU", cpu: other }
    );
}

#[test]
fn registers_that_cannot_be_so_are_named() {
    let of = |object, field, number| RestoreError { object, problem: value(field, number) };
    let redistributor = Object::Redistributor(CPU0);
    let interface = Object::Interface(CPU0);
    assert_eq!(
        refused(|saved| saved.distributor.ctlr = 0),
        of(Object::Distributor, "GICD_CTLR", 0),
        "affinity routing is always on"
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].redistributor.waker = 4),
        of(redistributor, "GICR_WAKER", 4)
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].redistributor.ctlr |= 1 << 3),
        of(redistributor, "control register", 0xf)
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].redistributor.propbaser = 1 << 60),
        of(redistributor, "GICR_PROPBASER", 1 << 60)
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].redistributor.pendbaser = 1 << 63),
        of(redistributor, "GICR_PENDBASER", 1 << 63)
    );
    assert_eq!(refused(|saved| saved.cpus[0].interface.pmr = 1), of(interface, "priority mask", 1));
    assert_eq!(
        refused(|saved| saved.cpus[0].interface.bpr0 = 0),
        of(interface, "binary point of Group 0", 0)
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].interface.bpr1 = 8),
        of(interface, "binary point of Group 1", 8)
    );
    assert_eq!(
        refused(|saved| saved.cpus[0].interface.ap1r[1] = 1),
        of(interface, "active priorities", 1),
        "five priority bits need one register"
    );
    assert_eq!(
        refused(|saved| its(saved).creadr = 1 << 32),
        of(Object::Its(ITS), "GITS_CREADR", 1 << 32)
    );
    assert_eq!(
        refused(|saved| its(saved).cwriter = 0x1_0000),
        of(Object::Its(ITS), "GITS_CWRITER", 0x1_0000),
        "the offset must be less than the queue's size"
    );
    assert_eq!(
        refused(|saved| its(saved).cbaser = 0x1000),
        of(Object::Its(ITS), "GITS_CBASER", 0x1000)
    );
    assert_eq!(refused(|saved| its(saved).baser[3] = 1), of(Object::Its(ITS), "GITS_BASER", 1));
    assert_eq!(refused(|saved| its(saved).ctlr = 4), of(Object::Its(ITS), "GITS_CTLR", 4));
    for table in [0, 1] {
        let mut without = 0;
        let refused = refused(|saved| {
            its(saved).baser[table] &= !(1 << 63);
            without = its(saved).baser[table];
        });
        assert_eq!(refused, of(Object::Its(ITS), "GITS_BASER", without), "the table has mappings");
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
    assert_eq!(
        problem(|interface| interface.ap0r[1] = 1),
        value("active priorities of Group 0", 1),
        "six priority bits have two registers"
    );
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
    assert_eq!(
        redistributor(|state| state.ctlr = 1),
        value("control register", 1),
        "the machine has no LPIs"
    );
}

#[test]
fn mappings_that_cannot_be_so_are_named() {
    let device = Object::Device { its: ITS, device: NARROW };
    let event = Object::Event { its: ITS, device: NARROW, event: EventId::new(0) };
    let of = |object, problem| RestoreError { object, problem };
    assert_eq!(
        refused(|saved| its(saved).devices[0].event_bits = 0),
        of(device, value("number of EventID bits", 0))
    );
    assert_eq!(
        refused(|saved| its(saved).devices[0].event_bits = 17),
        of(device, value("number of EventID bits", 17))
    );
    assert_eq!(
        refused(|saved| its(saved).devices[0].itt = 1),
        of(device, value("translation table", 1))
    );
    let wide = DeviceId::new(0x1_0000);
    assert_eq!(
        refused(|saved| its(saved).devices[1].device = wide),
        of(Object::Device { its: ITS, device: wide }, value("DeviceID", 0x1_0000))
    );
    let last = EventId::new(8);
    assert_eq!(
        refused(|saved| its(saved).devices[0].events[2].event = last),
        of(Object::Event { its: ITS, device: NARROW, event: last }, value("EventID", 8))
    );
    assert_eq!(
        refused(|saved| its(saved).devices[0].events[0].intid = IntId::new(8191)),
        of(event, value("LPI", 8191))
    );
    assert_eq!(
        refused(|saved| its(saved).devices[0].events[0].intid = IntId::new(1 << 16)),
        of(event, value("LPI", 1 << 16))
    );
    let place = |cpu| Problem::NoSuchCpu { field: "redistributor of a pending event", cpu };
    assert_eq!(
        refused(|saved| its(saved).devices[0].events[0].stays_at = Some(CPU0)),
        of(event, place(CPU0)),
        "the collection is mapped"
    );
    let unmapped =
        Object::Event { its: ITS, device: DeviceId::new(0x1234), event: EventId::new(0) };
    assert_eq!(
        refused(|saved| its(saved).devices[1].events[0].stays_at = Some(STRANGER)),
        of(unmapped, place(STRANGER))
    );
    let collection = CollectionId::new(100);
    assert_eq!(
        refused(|saved| its(saved).collections.push(CollectionState::new(collection, STRANGER))),
        of(
            Object::Collection { its: ITS, collection },
            Problem::NoSuchCpu { field: "target", cpu: STRANGER }
        )
    );
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
fn a_collection_beyond_the_limit_is_refused() {
    let mut limited = config();
    limited.its[0].collection_id_bits = Some(3);
    let beyond = CollectionId::new(8);
    let refused = |change: &dyn Fn(&mut ItsState)| {
        let mut board = Board::new(limited.clone());
        board.start();
        board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0)]);
        refused_by(&mut Board::new(limited.clone()), &mut board, |saved| change(its(saved)))
    };

    let mapped = CollectionState::new(beyond, CPU0);
    assert_eq!(
        refused(&|its| its.collections.push(mapped)),
        RestoreError {
            object: Object::Collection { its: ITS, collection: beyond },
            problem: value("collection", 8)
        }
    );
    assert_eq!(
        refused(&|its| its.devices[0].events[0].collection = beyond).problem,
        value("collection", 8)
    );
}

#[test]
fn what_does_not_fit_into_the_budgets_is_refused() {
    let small = |its_events, its_devices| {
        config().with_its_events(its_events).with_its_devices(its_devices)
    };
    let mut source = Board::running();
    source.run([mapd(1, 5, 0), mapd(2, 5, 0), mapd(3, 1, 0)]);
    source.run([mapti(1, 0, 8192, 0), mapti(2, 0, 8193, 0), mapti(3, 0, 8194, 0)]);
    let no_room = RestoreError { object: Object::Machine, problem: Problem::NoRoom };

    assert_eq!(refused_by(&mut Board::new(small(64, 16)), &mut source, |_| {}), no_room);
    assert_eq!(refused_by(&mut Board::new(small(128, 2)), &mut source, |_| {}), no_room);
    Board::over(small(128, 3), source.ram.clone()).restore(&source.save());
}

#[test]
fn used_slots_take_a_state_that_needs_all() {
    let mut source = Board::new(config().with_its_events(128));
    source.start();
    source.run((1..5).map(|device| mapd(device, 5, 0)));
    source.run((1..5).map(|device| mapti(device, 0, 8191 + device, 0)));
    let saved = source.save();

    source.restore(&saved);
    source.restore(&saved);

    assert_eq!(source.save(), saved);
}

#[test]
fn a_running_vcpu_is_named() {
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
fn an_error_says_what_is_wrong_with_which_object() {
    let refused = refused(|saved| its(saved).devices[0].events[0].intid = IntId::new(8191));
    assert_eq!(
        refused.to_string(),
        "the saved state of its@8080000, device 0x5 event 0x0 cannot be restored: its LPI cannot \
         be 0x1fff"
    );
}

#[test]
fn ranges_of_direct_lpis_that_cannot_be_so_are_refused() {
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
