//! Ring ends whose peer acts between two of their accesses.

use super::ring;
use hyperv_vpci::channel::{ChannelError, Idle, PacketKind};
use hyperv_vpci::ring::{Control, HeapRing, Notify, RingMemory, RingReader, RingWriter};
use std::cell::RefCell;

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
