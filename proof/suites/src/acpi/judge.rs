//! The command, the programs whose output it is compared with, and the comparisons.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result, ensure};
use doorbell_harness::apt::{self, Suite};
use doorbell_harness::command::Doorbell;
use doorbell_harness::dtb::{self, Tools, Tree, Virt};
use doorbell_harness::suite::{Absent, OrAbsent};
use doorbell_harness::{process, workspace};
use serde_json::Value;

use crate::acpi::disassembly::Table;
use crate::acpi::{tables, walk};
use crate::said::{columns, list, same, text};

/// Names of the tables that are compared.
pub(crate) const TABLES: [&str; 3] = ["apic", "iort", "mcfg"];
/// Bytes of a header that depend on the compiler: the checksum, and the compiler's name and
/// version.
const COMPILERS: [std::ops::Range<usize>; 2] = [9..10, 28..36];

/// Offset of the hypervisor's vendor in a FADT, the last field of ACPI 6.0.
const HYPERVISOR_VENDOR: usize = 268;

/// The command, and the programs whose output it is compared with.
pub(crate) struct AcpiJudge {
    command: Doorbell,
    iasl: Result<Tools, Absent>,
    /// QEMU and the devicetree compiler.
    tools: Result<Tools, Absent>,
    /// Folder for the cases' files.
    pub(crate) folder: PathBuf,
}

impl AcpiJudge {
    /// Builds the command, and fetches the programs for the comparisons.
    pub(crate) fn new() -> Result<Self> {
        let workspace = workspace::this()?;
        let packages = ["acpica-tools"];
        let iasl = apt::cached_with_needs(workspace, Suite::Stable, "acpica", &packages);
        let iasl = iasl.map(Tools::at).if_present("iasl")?;
        let tools = Tree::Qemu.fetched(workspace).if_present("QEMU")?;
        let tools = tools.map(|_| Tools::of(workspace));
        let (command, folder) = (Doorbell::build(workspace)?, workspace.target.join("acpi"));
        Ok(Self { command, iasl, tools, folder })
    }

    /// Compiles the sources in `folder`, and compares the results with the files next to them.
    pub(crate) fn compile(&self, folder: &Path) -> Result<()> {
        let output = self.folder.join("compiled").join(folder.file_name().unwrap_or_default());
        fs::create_dir_all(&output)?;
        for name in TABLES {
            let source = folder.join(name).with_extension("asl");
            self.iasl()?.arg("-p").arg(output.join(name)).arg(&source).output()?;
            let compiled = fs::read(output.join(name).with_extension("aml"));
            let compiled =
                compiled.with_context(|| format!("iasl rejects {}", source.display()))?;
            let kept = fs::read(folder.join(name).with_extension("aml"))?;
            let neutral = |mut table: Vec<u8>| {
                for range in COMPILERS {
                    table.get_mut(range).into_iter().flatten().for_each(|byte| *byte = 0);
                }
                table
            };
            let same = neutral(compiled) == neutral(kept);
            ensure!(same, "{name}.aml was not compiled from {}", source.display());
        }
        Ok(())
    }

    /// Compares the command's output with `iasl`'s.
    pub(crate) fn agree_with_iasl(&self, name: &str, folder: &Path) -> Result<()> {
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
        walk::compare(&said, madt, find("iort"), find("mcfg"))
    }

    /// Compares the tables with the devicetree that QEMU creates for the same machine.
    pub(crate) fn agree_with_tree(&self, virt: &Virt, tables: &Path, tree: &Path) -> Result<()> {
        let (from_tables, from_tree) = (self.inspect(tables)?, self.inspect(tree)?);
        let affinities = |said: &Value| -> Result<BTreeSet<String>> {
            Ok(list(said, "cpus")?.iter().map(|cpu| text(&cpu["affinity"]).to_owned()).collect())
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
        eprintln!("{}: {} CPUs alike", virt.0, cpus(&from_tables)?.len());
        Ok(())
    }

    /// Returns a command that lints sources.
    pub(crate) fn lint_command(&self) -> Command {
        self.command.command(&["lint"])
    }

    /// Checks that lint has no warnings and no errors about tables whose machine works, and that
    /// the hypervisor is the one that QEMU names.
    pub(crate) fn lint(&self, folder: &Path) -> Result<()> {
        let output = process::output(self.lint_command().arg(folder))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let fadt = fs::read(folder.join("FACP"))?;
        let named = fadt.len() > HYPERVISOR_VENDOR;
        same("hypervisor", &self.inspect(folder)?["hypervisor"], &named.then_some("QEMU"))
    }

    /// Compares the rules that lint finds broken in tables of published shapes with those that the
    /// firmware reader's tests expect. The tests write the tables.
    pub(crate) fn judge_shapes(&self) -> Result<()> {
        let (folder, workspace) = (self.folder.join("shapes"), workspace::this()?);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let mut test = process::cargo(&workspace.root);
        test.args(["test", "--quiet", "--package", "gic-firmware", "--test", "it"]);
        process::capture(test.arg("published_table_shapes").env("DOORBELL_SHAPES", &folder))?;
        let mut shapes = 0;
        for entry in folder.read_dir()? {
            let tables = entry?.path();
            if !tables.is_dir() {
                continue;
            }
            let expected = fs::read_to_string(tables.with_extension("rules"))?;
            let said = self.command.json(&["lint", "--json"], &tables)?;
            let rules = said.as_array().context("the findings are not a list")?.iter();
            let found: Vec<_> = rules.map(|row| text(&row["rule"])).collect();
            same(&tables.display().to_string(), &found, &expected.lines().collect::<Vec<_>>())?;
            shapes += 1;
        }
        ensure!(shapes > 0, "the test has written no tables");
        eprintln!("{shapes} shapes of tables");
        Ok(())
    }

    /// Compiles, with `iasl`, the IORT that the command writes for the machine in `folder`, and
    /// compares the routes.
    pub(crate) fn convert_to_iort(&self, folder: &Path) -> Result<()> {
        let output = self.folder.join("emitted");
        fs::create_dir_all(&output)?;
        for name in ["apic.aml", "mcfg.aml"] {
            fs::copy(folder.join(name), output.join(name))?;
        }
        let source = output.join("iort.asl");
        fs::write(&source, self.emit("iort", [folder])?)?;
        process::capture(self.iasl()?.arg("-p").arg(output.join("iort")).arg(&source))?;
        let (before, after) = (self.inspect(folder)?, self.inspect(&output)?);
        // IORTs are written without SMMUs, which does not change the routes.
        same("routes", &walk::all_routes(&before)?, &walk::all_routes(&after)?)
    }

    /// Compiles the devicetree that the command writes for the machine in `folder`, and compares
    /// the routes.
    pub(crate) fn convert_to_tree(&self, folder: &Path) -> Result<()> {
        let source = self.folder.join("emitted.dts");
        let blob = source.with_extension("dtb");
        fs::create_dir_all(&self.folder)?;
        fs::write(&source, self.emit("dts", [folder])?)?;
        let mut dtc = self.tools()?.command("dtc");
        process::capture(dtc.args(["-q", "-o"]).arg(&blob).arg(&source))?;
        let (before, after) = (self.inspect(folder)?, self.inspect(&blob)?);
        same("CPUs", &list(&before, "cpus")?.len(), &list(&after, "cpus")?.len())?;
        same("redistributors", &redistributors(&before)?, &redistributors(&after)?)?;
        same("routes", &walk::all_routes(&before)?, &walk::all_routes(&after)?)
    }

    /// Converts the draft IORT that the command writes for a machine with Direct LPI, by
    /// `acpixtract`. Without `--draft`, the refusal must name that option.
    pub(crate) fn convert_to_draft(&self) -> Result<()> {
        let output = self.folder.join("draft");
        fs::create_dir_all(&output)?;
        let refused = self.emit("iort", ["--machine", "lagoon"]);
        let refused = refused.err().context("Direct LPI was emitted without --draft")?;
        ensure!(format!("{refused:#}").contains("--draft"), "{refused:#}");
        fs::write(output.join("dump"), self.emit("iort", ["--machine", "lagoon", "--draft"])?)?;
        let xtract = self.iasl_folder()?.join("acpixtract");
        process::capture(
            process::command(&xtract.to_string_lossy(), &output).args(["-a", "dump"]),
        )?;
        let table = fs::read(output.join("iort.dat"))?;
        let length =
            table.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
        ensure!(length.is_some_and(|length| length as usize == table.len()), "{table:x?}");
        ensure!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0, "{table:x?}");
        Ok(())
    }

    fn emit(
        &self,
        form: &str,
        source: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<String> {
        process::capture(self.command.command(&["inspect", "--emit", form]).args(source))
    }

    pub(crate) fn names_an_its(&self, tables: &Path) -> Result<bool> {
        let said = self.inspect(tables)?;
        Ok(list(&said, "controllers")?.iter().any(|one| one["kind"] == "its"))
    }

    pub(crate) fn inspect(&self, source: &Path) -> Result<Value> {
        self.command.inspect(source)
    }

    /// Returns the unpacked QEMU and devicetree compiler, or an error if they could not be fetched.
    pub(crate) fn tools(&self) -> Result<&Tools> {
        self.tools.as_ref().map_err(|absent| absent.clone().into())
    }

    /// Returns a command for `iasl`.
    pub(crate) fn iasl(&self) -> Result<Command> {
        let iasl = self.iasl.as_ref().map_err(|absent| Error::from(absent.clone()))?;
        Ok(iasl.command("iasl"))
    }

    /// Returns the folder of `iasl`.
    pub(crate) fn iasl_folder(&self) -> Result<PathBuf> {
        let iasl = self.iasl.as_ref().map_err(|absent| Error::from(absent.clone()))?;
        Ok(iasl.root().join("usr/bin"))
    }

    /// Compares the CPU groups that the command draws from each of a machine's two descriptions
    /// with the topology that the machine was started with.
    pub(crate) fn agree_with_topology(&self) -> Result<()> {
        const MACHINE: Virt =
            ("virt-clusters", "gic-version=3", &["-smp", "8,sockets=2,clusters=2,cores=2"]);
        let folder = self.folder.join(MACHINE.0);
        tables::extract(self.tools()?, &MACHINE, &folder)?;
        dtb::dump(self.tools()?, &MACHINE, &self.folder)?;
        let tree = folder.with_extension("dtb");
        for (source, [socket, cluster]) in
            [(folder, ["package ", "cluster "]), (tree, ["socket", "cluster"])]
        {
            let picture = process::capture(self.command.command(&["graph"]).arg(&source))?;
            let boxes =
                |group: &String| picture.matches(&format!(">{group}\n2 CPUs</title>")).count();
            let groups = [(0, 0), (0, 1), (1, 0), (1, 1)];
            let groups = groups.map(|(one, other)| format!("{socket}{one}, {cluster}{other}"));
            let drawn: Vec<_> = groups.iter().map(boxes).collect();
            same(&format!("CPUs of {}", source.display()), &drawn, &vec![1; 4])?;
        }
        Ok(())
    }
}

/// Returns the name and affinity of each CPU, and whether it is enabled.
fn cpus(said: &Value) -> Result<Vec<Vec<Value>>> {
    columns(said, "cpus", &["id", "affinity", "enabled"])
}

/// Returns the base and size of each redistributor region.
fn redistributors(said: &Value) -> Result<Vec<Vec<Value>>> {
    columns(&said["gic"], "redistributors", &["base", "size"])
}

/// Returns the name of each enabled controller, with its doorbell and ranges.
fn controllers(said: &Value) -> Result<Vec<(String, String)>> {
    let enabled = list(said, "controllers")?.iter().filter(|one| one["enabled"] == true);
    let row = |one: &Value| {
        let doorbell = format!("{} {} {}", text(&one["kind"]), one["doorbells"], one["ranges"]);
        (text(&one["id"]).to_owned(), doorbell)
    };
    Ok(enabled.map(row).collect())
}
