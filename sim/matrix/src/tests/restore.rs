//! Tests for PCI functions that have been reset.

use super::super::trial::Trial;
use super::*;

#[test]
fn a_reset_function_sends_no_messages_until_its_restore() {
    for endpoint in Endpoint::FUNCTIONS {
        let board = board(Parent::Its, Layer::DoorbellMapping, World::BareMetal);
        let trial = Trial::begin(&board, endpoint).unwrap();
        trial.deliver().unwrap();
        trial.reset();
        assert!(trial.deliver().is_err(), "{endpoint}: a reset function must not send");
        trial.restore().unwrap();
        trial.deliver().unwrap();
        trial.travel().unwrap();
        trial.end().unwrap();
        board.check_quiet().unwrap();
    }
}
