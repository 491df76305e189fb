//! The MSI-X table and its capability: guest accesses, open vectors, a model, and regression tests
//! for defects of other monitors.

mod model;
mod threads;

use crate::controller::{Controller, Heard};
use irq_routing::msix::{BadTableSize, MsixLayout, MsixTable, Signaled};
use irq_routing::{GsiSpace, MessageSink, RoutedMessage, Router, Sender, SignalError};
use msi_types::pci::msix::{BarOffset, Control};
use msi_types::{Delivery, DeviceId};
use proptest::prelude::*;
use std::sync::Arc;

const DEVICE: DeviceId = DeviceId::new(8);
const ENABLED: Control = Control::new().with_enable(true);
const HELD_BACK: Control = ENABLED.with_function_mask(true);
const MASKED: u32 = 1;

struct Rig {
    table: MsixTable,
    router: Arc<Router>,
    controller: Arc<Controller>,
}

fn router(space: GsiSpace) -> (Arc<Router>, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    (Arc::new(Router::new(space, controller.inputs()).unwrap()), controller)
}

fn table(vectors: u16, router: &Arc<Router>) -> MsixTable {
    MsixTable::new(vectors, Sender::Device(DEVICE), router.clone()).unwrap()
}

impl Rig {
    fn new(vectors: u16) -> Self {
        let (router, controller) = router(GsiSpace::default());
        Self { table: table(vectors, &router), router, controller }
    }
}

/// Programs a vector as a driver does: the message first, then the mask bit.
fn program(table: &MsixTable, vector: u16, data: u32, control: u32) {
    let entry = u64::from(vector) * 16;
    table.write(entry, &Controller::ITS.to_le_bytes());
    table.write(entry + 8, &data.to_le_bytes());
    table.write(entry + 12, &control.to_le_bytes());
}

fn read32(table: &MsixTable, offset: u64) -> u32 {
    let mut bytes = [0; 4];
    table.read(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn pending(table: &MsixTable, word: u64) -> u32 {
    let mut bytes = [0; 4];
    table.read_pending(word * 4, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn event(data: u32) -> Heard {
    Heard::Event(DEVICE, data)
}

#[test]
fn table_sizes_are_1_to_2048() {
    let (router, _) = router(GsiSpace::default());
    for size in [0, 2049, u16::MAX] {
        let refused = MsixTable::new(size, Sender::Anonymous, router.clone()).unwrap_err();
        assert_eq!(refused, BadTableSize(size));
    }
    assert_eq!(table(2048, &router).control().table_size(), 2048);
}

#[test]
fn misaligned_and_out_of_range_accesses_have_no_effect() {
    let rig = Rig::new(2);
    for (offset, len) in
        [(0, 1), (0, 2), (2, 4), (4, 8), (0, 16), (32, 4), (0x8000, 4), (u64::MAX - 3, 4)]
    {
        let mut bytes = vec![0; len];
        rig.table.read(offset, &mut bytes);
        assert_eq!(bytes, vec![0xff; len], "{offset:#x}");
        rig.table.write(offset, &vec![0; len]);
    }
    assert_eq!([0, 4, 8, 12].map(|offset| read32(&rig.table, offset)), [0, 0, 0, MASKED]);
    assert_eq!([0, 1, 2].map(|word| pending(&rig.table, word)), [0, 0, u32::MAX]);
}

#[test]
fn every_vector_has_its_pending_bit() {
    let rig = Rig::new(70);
    for vector in [0, 31, 32, 63, 64, 69] {
        assert_eq!(rig.table.signal(vector), Signaled::Held);
    }
    let wide = [0, 8].map(|offset| {
        let mut bytes = [0; 8];
        rig.table.read_pending(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    });
    assert_eq!(wide, [1 << 63 | 1 << 32 | 1 << 31 | 1, 1 << 5 | 1]);
    let narrow = [0, 1, 2, 3, 4].map(|word| pending(&rig.table, word));
    assert_eq!(narrow, [1 << 31 | 1, 1 << 31 | 1, 1 << 5 | 1, 0, u32::MAX]);
}

const SENT: Signaled = Signaled::Sent(Delivery::Pending);

#[test]
fn a_message_after_a_bus_change_carries_the_new_device_id() {
    let rig = Rig::new(2);
    rig.table.write_control(ENABLED);
    program(&rig.table, 1, 3, 0);
    rig.table.set_sender(Sender::Device(DeviceId::new(0x108)));
    rig.table.signal(1);
    assert_eq!(rig.controller.heard(), [Heard::Event(DeviceId::new(0x108), 3)]);
}

/// Host that refuses one particular message.
struct Choosy(Arc<dyn MessageSink>);

impl Choosy {
    const REFUSED: u32 = 0xbad;
    const ERROR: SignalError = SignalError::Refused { errno: 22 };
}

impl MessageSink for Choosy {
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError> {
        if message.message.data == Self::REFUSED {
            return Err(Self::ERROR);
        }
        self.0.signal_msi(message)
    }
}

#[test]
fn signaling_a_refused_message_returns_its_error() {
    let (router, controller) = router(GsiSpace::default());
    let table = MsixTable::new(3, Sender::Device(DEVICE), Arc::new(Choosy(router))).unwrap();
    table.write_control(HELD_BACK);
    [10, Choosy::REFUSED, 12].into_iter().zip(0..).for_each(|(data, at)| {
        program(&table, at, data, 0);
    });
    table.write_control(ENABLED);

    let signaled = [0, 1, 2].map(|vector| table.signal(vector));

    assert_eq!(signaled, [SENT, Signaled::Refused(Choosy::ERROR), SENT]);
    assert_eq!(controller.heard(), [event(10), event(12)]);
}

fn read(table: &MsixTable, offset: u16, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xa5; length];
    table.read_capability(offset, &mut bytes);
    bytes
}

/// Layout of PCI Local Bus 3.0, figure 6-11.
#[test]
fn the_msix_capability_matches_the_specified_layout() {
    let rig = Rig::new(32);
    assert_eq!(read(&rig.table, 0, 12), [0x11, 0, 0x1f, 0, 0, 0, 0, 0, 0, 2, 0, 0]);
    let layout = MsixLayout {
        next: 0x70,
        table: BarOffset::from(0x1002),
        pending: BarOffset::from(0x1234_5674),
    };
    let (router, _) = router(GsiSpace::default());
    let table = MsixTable::new(2048, Sender::Device(DEVICE), router).unwrap().with_layout(layout);
    let expected = [0x11, 0x70, 0xff, 7, 0x02, 0x10, 0, 0, 0x74, 0x56, 0x34, 0x12, 0xa5, 0xa5];
    assert_eq!(read(&table, 0, 14), expected);
}

/// Windows 11 on arm64 writes Message Control as a double word
/// (<https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3714>).
#[test]
fn control_writes_of_any_size_enable_msix() {
    let enables: [(u16, &[u8]); 6] = [
        (0, &[0x11, 0, 0x1f, 0x80]),
        (0, &[0xff; 8]),
        (0, &[0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]),
        (2, &[0, 0x80]),
        (3, &[0x80]),
        (3, &[0x80, 0xff, 0xff, 0xff]),
    ];
    for (offset, bytes) in enables {
        let rig = Rig::new(32);
        rig.table.write_capability(offset, bytes);
        assert!(rig.table.control().enable(), "{bytes:x?} at {offset}");
    }
}

proptest! {
    #[test]
    fn capability_writes_change_only_the_enable_and_function_mask_bits(
        writes in prop::collection::vec(
            (
                prop_oneof![9 => 0u16..14, 1 => any::<u16>()],
                prop::collection::vec(any::<u8>(), 0..14),
            ),
            0..8,
        ),
        window in (0u16..14, 0usize..14),
    ) {
        let rig = Rig::new(70);
        let mut expected = read(&rig.table, 0, 12);
        for (offset, bytes) in writes {
            rig.table.write_capability(offset, &bytes);
            if let Some(byte) = 3usize.checked_sub(offset.into()).and_then(|at| bytes.get(at)) {
                expected[3] = expected[3] & 0x3f | byte & 0xc0;
            }
            prop_assert_eq!(read(&rig.table, 0, 12), &expected[..]);
            let control = Control::from(u16::from_le_bytes([expected[2], expected[3]]));
            prop_assert_eq!(rig.table.control(), control);
        }
        let all = expected.into_iter().chain([0xa5; 16]);
        let part: Vec<_> = all.skip(window.0.into()).take(window.1).collect();
        prop_assert_eq!(read(&rig.table, window.0, window.1), part);
    }
}
