//! Reader for the ACPI tables that describe interrupts: MADT, IORT and MCFG. The FADT is read for
//! its signs of a hypervisor.
//!
//! [`parse`] reads the tables of a [`TableSet`] into a [`Description`]. Devices in the ACPI
//! namespace are identified by their path in the IORT. We do not interpret AML, so this reader does
//! not know their other properties, such as registers.

mod checks;
mod excerpt;
mod fields;
mod id_map;
mod iort;
mod madt;
mod mcfg;
mod msi_controllers;
mod names;
mod requester_nodes;
mod table;
mod table_set;
#[cfg(feature = "write")]
mod writer;

pub use crate::excerpt::Excerpt;
pub use excerpt::excerpts;
pub use iort::Iort;
pub use madt::{Madt, cpu_clusters};
pub use mcfg::Mcfg;
pub use table::{Signature, Table, TableError, TableErrorKind};
pub use table_set::TableSet;
#[cfg(feature = "write")]
pub use writer::{
    Extensions, WriteError, WriteErrorKind, WrittenTables, iort_source, write, write_with,
};

use crate::controller::{GicVersion, owns_el2};
use crate::description::Description;
use crate::finding::{Fact, FindingList, Rule};
use alloc::string::String;
use alloc::vec::Vec;
use iort::IortNode;
use madt::MadtStructure;
use msi_controllers::ControllerList;
use requester_nodes::Requesters;
use table::{Fields, origin, sound};

/// Converts a machine's tables to a description.
///
/// Cannot fail, even for malformed tables. Each defect becomes a [`Finding`](crate::Finding), and
/// the description omits the affected fact. Time and memory are proportional to the length of the
/// tables.
///
/// [`Description::compatible`] holds the MADT's OEM table ID and OEM ID, which identify errata. A
/// node's name consists of its table and its number in the table, e.g. `MADT/ITS@0`.
///
/// ```
/// use gic_firmware::acpi::{self, TableError, TableSet};
/// use msi_types::{DeviceId, RequesterId};
///
/// // A kernel finds its tables with `TableSet::from_memory`.
/// let tables: [&[u8]; 3] = [
///     include_bytes!("../tests/data/server/apic.aml"),
///     include_bytes!("../tests/data/server/iort.aml"),
///     include_bytes!("../tests/data/server/mcfg.aml"),
/// ];
/// let machine = acpi::parse(&TableSet::from_blobs(tables)?);
/// let route = machine.route(&machine.hosts[0], RequesterId::pci(1, 0, 0)).unwrap();
/// assert_eq!(route.device_id, DeviceId::new(0x1_0100));
/// # Ok::<(), TableError>(())
/// ```
pub fn parse(tables: &TableSet<'_>) -> Description {
    let mut findings = FindingList::default();
    checks::check_extent(tables, &mut findings);
    check_checksums(tables, &mut findings);
    let madt = structures(tables.madt, &mut findings);
    let gic = msi_controllers::gic(&madt, &mut findings);
    let nodes = nodes(tables.iort, &mut findings);
    let controllers = ControllerList::read(&madt, &nodes, &mut findings);
    let cpus = madt::cpus(&madt, &mut findings);
    let hypervisor = tables.fadt.and_then(hypervisor);
    let psci = tables.fadt.and_then(psci);
    let is_bare = gic.as_ref().is_some_and(|gic| gic.version.value != GicVersion::V2)
        && owns_el2(hypervisor.as_ref(), psci.as_ref());
    checks::check(tables, &madt, &nodes, is_bare, &mut findings);
    let requesters = Requesters::read(tables, &nodes, &controllers, &mut findings);
    let header = tables.madt.table();
    Description {
        model: model(header),
        compatible: [header.oem_table_id(), header.oem_id()]
            .into_iter()
            .filter(|id| !id.is_empty())
            .map(String::from)
            .collect(),
        oem_id: Some(header.oem_id()).filter(|id| !id.is_empty()).map(String::from),
        hypervisor,
        psci,
        cpus,
        gic,
        secondary_gics: Vec::new(),
        controllers: controllers.list,
        iommus: requesters.iommus,
        hosts: requesters.hosts,
        devices: requesters.devices,
        iommu_users: requesters.iommu_users,
        wired: Vec::new(),
        memory: Vec::new(),
        findings: findings.into_list(),
    }
}

/// Returns the vendor of the hypervisor, whose field a FADT has since ACPI 6.0; zero means none.
fn hypervisor(fadt: Table<'_>) -> Option<Fact<String>> {
    const VENDOR: usize = 268;
    let vendor = Fields(fadt.bytes()).u64(VENDOR)?;
    let name = String::from(fadt.padded(VENDOR..VENDOR + 8));
    (vendor != 0).then(|| Fact::new(name, origin(Signature::FADT, VENDOR, "hypervisor vendor")))
}

/// Returns the instruction that calls PSCI, if `ARM_BOOT_ARCH` states PSCI (ACPI 6.5 §5.2.9.4).
fn psci(fadt: Table<'_>) -> Option<Fact<String>> {
    const ARM_BOOT_ARCH: usize = 129;
    let method = match Fields(fadt.bytes()).u16(ARM_BOOT_ARCH)? & 3 {
        1 => "smc",
        3 => "hvc",
        _ => return None,
    };
    Some(Fact::new(String::from(method), origin(Signature::FADT, ARM_BOOT_ARCH, "PSCI")))
}

/// Reports tables with a wrong checksum. (Operating systems only warn about a wrong checksum.)
fn check_checksums(tables: &TableSet<'_>, findings: &mut FindingList) {
    let others = [tables.iort.map(Iort::table), tables.mcfg.map(Mcfg::table), tables.fadt];
    for table in [tables.madt.table()].into_iter().chain(others.into_iter().flatten()) {
        if !table.is_checksum_right() {
            let origin = origin(table.signature(), 9, "checksum");
            findings.add(Rule::TableChecksum, origin, "the bytes do not add up to zero");
        }
    }
}

/// Returns the well-formed structures of a MADT.
fn structures<'a>(madt: Madt<'a>, findings: &mut FindingList) -> Vec<MadtStructure<'a>> {
    madt.structures().filter_map(|structure| sound(structure, findings)).collect()
}

/// Returns the well-formed nodes of an IORT.
fn nodes<'a>(iort: Option<Iort<'a>>, findings: &mut FindingList) -> Vec<IortNode<'a>> {
    let nodes = iort.into_iter().flat_map(Iort::nodes);
    nodes.filter_map(|node| sound(node, findings)).collect()
}

fn model(table: Table<'_>) -> Option<Fact<String>> {
    let names = [table.oem_id(), table.oem_table_id()];
    let model = names.join(" ");
    (!model.trim().is_empty())
        .then(|| Fact::new(String::from(model.trim()), origin(table.signature(), 10, "OEM IDs")))
}
