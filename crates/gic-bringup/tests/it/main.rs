//! Tests for [`Irqchip`](gic_bringup::Irqchip), run against the device model of a GICv3 with an
//! ITS, and for the configurations that it derives from descriptions.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod bridge;
mod changes;
mod choices;
mod config;
mod explain;
mod guide;
mod hotplug;
mod machine;
mod out_of_memory;
mod public_threads;
mod second_boot;
mod setup;
mod suspend;

use gic_bringup::ControllerError;
use machine::Machine;
use msi_types::RequesterId;

#[test]
fn controllers_of_a_secondary_gic_are_refused() {
    let chip = Machine::new().with_its_of_secondary_gic().bring_up().unwrap();
    let refused: Vec<_> = chip.refused().map(|(_, reason)| reason).collect();
    assert_eq!(refused, [ControllerError::SecondaryGic]);
    let host = chip.description().hosts.first().unwrap();
    assert!(chip.pci_parent(host, RequesterId::pci(0, 1, 0)).is_err());
}
