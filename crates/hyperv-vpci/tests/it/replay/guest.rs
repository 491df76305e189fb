//! Replays packets recorded from foreign hosts to the guest's end.

use super::{Line, Ring, Section, Signal, channel, rounded, section, sections};
use crate::apic::Matrix;
use crate::board::{BUS, INSTANCE, SLOT, impl_task_context};
use crate::gic::Gic;
use hyperv_vpci::channel::{Channel, Idle, PacketKind};
use hyperv_vpci::guest::{
    ApicVectors, Bus, BusConfig, BusEvent, Faults, Hypercall, Kernel, SpiDomain, Vectors, Wait,
};
use hyperv_vpci::protocol::RetargetInput;
use msi_types::{BlockRequest, Cpu, MsiMessage, MsiParent, Shape};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// Host that replays the recorded answers.
struct Peer {
    far: Ring,
    lines: Vec<Line>,
    to_host: Signal,
    /// `true` if the guest must send its packets in the recorded order, with the recorded kinds and
    /// IDs.
    is_exact: bool,
}

/// Returns the type of a message.
fn kind_of(bytes: &[u8]) -> &[u8] {
    &bytes[..4]
}

impl Peer {
    /// Receives and answers the guest's packets if the guest has signaled.
    fn answer(&mut self) {
        let mut buffer = [0; 512];
        while let Some(received) = self.far.receive(&mut buffer).unwrap() {
            self.answer_one(received.kind, &buffer[..received.length]);
        }
        let _ = self.far.idle();
    }

    fn answer_one(&mut self, kind: PacketKind, sent: &[u8]) {
        let is_recorded =
            |line: &Line| matches!(line, Line::Guest(_, bytes) if kind_of(bytes) == kind_of(sent));
        let found = self.lines.iter().position(is_recorded);
        let index = found.unwrap_or_else(|| panic!("not recorded: {kind:?} {sent:02x?}"));
        let Line::Guest(recorded, bytes) = self.lines.remove(index) else { unreachable!() };
        if self.is_exact {
            assert_eq!((index, kind), (0, recorded), "the order of {sent:02x?}");
        }
        assert_eq!(sent, rounded(&bytes));
        while let Some(Line::Host(..)) = self.lines.get(index) {
            let Line::Host(answer, bytes) = self.lines.remove(index) else { unreachable!() };
            let answer = match (answer, kind) {
                (PacketKind::Completion(_), PacketKind::Request(id)) => PacketKind::Completion(id),
                (answer, _) => answer,
            };
            self.far.send(answer, &bytes).unwrap();
        }
        // Linux does not request an answer to a deletion.
        if let (PacketKind::Notice, PacketKind::Request(id)) = (recorded, kind) {
            self.far.send(PacketKind::Completion(id), &[0; 8]).unwrap();
        }
    }
}

/// Kernel with one task, which sleeps until it is signaled.
struct Sleeper {
    peer: Mutex<Peer>,
    to_guest: Signal,
    wake_ups: AtomicU32,
    in_vain: AtomicU32,
}

impl Sleeper {
    /// Lets the host run. Returns `true` if the host signaled.
    fn is_signaled(&self) -> bool {
        let mut peer = self.peer.lock().unwrap();
        if peer.to_host.take() {
            peer.answer();
        }
        let is_signaled = self.to_guest.take();
        self.wake_ups.fetch_add(u32::from(is_signaled), SeqCst);
        is_signaled
    }

    /// Sends the notice of the next recorded call.
    fn send_next(&self) {
        let mut peer = self.peer.lock().unwrap();
        assert!(matches!(peer.lines.remove(0), Line::Call(_)));
        let Line::Host(kind, bytes) = peer.lines.remove(0) else { panic!("no notice") };
        peer.far.send(kind, &bytes).unwrap();
    }

    fn is_over(&self) -> bool {
        self.is_signaled();
        self.peer.lock().unwrap().lines.is_empty()
    }
}

impl_task_context!(Sleeper);

impl Kernel for Sleeper {
    fn wake_ups(&self) -> u32 {
        self.wake_ups.load(SeqCst)
    }
    fn wake(&self) {
        self.wake_ups.fetch_add(1, SeqCst);
    }
    fn wait(&self, seen: u32, _: u32) -> Wait {
        if self.wake_ups() != seen || self.is_signaled() {
            return Wait::Again;
        }
        self.in_vain.fetch_add(1, SeqCst);
        Wait::GiveUp
    }
    fn processor(&self, cpu: Cpu) -> Option<u16> {
        u16::try_from(cpu.get()).ok()
    }
}

fn sleeper(section: Section, is_exact: bool) -> (Arc<Sleeper>, Ring) {
    let ([near, far], [to_guest, to_host]) = channel();
    let peer = Peer { far, lines: section.lines, to_host, is_exact };
    let (wake_ups, in_vain) = Default::default();
    (Arc::new(Sleeper { peer: Mutex::new(peer), to_guest, wake_ups, in_vain }), near)
}

fn request(count: u16, cpu: u32) -> BlockRequest {
    let shape = if count > 1 { Shape::AlignedGroup } else { Shape::Independent };
    crate::board::request(count, shape).with_cpu(Cpu::new(cpu))
}

fn open(kernel: &Arc<Sleeper>, near: Ring, vectors: Vectors) -> Bus {
    let config = BusConfig::new(0x1000_0000, BUS, 64);
    let bus = Bus::open(config, Box::new(near), vectors, kernel.clone()).unwrap();
    assert_eq!(bus.next_event(), Some(BusEvent::Arrived(SLOT)));
    bus
}

fn spis(kernel: &Arc<Sleeper>) -> (Arc<Gic>, Vectors) {
    let gic = Arc::new(Gic::new(1020, 4));
    let domain = SpiDomain::new(gic.clone(), kernel.clone()).unwrap();
    (gic, Vectors::Spis(Arc::new(domain)))
}

fn finish(bus: &Bus, kernel: &Sleeper) {
    bus.close().unwrap();
    assert!(kernel.is_over(), "{:x?}", kernel.peer.lock().unwrap().lines);
    assert_eq!(kernel.in_vain.load(SeqCst), 0, "a wait was not ended by a signal");
    assert_eq!(bus.faults(), Faults::default());
}

#[test]
fn the_guest_replays_a_recorded_openvmm_host_session() {
    let text = include_str!("data/openvmm-host.txt");
    let (kernel, near) = sleeper(section(text, "whole"), true);
    let (gic, vectors) = spis(&kernel);
    let bus = open(&kernel, near, vectors);
    let device = bus.attach(SLOT.requester(BUS), 8).unwrap();
    let [one, four] = [1, 4].map(|count| {
        let block = bus.allocate(&device, &request(count, 0)).unwrap();
        let spi = block.first().get();
        let message = MsiMessage { address: 0xfeed_0000, data: spi };
        assert_eq!(bus.compose(&block, 0), Ok(message));
        block
    });
    bus.free(&device, four);
    bus.free(&device, one);
    assert!(gic.claimed().is_empty());
    finish(&bus, &kernel);
}

#[test]
fn the_guest_handles_recorded_openvmm_host_events() {
    let text = include_str!("data/openvmm-host.txt");
    let (kernel, near) = sleeper(section(text, "events"), true);
    let (gic, vectors) = spis(&kernel);
    let bus = open(&kernel, near, vectors);
    let device = bus.attach(SLOT.requester(BUS), 8).unwrap();
    let block = bus.allocate(&device, &request(1, 0)).unwrap();
    bus.compose(&block, 0).unwrap();
    // The host refuses the deletion.
    bus.free(&device, block);
    assert_eq!(gic.claimed(), [64]);
    for event in [BusEvent::EjectRequested(SLOT), BusEvent::Gone(SLOT)] {
        assert!(!kernel.is_signaled());
        kernel.send_next();
        assert!(kernel.is_signaled(), "{event:?} raises no signal");
        assert_eq!((bus.poll(), bus.next_event()), (Ok(Idle::Sleep), Some(event)));
    }
    assert!(gic.claimed().is_empty() && kernel.is_over());
    assert_eq!(kernel.in_vain.load(SeqCst), 0, "a wait was not ended by a signal");
}

#[test]
fn a_guest_on_arm64_sends_the_same_packets_as_linux() {
    for section in sections(include_str!("data/linux-arm64.txt")).into_iter().take(3) {
        let (kernel, near) = sleeper(section, false);
        let (_, vectors) = spis(&kernel);
        let bus = open(&kernel, near, vectors);
        let device = bus.attach(SLOT.requester(BUS), 8).unwrap();
        let block = bus.allocate(&device, &request(1, 0)).unwrap();
        bus.compose(&block, 0).unwrap();
        bus.free(&device, block);
        finish(&bus, &kernel);
    }
}

/// Hypervisor that replays recorded hypercalls.
struct Hypervisor(Arc<Sleeper>);

impl Hypercall for Hypervisor {
    fn retarget(&self, input: &RetargetInput) -> u16 {
        let mut peer = self.0.peer.lock().unwrap();
        let is_call = |line: &Line| matches!(line, Line::Hypercall(..));
        let index = peer.lines.iter().position(is_call).expect("a hypercall is recorded");
        let line = peer.lines.remove(index);
        assert_eq!(line, Line::Hypercall(input.control(), input.bytes().to_vec()));
        match peer.lines.remove(index) {
            Line::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_guest_on_x86_sends_the_same_packets_as_linux() {
    for section in sections(include_str!("data/linux-x86.txt")) {
        let (kernel, near) = sleeper(section, false);
        let hypervisor = Arc::new(Hypervisor(kernel.clone()));
        let vectors =
            Vectors::Apic(ApicVectors::new(Arc::new(Matrix::default()), hypervisor, INSTANCE));
        let bus = open(&kernel, near, vectors);
        let device = bus.attach(SLOT.requester(BUS), 8).unwrap();
        let blocks = [1, 70].map(|cpu| {
            let block = bus.allocate(&device, &request(1, cpu)).unwrap();
            bus.compose(&block, 0).unwrap();
            bus.unmask(block.first());
            block
        });
        for block in blocks {
            bus.free(&device, block);
        }
        finish(&bus, &kernel);
    }
}
