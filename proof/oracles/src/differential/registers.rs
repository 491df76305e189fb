//! The registers that are compared at the end of each case.

use super::access::Width;
use super::address_map::{
    BASER0, BASER1, CBASER, CPUS, CREADR, CTLR, CWRITER, GICD, ITS, PENDBASER, PROPBASER,
    SGI_FRAME, WAKER, redistributor,
};

/// Number of INTIDs that have distributor registers, including the INTIDs that are private to a
/// CPU.
const INTIDS: u64 = 288;

/// Distributor arrays that hold state, given as the offset and the number of bits (one, two or
/// eight) per interrupt.
const FIELDS: [(u64, u64); 6] =
    [(0x0080, 1), (0x0100, 1), (0x0200, 1), (0x0300, 1), (0x0400, 8), (0x0C00, 2)];

/// Returns the registers that show the state of wired interrupts.
pub(super) fn wired() -> impl Iterator<Item = (u64, Width)> {
    distributor().chain((0..CPUS).flat_map(private))
}

/// Returns the registers that show the state of LPIs.
pub(super) fn of_lpis() -> impl Iterator<Item = (u64, Width)> {
    let redistributors = (0..CPUS).flat_map(|cpu| {
        let base = redistributor(cpu);
        let doubles = [PROPBASER, PENDBASER].map(|offset| (base + offset, Width::Double));
        [(base + CTLR, Width::Word)].into_iter().chain(doubles)
    });
    redistributors.chain(its())
}

fn distributor() -> impl Iterator<Item = (u64, Width)> {
    let arrays = FIELDS.into_iter().flat_map(|(offset, bits)| {
        (0..INTIDS * bits / 32).map(move |index| (GICD + offset + 4 * index, Width::Word))
    });
    let routes = (32..INTIDS).map(|intid| (GICD + 0x6000 + 8 * intid, Width::Double));
    [(GICD + CTLR, Width::Word)].into_iter().chain(arrays).chain(routes)
}

fn private(cpu: u16) -> impl Iterator<Item = (u64, Width)> {
    let base = redistributor(cpu);
    let fields = FIELDS.into_iter().flat_map(move |(offset, bits)| {
        (0..bits).map(move |index| (base + SGI_FRAME + offset + 4 * index, Width::Word))
    });
    [(base + WAKER, Width::Word)].into_iter().chain(fields)
}

fn its() -> impl Iterator<Item = (u64, Width)> {
    let doubles =
        [CBASER, CWRITER, CREADR, BASER0, BASER1].map(|offset| (ITS + offset, Width::Double));
    [(ITS + CTLR, Width::Word)].into_iter().chain(doubles)
}
