//! Tests for implementations that deviate from the architecture.

use super::probing::works;
use super::setup::{Setup, config, lpi, probe, request, turn_on};
use crate::fake::Board;
use crate::fake::Hardware;
use gic_driver::its::{IdMap, ProbeError};
use gic_driver::{ItsConfig, ItsError, ItsMsiParent, PhysicalRegion};
use msi_types::{Cpu, DeviceId, Isolation, MsiParent, RequesterId};

#[test]
fn an_its_with_the_thunderx_errata_delivers_messages() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(20);
    let hardware =
        Hardware { iidr: 0xa100_134c, typer, looks_into_caches: false, ..Hardware::default() };
    works(hardware, &config(0));
}

#[test]
fn a_local_node_its_refuses_targets_of_other_nodes() {
    let targets = Some([0, 1].map(Cpu::new).to_vec());
    let board = Board::with_its(vec![Hardware { reach: 2, ..Hardware::default() }], 4);
    let setup = Setup::on(board, &config(0).with_targets(targets));
    let refused = |error| matches!(error, ItsError::NotReachable(cpu, _) if cpu.get() == 2);
    (0..2).for_each(|cpu| setup.bring_up(cpu));
    turn_on(&setup.gic, 2);
    let device = setup.attach(5, 2);
    assert!(refused(setup.cpu_on(2).unwrap_err()));
    assert!(refused(setup.its.map_events(&device, request(1, 2)).unwrap_err()));
    let block = setup.map(&device, 1, 0);
    assert!(refused(setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap_err()));
    assert!(refused(setup.its.cpu_off(Cpu::new(0), Cpu::new(2)).unwrap_err()));
    setup.its.cpu_off(Cpu::new(0), Cpu::new(1)).unwrap();
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}

const WINDOW: PhysicalRegion = PhysicalRegion { base: 0x5800_0000, bytes: 0x20_0000 };

fn synquacer() -> (Hardware, ItsConfig) {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(31);
    let hardware = Hardware { iidr: 0x0001_143b, typer, ..Hardware::default() };
    (hardware, config(0).with_machine(vec!["socionext,synquacer-pre-its".into()]))
}

#[test]
fn a_pre_its_doorbell_address_encodes_the_device_id() {
    let (hardware, config) = synquacer();
    let setup = Setup::with_config(hardware, &config.with_pre_its(Some(WINDOW)));
    let device = setup.attach(0x123, 2);
    let block = setup.map(&device, 2, 1);
    let message = setup.its.message(lpi(&block, 1)).unwrap();
    assert_eq!((message.address, message.data), (0x5800_048c, 1));
    assert_eq!(setup.its.doorbell(), WINDOW.base);
    // The window is 2 MiB long and consists of 32-bit words.
    let beyond = setup.its.attach(DeviceId::new(1 << 19), 1);
    assert!(matches!(beyond, Err(ItsError::DeviceIdOutOfRange { bits: 19, .. })), "{beyond:?}");
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity());
    let isolation = parent.isolation(RequesterId::new(1));
    assert!(matches!(isolation, Isolation::NotIsolated(_)), "{isolation:?}");
}

#[test]
fn a_pre_its_without_its_window_is_refused() {
    let (hardware, config) = synquacer();
    let (_, refused) = probe(hardware.clone(), &config);
    assert!(matches!(refused, Err(ProbeError::BadConfig { .. })), "{refused:?}");
    let tiny = PhysicalRegion { bytes: 4, ..WINDOW };
    let (_, refused) = probe(hardware, &config.with_pre_its(Some(tiny)));
    assert!(matches!(refused, Err(ProbeError::BadConfig { .. })), "{refused:?}");
}
