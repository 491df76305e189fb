//! Guest that behaves like OpenVMM's `vpci_client` of August 2026: it proposes only version 1.3,
//! never requests the list of functions, assigns resources with room for one interrupt, deletes
//! with a count of 0, never releases resources, and sleeps until it is signaled.

use crate::board::{ADDRESS, OTHER, Ring, SLOT, TestKernel, function, prepare};
use crate::gic::Gic;
use crate::tamper::Tamper;
use hyperv_vpci::channel::{Channel, Idle, PacketKind};
use hyperv_vpci::host::{FunctionInterrupts, Injection};
use hyperv_vpci::protocol::reply::Status;
use hyperv_vpci::protocol::{DeviceDescription, Notice, Slot, Version};
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Type numbers of messages: version, entry, requirements, assignment, creation, deletion, ejection
/// complete.
const VERSION: u32 = 0x4249_0013;
const D0_ENTRY: u32 = 0x4249_0007;
const REQUIREMENTS: u32 = 0x4249_0005;
const ASSIGNED: u32 = 0x4249_0010;
const CREATE2: u32 = 0x4249_0017;
const DELETE: u32 = 0x4249_0015;
const EJECTED: u32 = 0x4249_000f;

struct Client {
    ring: Ring,
    host: Arc<TestKernel>,
    sender: Arc<FunctionInterrupts>,
    completions: BTreeMap<u64, Vec<u8>>,
    functions: Vec<DeviceDescription>,
    ejecting: Vec<Slot>,
}

/// Builds a message of this type with these fields, padded to `length`.
fn message(kind: u32, length: usize, fields: &[&[u8]]) -> Vec<u8> {
    let mut message = [&kind.to_le_bytes()[..], &fields.concat()].concat();
    assert!(message.len() <= length);
    message.resize(length, 0);
    message
}

fn slot_field(slot: Slot) -> [u8; 4] {
    slot.to_wire().to_le_bytes()
}

impl Client {
    /// Receives all packets and re-arms the signal, as the reader of OpenVMM's ring does.
    fn drain(&mut self) {
        let mut buffer = [0; 8192];
        loop {
            while let Some(received) = self.ring.receive(&mut buffer).unwrap() {
                let payload = &buffer[..received.length];
                match received.kind {
                    PacketKind::Completion(id) => {
                        let before = self.completions.insert(id, payload.to_vec());
                        assert_eq!(before, None);
                    }
                    PacketKind::Notice => match Notice::parse(payload).unwrap() {
                        Notice::Relations(list) => self.functions = list.functions().collect(),
                        Notice::Eject(slot) => self.ejecting.push(slot),
                        other => panic!("the client does not know {other:?}"),
                    },
                    PacketKind::Request(id) => panic!("the host sent request {id}"),
                }
            }
            if self.ring.idle().unwrap() == Idle::Sleep {
                return;
            }
        }
    }

    /// Sends a request and sleeps until its completion arrives. Transaction IDs are reused.
    fn transact(&mut self, message: &[u8]) -> Vec<u8> {
        self.ring.send(PacketKind::Request(1), message).unwrap();
        loop {
            self.drain();
            if let Some(completion) = self.completions.remove(&1) {
                return completion;
            }
            assert!(self.host.signals.guest_sleeps(), "both the guest and the host sleep");
        }
    }

    fn succeed(&mut self, message: &[u8]) -> Vec<u8> {
        let completion = self.transact(message);
        assert_eq!(Status::parse(&completion), Ok(Status::SUCCESS));
        completion
    }

    fn connect() -> Self {
        let injection = Injection::Spi(Arc::new(Gic::new(1020, 4)));
        let (host, senders, ring) = prepare(Version::V1_4, injection, &Tamper::default());
        let sender = senders[0].clone();
        let (completions, functions, ejecting) = Default::default();
        let mut client = Self { ring, host, sender, completions, functions, ejecting };
        client.succeed(&message(VERSION, 8, &[&0x1_0003_u32.to_le_bytes()]));
        client.succeed(&message(D0_ENTRY, 16, &[&[0; 4], &0x4000_0000_u64.to_le_bytes()]));
        client
    }

    fn init(&mut self, slot: Slot) {
        self.succeed(&message(REQUIREMENTS, 8, &[&slot_field(slot)]));
        self.succeed(&message(ASSIGNED, 136 + 80, &[&slot_field(slot)]));
    }

    fn register(&mut self, slot: Slot, vector: u8, count: u8) -> MsiMessage {
        let interrupt = [vector, 0, count, 0, 1, 0, 2, 0];
        let completion = self.succeed(&message(CREATE2, 80, &[&slot_field(slot), &interrupt]));
        let data = u32::from_le_bytes(completion[12..16].try_into().unwrap());
        let address = u64::from_le_bytes(completion[16..24].try_into().unwrap());
        MsiMessage { address, data }
    }

    fn unregister(&mut self, slot: Slot, of: MsiMessage) -> Status {
        let (data, address) = (of.data.to_le_bytes(), of.address.to_le_bytes());
        let fields: [&[u8]; 4] = [&slot_field(slot), &[0; 4], &data, &address];
        Status::parse(&self.transact(&message(DELETE, 24, &fields))).unwrap()
    }
}

#[test]
fn the_host_lists_functions_to_a_client_that_never_asks() {
    let client = Client::connect();
    let expected = [SLOT, OTHER].map(|slot| function(slot).description);
    assert_eq!(client.functions, expected);
    assert_eq!(client.host.signals.waits_in_vain(), 0);
}

#[test]
fn an_openvmm_client_deletes_messages_without_stating_their_count() {
    let mut client = Client::connect();
    client.init(SLOT);
    // Requests more vectors in total than the quota of 64.
    for round in 0..40 {
        let one = client.register(SLOT, 64, 1);
        let group = client.register(SLOT, 72, 4);
        assert_eq!((one.address, one.data, group.data), (ADDRESS, 64, 72));
        let sender = client.sender.clone();
        assert_eq!(sender.signal_msi(NoIdentity, one), Delivery::Pending);
        for message in [one, group] {
            assert_eq!(client.unregister(SLOT, message), Status::SUCCESS, "round {round}");
            assert_eq!(client.unregister(SLOT, message), Status::BAD_DATA);
            assert_eq!(sender.signal_msi(NoIdentity, message), Delivery::Blocked);
        }
        let last = MsiMessage { data: 75, ..group };
        assert_eq!(sender.signal_msi(NoIdentity, last), Delivery::Blocked);
    }
    assert_eq!(client.host.side.lock().unwrap().host.vectors(SLOT), 0);
    assert_eq!(client.host.signals.waits_in_vain(), 0);
}

#[test]
fn a_sleeping_client_is_signaled_for_each_change() {
    let mut client = Client::connect();
    client.init(SLOT);
    for serial in 10..13 {
        client.host.change(|host| host.eject(SLOT).unwrap());
        assert!(client.host.signals.host_signaled());
        client.drain();
        assert_eq!(std::mem::take(&mut client.ejecting), [SLOT]);
        let completed = message(EJECTED, 8, &[&slot_field(SLOT)]);
        client.ring.send(PacketKind::Notice, &completed).unwrap();
        assert!(client.host.signals.host_signaled());
        client.drain();
        assert_eq!(client.functions, [function(OTHER).description]);
        let mut again = function(SLOT);
        again.description.serial = serial;
        client.sender = client.host.change(|host| host.offer(again).unwrap());
        assert!(client.host.signals.host_signaled());
        client.drain();
        assert_eq!(client.functions[0].serial, serial);
        client.init(SLOT);
        let one = client.register(SLOT, 64, 1);
        assert_eq!(client.sender.signal_msi(NoIdentity, one), Delivery::Pending);
    }
    assert_eq!(client.host.signals.waits_in_vain(), 0);
}
