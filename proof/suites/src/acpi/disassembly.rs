//! Parses `iasl`'s output for a table. Each line contains one field:
//! `[offset length] name : value`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// A field of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    offset: u64,
    name: String,
    value: String,
}

/// The fields of a table in order.
#[derive(Clone, Debug)]
pub(crate) struct Table(Vec<Field>);

/// Consecutive fields of one structure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a>(&'a [Field]);

impl Table {
    /// Parses a disassembly. Lines that are not fields are skipped.
    pub(crate) fn read(text: &str) -> Self {
        Self(text.lines().filter_map(Field::read).collect())
    }

    /// Splits the table into parts that start with a field of this name.
    pub(super) fn parts(&self, beginning: &str) -> Vec<Part<'_>> {
        Part(&self.0).parts(beginning)
    }

    /// Returns the name and affinity of each CPU, and whether it is enabled.
    ///
    /// # Errors
    /// Fails if a field is missing.
    pub(crate) fn cpus(&self) -> Result<Vec<(String, String, bool)>> {
        let row = |part: Part<'_>| {
            let mpidr = part.number("ARM MPIDR")?;
            let affinity = [32, 16, 8, 0].map(|shift| ((mpidr >> shift) & 0xff).to_string());
            let id = format!("MADT/GICC@{}", part.number("Processor UID")?);
            Ok((id, affinity.join("."), part.number("Processor Enabled")? == 1))
        };
        self.structures(0x0b)?.into_iter().map(row).collect()
    }

    /// Returns the base and size of each redistributor region.
    ///
    /// # Errors
    /// Fails if a field is missing.
    pub(crate) fn redistributors(&self) -> Result<Vec<(u64, u64)>> {
        // The structure's own length has the same field name and precedes the region's length.
        let row = |part: Part<'_>| Ok((part.number("Base Address")?, part.last("Length")?));
        self.structures(0x0e)?.into_iter().map(row).collect()
    }

    /// Returns the name of each controller, with its doorbell and ranges.
    ///
    /// # Errors
    /// Fails if a field is missing.
    pub(crate) fn controllers(&self) -> Result<Vec<(String, String)>> {
        let mut rows = Vec::new();
        for part in self.parts("Subtable Type") {
            let kind = part.number("Subtable Type")?;
            if kind == 0x0f {
                let id = part.number("Translation ID")?;
                let doorbell = part.number("Base Address")? + 0x1_0040;
                rows.push((format!("MADT/ITS@{id}"), format!("its [{doorbell}] []")));
            } else if kind == 0x0d {
                let (first, count) = (part.number("SPI Base")?, part.number("SPI Count")?);
                let range = format!("[{{\"count\":{count},\"first\":{first}}}]");
                let is_stated = part.number("Select SPI")? == 1;
                let doorbell = part.number("Base Address")? + 0x40;
                let id = format!("MADT/MSI-frame@{}", part.number("MSI Frame ID")?);
                let ranges = if is_stated { &range } else { "[]" };
                rows.push((id, format!("v2m [{doorbell}] {ranges}")));
            }
        }
        Ok(rows)
    }

    /// Returns the number of SPIs of each frame by name, or `None` if the frame's register
    /// determines the number.
    pub(super) fn frame_spis(&self) -> Result<BTreeMap<String, Option<u64>>> {
        let row = |part: Part<'_>| {
            let id = format!("MADT/MSI-frame@{}", part.number("MSI Frame ID")?);
            let count = part.number("SPI Count")?;
            Ok((id, (part.number("Select SPI")? == 1).then_some(count)))
        };
        self.structures(0x0d)?.into_iter().map(row).collect()
    }

    fn structures(&self, kind: u64) -> Result<Vec<Part<'_>>> {
        let mut found = Vec::new();
        for part in self.parts("Subtable Type") {
            if part.number("Subtable Type")? == kind {
                found.push(part);
            }
        }
        Ok(found)
    }
}

impl<'a> Part<'a> {
    /// Returns the parts of this part that start with a field of this name.
    pub(super) fn parts(self, beginning: &str) -> Vec<Self> {
        let begins = self.0.iter().enumerate().filter(|(_, field)| field.name == beginning);
        let begins: Vec<_> = begins.map(|(index, _)| index).collect();
        let ends = begins.iter().skip(1).copied().chain([self.0.len()]);
        begins.iter().zip(ends).map(|(begin, end)| Self(&self.0[*begin..end])).collect()
    }

    /// Returns the offset of the first field.
    pub(super) fn offset(self) -> u64 {
        self.0.first().map_or(0, |field| field.offset)
    }

    /// Returns the value of the first field of this name.
    pub(super) fn text(self, name: &str) -> Result<&'a str> {
        let field = self.0.iter().find(|field| field.name == name);
        Ok(&field.with_context(|| format!("iasl's output has no field {name}"))?.value)
    }

    pub(super) fn number(self, name: &str) -> Result<u64> {
        parse(name, self.text(name)?)
    }

    /// Returns the number in the last field of this name.
    pub(super) fn last(self, name: &str) -> Result<u64> {
        let field = self.0.iter().rfind(|field| field.name == name);
        parse(name, &field.with_context(|| format!("iasl's output has no field {name}"))?.value)
    }
}

fn parse(name: &str, value: &str) -> Result<u64> {
    let digits = value.split_whitespace().next().unwrap_or_default();
    u64::from_str_radix(digits, 16).with_context(|| format!("{name} is {value}"))
}

impl Field {
    /// Parses `[02Ch 0044   1]  Name : value`. A line for a flag of the preceding field has no
    /// offset.
    fn read(line: &str) -> Option<Self> {
        let (place, rest) = match line.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None if line.starts_with(' ') => ("0h", line),
            None => return None,
        };
        let (name, value) = rest.split_once(" : ")?;
        let offset = u64::from_str_radix(place.split_once('h')?.0, 16).ok()?;
        let name = name.trim().trim_end_matches(" (decoded below)").to_owned();
        Some(Self { offset, name, value: value.trim().to_owned() })
    }
}
