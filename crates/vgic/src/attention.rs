//! Who must be kicked: the flag per vCPU that says it sleeps or runs guest code, and the one kick
//! that ends it.
//!
//! The protocol is store buffering, so both sides use sequentially consistent accesses:
//!
//! ```text
//! injector                          vCPU
//! makes an interrupt visible        leave(): outside := 1
//! notify(): outside set? swap 0,    looks for interrupts
//!           kick if it was 1        found one: returned(), does not sleep
//! ```
//!
//! One of the two sees what the other did, so no wake-up is lost; and of many injectors one gets
//! the 1, so there is one kick for one departure.
//!
//! Work that an access left over is told in the same way: it is noted, and one vCPU that left is
//! kicked. Each vCPU does a piece before it leaves. So it goes on as long as any vCPU is there, or
//! comes back.
//!
//! A vCPU that runs guest code with list registers takes interrupts along. Whoever changes one of
//! those *recalls* them: the change is complete once that vCPU has exited and folded its list
//! registers back.
//!
//! Recalls are numbered. A register frame or a command that promises completion ([`Awaited`]) waits
//! for recalls up to the number that was given out last when it began to wait. Each of these ends
//! when its vCPU exits, so later recalls by others do not prolong the wait.

use crate::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use crate::heap::{OutOfMemory, boxed};
use crate::progress::Progress;
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use alloc::sync::Arc;

use msi_types::{Cpu, Kick};

/// The vCPUs' flags, and the way to kick them. Shared by everything that makes interrupts pending.
pub(crate) struct Attention {
    outside: Box<[Flag]>,
    kick: Arc<dyn Kick>,
    /// How many vCPUs are recalled; for a moment also one too many.
    recalled: AtomicU64,
    /// The number of recalls so far, which is that of the latest.
    recalls: AtomicU64,
    /// How many sources have work left over.
    work: AtomicU64,
    /// There is some that no vCPU was kicked for.
    untold: AtomicBool,
}

/// The state of a vCPU's list registers. From [`RECALLED`](lists::RECALLED) on: interrupts of which
/// one changed, and the number of the recall that said so first, counted from there.
mod lists {
    /// Nothing.
    pub(super) const EMPTY: u64 = 0;
    /// Interrupts.
    pub(super) const FILLED: u64 = 1;
    /// The recall with number 0, which there is not.
    pub(super) const RECALLED: u64 = 2;
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
    pub(crate) fn is_outstanding(&self, attention: &Attention) -> bool {
        let asked = self.asked.load(SeqCst);
        if self.counted.load(SeqCst) < asked {
            // In this order: who finds `counted` up to date finds `until` as well.
            self.until.fetch_max(attention.recalls().0, SeqCst);
            self.counted.fetch_max(asked, SeqCst);
        }
        attention.awaits(Recalls(self.until.load(SeqCst)))
    }
}

/// A cache line of its own: injectors of distinct vCPUs must not meet.
#[repr(align(128))]
struct Flag {
    outside: AtomicBool,
    lists: AtomicU64,
}

impl Flag {
    fn new() -> Self {
        Self { outside: AtomicBool::new(false), lists: AtomicU64::new(lists::EMPTY) }
    }
}

impl Attention {
    pub(crate) fn new(cpus: usize, kick: Arc<dyn Kick>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            outside: boxed((0..cpus).map(|_| Flag::new()))?,
            kick,
            recalled: AtomicU64::new(0),
            recalls: AtomicU64::new(0),
            work: AtomicU64::new(0),
            untold: AtomicBool::new(false),
        })
    }

    /// vCPU `cpu` may have something to do: kicks it if it left. To be called after whatever it has
    /// to do is visible (by a sequentially consistent read-modify-write). Unknown vCPUs have
    /// nothing to do.
    pub(crate) fn notify(&self, cpu: Cpu) {
        let Some(flag) = self.outside.get(cpu.index()) else { return };
        if flag.outside.load(SeqCst)
            && (flag.outside.swap(false, SeqCst) || !Safeguard::OneKick.stands())
        {
            self.kick.kick(cpu);
        }
    }

    /// What one source of work, which holds its lock, has left over now; `left` is what it had
    /// before. [`tell_of_work`](Self::tell_of_work) is owed once the lock is released.
    pub(crate) fn note_work(&self, left: &mut bool, progress: Progress) {
        match (*left, progress) {
            (false, Progress::Unfinished) => {
                self.work.fetch_add(1, SeqCst);
                self.untold.store(true, SeqCst);
            }
            (true, Progress::Done) => {
                self.work.fetch_sub(1, SeqCst);
            }
            (false, Progress::Done) | (true, Progress::Unfinished) => {}
        }
        *left = progress == Progress::Unfinished;
    }

    /// vCPUs that are here find noted work before they leave; one of those that left is kicked. For
    /// callers that hold no locks.
    pub(crate) fn tell_of_work(&self) {
        if self.untold.load(SeqCst) && self.untold.swap(false, SeqCst) {
            self.kick_one();
        }
    }

    /// Is work left over?
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.work.load(SeqCst) != 0
    }

    /// A vCPU that was to look for work goes off instead.
    pub(crate) fn pass_work_on(&self) {
        if self.has_work() {
            self.kick_one();
        }
    }

    fn kick_one(&self) {
        let left = |flag: &Flag| flag.outside.load(SeqCst) && flag.outside.swap(false, SeqCst);
        if let Some((_, cpu)) = self.outside.iter().zip(0..).find(|(flag, _)| left(flag)) {
            self.kick.kick(Cpu::new(cpu));
        }
    }

    /// vCPU `cpu` is about to leave the model: from now on it must be kicked. It looks for
    /// interrupts afterwards.
    pub(crate) fn leave(&self, cpu: Cpu) {
        if let Some(flag) = self.outside.get(cpu.index()) {
            flag.outside.swap(true, SeqCst);
        }
    }

    /// vCPU `cpu` leaves, unless it `finds` something to do afterwards. Did it leave?
    pub(crate) fn leave_unless(&self, cpu: Cpu, finds: impl FnOnce() -> bool) -> bool {
        let stays = if Safeguard::LeaveFirst.stands() {
            self.leave(cpu);
            finds()
        } else {
            let stays = finds();
            self.leave(cpu);
            stays
        };
        if stays {
            self.returned(cpu);
        }
        !stays
    }

    /// vCPU `cpu` is back, or did not leave: it will look by itself.
    pub(crate) fn returned(&self, cpu: Cpu) {
        if let Some(flag) = self.outside.get(cpu.index()) {
            flag.outside.store(false, SeqCst);
        }
    }

    /// vCPU `cpu` is about to take interrupts into list registers.
    pub(crate) fn fills(&self, cpu: Cpu) {
        if let Some(flag) = self.outside.get(cpu.index()) {
            flag.lists.store(lists::FILLED, SeqCst);
        }
    }

    /// An interrupt in vCPU `cpu`'s list registers changed: they are recalled until it has
    /// [`folded`](Self::folded) them, and [`notify`](Self::notify) is owed. `false`: they were
    /// folded meanwhile.
    pub(crate) fn recall(&self, cpu: Cpu) -> bool {
        let Some(flag) = self.outside.get(cpu.index()) else { return false };
        self.recalled.fetch_add(1, SeqCst);
        let number = self.recalls.fetch_add(1, SeqCst) + 1;
        let recalled = lists::RECALLED + number;
        let before = flag.lists.compare_exchange(lists::FILLED, recalled, SeqCst, SeqCst);
        if before.is_err() {
            self.recalled.fetch_sub(1, SeqCst);
        }
        before != Err(lists::EMPTY)
    }

    /// vCPU `cpu` has nothing in list registers any more. Was it recalled?
    pub(crate) fn folded(&self, cpu: Cpu) -> bool {
        let Some(flag) = self.outside.get(cpu.index()) else { return false };
        let recalled = flag.lists.swap(lists::EMPTY, SeqCst) > lists::RECALLED;
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
        let among = lists::RECALLED + 1..=lists::RECALLED + until;
        self.recalled.load(SeqCst) != 0
            && self.outside.iter().any(|flag| among.contains(&flag.lists.load(SeqCst)))
    }
}

impl core::fmt::Debug for Attention {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Attention").field("cpus", &self.outside.len()).finish_non_exhaustive()
    }
}
