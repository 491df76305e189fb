//! Explanations that start at a message or a line.

use super::guest::{CPU, DEVICE, Guest, LPI, config, facts};
use doorbell_test_support::guest::{ITS, Machine};
use gic_arch::gicr::Propbaser;
use gic_arch::{IntId, gicd, gicr};
use msi_types::explain::{ExplainInput, Fact, Obstacle};
use msi_types::{Cpu, HwIrq, MsiMessage, NoIdentity, SignalMsi};
use vgic::{FaultDetail, FaultReason, V2mConfig, VgicConfig};

const SPI: u32 = 64;
const DOORBELL: u64 = ITS + 0x1_0040;

fn message(address: u64, data: u32) -> MsiMessage {
    MsiMessage { address, data }
}

#[test]
fn explain_reports_a_message_without_a_device_id() {
    let explanation = Guest::working().machine.gic.explain_message(None, message(DOORBELL, 0));
    assert_eq!(explanation.obstacle(), Some(Obstacle::NoIdentity { address: DOORBELL }));
}

#[test]
fn explain_reports_a_wrong_doorbell() {
    let guest = Guest::working();
    // The control frame, an address between the frames, and memory.
    for address in [ITS + 0x40, ITS + 0x1_0044, 0x4000_0000] {
        let explanation = guest.machine.gic.explain_message(Some(DEVICE), message(address, 0));
        let expected = Obstacle::NoDoorbell { address, doorbell: Some(DOORBELL) };
        assert_eq!(explanation.obstacle(), Some(expected));
    }
    let none = Machine::running(VgicConfig::new(1));
    let expected = Obstacle::NoDoorbell { address: 0, doorbell: None };
    assert_eq!(none.gic.explain_message(None, message(0, 0)).obstacle(), Some(expected));
}

#[test]
fn explain_traces_a_message_based_spi() {
    let machine = Machine::running(VgicConfig::new(1).with_message_based_spis(true));
    let doorbell = machine.gic.config().distributor + u64::from(gicd::SETSPI_NSR.offset());
    let obstacle = |data| machine.gic.explain_message(None, message(doorbell, data)).obstacle();
    let interrupt = HwIrq::new(SPI);
    assert_eq!(obstacle(SPI), Some(Obstacle::Disabled { interrupt }));
    machine.enable_spi(SPI);
    let explain = || machine.gic.explain_message(None, message(doorbell, SPI));
    assert!(explain().is_idle(), "not a line");
    machine.gic.signal_msi(NoIdentity, message(doorbell, SPI));
    assert_eq!(obstacle(SPI), None);
    let explanation = machine.gic.explain_message(None, message(doorbell, SPI));
    assert_eq!(facts(&explanation)[0], Fact::Doorbell(doorbell));
    for data in [0, 31, 1019, u32::MAX] {
        let interrupt = HwIrq::new(data);
        assert_eq!(obstacle(data), Some(Obstacle::NoSuchInterrupt { interrupt }));
    }
    let elsewhere = machine.gic.explain_message(None, message(4, SPI)).obstacle();
    let expected = Obstacle::NoDoorbell { address: 4, doorbell: Some(doorbell) };
    assert_eq!(elsewhere, Some(expected));
}

#[test]
fn a_level_sensitive_spi_ignores_a_v2m_message() {
    let frame = V2mConfig::new(0x0802_0000, SPI, 32);
    let machine = Machine::running(VgicConfig::new(1).with_v2m(vec![frame]));
    let doorbell = 0x0802_0040;
    let obstacle = |data| machine.gic.explain_message(None, message(doorbell, data)).obstacle();
    let interrupt = HwIrq::new(SPI);
    assert_eq!(obstacle(SPI), Some(Obstacle::LevelSensitive { interrupt }));
    machine.make_edge(SPI);
    assert_eq!(obstacle(SPI), Some(Obstacle::Disabled { interrupt }));
    machine.enable_spi(SPI);
    machine.gic.signal_msi(NoIdentity, message(doorbell, SPI));
    assert_eq!(obstacle(SPI), None);
    let [interrupt, first, last] = [SPI - 1, SPI, SPI + 31].map(HwIrq::new);
    assert_eq!(obstacle(SPI - 1), Some(Obstacle::NotOfDoorbell { interrupt, first, last }));
}

#[test]
fn explain_traces_a_direct_lpi() {
    let guest = Guest::new(config().with_its(vec![]).with_direct_lpi(true));
    let doorbell = guest.machine.frame(0) + u64::from(gicr::SETLPIR.offset());
    let gic = &guest.machine.gic;
    let obstacle = |data| gic.explain_message(None, message(doorbell, data)).obstacle();
    assert_eq!(obstacle(LPI.get()), Some(Obstacle::LpisDisabled { cpu: CPU }));
    guest.enable_lpis();
    assert!(gic.explain_message(None, message(doorbell, LPI.get())).is_idle());
    let next = HwIrq::new(LPI.get() + 1);
    assert_eq!(obstacle(next.get()), Some(Obstacle::Disabled { interrupt: next }));
    gic.signal_msi(NoIdentity, message(doorbell, LPI.get()));
    assert_eq!(obstacle(LPI.get()), None);
    let explanation = gic.explain_message(None, message(doorbell, LPI.get()));
    assert!(facts(&explanation).contains(&Fact::MessageIntid(LPI)));
    assert_eq!(guest.obstacle_of(0, LPI.get()), None);
    guest.configure(0x01);
    assert!(gic.explain_interrupt(Cpu::new(1), IntId::new(LPI.get())).is_idle());
    let interrupt = HwIrq::new(40);
    assert_eq!(obstacle(40), Some(Obstacle::NoSuchInterrupt { interrupt }));
}

#[test]
fn a_dropped_direct_lpi_is_recorded_with_its_reason() {
    let guest = Guest::new(config().with_its(vec![]).with_direct_lpi(true));
    let doorbell = guest.machine.frame(0) + u64::from(gicr::SETLPIR.offset());
    let faults = || {
        let mut faults = Vec::new();
        guest.machine.gic.events().drain(|fault| {
            faults.push((fault.reason, fault.address, fault.detail));
        });
        faults
    };
    let dropped = |reason| vec![(reason, doorbell, FaultDetail::Interrupt(IntId::new(8192)))];
    let ring = || guest.machine.gic.signal_msi(NoIdentity, message(doorbell, 8192));
    faults();
    ring();
    assert_eq!(faults(), dropped(FaultReason::LpisDisabled));
    guest.set_enable_lpis();
    faults();
    ring();
    assert_eq!(faults(), dropped(FaultReason::NoConfigurationTable));

    let small = Propbaser::new().with_id_bits_minus_one(12).with_address(0x4000_0000);
    let guest = Guest::new(config().with_its(vec![]).with_direct_lpi(true));
    guest.machine.write_gicr(0, gicr::PROPBASER, small);
    guest.set_enable_lpis();
    guest.machine.gic.signal_msi(NoIdentity, message(doorbell, 8192));
    assert_eq!(guest.machine.gic.events().count(FaultReason::LpiOutOfRange), 1);
}
