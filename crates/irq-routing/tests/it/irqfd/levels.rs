//! Signals that are delivered as levels and end with the interrupt.

use super::rig::{LINE, Rig, count, event, line, message, nonblocking, signal, spi};
use crate::controller::Heard;
use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use irq_routing::{GsiSpace, Inputs, Router};
use msi_types::{Delivery, Level, Line, LineObserver, SetLine};
use std::sync::{Arc, OnceLock};

#[test]
fn an_eoi_lowers_the_line_and_signals_the_resample_eventfd() {
    let rig = Rig::new();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = rig.irqfds.bind_level(device.clone(), resample.clone(), LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [line(40, Level::High)]);
    assert_eq!(count(&resample), 0);

    rig.end(41);
    assert_eq!((rig.controller.heard(), count(&resample)), (vec![], 0));
    rig.end(40);

    assert_eq!((rig.controller.heard(), count(&resample)), (vec![line(40, Level::Low)], 1));
    rig.end(40);
    assert_eq!((rig.controller.heard(), count(&resample)), (vec![], 0));
}

#[test]
fn the_eoi_of_a_shared_line_resamples_all_devices() {
    let rig = Rig::new();
    let devices = [nonblocking(), nonblocking()];
    let resamples = [nonblocking(), nonblocking()];
    let bound = [0, 1]
        .map(|at| rig.irqfds.bind_level(devices[at].clone(), resamples[at].clone(), LINE).unwrap());
    for device in &devices {
        signal(device);
    }
    assert_eq!(rig.serve(), [line(40, Level::High); 2]);

    rig.end(40);

    assert_eq!(rig.controller.heard(), [line(40, Level::Low)]);
    assert_eq!(resamples.each_ref().map(|resample| count(resample)), [1, 1]);
    drop(bound);
    assert_eq!(rig.controller.heard(), []);
}

#[test]
fn unbinding_the_last_asserting_eventfd_lowers_the_line() {
    let rig = Rig::new();
    let devices = [nonblocking(), nonblocking()];
    let resample = nonblocking();
    let [one, other] = [0, 1]
        .map(|at| rig.irqfds.bind_level(devices[at].clone(), resample.clone(), LINE).unwrap());
    for device in &devices {
        signal(device);
    }
    rig.serve();

    drop(one);
    assert_eq!(rig.controller.heard(), []);
    drop(other);
    assert_eq!(rig.controller.heard(), [line(40, Level::Low)]);
}

#[test]
fn rerouting_a_level_irqfd_lowers_its_former_line() {
    let rig = Rig::new();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = rig.irqfds.bind_level(device.clone(), resample.clone(), LINE).unwrap();
    signal(&device);
    rig.serve();
    rig.route(LINE, spi(50));
    signal(&device);
    assert_eq!(rig.serve(), [line(40, Level::Low), line(50, Level::High)]);
    rig.route(LINE, message(3));
    signal(&device);
    let mut heard = rig.serve();
    heard.sort_by_key(|heard| matches!(heard, Heard::Line(..)));
    assert_eq!(heard, [event(3), line(50, Level::Low)]);
}

/// Interrupt controller that owns its observer. The observer's routes point back to the controller.
#[derive(Default)]
struct Observed(OnceLock<Arc<dyn LineObserver>>);

impl SetLine for Observed {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Pending
    }

    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Pending
    }
}

#[test]
fn an_irqfd_observer_does_not_keep_the_controller_alive() {
    let controller = Arc::new(Observed::default());
    let router = Router::new(GsiSpace::default(), Inputs::new(controller.clone())).unwrap();
    let irqfds = IrqfdSet::new(EventfdPoller::new().unwrap(), Arc::new(router));
    assert!(controller.0.set(irqfds.observer()).is_ok());
    let machine = Arc::downgrade(&controller);

    drop((controller, irqfds));

    assert!(machine.upgrade().is_none());
}
