//! Sizes of tables, and the guest's accesses.

use super::rig::{MASKED, Rig, pending, read32, router, table};
use irq_routing::msix::{BadTableSize, MsixTable, Signaled};
use irq_routing::{GsiSpace, Sender};

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
