//! Compares the names by which the reader recognizes controllers with those in the sources of
//! Linux's drivers: the compatible strings of their tables, and the memory regions that they
//! request by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Result, ensure};
use doorbell_harness::dtb::Tools;
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{cache, linux_source, process};
use gic_firmware::{Description, devicetree};

/// Names that Linux has and the reader lacks, each with the reason. A line holds the beginning or
/// the end of a name.
const LACKING: &str = include_str!("lacking.txt");
/// A call in the driver of a host bridge that has an MSI controller, and folders of drivers whose
/// core calls it.
const CREATES: &str = "msi_create_parent_irq_domain(";
const CORES: [&str; 3] = [DESIGNWARE, "/mobiveil/", "/plda/"];
const DESIGNWARE: &str = "/dwc/";
/// Calls that request a memory region by its name.
const REQUESTS: [&str; 2] = ["ioremap_resource_byname(", "platform_get_resource_byname("];
/// Name of the region with DesignWare's registers, which its core requests, and a name for others.
const PORT_LOGIC: &str = "dbi";
const OTHER: &str = "registers";

/// A compatible string of a host bridge, and the name of its only memory region.
type Host = (String, String);

/// Compares the names with those in the drivers of Debian's newest kernel.
///
/// # Errors
/// Fails if the reader does not recognize a name that `lacking.txt` does not list, or if a line of
/// the list is for no such name.
pub(crate) fn compare(workspace: &Workspace, tools: &Tools) -> Result<()> {
    let (version, source) = linux_source::fetch(workspace).or_absent("Linux's source")?;
    let (mut hosts, mut gics) = (BTreeSet::new(), BTreeSet::new());
    for file in cache::files_below(&source.join("drivers"))? {
        let path = file.display().to_string();
        let text = fs::read_to_string(&file).unwrap_or_default();
        if path.contains("/drivers/pci/controller/") {
            hosts.extend(hosts_of(&path, &text));
        } else if path.contains("/drivers/irqchip/") {
            let names = quoted_after(&text, "IRQCHIP_DECLARE(").into_iter();
            gics.extend(names.filter(|name| name.contains("gic")));
        }
    }
    ensure!(hosts.len() > 200 && gics.len() > 10, "{} hosts, {} GICs", hosts.len(), gics.len());
    let machine = parse(workspace, tools, &tree_of(&hosts, &gics))?;
    ensure!(machine.hosts.len() == hosts.len(), "{} of {}", machine.hosts.len(), hosts.len());
    let mut recognized = BTreeMap::new();
    for ((compatible, region), host) in hosts.iter().zip(&machine.hosts) {
        recognized.insert(format!("{compatible} {region}"), host.own_controller.is_some());
    }
    let secondary = machine.secondary_gics.iter().map(|one| &one.gic);
    let read: Vec<_> =
        machine.gic.iter().chain(secondary).flat_map(|gic| &gic.compatible).collect();
    recognized.extend(gics.iter().map(|name| (name.clone(), read.contains(&name))));
    judge(&version, &recognized)
}

/// Compares what the reader does not recognize with the list.
fn judge(version: &str, recognized: &BTreeMap<String, bool>) -> Result<()> {
    let unknown = || recognized.iter().filter(|(_, is)| !**is).map(|(name, _)| name);
    let listed: Vec<_> =
        LACKING.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    let is_of = |name: &String, line: &str| name.starts_with(line) || name.ends_with(line);
    let lacking: Vec<_> =
        unknown().filter(|name| !listed.iter().any(|line| is_of(name, line))).collect();
    let stale: Vec<_> =
        listed.iter().filter(|line| !unknown().any(|name| is_of(name, line))).collect();
    eprintln!("Linux {version}: {} names, {} of them listed", recognized.len(), unknown().count());
    ensure!(
        lacking.is_empty() && stale.is_empty(),
        "not recognized: {lacking:#?}; stale: {stale:?}"
    );
    Ok(())
}

/// Returns the host bridges of a driver's tables that have an MSI controller. Those of DesignWare's
/// core occur with each region that the driver requests, others once.
fn hosts_of(path: &str, text: &str) -> Vec<Host> {
    let is_designware = path.contains(DESIGNWARE);
    if !CORES.iter().any(|core| path.contains(core)) && !text.contains(CREATES) {
        return Vec::new();
    }
    let mut regions = vec![if is_designware { PORT_LOGIC } else { OTHER }.to_owned()];
    if is_designware {
        regions.extend(REQUESTS.iter().flat_map(|call| quoted_after(text, call)));
    }
    let names = quoted_after(text, ".compatible").into_iter();
    let hosts = names.filter(|name| !name.ends_with("-ep"));
    hosts.flat_map(|name| regions.iter().map(move |one| (name.clone(), one.clone()))).collect()
}

/// Returns the first quoted text of each statement that contains `word`, after the word.
fn quoted_after(text: &str, word: &str) -> Vec<String> {
    let statements = text.split(word).skip(1).filter_map(|rest| rest.split([';', '}']).next());
    statements.filter_map(|rest| rest.split('"').nth(1).map(str::to_owned)).collect()
}

/// Returns the source of a tree with each host and each GIC.
fn tree_of(hosts: &BTreeSet<Host>, gics: &BTreeSet<String>) -> String {
    let host = |(index, (compatible, region)): (usize, &Host)| {
        format!(
            "pcie@{index:x} {{ compatible = \"{compatible}\"; device_type = \"pci\";
             #address-cells = <3>; #size-cells = <2>; reg = <{index} 0x0 0x10000>;
             reg-names = \"{region}\"; }};\n"
        )
    };
    let gic = |(index, name): (usize, &String)| {
        format!(
            "gic@f000{index:04x} {{ compatible = \"{name}\"; interrupt-controller;
             #interrupt-cells = <3>; reg = <0xf000{index:04x} 0x0 0x1000>,
             <0xf001{index:04x} 0x0 0x2000>; }};\n"
        )
    };
    let nodes = hosts.iter().enumerate().map(host).chain(gics.iter().enumerate().map(gic));
    let nodes: String = nodes.collect();
    format!("/dts-v1/; / {{ #address-cells = <2>; #size-cells = <1>;\n{nodes}}};\n")
}

fn parse(workspace: &Workspace, tools: &Tools, text: &str) -> Result<Description> {
    let folder = workspace.target.join("boards");
    fs::create_dir_all(&folder)?;
    let (source, blob) = (folder.join("recognized.dts"), folder.join("recognized.dtb"));
    fs::write(&source, text)?;
    let mut dtc = tools.command("dtc");
    process::capture(dtc.args(["-q", "-O", "dtb", "-o"]).args([&blob, &source]))?;
    Ok(devicetree::parse(&fs::read(&blob)?)?)
}
