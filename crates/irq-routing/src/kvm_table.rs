//! Routing tables in the layout of `KVM_SET_GSI_ROUTING`, in the host's byte order.
//!
//! | offset | `struct kvm_irq_routing` |
//! |---|---|
//! | 0 | `nr`: number of entries |
//! | 4 | `flags`: 0 |
//! | 8 | the entries, 48 bytes each |
//!
//! | offset | `struct kvm_irq_routing_entry` |
//! |---|---|
//! | 0 | `gsi` |
//! | 4 | `type`: 1 for a pin, 2 for a message |
//! | 8 | `flags`: 1 if the message has a DeviceID |
//! | 12 | padding |
//! | 16 | for a pin: irqchip (0), pin; for a message: address low, address high, data, DeviceID |
//!
//! Source: Linux, Documentation/virt/kvm/api.rst, KVM_SET_GSI_ROUTING; arm64 has a single irqchip.

use crate::{NotAPin, Pin, Route, RoutedMessage, Sender};
use alloc::vec::Vec;
use msi_types::{DeviceId, Gsi, MsiMessage};

/// Size of the header in bytes.
pub const HEADER_SIZE: usize = 8;
/// Size of an entry in bytes.
pub const ENTRY_SIZE: usize = 48;

const WORDS: usize = ENTRY_SIZE / 4;
const TYPE_IRQCHIP: u32 = 1;
const TYPE_MSI: u32 = 2;
const MSI_VALID_DEVID: u32 = 1;
/// Irqchip number of the GIC.
const GIC: u32 = 0;

/// Defect of an entry. The author of the table is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The type is neither a pin nor a message. Other architectures have further types.
    #[error("type {0} is neither a pin (1) nor a message (2)")]
    Type(u32),
    /// A flag is set that the type does not define.
    #[error("flags {flags:#x} are not defined for entries of type {kind}")]
    Flags {
        /// The entry's type.
        kind: u32,
        /// The flags.
        flags: u32,
    },
    /// The irqchip is not the GIC.
    #[error("irqchip {0} does not exist: the GIC is irqchip 0")]
    Irqchip(u32),
    /// The pin does not exist.
    #[error(transparent)]
    Pin(#[from] NotAPin),
}

/// Reason why bytes are not a valid table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The number of bytes does not match the number of entries.
    #[error("a table of {entries} entries cannot have {bytes} bytes")]
    Length {
        /// Number of bytes.
        bytes: usize,
        /// Number of entries according to the header; 0 if the header is missing.
        entries: u32,
    },
    /// A flag of the table is set.
    #[error("the table's flags {0:#x} are not defined")]
    Flags(u32),
    /// An entry is invalid.
    #[error("entry {index}: {error}")]
    Entry {
        /// Index of the entry, from 0.
        index: u32,
        /// Defect of the entry.
        error: EntryError,
    },
}

/// Encodes one entry.
pub fn encode_entry(gsi: Gsi, route: Route) -> [u8; ENTRY_SIZE] {
    encode_entry_for(GIC, gsi, route)
}

fn encode_entry_for(irqchip: u32, gsi: Gsi, route: Route) -> [u8; ENTRY_SIZE] {
    let (kind, flags, union) = match route {
        Route::Pin(pin) => (TYPE_IRQCHIP, 0, [irqchip, pin.get(), 0, 0]),
        Route::Message(RoutedMessage { sender, message }) => {
            let (flags, device) = identity(sender);
            (TYPE_MSI, flags, [message.address_low(), message.address_high(), message.data, device])
        }
    };
    let words = [gsi.get(), kind, flags, 0].into_iter().chain(union);
    let mut bytes = [0; ENTRY_SIZE];
    bytes
        .chunks_exact_mut(4)
        .zip(words)
        .for_each(|(place, word)| place.copy_from_slice(&word.to_ne_bytes()));
    bytes
}

/// Encodes a sender as the flags and the DeviceID of an entry.
pub(crate) fn identity(sender: Sender) -> (u32, u32) {
    match sender {
        Sender::Anonymous => (0, 0),
        Sender::Device(device) => (MSI_VALID_DEVID, device.get()),
    }
}

/// Decodes an entry. Ignores the padding, and the DeviceID field of a message whose flags say that
/// it has none.
///
/// # Errors
/// Returns an error if the entry is not valid for a GIC.
pub fn decode_entry(bytes: &[u8; ENTRY_SIZE]) -> Result<(Gsi, Route), EntryError> {
    let mut words = [0; WORDS];
    words.iter_mut().zip(words_of(bytes)).for_each(|(place, word)| *place = word);
    let [gsi, kind, flags, _, first, second, data, device, ..] = words;
    let defined = match kind {
        TYPE_IRQCHIP => 0,
        TYPE_MSI => MSI_VALID_DEVID,
        _ => return Err(EntryError::Type(kind)),
    };
    if flags & !defined != 0 {
        return Err(EntryError::Flags { kind, flags });
    }
    let route = if kind == TYPE_IRQCHIP {
        if first != GIC {
            return Err(EntryError::Irqchip(first));
        }
        Route::Pin(Pin::new(second)?)
    } else {
        let identified = flags & MSI_VALID_DEVID != 0;
        let sender =
            if identified { Sender::Device(DeviceId::new(device)) } else { Sender::Anonymous };
        let address = u64::from(second) << 32 | u64::from(first);
        Route::Message(RoutedMessage { sender, message: MsiMessage { address, data } })
    };
    Ok((Gsi::new(gsi), route))
}

/// Encodes a table. Routes beyond the first `u32::MAX` are ignored.
pub fn encode(routes: &[(Gsi, Route)]) -> Vec<u8> {
    encode_for(GIC, routes.iter().copied())
}

/// Encodes a table whose pins belong to the given irqchip.
pub(crate) fn encode_for(
    irqchip: u32,
    routes: impl ExactSizeIterator<Item = (Gsi, Route)>,
) -> Vec<u8> {
    let count = u32::try_from(routes.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER_SIZE + routes.len() * ENTRY_SIZE);
    bytes.extend(count.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    for (_, (gsi, route)) in (0..count).zip(routes) {
        bytes.extend(encode_entry_for(irqchip, gsi, route));
    }
    bytes
}

/// Decodes a table into routes for [`Router::replace`](crate::Router::replace), which validates the
/// GSIs.
///
/// # Errors
/// Returns the first defect.
pub fn decode(bytes: &[u8]) -> Result<Vec<(Gsi, Route)>, TableError> {
    let (header, rest) = bytes
        .split_at_checked(HEADER_SIZE)
        .ok_or(TableError::Length { bytes: bytes.len(), entries: 0 })?;
    let mut header = words_of(header);
    let (entries, flags) = (header.next().unwrap_or(0), header.next().unwrap_or(0));
    if flags != 0 {
        return Err(TableError::Flags(flags));
    }
    let (images, odd) = rest.as_chunks::<ENTRY_SIZE>();
    if images.len() != entries as usize || !odd.is_empty() {
        return Err(TableError::Length { bytes: bytes.len(), entries });
    }
    let answer =
        |(index, image)| decode_entry(image).map_err(|error| TableError::Entry { index, error });
    (0..).zip(images).map(answer).collect()
}

fn words_of(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn routes() -> impl Strategy<Value = Route> {
        let message =
            (any::<u64>(), any::<u32>()).prop_map(|(address, data)| MsiMessage { address, data });
        prop_oneof![
            (0..Pin::COUNT).prop_map(|number| Route::Pin(Pin::new(number).unwrap())),
            message.clone().prop_map(Route::to_doorbell),
            (any::<u32>(), message)
                .prop_map(|(device, message)| Route::to_its(DeviceId::new(device), message)),
        ]
    }

    proptest! {
        #[test]
        fn an_encoded_table_decodes_to_the_same_routes(
            routes in prop::collection::vec((any::<u32>().prop_map(Gsi::new), routes()), 0..20),
        ) {
            prop_assert_eq!(decode(&encode(&routes)), Ok(routes));
        }

        #[test]
        fn a_decoded_entry_reencodes_to_the_same_route(
            words in prop::collection::vec(0u32..4, 12), wide: u32, at in 0usize..12,
        ) {
            let mut bytes = [0; ENTRY_SIZE];
            let words = words
                .iter()
                .enumerate()
                .map(|(index, word)| if index == at { wide } else { *word });
            bytes.chunks_exact_mut(4).zip(words).for_each(|(place, word)| {
                place.copy_from_slice(&word.to_ne_bytes());
            });
            if let Ok((gsi, route)) = decode_entry(&bytes) {
                prop_assert_eq!(decode_entry(&encode_entry(gsi, route)), Ok((gsi, route)));
            }
        }

        #[test]
        fn decoding_arbitrary_bytes_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn truncated_table_is_refused() {
        let bytes = encode(&[(Gsi::new(1), Route::Pin(Pin::new(1).unwrap())); 3]);
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length]), Err(TableError::Length { .. })), "{length}");
        }
    }

    #[test]
    fn a_table_with_flags_is_refused() {
        let mut bytes = encode(&[]);
        bytes[4] = 1;
        assert!(matches!(decode(&bytes), Err(TableError::Flags(_))));
    }
}
