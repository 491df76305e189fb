//! Serializes identifiers as their numbers, and affinities as `Aff3.Aff2.Aff1.Aff0` packed into 32
//! bits. Registers and addresses are hexadecimal strings in formats that people read.

use gic_arch::its::CollectionId;
use gic_arch::{Affinity, IntId};
use msi_types::{DeviceId, EventId};

/// Defines a module for `serde(with)` that stores a type as a number.
macro_rules! stored_as_number {
    ($name:ident: $type:ident as $number:ty, $new:path, $get:path) => {
        pub(super) mod $name {
            use super::$type;
            use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

            pub(in super::super) fn serialize<S: Serializer>(
                value: &$type,
                to: S,
            ) -> Result<S::Ok, S::Error> {
                $get(*value).serialize(to)
            }

            pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
                from: D,
            ) -> Result<$type, D::Error> {
                <$number>::deserialize(from).map($new)
            }
        }
    };
}

stored_as_number!(intid: IntId as u32, IntId::new, IntId::get);
stored_as_number!(affinity: Affinity as u32, Affinity::from_packed, Affinity::packed);
stored_as_number!(device: DeviceId as u32, DeviceId::new, DeviceId::get);
stored_as_number!(event: EventId as u32, EventId::new, EventId::get);
stored_as_number!(collection: CollectionId as u16, CollectionId::new, CollectionId::get);

pub(super) mod optional_affinity {
    use super::Affinity;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "required by serde")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Option<Affinity>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.map(Affinity::packed).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Affinity>, D::Error> {
        Ok(Option::<u32>::deserialize(from)?.map(Affinity::from_packed))
    }
}

/// Registers and addresses. Human-readable formats store strings like `"0x1f"`, and accept numbers
/// as well.
pub(super) mod hex {
    use core::fmt::{self, LowerHex};
    use core::marker::PhantomData;
    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<T: Copy, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error>
    where
        Hex<T>: Serialize,
    {
        Hex(*value).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, T, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error>
    where
        Hex<T>: Deserialize<'de>,
    {
        Hex::deserialize(from).map(|Hex(value)| value)
    }

    pub(in super::super) struct Hex<T>(pub(super) T);

    impl<T: LowerHex + Serialize> Serialize for Hex<T> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            if to.is_human_readable() {
                to.collect_str(&format_args!("{:#x}", self.0))
            } else {
                self.0.serialize(to)
            }
        }
    }

    impl<'de, T: TryFrom<u64> + Deserialize<'de>> Deserialize<'de> for Hex<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            if from.is_human_readable() {
                from.deserialize_any(Text(PhantomData))
            } else {
                T::deserialize(from).map(Self)
            }
        }
    }

    struct Text<T>(PhantomData<T>);

    impl<T: TryFrom<u64>> Visitor<'_> for Text<T> {
        type Value = Hex<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let bits = 8 * size_of::<T>();
            write!(f, "a value of {bits} bits as a hexadecimal string like \"0x1f\", or a number")
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<Hex<T>, E> {
            let narrow = T::try_from(value).map(Hex);
            narrow.map_err(|_| E::invalid_value(Unexpected::Unsigned(value), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Hex<T>, E> {
            let digits = text.strip_prefix("0x");
            // `from_str_radix` accepts a sign.
            let digits =
                digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
            let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            let narrow = value.and_then(|value| T::try_from(value).ok()).map(Hex);
            narrow.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
}

/// Arrays of registers.
pub(super) mod hex_array {
    use super::hex::Hex;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in super::super) fn serialize<T: Copy, const N: usize, S: Serializer>(
        values: &[T; N],
        to: S,
    ) -> Result<S::Ok, S::Error>
    where
        [Hex<T>; N]: Serialize,
    {
        values.map(Hex).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, T, const N: usize, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[T; N], D::Error>
    where
        [Hex<T>; N]: Deserialize<'de>,
    {
        Ok(<[Hex<T>; N]>::deserialize(from)?.map(|Hex(value)| value))
    }
}
