//! APIC IDs in the addresses of x86 messages, with 8 bits or more.
//!
//! | bits of the APIC ID | bits of the guest's address | bits of KVM's address |
//! |---|---|---|
//! | 7–0 | 19–12 | 19–12 |
//! | 14–8 | 11–5 | 46–40 |
//! | 31–15 | – | 63–47 |
//!
//! Source: Linux, Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID (guest);
//! Documentation/virt/kvm/api.rst, KVM_CAP_X2APIC_API and KVM_SET_GSI_ROUTING (KVM). Bit 4 marks an
//! interrupt of remappable format: Intel VT-d specification, "Interrupt Requests in Remappable
//! Format".

use crate::{Route, RoutedMessage};

/// Width of the APIC IDs in an x86 guest's messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ApicIds {
    /// 8 bits. This is also the right choice on architectures other than x86.
    #[default]
    Bits8,
    /// 15 bits in addresses that the guest writes (if it is offered `KVM_FEATURE_MSI_EXT_DEST_ID`),
    /// or 32 bits in addresses in KVM's format, which stores bits 31:8 in the address's upper half.
    /// The VMM must have enabled `KVM_X2APIC_API_USE_32BIT_IDS` (`KVM_CAP_X2APIC_API`) for its VM.
    Extended,
}

const EXTENDED: u64 = 0x7f << 5;
const REMAPPABLE: u64 = 1 << 4;
/// Shift from bit 5 of a guest address to bit 40 of a KVM address.
const SHIFT: u32 = 35;
/// Bits that must be 0 in a KVM address.
const RESERVED: u64 = 0xff << 32;

impl ApicIds {
    /// Converts a message to KVM's format. An address with a nonzero upper half is already in that
    /// format.
    pub(super) fn message(self, mut routed: RoutedMessage) -> RoutedMessage {
        let address = routed.message.address;
        let guests = address >> 32 == 0 && address & REMAPPABLE == 0;
        if self == Self::Extended && guests {
            routed.message.address = address & !EXTENDED | (address & EXTENDED) << SHIFT;
        }
        routed
    }

    /// Converts a route to KVM's format.
    pub(super) fn route(self, route: Route) -> Route {
        match route {
            Route::Pin(_) => route,
            Route::Message(message) => Route::Message(self.message(message)),
        }
    }

    /// Returns `true` if KVM accepts the message, which must be in KVM's format. The guest may
    /// write any address, and a single bad one would make KVM reject the whole table.
    pub(super) fn takes(self, routed: RoutedMessage) -> bool {
        self == Self::Bits8 || routed.message.address & RESERVED == 0
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sender;
    use msi_types::MsiMessage;

    fn converted(ids: ApicIds, address: u64) -> u64 {
        let message = MsiMessage { address, data: 0x41 };
        ids.message(RoutedMessage { sender: Sender::Anonymous, message }).message.address
    }

    #[test]
    fn extended_apic_ids_move_to_the_upper_address_half() {
        for (guests, kvms) in [
            (0xfee0_1000, 0xfee0_1000),
            (0xfee0_1020, 0x0000_0100_fee0_1000),
            (0xfeef_ffe0, 0x0000_7f00_feef_f000),
            (0xfee0_102c, 0x0000_0100_fee0_100c),
        ] {
            assert_eq!(converted(ApicIds::Extended, guests), kvms, "{guests:#x}");
            assert_eq!(converted(ApicIds::Bits8, guests), guests);
        }
    }

    #[test]
    fn remappable_and_64_bit_addresses_are_left_unchanged() {
        for address in [0xfee0_1030, 0x0000_0200_fee0_1020] {
            assert_eq!(converted(ApicIds::Extended, address), address, "{address:#x}");
        }
    }
}
