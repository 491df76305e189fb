//! Checks that the largest machines need heap memory in proportion to their use.

use super::machine::{Memory, SPI, largest, start};
use doorbell_test_support::guest::{ITS, Kicks, inv, mapd, mapti};
use doorbell_test_support::heap_use;
use gic_arch::gicd;
use gic_arch::icc::{self, Sgi};
use msi_types::Delivery;
use std::sync::Arc;
use vgic::its::ItsConfig;
use vgic::{FaultReason, MAX_CPUS, Vgic, VgicConfig};

const MIB: usize = 1 << 20;

/// Returns the result of `act`, and the number of heap bytes that are still allocated after the
/// call.
fn bytes_of<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let (made, heap) = heap_use(act);
    (made, heap.kept)
}

/// Returns the number of heap bytes that a machine uses after reset.
fn bytes_of_machine(config: VgicConfig) -> usize {
    let kicks = Arc::new(Kicks::new(config.cpus.len()));
    let memory = Arc::new(Memory::new(0));
    bytes_of(|| Vgic::new(config, memory, kicks).unwrap()).1
}

/// Returns the target vCPU of an LPI. Consecutive LPIs target consecutive vCPUs.
pub(crate) fn cpu_of(number: u32) -> u16 {
    u16::try_from(number % 512).unwrap()
}

#[test]
fn an_unused_machine_of_512_vcpus_needs_less_than_8_mib() {
    let bytes = bytes_of_machine(largest());
    assert!(bytes < 8 * MIB, "{bytes} bytes");
}

#[test]
fn one_vcpu_without_lpis_takes_at_most_8_kib() {
    let bytes = bytes_of_machine(VgicConfig::new(1));
    assert!(bytes <= 8 << 10, "{bytes} bytes");
}

#[test]
fn each_configured_spi_needs_about_12_bytes() {
    let bytes = |spis, extended| {
        bytes_of_machine(VgicConfig::new(1).with_spis(spis).with_extended_spis(extended))
    };
    // Each interrupt needs a state word, the affinity of its route, and one bit in each of several
    // bitmaps.
    let costs = |bytes: usize, interrupts: usize| bytes.abs_diff(interrupts * 12) < 200;
    let further = bytes(256, 0) - bytes(32, 0);
    assert!(costs(further, 256 - 32), "{further} bytes");
    let further = bytes(32, 64) - bytes(32, 32);
    assert!(costs(further, 32), "{further} bytes");
}

#[test]
fn sgis_and_spis_reach_vcpus_by_affinity() {
    let mut machine = start(largest());
    for cpu in 0..MAX_CPUS {
        let affinity = machine.gic.config().cpus[cpu].affinity;
        let other = (cpu + 100) % MAX_CPUS;
        machine.msr(other, icc::SGI1R.encoding(), Sgi::to(7, affinity).into_bits());
        assert_eq!(machine.handle(cpu), 7);

        machine.route(SPI, gicd::Irouter::to(affinity));
        machine.set_bit(gicd::ISPENDR, SPI);
        assert_eq!(machine.handle(cpu), u64::from(SPI));
    }
}

#[test]
fn sparse_32_bit_device_ids_need_memory_only_when_mapped() {
    let mut machine = start(largest());
    let devices: Vec<u32> = (0..1024u32).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();

    let ((), bytes) = bytes_of(|| {
        for (device, lpi) in devices.iter().zip(8192..) {
            machine.run([mapd(*device, 1, 0), mapti(*device, 0, lpi, 3)]);
        }
    });

    // Each device needs three nodes of 256 entries in the device tree.
    assert!(bytes < 1024 * 3 * 16 * 256, "{bytes} bytes");
    for (device, lpi) in devices.iter().zip(8192..) {
        assert_eq!(machine.send(*device, 0), Delivery::Pending);
        assert_eq!(machine.handle(3), lpi);
        assert_eq!(machine.send(device ^ 1, 0), Delivery::Blocked);
    }
    assert_eq!(machine.gic.events().count(FaultReason::ItsCommand), 0);
}

#[test]
fn the_size_of_a_saved_state_is_proportional_to_mappings() {
    let mut machine = start(largest());
    let (idle, idle_bytes) = bytes_of(|| machine.save());
    drop(idle);
    let devices: Vec<u32> = (0..1024u32).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
    for (device, lpi) in devices.iter().zip(8192..) {
        machine.run([mapd(*device, 16, 0), mapti(*device, 0xffff, lpi, 3)]);
    }

    let (saved, bytes) = bytes_of(|| machine.save());

    // The saved state lists 32 private interrupts of each vCPU and one event of each device.
    assert!(idle_bytes < 512 * 4096, "{idle_bytes} bytes");
    assert!(bytes - idle_bytes < 1024 * 256, "{} bytes more", bytes - idle_bytes);
    machine.restore(&saved);
    assert!(machine.save() == saved);
    for (device, lpi) in devices.iter().zip(8192..).step_by(37) {
        assert_eq!(machine.send(*device, 0xffff), Delivery::Pending);
        assert_eq!(machine.handle(3), lpi);
    }
}

#[test]
fn one_lpi_at_each_of_512_vcpus_needs_less_than_4_mib() {
    let mut machine = start(largest());

    let ((), bytes) = bytes_of(|| {
        machine.run([mapd(5, 9, 0)]);
        machine.run((0..512u16).map(|cpu| mapti(5, cpu.into(), 8192 + u32::from(cpu), cpu)));
    });

    assert!(bytes < 4 * MIB, "{bytes} bytes");
    for (cpu, event) in (0..512).zip(0u32..) {
        assert_eq!(machine.send(5, event), Delivery::Pending);
        assert_eq!(machine.handle(cpu), u64::from(8192 + event));
    }
}

#[test]
fn ready_bitmaps_stay_within_their_budget() {
    let machine = start(largest());
    machine.run([mapd(0, 1, 0), mapti(0, 0, 8192, 0)]);

    let ((), bytes) = bytes_of(|| {
        for priority in (0..=u8::MAX).step_by(4) {
            machine.ram.configure(8192, priority | 1);
            machine.run([inv(0, 0)]);
        }
    });

    // At each priority level, one part of 4096 bits is in use, out of 2^21 bits for mappings and
    // 2^20 bits for the redistributor's own LPIs. An unused part needs only a pointer.
    let part = 17 << 10;
    let pointers = 32 * 8 * ((1 << 21) + (1 << 20)) / 4096;
    assert!((part / 2..part + pointers).contains(&bytes), "{bytes} bytes");
}

#[test]
fn mapping_all_20_bit_lpis_needs_under_96_bytes_each() {
    let mut machine = start(largest());
    let count = (1u32 << 20) - 8192;

    let ((), bytes) = bytes_of(|| {
        for device in 0..count.div_ceil(1 << 16) {
            machine.run([mapd(device, 16, 0)]);
        }
        machine.run((0..count).map(|n| mapti(n >> 16, n & 0xffff, 8192 + n, cpu_of(n))));
    });

    let each = bytes / count as usize;
    // Each LPI needs a state word and a reference to its owner. In addition, every vCPU needs a
    // ready bitmap, because the LPIs are spread over all vCPUs.
    assert!(each < 96, "{each} bytes for each of {count} LPIs");
    for n in (0..count).step_by(997).chain([count - 1]) {
        assert_eq!(machine.send(n >> 16, n & 0xffff), Delivery::Pending);
        assert_eq!(machine.handle(cpu_of(n).into()), u64::from(8192 + n));
    }
}

/// Returns the number of heap bytes of so many events, mapped to one LPI each, on eight vCPUs.
fn bytes_of_events(count: u32) -> usize {
    let its = ItsConfig::new(ITS).with_device_id_bits(32);
    let config = VgicConfig::new(8).with_lpi_id_bits(Some(20)).with_its_events(1 << 21);
    let machine = start(config.with_its(vec![its]));
    let cpu = |n: u32| u16::try_from(n % 8).unwrap();
    let ((), bytes) = bytes_of(|| {
        machine.run((0..count >> 9).map(|device| mapd(device, 9, 0)));
        machine.run((0..count).map(|n| mapti(n >> 9, n & 0x1ff, 8192 + n, cpu(n))));
    });
    bytes
}

#[test]
fn each_further_mapped_event_needs_8_to_32_bytes() {
    let (few, many) = (1 << 12, 1 << 17);
    let more = bytes_of_events(many) - bytes_of_events(few);
    let each = more / (many - few) as usize;
    assert!((8..=32).contains(&each), "{each} bytes");
}
