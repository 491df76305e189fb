//! Checks that the command inspects a devicetree and an ACPI table of one megabyte each, and shows
//! or counts all their devices.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use doorbell_harness::dtb::Tools;
use doorbell_harness::process;
use serde_json::Value;

const MEGABYTE: usize = 1_000_000;

/// MADT with the ITS that the table's devices use.
const MADT: &str = "sim/machine/machines/marina/apic.aml";
const ITS: u32 = 4;
/// Offset of an IORT's first node.
const FIRST_NODE: u32 = 48;

/// Inspects a devicetree of one megabyte.
pub(super) fn devicetree(command: &Path, tools: &Tools, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let (source, blob) = (folder.join("large.dts"), folder.join("large.dtb"));
    let devices = 9_000;
    fs::write(&source, tree(devices)?)?;
    let mut compiler = tools.command("dtc");
    process::capture(compiler.args(["-q", "-o"]).arg(&blob).arg(&source))?;
    ensure!(fs::read(&blob)?.len() >= MEGABYTE, "the devicetree is too small");
    inspect(command, &blob, devices)
}

/// Inspects an IORT of one megabyte.
pub(super) fn tables(command: &Path, root: &Path, folder: &Path) -> Result<()> {
    let folder = folder.join("large");
    fs::create_dir_all(&folder)?;
    fs::copy(root.join(MADT), folder.join("apic.aml"))?;
    let devices = 17_000;
    let table = iort(devices)?;
    ensure!(table.len() >= MEGABYTE, "the table is too small");
    fs::write(folder.join("iort.aml"), table)?;
    inspect(command, &folder, devices)
}

fn inspect(command: &Path, source: &Path, devices: usize) -> Result<()> {
    let mut inspect = process::command(&command.to_string_lossy(), Path::new("/"));
    let start = Instant::now();
    let output = process::output(inspect.args(["inspect", "--json"]).arg(source))?;
    eprintln!("{}: inspected in {} ms", source.display(), start.elapsed().as_millis());
    let said: Value = serde_json::from_slice(&output.stdout).context("not JSON")?;
    let shown = said["devices"].as_array().map_or(0, Vec::len);
    let omitted = said["omitted"]["devices"].as_u64().context("no number of omitted devices")?;
    ensure!(
        shown as u64 + omitted == devices as u64,
        "{shown} of {devices} devices are shown, {omitted} omitted"
    );
    Ok(())
}

fn tree(devices: usize) -> Result<String> {
    let mut text = String::from(
        "/dts-v1/;\n/ { #address-cells = <1>; #size-cells = <1>; interrupt-parent = <&gic>;\n\
         gic: intc@8000000 { compatible = \"arm,gic-v3\"; interrupt-controller; ranges;\n\
         #interrupt-cells = <3>; #address-cells = <1>; #size-cells = <1>;\n\
         reg = <0x8000000 0x10000>, <0x80a0000 0x40000>;\n\
         its: its@8080000 { compatible = \"arm,gic-v3-its\"; msi-controller; #msi-cells = <1>;\n\
         reg = <0x8080000 0x20000>; }; };\n",
    );
    for device in 0..devices {
        let (base, spi) = (0x1000_0000 + device * 0x1000, device % 900);
        writeln!(
            text,
            "dma@{base:x} {{ compatible = \"vendor,dma\"; reg = <{base:#x} 0x1000>; \
             interrupts = <0 {spi} 4>; msi-parent = <&its {device}>; }};"
        )?;
    }
    text.push_str("};\n");
    Ok(text)
}

/// Returns an IORT of named components with a single mapping each (Arm DEN 0049, named component
/// node).
fn iort(devices: usize) -> Result<Vec<u8>> {
    let mut nodes = node(0, &[1_u32.to_le_bytes(), ITS.to_le_bytes()].concat(), None)?;
    for device in 0..devices {
        let mut contents =
            [&[0; 12][..], &[64], format!("\\_SB.D{device:04X}\0").as_bytes()].concat();
        contents.resize(contents.len().next_multiple_of(4), 0);
        nodes.extend(node(1, &contents, Some(u32::try_from(device)?))?);
    }
    let mut table = Vec::from(*b"IORT");
    table.extend((FIRST_NODE + u32::try_from(nodes.len())?).to_le_bytes());
    table.extend([3, 0]);
    table.extend(*b"DRBELLLARGE   ");
    table.extend([0; 12]);
    for word in [u32::try_from(devices + 1)?, FIRST_NODE, 0] {
        table.extend(word.to_le_bytes());
    }
    table.extend(nodes);
    let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    table[9] = sum.wrapping_neg();
    Ok(table)
}

/// Returns a node. A component with a DeviceID has a single mapping to the ITS group, which is the
/// first node.
fn node(kind: u8, contents: &[u8], device: Option<u32>) -> Result<Vec<u8>> {
    const SINGLE: u32 = 1;
    let array = 16 + u32::try_from(contents.len())?;
    let mapping = device.map(|device| [0, 0, device, FIRST_NODE, SINGLE].map(u32::to_le_bytes));
    let mapping = mapping.map_or_else(Vec::new, |words| words.concat());
    let length = u16::try_from(16 + contents.len() + mapping.len())?;
    let mut node = vec![kind];
    node.extend(length.to_le_bytes());
    node.extend([1, 0, 0, 0, 0]);
    for word in [u32::from(device.is_some()), if device.is_some() { array } else { 0 }] {
        node.extend(word.to_le_bytes());
    }
    node.extend(contents);
    node.extend(mapping);
    Ok(node)
}
