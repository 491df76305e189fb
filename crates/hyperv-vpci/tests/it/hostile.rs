//! Tests for each end against a peer that acts arbitrarily.

use crate::board::{BUS, Board, OTHER, SLOT, function, request};
use crate::peer::Peer;
use crate::tamper::Fate;
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::protocol::reply::Status;
use hyperv_vpci::protocol::{DeviceDescription, Notice, Relations, RelationsForm, Slot, Version};
use msi_types::{
    Attachment, Cpu, Delivery, HwIrqBlock, MoveOutcome, MsiParent, NoIdentity, Shape, SignalMsi,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Allocate(u16, Shape),
    Compose(usize),
    Move(usize, u32),
    Unmask(usize),
    Free(usize),
    Poll,
    /// Sets how the host's later answers are treated.
    Answers(Fate),
    /// Delivers the packets that were kept.
    LetGo,
    Notice(Vec<u8>),
    Completion(u64, Vec<u8>),
    Remove(Slot),
    Offer(Slot),
    Eject(Slot),
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![
        2 => Just(Fate::Sent),
        1 => Just(Fate::Lost),
        1 => Just(Fate::Kept),
        1 => Just(Fate::Doubled),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Fate::Replaced),
        // A successful answer that grants an arbitrary message.
        1 => prop::collection::vec(any::<u8>(), 24).prop_map(|mut answer| {
            answer[..4].fill(0);
            answer[10..12].copy_from_slice(&[1, 0]);
            Fate::Replaced(answer)
        }),
    ]
}

fn notices() -> impl Strategy<Value = Vec<u8>> {
    let functions = prop::collection::vec((0..4u8, any::<u32>()), 0..6);
    let relations = functions.prop_map(|functions| {
        let list = functions.into_iter().map(|(device, serial)| DeviceDescription {
            slot: Slot::new(device, 0),
            serial,
            ..Default::default()
        });
        let (mut room, mut out) = ([0; 256], [0; 256]);
        let relations = Relations::new(RelationsForm::V2, list, &mut room).unwrap();
        let length = Notice::Relations(relations).emit(&mut out).unwrap();
        out[..length].to_vec()
    });
    let broken = (0x4249_0000..0x4249_0020u32, prop::collection::vec(any::<u8>(), 0..80))
        .prop_map(|(kind, rest)| [&kind.to_le_bytes()[..], &rest].concat());
    prop_oneof![relations, broken]
}

fn slots() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(SLOT), Just(OTHER)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..3u32).prop_map(|log| Step::Allocate(1 << log, Shape::AlignedGroup)),
        2 => (1..4u16).prop_map(|count| Step::Allocate(count, Shape::Independent)),
        6 => any::<usize>().prop_map(Step::Compose),
        2 => (any::<usize>(), 0..5u32).prop_map(|(block, cpu)| Step::Move(block, cpu)),
        1 => any::<usize>().prop_map(Step::Unmask),
        3 => any::<usize>().prop_map(Step::Free),
        2 => Just(Step::Poll),
        4 => fates().prop_map(Step::Answers),
        1 => Just(Step::LetGo),
        1 => notices().prop_map(Step::Notice),
        1 => (0..60u64, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(id, answer)| Step::Completion(id, answer)),
        1 => slots().prop_map(Step::Remove),
        1 => slots().prop_map(Step::Offer),
        1 => slots().prop_map(Step::Eject),
    ];
    prop::collection::vec(step, 0..40)
}

struct Guest {
    board: Board,
    device: Option<Attachment>,
    blocks: Vec<HwIrqBlock>,
}

impl Guest {
    fn pick(&self, at: usize) -> Option<&HwIrqBlock> {
        self.blocks.get(at % self.blocks.len().max(1))
    }

    /// Executes a step. The guest's operations may fail but must not have other effects.
    fn step(&mut self, step: Step) {
        let bus = &self.board.bus;
        match step {
            Step::Allocate(count, shape) => {
                let device = self.device.as_ref().expect("the function was attached");
                self.blocks.extend(bus.allocate(device, &request(count, shape)));
            }
            Step::Compose(at) => {
                if let Some(block) = self.pick(at) {
                    let _ = bus.compose(block, 0);
                }
            }
            Step::Move(at, cpu) => {
                if let Some(block) = self.pick(at)
                    && let Ok(moved) = bus.begin_move(block, 0, Cpu::new(cpu))
                {
                    bus.end_move(moved, MoveOutcome::Written).unwrap();
                }
            }
            Step::Unmask(at) => {
                if let Some(block) = self.pick(at) {
                    bus.unmask(block.first());
                }
            }
            Step::Free(at) => {
                if !self.blocks.is_empty() {
                    let block = self.blocks.swap_remove(at % self.blocks.len());
                    bus.free(self.device.as_ref().expect("the function was attached"), block);
                }
            }
            Step::Poll => {
                let _ = bus.poll();
                while bus.next_event().is_some() {}
            }
            other => self.host(other),
        }
    }

    fn host(&self, step: Step) {
        let mut side = self.board.kernel.side.lock().unwrap();
        match step {
            Step::Answers(fate) => self.board.tamper.set(fate),
            Step::LetGo => side.channel.let_go(),
            Step::Notice(message) => {
                let _ = side.channel.inner.send(PacketKind::Notice, &message);
            }
            Step::Completion(id, answer) => {
                let _ = side.channel.inner.send(PacketKind::Completion(id), &answer);
            }
            Step::Remove(slot) => {
                let _ = side.host.remove(slot);
            }
            Step::Offer(slot) => {
                let _ = side.host.offer(function(slot));
            }
            Step::Eject(slot) => {
                let _ = side.host.eject(slot);
            }
            _ => unreachable!("the guest handles the other steps"),
        }
    }
}

proptest! {
    /// With an arbitrary host, the guest's calls must return, and every vector must be released to
    /// the root. The GIC of these tests panics on misuse.
    #[test]
    fn a_hostile_host_leaks_no_vector(steps in steps()) {
        let board = Board::new();
        let device = Some(board.attach(SLOT));
        let mut guest = Guest { board, device, blocks: Vec::new() };
        for step in steps {
            guest.step(step);
        }
        let Guest { board, device, blocks } = guest;
        let device = device.expect("the function was attached");
        for block in blocks {
            board.bus.free(&device, block);
        }
        board.bus.detach(device);
        let _ = board.bus.close();
        prop_assert!(board.gic.claimed().is_empty());
        // The domain still works with another host.
        let again = Board::under(Version::V1_4, board.gic.clone(), board.domain.clone());
        let device = again.attach(SLOT);
        prop_assert_eq!(again.vector(&device).0.first().get(), 64);
    }

    /// If a guest does anything with one function, the other function's messages must still arrive.
    #[test]
    fn a_guest_that_misuses_one_function_does_not_affect_another(
        messages in prop::collection::vec(
            (0x4249_0002..0x4249_0020u32, prop::collection::vec(any::<u8>(), 0..200)), 0..60,
        ),
    ) {
        let board = Board::new();
        let other = board.bus.attach(OTHER.requester(BUS), 4).unwrap();
        let (block, message) = board.vector(&other);
        let mut side = board.kernel.side.lock().unwrap();
        // Replace the guest's channel with a channel on which the test sends as a hostile guest.
        let (mut near, far) = crate::board::channel();
        side.channel.inner = far;
        let mut buffer = [0; 8192];
        for (kind, mut rest) in messages {
            // D0 exit and version requests affect all functions, which is correct.
            if matches!(kind & 0xff, 0x08 | 0x13) {
                continue;
            }
            // Redirect every message to another function's slot.
            if let Some(slot) = rest.first_mut() {
                *slot = 0;
            }
            let message = [&kind.to_le_bytes()[..], &rest].concat();
            near.send(PacketKind::Request(1), &message).unwrap();
            side.serve().unwrap();
            while near.receive(&mut buffer).unwrap().is_some() {}
        }
        let sent = board.devices[1].signal_msi(NoIdentity, message);
        prop_assert_eq!(sent, Delivery::Pending);
        prop_assert!(board.gic.spi(block.first().get()).pending);
    }

    /// If the guest writes arbitrary bytes to the ring, the host's channel must fail and the next
    /// channel must work.
    #[test]
    fn a_corrupt_ring_breaks_only_its_own_channel(
        inp in any::<u32>(),
        words in prop::collection::vec((0..64u32, any::<[u8; 8]>()), 0..20),
    ) {
        use hyperv_vpci::ring::{Control, HeapRing, RingChannel, RingMemory};
        fn nobody() {}
        let mut peer = Peer::on(Version::V1_4);
        let pages = std::num::NonZeroU8::new(1).unwrap();
        let [there, back] = [0, 1].map(|_| HeapRing::new(pages).unwrap());
        there.set_control(Control::In, inp);
        for (place, bytes) in words {
            there.set_data(place * 8, bytes);
        }
        let mut far = RingChannel::new(back, there, nobody as fn()).unwrap();
        for _ in 0..4 {
            if peer.host.serve(&mut far).is_err() {
                break;
            }
        }
        peer.host.reset();
        let (near, far) = crate::board::channel();
        (peer.near, peer.far) = (near, far);
        let hello = hyperv_vpci::protocol::Request::QueryVersion(0x1_0004);
        prop_assert_eq!(peer.ask(&hello), Ok(Status::SUCCESS));
    }
}
