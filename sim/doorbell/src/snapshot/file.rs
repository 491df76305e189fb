//! Reads snapshots from files. Files are not trusted: their size, the size of the machine and the
//! memory of its model are limited.

use super::config::{self, EVENTS};
use super::kvm;
use super::machine::{Machine, Origin, Problem};
use super::memory::Memory;
use anyhow::{Context, Result, bail, ensure};
use doorbell_inspection::is_stdin;
use gic_arch::gicr::{Ctlr, Propbaser};
use gic_arch::{Lpi, lpi};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use vgic::GuestMemory as _;
use vgic::saved_state::{SavedState, StateVersion, VERSION};
use vgic_kvm::snapshot::KvmSnapshot;

/// Maximum size of a file: 64 MiB for registers, wired interrupts and memory, and for each event
/// that a machine can have 320 bytes, which suffice for an event in indented JSON.
const MAX_BYTES: u64 = (64 << 20) + 320 * EVENTS as u64;

/// Fields that distinguish the formats. A monitor may store the state in its own snapshot, as the
/// field `gic`.
#[derive(Deserialize)]
struct Header {
    format: Option<String>,
    version: Option<serde_json::Value>,
    gic: Option<StateVersion>,
}

#[derive(Deserialize)]
struct Embedded {
    gic: SavedState,
}

/// Reads a snapshot.
pub(super) fn read(path: &Path) -> Result<Machine> {
    let is_stdin = is_stdin(path);
    let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let read = if is_stdin {
        io::stdin().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    let length = read.with_context(|| format!("cannot read {name}"))?;
    if length as u64 > MAX_BYTES {
        bail!("{name} is larger than {} MiB, the limit for a snapshot", MAX_BYTES >> 20);
    }
    parse(&name, &bytes).with_context(|| format!("{name} is not a valid snapshot"))
}

/// Reads a snapshot in either format.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Machine> {
    let header: Header = serde_json::from_slice(bytes)
        .context("a snapshot is JSON of vgic's saved state, or of KVM's attributes and tables")?;
    let machine = match header {
        Header { format: Some(_), .. } => {
            kvm::machine(&serde_json::from_slice::<KvmSnapshot>(bytes)?)?
        }
        Header { gic: Some(StateVersion { version, .. }), .. } => {
            check_version(&version.into())?;
            model(serde_json::from_slice::<Embedded>(bytes)?.gic)?
        }
        Header { version: Some(version), .. } => {
            check_version(&version)?;
            model(serde_json::from_slice(bytes)?)?
        }
        _ => bail!("it has none of the fields `format`, `version` and `gic`"),
    };
    Ok(Machine { name: name.to_owned(), ..machine })
}

fn check_version(version: &serde_json::Value) -> Result<()> {
    let is_read = [2, VERSION].iter().any(|read| version == read);
    ensure!(is_read, "its version is {version}, but this command reads 2 and {VERSION}");
    Ok(())
}

/// Builds a machine from a state that the model saved. Its frames have other addresses, so the
/// machine's state is one without a shape.
fn model(SavedState { distributor, cpus, its, shape, .. }: SavedState) -> Result<Machine> {
    let state = SavedState::without_shape(distributor, cpus, its);
    let config = config::of(&state)?;
    let memory = Memory::everywhere();
    store_configurations(&state, &memory);
    let refused = config.check_restorable(&state).err();
    let problems =
        refused.map(|error| Problem::NotRestorable(error.to_string())).into_iter().collect();
    Ok(Machine {
        name: String::new(),
        origin: Origin::Model,
        config,
        state,
        shape,
        memory: Arc::new(memory),
        stopped: BTreeMap::new(),
        tables: Vec::new(),
        problems,
    })
}

/// Writes the LPI configuration bytes in the state to the guest's configuration tables, because the
/// state does not contain guest memory.
fn store_configurations(state: &SavedState, memory: &Memory) {
    let mut stored = BTreeSet::new();
    for cpu in &state.cpus {
        let register = Propbaser::from(cpu.redistributor.propbaser);
        if !Ctlr::from(cpu.redistributor.ctlr).enable_lpis() {
            continue;
        }
        let own = cpu.redistributor.lpis.iter().map(|own| (own.intid, own.configuration));
        let devices = state.its.iter().flat_map(|its| &its.devices);
        let events = devices.flat_map(|device| &device.events);
        let events = events.map(|event| (event.intid, event.configuration));
        // Usually, all redistributors have the same table.
        let is_new = stored.insert(register.address());
        let events = is_new.then_some(events).into_iter().flatten();
        for (intid, configuration) in own.chain(events) {
            if let (Ok(of), Some(byte)) = (Lpi::try_from(intid), configuration) {
                // Ignore a table outside of the address space: it is not a reason to reject the
                // file.
                let _ = memory.write(register.address() + lpi::config_offset(of), &[byte]);
            }
        }
    }
}
