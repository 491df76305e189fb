//! A GIC's state, consisting of attributes and memory. The text form of the state can be read by
//! people and parsed by programs.

use crate::Failure;
use std::fmt;
use std::str::FromStr;
use vgic_kvm::KvmDevice;
use vgic_kvm::abi::Attribute;

/// The state of a GIC and its ITSes as KVM attributes, in the order in which they must be restored,
/// plus the memory that the GIC and the ITSes use.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The device, the attribute and the value of each entry.
    pub attributes: Vec<(KvmDevice, Attribute, u64)>,
    /// Addresses and bytes. All other memory is zero.
    pub memory: Vec<(u64, Vec<u8>)>,
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

impl Snapshot {
    fn parse_line(&mut self, line: &str) -> Result<(), Failure> {
        let words: Vec<_> = line.split_whitespace().collect();
        let (device, [group, attribute, value]) = match words[..] {
            [] => return Ok(()),
            [first, ..] if first.starts_with('#') => return Ok(()),
            ["memory", address, bytes] => {
                self.memory.push((number(address)?, decode_hex(bytes)?));
                return Ok(());
            }
            ["gicv3", a, b, c] => (KvmDevice::Gic, [a, b, c]),
            ["its0", a, b, c] => (KvmDevice::Its(0), [a, b, c]),
            ["its1", a, b, c] => (KvmDevice::Its(1), [a, b, c]),
            _ => {
                return Err(
                    "neither `gicv3`, `its0`, `its1` nor `memory`, or words are missing".into()
                );
            }
        };
        let attribute = Attribute::decode(number(group)?.try_into()?, number(attribute)?)?;
        self.attributes.push((device, attribute, number(value)?));
        Ok(())
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
    type Err = Failure;

    /// Parses a snapshot. Empty lines and lines starting with `#` are ignored.
    fn from_str(text: &str) -> Result<Self, Failure> {
        let mut snapshot = Self::default();
        for (line, content) in (1..).zip(text.lines()) {
            snapshot.parse_line(content).map_err(|error| format!("line {line}: {error}"))?;
        }
        Ok(snapshot)
    }
}

fn number(word: &str) -> Result<u64, Failure> {
    Ok(match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16)?,
        None => word.parse()?,
    })
}

fn decode_hex(word: &str) -> Result<Vec<u8>, Failure> {
    let (pairs, rest) = word.as_bytes().as_chunks::<2>();
    let pair = |pair: &[u8; 2]| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?);
    if rest.is_empty() { pairs.iter().map(pair).collect() } else { Err("half a byte".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_lists_both_values() {
        let ours: Snapshot = "gicv3 1 0x0 0x1\ngicv3 1 0x4 0x2".parse().unwrap();
        let theirs: Snapshot = "gicv3 1 0x0 0x1\ngicv3 1 0x4 0x3".parse().unwrap();
        assert_eq!(ours.differences(&theirs), ["-gicv3 1 0x4 0x2", "+gicv3 1 0x4 0x3"]);
        assert!(ours.differences(&ours).is_empty());
    }
}
