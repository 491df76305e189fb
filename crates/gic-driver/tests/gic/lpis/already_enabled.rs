//! Tests for LPIs that firmware or a previous kernel left enabled.

use super::*;

#[test]
fn lpis_that_can_be_disabled_get_new_tables() {
    let fake = machine(1);
    leave_enabled(&fake, 0, true);
    let lpis = set_up(&fake, CONFIG).unwrap();
    lpis.attach(&redistributor(&fake, 0)).unwrap();
    assert!(!lpis.were_adopted());
    assert_ne!(fake.at_redistributor(0, |frame| frame.propbaser.address()), OLD_CONFIG);
}

#[test]
fn the_smallest_adopted_table_limits_the_id_bits() {
    let fake = machine(2);
    leave_enabled(&fake, 0, false);
    leave_enabled(&fake, 1, false);
    fake.at_redistributor(1, |frame| frame.propbaser = frame.propbaser.with_id_bits_minus_one(13));
    reserve(&fake, &[OLD_CONFIG]);
    assert_eq!(set_up(&fake, CONFIG).unwrap().id_bits(), 14);
}

#[test]
fn unreserved_tables_are_refused() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    let reason = AdoptionRefused::ConfigNotReserved { address: OLD_CONFIG };
    let refused = LpiError::AlreadyEnabled { block: block(0), reason };
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), refused.into());
}

#[test]
fn disabling_is_tried_without_ces() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    fake.at_redistributor(0, |frame| frame.disables = true);
    let lpis = set_up(&fake, CONFIG).unwrap();
    assert!(!lpis.were_adopted() && lpis.attach(&redistributor(&fake, 0)).is_ok());
}

#[test]
fn differing_config_tables_are_refused() {
    let fake = machine(2);
    leave_enabled(&fake, 0, false);
    leave_enabled(&fake, 1, false);
    let other = OLD_CONFIG + 0x10_0000;
    fake.at_redistributor(1, |frame| frame.propbaser = frame.propbaser.with_address(other));
    reserve(&fake, &[OLD_CONFIG, other]);
    let reason = AdoptionRefused::OtherConfigTable { found: other, expected: OLD_CONFIG };
    let refused = LpiError::AlreadyEnabled { block: block(1), reason };
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), refused.into());
}

#[test]
fn unreserved_pending_table_is_refused() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    reserve(&fake, &[OLD_CONFIG]);
    let lpis = set_up(&fake, CONFIG).unwrap();
    let reason = AdoptionRefused::PendingNotReserved { address: OLD_PENDING };
    let refused = LpiError::AlreadyEnabled { block: block(0), reason };
    assert_eq!(lpis.attach(&redistributor(&fake, 0)), Err(refused.into()));
}

#[test]
fn tables_too_small_for_lpis_are_refused() {
    let fake = machine(1);
    leave_enabled(&fake, 0, false);
    fake.at_redistributor(0, |frame| frame.propbaser = frame.propbaser.with_id_bits_minus_one(12));
    reserve(&fake, &[OLD_CONFIG]);
    assert_eq!(set_up(&fake, CONFIG).unwrap_err(), LpiError::TooFewIdBits { bits: 13 }.into());
}
