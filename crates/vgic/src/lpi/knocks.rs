//! LPIs that were rung by `GICR_SETLPIR` and have no slot at their redistributor yet: nothing was rung or invalidated
//! near them before. Room is not made by whoever rings, who must not wait, but by the vCPU when it looks next.
//!
//! A ring sets a bit, says that there are some, and notifies; so a vCPU never sleeps over one. The bits are taken under
//! the command lock, and made pending before it is released: what was rung before LPIs are disabled or saved is admitted
//! first. Whoever comes too late cannot take its bit back, which may be another's as well: enabling LPIs forgets what is
//! left.

use super::hints::Page;
use crate::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use crate::safeguard::Safeguard;
use alloc::boxed::Box;
use gic_arch::Lpi;
use once_cell::race::OnceBox;

const LEAF_BITS: u32 = 6;
const PAGE_BITS: u32 = 2 * LEAF_BITS;
const LEAF_MASK: u32 = (1 << LEAF_BITS) - 1;
/// Up to this INTID, a ring finds memory for its bit: as much as the pending table has. PCI messages name no others.
const PROVIDED: u32 = 1 << 16;

/// The rings of one redistributor.
#[repr(align(128))]
pub(super) struct Knocks {
    /// 1 if there may be some.
    any: AtomicU32,
    /// What is rung is below this INTID; 0 while LPIs are disabled. From bit 32 on: how often LPIs were enabled or
    /// disabled.
    end: AtomicU64,
    pages: Box<[OnceBox<Page>]>,
}

impl Knocks {
    /// Of a redistributor with this many INTID bits. LPIs are disabled.
    pub(super) fn new(id_bits: u8) -> Self {
        let pages = (1u32 << id_bits).saturating_sub(Lpi::FIRST.get()).div_ceil(1 << PAGE_BITS);
        let pages = (0..pages).map(|_| OnceBox::new()).collect();
        Self { any: AtomicU32::new(0), end: AtomicU64::new(0), pages }
    }

    /// LPIs below this INTID can be rung now, and none was. Under the command lock.
    pub(super) fn open(&self, end: u32) {
        let provided = end.min(PROVIDED).saturating_sub(Lpi::FIRST.get()).div_ceil(1 << PAGE_BITS);
        for page in self.pages.iter().take(provided as usize) {
            page.get_or_init(|| Box::new(Page::new()));
        }
        if Safeguard::ForgetLate.stands() {
            self.leaves().for_each(|leaf| drop(self.take(leaf)));
        }
        self.set_end(end);
    }

    /// LPIs are disabled. What was rung before is still there. Under the command lock.
    pub(super) fn close(&self) {
        self.set_end(0);
    }

    fn set_end(&self, end: u32) {
        let times = (self.end.load(SeqCst) >> 32).wrapping_add(1);
        self.end.store((times << 32) | u64::from(end), SeqCst);
    }

    /// Can this LPI be rung?
    pub(super) fn takes(&self, lpi: Lpi) -> bool {
        is_below(lpi, self.end.load(SeqCst))
    }

    /// Rings; `false` if that is too high, or may have been too late. Lock-free; whoever rings owes the vCPU a
    /// notification.
    pub(super) fn ring(&self, lpi: Lpi) -> bool {
        loop {
            let end = self.end.load(SeqCst);
            if !is_below(lpi, end) || !self.set(lpi) {
                return false;
            }
            // Whoever disabled or enabled LPIs meanwhile may have looked for rings before, or forgotten this one.
            if self.end.load(SeqCst) == end || !Safeguard::RingAgain.stands() {
                break;
            }
        }
        if Safeguard::FlagLast.stands() {
            self.any.store(1, SeqCst);
        }
        true
    }

    /// Sets an LPI's bit. `false`: it has none.
    fn set(&self, lpi: Lpi) -> bool {
        let leaf = lpi.index() >> LEAF_BITS;
        let Some(page) = self.pages.get((leaf >> LEAF_BITS) as usize) else { return false };
        let page = page.get_or_init(|| Box::new(Page::new()));
        if !Safeguard::FlagLast.stands() {
            self.any.store(1, SeqCst);
        }
        page.leaf(leaf).fetch_or(bit(lpi), SeqCst);
        page.summary.fetch_or(1 << (leaf & LEAF_MASK), SeqCst);
        true
    }

    /// An LPI was taken back.
    pub(super) fn forget(&self, lpi: Lpi) {
        let leaf = lpi.index() >> LEAF_BITS;
        if let Some(page) = self.page(leaf) {
            page.leaf(leaf).fetch_and(!bit(lpi), SeqCst);
        }
    }

    fn page(&self, leaf: u32) -> Option<&Page> {
        self.pages.get((leaf >> LEAF_BITS) as usize)?.get()
    }

    /// May there be some?
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.any.load(SeqCst) != 0
    }

    /// The vCPU visits them, each leaf at most once. It looks for interrupts afterwards.
    pub(super) fn visit(&self, admit: impl FnMut(Leaf)) {
        self.any.store(0, SeqCst);
        self.leaves().for_each(admit);
    }

    /// Where there may be some, ascending.
    pub(super) fn leaves(&self) -> impl Iterator<Item = Leaf> {
        (0u32..).zip(&self.pages).filter_map(|(at, page)| Some((at, page.get()?))).flat_map(|(at, page)| {
            let mut left = page.summary.load(SeqCst);
            core::iter::from_fn(move || {
                let lowest = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(Leaf((at << LEAF_BITS) | lowest))
            })
        })
    }

    /// Takes a leaf's. Under the command lock.
    pub(super) fn take(&self, Leaf(leaf): Leaf) -> impl Iterator<Item = Lpi> + use<> {
        let mut left = self.page(leaf).map_or(0, |page| {
            page.summary.fetch_and(!(1 << (leaf & LEAF_MASK)), SeqCst);
            page.leaf(leaf).swap(0, SeqCst)
        });
        core::iter::from_fn(move || {
            let lowest = (left != 0).then(|| left.trailing_zeros())?;
            left &= left - 1;
            Lpi::from_index((leaf << LEAF_BITS) | lowest)
        })
    }
}

const fn bit(lpi: Lpi) -> u64 {
    1 << (lpi.index() & LEAF_MASK)
}

fn is_below(lpi: Lpi, end: u64) -> bool {
    u64::from(lpi.get()) < end & u64::from(u32::MAX)
}

/// 64 LPIs that lie beside each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Leaf(u32);
