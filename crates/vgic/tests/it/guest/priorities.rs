//! Exhaustive tests for LPI priorities: every priority is compared with every mask, in both views
//! and with each number of priority bits. The rules are typed from the manual (IHI 0069 §4.8), not
//! taken from the model. `tests/model` checks the priorities of wired interrupts.

use doorbell_test_support::guest::{Machine, RAM};
use gic_arch::{gicr, icc};
use std::collections::BTreeMap;
use vgic::{GuestMemory, SecurityView, VgicConfig};

/// Rules for the priorities that a guest sees, derived from the security view and the number of
/// priority bits.
#[derive(Clone, Copy, Debug)]
struct Rules {
    view: SecurityView,
    bits: u8,
}

impl Rules {
    /// Iterates over all rules. At least 16 priorities exist, and 32 if two security states share
    /// them.
    fn all() -> impl Iterator<Item = Self> {
        let views = [(SecurityView::Single, 4), (SecurityView::NonSecure, 5)];
        views.into_iter().flat_map(|(view, least)| (least..=8).map(move |bits| Self { view, bits }))
    }

    /// Returns the stored value of a written priority: "Non-secure writes are stored shifted right
    /// by one, with bit 7 set." Unimplemented bits are zero.
    fn stored(self, written: u8) -> u8 {
        let shifted = match self.view {
            SecurityView::Single => written,
            SecurityView::NonSecure => written >> 1 | 0x80,
        };
        shifted & 0xff << (8 - self.bits)
    }

    /// Iterates over one written value for each distinct stored value.
    fn written(self) -> impl Iterator<Item = u8> {
        let mut last = None;
        (0..=u8::MAX).filter(move |written| {
            last.replace(self.stored(*written)) != Some(self.stored(*written))
        })
    }
}

/// Iterates over LPIs, each with a different one of the 64 priorities that a configuration byte can
/// express.
fn lpis() -> impl Iterator<Item = (u64, u8)> {
    (8192..).zip((0..=u8::MAX).step_by(4))
}

/// Creates a machine in which the given LPIs are direct LPIs.
fn with_lpis(rules: Rules) -> Machine {
    let config = VgicConfig::new(1)
        .with_security(rules.view)
        .with_priority_bits(rules.bits)
        .with_direct_lpi(true)
        .with_lpi_id_bits(Some(14));
    let mut machine = Machine::new(config);
    machine.start();
    let configuration: Vec<u8> = lpis().map(|(_, priority)| priority | 1).collect();
    machine.ram.write(RAM, &configuration).unwrap();
    machine.enable_lpis(14, RAM, RAM + 0x1_0000);
    machine
}

#[test]
fn the_priority_mask_masks_lpis() {
    for rules in Rules::all() {
        let mut machine = with_lpis(rules);
        for (lpi, priority) in lpis() {
            machine.write_gicr(0, gicr::SETLPIR, lpi);
            for mask in rules.written() {
                machine.msr(0, icc::PMR.encoding(), mask.into());
                let expected = rules.stored(priority) < rules.stored(mask);
                let found = machine.vcpus[0].irq_pending();
                assert_eq!(found, expected, "{rules:?}: {priority:#x} under the mask {mask:#x}");
            }
            machine.write_gicr(0, gicr::CLRLPIR, lpi);
        }
    }
}

#[test]
fn lpis_are_acknowledged_in_order_of_implemented_priority() {
    for rules in Rules::all() {
        let mut machine = with_lpis(rules);
        machine.msr(0, icc::PMR.encoding(), 0xff);
        let visible = |(_, priority): &(u64, u8)| rules.stored(*priority) < rules.stored(0xff);
        let mut left: BTreeMap<u64, u8> = lpis().filter(visible).collect();
        lpis().for_each(|(lpi, _)| machine.write_gicr(0, gicr::SETLPIR, lpi));
        let mut last = 0;
        while !left.is_empty() {
            let intid = machine.acknowledge(0);
            machine.end(0, intid);
            let priority =
                left.remove(&intid).unwrap_or_else(|| panic!("{rules:?}: {intid}, left {left:x?}"));
            assert!(last <= rules.stored(priority), "{rules:?}: {priority:#x} after {last:#x}");
            last = rules.stored(priority);
        }
    }
}
