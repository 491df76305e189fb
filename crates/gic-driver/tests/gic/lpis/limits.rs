//! Limits on the number of LPIs, and refusals.

use super::*;

#[test]
fn fewer_than_fourteen_id_bits_are_refused() {
    let refused = set_up(&machine(1), CONFIG.with_id_bits(Some(13))).unwrap_err();
    assert_eq!(refused, LpiError::TooFewIdBits { bits: 13 }.into());
}

#[test]
fn a_distributor_without_lpis_is_refused() {
    let fake = machine(1);
    fake.at_distributor(|frame| frame.typer = frame.typer.with_lpis(false));
    let refused = LpiError::NotSupported(Block::Distributor(DISTRIBUTOR));
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), refused.into());
}

#[test]
fn a_redistributor_without_lpis_is_refused() {
    let fake = machine(1);
    fake.at_redistributor(0, |frame| frame.typer = frame.typer.with_plpis(false));
    let lpis = set_up(&fake, CONFIG).unwrap();
    let refused = LpiError::NotSupported(block(0));
    assert_eq!(lpis.attach(&redistributor(&fake, 0)), Err(refused.into()));
}

#[test]
fn lpis_are_refused_in_the_secure_view() {
    let fake = Board::with(FakeDistributor::new(Security::Secure), vec![]);
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), LpiError::SecureView.into());
}

#[test]
fn misplaced_memory_is_freed_and_refused() {
    let fake = machine(1);
    fake.in_memory(|memory| memory.misplaced = Some((0, 0x800)));
    let refused = set_up(&fake, CONFIG).unwrap_err();
    assert!(matches!(refused, GicError::Lpi(LpiError::Misplaced { address: 0x1_4000_0800, .. })));
    assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
}

#[test]
fn memory_beyond_the_limit_is_freed_and_refused() {
    let fake = machine(1);
    let narrow = CONFIG.with_address_bits(32);
    fake.in_memory(|memory| memory.misplaced = Some((0, 1 << 32)));
    let refused = set_up(&fake, narrow).unwrap_err();
    assert!(matches!(refused, GicError::Lpi(LpiError::Misplaced { .. })));
    assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
}

#[test]
fn unused_tables_are_freed() {
    let fake = machine(1);
    drop(set_up(&fake, CONFIG).unwrap());
    assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
}

#[test]
fn tables_that_a_redistributor_uses_stay_allocated() {
    let fake = machine(2);
    let lpis = set_up(&fake, CONFIG).unwrap();
    lpis.attach(&redistributor(&fake, 0)).unwrap();
    drop(lpis);
    assert_eq!(
        fake.in_memory(|memory| memory.live_regions()),
        2,
        "all but the other CPU's table stay allocated"
    );
}
