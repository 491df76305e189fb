//! Many at once: one register does for all what another does for each.

use super::board::Board;
use super::endpoint::{Kind, attach, fit, request};
use msi_types::{BlockRequest, MsiParent, Shape};

/// Accesses to the Direct LPI registers of CPU 0 while so many vectors are handed out.
fn accesses_for(count: u16) -> u32 {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = attach(&direct);
    let before = board.world().rd(0).direct_writes;
    let request = BlockRequest { shape: Shape::Independent, ..request(fit(Kind::Masked), count, 0) };
    let block = direct.allocate(&device, &request).unwrap();
    let accesses = board.world().rd(0).direct_writes - before;
    direct.free(&device, block);
    accesses
}

#[test]
fn few_vectors_are_invalidated_one_by_one_and_many_all_at_once() {
    // Beside that, all wait for GICR_SYNCR alike.
    let one = accesses_for(1);
    assert_eq!([3, 15].map(accesses_for), [one + 2, one + 14]);
    assert_eq!([16, 30, 64].map(accesses_for), [one; 3]);
}
