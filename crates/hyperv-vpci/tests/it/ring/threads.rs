//! Two threads that sleep on eventfds. If a signal is lost, the test exceeds its time limit and
//! fails.

use super::ring;
use hyperv_vpci::channel::{Channel, ChannelError, EventFd, Idle, PacketKind};
use hyperv_vpci::ring::RingChannel;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

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
