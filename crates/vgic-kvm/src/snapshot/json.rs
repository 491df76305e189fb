//! Serialization of snapshots. Bytes, and numbers that may exceed 32 bits, are hexadecimal strings.

use super::{KvmSnapshot, MemoryRange, SNAPSHOT_VERSION, SnapshotCpu};
use crate::abi::Attribute;
use crate::register::{KvmDevice, KvmRegister};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Value of `format`.
const FORMAT: &str = "kvm-vgic";

pub(super) mod affinity {
    use gic_arch::Affinity;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "required by serde")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &Affinity,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.packed().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Affinity, D::Error> {
        u32::deserialize(from).map(Affinity::from_packed)
    }
}

pub(super) mod hex {
    use super::{Cow, Deserialize as _, Deserializer, Serializer};
    use serde::de::Error as _;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "required by serde")]
    pub(in super::super) fn serialize<S: Serializer>(
        value: &u64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{value:#x}"))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<u64, D::Error> {
        let text = Cow::<'_, str>::deserialize(from)?;
        let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.ok_or_else(|| D::Error::custom("a number must be a string such as \"0x1f\""))
    }
}

pub(super) mod bytes {
    use super::digit;
    use super::{Cow, Deserialize as _, Deserializer, Serialize as _, Serializer, String, Vec};
    use core::fmt::Write as _;
    use serde::de::Error as _;

    pub(in super::super) fn serialize<S: Serializer>(
        value: &[u8],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(2 * value.len());
        for byte in value {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text.serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'_, str>::deserialize(from)?;
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        });
        let bytes = pairs.collect::<Option<Vec<u8>>>();
        bytes.ok_or_else(|| D::Error::custom("bytes must be pairs of hexadecimal digits"))
    }
}

/// Returns the value of a hexadecimal digit.
fn digit(letter: u8) -> Option<u8> {
    let value = char::from(letter).to_digit(16)?;
    u8::try_from(value).ok()
}

impl Serialize for KvmDevice {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Gic => to.serialize_str("gic"),
            Self::Its(index) => to.collect_str(&format_args!("its{index}")),
        }
    }
}

impl<'de> Deserialize<'de> for KvmDevice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(from)?;
        let index = text.strip_prefix("its").and_then(|index| index.parse().ok());
        match (&*text, index) {
            ("gic", _) => Ok(Self::Gic),
            (_, Some(index)) => Ok(Self::Its(index)),
            _ => Err(D::Error::custom(format!("a device is `gic`, `its0`, …, not {text:?}"))),
        }
    }
}

/// A [`KvmRegister`] with the fields of `struct kvm_device_attr`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Register {
    device: KvmDevice,
    group: u32,
    #[serde(with = "hex")]
    attribute: u64,
    #[serde(with = "hex")]
    value: u64,
}

impl Serialize for KvmRegister {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { device, attribute, value } = *self;
        let (group, attribute) = (attribute.group(), attribute.number());
        Register { device, group, attribute, value }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for KvmRegister {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Register { device, group, attribute, value } = Register::deserialize(from)?;
        let attribute = Attribute::decode(group, attribute).map_err(D::Error::custom)?;
        Ok(Self { device, attribute, value })
    }
}

/// The JSON object of a snapshot, with its format and version.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    format: Cow<'a, str>,
    version: u32,
    cpus: Cow<'a, [SnapshotCpu]>,
    interrupts: u32,
    attributes: Cow<'a, [KvmRegister]>,
    memory: Cow<'a, [MemoryRange]>,
}

impl Serialize for KvmSnapshot {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Fields {
            format: FORMAT.into(),
            version: SNAPSHOT_VERSION,
            cpus: (&*self.cpus).into(),
            interrupts: self.interrupts,
            attributes: (&*self.attributes).into(),
            memory: (&*self.memory).into(),
        }
        .serialize(to)
    }
}

impl<'de> Deserialize<'de> for KvmSnapshot {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Fields::deserialize(from)?;
        if fields.format != FORMAT || fields.version != SNAPSHOT_VERSION {
            let (format, version) = (fields.format, fields.version);
            return Err(D::Error::custom(format!(
                "format {format:?} of version {version}, but this library reads {FORMAT:?} of \
                 version {SNAPSHOT_VERSION}"
            )));
        }
        Ok(Self {
            cpus: fields.cpus.into_owned(),
            interrupts: fields.interrupts,
            attributes: fields.attributes.into_owned(),
            memory: fields.memory.into_owned(),
        })
    }
}
