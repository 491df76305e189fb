//! Bytes of a ring, typed by hand from the packet format of VMBus.

use crate::ring;
use hyperv_vpci::channel::PacketKind;
use hyperv_vpci::ring::{Control, Notify, RingMemory, RingReader, RingWriter};

fn bytes(ring: &impl RingMemory, words: u32) -> Vec<u8> {
    (0..words).flat_map(|word| ring.data(word * 8)).collect()
}

#[test]
fn packets_have_their_layout() {
    let ring = ring(1);
    let mut writer = RingWriter::new(ring.clone(), 0).unwrap();
    let kind = PacketKind::Request(0x0123_4567_89ab_cdef);
    assert_eq!(writer.write(kind, &[0xaa; 9]), Ok(Notify::Peer));
    assert_eq!(writer.write(PacketKind::Completion(7), &[]), Ok(Notify::Nobody));
    assert_eq!(ring.control(Control::In), 40 + 24);
    assert_eq!(
        bytes(&ring, 8),
        [
            // In-band, header of 2 words, 4 words in all, a completion is requested.
            [6, 0, 2, 0, 4, 0, 1, 0],
            [0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01],
            [0xaa; 8],
            [0xaa, 0, 0, 0, 0, 0, 0, 0],
            // The packet's own offset.
            [0; 8],
            [11, 0, 2, 0, 2, 0, 0, 0],
            [7, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 40, 0, 0, 0],
        ]
        .concat()
    );
}

#[test]
fn control_words_have_their_offsets() {
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
    let (received, _) = RingReader::new(ring, 0).unwrap().read(&mut payload).unwrap().unwrap();
    assert_eq!((received.kind, received.length, payload), (PacketKind::Notice, 8, [0x55; 8]));
}
