use super::*;
use crate::bus::{DeviceWrites, Written};
use crate::pci::AddressWidth;
use msi_types::{MsiMessage, Rewrite, Trigger};

/// A log of all device writes.
#[derive(Default)]
struct WriteLog(Mutex<Vec<(u64, u32)>>);

impl DeviceWrites for WriteLog {
    fn write(&self, address: u64, data: u32) -> Written {
        lock(&self.0).push((address, data));
        Written::Message(Delivery::Pending)
    }
}

const FIRST: MsiMessage = MsiMessage { address: 0x1_0000_0040, data: 0x2_0007 };

fn device(plan: PlatformDeviceConfig) -> (PlatformDevice, Arc<WriteLog>) {
    let sent = Arc::<WriteLog>::default();
    let doorbells = Arc::new(Doorbells::new(Arc::clone(&sent) as _));
    let device = PlatformDevice::with_config(DeviceId::new(1), plan, doorbells);
    write(&device, registers::CONTROL, 1);
    (device, sent)
}

/// Returns a device whose slot 0 is set up and unmasked.
fn open(plan: PlatformDeviceConfig) -> (PlatformDevice, Arc<WriteLog>) {
    let (device, sent) = device(plan);
    for (area, address) in
        [(registers::SLOTS, FIRST.address), (registers::SECOND, FIRST.address + 8)]
    {
        write(&device, area + registers::ADDRESS_LOW, low(address));
        write(&device, area + registers::ADDRESS_HIGH, low(address >> 32));
        write(&device, area + registers::DATA, FIRST.data);
    }
    write(&device, registers::SLOTS + registers::SLOT_CONTROL, registers::COMMIT);
    (device, sent)
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap()
}

fn write(device: &PlatformDevice, offset: u64, value: u32) {
    device.write(offset, AccessWidth::Word, u64::from(value));
}

fn messages(sent: &WriteLog) -> Vec<(u64, u32)> {
    std::mem::take(&mut *lock(&sent.0))
}

const UP: (u64, u32) = (FIRST.address, FIRST.data);
const DOWN: (u64, u32) = (FIRST.address + 8, FIRST.data);
const LEVEL: PlatformDeviceConfig =
    PlatformDeviceConfig { trigger: Trigger::Level, ..PlatformDeviceConfig::new(2) };

#[test]
fn a_level_sends_one_message_per_transition() {
    let (device, sent) = open(LEVEL);
    device.signal(0);
    device.signal(0);
    assert_eq!(messages(&sent), [UP]);
    write(&device, registers::LOWER, 0);
    write(&device, registers::LOWER, 0);
    assert_eq!(messages(&sent), [DOWN]);
    device.signal(0);
    assert_eq!(messages(&sent), [UP]);
}

#[test]
fn unmasking_sends_only_an_asserted_level() {
    let (device, sent) = open(LEVEL);
    let control = registers::SLOTS + registers::SLOT_CONTROL;
    write(&device, control, registers::MASK);
    assert_eq!(device.signal(0), Signaled::Held);
    write(&device, registers::LOWER, 0);
    write(&device, control, 0);
    assert_eq!(messages(&sent), []);
    write(&device, control, registers::MASK);
    device.signal(0);
    write(&device, control, 0);
    assert_eq!(messages(&sent), [UP]);
}

#[test]
fn unplugging_a_device_deasserts_its_level() {
    let (device, sent) = open(LEVEL);
    device.signal(0);
    device.unplug();
    assert_eq!(messages(&sent), [UP, DOWN]);
    assert_eq!(device.read(registers::CONTROL, AccessWidth::Word), 0xffff_ffff);
    device.plug();
    assert_eq!(device.signal(0), Signaled::Off);
}

#[test]
fn narrow_slots_truncate_address_and_data() {
    let narrow = PlatformDeviceConfig {
        address: AddressWidth::Bits32,
        data: DataWidth::Bits16,
        ..PlatformDeviceConfig::new(1)
    };
    let (device, sent) = open(narrow);
    device.signal(0);
    assert_eq!(messages(&sent), [(0x40, 7)]);
}

#[test]
fn a_message_that_is_not_committed_is_not_sent() {
    for rewrite in [Rewrite::Atomic64, Rewrite::AddressOnly] {
        let (device, sent) = open(PlatformDeviceConfig { rewrite, ..PlatformDeviceConfig::new(1) });
        write(&device, registers::SLOTS + registers::ADDRESS_LOW, 0x80);
        device.signal(0);
        write(&device, registers::SLOTS + registers::SLOT_CONTROL, registers::COMMIT);
        device.signal(0);
        assert_eq!(messages(&sent), [UP, (0x1_0000_0080, FIRST.data)], "{rewrite:?}");
    }
}

#[test]
fn writing_the_mask_of_a_device_without_masking_is_ignored() {
    for rewrite in [Rewrite::Atomic64, Rewrite::AddressOnly, Rewrite::LowWordOnly, Rewrite::Never] {
        let (device, _) = open(PlatformDeviceConfig { rewrite, ..PlatformDeviceConfig::new(1) });
        write(&device, registers::SLOTS + registers::SLOT_CONTROL, registers::MASK);
        assert_eq!(device.signal(0), Signaled::Sent(Delivery::Pending), "{rewrite:?}");
    }
}
