//! Per-vCPU wake-up state: Wake-up protocol between vCPUs and producers of interrupts. A vCPU's
//! `needs_kick` flag is set while the vCPU is in WFI or in guest mode. Each time a vCPU sleeps or
//! enters the guest (*leaves* the model), it is kicked at most once, and no wake-up is lost.
//!
//! The protocol is an instance of the store-buffering pattern, so both sides use sequentially
//! consistent accesses:
//!
//! ```text
//! producer                              vCPU
//! makes an interrupt visible            leave(): needs_kick := 1
//! kick(): needs_kick set? swap 0,       looks for interrupts
//!         kick if it was 1              found one: returned(), does not sleep
//! ```
//!
//! At least one side observes the other, so no wake-up is lost. Of several concurrent producers,
//! only one swaps the 1 for a 0, so a vCPU is kicked at most once each time it leaves.
//!
//! Deferred work uses the same protocol: a thread records the work, then kicks one vCPU that has
//! left. Each vCPU does a piece of the work before it leaves, so the work proceeds while any vCPU
//! is in the model or returns to it.
//!
//! A vCPU that has entered the guest with empty list registers leaves its `needs_kick` set when it
//! exits. As long as the flag is set, no interrupt has arrived, because a producer that makes an
//! interrupt visible clears the flag and kicks. The next guest entry therefore only has to load the
//! flag. In exchange, the vCPU may receive one superfluous kick while it is outside the guest.
//!
//! A vCPU in guest mode holds interrupts in list registers. A change to one of these interrupts
//! *recalls* the list registers: the change is complete once the vCPU has exited and folded them.
//! The flag and the state of the list registers share one word, so entering the guest takes a
//! single read-modify-write.
//!
//! Recalls are numbered. A register frame or command that reports completion ([`Awaited`]) waits
//! for all recalls that were requested before it began to wait. A recall ends when its vCPU exits,
//! so later recalls don't prolong the wait.

mod word;

pub(crate) use word::WakeupWord;

use crate::monitor::Progress;
use crate::sync::{AtomicBool, AtomicU64, Ordering::SeqCst};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{OutOfMemory, try_arc};
use msi_types::explain::TargetState;
use msi_types::{Cpu, Kick};

/// All vCPUs' wake-up state, shared by every component that makes interrupts pending.
pub(crate) struct VcpuWakeup {
    /// Indexed by vCPU. Each vCPU also holds a reference to its own word.
    vcpus: Box<[Arc<WakeupWord>]>,
    kick: Arc<dyn Kick>,
    /// Number of recalled vCPUs. The number may briefly be too high.
    recalled: AtomicU64,
    /// Number of recalls so far, which is also the number of the latest recall.
    recalls: AtomicU64,
    /// Number of sources with deferred work.
    work: AtomicU64,
    /// `true` if work was recorded, but no vCPU has been kicked for it yet.
    must_kick: AtomicBool,
    /// `true` if a recall has ended, which counts as a source with deferred work.
    has_ended_recall: AtomicBool,
}

/// Recalls with numbers up to and including this number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Recalls(u64);

/// Recalls that a register frame is waiting for, i.e. the recalls caused by writes to the frame,
/// and all earlier recalls.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Number of changes made by writes to the frame.
    asked: AtomicU64,
    /// Number of these changes whose recalls are included in `until`.
    counted: AtomicU64,
    until: AtomicU64,
}

impl Awaited {
    pub(crate) const fn new() -> Self {
        Self { asked: AtomicU64::new(0), counted: AtomicU64::new(0), until: AtomicU64::new(0) }
    }

    /// Records that a write to the frame has caused a recall, or will cause a recall before the
    /// next call to [`is_outstanding`](Self::is_outstanding).
    pub(crate) fn ask(&self) {
        self.asked.fetch_add(1, SeqCst);
    }

    /// Returns `true` if an interrupt that an earlier write changed may still be in a list
    /// register.
    pub(crate) fn is_outstanding(&self, wakeup: &VcpuWakeup) -> bool {
        self.is_outstanding_after(|| false, wakeup)
    }

    /// Returns `true` if an earlier write's change is still in progress, which `in_progress` has to
    /// return, or if an interrupt that it changed may still be in a list register. For changes that
    /// request their recalls gradually. Writers must [`ask`](Self::ask) after beginning the change.
    ///
    /// The order of the steps matters. A change that is counted here has begun, so `in_progress`
    /// observes it. It requests its recalls before it is complete, so the latest recall's number,
    /// which is read last, includes all of them. If the number were read while the change was in
    /// progress, no later call would read it again, and the recalls requested in the meantime would
    /// never be awaited.
    pub(crate) fn is_outstanding_after(
        &self,
        in_progress: impl FnOnce() -> bool,
        wakeup: &VcpuWakeup,
    ) -> bool {
        let asked = self.asked.load(SeqCst);
        in_progress() || self.awaits_recalls(asked, wakeup)
    }

    /// Returns `true` if a recall for one of the first `asked` changes has not ended. These changes
    /// must have requested all their recalls.
    fn awaits_recalls(&self, asked: u64, wakeup: &VcpuWakeup) -> bool {
        if self.counted.load(SeqCst) < asked {
            // The order matters: a reader that finds `counted` up to date must also find `until` up
            // to date.
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
            has_ended_recall: AtomicBool::new(false),
        })
    }

    /// Returns the vCPUs' words, indexed by vCPU.
    pub(crate) fn words(&self) -> &[Arc<WakeupWord>] {
        &self.vcpus
    }

    /// Returns a vCPU's state, which determines whether an interrupt must kick it.
    pub(crate) fn target_state(&self, cpu: Cpu) -> TargetState {
        match self.vcpus.get(cpu.index()) {
            Some(word) if word.needs_kick() => TargetState::NeedsKick,
            Some(word) if word.is_kicked() => TargetState::Kicked,
            _ => TargetState::InMonitor,
        }
    }

    /// Kicks vCPU `cpu` if it is in WFI or in guest mode. Callers must first make the interrupt
    /// visible by a sequentially consistent read-modify-write. Unknown vCPUs are ignored.
    #[inline]
    pub(crate) fn kick(&self, cpu: Cpu) {
        let Some(vcpu) = self.vcpus.get(cpu.index()) else { return };
        if vcpu.needs_kick() {
            self.kick_out(cpu, vcpu);
        }
    }

    /// Kicks a vCPU that has left, unless another thread has already done so.
    #[cold]
    #[inline(never)]
    fn kick_out(&self, cpu: Cpu, vcpu: &WakeupWord) {
        if vcpu.take_kick() {
            vcpu.count_kick();
            self.kick.kick(cpu);
        }
    }

    /// Records whether one source now has deferred work. `left` is the previously recorded value,
    /// and is updated. Callers must hold the lock of the source, and must call
    /// [`kick_for_work`](Self::kick_for_work) after releasing it.
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

    /// If deferred work was recorded, kicks one vCPU that is asleep or in the guest. Other vCPUs
    /// find the work before they leave. Callers must not hold any locks.
    pub(crate) fn kick_for_work(&self) {
        if self.must_kick.load(SeqCst) && self.must_kick.swap(false, SeqCst) {
            self.kick_one();
        }
    }

    /// Returns `true` if a source has deferred work.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        self.work.load(SeqCst) != 0
    }

    /// Returns `true` if an [idle](WakeupWord::is_idle) vCPU doesn't have to check for interrupts
    /// or work.
    #[inline]
    pub(crate) fn leaves_alone(&self, vcpu: &WakeupWord) -> bool {
        vcpu.stays_left() && !self.has_work()
    }

    /// Kicks another vCPU to do deferred work, because the caller's vCPU is leaving without doing
    /// it.
    pub(crate) fn pass_work_on(&self) {
        if self.has_work() {
            self.kick_one();
        }
    }

    fn kick_one(&self) {
        let left = |vcpu: &WakeupWord| vcpu.needs_kick() && vcpu.take_kick();
        if let Some((vcpu, cpu)) = self.vcpus.iter().zip(0..).find(|(vcpu, _)| left(vcpu)) {
            vcpu.count_kick();
            self.kick.kick(Cpu::new(cpu));
        }
    }

    /// Recalls vCPU `cpu`'s list registers after an interrupt in them has changed. The recall ends
    /// when the vCPU has [`folded`](Self::folded) its list registers. Returns `false` if the list
    /// registers are empty. Callers must then [`kick`](Self::kick) the vCPU.
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

    /// Records that a vCPU has [returned](WakeupWord::returned) and its list registers are empty.
    /// If the vCPU had been recalled, whatever waited for it becomes deferred work.
    pub(crate) fn folded(&self, vcpu: &WakeupWord) {
        self.end_recall(vcpu.folded());
    }

    /// Records the same of a vCPU that [enters](WakeupWord::enter) again immediately.
    pub(crate) fn folded_to_enter(&self, vcpu: &WakeupWord) {
        self.end_recall(vcpu.folded_to_enter());
    }

    fn end_recall(&self, recalled: bool) {
        if recalled {
            self.recalled.fetch_sub(1, SeqCst);
            self.note_ended_recall();
        }
    }

    /// Records that a recall has ended, so whatever waited for it is deferred work.
    pub(crate) fn note_ended_recall(&self) {
        if !self.has_ended_recall.swap(true, SeqCst) {
            self.work.fetch_add(1, SeqCst);
        }
    }

    /// Returns `true` if a recall has ended since the last call. The caller must then resume
    /// whatever waited for it.
    pub(crate) fn take_ended_recall(&self) -> bool {
        let has_ended = self.has_ended_recall.swap(false, SeqCst);
        if has_ended {
            self.work.fetch_sub(1, SeqCst);
        }
        has_ended
    }

    /// Returns all recalls requested so far.
    pub(crate) fn recalls(&self) -> Recalls {
        Recalls(self.recalls.load(SeqCst))
    }

    /// Returns `true` if a vCPU has not yet folded its list registers for one of these recalls.
    pub(crate) fn awaits(&self, Recalls(until): Recalls) -> bool {
        self.recalled.load(SeqCst) != 0
            && self.vcpus.iter().any(|vcpu| (1..=until).contains(&vcpu.recalled()))
    }
}

msi_types::debug_by!(VcpuWakeup as "VcpuWakeup", |it| {cpus: it.vcpus.len()});
