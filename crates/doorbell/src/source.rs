//! Where descriptions come from.

use anyhow::{Context, Result, bail};
use gic_firmware::{Description, devicetree};
use std::path::Path;

/// A description and what to call it.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file's path, or the embedded machine's name.
    pub(crate) name: String,
    /// What it says.
    pub(crate) description: Description,
}

impl Source {
    /// Reads a flattened devicetree from a file.
    pub(crate) fn dtb(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let blob = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
        Self::parse(name, &blob)
    }

    /// An embedded machine; the first one if none is named.
    pub(crate) fn embedded(name: Option<&str>) -> Result<Self> {
        let machines = doorbell_machine::embedded::machines();
        let Some(machine) = machines.iter().find(|machine| name.is_none_or(|name| name == machine.name))
        else {
            let known: Vec<&str> = machines.iter().map(|machine| machine.name).collect();
            bail!(
                "no embedded machine is called {:?}; there are: {}",
                name.unwrap_or_default(),
                known.join(", ")
            );
        };
        Self::parse(machine.name.to_owned(), machine.dtb)
    }

    fn parse(name: String, blob: &[u8]) -> Result<Self> {
        let description =
            devicetree::parse(blob).with_context(|| format!("{name} is no flattened devicetree"))?;
        Ok(Self { name, description })
    }
}
