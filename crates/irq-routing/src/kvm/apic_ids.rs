//! Destinations of x86 messages: 8 bits of APIC ID in the address, or more.
//!
//! | bits of the APIC ID | in a guest's address | in KVM's |
//! |---|---|---|
//! | 7–0 | 19–12 | 19–12 |
//! | 14–8 | 11–5 | 46–40 |
//! | 31–15 | – | 63–47 |
//!
//! Source: Linux, Documentation/virt/kvm/x86/cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID (the guest's);
//! Documentation/virt/kvm/api.rst, KVM_CAP_X2APIC_API and KVM_SET_GSI_ROUTING (KVM's). Bit 4 is the
//! format of interrupt remapping: Intel VT-d specification, "Interrupt Requests in Remappable
//! Format".

use crate::{Route, RoutedMessage};

/// Widths of the APIC IDs that messages of x86 guests have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ApicIds {
    /// 8 bits. Right for other architectures, too.
    #[default]
    Bits8,
    /// 15 bits, in the addresses of guests that are offered `KVM_FEATURE_MSI_EXT_DEST_ID`; all 32
    /// in the upper half of an address, as KVM has them. The monitor must have enabled
    /// `KVM_X2APIC_API_USE_32BIT_IDS` (`KVM_CAP_X2APIC_API`) in its machine.
    Extended,
}

const EXTENDED: u64 = 0x7f << 5;
const REMAPPABLE: u64 = 1 << 4;
/// From bit 5 of the guest's address to bit 40 of KVM's.
const SHIFT: u32 = 35;
/// Bits of KVM's address that must be 0.
const RESERVED: u64 = 0xff << 32;

impl ApicIds {
    /// Returns a message as KVM takes it. An address that has an upper half already is KVM's.
    pub(super) fn message(self, mut routed: RoutedMessage) -> RoutedMessage {
        let address = routed.message.address;
        let guests = address >> 32 == 0 && address & REMAPPABLE == 0;
        if self == Self::Extended && guests {
            routed.message.address = address & !EXTENDED | (address & EXTENDED) << SHIFT;
        }
        routed
    }

    /// Returns a route as KVM takes it.
    pub(super) fn route(self, route: Route) -> Route {
        match route {
            Route::Pin(_) => route,
            Route::Message(message) => Route::Message(self.message(message)),
        }
    }

    /// Returns true if KVM takes this message of its own format. A guest may write any address, and
    /// one that KVM refuses would cost all others their table.
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
    fn extended_ids_move_to_the_upper_half() {
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
    fn remappable_and_wide_addresses_stay() {
        for address in [0xfee0_1030, 0x0000_0200_fee0_1020] {
            assert_eq!(converted(ApicIds::Extended, address), address, "{address:#x}");
        }
    }
}
