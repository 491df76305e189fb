//! Signals that are delivered as edges.

use super::rig::{MESSAGE, NOW, Rig, count, event, message, nonblocking, signal};
use msi_types::Gsi;

#[test]
fn unserved_signals_merge_into_one_message() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    assert_eq!(rig.serve(), []);

    signal(&device);
    signal(&device);

    assert_eq!(rig.serve(), [event(1)]);
    signal(&device);
    assert_eq!(rig.serve(), [event(1)]);
    assert_eq!(rig.serve(), []);
}

#[test]
fn signal_without_a_route_is_lost() {
    let rig = Rig::new();
    let (device, other) = (nonblocking(), nonblocking());
    let _bound = [
        rig.irqfds.bind(device.clone(), Gsi::new(77)).unwrap(),
        rig.irqfds.bind(other.clone(), MESSAGE).unwrap(),
    ];
    signal(&device);
    signal(&other);
    assert_eq!(rig.serve(), [event(1)]);
    rig.route(Gsi::new(77), message(7));
    assert_eq!(rig.serve(), []);
}

#[test]
fn signals_after_unbind_stay_in_the_eventfd() {
    let rig = Rig::new();
    let device = nonblocking();
    let bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    drop(bound);
    signal(&device);
    assert_eq!(rig.serve(), []);
    assert_eq!(count(&device), 1);
}

#[test]
fn closing_the_peer_of_a_bound_socket_signals_nothing() {
    let rig = Rig::new();
    let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let _bound = rig.irqfds.bind(socket, MESSAGE).unwrap();
    drop(other);
    let served = [(); 3].map(|()| rig.poller.dispatch(NOW).unwrap());
    assert_eq!((served, rig.controller.heard()), ([0; 3], vec![]));
}
