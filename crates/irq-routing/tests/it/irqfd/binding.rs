//! Conditions under which eventfds can be bound.

use super::rig::{LINE, MESSAGE, Rig, event, eventfd_with, nonblocking, signal};
use crate::controller::Heard;
use irq_routing::irqfd::IrqfdError;
use msi_types::Line;
use rustix::event::EventfdFlags;
use std::sync::Arc;

#[test]
fn binding_a_blocking_irqfd_eventfd_is_refused() {
    let rig = Rig::new();
    let refused = rig.irqfds.bind(eventfd_with(EventfdFlags::empty()), MESSAGE).unwrap_err();
    assert!(matches!(refused, IrqfdError::Blocking));
}

/// The device can fill the counter of a blocking eventfd, which would then block the vCPU that ends
/// an interrupt.
#[test]
fn a_resample_eventfd_that_blocks_is_refused() {
    let rig = Rig::new();
    let resample = eventfd_with(EventfdFlags::empty());
    let refused = rig.irqfds.bind_level(nonblocking(), resample, LINE).unwrap_err();
    assert!(matches!(refused, IrqfdError::Blocking));
}

/// `KVM_IRQFD` returns EBUSY if the eventfd is already bound.
#[test]
fn binding_a_bound_eventfd_or_its_duplicate_is_refused() {
    let rig = Rig::new();
    let (device, other) = (nonblocking(), nonblocking());
    let duplicate = Arc::new(device.try_clone().unwrap());
    let bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    for again in [&device, &duplicate] {
        let refused = rig.irqfds.bind(again.clone(), LINE);
        assert!(matches!(refused, Err(IrqfdError::AlreadyBound)), "{refused:?}");
        let refused = rig.irqfds.bind_level(again.clone(), other.clone(), LINE);
        assert!(matches!(refused, Err(IrqfdError::AlreadyBound)), "{refused:?}");
    }
    let _other = rig.irqfds.bind(other.clone(), LINE).unwrap();
    signal(&duplicate);
    assert_eq!(rig.serve(), [event(1)]);

    drop(bound);

    let _again = rig.irqfds.bind(duplicate.clone(), LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [Heard::Pulse(Line::Spi(40))]);
}

#[test]
fn binding_a_file_that_is_not_pollable_is_refused() {
    let rig = Rig::new();
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert!(matches!(rig.irqfds.bind(file, MESSAGE), Err(IrqfdError::System(_))));
}
