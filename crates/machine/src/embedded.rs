//! Machines that come with the crate: devicetrees written by us, compiled.

/// A machine that comes with the crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EmbeddedMachine {
    /// Its short name.
    pub name: &'static str,
    /// Its features, in one line.
    pub description: &'static str,
    /// Its devicetree, as firmware hands it over.
    pub dtb: &'static [u8],
}

/// All of them, the default one first.
pub const fn machines() -> &'static [EmbeddedMachine] {
    &[
        EmbeddedMachine {
            name: "harbour",
            description: "8 CPUs, 2 ITSes, 2 PCIe host bridges with maps and a mask, 3 platform devices",
            dtb: include_bytes!("../machines/harbour.dtb"),
        },
        EmbeddedMachine {
            name: "lagoon",
            description: "4 CPUs, direct LPIs without an ITS, a PCIe host bridge, 2 platform devices",
            dtb: include_bytes!("../machines/lagoon.dtb"),
        },
        EmbeddedMachine {
            name: "estuary",
            description: "4 CPUs, message-based SPIs (mbi) beside an ITS, a PCIe host bridge and a platform device on each, and one that holds a level",
            dtb: include_bytes!("../machines/estuary.dtb"),
        },
        EmbeddedMachine {
            name: "cove",
            description: "4 CPUs, 2 GICv2m frames on a GICv3, a PCIe host bridge and a platform device on each",
            dtb: include_bytes!("../machines/cove.dtb"),
        },
    ]
}

/// The one with this name.
pub fn machine(name: &str) -> Option<&'static EmbeddedMachine> {
    machines().iter().find(|machine| machine.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_devicetrees_parse_without_findings() {
        for machine in machines() {
            let description = gic_firmware::devicetree::parse(machine.dtb).unwrap();
            assert_eq!(description.findings, [], "{}", machine.name);
        }
    }
}
