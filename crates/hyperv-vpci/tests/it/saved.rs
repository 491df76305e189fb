//! Migrates a host's end while a request is in flight.

use crate::board::{OTHER, SLOT, function, host_config};
use crate::gic::Gic;
use crate::peer::{Peer, create};
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::host::{
    FunctionInterrupts, Host, Injection, RestoreError, SavedHost, SavedReply, Served,
};
use hyperv_vpci::protocol::reply::{InterruptReply, Status};
use hyperv_vpci::protocol::{Request, Version};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use std::num::NonZeroU8;
use std::sync::Arc;

type Restored = Result<(Host, Vec<Arc<FunctionInterrupts>>), RestoreError>;

fn restore(saved: &SavedHost, gic: &Arc<Gic>) -> Restored {
    let functions = [SLOT, OTHER].map(function);
    Host::restore(host_config(Version::V1_4), Injection::Spi(gic.clone()), &functions, saved)
}

#[test]
fn an_unsent_answer_is_sent_once_after_restore() {
    let rings = [0, 1].map(|_| HeapRing::new(NonZeroU8::new(1).unwrap()).unwrap());
    let [there, back] = rings;
    fn nobody() {}
    let nobody = nobody as fn();
    let mut peer = Peer::on(Version::V1_4);
    let mut near = RingChannel::new(there.clone(), back.clone(), nobody).unwrap();
    let mut far = RingChannel::new(back.clone(), there.clone(), nobody).unwrap();
    // One call serves 64 requests; the answer to the last one is not sent yet.
    let query = Peer::emit(&Request::QueryResources(SLOT));
    for id in 0..63 {
        near.send(PacketKind::Request(id), &query).unwrap();
    }
    near.send(PacketKind::Request(77), &Peer::emit(&create(SLOT, 64, 2))).unwrap();
    assert_eq!(peer.host.serve(&mut far), Ok(Served::More));
    let saved = peer.host.save();
    assert!(matches!(saved.reply, Some((77, SavedReply::Interrupt(2, _, 64)))));
    let at = far.indices();
    drop((peer, far));
    let gic = Arc::new(Gic::new(1020, 4));
    let (mut host, devices) = restore(&saved, &gic).unwrap();
    let mut far = RingChannel::restore(back, there, nobody, at).unwrap();
    let mut buffer = [0; 4096];
    let mut answers = Vec::new();
    for _ in 0..4 {
        while let Some(received) = near.receive(&mut buffer).unwrap() {
            if received.kind == PacketKind::Completion(77) {
                answers.push(InterruptReply::parse(&buffer[..received.length]).unwrap().unwrap());
            }
        }
        host.serve(&mut far).unwrap();
    }
    let [InterruptReply(answer)] = answers.as_slice() else { panic!("{answers:?}") };
    assert_eq!(devices[0].signal_msi(NoIdentity, answer.message), Delivery::Pending);
    assert!(gic.spi(64).pending);
}

fn state() -> SavedHost {
    let mut peer = Peer::on(Version::V1_4);
    for (slot, vector, count) in [(SLOT, 64, 4), (SLOT, 70, 1), (OTHER, 80, 2)] {
        assert_eq!(peer.ask(&create(slot, vector, count)), Ok(Status::SUCCESS));
    }
    peer.host.eject(OTHER).unwrap();
    peer.host.save()
}

#[test]
fn a_restored_host_saves_the_same_state() {
    let saved = state();
    let gic = Arc::new(Gic::new(1020, 4));
    let (host, devices) = restore(&saved, &gic).unwrap();
    assert_eq!(host.save(), saved);
    let message = MsiMessage { address: crate::board::ADDRESS, data: 67 };
    assert_eq!(devices[0].signal_msi(NoIdentity, message), Delivery::Pending);
    assert_eq!(devices[1].signal_msi(NoIdentity, message), Delivery::Blocked);
    let new = Peer::new(Version::V1_4).host.save();
    assert_eq!(restore(&new, &gic).unwrap().0.save(), new);
}

#[test]
fn inconsistent_saved_states_are_refused() {
    let gic = Arc::new(Gic::new(1020, 4));
    let refused = |change: &dyn Fn(&mut SavedHost)| {
        let mut saved = state();
        change(&mut saved);
        restore(&saved, &gic).expect_err("the state is refused")
    };
    assert_eq!(refused(&|saved| saved.format = 2), RestoreError::UnknownFormat(2));
    let version = refused(&|saved| saved.version = Some(0x2_0000));
    assert_eq!(version, RestoreError::UnknownVersion(0x2_0000));
    assert_eq!(refused(&|saved| saved.version = None), RestoreError::Inconsistent);
    assert_eq!(refused(&|saved| saved.window = None), RestoreError::Inconsistent);
    let assigned = refused(&|saved| saved.functions[0].is_assigned = false);
    assert_eq!(assigned, RestoreError::Inconsistent);
    let both = refused(&|saved| saved.functions[1].ejection_was_sent = true);
    assert_eq!(both, RestoreError::Inconsistent);
    let slot = refused(&|saved| saved.functions[1].slot = 0x100);
    assert_eq!(slot, RestoreError::NoFunction(0x100));
    let twice = refused(&|saved| saved.functions[1].slot = SLOT.to_wire());
    assert_eq!(twice, RestoreError::NoFunction(SLOT.to_wire()));
    let reply = refused(&|saved| saved.reply = Some((1, SavedReply::Assigned(0x100))));
    assert_eq!(reply, RestoreError::NoFunction(0x100));
    let changes: [fn(&mut SavedHost); 6] = [
        |saved| saved.functions[0].mappings[0].targets.clear(),
        |saved| saved.functions[0].mappings[0].targets.truncate(3),
        |saved| saved.functions[0].mappings[0].targets[1].0 = 99,
        |saved| saved.functions[0].mappings[0].targets[1].1 = 4,
        |saved| saved.functions[1].mappings[0].data = 66,
        |saved| saved.functions[0].mappings[0].targets = vec![(0, 0); 1 << 17],
    ];
    for change in changes {
        let error = refused(&change);
        assert!(matches!(error, RestoreError::BadMapping { .. }), "{error}");
    }
}
