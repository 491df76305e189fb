//! Lock for which a guest's vCPUs ask again and again, so that their CPUs stay available to other
//! guests meanwhile.
//!
//! A vCPU holds the lock while it enters the guest, and while it handles an access to the GIC or to
//! a device. So none of the model's locks is taken when it gets there, and no exit waits for
//! another vCPU's. A vCPU that waits handles interrupts, and leaves its CPU if another vCPU needs
//! it; its guest then repeats the access.
//!
//! The lock is fair among the vCPUs that keep their CPUs: it passes to the next vCPU that waits, in
//! the order of their numbers, and each of them is loaded, so it soon asks again. Such a vCPU waits
//! at most once for each of the others. A vCPU whose time slice ends while it waits asks anew in
//! its next one.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use msi_types::Cpu;

/// Maximum number of vCPUs of a guest.
pub const MAX_VCPUS: usize = 32;

/// State of the lock: in the upper half, the number of the vCPU that holds it plus 1, and in the
/// lower half, a bitmap of the vCPUs that wait.
#[derive(Debug, Default)]
pub(crate) struct FairLock(AtomicU64);

impl FairLock {
    /// Acquires the lock, unless another vCPU holds it. If this returns `false`, the vCPU must call
    /// again or [`release`](Self::release) the lock before it runs guest code or leaves its CPU.
    /// Returns `true` if the vCPU already holds the lock.
    #[inline]
    pub(crate) fn try_take(&self, vcpu: Cpu) -> bool {
        let own = held_by(vcpu.get());
        self.0.compare_exchange(0, own, SeqCst, SeqCst).is_ok() || self.wait(vcpu)
    }

    /// Passes the lock on if the vCPU holds it. Otherwise, the vCPU no longer waits.
    #[inline]
    pub(crate) fn release(&self, vcpu: Cpu) {
        let own = held_by(vcpu.get());
        let is_free = self.0.load(SeqCst) == 0;
        if !is_free && self.0.compare_exchange(own, 0, SeqCst, SeqCst).is_err() {
            self.pass_on(vcpu);
        }
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, vcpu: Cpu) -> bool {
        let taken = self.0.fetch_update(SeqCst, SeqCst, |state| match state {
            0 => Some(held_by(vcpu.get())),
            _ if is_held_by(state, vcpu) => None,
            _ => Some(state | 1 << vcpu.get()),
        });
        !matches!(taken, Ok(1..))
    }

    #[cold]
    #[inline(never)]
    fn pass_on(&self, vcpu: Cpu) {
        _ = self.0.fetch_update(SeqCst, SeqCst, |state| {
            let (waiting, after) = (state as u32 & !(1 << vcpu.get()), vcpu.get() + 1);
            if !is_held_by(state, vcpu) {
                return Some(state & !(1 << vcpu.get()));
            }
            let next = (after + waiting.rotate_right(after).trailing_zeros()) % u32::BITS;
            let passed = || held_by(next) | u64::from(waiting & !(1 << next));
            Some(if waiting == 0 { 0 } else { passed() })
        });
    }
}

const fn held_by(vcpu: u32) -> u64 {
    (vcpu as u64 + 1) << u32::BITS
}

fn is_held_by(state: u64, vcpu: Cpu) -> bool {
    state >> u32::BITS == u64::from(vcpu.get()) + 1
}
