//! Lock that a guest's vCPUs hold, one at a time, while an exit uses the model's locks or those of
//! devices: for an access to the GIC or to a device, and for a piece of the work that accesses have
//! deferred. So an exit finds these locks free.
//!
//! # No exit waits for the other vCPUs' exits in turn
//!
//! A vCPU that finds the lock taken asks for it again and again. Meanwhile it takes interrupts, and
//! leaves its CPU if another vCPU needs it; its guest then repeats the access. So it doesn't keep
//! its CPU from other guests while it waits. An exit waits for other exits in two ways only:
//!
//! - The vCPU that holds the lock may wait until the others have left guest mode
//!   ([`standstill`](crate::standstill)). It kicks all of them first, and none of them needs the
//!   lock in order to leave, so the wait is as long as the longest of their exits.
//! - A vCPU that finds no deferred work enters its guest without the lock. If another vCPU defers
//!   work just then, it does a piece of it. Only one vCPU at a time does a piece, and the others
//!   don't wait for it, so the vCPU that holds the lock waits for one piece.
//!
//! # No vCPU starves
//!
//! Among the vCPUs that are asking, the lock is granted to the one whose request is the oldest. A
//! vCPU that leaves its CPU no longer asks, so others don't wait for it. But its request keeps its
//! age: once it is loaded again and its guest repeats the access, it waits for at most one other
//! vCPU and for those with older requests, of which there are fewer each time. Deferred work has no
//! request, because no vCPU runs its guest before the work is done.

use core::array;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use msi_types::Cpu;

/// Maximum number of vCPUs of a guest.
pub const MAX_VCPUS: usize = 63;
/// Bit of the lock's state that is set while a vCPU holds the lock.
const HELD: u64 = 1 << MAX_VCPUS;

#[derive(Debug)]
pub(crate) struct FairLock {
    /// [`HELD`], and a bitmap of the vCPUs that are asking.
    state: AtomicU64,
    /// For each vCPU, the number of its request, or 0 if it has none.
    requests: [AtomicU64; MAX_VCPUS],
    /// Number of requests so far.
    count: AtomicU64,
}

impl FairLock {
    pub(crate) fn new() -> Self {
        let requests = array::from_fn(|_| AtomicU64::new(0));
        Self { state: AtomicU64::new(0), requests, count: AtomicU64::new(0) }
    }

    /// Acquires the lock for an access. If this returns `false`, the vCPU must soon ask again, or
    /// [stop asking](Self::stop_asking).
    #[inline]
    pub(crate) fn ask(&self, vcpu: Cpu) -> bool {
        self.try_take(vcpu) || self.ask_in_order(vcpu)
    }

    /// Acquires the lock for an access, unless another vCPU holds it or asks for it.
    #[inline]
    pub(crate) fn try_take(&self, vcpu: Cpu) -> bool {
        let is_taken = self.try_take_to_work();
        if is_taken && let Some(request) = self.requests.get(vcpu.index()) {
            request.store(0, SeqCst);
        }
        is_taken
    }

    /// Acquires the lock for deferred work, unless another vCPU holds it or asks for it.
    #[inline]
    pub(crate) fn try_take_to_work(&self) -> bool {
        self.state.compare_exchange(0, HELD, SeqCst, SeqCst).is_ok()
    }

    #[inline]
    pub(crate) fn release(&self) {
        self.state.fetch_and(!HELD, SeqCst);
    }

    /// Declares that a vCPU that doesn't hold the lock no longer asks for it. Its request stays.
    pub(crate) fn stop_asking(&self, vcpu: Cpu) {
        self.state.fetch_and(!(1 << vcpu.get()), SeqCst);
    }

    #[cold]
    #[inline(never)]
    fn ask_in_order(&self, vcpu: Cpu) -> bool {
        let Some(request) = self.requests.get(vcpu.index()) else { return false };
        if request.load(SeqCst) == 0 {
            request.store(self.count.fetch_add(1, SeqCst) + 1, SeqCst);
        }
        let own = 1 << vcpu.get();
        let state = self.state.fetch_or(own, SeqCst) | own;
        if state & HELD != 0 || self.oldest(state) != Some(vcpu.index()) {
            return false;
        }
        // If a vCPU has begun or stopped to ask meanwhile, another one may have the oldest request.
        let held = state & !own | HELD;
        let is_taken = self.state.compare_exchange(state, held, SeqCst, SeqCst).is_ok();
        if is_taken {
            request.store(0, SeqCst);
        }
        is_taken
    }

    /// Returns the vCPU with the oldest request of those that are asking.
    fn oldest(&self, asking: u64) -> Option<usize> {
        let asking = (0..MAX_VCPUS).filter(|vcpu| asking & 1 << vcpu != 0);
        asking.min_by_key(|&vcpu| self.requests[vcpu].load(SeqCst))
    }
}
