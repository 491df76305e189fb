//! Compares rings with a queue and with typed layouts, and tests them against a hostile peer and
//! between threads.
//!
//! Two threads that sleep on eventfds. If a signal is lost, the test exceeds its time limit and
//! fails.
//!
//! Compares a ring with a bounded packet queue.

use hyperv_vpci::channel::{Channel, ChannelError, EventFd, Idle, PacketKind, Received};
use hyperv_vpci::ring::{
    Control, GuestRing, HeapRing, Notify, RingChannel, RingError, RingMemory, RingReader,
    RingWriter,
};
use proptest::prelude::*;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::num::NonZeroU8;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

fn ring(pages: u8) -> HeapRing {
    HeapRing::new(NonZeroU8::new(pages).expect("a ring has pages")).expect("the heap has room")
}

/// Generates words, many of which are valid for a ring.
fn words() -> impl Strategy<Value = u32> {
    prop_oneof![(0..513u32).prop_map(|index| index * 8), any::<u32>(), 0..5000u32]
}

fn descriptors() -> impl Strategy<Value = [u8; 8]> {
    let sound = (prop_oneof![Just(6u8), Just(11), any::<u8>()], 0..5u8, 0..40u8, 0..3u8);
    prop_oneof![
        sound.prop_map(|(kind, header, length, flags)| [kind, 0, header, 0, length, 0, flags, 0]),
        any::<[u8; 8]>(),
    ]
}

proptest! {
    #[test]
    fn readers_of_a_hostile_ring_stay_in_bounds(
        rounds in prop::collection::vec((words(), words(), 0..512u32, descriptors()), 1..40),
    ) {
        let ring = ring(1);
        let mut reader = RingReader::new(ring.clone(), 0).unwrap();
        let mut buffer = [0; 256];
        for (inp, pending, place, bytes) in rounds {
            ring.set_control(Control::In, inp);
            ring.set_control(Control::PendingSendSize, pending);
            ring.set_data(place * 8, bytes);
            ring.set_data(reader.index(), bytes);
            let (before, skipped) = (reader.index(), reader.skipped());
            match reader.read(&mut buffer) {
                Ok((Some(received), _)) => {
                    prop_assert!(received.length <= buffer.len());
                    prop_assert_ne!(reader.index(), before);
                }
                // The reader leaves packets after it has skipped some: to let the caller signal the
                // writer first, or because it has skipped enough for one call.
                Ok((None, _)) => {
                    prop_assert!(inp == reader.index() || reader.skipped() > skipped);
                }
                Err(_) => prop_assert!(reader.index() == before || reader.skipped() > skipped),
            }
            prop_assert!(reader.index() < 4096 && reader.index().is_multiple_of(8));
        }
    }

    #[test]
    fn writers_of_a_hostile_ring_stay_in_bounds(
        rounds in prop::collection::vec((words(), words(), 0..600usize), 1..40),
    ) {
        let ring = ring(1);
        let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
        for (out, mask, length) in rounds {
            ring.set_control(Control::Out, out);
            ring.set_control(Control::InterruptMask, mask);
            // The writer must ignore the peer's writes to the writer's own index.
            ring.set_control(Control::In, mask);
            let sound = out < 4096 && out.is_multiple_of(8);
            match writer.write(PacketKind::Notice, &vec![0; length]) {
                Ok(_) | Err(ChannelError::Full) => prop_assert!(sound),
                Err(error) => {
                    prop_assert_eq!(error, ChannelError::Broken(RingError::BadIndex(out)));
                }
            }
            prop_assert!(writer.index() < 4096 && writer.index().is_multiple_of(8));
        }
    }
}

#[test]
fn reading_a_malformed_ring_returns_an_error_that_describes_it() {
    let refused = |descriptor: [u8; 8], inp: u32| {
        let ring = ring(1);
        ring.set_data(0, descriptor);
        ring.set_control(Control::In, inp);
        RingReader::new(ring, 0).unwrap().read(&mut [0; 64]).map(|_| ())
    };
    let broken = |error| Err(ChannelError::Broken(error));
    let packet =
        |length, header, available| broken(RingError::BadPacket { length, header, available });
    assert_eq!(refused([6, 0, 2, 0, 2, 0, 0, 0], 24), Ok(()));
    assert_eq!(refused([6, 0, 2, 0, 2, 0, 0, 0], 4), broken(RingError::BadIndex(4)));
    assert_eq!(refused([6, 0, 2, 0, 2, 0, 0, 0], 4096), broken(RingError::BadIndex(4096)));
    // The footer is missing.
    assert_eq!(refused([6, 0, 2, 0, 2, 0, 0, 0], 16), packet(16, 16, 16));
    assert_eq!(refused([6, 0, 1, 0, 2, 0, 0, 0], 24), packet(16, 8, 24));
    assert_eq!(refused([6, 0, 3, 0, 2, 0, 0, 0], 24), packet(16, 24, 24));
    assert_eq!(refused([6, 0, 2, 0, 11, 0, 0, 0], 104), Err(ChannelError::TooLong));
}

/// Linux logs such packets and continues.
#[test]
fn unknown_packets_are_skipped_and_counted() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    let mut reader = RingReader::new(ring.clone(), 0).unwrap();
    // Packets with transfer pages and a long header or a direct range, and a completion and a
    // request with unknown flags.
    for descriptor in [[7, 0, 5, 0, 6, 0, 0, 0], [9, 0, 2, 0, 6, 0, 1, 0]] {
        let start = writer.index();
        let _ = writer.write(PacketKind::Notice, &[0x55; 32]).unwrap();
        ring.set_data(start, descriptor);
    }
    for descriptor in [[11, 0, 2, 0, 2, 0, 2, 0], [6, 0, 2, 0, 2, 0, 3, 0]] {
        let start = writer.index();
        let _ = writer.write(PacketKind::Notice, &[]).unwrap();
        ring.set_data(start, descriptor);
    }
    let _ = writer.write(PacketKind::Request(3), &[1; 8]).unwrap();
    // Payloads of skipped packets need not fit in the buffer.
    let (received, _) = reader.read(&mut [0; 8]).unwrap();
    assert_eq!(received, Some(Received { kind: PacketKind::Request(3), length: 8 }));
    assert_eq!((reader.skipped(), reader.index()), (4, writer.index()));
}

#[test]
fn a_read_ends_after_a_bounded_number_of_unknown_packets() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    let mut reader = RingReader::new(ring.clone(), 0).unwrap();
    while writer.write(PacketKind::Notice, &[]).is_ok() {}
    for index in 0..4096 / 24 {
        ring.set_data(index * 24, [7, 0, 2, 0, 2, 0, 0, 0]);
    }
    ring.set_control(Control::PendingSendSize, 1024);
    let mut signals = 0;
    for round in 1..=3 {
        let (received, notify) = reader.read(&mut [0; 8]).unwrap();
        assert_eq!(received, None);
        signals += u32::from(notify == Notify::Peer);
        assert_eq!(reader.idle(), Ok(if round == 3 { Idle::Sleep } else { Idle::Busy }));
    }
    // The writer is signaled because the room of the skipped packets is free.
    assert_eq!((reader.skipped(), signals), (170, 1));
}

/// OpenVMM's ring masks the size, because "some implementations" wait for room for all but one
/// byte.
#[test]
fn writers_that_wait_for_the_whole_ring_are_signaled() {
    for waits_for in [4096 - 8, 4096 - 7, 4096 - 1, 4096, u32::MAX] {
        let ring = ring(1);
        let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
        let mut reader = RingReader::new(ring.clone(), 0).unwrap();
        for _ in 0..2 {
            let _ = writer.write(PacketKind::Notice, &[0; 64]).unwrap();
        }
        ring.set_control(Control::PendingSendSize, waits_for);
        let notified = [0, 1].map(|_| reader.read(&mut [0; 128]).unwrap().1);
        assert_eq!(notified, [Notify::Nobody, Notify::Peer], "{waits_for}");
    }
}

#[test]
fn invalid_saved_indices_are_refused() {
    for index in [4, 4096, u32::MAX] {
        assert_eq!(RingReader::new(ring(1), index).err(), Some(RingError::BadIndex(index)));
        assert_eq!(RingWriter::new(ring(1), index).err(), Some(RingError::BadIndex(index)));
    }
}

fn bytes(ring: &impl RingMemory, words: u32) -> Vec<u8> {
    (0..words).flat_map(|word| ring.data(word * 8)).collect()
}

#[test]
fn packets_are_written_in_the_vmbus_layout() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    let kind = PacketKind::Request(0x0123_4567_89ab_cdef);
    assert_eq!(writer.write(kind, &[0xaa; 9]), Ok(Notify::Peer));
    assert_eq!(writer.write(PacketKind::Completion(7), &[]), Ok(Notify::Nobody));
    assert_eq!(ring.control(Control::In), 40 + 24);
    assert_eq!(
        bytes(&ring, 8),
        [
            // In-band packet with a header of 2 words and 4 words in total; a completion is
            // requested.
            [6, 0, 2, 0, 4, 0, 1, 0],
            [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01],
            [0xaa; 8],
            [0xaa, 0, 0, 0, 0, 0, 0, 0],
            // Offset of the packet, in its footer.
            [0; 8],
            [11, 0, 2, 0, 2, 0, 0, 0],
            [7, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 40, 0, 0, 0],
        ]
        .concat()
    );
}

#[test]
fn ring_control_words_are_at_the_vmbus_offsets() {
    let words = [
        Control::In,
        Control::Out,
        Control::InterruptMask,
        Control::PendingSendSize,
        Control::Features,
    ];
    assert_eq!(words.map(Control::offset), [0, 4, 8, 12, 64]);
    let ring = ring(1);
    RingWriter::new(ring.clone(), 0).unwrap();
    assert_eq!(ring.control(Control::Features), 1);
}

#[test]
fn headers_longer_than_the_descriptor_are_skipped() {
    let ring = ring(1);
    ring.set_data(0, [6, 0, 3, 0, 4, 0, 0, 0]);
    ring.set_data(24, [0x55; 8]);
    ring.set_control(Control::In, 40);
    let mut payload = [0; 8];
    let (received, _) = RingReader::new(ring, 0).unwrap().read(&mut payload).unwrap();
    let received = received.expect("a packet was written");
    assert_eq!((received.kind, received.length, payload), (PacketKind::Notice, 8, [0x55; 8]));
}

/// A guest lists the pages of its ring individually.
#[test]
fn a_ring_works_in_scattered_guest_pages() {
    let whole = (GuestAddress(0), 0x1_0000);
    let memory = GuestMemoryMmap::<()>::from_ranges(&[whole]).unwrap();
    let pages = [0xa000, 0x3000, 0xf000, 0x4000].map(GuestAddress);
    let scattered = GuestRing::from_pages(memory.clone(), &pages).unwrap();
    assert_eq!(scattered.length(), 3 * 4096);
    let plain = HeapRing::new(NonZeroU8::new(3).unwrap()).unwrap();
    let mut ends = (
        RingWriter::new(scattered.clone(), 0).unwrap(),
        RingReader::new(scattered.clone(), 0).unwrap(),
        RingWriter::new(plain.clone(), 0).unwrap(),
        RingReader::new(plain.clone(), 0).unwrap(),
    );
    // Packets cross pages and wrap.
    for length in (0..40).map(|round| 200 + round * 37) {
        let payload: Vec<u8> = (0..=255).cycle().skip(length).take(length).collect();
        let kind = PacketKind::Request(7);
        assert_eq!(ends.0.write(kind, &payload), ends.2.write(kind, &payload));
        let (mut one, mut other) = ([0; 2048], [0; 2048]);
        assert_eq!(ends.1.read(&mut one), ends.3.read(&mut other));
        assert_eq!((&one[..length], one), (&payload[..], other));
    }
    assert_eq!(bytes(&scattered, 1536), bytes(&plain, 1536));
    // The second data page is the third page of the list.
    let mut second = [0; 4096];
    memory.read_slice(&mut second, GuestAddress(0xf000)).unwrap();
    assert_eq!(second[..], bytes(&plain, 1536)[4096..8192]);
}

#[test]
fn pages_that_hold_no_ring_are_refused() {
    let whole = (GuestAddress(0), 0x1_0000);
    let memory = GuestMemoryMmap::<()>::from_ranges(&[whole]).unwrap();
    let refused = |pages: &[u64]| {
        let pages: Vec<_> = pages.iter().copied().map(GuestAddress).collect();
        GuestRing::from_pages(memory.clone(), &pages).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(&[]), RingError::BadLength(0));
    assert_eq!(refused(&[0x1000]), RingError::BadLength(0));
    assert_eq!(refused(&[0x1000, 0x2008]), RingError::BadIndex(0x1000));
    assert_eq!(refused(&[0x1000, 0x2000, 0x1_0000]), RingError::BadIndex(0x2000));
    assert_eq!(refused(&[u64::MAX - 4095, 0x1000]), RingError::BadIndex(0));
    let beyond = GuestRing::new(memory.clone(), GuestAddress(0xf000), 4096).map(|_| ());
    assert_eq!(beyond, Err(RingError::BadIndex(0x1000)));
}

/// Memory in which the peer acts once, immediately after a particular control word was stored.
struct Overtaken<'a> {
    ring: HeapRing,
    after: Control,
    peer: RefCell<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl RingMemory for Overtaken<'_> {
    fn length(&self) -> u32 {
        self.ring.length()
    }
    fn control(&self, word: Control) -> u32 {
        self.ring.control(word)
    }
    fn set_control(&self, word: Control, value: u32) {
        self.ring.set_control(word, value);
        if word == self.after
            && let Some(act) = self.peer.take()
        {
            act();
        }
    }
    fn data(&self, offset: u32) -> [u8; 8] {
        self.ring.data(offset)
    }
    fn set_data(&self, offset: u32, bytes: [u8; 8]) {
        self.ring.set_data(offset, bytes);
    }
}

#[test]
fn a_writer_rechecks_for_room_before_waiting() {
    let ring = ring(1);
    let mut reader = RingReader::new(ring.clone(), 0).unwrap();
    let read = move || {
        let (_, notify) = reader.read(&mut [0; 4096]).unwrap();
        // The writer is waiting, so it must be signaled, too.
        assert_eq!(notify, Notify::Peer);
    };
    let peer = RefCell::new(Some(Box::new(read) as Box<dyn FnOnce() + Send>));
    let mut first = RingWriter::new(ring.clone(), 0).unwrap();
    let _ = first.write(PacketKind::Notice, &[0; 4000]).unwrap();
    let at = first.index();
    let memory = Overtaken { ring, after: Control::PendingSendSize, peer };
    let mut writer = RingWriter::new(memory, at).unwrap();
    assert!(writer.write(PacketKind::Notice, &[0; 4000]).is_ok());
}

#[test]
fn a_reader_rechecks_for_a_packet_before_sleeping() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    ring.set_control(Control::InterruptMask, 1);
    let write = move || {
        let _ = writer.write(PacketKind::Notice, &[]).unwrap();
    };
    let peer = RefCell::new(Some(Box::new(write) as Box<dyn FnOnce() + Send>));
    let memory = Overtaken { ring, after: Control::InterruptMask, peer };
    assert_eq!(RingReader::new(memory, 0).unwrap().idle(), Ok(Idle::Busy));
}

#[test]
fn a_reader_that_received_the_packet_is_not_signaled() {
    let ring = ring(1);
    let mut reader = RingReader::new(ring.clone(), 0).unwrap();
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    let _ = writer.write(PacketKind::Notice, &[]).unwrap();
    // The reader reads both packets and falls asleep after the writer stored its index and before
    // it signals.
    let act = move || {
        let _ = reader.read(&mut [0; 64]).unwrap();
        let _ = reader.read(&mut [0; 64]).unwrap();
        assert_eq!(reader.idle(), Ok(Idle::Sleep));
    };
    let peer = RefCell::new(Some(Box::new(act) as Box<dyn FnOnce() + Send>));
    let at = writer.index();
    let mut writer = RingWriter::new(Overtaken { ring, after: Control::In, peer }, at).unwrap();
    // The reader has already read the packet, so no signal is needed.
    assert_eq!(writer.write(PacketKind::Notice, &[]), Ok(Notify::Nobody));
}

#[test]
fn a_writer_that_fills_the_ring_during_a_read_is_signaled() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    let _ = writer.write(PacketKind::Notice, &[0; 2000]).unwrap();
    // While the reader reads this packet, the writer fills the ring and waits.
    let fill = move || {
        let _ = writer.write(PacketKind::Notice, &[0; 1000]).unwrap();
        let full = writer.write(PacketKind::Notice, &[0; 1500]);
        assert_eq!(full, Err(ChannelError::Full));
    };
    let peer = RefCell::new(Some(Box::new(fill) as Box<dyn FnOnce() + Send>));
    let memory = Overtaken { ring, after: Control::InterruptMask, peer };
    let mut reader = RingReader::new(memory, 0).unwrap();
    let (_, notify) = reader.read(&mut [0; 4096]).unwrap();
    assert_eq!(notify, Notify::Peer, "the packet that the writer wants to send fits now");
}

#[test]
fn a_write_to_a_full_ring_reports_full() {
    let mut writer = RingWriter::new(ring(1), 0).unwrap();
    let _ = writer.write(PacketKind::Notice, &[0; 4000]).unwrap();
    assert_eq!(writer.write(PacketKind::Notice, &[0; 4000]), Err(ChannelError::Full));
}

const PACKETS: u64 = 20_000;

fn signal() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::empty()).expect("an eventfd can be created"))
}

/// Sleeps until a signal arrives. Fails if no signal arrives within ten seconds.
fn wait(signal: &OwnedFd) {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(signal, PollFlags::IN)], Some(&limit)).expect("no error");
    assert_eq!(ready, 1, "no signal arrived although work is waiting");
    rustix::io::read(signal, &mut [0; 8]).expect("no error");
}

#[test]
fn no_signal_is_lost_between_guest_and_host_threads() {
    let (there, back) = (ring(1), ring(1));
    let (to_host, to_guest) = (signal(), signal());
    let mut guest =
        RingChannel::new(there.clone(), back.clone(), EventFd(to_host.clone())).unwrap();
    let mut host = RingChannel::new(back, there, EventFd(to_guest.clone())).unwrap();
    let echo = thread::spawn(move || {
        let mut buffer = [0; 512];
        let mut count = 0;
        let mut answer = None;
        while count < PACKETS {
            // The pending answer must be sent before the next request is received.
            if let Some((id, length)) = answer {
                match host.send(PacketKind::Completion(id), &buffer[..length]) {
                    Ok(()) => (answer, count) = (None, count + 1),
                    Err(ChannelError::Full) => wait(&to_host),
                    Err(other) => panic!("{other}"),
                }
                continue;
            }
            match host.receive(&mut buffer).unwrap() {
                Some(received) => {
                    let PacketKind::Request(id) = received.kind else { panic!("no request") };
                    answer = Some((id, received.length));
                }
                None if host.idle().unwrap() == Idle::Sleep => wait(&to_host),
                None => {}
            }
        }
    });
    let (mut sent, mut completed) = (0, 0);
    let mut buffer = [0; 512];
    while completed < PACKETS {
        while let Some(received) = guest.receive(&mut buffer).unwrap() {
            assert_eq!(received.kind, PacketKind::Completion(completed));
            completed += 1;
        }
        let payload = [0x5a; 504];
        let length = usize::try_from(sent % 504).unwrap();
        let more = sent < PACKETS;
        match more.then(|| guest.send(PacketKind::Request(sent), &payload[..length])) {
            Some(Ok(())) => sent += 1,
            Some(Err(ChannelError::Full)) | None => {
                if completed < PACKETS && guest.idle().unwrap() == Idle::Sleep {
                    wait(&to_guest);
                }
            }
            Some(Err(other)) => panic!("{other}"),
        }
    }
    echo.join().unwrap();
}

#[derive(Clone, Debug)]
enum Step {
    Write(PacketKind, Vec<u8>),
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = prop_oneof![
        any::<u64>().prop_map(PacketKind::Request),
        Just(PacketKind::Notice),
        any::<u64>().prop_map(PacketKind::Completion),
    ];
    let payloads = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        prop::collection::vec(any::<u8>(), 0..2000),
    ];
    let step = prop_oneof![
        (kinds, payloads).prop_map(|(kind, payload)| Step::Write(kind, payload)),
        Just(Step::Read),
    ];
    prop::collection::vec(step, 0..200)
}

/// Returns a payload as it arrives, with padding.
fn padded(mut payload: Vec<u8>) -> Vec<u8> {
    payload.resize(payload.len().next_multiple_of(8), 0);
    payload
}

proptest! {
    #[test]
    fn packets_arrive_whole_and_in_order(steps in steps(), at in 0..512u32) {
        let ring = ring(1);
        ring.set_control(Control::In, at * 8);
        ring.set_control(Control::Out, at * 8);
        let mut writer = RingWriter::new(ring.clone(), at * 8).unwrap();
        let mut reader = RingReader::new(ring.clone(), at * 8).unwrap();
        let (mut queue, mut room) = (VecDeque::new(), 4096 - 8);
        let mut waits_for = None;
        for step in steps {
            match step {
                Step::Write(kind, payload) => {
                    let payload = padded(payload);
                    let needed = payload.len() + 24;
                    let written = writer.write(kind, &payload);
                    if needed > room {
                        prop_assert_eq!(written, Err(ChannelError::Full));
                        waits_for = Some(needed);
                    } else {
                        // The reader does not mask signals before its first packet.
                        prop_assert!(written.is_ok());
                        room -= needed;
                        queue.push_back((kind, payload));
                        waits_for = None;
                    }
                }
                Step::Read => {
                    let mut buffer = [0; 2048];
                    let (received, notify) = reader.read(&mut buffer).unwrap();
                    let Some((kind, payload)) = queue.pop_front() else {
                        prop_assert_eq!((received, notify), (None, Notify::Nobody));
                        continue;
                    };
                    let received = received.expect("a packet was written");
                    prop_assert_eq!(received.kind, kind);
                    prop_assert_eq!(&buffer[..received.length], &payload);
                    let crossed = waits_for.is_some_and(|needed| {
                        room < needed && room + payload.len() + 24 >= needed
                    });
                    prop_assert_eq!(notify == Notify::Peer, crossed);
                    room += payload.len() + 24;
                }
            }
        }
    }
}

#[test]
fn a_packet_longer_than_the_ring_is_refused() {
    let mut writer = RingWriter::new(ring(1), 0).unwrap();
    assert!(writer.write(PacketKind::Notice, &[0; 4096 - 8 - 24]).is_ok());
    let mut writer = RingWriter::new(ring(1), 0).unwrap();
    let refused = writer.write(PacketKind::Notice, &[0; 4096 - 8 - 24 + 1]);
    assert_eq!(refused, Err(ChannelError::TooLong));
    let long = vec![0; 1 << 20];
    assert_eq!(writer.write(PacketKind::Notice, &long), Err(ChannelError::TooLong));
}

#[test]
fn a_write_does_not_signal_a_reader_that_masks_interrupts() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    ring.set_control(Control::InterruptMask, 1);
    assert_eq!(writer.write(PacketKind::Notice, &[]), Ok(Notify::Nobody));
}
