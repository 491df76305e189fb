//! The capability in configuration space, and bus mastering.

use super::rig::{DEVICE, Rig, router};
use irq_routing::Sender;
use irq_routing::msix::{MsixLayout, MsixTable};
use msi_types::pci::msix::{BarOffset, Control};
use proptest::prelude::*;

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
    let (router, _) = router(irq_routing::GsiSpace::default());
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
