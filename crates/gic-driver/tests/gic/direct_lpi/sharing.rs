//! Tests for systems with both direct LPIs and an ITS.

use super::endpoint::{Endpoint, StoreKind, request, taken};
use crate::fake::{Board, ITS, REDISTRIBUTOR};
use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
use gic_driver::its::ProbeError;
use gic_driver::lpi::LpiMessages;
use gic_driver::{Its, ItsConfig, LpiError};
use msi_types::{
    DoorbellPage, Fit, Granule, InterruptIsolated, Isolation, MsiMessage, MsiParent, NotIsolated,
    RequesterId, Rewrite,
};

const ANY: Fit = Fit::new(Rewrite::Masked);

#[test]
fn attach_allocates_no_lpis() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let free = direct.gic().lpis().unwrap().available();
    board.world().memory.allowance = Some(0);
    let attachments: Vec<_> =
        (0..1000).map(|device| direct.attach(RequesterId::new(device), 2048).unwrap()).collect();
    assert_eq!(direct.gic().lpis().unwrap().available(), free, "attaching allocates no LPI");
    let lpis = |device: usize| direct.allocate(&attachments[device], &request(ANY, 1, 0)).unwrap();
    let blocks = [lpis(7), lpis(999), lpis(7)];
    assert_eq!(
        blocks.each_ref().map(|block| block.first().get()),
        [8192, 8193, 8194],
        "all devices share one range of LPIs"
    );
    // The driver does not record the device for which an LPI was allocated.
    for block in blocks {
        direct.free(&attachments[0], block);
    }
    assert_eq!(direct.gic().lpis().unwrap().available(), free);
    for attachment in attachments {
        direct.detach(attachment);
    }
}

#[test]
fn direct_lpis_need_no_its() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    device.fire(&board, 0);
    assert_eq!(taken(&board, 0), [device.lpi(0)]);
}

#[test]
fn missing_direct_lpi_support_is_refused_without_register_writes() {
    let board = Board::new(3, 0);
    let typer = board.world().rd(1).typer;
    board.world().rd(1).typer = typer.with_direct_lpi(false);
    let refused = board.direct_lpi().unwrap_err();
    assert_eq!(refused, DirectLpiError::NotDirect { address: REDISTRIBUTOR + 0x2_0000 });
    assert!((0..3).all(|cpu| board.world().rd(cpu).direct_writes == 0));
    assert!(refused.to_string().contains("GICR_TYPER.DirectLPI"), "{refused}");
}

#[test]
fn an_its_beside_direct_lpis_is_refused() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let its = |direct: &DirectLpi<Board>| {
        Its::new(direct.gic().clone(), &ItsConfig::new(ITS, 1)).map(|_| ())
    };
    let reason = LpiError::Claimed { by: LpiMessages::Direct };
    assert_eq!(its(&direct), Err(ProbeError::Lpis { base: ITS, reason }));
    let refused = DirectLpi::new(direct.gic().clone()).unwrap_err();
    assert_eq!(
        refused,
        DirectLpiError::Lpi(reason),
        "a second driver of direct LPIs is refused, too"
    );
}

#[test]
fn direct_lpis_beside_an_its_are_refused() {
    let board = Board::new(2, 0);
    let gic = board.running_gic();
    // The ITS can't be mapped, but its presence rules out direct LPIs.
    let probed = Its::new(gic.clone(), &ItsConfig::new(ITS, 2));
    assert_eq!(probed.unwrap_err(), ProbeError::Unmappable(ITS));
    let refused = DirectLpi::new(gic).unwrap_err();
    assert_eq!(refused, DirectLpiError::Lpi(LpiError::Claimed { by: LpiMessages::Translated }));
    assert!((0..2).all(|cpu| board.world().rd(cpu).direct_writes == 0));
}

#[test]
fn direct_lpis_that_failed_can_be_tried_again() {
    let board = Board::new(1, 0);
    let gic = board.running_gic();
    board.world().rd(0).stuck_invalidation = true;
    assert!(matches!(DirectLpi::new(gic.clone()), Err(DirectLpiError::Fault(_))));
    board.world().rd(0).stuck_invalidation = false;
    assert!(DirectLpi::new(gic).is_ok());
}

#[test]
fn no_requester_is_isolated() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    for requester in [0, 1, 0x100, 0xffff, u32::MAX] {
        let answer = direct.isolation(RequesterId::new(requester));
        assert!(matches!(
            answer,
            Isolation::NotIsolated(NotIsolated::DoorbellPageHoldsControls(_))
        ));
        assert!(InterruptIsolated::prove(&direct, RequesterId::new(requester)).is_err());
        for register in ["GICR_SETLPIR", "GICR_CTLR", "GICR_PROPBASER", "GICR_PENDBASER"] {
            assert!(answer.to_string().contains(register), "{answer}");
        }
    }
    for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
        assert!(matches!(direct.doorbell_page(granule), DoorbellPage::HoldsControls(_)));
    }
    // A device can exploit this to trigger another device's interrupt.
    let victim = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let rogue = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    board.world().write_message(MsiMessage { data: victim.lpi(0), ..rogue.message() });
    assert_eq!(taken(&board, 0), [victim.lpi(0)]);
}

#[test]
fn every_device_reaches_every_redistributor() {
    let board = Board::new(3, 2);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    for cpu in [4, 1, 3, 0, 2] {
        device.relocate(&board, &direct, 0, cpu, &|| ()).unwrap();
        device.fire(&board, 0);
        assert_eq!(taken(&board, cpu), [device.lpi(0)]);
    }
}
