//! The page's work: from the files that a person drops to the outputs of the command.

use anyhow::{Result, bail, ensure};
use doorbell_inspection::graph::{self, Graph};
use doorbell_inspection::inspect::Inspection;
use doorbell_inspection::report::{Page, RunPart, judge};
use doorbell_inspection::{
    MAX_BYTES, Source, is_blob, is_devicetree_source, is_overlay, is_table_source, json, lint,
};
use gic_firmware::lint::KnownRegisters;
use std::path::Path;

/// An output, whose number the script uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Error message. All other outputs are then empty.
    Error = 0,
    /// The page that `doorbell report --no-run` writes.
    Report = 1,
    /// What `doorbell inspect --json` writes.
    Inspection = 2,
    /// What `doorbell lint --json` writes.
    Findings = 3,
    /// What `doorbell graph` writes.
    Picture = 4,
}

/// The outputs, by their numbers.
pub type Outputs = [Vec<u8>; 5];

/// Returns the outputs about a machine, or an error alone. Each file has a name and contents.
pub fn inspect(files: Vec<(String, Vec<u8>)>) -> Outputs {
    let mut outputs = Outputs::default();
    if let Err(error) = fill(files, &mut outputs) {
        outputs = Outputs::default();
        outputs[Output::Error as usize] = format!("{error:#}").into_bytes();
    }
    outputs
}

fn fill(files: Vec<(String, Vec<u8>)>, outputs: &mut Outputs) -> Result<()> {
    let (source, known) = (source(files)?, KnownRegisters::default());
    let [_, report, inspection, findings, picture] = outputs;
    let contents = Inspection::of(&source, &known);
    json::write_object(&mut *inspection, &contents)?;
    lint::write_json(&mut *findings, &source, &known)?;
    let graph = Graph::of(&source, &contents);
    *picture = graph::to_svg(&graph, &source.name).into_bytes();
    let (judged, run) = (judge(&source.description, &known), RunPart::not_requested());
    *report = Page::of(&source, contents, &judged, &run).html()?.into_bytes();
    Ok(())
}

/// Reads a machine: a devicetree and its overlays, or the files with its ACPI tables.
fn source(files: Vec<(String, Vec<u8>)>) -> Result<Source> {
    for (name, bytes) in &files {
        let is_short = u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES);
        ensure!(is_short, "{name} has more than {} MiB", MAX_BYTES >> 20);
        let path = Path::new(name);
        if is_devicetree_source(path, bytes) || is_table_source(path) {
            bail!(
                "{name} is a source, and this page has no compiler. Drop the compiled devicetree \
                 or table, or run `doorbell lint {name}`, which compiles it"
            );
        }
    }
    let (overlays, bases): (Vec<_>, Vec<_>) =
        files.into_iter().partition(|(name, _)| is_overlay(Path::new(name)));
    let mut source = base(bases)?;
    for (name, blob) in overlays {
        source.apply(&name, &blob, None)?;
    }
    Ok(source)
}

fn base(mut files: Vec<(String, Vec<u8>)>) -> Result<Source> {
    if files.iter().any(|(_, bytes)| is_blob(bytes)) && files.len() > 1 {
        let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "{} do not describe one machine. Drop one devicetree with its overlays (.dtbo), or the \
             ACPI tables of one machine",
            names.join(", ")
        );
    }
    if files.len() == 1
        && let Some((name, bytes)) = files.pop()
    {
        return match Source::dump(&name, &bytes).transpose().filter(|_| !is_blob(&bytes)) {
            Some(source) => source,
            None => Source::devicetree(name, bytes, None),
        };
    }
    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    let mut tables = Vec::new();
    for (name, bytes) in files {
        match Source::dumped(&name, &bytes)? {
            Some(found) => tables.extend(found),
            None => ensure!(is_table(&bytes), "{name} is not an ACPI table"),
        }
    }
    ensure!(!names.is_empty(), "Drop the devicetree together with its overlays");
    Source::tables(names.join(" + "), tables)
}

/// Returns `true` if the bytes are one ACPI table of any kind, by the length in its header.
fn is_table(bytes: &[u8]) -> bool {
    let length = bytes.get(4..).and_then(|rest| rest.first_chunk().copied());
    length.is_some_and(|length| u32::try_from(bytes.len()) == Ok(u32::from_le_bytes(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/gic-firmware/tests");

    fn file(path: &str) -> (String, Vec<u8>) {
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        (name, std::fs::read(format!("{DATA}/{path}")).unwrap())
    }

    #[test]
    fn overlays_apply_to_the_devicetree_in_their_order() {
        let [base, one, two] =
            ["overlay/base.dtb", "overlay/first.dtbo", "overlay/second.dtbo"].map(file);
        for files in [[&base, &one, &two], [&one, &two, &base]] {
            let [error, report, _, findings, picture] = inspect(files.map(Clone::clone).into());
            assert_eq!(error, b"");
            assert!(!report.is_empty() && picture.starts_with(b"<svg"));
            let findings = String::from_utf8(findings).unwrap();
            let source = "\"source\": \"base.dtb + first.dtbo + second.dtbo\"";
            assert!(findings.contains(source), "{findings}");
            assert!(findings.contains("\"overlay\": \"first.dtbo\""), "{findings}");
        }
        let [error, others @ ..] = inspect(vec![base, two, one]);
        assert!(String::from_utf8(error).unwrap().contains("label \"new\""));
        assert!(others.iter().all(Vec::is_empty));
    }

    #[test]
    fn acpi_tables_unrelated_to_interrupts_are_ignored() {
        let table = |name: &str| {
            let path = format!("{DATA}/../../../sim/machine/machines/marina/{name}");
            (name.to_owned(), std::fs::read(path).unwrap())
        };
        let dsdt = [&b"DSDT"[..], &40_u32.to_le_bytes(), &[0; 32]].concat();
        let [error, report, ..] =
            inspect(vec![("dsdt.aml".to_owned(), dsdt), table("apic.aml"), table("iort.aml")]);
        assert_eq!(String::from_utf8(error).unwrap(), "");
        assert!(!report.is_empty());
    }

    #[test]
    fn unsuitable_files_are_refused() {
        let text = |name: &str| (name.to_owned(), b"text".to_vec());
        let long = ("long.dtb".to_owned(), vec![0; (16 << 20) + 1]);
        for (files, reason) in [
            (vec![], "together with its overlays"),
            (vec![text("board.dts")], "run `doorbell lint board.dts`"),
            (vec![text("iort.asl")], "run `doorbell lint iort.asl`"),
            (vec![text("a.dat"), text("b.dat")], "a.dat is not an ACPI table"),
            (
                vec![file("data/wired.dtb"), text("b.dat")],
                "wired.dtb, b.dat do not describe one machine",
            ),
            (vec![long], "long.dtb has more than 16 MiB"),
        ] {
            let [error, ..] = inspect(files);
            let error = String::from_utf8(error).unwrap();
            assert!(error.contains(reason), "{error}");
        }
    }
}
