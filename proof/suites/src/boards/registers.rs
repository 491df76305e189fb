//! Compares `docs/registers.md` with Linux's source: each row states an access of Linux to a
//! register of a controller that no emulator has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use doorbell_harness::linux_source;
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::workspace::Workspace;

use super::served;

/// Calls that access a register.
const ACCESSES: [&str; 8] = [
    "readl(",
    "writel(",
    "readl_relaxed(",
    "writel_relaxed(",
    "readl_dbi(",
    "writel_dbi(",
    "readw_dbi(",
    "writew_dbi(",
];
/// Signs that the driver of a DesignWare bridge does more for messages than the common code.
const SIGNS: [&str; 6] = [
    "CONFIG_PCI_MSI)",
    "pci_msi_enabled()",
    "pp->msi_irq[0] = -ENODEV",
    "MSI_CTRL_INT",
    ".msi_init =",
    "PCIE_INT_EN_INT_MSI",
];
/// Mark of a function with other accesses.
const PART: &str = " in part";
/// Folder of the drivers of DesignWare's bridges.
const BRIDGES: &str = "drivers/pci/controller/dwc";
/// Header with the registers of iMSI-RX.
const HEADER: &str = "pcie-designware.h";

/// Finds each access of `docs/registers.md` in the source of Debian's newest kernel, in order.
///
/// # Errors
/// Fails if Linux accesses the registers differently, or if the file omits an access or a driver.
pub(crate) fn compare(workspace: &Workspace) -> Result<()> {
    let (version, linux) = linux_source::fetch(workspace).or_absent("Linux's source")?;
    let [table, status] = ["docs/registers.md", "docs/status.md"]
        .map(|file| fs::read_to_string(workspace.root.join(file)));
    let (table, status) = (table?, status?);
    let header = fs::read_to_string(linux.join(BRIDGES).join(HEADER))?;
    let (mut source, mut file) = (String::new(), "");
    // Of each function, the end of the last access, the number of its rows and of its accesses.
    let mut functions: BTreeMap<&str, (usize, usize, usize)> = BTreeMap::new();
    for line in table.lines() {
        if let Some((_, path)) = line.strip_prefix('#').and_then(|title| title.split_once(": `")) {
            file = path.trim_end_matches('`');
            source = fs::read_to_string(linux.join(file)).with_context(|| file.to_owned())?;
        }
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [function, verb, register, offset, _, value] = cells[..] else { continue };
        let Some(name) = function.strip_prefix('`') else { continue };
        let name = name.trim_end_matches(PART).trim_end_matches('`');
        let register = register.trim_matches('`');
        let body = body(&source, name).with_context(|| format!("{file} has no {name}"))?;
        let accesses = ACCESSES.iter().map(|call| body.matches(call).count()).sum();
        let (end, rows, _) = functions.entry(function).or_insert((0, 0, accesses));
        let at = end_of_access(&body, *end, verb, register);
        (*end, *rows) = (
            at.with_context(|| format!("{file}, {name}: no {verb} of {register}, or not then"))?,
            *rows + 1,
        );
        let words: Vec<_> = value.split('`').skip(1).step_by(2).collect();
        for word in &words {
            ensure!(body[..*end].contains(word), "{file}, {name}: no {word}");
        }
        if let Some(offset) = offset.strip_prefix("0x") {
            let offset = u64::from_str_radix(offset, 16)?;
            let named = |name| define(&source, name).or_else(|| define(&header, name));
            let found = named(register).with_context(|| format!("{file} defines no {register}"))?;
            ensure!(found == offset, "{register} is {found:#x}");
            let bits = words.iter().map(|word| named(word)).sum::<Option<u64>>();
            let bits = bits.with_context(|| format!("{file} does not define {words:?}"))?;
            let gate = served::gate_at(&format!("{bits:#x}"), offset);
            ensure!(bits == 0 || status.contains(&format!("| {gate} |")), "Linux sets {gate}");
        }
    }
    for (function, (_, rows, accesses)) in &functions {
        let is_complete = function.ends_with(PART) || rows == accesses;
        ensure!(is_complete, "{function} has {accesses} accesses, but {rows} rows");
    }
    let special = special_bridges(&linux.join(BRIDGES))?;
    let missing: Vec<_> =
        special.iter().filter(|name| !table.contains(&format!("{name}`"))).collect();
    ensure!(missing.is_empty(), "docs/registers.md does not mention {missing:?}");
    let found: usize = functions.values().map(|(_, rows, _)| rows).sum();
    eprintln!("{found} accesses of Linux {version}, {} special bridges", special.len());
    ensure!(found >= 30, "only {found} accesses were found");
    Ok(())
}

/// Returns the end of the first statement after `start` in a function's body that accesses a
/// register so. A register that no access names is the base of others: its access comes next.
fn end_of_access(body: &str, start: usize, verb: &str, register: &str) -> Option<usize> {
    let verb = if verb == "set" { " = " } else { verb };
    let names =
        |statement: &str, register| statement.contains(verb) && statement.contains(register);
    let register = if body.split(';').any(|one| names(one, register)) { register } else { "" };
    let mut end = start;
    let mut statements = body.get(start..)?.split_inclusive(';');
    statements.find_map(|statement| {
        end += statement.len();
        names(statement, register).then_some(end)
    })
}

/// Returns a function's body, with single spaces.
fn body(source: &str, name: &str) -> Option<String> {
    let is_definition = |at: &usize| {
        let rest = &source[*at..];
        rest.find('{').is_some_and(|open| !rest[..open].contains(';'))
    };
    let start = source.match_indices(&format!("{name}(")).map(|(at, _)| at).find(is_definition)?;
    let text = source[start..].split("\n}").next()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns the value of a macro that is a number, or a bit.
fn define(source: &str, name: &str) -> Option<u64> {
    let mut lines = source.lines().filter_map(|line| line.strip_prefix("#define"));
    let value = lines.find_map(|line| {
        let (known, value) = line.trim().split_once(char::is_whitespace)?;
        (known == name).then_some(value.trim())
    })?;
    if let Some(bit) = value.strip_prefix("BIT(") {
        return 1_u64.checked_shl(bit.trim_end_matches(')').parse().ok()?);
    }
    u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()
}

/// Returns the files of drivers that do more for messages than the common code.
fn special_bridges(folder: &Path) -> Result<BTreeSet<String>> {
    let mut special = BTreeSet::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_driver = path.extension() == Some("c".as_ref()) && !name.contains("designware");
        let text = fs::read_to_string(&path)?;
        if is_driver && SIGNS.iter().any(|sign| text.contains(sign)) {
            special.insert(name);
        }
    }
    Ok(special)
}
