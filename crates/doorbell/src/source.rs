//! Sources of descriptions: devicetree blobs and built-in machines.

use anyhow::{Context, Result, bail};
use gic_firmware::{Description, devicetree};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The longest file that is read. Kernels take less: arm64's booting protocol has 2 MiB at most.
const MAX_BYTES: u64 = 16 << 20;

/// A description and what to call it.
#[derive(Debug)]
pub(crate) struct Source {
    /// The file's path, or the embedded machine's name.
    pub(crate) name: String,
    /// Description that was read.
    pub(crate) description: Description,
}

impl Source {
    /// Reads a flattened devicetree from a file.
    pub(crate) fn dtb(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut blob = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut blob));
        let length = read.with_context(|| format!("cannot read {name}"))?;
        if length as u64 > MAX_BYTES {
            bail!("{name} is larger than {} MiB: it is no flattened devicetree", MAX_BYTES >> 20);
        }
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
