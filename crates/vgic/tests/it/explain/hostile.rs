//! Explanations of a machine whose guest writes arbitrary values, and of a running machine.

use super::guest::{CPU, DEVICE, EVENT, Guest, LPI, config};
use doorbell_test_support::guest::{ITS, QUEUE};
use gic_arch::its::Command;
use gic_arch::{IntId, icc};
use msi_types::explain::{ExplainInput, Obstacle};
use msi_types::{Cpu, DeviceId, EventId, Line, MsiMessage};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use vgic::its::ItsConfig;
use vgic::{AccessWidth, GuestMemory, V2mConfig};

/// Requests all explanations of these identifiers.
fn ask(guest: &Guest, numbers: &[u32]) {
    let gic = &guest.machine.gic;
    for number in numbers.iter().copied() {
        let (device, event) = (DeviceId::new(number & 0x1f), EventId::new(number));
        let _ = gic.explain(0, device, event).to_string();
        let _ = gic.explain(0, DEVICE, event).to_string();
        let _ = gic.explain(number as usize, device, EVENT).to_string();
        for cpu in [0, 1, number] {
            let _ = gic.explain_interrupt(Cpu::new(cpu), IntId::new(number)).to_string();
        }
        let _ = gic.explain_line(Line::Spi(number)).to_string();
        let _ = gic.explain_line(Line::Ppi { cpu: CPU, intid: number }).to_string();
        for address in [ITS + 0x1_0040, 0x0800_0040, 0x0802_0040, guest.machine.frame(1) + 0x40] {
            let message = MsiMessage { address, data: number };
            let _ = gic.explain_message(Some(device), message).to_string();
            let _ = gic.explain_message(None, message).to_string();
        }
    }
    let _ = format!("{gic:?}");
}

fn address() -> impl Strategy<Value = u64> {
    let frames = prop_oneof![
        Just((0x0800_0000u64, 0xe100u64)),
        Just((0x080a_0000, 0x4_0000)),
        Just((ITS, 0x140)),
        Just((0x0802_0000, 0x1000)),
    ];
    (frames, any::<u64>()).prop_map(|((base, size), at)| base + at % size / 8 * 8)
}

fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..64, 8190u32..8200, 0x3ff0u32..0x4010, any::<u32>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn explain_handles_anything_that_a_guest_writes(
        writes in prop::collection::vec((address(), any::<u64>(), any::<bool>()), 0..48),
        registers in prop::collection::vec((0..icc::REGISTERS.len(), any::<u64>()), 0..12),
        commands in prop::collection::vec(any::<[u64; 4]>(), 0..8),
        asked in prop::collection::vec(numbers(), 1..6),
    ) {
        let frame = V2mConfig::new(0x0802_0000, 64, 32);
        let its = ItsConfig::new(ITS).with_event_id_bits(20);
        let config = config().with_its(vec![its]).with_v2m(vec![frame]);
        let mut guest = Guest::working_with(
            config.with_message_based_spis(true).with_can_clear_enable_lpis(true),
        );
        for (address, command) in (QUEUE + 0x60..).step_by(32).zip(commands) {
            let words = command.map(|word| word & 0xffff_00ff_ffff_ffff);
            let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
            guest.machine.ram.write(address, &bytes).unwrap();
        }
        guest.machine.write(ITS + 0x88, AccessWidth::Double, 0x160);
        for (address, value, is_word) in writes {
            let width = if is_word { AccessWidth::Word } else { AccessWidth::Double };
            let _ = guest.machine.gic.write_until_done(address, width, value);
            guest.send();
        }
        for (index, value) in registers {
            let _ = guest.machine.vcpus[0].write_sysreg(icc::REGISTERS[index].1, value);
        }
        ask(&guest, &asked);
    }
}

#[test]
fn explain_reports_only_plausible_obstacles_on_a_running_machine() {
    let mut guest = Guest::working();
    let mut vcpu = guest.machine.vcpus.remove(0);
    let (guest, stop) = (&guest, AtomicBool::new(false));
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
                vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
            }
        });
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                guest.send();
            }
        });
        scope.spawn(|| {
            for round in 0..200 {
                guest.configure(if round % 2 == 0 { 0xa1 } else { 0x81 });
                guest.machine.run([Command::Inv { device: DEVICE, event: EVENT }]);
            }
            stop.store(true, SeqCst);
        });
        let mut seen = Vec::new();
        while !stop.load(SeqCst) {
            seen.push(guest.obstacle());
            ask(guest, &[0, LPI.get()]);
        }
        seen
    });
    for obstacle in seen {
        let expected = matches!(
            obstacle,
            None | Some(Obstacle::PriorityNotHigher { .. } | Obstacle::StaleConfiguration { .. })
        );
        assert!(expected, "{obstacle:?}");
    }
}
