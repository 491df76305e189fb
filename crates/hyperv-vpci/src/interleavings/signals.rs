//! A writer and a reader of one ring, each of which sleeps when it has nothing to do, until the
//! other end signals it. If both sleep, the scheduler reports a deadlock.

use super::explore;
use crate::channel::{ChannelError, Idle, PacketKind};
use crate::ring::{Control, Notify, PAGE, RingMemory, RingReader, RingWriter};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::atomic::AtomicU32;
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread;

/// Lengths of the payloads in bytes. The ring has room for the first two packets, but not for the
/// first three. The first and the third together would fit.
const PAYLOADS: [usize; 4] = [2000, 1600, 1600, 16];

/// A ring of one page. The scheduler may switch at each access to a control word; the indices order
/// the accesses to the data.
#[derive(Clone)]
struct Ring(Arc<Words>);

struct Words {
    control: [AtomicU32; 17],
    data: Vec<AtomicU64>,
}

impl Ring {
    fn new() -> Self {
        let control = core::array::from_fn(|_| AtomicU32::new(0));
        let data = (0..PAGE / 8).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Words { control, data }))
    }

    fn word(&self, word: Control) -> &AtomicU32 {
        &self.0.control[word.offset() as usize / 4]
    }
}

impl RingMemory for Ring {
    fn length(&self) -> u32 {
        PAGE
    }

    fn control(&self, word: Control) -> u32 {
        self.word(word).load(Ordering::SeqCst)
    }

    fn set_control(&self, word: Control, value: u32) {
        self.word(word).store(value, Ordering::SeqCst);
    }

    fn data(&self, offset: u32) -> [u8; 8] {
        // Ordering: as in `HeapRing`.
        self.0.data[offset as usize / 8].load(Ordering::Relaxed).to_ne_bytes()
    }

    fn set_data(&self, offset: u32, bytes: [u8; 8]) {
        // Ordering: as in `HeapRing`.
        self.0.data[offset as usize / 8].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

/// Wakes the other end, unless it is done.
fn signal(peer: &Sender<()>) {
    let _ = peer.send(());
}

/// Sends a packet of each length. Sleeps while the ring has no room.
fn write_all(ring: Ring, reader: &Sender<()>, signals: &Receiver<()>) {
    let mut writer = RingWriter::new(ring, 0).unwrap();
    for (id, length) in (0..).zip(PAYLOADS) {
        let payload = vec![0; length];
        loop {
            match writer.write(PacketKind::Request(id), &payload) {
                Ok(Notify::Peer) => break signal(reader),
                Ok(Notify::Nobody) => break,
                Err(ChannelError::Full) => signals.recv().unwrap(),
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Reads all packets, and checks their order and lengths. Sleeps while the ring is empty.
fn read_all(ring: Ring, writer: &Sender<()>, signals: &Receiver<()>) {
    let mut reader = RingReader::new(ring, 0).unwrap();
    let mut buffer = [0; PAGE as usize];
    for (id, length) in (0..).zip(PAYLOADS) {
        loop {
            let (received, notify) = reader.read(&mut buffer).unwrap();
            if notify == Notify::Peer {
                signal(writer);
            }
            match received {
                Some(received) => {
                    assert_eq!((received.kind, received.length), (PacketKind::Request(id), length));
                    break;
                }
                None if reader.idle().unwrap() == Idle::Sleep => signals.recv().unwrap(),
                None => {}
            }
        }
    }
}

fn both_ends_sleep() {
    let ring = Ring::new();
    let ((to_reader, for_reader), (to_writer, for_writer)) = (channel(), channel());
    // If an end that is done dropped its sender, it would wake the other end.
    let kept = (to_reader.clone(), to_writer.clone());
    let writer = {
        let ring = ring.clone();
        thread::spawn(move || write_all(ring, &to_reader, &for_writer))
    };
    let reader = thread::spawn(move || read_all(ring, &to_writer, &for_reader));
    writer.join().unwrap();
    reader.join().unwrap();
    drop(kept);
}

#[test]
fn neither_end_of_a_ring_sleeps_while_the_other_waits() {
    explore(both_ends_sleep);
}
