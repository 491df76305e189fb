use super::config::{COMMIT, MASK, SECOND, SLOT_CONTROL, SLOTS};
use super::*;
use crate::pci::AddressWidth;
use crate::pci::sent::SentMessages;
use msi_types::{MsiMessage, Rewrite, Trigger};

const UP: MsiMessage = MsiMessage { address: 0x1_0000_0040, data: 0x2_0007 };
const DOWN: MsiMessage = MsiMessage { address: 0x1_0000_0048, data: 0x2_0007 };
const NARROW: MsiMessage = MsiMessage { address: 0x40, data: 7 };
const CHANGED: MsiMessage = MsiMessage { address: 0x1_0000_0080, data: 0x2_0007 };

const fn config(rewrite: Rewrite, trigger: Trigger) -> PlatformDeviceConfig {
    PlatformDeviceConfig { rewrite, trigger, ..PlatformDeviceConfig::new(2) }
}

const EDGE: PlatformDeviceConfig = config(Rewrite::Masked, Trigger::Edge);
const LEVEL: PlatformDeviceConfig = config(Rewrite::Masked, Trigger::Level);

#[derive(Clone, Copy)]
enum Step {
    /// The event, and the result of its signal.
    Signal(Signaled),
    Write(u64, u32),
    Unplug,
    Plug,
}

use Step::{Plug, Signal, Unplug, Write};

const SENT: Step = Signal(Signaled::Sent(Delivery::Pending));
const HELD: Step = Signal(Signaled::Held);
const LOWERED: Step = Write(LOWER, 0);
const MASKED: Step = Write(SLOTS + SLOT_CONTROL, MASK);
const UNMASKED: Step = Write(SLOTS + SLOT_CONTROL, 0);

/// Sets up slot 0 of a device, performs the steps, and checks the messages.
#[track_caller]
fn check(config: PlatformDeviceConfig, steps: &[Step], expected: &[MsiMessage]) {
    let sent = Arc::<SentMessages>::default();
    let device = PlatformDevice::new(DeviceId::new(1), config, Arc::clone(&sent) as _);
    let write = |offset, value| device.write(offset, AccessWidth::Word, u64::from(value));
    write(CONTROL, 1);
    for (area, message) in [(SLOTS, UP), (SECOND, DOWN)] {
        write(area, message.address_low());
        write(area + 4, message.address_high());
        write(area + 8, message.data);
    }
    write(SLOTS + SLOT_CONTROL, COMMIT);
    for step in steps {
        match *step {
            Signal(result) => assert_eq!(device.signal(0), result),
            Write(offset, value) => write(offset, value),
            Unplug => device.unplug(),
            Plug => device.plug(),
        }
    }
    let sent: Vec<_> = sent.all().into_iter().map(|(_, message)| message).collect();
    assert_eq!(sent, expected);
    let found = PlatformDeviceConfig::of(config.slots, config.features());
    assert_eq!(found, config, "the features register states the configuration");
}

#[test]
fn a_level_sends_one_message_per_transition() {
    check(LEVEL, &[SENT, SENT, LOWERED, LOWERED, SENT], &[UP, DOWN, UP]);
}

#[test]
fn unmasking_sends_only_an_asserted_level() {
    check(LEVEL, &[MASKED, HELD, LOWERED, UNMASKED, MASKED, HELD, UNMASKED], &[UP]);
}

#[test]
fn unplugging_a_device_deasserts_its_level() {
    check(LEVEL, &[SENT, Unplug, Signal(Signaled::Off), Plug, Signal(Signaled::Off)], &[UP, DOWN]);
}

#[test]
fn narrow_slots_truncate_address_and_data() {
    let (address, data) = (AddressWidth::Bits32, DataWidth::Bits16);
    check(PlatformDeviceConfig { address, data, ..EDGE }, &[SENT], &[NARROW]);
}

#[test]
fn a_message_that_is_not_committed_is_not_sent() {
    let commit = Write(SLOTS + SLOT_CONTROL, COMMIT);
    for rewrite in [Rewrite::Atomic64, Rewrite::AddressOnly] {
        let steps = [Write(SLOTS, CHANGED.address_low()), SENT, commit, SENT];
        check(config(rewrite, Trigger::Edge), &steps, &[UP, CHANGED]);
    }
}

#[test]
fn writing_the_mask_of_a_device_without_masking_is_ignored() {
    for rewrite in [Rewrite::Atomic64, Rewrite::AddressOnly, Rewrite::LowWordOnly, Rewrite::Never] {
        check(config(rewrite, Trigger::Edge), &[MASKED, SENT], &[UP]);
    }
}
