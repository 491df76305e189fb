//! Tests with machines that have small limits on mappings.

use super::board::{Board, config};
use super::refusals::refused_by;
use doorbell_test_support::guest::{mapd, mapti};
use vgic::saved_state::{Object, Problem, RestoreError};

#[test]
fn a_state_beyond_the_budgets_is_refused() {
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
fn refused_states_leave_room_for_one_that_fits() {
    let map = |source: &mut Board, devices: std::ops::Range<u32>| {
        source.run(devices.clone().map(|device| mapd(device, 5, 0)));
        source.run(devices.map(|device| mapti(device, 0, 8191 + device, 0)));
    };
    let (mut small, mut large) = (Board::running(), Board::running());
    map(&mut small, 1..4);
    map(&mut large, 1..5);
    let config = config().with_its_events(128).with_its_devices(3);
    let mut target = Board::over(config, small.ram.clone());
    let fits = small.save();
    for _ in 0..3 {
        let refused = refused_by(&mut target, &mut large, |_| {});
        assert_eq!(refused.problem, Problem::NoRoom);
        target.restore(&fits);
        assert_eq!(target.save(), fits);
    }
}
