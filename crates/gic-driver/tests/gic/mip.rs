//! Tests for Broadcom's MIP, whose registers are written as the public names state.

use crate::fake::{Board, MIP};
use crate::v2m::wired_machine;
use gic_driver::{Mip, MipConfig, SpiError, SpiRange};
use msi_types::{
    BlockRequest, Cpu, Fit, HwIrq, MsiError, MsiMessage, MsiParent, RequesterId, Rewrite, Shape,
};
use std::num::NonZeroU16;

const DOORBELL: u64 = 0xff_ffff_f000;

fn config(first: u32, count: u16) -> MipConfig {
    let spis = SpiRange { first: HwIrq::new(first), count: NonZeroU16::new(count).unwrap() };
    MipConfig::new(MIP, spis, DOORBELL)
}

fn open(board: &Board, config: &MipConfig) -> Result<Mip<Board>, SpiError> {
    let gic = wired_machine(board);
    Mip::new(gic.platform().clone(), gic, config)
}

fn message(mip: &Mip<Board>, count: u16, shape: Shape) -> Result<MsiMessage, MsiError> {
    let device = mip.attach(RequesterId::new(1), 1).unwrap();
    let fit = Fit::new(Rewrite::Never).with_address_bits(64).with_data_bits(16);
    let count = NonZeroU16::new(count).unwrap();
    let request = BlockRequest::new(count, fit, Cpu::new(0)).with_shape(shape);
    mip.compose(&mip.allocate(&device, &request)?, 0)
}

#[test]
fn a_restored_mip_raises_edges_at_the_arm_cpus() {
    let board = Board::with_cpus(1);
    let mip = open(&board, &config(160, 64)).unwrap();
    let written = core::mem::take(&mut board.world().mip);
    mip.restore();
    assert_eq!(board.world().mip, written);
    let [all, none] = [u32::MAX, 0];
    let expected = [(0x20, all), (0x30, all), (0x40, none), (0x50, none), (0x60, all), (0x70, all)];
    assert_eq!(board.world().mip, expected.into());
}

#[test]
fn a_mip_message_carries_the_vector_number_as_data() {
    let mip = open(&Board::with_cpus(1), &config(160, 64).with_first_data(8)).unwrap();
    let expected = |data| Ok(MsiMessage { address: DOORBELL, data });
    assert_eq!(message(&mip, 1, Shape::Independent), expected(8));
    assert_eq!(message(&mip, 1, Shape::Independent), expected(9));
}

#[test]
fn a_mip_refuses_only_groups_whose_data_are_unaligned() {
    let refused = Err(MsiError::NoGroups);
    for (first_data, data) in [(0, Ok(0)), (32, Ok(32)), (8, Ok(8)), (4, refused), (1, refused)] {
        let mip = open(&Board::with_cpus(1), &config(160, 64).with_first_data(first_data)).unwrap();
        let group = message(&mip, 8, Shape::AlignedGroup);
        assert_eq!(group.map(|message| message.data), data, "{first_data}");
    }
}

#[test]
fn a_mip_that_is_described_wrongly_is_left_alone() {
    let board = Board::with_cpus(1);
    let refused = open(&board, &config(1000, 64)).unwrap_err();
    assert_eq!(
        refused,
        SpiError::NotSpis { property: "msi-ranges", first: HwIrq::new(1000), count: 64 }
    );
    board.world().unmapped.insert(MIP);
    assert_eq!(
        open(&board, &config(160, 64)).unwrap_err(),
        SpiError::NotMapped { kind: "mip", base: MIP }
    );
    board.world().unmapped.clear();
    let gic = wired_machine(&board);
    let open = || Mip::new(gic.platform().clone(), gic.clone(), &config(160, 64));
    let _owner = open().unwrap();
    board.world().mip.clear();
    assert!(matches!(open(), Err(SpiError::Claim(..))));
    assert!(board.world().mip.is_empty());
}
