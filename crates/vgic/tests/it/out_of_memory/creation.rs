//! Tests for creating machines with an exhausted heap.

use super::config;
use crate::saved_state::board::Board;
use doorbell_test_support::{failures_until, with_allocations};
use msi_types::{Cpu, Level, Line, SetLine};
use vgic::{ConfigError, OutOfMemory, Vgic, VgicConfig};

#[test]
fn creating_a_machine_without_heap_is_an_error() {
    let board = Board::new(config());
    let failures = failures_until(|allocations| {
        let (config, ram, kicks) = (config(), board.ram.clone(), board.kicks.clone());
        match with_allocations(allocations, || Vgic::new(config, ram, kicks)) {
            Ok((_, vcpus)) => vcpus.len() == 3,
            Err(error) => {
                assert_eq!(error, ConfigError::OutOfMemory(OutOfMemory));
                false
            }
        }
    });
    assert!(failures >= 40, "{failures} allocations failed");
}

#[test]
fn creating_a_configuration_without_heap_is_an_error() {
    let made = |allocations| with_allocations(allocations, || VgicConfig::try_new(3));
    let failures = failures_until(|allocations| match made(allocations) {
        Ok(config) => config.cpus.len() == 3,
        Err(error) => {
            assert_eq!(error, OutOfMemory);
            false
        }
    });
    assert_eq!(failures, 2);
}

#[test]
fn using_list_registers_and_pausing_a_vcpu_allocate_nothing() {
    let mut board = Board::running();
    board.enable_private(0, 27);
    let first = with_allocations(0, || {
        board.gic.set_line(Line::Ppi { cpu: Cpu::new(0), intid: 27 }, Level::High);
        let mut vcpu = board.list_register_vcpu();
        let guest = vcpu.enter();
        let left = *guest.interface();
        guest.exit(&left);
        vcpu.pause().resume();
        vcpu.enter().interface().list[0].virtual_intid()
    });
    assert_eq!(first, 27);
}
