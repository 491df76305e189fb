//! Rings whose peer writes arbitrary values to the shared memory at any time.

use super::ring;
use hyperv_vpci::channel::{ChannelError, Idle, PacketKind, Received};
use hyperv_vpci::ring::{Control, Notify, RingError, RingMemory, RingReader, RingWriter};
use proptest::prelude::*;

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
