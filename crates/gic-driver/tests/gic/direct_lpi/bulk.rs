//! Bulk operation tests: many vectors should need only one register write.

use super::endpoint::{StoreKind, attach, fit, request};
use crate::fake::Board;
use msi_types::{MsiParent, Shape};

/// Counts the invalidations at CPU 0 while `count` vectors are allocated.
fn invalidations_for(count: u16) -> u32 {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = attach(&direct);
    let before = board.world().rd(0).invalidations;
    let request = request(fit(StoreKind::Masked), count, 0).with_shape(Shape::Independent);
    let block = direct.allocate(&device, &request).unwrap();
    let count = board.world().rd(0).invalidations - before;
    direct.free(&device, block);
    count
}

#[test]
fn many_vectors_are_invalidated_at_once() {
    assert_eq!([1, 3, 15].map(invalidations_for), [1, 3, 15]);
    assert_eq!([16, 30, 64].map(invalidations_for), [1; 3]);
}
