//! The rules of one interrupt's state.

use crate::interrupt::InterruptWord;
use msi_types::Level;

const LEVEL: InterruptWord = InterruptWord::new().with_enabled(true);
const EDGE: InterruptWord = LEVEL.with_edge(true);

#[test]
fn a_level_is_pending_while_the_line_is_high() {
    let high = LEVEL.driven(Level::High);
    assert!(high.pending());
    assert!(high.acknowledged().pending(), "active and pending");
    assert!(!high.driven(Level::Low).pending());
}

#[test]
fn an_edge_is_pending_until_acknowledged() {
    let fired = EDGE.driven(Level::High).driven(Level::Low);
    assert!(fired.pending());
    assert!(!fired.acknowledged().pending());
}

#[test]
fn a_line_that_stays_high_is_no_second_edge() {
    let acknowledged = EDGE.driven(Level::High).acknowledged();
    assert!(!acknowledged.driven(Level::High).pending());
    assert!(acknowledged.driven(Level::Low).driven(Level::High).pending());
}

#[test]
fn each_pulse_is_an_edge_whatever_the_line_does() {
    for level in [Level::Low, Level::High] {
        let acknowledged = EDGE.driven(level).acknowledged();
        assert!(acknowledged.pulsed().pending());
        assert_eq!(acknowledged.pulsed().line(), acknowledged.line());
    }
}

#[test]
fn a_level_is_unaffected_by_pulses() {
    for state in [LEVEL, LEVEL.driven(Level::High), LEVEL.driven(Level::High).acknowledged()] {
        assert_eq!(state.pulsed(), state);
    }
}

#[test]
fn an_active_interrupt_is_not_ready() {
    let again = LEVEL.driven(Level::High).acknowledged();
    assert!(!again.ready());
    assert!(again.with_active(false).ready());
}
