//! Parses Linux's console and QEMU's trace, and returns the devices that Linux found.

use std::collections::BTreeSet;

/// The devices that Linux finds and maps.
#[derive(Debug, Default)]
pub struct FoundDevices {
    /// Ports listed on Linux's console.
    pub ports: BTreeSet<Port>,
    /// DeviceIDs that Linux maps at the ITS.
    pub mapped: BTreeSet<u64>,
}

/// A PCI Express port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// PCI segment.
    pub segment: u64,
    /// Requester ID.
    pub requester: u64,
}

impl Port {
    /// Parses a line `[…] pci 0000:80:00.0: [1b36:000c] type 01 class 0x060400` of the console.
    pub fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(" pci ")?;
        let (address, what) = rest.split_once(": ")?;
        what.contains("] type 01 ").then_some(())?;
        let numbers = address.split([':', '.']).map(|digits| u64::from_str_radix(digits, 16).ok());
        match numbers.collect::<Option<Vec<_>>>()?[..] {
            [segment, bus, device, function] => {
                Some(Self { segment, requester: bus << 8 | device << 3 | function })
            }
            _ => None,
        }
    }
}

/// Parses a line of QEMU's trace, `… MAPD DeviceID 0x8 Size 0x0 ITT_addr 0x5c7914 V 1`, and returns
/// the DeviceID.
pub fn mapped(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" DeviceID 0x")?;
    line.ends_with(" V 1").then_some(())?;
    u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_bridges_are_parsed_from_console_lines() {
        let line = "[    0.31] pci 0002:80:02.1: [1b36:000c] type 01 class 0x060400\r";
        assert_eq!(Port::read(line), Some(Port { segment: 2, requester: 0x8011 }));
        assert_eq!(Port::read(&line.replace("type 01", "type 00")), None);
        assert_eq!(Port::read("[    0.31] pci 0000:80:00.0: BAR 0 [mem 0x0-0xfff]"), None);
    }

    #[test]
    fn a_mapd_trace_line_yields_the_mapped_device_id() {
        let line = "gicv3_its_cmd_mapd GICv3 ITS: command MAPD DeviceID 0x208 Size 0x0 \
                    ITT_addr 0x40b5ae V 1";
        assert_eq!(mapped(line), Some(0x208));
        assert_eq!(mapped(&line.replace("V 1", "V 0")), None);
    }
}
