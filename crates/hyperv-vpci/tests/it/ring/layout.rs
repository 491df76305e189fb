//! A ring's bytes, typed by hand from the VMBus packet format.

use super::ring;
use hyperv_vpci::channel::PacketKind;
use hyperv_vpci::ring::{
    Control, GuestRing, HeapRing, Notify, RingError, RingMemory, RingReader, RingWriter,
};
use std::num::NonZeroU8;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

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
