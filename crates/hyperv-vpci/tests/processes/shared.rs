//! Memory and signals shared by two processes.

use hyperv_vpci::channel::EventFd;
use hyperv_vpci::ring::{GuestRing, RingChannel};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

/// Length of a ring in bytes: a control page and the data.
const RING: u64 = 0x5000;

pub(crate) type Channel<F> = RingChannel<GuestRing<GuestMemoryMmap>, EventFd<F>>;

/// Two rings in a file, with a signal for each end.
pub(crate) struct Shared {
    file: File,
    to_child: OwnedFd,
    to_parent: OwnedFd,
}

fn memory(file: File) -> GuestMemoryMmap {
    let offset = FileOffset::new(file, 0);
    let length = usize::try_from(2 * RING).expect("40 KiB fit");
    GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), length, Some(offset))])
        .expect("the file can be mapped")
}

fn channel<F: AsFd + Send>(file: File, (out, inp): (u64, u64), peer: F) -> Channel<F> {
    let memory = memory(file);
    // The pages of a ring are in descending order, because a guest may list them in any order.
    let ring = |index: u64| {
        let mut pages: Vec<_> =
            (0..RING).step_by(4096).map(|at| GuestAddress(index * RING + at)).collect();
        pages.reverse();
        GuestRing::from_pages(memory.clone(), &pages).expect("the pages are mapped")
    };
    RingChannel::new(ring(out), ring(inp), EventFd(peer)).expect("new rings")
}

impl Shared {
    pub(crate) fn new() -> Self {
        let file = memfd_create("vpci", MemfdFlags::empty()).expect("a memory file can be created");
        ftruncate(&file, 2 * RING).expect("40 KiB fit");
        let signal = || eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd can be created");
        Self { file: file.into(), to_child: signal(), to_parent: signal() }
    }

    /// Creates the parent's end.
    pub(crate) fn channel(&self) -> Channel<OwnedFd> {
        let file = self.file.try_clone().expect("a duplicate");
        channel(file, (0, 1), self.to_child.try_clone().expect("a duplicate"))
    }

    /// Starts this program again as the other process, in the given role.
    pub(crate) fn spawn(&self, role: &str) -> Child {
        let own = std::env::current_exe().expect("the program has a path");
        let path = format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd());
        let handle = |of: &OwnedFd| Stdio::from(of.try_clone().expect("a duplicate"));
        Command::new(own)
            .env("VPCI_ROLE", role)
            .env("VPCI_MEMORY", path)
            .stdin(handle(&self.to_child))
            .stdout(handle(&self.to_parent))
            .spawn()
            .expect("the child can be started")
    }

    /// Sleeps until the child signals, or for at most 50 ms.
    pub(crate) fn wait(&self) {
        wait(&self.to_parent);
    }
}

/// Returns the role of this process if it is a child.
pub(crate) fn role() -> Option<String> {
    std::env::var("VPCI_ROLE").ok()
}

/// Creates the child's end.
pub(crate) fn child_channel() -> Channel<std::io::Stdout> {
    let path = std::env::var("VPCI_MEMORY").expect("the parent sets it");
    let file = File::options().read(true).write(true).open(path).expect("the parent lives");
    channel(file, (1, 0), std::io::stdout())
}

/// Sleeps until the parent signals, or for at most 50 ms.
pub(crate) fn child_wait() {
    wait(&std::io::stdin());
}

fn wait(signal: &impl AsFd) {
    let limit = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut signals = [PollFd::new(signal, PollFlags::IN)];
    if poll(&mut signals, Some(&limit)) == Ok(1) {
        // The read may fail if the signal was already consumed.
        let _ = rustix::io::read(signal, &mut [0; 8]);
    }
}
