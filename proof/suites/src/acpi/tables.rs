//! Reads QEMU's ACPI tables from fw_cfg over the test protocol, as firmware would
//! (`docs/specs/fw_cfg.rst`). No guest runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::dtb::{Tools, Virt};
use doorbell_oracles::qtest::Qtest;

/// Address of fw_cfg's DMA register on `virt`, and of RAM for its transfers.
const DMA_REGISTER: u64 = 0x0902_0010;
const CONTROL: u64 = 0x4000_0000;
const BUFFER: u64 = 0x4000_1000;
/// Bits of a control word: read, and select the file whose number is in the upper half.
const READ: u32 = 2;
const SELECT: u32 = 8;
/// The file that lists all others, and the size of one of its entries.
const DIRECTORY: u16 = 0x19;
const ENTRY_BYTES: usize = 64;
const TABLES: &[u8] = b"etc/acpi/tables";
const HEADER_BYTES: usize = 36;

/// Writes the tables of a machine to `folder`, each to a file named after its signature.
///
/// # Errors
/// Fails if QEMU could not be started, or if it provides no tables.
pub(crate) fn extract(tools: &Tools, virt: &Virt, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let (_, options, arguments) = virt;
    let mut qemu = tools.command("qemu-system-aarch64");
    qemu.args(["-S", "-display", "none", "-nic", "none", "-cpu", "max"]).args(*arguments);
    qemu.args(["-M", &format!("virt,{options}")]);
    let blob = tables(&mut Qtest::start(qemu)?)?;
    let mut rest = blob.as_slice();
    while let Some(mut table) = first_table(rest)? {
        rest = &rest[table.len()..];
        let name = String::from_utf8(table[..4].to_vec())?;
        // Compute the checksums, as firmware does when it copies the tables into memory.
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = table[9].wrapping_sub(sum);
        fs::write(folder.join(name), table)?;
    }
    ensure!(folder.join("APIC").exists(), "QEMU provides no MADT");
    Ok(())
}

/// Returns the table at the start of `blob`, or `None` if only zeros follow.
fn first_table(blob: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(header) = blob.get(..HEADER_BYTES).filter(|header| header[0] != 0) else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(header[4..8].try_into()?) as usize;
    let table = blob.get(..length).filter(|table| table.len() >= HEADER_BYTES);
    Ok(Some(table.context("a table is longer than the file")?.to_vec()))
}

/// Returns a machine's tables.
fn tables(qemu: &mut Qtest) -> Result<Vec<u8>> {
    let count = file(qemu, DIRECTORY, 4)?;
    let count = u32::from_be_bytes(count[..].try_into()?) as usize;
    ensure!(count < 1000, "fw_cfg has {count} files");
    let directory = file(qemu, DIRECTORY, 4 + count * ENTRY_BYTES)?;
    for entry in directory[4..].chunks_exact(ENTRY_BYTES) {
        if entry[8..].strip_prefix(TABLES).is_some_and(|rest| rest[0] == 0) {
            let size = u32::from_be_bytes(entry[..4].try_into()?) as usize;
            return file(qemu, u16::from_be_bytes(entry[4..6].try_into()?), size);
        }
    }
    bail!("fw_cfg has no ACPI tables");
}

/// Returns the first `length` bytes of a file, which fw_cfg copies into RAM.
fn file(qemu: &mut Qtest, selector: u16, length: usize) -> Result<Vec<u8>> {
    let word = u32::from(selector) << 16 | SELECT | READ;
    let mut control = word.to_be_bytes().to_vec();
    control.extend(u32::try_from(length)?.to_be_bytes());
    control.extend(BUFFER.to_be_bytes());
    qemu.write(CONTROL, &control)?;
    qemu.tell(&format!("writeq {DMA_REGISTER:#x} {:#x}", CONTROL.swap_bytes()))?;
    let done = qemu.read(CONTROL, 4)?;
    ensure!(done == [0; 4], "fw_cfg answers {done:x?}");
    qemu.read(BUFFER, length)
}
