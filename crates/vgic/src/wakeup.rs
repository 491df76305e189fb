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

use crate::heap::{OutOfMemory, boxed};
use crate::progress::Progress;
use crate::sync::{AtomicBool, AtomicU64, Ordering::SeqCst};
use alloc::boxed::Box;
use alloc::sync::Arc;

use msi_types::{Cpu, Kick};

/// The wake-up state of all vCPUs. Shared by everything that makes interrupts pending.
pub(crate) struct VcpuWakeup {
    vcpus: Box<[VcpuState]>,
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

/// Bits of [`VcpuState`].
mod state {
    /// The vCPU is in WFI or in guest mode, or was so and stays left.
    pub(super) const NEEDS_KICK: u64 = 1 << 0;
    /// It has interrupts in list registers.
    pub(super) const FILLED: u64 = 1 << 1;
    /// From this bit on: the number of the recall that first said that one of these changed, or 0.
    pub(super) const RECALL_SHIFT: u32 = 2;
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

/// A cache line of its own: injectors of distinct vCPUs must not meet.
#[repr(align(128))]
struct VcpuState(AtomicU64);

impl VcpuState {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    fn needs_kick(&self) -> bool {
        self.0.load(SeqCst) & state::NEEDS_KICK != 0
    }

    /// The vCPU needs no kick any more. Did it?
    fn take_kick(&self) -> bool {
        self.0.fetch_and(!state::NEEDS_KICK, SeqCst) & state::NEEDS_KICK != 0
    }
}

impl VcpuWakeup {
    pub(crate) fn new(cpus: usize, kick: Arc<dyn Kick>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            vcpus: boxed((0..cpus).map(|_| VcpuState::new()))?,
            kick,
            recalled: AtomicU64::new(0),
            recalls: AtomicU64::new(0),
            work: AtomicU64::new(0),
            must_kick: AtomicBool::new(false),
        })
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
    fn kick_out(&self, cpu: Cpu, vcpu: &VcpuState) {
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

    /// Kicks another vCPU for noted work, as the caller's vCPU leaves without doing it.
    pub(crate) fn pass_work_on(&self) {
        if self.has_work() {
            self.kick_one();
        }
    }

    fn kick_one(&self) {
        let left = |vcpu: &VcpuState| vcpu.needs_kick() && vcpu.take_kick();
        if let Some((_, cpu)) = self.vcpus.iter().zip(0..).find(|(vcpu, _)| left(vcpu)) {
            self.kick.kick(Cpu::new(cpu));
        }
    }

    /// vCPU `cpu` is about to leave the model: from now on it must be kicked. It looks for
    /// interrupts afterwards.
    pub(crate) fn leave(&self, cpu: Cpu) {
        if let Some(vcpu) = self.vcpus.get(cpu.index()) {
            vcpu.0.fetch_or(state::NEEDS_KICK, SeqCst);
        }
    }

    /// vCPU `cpu` leaves, unless it `finds` something to do afterwards. Did it leave?
    pub(crate) fn leave_unless(&self, cpu: Cpu, finds: impl FnOnce() -> bool) -> bool {
        self.leave(cpu);
        let stays = finds();
        if stays {
            self.returned(cpu);
        }
        !stays
    }

    /// vCPU `cpu` is back, or did not leave: it will look by itself. It alone sets the flag, so it
    /// finds it clear only after a kick.
    pub(crate) fn returned(&self, cpu: Cpu) {
        if let Some(vcpu) = self.vcpus.get(cpu.index())
            && vcpu.needs_kick()
        {
            vcpu.take_kick();
        }
    }

    /// Has vCPU `cpu`, which stayed left, nothing to look for?
    #[inline]
    pub(crate) fn is_left_alone(&self, cpu: Cpu) -> bool {
        self.vcpus.get(cpu.index()).is_some_and(VcpuState::needs_kick) && !self.has_work()
    }

    /// vCPU `cpu`, whose list registers are empty, [leaves](Self::leave) to take interrupts into
    /// them.
    pub(crate) fn enter(&self, cpu: Cpu) {
        if let Some(vcpu) = self.vcpus.get(cpu.index()) {
            vcpu.0.swap(state::NEEDS_KICK | state::FILLED, SeqCst);
        }
    }

    /// vCPU `cpu` [entered](Self::enter) and took nothing: there is nothing to recall. `false`: it
    /// was kicked or recalled meanwhile.
    pub(crate) fn took_nothing(&self, cpu: Cpu) -> bool {
        let (filled, empty) = (state::NEEDS_KICK | state::FILLED, state::NEEDS_KICK);
        let vcpu = self.vcpus.get(cpu.index());
        vcpu.is_some_and(|vcpu| vcpu.0.compare_exchange(filled, empty, SeqCst, SeqCst).is_ok())
    }

    /// Recalls vCPU `cpu`'s list registers, in which an interrupt changed, until it has
    /// [`folded`](Self::folded) them. The caller must then [`kick`](Self::kick) the vCPU. `false`:
    /// they are empty.
    pub(crate) fn recall(&self, cpu: Cpu) -> bool {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return false };
        self.recalled.fetch_add(1, SeqCst);
        let number = self.recalls.fetch_add(1, SeqCst) + 1;
        let mut seen = vcpu.0.load(SeqCst);
        while seen & state::FILLED != 0 && seen >> state::RECALL_SHIFT == 0 {
            let recalled = seen | number << state::RECALL_SHIFT;
            match vcpu.0.compare_exchange(seen, recalled, SeqCst, SeqCst) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        self.recalled.fetch_sub(1, SeqCst);
        seen & state::FILLED != 0
    }

    /// vCPU `cpu` is [back](Self::returned), and has nothing in list registers any more. Was it
    /// recalled?
    pub(crate) fn folded(&self, cpu: Cpu) -> bool {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return false };
        let recalled = vcpu.0.swap(0, SeqCst) >> state::RECALL_SHIFT != 0;
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
        let recall = |vcpu: &VcpuState| vcpu.0.load(SeqCst) >> state::RECALL_SHIFT;
        self.recalled.load(SeqCst) != 0
            && self.vcpus.iter().any(|vcpu| (1..=until).contains(&recall(vcpu)))
    }
}

impl core::fmt::Debug for VcpuWakeup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VcpuWakeup").field("cpus", &self.vcpus.len()).finish_non_exhaustive()
    }
}
