//! Serializes identifiers as their numbers, and affinities as `Aff3.Aff2.Aff1.Aff0` packed into 32
//! bits.

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
