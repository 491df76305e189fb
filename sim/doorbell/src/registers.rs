//! Reads register values from a file. The values provide facts that firmware does not state.

use anyhow::{Context, Result};
use gic_firmware::NodeId;
use gic_firmware::lint::KnownRegisters;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The file's contents: registers by their architectural names, ITSes by their nodes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registers {
    #[serde(rename = "GICD_TYPER")]
    distributor: Option<Number>,
    #[serde(rename = "GICR_TYPER", default)]
    redistributors: Vec<Number>,
    #[serde(rename = "GITS_TYPER", default)]
    its: BTreeMap<String, Number>,
}

/// A plain number, or a string with a hexadecimal number (which JSON doesn't support).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(u64),
    Hexadecimal(String),
}

impl Number {
    fn get(&self) -> Result<u64> {
        match self {
            Self::Plain(number) => Ok(*number),
            Self::Hexadecimal(text) => {
                let digits = text.strip_prefix("0x").unwrap_or(text);
                u64::from_str_radix(digits, 16)
                    .with_context(|| format!("{text:?} is not a hexadecimal number"))
            }
        }
    }
}

/// Reads register values from a file.
pub(crate) fn read(path: &Path) -> Result<KnownRegisters> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let registers: Registers =
        serde_json::from_str(&text).with_context(|| format!("{name} has no register values"))?;
    known(&registers).with_context(|| format!("{name} has no register values"))
}

fn known(registers: &Registers) -> Result<KnownRegisters> {
    let gicd_typer = registers.distributor.as_ref().map(Number::get).transpose()?;
    let its = registers.its.iter();
    Ok(KnownRegisters {
        gicd_typer: gicd_typer.map(u32::try_from).transpose().context("GICD_TYPER has 32 bits")?,
        gicr_typer: registers.redistributors.iter().map(Number::get).collect::<Result<_>>()?,
        gits_typer: its
            .map(|(id, typer)| Ok((NodeId::new(id), typer.get()?)))
            .collect::<Result<_>>()?,
    })
}
