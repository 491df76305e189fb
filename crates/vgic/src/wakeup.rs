//! Per-vCPU wake-up state: `needs_kick` is set while the vCPU is in WFI or in guest mode. At most
//! one kick is sent each time a vCPU leaves the model, and none is lost.
//!
//! The protocol is store buffering, so both sides use sequentially consistent accesses:
//!
//! ```text
//! producer                              vCPU
//! makes an interrupt visible            leave(): needs_kick := 1
//! kick(): needs_kick set? swap 0,       looks for interrupts
//!         kick if it was 1              found one: returned(), does not sleep
//! ```
//!
//! One of the two sees what the other did, so no wake-up is lost. Of several producers one swaps
//! the 1 out, so each departure gets one kick.
//!
//! Work that an access left over is announced in the same way: it is noted, and one vCPU that left
//! is kicked. Each vCPU does a piece before it leaves, so the work proceeds while any vCPU is in
//! the model or comes back.
//!
//! A vCPU that has entered the guest with empty list registers *stays left* when it exits: its
//! `needs_kick` remains set. While it is, nothing has arrived, as a producer that makes something
//! visible takes the flag and kicks. So the next entry only loads it. The price is at most one kick
//! that finds the vCPU outside of the guest.
//!
//! A vCPU in guest mode holds interrupts in list registers. A change to one of these *recalls*
//! them: the change is complete once the vCPU has exited and folded its list registers back. Both
//! states are in one word, so an entry into the guest takes one read-modify-write.
//!
//! Recalls are numbered. A register frame or a command that promises completion ([`Awaited`]) waits
//! for recalls up to the last number given out when it began to wait. Each of these ends when its
//! vCPU exits, so later recalls by others do not prolong the wait.

mod word;

pub(crate) use word::WakeupWord;

use crate::monitor::progress::Progress;
use crate::sync::{AtomicBool, AtomicU64, Ordering::SeqCst};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc};
use msi_types::{Cpu, Kick};

/// The wake-up state of all vCPUs. Shared by everything that makes interrupts pending.
pub(crate) struct VcpuWakeup {
    /// By vCPU. Each vCPU has its own at hand, too.
    vcpus: Box<[Arc<WakeupWord>]>,
    kick: Arc<dyn Kick>,
    /// Number of recalled vCPUs; for a moment also one too many.
    recalled: AtomicU64,
    /// The number of recalls so far, which is that of the latest.
    recalls: AtomicU64,
    /// Number of sources that have work left over.
    work: AtomicU64,
    /// Work was noted, and no vCPU has been kicked for it yet.
    must_kick: AtomicBool,
}

/// The recalls up to a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recalls(u64);

/// The recalls that a register frame waits for: those of its own writes, and those before them.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Changes that were asked for here.
    asked: AtomicU64,
    /// Of these, those whose recalls are among `until`.
    counted: AtomicU64,
    until: AtomicU64,
}

impl Awaited {
    pub(crate) const fn new() -> Self {
        Self { asked: AtomicU64::new(0), counted: AtomicU64::new(0), until: AtomicU64::new(0) }
    }

    /// Something was recalled by a write to the frame, or will be before the frame asks whether
    /// that is [`outstanding`](Self::is_outstanding).
    pub(crate) fn ask(&self) {
        self.asked.fetch_add(1, SeqCst);
    }

    /// Is something in list registers that was recalled before?
    pub(crate) fn is_outstanding(&self, wakeup: &VcpuWakeup) -> bool {
        let asked = self.asked.load(SeqCst);
        if self.counted.load(SeqCst) < asked {
            // In this order: a reader that finds `counted` up to date finds `until` as well.
            self.until.fetch_max(wakeup.recalls().0, SeqCst);
            self.counted.fetch_max(asked, SeqCst);
        }
        wakeup.awaits(Recalls(self.until.load(SeqCst)))
    }
}

impl VcpuWakeup {
    pub(crate) fn new(cpus: usize, kick: Arc<dyn Kick>) -> Result<Self, OutOfMemory> {
        let mut vcpus = Vec::new();
        vcpus.try_reserve_exact(cpus)?;
        for _ in 0..cpus {
            vcpus.push(try_arc(WakeupWord::new())?);
        }
        Ok(Self {
            vcpus: vcpus.into_boxed_slice(),
            kick,
            recalled: AtomicU64::new(0),
            recalls: AtomicU64::new(0),
            work: AtomicU64::new(0),
            must_kick: AtomicBool::new(false),
        })
    }

    /// The words of the vCPUs, by number.
    pub(crate) fn words(&self) -> &[Arc<WakeupWord>] {
        &self.vcpus
    }

    /// Kicks vCPU `cpu` if it is in WFI or in guest mode. The caller first makes the interrupt
    /// visible by a sequentially consistent read-modify-write. Unknown vCPUs are ignored.
    #[inline]
    pub(crate) fn kick(&self, cpu: Cpu) {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return };
        if vcpu.needs_kick() {
            self.kick_out(cpu, vcpu);
        }
    }

    /// One of those who found that a vCPU left kicks it.
    #[cold]
    #[inline(never)]
    fn kick_out(&self, cpu: Cpu, vcpu: &WakeupWord) {
        if vcpu.take_kick() {
            self.kick.kick(cpu);
        }
    }

    /// Notes the work that one source, which holds its lock, has left over now; `left` says whether
    /// it had some before. The caller must call [`kick_for_work`](Self::kick_for_work) after it
    /// releases the lock.
    pub(crate) fn note_work(&self, left: &mut bool, progress: Progress) {
        match (*left, progress) {
            (false, Progress::Unfinished) => {
                self.work.fetch_add(1, SeqCst);
                self.must_kick.store(true, SeqCst);
            }
            (true, Progress::Done) => {
                self.work.fetch_sub(1, SeqCst);
            }
            (false, Progress::Done) | (true, Progress::Unfinished) => {}
        }
        *left = progress == Progress::Unfinished;
    }

    /// Kicks one of the vCPUs that left if work was noted; the others find it before they leave.
    /// For callers that hold no locks.
    pub(crate) fn kick_for_work(&self) {
        if self.must_kick.load(SeqCst) && self.must_kick.swap(false, SeqCst) {
            self.kick_one();
        }
    }

    /// Is work left over?
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.work.load(SeqCst) != 0
    }

    /// Has a vCPU, which was [idle](WakeupWord::is_idle), nothing to look for?
    #[inline]
    pub(crate) fn leaves_alone(&self, vcpu: &WakeupWord) -> bool {
        vcpu.stays_left() && !self.has_work()
    }

    /// Kicks another vCPU for noted work, as the caller's vCPU leaves without doing it.
    pub(crate) fn pass_work_on(&self) {
        if self.has_work() {
            self.kick_one();
        }
    }

    fn kick_one(&self) {
        let left = |vcpu: &WakeupWord| vcpu.needs_kick() && vcpu.take_kick();
        if let Some((_, cpu)) = self.vcpus.iter().zip(0..).find(|(vcpu, _)| left(vcpu)) {
            self.kick.kick(Cpu::new(cpu));
        }
    }

    /// Recalls vCPU `cpu`'s list registers, in which an interrupt changed, until it has
    /// [`folded`](Self::folded) them. The caller must then [`kick`](Self::kick) the vCPU. `false`:
    /// they are empty.
    pub(crate) fn recall(&self, cpu: Cpu) -> bool {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return false };
        self.recalled.fetch_add(1, SeqCst);
        let number = self.recalls.fetch_add(1, SeqCst) + 1;
        let recalled = vcpu.recall(number);
        if recalled != Some(true) {
            self.recalled.fetch_sub(1, SeqCst);
        }
        recalled.is_some()
    }

    /// A vCPU is [back](WakeupWord::returned), and has nothing in list registers any more. Was it
    /// recalled?
    pub(crate) fn folded(&self, vcpu: &WakeupWord) -> bool {
        let recalled = vcpu.folded();
        if recalled {
            self.recalled.fetch_sub(1, SeqCst);
        }
        recalled
    }

    /// The recalls so far.
    pub(crate) fn recalls(&self) -> Recalls {
        Recalls(self.recalls.load(SeqCst))
    }

    /// Has a vCPU not yet folded what one of these recalled?
    pub(crate) fn awaits(&self, Recalls(until): Recalls) -> bool {
        self.recalled.load(SeqCst) != 0
            && self.vcpus.iter().any(|vcpu| (1..=until).contains(&vcpu.recalled()))
    }
}

impl core::fmt::Debug for VcpuWakeup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VcpuWakeup").field("cpus", &self.vcpus.len()).finish_non_exhaustive()
    }
}
