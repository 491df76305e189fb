//! Messages and entries typed by hand from Intel's manuals: SDM vol. 3A §11.11 (message address and
//! data), VT-d specification §5.1 (remappable format) and chapter 9 (table entries). The formats
//! with 15 and 32 destination bits are from KVM's documentation (CPUID feature MSI_EXT_DEST_ID,
//! KVM_CAP_X2APIC_API).

use msi_types::{MsiMessage, RequesterId};
use std::sync::atomic::{AtomicU64, Ordering};
use x86_irq::message::{
    ApicMessage, DeliveryMode, DestinationFormat, DestinationMode, MessageError, Redirection,
    Signal,
};
use x86_irq::remapping::{
    ApicMode, CompatibilityFormat, RemapFault, RemapMemory, RemapTable, RemapTableConfig,
    RemappableMessage, TableSize,
};
use x86_irq::{ApicId, ApicVector};

fn vector(number: u8) -> ApicVector {
    ApicVector::new(number).unwrap()
}

fn message(address: u64, data: u32) -> MsiMessage {
    MsiMessage { address, data }
}

#[test]
fn a_fixed_edge_message_to_apic_5_matches_the_manual() {
    let fixed = ApicMessage::fixed(ApicId::new(5), vector(0x41));
    assert_eq!(fixed.encode(DestinationFormat::Xapic), Ok(message(0xfee0_5000, 0x0041)));
}

#[test]
fn compatibility_fields_match_the_manual() {
    // address: FEE | destination 0xA7 | RH | DM; data: level, assert, lowest priority, vector 0xEF
    let full = ApicMessage {
        destination: ApicId::new(0xa7),
        mode: DestinationMode::Logical,
        redirection: Redirection::Hint,
        delivery: DeliveryMode::LowestPriority(vector(0xef)),
        signal: Signal::Assert,
    };
    let wire = message(0xfeea_700c, 0b1100_0001_1110_1111);
    assert_eq!(full.encode(DestinationFormat::Xapic), Ok(wire));
    assert_eq!(ApicMessage::decode(wire, DestinationFormat::Xapic), Ok(full));
}

#[test]
fn delivery_mode_codes_match_the_manual() {
    let modes = [
        (0x200, DeliveryMode::Smi),
        (0x400, DeliveryMode::Nmi),
        (0x500, DeliveryMode::Init),
        (0x700, DeliveryMode::ExtInt),
    ];
    for (data, delivery) in modes {
        let decoded =
            ApicMessage::decode(message(0xfee0_0000, data), DestinationFormat::Xapic).unwrap();
        assert_eq!(decoded.delivery, delivery);
    }
    for (data, mode) in [(0x320, 3), (0x620, 6)] {
        let refused = ApicMessage::decode(message(0xfee0_0000, data), DestinationFormat::Xapic);
        assert_eq!(refused, Err(MessageError::ReservedDelivery(mode)));
    }
}

#[test]
fn the_level_bit_of_an_edge_message_is_ignored() {
    // Many systems show "Address: fee00018 Data: 4049" without RH and DM.
    let decoded = ApicMessage::decode(message(0xfee0_0000, 0x4049), DestinationFormat::Xapic);
    assert_eq!(decoded, Ok(ApicMessage::fixed(ApicId::new(0), vector(0x49))));
}

#[test]
fn destinations_of_15_bits_use_bits_11_to_5() {
    // 0x1234: bits 7:0 = 0x34 in 19:12, bits 14:8 = 0x12 in 11:5.
    let wide = ApicMessage::fixed(ApicId::new(0x1234), vector(0x30));
    assert_eq!(wide.encode(DestinationFormat::Extended15), Ok(message(0xfee3_4240, 0x30)));
}

#[test]
fn destinations_of_32_bits_use_the_upper_word() {
    let wide = ApicMessage::fixed(ApicId::new(0x0001_2345), vector(0x30));
    assert_eq!(wide.encode(DestinationFormat::Kvm32), Ok(message(0x0001_2300_fee4_5000, 0x30)));
}

#[test]
fn destinations_too_wide_are_refused() {
    let refused =
        ApicMessage::fixed(ApicId::new(256), vector(0x30)).encode(DestinationFormat::Xapic);
    assert_eq!(
        refused,
        Err(MessageError::DestinationTooWide { id: ApicId::new(256), max: ApicId::new(255) })
    );
    assert!(
        ApicMessage::fixed(ApicId::new(0x8000), vector(0x30))
            .encode(DestinationFormat::Extended15)
            .is_err()
    );
}

#[test]
fn remappable_handles_match_the_manual() {
    let plain = RemappableMessage { handle: 1, subhandle: None };
    assert_eq!(plain.encode(), message(0xfee0_0030, 0));
    let group = RemappableMessage { handle: 0x8003, subhandle: Some(0) };
    // handle[14:0] = 3 in 19:5, format in 4, SHV in 3, handle[15] in 2.
    assert_eq!(group.encode(), message(0xfee0_007c, 0));
    assert_eq!(RemappableMessage::decode(message(0xfee0_007c, 5)).unwrap().index(), 0x8008);
}

struct Ram(Vec<AtomicU64>);

impl RemapMemory for Ram {
    fn read(&self, word: u32) -> u64 {
        self.0[word as usize].load(Ordering::Relaxed)
    }
    fn write(&self, word: u32, value: u64) {
        self.0[word as usize].store(value, Ordering::Relaxed);
    }
}

fn table(mode: ApicMode, entries: &[(u64, u64)]) -> RemapTable<Ram> {
    let size = TableSize::from_log2(4).unwrap();
    let config = RemapTableConfig::new(size, mode).with_compatibility(CompatibilityFormat::Passed);
    let table = RemapTable::new(config, Ram((0..32).map(|_| AtomicU64::new(0)).collect()));
    for (word, (low, high)) in (0..).step_by(2).zip(entries) {
        table.memory().write(word, *low);
        table.memory().write(word + 1, *high);
    }
    table
}

const NIC: RequesterId = RequesterId::pci(1, 0, 0);

#[test]
fn a_remapping_entry_built_from_the_specification_translates() {
    // P, vector 0x41 in 23:16, destination 0x1234_5678 in 63:32; SID 0x0100, SQ 0, SVT 1 in 83:82.
    let table = table(ApicMode::X2apic, &[(0x1234_5678_0041_0001, 0x0004_0100)]);
    let target = table.translate(NIC, message(0xfee0_0010, 0)).unwrap();
    assert_eq!(
        target.physical(),
        Some((ApicId::new(0x1234_5678), DeliveryMode::Fixed(vector(0x41))))
    );
}

#[test]
fn xapic_destinations_are_in_bits_47_to_40() {
    let table = table(ApicMode::Xapic, &[(0x0000_0700_0041_0001, 0x0004_0100)]);
    let target = table.translate(NIC, message(0xfee0_0010, 0)).unwrap();
    assert_eq!(target.destination, ApicId::new(7));
}

#[test]
fn remapping_fault_codes_match_the_specification() {
    let good = (0x0000_0700_0041_0001, 0x0004_0100);
    let reserved = (0x0000_0700_0041_1001, 0x0004_0100);
    let posted = (0x0000_0700_0041_8001, 0x0004_0100);
    let bad_validation = (0x0000_0700_0041_0001, 0x000c_0100);
    let table = table(ApicMode::X2apic, &[good, (0, 0), reserved, posted, bad_validation]);
    let stranger = RequesterId::pci(1, 0, 1);
    let cases = [
        (NIC, message(0xfee0_0018, 0x1_0000), 0x20),
        (NIC, message(0xfed0_0010, 0), 0x20),
        (NIC, message(0xfee0_0210, 0), 0x21),
        (NIC, message(0xfee0_0030, 0), 0x22),
        (NIC, message(0xfee0_0050, 0), 0x24),
        (NIC, message(0xfee0_0070, 0), 0x24),
        (NIC, message(0xfee0_0090, 0), 0x24),
        (NIC, message(0xfee0_0000, 0x41), 0x25),
        (stranger, message(0xfee0_0010, 0), 0x26),
        (RequesterId::new(0x1_0100), message(0xfee0_0010, 0), 0x26),
    ];
    for (requester, sent, reason) in cases {
        assert_eq!(
            table.translate(requester, sent).map_err(RemapFault::reason),
            Err(reason),
            "{sent:x?}"
        );
    }
}

#[test]
fn the_address_register_encodes_the_table_size_and_apic_mode() {
    // 2^(S+1) entries: S = 3 for 16. EIME is bit 11.
    assert_eq!(table(ApicMode::X2apic, &[]).address_register(0x7_f000), 0x7_f803);
    assert_eq!(table(ApicMode::Xapic, &[]).address_register(0x7_f000), 0x7_f003);
}

#[test]
fn an_unblocked_compatibility_message_passes() {
    let target = table(ApicMode::Xapic, &[]).translate(NIC, message(0xfee0_5000, 0x41)).unwrap();
    assert_eq!(target.physical(), Some((ApicId::new(5), DeliveryMode::Fixed(vector(0x41)))));
}
