//! Compares the command with independent readers of ACPI tables: it must agree with `iasl`'s
//! output, with QEMU's devicetree for the same machine, and with the routes that Linux uses. QEMU's
//! machines work, so lint must not find mistakes in their tables.

mod disassembly;
mod judge;
pub(crate) mod linux;
mod sources;
mod tables;
mod walk;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use doorbell_harness::dtb::{Tree, VIRT, Virt};
use doorbell_harness::suite::{Absent, Case, Shared};
use doorbell_harness::workspace;

use self::judge::AcpiJudge;

/// An embedded machine, and a server with a structure as found in real firmware. Both are compiled
/// from sources in this repository, and the compiled tables are stored next to the sources.
const SOURCES: [(&str, &str); 2] = [("marina", MARINA), ("server", SERVER)];
const MARINA: &str = "sim/machine/machines/marina";
const SERVER: &str = "crates/gic-firmware/tests/data/server";

/// A machine without an ITS. The tables of QEMU before 10.1 nevertheless contain an ITS.
const ITS_IN_VAIN: &str = "virt-without-its";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, folder) in SOURCES {
        let compiles = format!("iasl compiles {name}'s sources to what is kept of them");
        cases.push(case(compiles, move |judge| judge.compile(&sources(folder)?)));
        cases.push(case(format!("{name}, by iasl"), move |judge| {
            judge.agree_with_iasl(name, &sources(folder)?)
        }));
    }
    cases.push(case("findings in sources, by iasl".into(), |judge| {
        sources::judge(judge, &sources(MARINA)?)
    }));
    cases.push(case("an IORT that the command writes".into(), |judge| {
        judge.convert_to_iort(&sources(MARINA)?)
    }));
    cases.push(case("a draft IORT, by acpixtract".into(), AcpiJudge::convert_to_draft));
    cases.push(case("a devicetree that the command writes".into(), |judge| {
        judge.convert_to_tree(&sources(MARINA)?)
    }));
    cases.push(case(
        "tables in the shape of published ones, by lint".into(),
        AcpiJudge::judge_shapes,
    ));
    cases.extend(cases_on_qemu());
    cases.push(case("clusters of CPUs, by QEMU's topology".into(), AcpiJudge::agree_with_topology));
    for machine in linux::MACHINES {
        let name = format!("{}, by Linux", machine.name());
        cases.push(case(name, move |judge| linux::compare(judge, &machine)));
    }
    cases
}

/// QEMU's SMMU translates only the first host's bus. The tables map the buses of a second host, as
/// those of hosts that bypass the SMMU, directly to the ITS.
const SECOND_HOST: Virt = (
    "virt-smmu-two-hosts",
    "gic-version=3,iommu=smmuv3",
    &["-smp", "4", "-device", "pxb-pcie,id=second,bus=pcie.0,bus_nr=128"],
);

/// Returns three cases for each machine: lint finds nothing in its tables, and the tables are
/// compared with iasl's output and with its devicetree.
fn cases_on_qemu() -> Vec<Case> {
    let mut cases = Vec::new();
    for virt in VIRT {
        let name = virt.0;
        let extracted = Arc::new(Shared::new());
        let (again, linted) = (Arc::clone(&extracted), Arc::clone(&extracted));
        let tables = move |judge: &AcpiJudge, extracted: &Shared<PathBuf>| -> Result<PathBuf> {
            let extract = || {
                let folder = judge.folder.join(name);
                tables::extract(judge.tools()?, virt, &folder)?;
                Ok(folder)
            };
            extracted.get(extract).cloned()
        };
        cases.push(case(format!("{name}, by iasl"), move |judge| {
            judge.agree_with_iasl(name, &tables(judge, &extracted)?)
        }));
        cases.push(case(format!("{name}, by lint"), move |judge| {
            judge.lint(&tables(judge, &linted)?)
        }));
        cases.push(case(format!("{name}, by its devicetree"), move |judge| {
            let tables = tables(judge, &again)?;
            if name == ITS_IN_VAIN && judge.names_an_its(&tables)? {
                let why = "this QEMU's MADT names an ITS that is switched off";
                return Err(Absent::new(why).into());
            }
            let tree = Tree::Qemu.folder(workspace::this()?).join(name).with_extension("dtb");
            judge.agree_with_tree(virt, &tables, &tree)
        }));
    }
    cases.push(case(format!("{}, by lint", SECOND_HOST.0), |judge| {
        let folder = judge.folder.join(SECOND_HOST.0);
        tables::extract(judge.tools()?, &SECOND_HOST, &folder)?;
        judge.lint(&folder)
    }));
    cases
}

fn sources(folder: &str) -> Result<PathBuf> {
    Ok(workspace::this()?.root.join(folder))
}

fn case(name: String, run: impl FnOnce(&AcpiJudge) -> Result<()> + Send + 'static) -> Case {
    static JUDGE: Shared<AcpiJudge> = Shared::new();
    Case::of(name, || run(JUDGE.get(AcpiJudge::new)?))
}
