//! Compares a ring with a bounded packet queue.

use super::ring;
use hyperv_vpci::channel::{ChannelError, PacketKind};
use hyperv_vpci::ring::{Control, Notify, RingMemory, RingReader, RingWriter};
use proptest::prelude::*;
use std::collections::VecDeque;

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
