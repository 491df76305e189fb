//! A guest that can send arbitrary messages to its host.

use crate::board::{OTHER, Ring, SLOT, channel, function, host_config};
use crate::gic::Gic;
use doorbell_test_support::with_allocations;
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::host::{Host, HostError, Injection, Served};
use hyperv_vpci::protocol::reply::Status;
use hyperv_vpci::protocol::{
    AssignedResources, Delivery, InterruptDescriptor, InterruptForm, Processors, Request,
    ResourcesForm, Slot, Version,
};
use std::sync::Arc;

pub(crate) struct Peer {
    pub(crate) host: Host,
    pub(crate) near: Ring,
    pub(crate) far: Ring,
    pub(crate) next: u64,
}

impl Peer {
    pub(crate) fn new(highest: Version) -> Self {
        let (near, far) = channel();
        let gic = Arc::new(Gic::new(1020, 4));
        let mut host = Host::new(host_config(highest), Injection::Spi(gic)).unwrap();
        host.offer(function(SLOT)).unwrap();
        host.offer(function(OTHER)).unwrap();
        Self { host, near, far, next: 1 }
    }

    /// Creates a bus that is on and whose two functions have their resources.
    pub(crate) fn on(version: Version) -> Self {
        let mut peer = Self::new(version);
        for request in [
            Request::QueryVersion(version.to_wire()),
            Request::D0Entry { window: 0x1000_0000 },
            Request::AssignResources(AssignedResources::new(SLOT, ResourcesForm::V1)),
            Request::AssignResources(AssignedResources::new(OTHER, ResourcesForm::V1)),
        ] {
            assert_eq!(peer.ask(&request), Ok(Status::SUCCESS));
        }
        peer
    }

    pub(crate) fn send(&mut self, message: &[u8]) -> u64 {
        self.next += 1;
        self.near.send(PacketKind::Request(self.next), message).expect("the ring has room");
        self.next
    }

    pub(crate) fn emit(request: &Request) -> Vec<u8> {
        let mut out = [0; 256];
        let length = request.emit(&mut out).unwrap();
        out[..length].to_vec()
    }

    /// Sends a message and returns its completion.
    pub(crate) fn exchange(&mut self, message: &[u8]) -> Result<Vec<u8>, HostError> {
        let id = self.send(message);
        let mut buffer = [0; 8192];
        let mut answers = Vec::new();
        let mut served = Served::More;
        while served != Served::All {
            served = self.host.serve(&mut self.far)?;
            while let Some(received) = self.near.receive(&mut buffer).unwrap() {
                if let PacketKind::Completion(of) = received.kind {
                    assert_eq!(of, id);
                    answers.push(buffer[..received.length].to_vec());
                }
            }
        }
        assert_eq!(answers.len(), 1, "each request is answered once");
        Ok(answers.remove(0))
    }

    /// Receives all packets, and returns their types, or 0 for a completion.
    pub(crate) fn packets(&mut self) -> Vec<u32> {
        let (mut buffer, mut packets) = ([0; 256], Vec::new());
        while let Some(received) = self.near.receive(&mut buffer).unwrap() {
            let completes = matches!(received.kind, PacketKind::Completion(_));
            packets.push(if completes { 0 } else { u32::from(buffer[0]) });
        }
        packets
    }

    /// Returns the answer of a host that can make this number of allocations.
    pub(crate) fn ask_with_allocations(&mut self, allocations: u32, request: &Request) -> Status {
        self.send(&Self::emit(request));
        let served = with_allocations(allocations, || self.host.serve(&mut self.far));
        assert_eq!(served, Ok(Served::All));
        let mut buffer = [0; 64];
        let received = self.near.receive(&mut buffer).unwrap().expect("the host answers");
        Status::parse(&buffer[..received.length]).expect("an answer has a status")
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Result<Status, HostError> {
        let answer = self.exchange(&Self::emit(request))?;
        Ok(Status::parse(&answer).expect("an answer has a status"))
    }
}

pub(crate) fn create(slot: Slot, vector: u32, count: u16) -> Request {
    let processors = Processors::one(1);
    let interrupt = InterruptDescriptor { vector, delivery: Delivery::Fixed, count, processors };
    Request::CreateInterrupt { slot, form: InterruptForm::V3, interrupt }
}
