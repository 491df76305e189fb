//! Machines embedded in this crate, as compiled devicetrees and ACPI tables.

use gic_firmware::acpi::{TableError, TableSet};
use gic_firmware::devicetree::DtbError;
use gic_firmware::{Description, acpi, devicetree};

/// A machine embedded in this crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct EmbeddedMachine {
    /// Short name.
    pub name: &'static str,
    /// One-line summary of the machine's features.
    pub description: &'static str,
    /// Firmware description.
    pub firmware: Firmware,
}

/// The machine's description, in a format that firmware uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Firmware {
    /// A flattened devicetree.
    Devicetree(&'static [u8]),
    /// ACPI tables.
    Acpi(&'static [&'static [u8]]),
}

impl Firmware {
    /// Parses the description.
    ///
    /// # Errors
    ///
    /// Returns an error if the blob is malformed. The machines in this crate are always
    /// well-formed.
    pub fn describe(self) -> Result<Description, FirmwareError> {
        Ok(match self {
            Self::Devicetree(blob) => devicetree::parse(blob)?,
            Self::Acpi(blobs) => acpi::parse(&TableSet::from_blobs(blobs.iter().copied())?),
        })
    }
}

/// The reason why a firmware description could not be parsed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// A malformed devicetree.
    #[error("its devicetree: {0}")]
    Devicetree(#[from] DtbError),
    /// A malformed ACPI table.
    #[error("its ACPI tables: {0}")]
    Acpi(#[from] TableError),
}

/// Returns all embedded machines, the default one first.
pub const fn machines() -> &'static [EmbeddedMachine] {
    &[
        EmbeddedMachine {
            name: "harbour",
            description: "8 CPUs, 2 ITSes, 2 PCIe host bridges with maps and a mask, 3 platform \
                          devices",
            firmware: Firmware::Devicetree(include_bytes!("../machines/harbour.dtb")),
        },
        EmbeddedMachine {
            name: "lagoon",
            description: "4 CPUs, direct LPIs without an ITS, a PCIe host bridge, 2 platform \
                          devices",
            firmware: Firmware::Devicetree(include_bytes!("../machines/lagoon.dtb")),
        },
        EmbeddedMachine {
            name: "estuary",
            description: "4 CPUs, message-based SPIs (mbi) beside an ITS, 2 PCIe host bridges, 3 \
                          platform devices",
            firmware: Firmware::Devicetree(include_bytes!("../machines/estuary.dtb")),
        },
        EmbeddedMachine {
            name: "cove",
            description: "4 CPUs, 2 GICv2m frames on a GICv3, 2 PCIe host bridges, 2 platform \
                          devices",
            firmware: Firmware::Devicetree(include_bytes!("../machines/cove.dtb")),
        },
        EmbeddedMachine {
            name: "hyperv",
            description: "4 CPUs, a guest of Hyper-V: a virtual PCI bus (vPCI) over the GIC's SPIs",
            firmware: Firmware::Devicetree(include_bytes!("../machines/hyperv.dtb")),
        },
        EmbeddedMachine {
            name: "marina",
            description: "6 CPUs, 2 ITSes by ACPI, 2 PCI segments, one behind an SMMU, 4 platform \
                          devices",
            firmware: Firmware::Acpi(&[
                include_bytes!("../machines/marina/apic.aml"),
                include_bytes!("../machines/marina/iort.aml"),
                include_bytes!("../machines/marina/mcfg.aml"),
            ]),
        },
    ]
}

/// Returns the embedded machine called `name`.
pub fn machine(name: &str) -> Option<&'static EmbeddedMachine> {
    machines().iter().find(|machine| machine.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gic_firmware::lint::{self, KnownRegisters};

    #[test]
    fn embedded_machines_are_free_of_findings() {
        for machine in machines() {
            let description = machine.firmware.describe().unwrap();
            let findings = lint::check(&description, &KnownRegisters::default());
            assert_eq!(findings, [], "{}", machine.name);
        }
    }
}
