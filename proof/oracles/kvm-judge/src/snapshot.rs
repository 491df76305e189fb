//! A GIC's state, consisting of attributes and memory. The text form of the state can be read by
//! people and parsed by programs.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::{Attribute, UnknownGroup};

/// The state of a GIC and its ITSes as KVM attributes, in the order in which they must be restored,
/// plus the memory that the GIC and the ITSes use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The device, the attribute and the value of each entry.
    pub attributes: Vec<(KvmDevice, Attribute, u64)>,
    /// Addresses and bytes. All other memory is zero.
    pub memory: Vec<(u64, Vec<u8>)>,
}

/// The reason why a text isn't a valid snapshot.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The line is neither an attribute nor memory.
    #[error("line {0}: neither `gicv3`, `its0`, `its1` nor `memory`, or words are missing")]
    Line(usize),
    /// A number is malformed.
    #[error("line {line}: {error}")]
    Number {
        /// Line number, starting at 1.
        line: usize,
        /// The reason why the number is malformed.
        error: ParseIntError,
    },
    /// The group of an attribute is unknown.
    #[error("line {line}: {error}")]
    Group {
        /// Line number, starting at 1.
        line: usize,
        /// The unknown group's number.
        error: UnknownGroup,
    },
}

impl Snapshot {
    /// Returns an attribute's value if the snapshot contains the attribute.
    pub fn get(&self, device: KvmDevice, attribute: Attribute) -> Option<u64> {
        let mut found =
            self.attributes.iter().filter(|(of, which, _)| (*of, *which) == (device, attribute));
        found.next().map(|(_, _, value)| *value)
    }

    /// Returns the lines in which two snapshots differ, with `-` before lines of the first and `+`
    /// before lines of the second.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (ours, theirs) = (self.to_string(), other.to_string());
        let only = |from: &str, in_no: &str, sign| {
            let lines = from.lines().filter(|line| !in_no.lines().any(|other| other == *line));
            lines.map(|line| format!("{sign}{line}")).collect::<Vec<_>>()
        };
        [only(&ours, &theirs, '-'), only(&theirs, &ours, '+')].concat()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (device, attribute, value) in &self.attributes {
            match device {
                KvmDevice::Gic => f.write_str("gicv3")?,
                KvmDevice::Its(index) => write!(f, "its{index}")?,
            }
            writeln!(f, " {} {:#x} {value:#x}", attribute.group(), attribute.number())?;
        }
        for (address, bytes) in &self.memory {
            write!(f, "memory {address:#x} ")?;
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl FromStr for Snapshot {
    type Err = SnapshotError;

    /// Parses a snapshot. Empty lines and lines starting with `#` are ignored.
    fn from_str(text: &str) -> Result<Self, SnapshotError> {
        let mut snapshot = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            let words: Vec<_> = content.split_whitespace().collect();
            let device = match words.as_slice() {
                [] => continue,
                [first, ..] if first.starts_with('#') => continue,
                ["memory", address, bytes] => {
                    snapshot.memory.push((number(address, line)?, decode_hex(bytes, line)?));
                    continue;
                }
                ["gicv3", _, _, _] => KvmDevice::Gic,
                ["its0", _, _, _] => KvmDevice::Its(0),
                ["its1", _, _, _] => KvmDevice::Its(1),
                _ => return Err(SnapshotError::Line(line)),
            };
            let group =
                u32::try_from(number(words[1], line)?).map_err(|_| SnapshotError::Line(line))?;
            let attribute = Attribute::decode(group, number(words[2], line)?)
                .map_err(|error| SnapshotError::Group { line, error })?;
            snapshot.attributes.push((device, attribute, number(words[3], line)?));
        }
        Ok(snapshot)
    }
}

fn number(word: &str, line: usize) -> Result<u64, SnapshotError> {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => word.parse(),
    };
    parsed.map_err(|error| SnapshotError::Number { line, error })
}

fn decode_hex(word: &str, line: usize) -> Result<Vec<u8>, SnapshotError> {
    if !word.is_ascii() || !word.len().is_multiple_of(2) {
        return Err(SnapshotError::Line(line));
    }
    let pair = |at| u8::from_str_radix(&word[at..at + 2], 16);
    (0..word.len())
        .step_by(2)
        .map(|at| pair(at).map_err(|error| SnapshotError::Number { line, error }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attributes() -> impl Strategy<Value = (KvmDevice, Attribute, u64)> {
        let device =
            prop_oneof![Just(KvmDevice::Gic), Just(KvmDevice::Its(0)), Just(KvmDevice::Its(1))];
        let group = prop_oneof![Just(0), Just(1), 3_u32..9];
        (device, group, any::<u64>(), any::<u64>()).prop_map(|(device, group, number, value)| {
            (device, Attribute::decode(group, number).unwrap(), value)
        })
    }

    proptest! {
        #[test]
        fn snapshot_text_round_trips(
            attributes in proptest::collection::vec(attributes(), 0..8),
            memory in proptest::collection::vec(
                (any::<u64>(), proptest::collection::vec(any::<u8>(), 1..40)),
                0..4,
            ),
        ) {
            let snapshot = Snapshot { attributes, memory };
            prop_assert_eq!(snapshot.to_string().parse(), Ok(snapshot));
        }

        #[test]
        fn parsing_arbitrary_text_does_not_panic(
            text in "((gicv3|its0|memory) )?[0-9a-fx ]{0,30}[é#]?\n?",
        ) {
            let _ = text.parse::<Snapshot>();
        }
    }

    #[test]
    fn a_malformed_snapshot_line_is_reported_by_number() {
        assert_eq!("# origin\n\ngicv2 1 0 0".parse::<Snapshot>(), Err(SnapshotError::Line(3)));
        assert_eq!("memory 0x0 123".parse::<Snapshot>(), Err(SnapshotError::Line(1)));
        let unknown = SnapshotError::Group { line: 1, error: UnknownGroup(2) };
        assert_eq!("gicv3 2 0 0".parse::<Snapshot>(), Err(unknown));
    }

    #[test]
    fn a_difference_lists_both_values() {
        let ours: Snapshot = "gicv3 1 0x0 0x1\ngicv3 1 0x4 0x2".parse().unwrap();
        let theirs: Snapshot = "gicv3 1 0x0 0x1\ngicv3 1 0x4 0x3".parse().unwrap();
        assert_eq!(ours.differences(&theirs), ["-gicv3 1 0x4 0x2", "+gicv3 1 0x4 0x3"]);
        assert!(ours.differences(&ours).is_empty());
    }
}
