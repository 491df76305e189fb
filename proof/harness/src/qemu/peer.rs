//! The peer of QEMU's ivshmem device: serves doorbells to QEMU (`docs/specs/ivshmem-spec`), and
//! answers each doorbell by ringing the same vector.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::{fs, thread};

use anyhow::{Context, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{read, write};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Number of vectors of each side.
const VECTORS: usize = 4;
const MEMORY: u64 = 1 << 20;
const PROTOCOL: i64 = 0;
const GUEST: i64 = 0;
/// The number that the image uses for this peer.
const PEER: i64 = 1;
/// Value that is sent with the shared memory, in place of a peer's number.
const SHARED_MEMORY: i64 = -1;

/// A running peer, which ends when this value is dropped.
#[derive(Debug)]
pub struct Peer {
    socket: PathBuf,
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Serves one QEMU at `socket`.
    pub fn start(socket: &Path) -> Result<Self> {
        if socket.exists() {
            fs::remove_file(socket)?;
        }
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("cannot serve {}", socket.display()))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC)?;
        let stopped = stop.try_clone()?;
        let thread = thread::spawn(move || {
            if let Err(error) = serve(&listener, &stopped) {
                eprintln!("the ivshmem peer: {error:#}");
            }
        });
        Ok(Self { socket: socket.into(), stop, thread: Some(thread) })
    }

    /// Returns the path of the socket for QEMU.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // If the thread can't be stopped, it keeps running until this process exits.
        let stopped = write(&self.stop, &1_u64.to_ne_bytes()).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| stopped) {
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn serve(listener: &UnixListener, stop: &OwnedFd) -> Result<()> {
    if wait(&[stop.as_fd(), listener.as_fd()])?.contains(&0) {
        return Ok(());
    }
    let (stream, _) = listener.accept()?;
    let doorbells =
        || (0..VECTORS).map(|_| eventfd(0, EventfdFlags::CLOEXEC)).collect::<Result<Vec<_>, _>>();
    let (guests, ours) = (doorbells()?, doorbells()?);
    introduce(&stream, &guests, &ours)?;
    let mut watched = vec![stop.as_fd()];
    watched.extend(ours.iter().map(AsFd::as_fd));
    loop {
        let ready = wait(&watched)?;
        if ready.contains(&0) {
            return Ok(());
        }
        for index in ready {
            let mut rings = [0; 8];
            read(watched[index], &mut rings)?;
            write(&guests[index - 1], &1_u64.to_ne_bytes())?;
        }
    }
}

/// Sends a server's greeting to a new client: the version, the client's number, the memory, and the
/// doorbells of all peers, the client's own last.
fn introduce(stream: &UnixStream, guests: &[OwnedFd], ours: &[OwnedFd]) -> Result<()> {
    let memory = memfd_create("doorbell-ivshmem", MemfdFlags::CLOEXEC)?;
    ftruncate(&memory, MEMORY)?;
    send(stream, PROTOCOL, None)?;
    send(stream, GUEST, None)?;
    send(stream, SHARED_MEMORY, Some(memory.as_fd()))?;
    for doorbell in ours {
        send(stream, PEER, Some(doorbell.as_fd()))?;
    }
    for doorbell in guests {
        send(stream, GUEST, Some(doorbell.as_fd()))?;
    }
    Ok(())
}

fn send(stream: &UnixStream, number: i64, file: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut passed = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = file.into_iter().collect();
    if !files.is_empty() {
        passed.push(SendAncillaryMessage::ScmRights(&files));
    }
    sendmsg(stream, &[IoSlice::new(&number.to_le_bytes())], &mut passed, SendFlags::empty())?;
    Ok(())
}

/// Waits, and returns the indices of the descriptors that are ready for reading.
fn wait(watched: &[BorrowedFd<'_>]) -> Result<Vec<usize>> {
    let mut polled: Vec<_> =
        watched.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    poll(&mut polled, None)?;
    let ready = polled.iter().enumerate().filter(|(_, fd)| fd.revents().contains(PollFlags::IN));
    Ok(ready.map(|(index, _)| index).collect())
}
