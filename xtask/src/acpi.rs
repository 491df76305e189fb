//! ACPI tables of others, and others on ours. The command must read what `iasl` shows, what QEMU's
//! devicetree of the same machine says, and what Linux does with them.

mod disassembly;
mod linux;
mod qemu;
mod walk;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::disassembly::Table;
use crate::apt::{Apt, Suite};
use crate::dtb::{self, Tools, Tree, VIRT, Virt};
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{cache, process};
use doorbell_harness::command;

/// A machine that runs, and a server of the shape that firmware in the wild has: sources of ours,
/// compiled beside them.
const SOURCES: &str = "sim/machine/machines/marina";
const SERVER: &str = "crates/gic-firmware/tests/data/server";
/// Names of the tables that are looked at.
const TABLES: [&str; 3] = ["apic", "iort", "mcfg"];
/// Bytes of a header that depend on the compiler: the checksum, and its name and version.
const COMPILERS: [std::ops::Range<usize>; 2] = [9..10, 28..36];

/// A machine without an ITS. QEMU before 10.1 gives it tables that name one.
const ITS_IN_VAIN: &str = "virt-without-its";

/// Each machine's tables counted as a case for each judge.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let command = command::build(workspace)?;
    let folder = workspace.target.join("acpi");
    let iasl = match fetch_iasl(workspace) {
        Ok(iasl) => Some(iasl),
        Err(absent) => {
            tally.skip(format!("iasl: {absent:#}"));
            None
        }
    };
    let bench = Bench { command, iasl, folder };
    let sources = workspace.root.join(SOURCES);
    if bench.iasl.is_some() {
        for (name, sources) in [("marina", &sources), ("server", &workspace.root.join(SERVER))] {
            let compiled = bench.compile(sources);
            tally
                .case(&format!("iasl compiles {name}'s sources to what is kept of them"), compiled);
            tally.case(&format!("{name}, by iasl"), bench.agree_with_iasl(name, sources));
        }
        tally.case("an IORT that the command writes", bench.convert_to_iort(&sources));
    }
    let qemu = dtb::fetch(workspace).into_iter().find(|(tree, _)| *tree == Tree::Qemu);
    if let Err(absent) = qemu.context("no such devicetrees")?.1 {
        tally.skip(format!("QEMU's tables: {absent:#}"));
        return Ok(());
    }
    let tree = bench.convert_to_tree(&Tools::of(workspace), &sources);
    tally.case("a devicetree that the command writes", tree);
    for virt in VIRT {
        let name = virt.0;
        let tables = bench.folder.join(name);
        if let Err(error) = qemu::extract(&Tools::of(workspace), virt, &tables) {
            tally.fail(format!("{name}: {error:#}"));
            continue;
        }
        if bench.iasl.is_some() {
            tally.case(&format!("{name}, by iasl"), bench.agree_with_iasl(name, &tables));
        }
        let tree = Tree::Qemu.folder(workspace).join(name).with_extension("dtb");
        if name == ITS_IN_VAIN && bench.names_an_its(&tables)? {
            tally.skip(format!("{name}: this QEMU's MADT names an ITS that is switched off"));
            continue;
        }
        let outcome = bench.agree_with_tree(virt, &tables, &tree);
        tally.case(&format!("{name}, by its devicetree"), outcome);
    }
    linux::run(workspace, &bench, tally);
    Ok(())
}

/// Unpacks the compiler into the cache.
fn fetch_iasl(workspace: &Workspace) -> Result<Tools> {
    let folder = cache::folder(workspace).join("acpica");
    if !cache::is_filled(&folder) {
        let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || apt.unpack_with_needs(&["acpica-tools"], Suite::Stable, &folder))?;
    }
    Ok(Tools::at(folder))
}

/// The command, and its judge.
struct Bench {
    command: PathBuf,
    iasl: Option<Tools>,
    folder: PathBuf,
}

impl Bench {
    /// Compiles the sources in `folder` and compares the result with the files beside them.
    fn compile(&self, folder: &Path) -> Result<()> {
        let output = self.folder.join("compiled");
        fs::create_dir_all(&output)?;
        for name in TABLES {
            let source = folder.join(name).with_extension("asl");
            self.iasl()?.arg("-p").arg(output.join(name)).arg(&source).output()?;
            let compiled = fs::read(output.join(name).with_extension("aml"));
            let compiled =
                compiled.with_context(|| format!("iasl refuses {}", source.display()))?;
            let kept = fs::read(folder.join(name).with_extension("aml"))?;
            let neutral = |mut table: Vec<u8>| {
                for range in COMPILERS {
                    table.get_mut(range).into_iter().flatten().for_each(|byte| *byte = 0);
                }
                table
            };
            let same = neutral(compiled) == neutral(kept);
            ensure!(same, "{} is not what {name}.aml was compiled from", source.display());
        }
        Ok(())
    }

    /// Compares the command's words with `iasl`'s.
    fn agree_with_iasl(&self, name: &str, folder: &Path) -> Result<()> {
        let said = self.inspect(folder)?;
        let output = self.folder.join("disassembled").join(name);
        fs::create_dir_all(&output)?;
        let mut tables = Vec::new();
        for table in folder.read_dir()? {
            let table = table?.path();
            let stem = table.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
            let is_source = table.extension().is_some_and(|extension| extension == "asl");
            if !is_source && TABLES.contains(&stem.as_str()) {
                let copy = output.join(&stem).with_extension("aml");
                fs::copy(&table, &copy)?;
                process::capture(self.iasl()?.arg("-d").arg(&copy))?;
                let text = fs::read_to_string(copy.with_extension("dsl"))?;
                tables.push((stem, Table::read(&text)));
            }
        }
        let find =
            |name: &str| tables.iter().find(|(stem, _)| stem == name).map(|(_, table)| table);
        let madt = find("apic").context("no MADT")?;
        same("CPUs", &cpus(&said)?, &madt.cpus()?)?;
        same("redistributors", &redistributors(&said)?, &madt.redistributors()?)?;
        same("controllers", &controllers(&said)?, &madt.controllers()?)?;
        if let Some(iort) = find("iort") {
            walk::compare(&said, iort, madt)?;
        }
        walk::compare_capacity(&said, madt, find("iort"), find("mcfg"))?;
        Ok(())
    }

    /// Compares the tables with the devicetree that QEMU gives the same machine.
    fn agree_with_tree(&self, virt: &Virt, tables: &Path, tree: &Path) -> Result<()> {
        let (from_tables, from_tree) = (self.inspect(tables)?, self.inspect(tree)?);
        let affinities = |said: &Value| -> Result<BTreeSet<String>> {
            Ok(cpus(said)?.into_iter().map(|(_, affinity, _)| affinity).collect())
        };
        same("affinities", &affinities(&from_tables)?, &affinities(&from_tree)?)?;
        same("redistributors", &redistributors(&from_tables)?, &redistributors(&from_tree)?)?;
        let doorbells = |said: &Value| -> Result<Vec<String>> {
            let enabled = list(said, "controllers")?.iter().filter(|one| one["enabled"] == true);
            Ok(enabled.map(|one| format!("{} {}", one["kind"], one["doorbells"])).collect())
        };
        same("controllers", &doorbells(&from_tables)?, &doorbells(&from_tree)?)?;
        for requester in walk::SAMPLE {
            let of = |said| walk::first_host_route(said, requester);
            let (of_tables, of_tree) = (of(&from_tables)?, of(&from_tree)?);
            same(&format!("route of requester {requester:#x}"), &of_tables, &of_tree)?;
        }
        println!("{}: {} CPUs alike", virt.0, cpus(&from_tables)?.len());
        Ok(())
    }

    /// Compiles the IORT that the command writes for the machine in `folder`, and compares the
    /// routes.
    fn convert_to_iort(&self, folder: &Path) -> Result<()> {
        let output = self.folder.join("emitted");
        fs::create_dir_all(&output)?;
        for name in ["apic.aml", "mcfg.aml"] {
            fs::copy(folder.join(name), output.join(name))?;
        }
        let source = output.join("iort.asl");
        fs::write(&source, self.emit("iort", folder)?)?;
        process::capture(self.iasl()?.arg("-p").arg(output.join("iort")).arg(&source))?;
        let (before, after) = (self.inspect(folder)?, self.inspect(&output)?);
        // IORTs are written without SMMUs: the routes stay.
        same("routes", &walk::all_routes(&before)?, &walk::all_routes(&after)?)
    }

    /// Compiles the devicetree that the command writes for the machine in `folder`, and compares
    /// the routes.
    fn convert_to_tree(&self, tools: &Tools, folder: &Path) -> Result<()> {
        let source = self.folder.join("emitted.dts");
        let blob = source.with_extension("dtb");
        fs::create_dir_all(&self.folder)?;
        fs::write(&source, self.emit("dts", folder)?)?;
        let mut dtc = tools.command("dtc");
        process::capture(dtc.args(["-q", "-o"]).arg(&blob).arg(&source))?;
        let (before, after) = (self.inspect(folder)?, self.inspect(&blob)?);
        same("CPUs", &list(&before, "cpus")?.len(), &list(&after, "cpus")?.len())?;
        same("redistributors", &redistributors(&before)?, &redistributors(&after)?)?;
        same("routes", &walk::all_routes(&before)?, &walk::all_routes(&after)?)
    }

    fn emit(&self, form: &str, source: &Path) -> Result<String> {
        let mut inspect = process::command(&self.command.to_string_lossy(), Path::new("/"));
        process::capture(inspect.args(["inspect", "--emit", form]).arg(source))
    }

    fn names_an_its(&self, tables: &Path) -> Result<bool> {
        let said = self.inspect(tables)?;
        Ok(list(&said, "controllers")?.iter().any(|one| one["kind"] == "its"))
    }

    fn inspect(&self, source: &Path) -> Result<Value> {
        let mut inspect = process::command(&self.command.to_string_lossy(), Path::new("/"));
        let said = process::capture(inspect.args(["inspect", "--json"]).arg(source))?;
        serde_json::from_str(&said).context("not JSON")
    }

    fn iasl(&self) -> Result<std::process::Command> {
        Ok(self.iasl.as_ref().context("no iasl")?.command("iasl"))
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, ours: &T, theirs: &T) -> Result<()> {
    ensure!(ours == theirs, "{what}: {ours:x?}, but {theirs:x?} there");
    Ok(())
}

fn list<'a>(said: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    said[name].as_array().with_context(|| format!("no {name}"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Name, affinity, and whether enabled.
fn cpus(said: &Value) -> Result<Vec<(String, String, bool)>> {
    let row = |cpu: &Value| (text(&cpu["id"]), text(&cpu["affinity"]), cpu["enabled"] == true);
    Ok(list(said, "cpus")?.iter().map(row).collect())
}

/// Base and size of each region.
fn redistributors(said: &Value) -> Result<Vec<(u64, u64)>> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let row = |region: &Value| (number(&region["base"]), number(&region["size"]));
    Ok(list(&said["gic"], "redistributors")?.iter().map(row).collect())
}

/// Name, and doorbell with ranges of each enabled controller.
fn controllers(said: &Value) -> Result<Vec<(String, String)>> {
    let enabled = list(said, "controllers")?.iter().filter(|one| one["enabled"] == true);
    let row = |one: &Value| {
        (text(&one["id"]), format!("{} {} {}", text(&one["kind"]), one["doorbells"], one["ranges"]))
    };
    Ok(enabled.map(row).collect())
}
